//! The OAuth server and what depends on who installed the app.

use std::time::Duration;

use serde_json::{Value, json};

use super::fake::*;
use crate::sim::pipedrive::{App, Company, Decision, Faults, Limits, Options, Sandbox};

const BASIC: &str = "Basic c2FuZGJveC1jbGllbnQ6c2FuZGJveC1zZWNyZXQ=";
const ADA: i64 = 11;
const RAVI: i64 = 12;
const MIA: i64 = 21;

/// A gateway that keeps the contract and has a callback URL.
fn with_callback(request: &Seen) -> Scripted {
    if request.path.starts_with("/oauth/callback") {
        return Scripted {
            status: 200,
            content_type: "text/html",
            body: b"<p>Connected</p>".to_vec(),
        };
    }
    good(request)
}

fn ready() -> (FakeGateway, Sandbox) {
    ready_with(Options::default())
}

fn ready_with(options: Options) -> (FakeGateway, Sandbox) {
    let gateway = FakeGateway::start(with_callback);
    let sandbox = sandbox_with(
        &gateway,
        Options {
            app: Some(options.app.unwrap_or_default()),
            ..options
        },
    );
    (gateway, sandbox)
}

fn encoded(text: &str) -> String {
    super::super::caller::escape(text)
}

fn authorize_query(gateway: &FakeGateway, state: &str) -> String {
    let uri = encoded(&format!("{}/oauth/callback", gateway.url));
    format!("client_id=sandbox-client&redirect_uri={uri}&state={state}")
}

/// A request without a token; redirects are not followed.
fn web(sandbox: &Sandbox, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Got {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(LIMIT))
        .proxy(None)
        .build()
        .new_agent();
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", sandbox.url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let sent = if body.is_empty() {
        agent.run(request.body(()).unwrap())
    } else {
        agent.run(request.body(body.to_owned()).unwrap())
    };
    let mut response = sent.unwrap();
    let text = response.body_mut().read_to_string().unwrap();
    Got {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: serde_json::from_str(&text).unwrap_or_default(),
        text,
    }
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn token_call(sandbox: &Sandbox, body: &str) -> Got {
    web(
        sandbox,
        "POST",
        "/oauth/token",
        &[FORM, ("authorization", BASIC)],
        body,
    )
}

/// A user's browser from the authorize page to the code at the callback URL.
fn code(gateway: &FakeGateway, sandbox: &Sandbox, user: i64) -> String {
    let url = format!(
        "{}/oauth/authorize?{}",
        sandbox.url(),
        authorize_query(gateway, "xyz")
    );
    let visit = block_on(sandbox.decide(&url, Some(user), Decision::Allow)).unwrap();
    assert_eq!(visit.status, 200);
    let seen = gateway.seen();
    let path = &seen
        .iter()
        .rev()
        .find(|s| s.path.starts_with("/oauth/callback?"))
        .unwrap()
        .path;
    let code = path.split("code=").nth(1).unwrap();
    code.split('&').next().unwrap().to_owned()
}

fn exchange(gateway: &FakeGateway, sandbox: &Sandbox, code: &str) -> Got {
    let uri = encoded(&format!("{}/oauth/callback", gateway.url));
    token_call(
        sandbox,
        &format!("grant_type=authorization_code&code={code}&redirect_uri={uri}"),
    )
}

fn connect(gateway: &FakeGateway, sandbox: &Sandbox, user: i64) -> Value {
    let got = exchange(gateway, sandbox, &code(gateway, sandbox, user));
    assert_eq!(got.status, 200, "{}", got.text);
    got.body
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap().to_owned()
}

fn as_user(sandbox: &Sandbox, method: &str, path: &str, tokens: &Value, body: Option<&Value>) -> Got {
    call(sandbox, method, path, &text(tokens, "access_token"), body).unwrap()
}

fn office() -> Value {
    json!({"name": "Office", "provider_channel_id": "gw-office"})
}

