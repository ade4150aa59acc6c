use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::{Secret, Timestamp};
use crate::protocol::pipedrive::manifest::decode;

const NOW: Timestamp = Timestamp::from_unix_ms(1_769_744_285_007);
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn grant(status: u16, body: &serde_json::Value) -> Result<Granted, Refused> {
    granted(status, body.to_string().as_bytes(), None, &[])
}

#[test]
fn the_authorization_url_carries_the_app_the_callback_and_the_state() {
    assert_eq!(
        authorize_url(
            "https://oauth.pipedrive.com",
            "ab c",
            "https://gw.example/oauth/callback",
            "x-_~."
        ),
        "https://oauth.pipedrive.com/oauth/authorize?client_id=ab%20c&\
         redirect_uri=https%3A%2F%2Fgw.example%2Foauth%2Fcallback&state=x-_~."
    );
}

#[test]
fn token_requests_are_forms() {
    assert_eq!(
        exchange(&secret("a/b+c=&"), "https://gw.example/cb").as_str(),
        "grant_type=authorization_code&code=a%2Fb%2Bc%3D%26&redirect_uri=https%3A%2F%2Fgw.example%2Fcb"
    );
    assert_eq!(
        refresh(&secret("1:2")).as_str(),
        "grant_type=refresh_token&refresh_token=1%3A2"
    );
    assert_eq!(
        revoke(&secret("r")).as_str(),
        "token=r&token_type_hint=refresh_token"
    );
}

#[test]
fn tokens_are_read_with_everything_that_came() {
    let body = json!({
        "access_token": "1:2:abc", "token_type": "Bearer", "refresh_token": "r:1", "scope": "base,messengers-integration",
        "expires_in": 3599, "api_domain": "https://acme.pipedrive.com",
    });
    let granted = grant(200, &body).unwrap();
    assert_eq!(granted.access.expose(), "1:2:abc");
    assert_eq!(granted.refresh.as_ref().unwrap().expose(), "r:1");
    assert_eq!(granted.lifetime, Duration::from_secs(3599));
    assert_eq!(granted.api_domain.as_deref(), Some("https://acme.pipedrive.com"));
    assert!(granted.has_scope());
    assert!(!format!("{granted:?}").contains("abc"));
}

#[test]
fn an_answer_that_says_less_is_read_with_what_is_usual() {
    let granted = grant(200, &json!({"access_token": "a", "expires_in": "7200"})).unwrap();
    assert_eq!(
        (granted.refresh.clone(), granted.lifetime),
        (None, Duration::from_secs(7200))
    );
    assert!(granted.has_scope());
    for (expires, seconds) in [
        (json!(0), 1),
        (json!(null), 3600),
        (json!(u64::MAX), 30 * 86400),
        (json!(-5), 3600),
    ] {
        let granted = grant(200, &json!({"access_token": "a", "expires_in": expires})).unwrap();
        assert_eq!(granted.lifetime, Duration::from_secs(seconds), "{expires}");
    }
}

#[test]
fn a_missing_scope_is_noticed_in_any_of_its_spellings() {
    let with = |scope: &str| {
        grant(200, &json!({"access_token": "a", "scope": scope}))
            .unwrap()
            .has_scope()
    };
    assert!(with("base messengers-integration"));
    assert!(with("base, messengers-integration"));
    assert!(with(""));
    assert!(!with("base,deals:full"));
    assert!(!with("not-messengers-integration"));
}

#[test]
fn an_answer_without_usable_tokens_is_tried_again() {
    for body in [
        json!({}),
        json!({"access_token": ""}),
        json!({"access_token": "a\r\nb"}),
        json!([]),
    ] {
        assert!(matches!(grant(200, &body), Err(Refused::Later { .. })), "{body}");
    }
    assert!(matches!(
        granted(200, b"<html>", None, &[]),
        Err(Refused::Later { .. })
    ));
}