#[test]
fn the_authorize_page_says_who_asks_for_what_and_both_buttons_lead_to_the_callback() {
    let (gateway, sandbox) = ready();
    let query = authorize_query(&gateway, "a%2Fb");
    let page = web(&sandbox, "GET", &format!("/oauth/authorize?{query}"), &[], "");
    assert_eq!(page.status, 200);
    for words in [
        "pipepost",
        "Ada Brooks",
        "no admin",
        "messages in your inbox",
        "a/b",
    ] {
        assert!(page.text.contains(words), "{words}: {}", page.text);
    }
    let decide = |decision: &str| {
        let body = format!("{query}&user=11&decision={decision}");
        let got = web(&sandbox, "POST", "/oauth/authorize", &[FORM], &body);
        assert_eq!(got.status, 302);
        got.header("location").to_owned()
    };
    let callback = format!("{}/oauth/callback?", gateway.url);
    let allowed = decide("allow");
    assert!(allowed.starts_with(&format!("{callback}code=")), "{allowed}");
    assert!(allowed.ends_with("&state=a%2Fb"), "{allowed}");
    assert_eq!(decide("deny"), format!("{callback}error=user_denied&state=a%2Fb"));
}

#[test]
fn a_wrong_client_or_callback_is_an_error_page_and_never_a_redirect() {
    let (gateway, sandbox) = ready();
    let right = authorize_query(&gateway, "x");
    for (query, words) in [
        (right.replace("sandbox-client", "another"), "client is invalid"),
        (right.replace("callback", "elsewhere"), "redirect_uri is invalid"),
        (
            "client_id=sandbox-client".to_owned(),
            "redirect_uri is not a valid URI",
        ),
    ] {
        for method in ["GET", "POST"] {
            let body = format!("{query}&user=11&decision=allow");
            let got = if method == "GET" {
                web(&sandbox, method, &format!("/oauth/authorize?{query}"), &[], "")
            } else {
                web(&sandbox, method, "/oauth/authorize", &[FORM], &body)
            };
            assert_eq!(got.status, 400, "{method} {query}");
            assert!(got.text.contains(words), "{words}: {}", got.text);
            assert_eq!(got.header("location"), "");
        }
    }
}

#[test]
fn a_code_becomes_tokens_that_open_the_api_and_tell_its_address() {
    let (gateway, sandbox) = ready();
    let none = call(
        &sandbox,
        "POST",
        "/api/v1/channels",
        "sandbox-token",
        Some(&office()),
    )
    .unwrap();
    assert_eq!(none.status, 401, "the fixed token is no token here");
    let code = code(&gateway, &sandbox, ADA);
    let tokens = exchange(&gateway, &sandbox, &code);
    assert_eq!(tokens.status, 200, "{}", tokens.text);
    assert!(text(&tokens.body, "access_token").len() > 768);
    assert_eq!(text(&tokens.body, "api_domain"), sandbox.url());
    assert_eq!(text(&tokens.body, "token_type"), "Bearer");
    assert_eq!(tokens.body["expires_in"], json!(3600));
    let me = as_user(&sandbox, "GET", "/api/v1/users/me", &tokens.body, None);
    assert_eq!(me.body.pointer("/data/name"), Some(&json!("Ada Brooks")));
    assert_eq!(
        me.body.pointer("/data/company_name"),
        Some(&json!("Acme Heating"))
    );
    assert_eq!(me.header("x-token-cost"), "2");
    let made = as_user(
        &sandbox,
        "POST",
        "/api/v1/channels",
        &tokens.body,
        Some(&office()),
    );
    assert_eq!(made.body.pointer("/data/pd_user_id"), Some(&json!(ADA)));

    let again = exchange(&gateway, &sandbox, &code);
    assert_eq!(again.status, 400);
    assert_eq!(
        text(&again.body, "message"),
        "Invalid grant: authorization_code is invalid"
    );
}

#[test]
fn wrong_token_requests_are_answered_with_400_and_pipedrives_texts() {
    let (gateway, sandbox) = ready();
    let code = code(&gateway, &sandbox, ADA);
    let uri = encoded(&format!("{}/oauth/callback", gateway.url));
    let right = format!("grant_type=authorization_code&code={code}&redirect_uri={uri}");
    let json_type = ("content-type", "application/json");
    let basic = ("authorization", BASIC);
    let wrong_secret = ("authorization", "Basic c2FuZGJveC1jbGllbnQ6d3Jvbmc=");
    for (headers, body, words) in [
        (
            vec![json_type, basic],
            right.clone(),
            "Invalid request: content must be application/x-www-form-urlencoded",
        ),
        (
            vec![FORM],
            format!("{right}&client_id=sandbox-client&client_secret=sandbox-secret"),
            "Invalid client: cannot retrieve client credentials",
        ),
        (
            vec![FORM, wrong_secret],
            right.clone(),
            "Invalid client: client is invalid",
        ),
        (
            vec![FORM, basic],
            right.replace("grant_type=authorization_code&", ""),
            "Missing parameter: grant_type",
        ),
        (
            vec![FORM, basic],
            right.replace("=authorization_code", "=password"),
            "Unsupported grant type: grant_type is invalid",
        ),
        (
            vec![FORM, basic],
            right.replace("callback", "elsewhere"),
            "Invalid request: redirect_uri is invalid",
        ),
        (
            vec![FORM, basic],
            format!("grant_type=authorization_code&code={code}"),
            "Invalid request: redirect_uri is not a valid URI",
        ),
        (
            vec![FORM, basic],
            "grant_type=refresh_token&refresh_token=unknown".to_owned(),
            "Invalid grant: refresh_token is invalid",
        ),
    ] {
        let got = web(&sandbox, "POST", "/oauth/token", &headers, &body);
        assert_eq!((got.status, text(&got.body, "message").as_str()), (400, words));
    }
    assert_eq!(
        exchange(&gateway, &sandbox, &code).status,
        200,
        "what was refused did not use up the code"
    );
}

#[test]
fn tokens_end_by_the_servers_clock_and_a_refresh_gives_new_ones() {
    let (gateway, sandbox) = ready();
    let first = connect(&gateway, &sandbox, ADA);
    sandbox.advance_clock(Duration::from_secs(3_601));
    let got = as_user(&sandbox, "GET", "/api/v1/users/me", &first, None);
    assert_eq!(
        (got.status, text(&got.body, "error").as_str()),
        (401, "Invalid token: access token has expired")
    );
    let refresh = |tokens: &Value| {
        let token = encoded(&text(tokens, "refresh_token"));
        token_call(
            &sandbox,
            &format!("grant_type=refresh_token&refresh_token={token}"),
        )
    };
    let second = refresh(&first);
    assert_eq!(second.status, 200, "{}", second.text);
    assert_eq!(
        as_user(&sandbox, "GET", "/api/v1/users/me", &second.body, None).status,
        200
    );
    assert_eq!(refresh(&first).status, 400, "it was exchanged already");
    sandbox.advance_clock(Duration::from_secs(61 * 24 * 3_600));
    let late = refresh(&second.body);
    assert_eq!(
        text(&late.body, "message"),
        "Invalid grant: refresh_token is invalid"
    );
    let date = as_user(&sandbox, "GET", "/api/v1/users/me", &second.body, None);
    let shown = super::super::clock::http_date(sandbox.server_ms()).unwrap();
    assert_eq!(date.header("date")[..16], shown[..16], "the day is the server's");
}

#[test]
fn only_admins_register_channels_and_only_the_installer_deletes() {
    let (gateway, sandbox) = ready();
    let (ada, ravi, mia) = (
        connect(&gateway, &sandbox, ADA),
        connect(&gateway, &sandbox, RAVI),
        connect(&gateway, &sandbox, MIA),
    );
    let got = as_user(&sandbox, "POST", "/api/v1/channels", &ravi, Some(&office()));
    assert_eq!((got.status, got.code()), (403, "ADMIN_ONLY"));
    sandbox.set_admin(RAVI, true);
    assert_eq!(
        as_user(&sandbox, "POST", "/api/v1/channels", &ada, Some(&office())).status,
        200
    );
    let taken = as_user(&sandbox, "POST", "/api/v1/channels", &mia, Some(&office()));
    assert_eq!(
        (taken.status, taken.code()),
        (400, "INVALID_BODY"),
        "another company's"
    );
    let got = as_user(&sandbox, "DELETE", "/api/v1/channels/gw-office", &ravi, None);
    assert_eq!((got.status, got.code()), (403, "FORBIDDEN_USER_REQUEST"));
    let foreign = as_user(&sandbox, "POST", RECEIVE, &mia, Some(&message("m1", "c1")));
    assert_eq!((foreign.status, foreign.code()), (404, "NOT_FOUND"));
    assert_eq!(
        as_user(&sandbox, "DELETE", "/api/v1/channels/gw-office", &ada, None).status,
        200
    );
}