#[test]
fn each_refusal_is_told_apart() {
    let of = |status, text: &str| grant(status, &json!({"success": false, "error": text})).unwrap_err();
    assert!(matches!(
        of(400, "Invalid grant: authorization code has expired"),
        Refused::Grant(_)
    ));
    assert!(matches!(
        of(400, "Invalid grant: refresh token is invalid"),
        Refused::Grant(_)
    ));
    assert!(matches!(
        of(400, "Invalid client: client is invalid"),
        Refused::Client(_)
    ));
    assert!(matches!(of(401, "whatever"), Refused::Client(_)));
    assert!(matches!(
        of(400, "Invalid request: `redirect_uri` is invalid"),
        Refused::RedirectUri(_)
    ));
    assert!(matches!(
        of(400, "Invalid grant: redirect_uri does not match"),
        Refused::RedirectUri(_)
    ));
    assert!(matches!(of(400, "invalid_scope"), Refused::Scope(_)));
    assert!(matches!(of(400, "Invalid request: bad"), Refused::Other(_)));
    let oauth = json!({"error": "invalid_grant", "error_description": "expired"});
    assert_eq!(
        grant(400, &oauth),
        Err(Refused::Grant("invalid_grant: expired".to_owned()))
    );
    for status in [302, 408, 429, 500, 503] {
        assert!(
            matches!(of(status, "Invalid grant"), Refused::Later { .. }),
            "{status}"
        );
    }
    let between = granted(400, b"<html>Bad request</html>", None, &[]);
    assert!(matches!(between, Err(Refused::Later { .. })), "{between:?}");
    let paused = granted(429, b"", Some(Duration::from_secs(9)), &[]);
    assert!(matches!(paused, Err(Refused::Later { after: Some(after), .. }) if after.as_secs() == 9));
}

#[test]
fn a_complaint_that_repeats_what_was_sent_is_cleaned() {
    let body = json!({"error": "Invalid grant: code TOPSECRET\u{1b}[31m is invalid"}).to_string();
    let refused = granted(400, body.as_bytes(), None, &[&secret("TOPSECRET")]).unwrap_err();
    assert_eq!(
        refused,
        Refused::Grant("Invalid grant: code ***[31m is invalid".to_owned())
    );
}