#[test]
fn without_the_scope_the_channels_api_is_closed_and_the_user_is_still_told() {
    let mut app = App::default();
    "base".clone_into(&mut app.rules.scope);
    let (gateway, sandbox) = ready_with(Options {
        app: Some(app),
        ..Options::default()
    });
    let tokens = connect(&gateway, &sandbox, ADA);
    assert_eq!(
        as_user(&sandbox, "GET", "/api/v1/users/me", &tokens, None).status,
        200
    );
    let got = as_user(&sandbox, "POST", "/api/v1/channels", &tokens, Some(&office()));
    assert_eq!(
        (got.status, text(&got.body, "error").as_str()),
        (403, "Scope and URL mismatch")
    );
}

#[test]
fn an_uninstallation_ends_tokens_and_channels_and_tells_the_gateway() {
    let (gateway, sandbox) = ready();
    let tokens = connect(&gateway, &sandbox, ADA);
    as_user(&sandbox, "POST", "/api/v1/channels", &tokens, Some(&office()));
    assert_eq!(block_on(sandbox.share(ADA, true)), Ok(200));
    assert_eq!(block_on(sandbox.uninstall(ADA)), Ok(200));
    assert!(sandbox.read(|state| state.channels.is_empty()));
    assert_eq!(
        as_user(&sandbox, "GET", "/api/v1/users/me", &tokens, None).status,
        401
    );
    let told: Vec<Seen> = gateway
        .seen()
        .into_iter()
        .filter(|s| s.path == "/oauth/callback")
        .collect();
    let body = |seen: &Seen| serde_json::from_slice::<Value>(&seen.body).unwrap();
    let [shared, left] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(shared.method, "POST");
    assert_eq!(
        body(shared),
        json!({"company_id": 1, "user_id": ADA, "isShared": true})
    );
    assert_eq!(
        (left.method.as_str(), left.authorization.as_str()),
        ("DELETE", BASIC)
    );
    assert_eq!(left.content_type, "application/json");
    assert_eq!(body(left)["client_id"], json!("sandbox-client"));
    assert_eq!(body(left)["user_id"], json!(ADA));
    assert!(
        block_on(sandbox.uninstall(ADA)).is_err(),
        "it is not installed any more"
    );
    assert_eq!(sandbox.violations().len(), 0);
}

#[test]
fn revoking_is_the_apps_own_way_out() {
    let (gateway, sandbox) = ready();
    let tokens = connect(&gateway, &sandbox, ADA);
    as_user(&sandbox, "POST", "/api/v1/channels", &tokens, Some(&office()));
    let token = encoded(&text(&tokens, "refresh_token"));
    let body = format!("token={token}&token_type_hint=refresh_token");
    let refused = web(&sandbox, "POST", "/oauth/revoke", &[FORM], &body);
    assert_eq!(refused.status, 400, "without credentials");
    let done = web(
        &sandbox,
        "POST",
        "/oauth/revoke",
        &[FORM, ("authorization", BASIC)],
        &body,
    );
    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!(
        as_user(&sandbox, "GET", "/api/v1/users/me", &tokens, None).status,
        401
    );
    assert!(sandbox.read(|state| state.channels.is_empty()));
}

#[test]
fn an_outage_of_the_oauth_server_is_no_refusal_and_a_lost_answer_has_still_rotated() {
    let (gateway, sandbox) = ready();
    let tokens = connect(&gateway, &sandbox, ADA);
    let token = encoded(&text(&tokens, "refresh_token"));
    let body = format!("grant_type=refresh_token&refresh_token={token}");
    let fault = |oauth_down, oauth_drop_after| Faults {
        oauth_down,
        oauth_drop_after,
        ..Faults::default()
    };
    sandbox.set_faults(fault(true, false)).unwrap();
    assert_eq!(token_call(&sandbox, &body).status, 503);
    sandbox.set_faults(fault(false, true)).unwrap();
    let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
    let lost = agent
        .post(format!("{}/oauth/token", sandbox.url()))
        .header(FORM.0, FORM.1)
        .header("authorization", BASIC)
        .send(&body);
    assert!(lost.is_err());
    sandbox.set_faults(Faults::default()).unwrap();
    assert_eq!(token_call(&sandbox, &body).status, 400);
}

#[test]
fn companies_have_their_own_budgets_and_users_their_own_bursts() {
    let mut app = App::default();
    app.companies[1] = Company {
        limits: Some(Limits {
            burst: Some(5),
            daily_tokens: Some(12),
            ..Limits::default()
        }),
        ..app.companies[1].clone()
    };
    let (gateway, sandbox) = ready_with(Options {
        app: Some(app),
        ..Options::default()
    });
    let (ada, mia) = (connect(&gateway, &sandbox, ADA), connect(&gateway, &sandbox, MIA));
    let channel = json!({"name": "South", "provider_channel_id": "gw-south"});
    let made = as_user(&sandbox, "POST", "/api/v1/channels", &mia, Some(&channel));
    assert_eq!((made.status, made.header("x-ratelimit-remaining")), (200, "4"));
    assert_eq!(made.header("x-daily-ratelimit-token-remaining"), "2");
    assert_eq!(
        as_user(&sandbox, "POST", "/api/v1/channels", &mia, Some(&channel)).status,
        429
    );
    for _ in 0..3 {
        assert_eq!(
            as_user(&sandbox, "POST", "/api/v1/channels", &ada, Some(&office())).status,
            200
        );
    }
    sandbox.advance_clock(Duration::from_secs(24 * 3_600));
    let token = encoded(&text(&mia, "refresh_token"));
    let fresh = token_call(
        &sandbox,
        &format!("grant_type=refresh_token&refresh_token={token}"),
    );
    let next_day = as_user(&sandbox, "POST", "/api/v1/channels", &fresh.body, Some(&channel));
    assert_eq!(next_day.status, 200, "{}", next_day.text);
}

#[test]
fn the_switches_work_over_http() {
    let (gateway, sandbox) = ready();
    let send = |path: &str, body: &Value| {
        let json_type = ("content-type", "application/json");
        web(
            &sandbox,
            "POST",
            &format!("/sandbox/{path}"),
            &[json_type],
            &body.to_string(),
        )
    };
    assert_eq!(
        send("oauth", &json!({"access_seconds": 2, "rotate": false})).status,
        200
    );
    assert_eq!(send("oauth", &json!({"unknown": 2})).status, 400);
    let url = format!(
        "{}/oauth/authorize?{}",
        sandbox.url(),
        authorize_query(&gateway, "s")
    );
    let denied = send("oauth/decide", &json!({"url": url, "decision": "deny"}));
    assert_eq!(denied.status, 200, "{}", denied.text);
    assert!(
        gateway
            .seen()
            .iter()
            .any(|s| s.path.contains("error=user_denied&state=s"))
    );
    let tokens = connect(&gateway, &sandbox, ADA);
    assert_eq!(tokens["expires_in"], json!(2));
    let shown = get(&sandbox, "/sandbox/oauth").body;
    assert_eq!(shown.pointer("/users/0/installed"), Some(&json!(true)));
    assert_eq!(send("oauth/end-access", &json!({})).body, json!({"ended": 1}));
    assert_eq!(
        as_user(&sandbox, "GET", "/api/v1/users/me", &tokens, None).status,
        401
    );
    assert_eq!(
        send("oauth/admin", &json!({"user": RAVI, "admin": true})).status,
        200
    );
    assert_eq!(send("oauth/end-refresh", &json!({})).body, json!({"ended": 1}));
    assert_eq!(
        send("oauth/share", &json!({"user": ADA, "shared": false})).status,
        200
    );
    assert_eq!(
        send("oauth/uninstall", &json!({"user": ADA})).body,
        json!({"status": 200})
    );
    assert_eq!(
        send("clock", &json!({"advance_seconds": 60, "speed": 10})).status,
        200
    );
}

#[test]
fn with_a_fixed_token_there_is_no_oauth_server() {
    let gateway = FakeGateway::start(good);
    let sandbox = sandbox(&gateway);
    let query = authorize_query(&gateway, "s");
    assert_eq!(
        web(&sandbox, "GET", &format!("/oauth/authorize?{query}"), &[], "").status,
        404
    );
    let me = get(&sandbox, "/api/v1/users/me");
    assert_eq!(me.body.pointer("/data/company_id"), Some(&json!(1)));
    assert_eq!(get(&sandbox, "/sandbox/oauth").body, json!({}));
}