#[test]
fn the_user_is_read_from_numbers_or_texts() {
    let body = json!({"success": true, "data": {
        "id": 7, "name": "Ada", "email": "a@example.com", "company_id": "12", "company_name": "Acme", "is_admin": 1,
    }});
    let read = user(200, body.to_string().as_bytes(), None, &[]).unwrap();
    assert_eq!((read.id, read.company_id, read.is_admin), (7, 12, Some(true)));
    assert_eq!((read.name.as_str(), read.company.as_str()), ("Ada", "Acme"));
    let bare = json!({"data": {"id": 7, "company_id": 12}}).to_string();
    let read = user(200, bare.as_bytes(), None, &[]).unwrap();
    assert_eq!(
        (read.name.as_str(), read.company.as_str(), read.is_admin),
        ("user 7", "company 12", None)
    );
    let missing = user(403, br#"{"success":false,"error":"Forbidden"}"#, None, &[]);
    assert!(matches!(missing, Err(Refused::Scope(_))));
}

#[test]
fn a_companys_address_must_be_a_host_over_tls() {
    assert_eq!(
        api_base("https://acme.pipedrive.com/", false).as_deref(),
        Some("https://acme.pipedrive.com/api/v1")
    );
    assert_eq!(
        api_base("http://127.0.0.1:80", true).as_deref(),
        Some("http://127.0.0.1:80/api/v1")
    );
    for wrong in [
        "http://acme.pipedrive.com",
        "acme.pipedrive.com",
        "https://",
        "https://user@evil.example",
        "https://acme.pipedrive.com/other",
        "https://a b",
        "file:///etc/passwd",
    ] {
        assert_eq!(api_base(wrong, false), None, "{wrong}");
    }
}

#[test]
fn a_callback_brings_a_code_with_or_without_state_or_a_refusal() {
    assert_eq!(
        authorized("code=a%2Fb&state=s1&lang=en"),
        Authorized::Code {
            code: secret("a/b"),
            state: Some(secret("s1"))
        }
    );
    assert_eq!(
        authorized("code=abc"),
        Authorized::Code {
            code: secret("abc"),
            state: None
        }
    );
    assert_eq!(
        authorized("code=abc&state="),
        Authorized::Code {
            code: secret("abc"),
            state: None
        }
    );
    assert_eq!(
        authorized("error=user_denied&state=s"),
        Authorized::Refused {
            error: "user_denied".to_owned(),
            state: Some(secret("s"))
        }
    );
    let long = format!("code={}", "x".repeat(3000));
    for wrong in [
        "",
        "state=x",
        "code=",
        "code=a&code=b",
        "code=a&state=1&state=2",
        "code=%ff",
        "code=a%0ab",
        &long,
    ] {
        assert_eq!(authorized(wrong), Authorized::Malformed, "{wrong}");
    }
}

#[test]
fn an_uninstall_is_read_in_the_forms_that_a_time_may_have() {
    for time in [
        json!("2026-01-30T03:38:05.007Z"),
        json!("2026-01-30 03:38:05.007"),
        json!(1_769_744_285_007_i64),
    ] {
        let body = json!({"client_id": "c", "company_id": 12, "user_id": "7", "timestamp": time}).to_string();
        let read = uninstalled(body.as_bytes()).unwrap();
        assert_eq!(
            (read.client_id.as_str(), read.company_id, read.user_id),
            ("c", 12, 7)
        );
        assert_eq!(read.at, Some(NOW), "{time}");
    }
    let body = |time: serde_json::Value| {
        json!({"client_id": "c", "company_id": 12, "user_id": 7, "timestamp": time}).to_string()
    };
    assert_eq!(
        uninstalled(body(json!(1_769_744_285)).as_bytes()).unwrap().at,
        Some(Timestamp::from_unix_ms(1_769_744_285_000))
    );
    assert_eq!(uninstalled(body(json!("yesterday")).as_bytes()).unwrap().at, None);
    for wrong in ["", "{}", "[]", r#"{"client_id":"c","company_id":-1,"user_id":7}"#] {
        assert!(uninstalled(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn a_change_of_sharing_is_read() {
    let read = sharing(br#"{"company_id":1,"user_id":2,"isShared":true}"#).unwrap();
    assert_eq!(
        read,
        Sharing {
            company_id: 1,
            user_id: 2,
            is_shared: true
        }
    );
    assert!(
        !sharing(br#"{"company_id":1,"user_id":2,"isShared":0}"#)
            .unwrap()
            .is_shared
    );
    for wrong in [
        "{}",
        r#"{"company_id":1,"user_id":2}"#,
        r#"{"company_id":1,"user_id":2,"isShared":"maybe"}"#,
    ] {
        assert!(sharing(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn warnings_come_at_30_7_and_1_days() {
    let after = |days: i64, ms: i64| warning(NOW, NOW.plus_ms(days * DAY_MS + ms));
    assert_eq!(after(0, 0), None);
    assert_eq!(after(30, -1), None);
    assert_eq!(after(30, 0), Some(Warning::Month));
    assert_eq!(after(53, -1), Some(Warning::Month));
    assert_eq!(after(53, 0), Some(Warning::Week));
    assert_eq!(after(59, 0), Some(Warning::Day));
    assert_eq!(after(60, 0), Some(Warning::Over));
    assert_eq!(dies_at(NOW), NOW.plus_ms(60 * DAY_MS));
}

#[test]
fn an_idle_gateway_refreshes_daily_and_when_a_clock_was_wrong() {
    assert!(!idle_refresh_due(NOW, NOW.plus_ms(DAY_MS - 1)));
    assert!(idle_refresh_due(NOW, NOW.plus_ms(DAY_MS)));
    assert!(!idle_refresh_due(NOW, NOW.plus_ms(-1000)));
    assert!(idle_refresh_due(NOW, NOW.plus_ms(-DAY_MS)));
}

#[test]
fn short_lives_have_short_margins() {
    assert_eq!(refresh_early(Duration::from_secs(3600)), Duration::from_secs(300));
    assert_eq!(refresh_early(Duration::from_secs(2)), Duration::from_millis(200));
    assert_eq!(retry_gap(Duration::from_secs(3600)), Duration::from_secs(60));
    assert_eq!(retry_gap(Duration::from_secs(2)), Duration::from_millis(500));
}

proptest! {
    #[test]
    fn nothing_that_a_stranger_sends_breaks_the_callback(query in ".{0,200}", body in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Authorized::Refused { error, .. } = authorized(&query) {
            prop_assert!(error.len() <= 64 && error.is_ascii());
        }
        drop((uninstalled(&body), sharing(&body)));
        for status in [200, 400, 401, 403, 500] {
            drop((granted(status, &body, None, &[]), user(status, &body, None, &[])));
        }
    }

    #[test]
    fn what_is_put_into_a_form_comes_out_the_same(text in ".{1,60}") {
        let form = refresh(&secret(&text));
        let value = form.strip_prefix("grant_type=refresh_token&refresh_token=").unwrap();
        prop_assert_eq!(decode(value, true), Some(text));
    }

    #[test]
    fn a_code_comes_through_the_query_unchanged(code in "[!-~]{1,80}", state in "[!-~]{1,60}") {
        let url = authorize_url("x", "c", &code, &state);
        let query = url.split_once("redirect_uri=").unwrap().1;
        let query = format!("code={query}");
        prop_assert_eq!(authorized(&query), Authorized::Code { code: secret(&code), state: Some(secret(&state)) });
    }

    #[test]
    fn no_answer_makes_a_secret_appear(padding in "[a-z :]{0,40}", status in 400_u16..500) {
        let body = json!({"error": format!("{padding}S3CR3T{padding}"), "message": "S3CR3T"}).to_string();
        let refused = granted(status, body.as_bytes(), None, &[&secret("S3CR3T")]).unwrap_err();
        let shown = format!("{refused} {refused:?}");
        prop_assert!(!shown.contains("S3CR3T"));
    }
}
