//! Each documented rule accepts what keeps it and refuses what breaks it.

use serde_json::{Value, json};

use super::fake::{conversation, message, one, participants, served_message};
use crate::sim::pipedrive::contract;
use crate::sim::pipedrive::fields::{is_id, is_iso_time, is_minutes_time, is_url, same_time};

/// Changes one place of a body; `None` takes it away.
fn changed(body: &Value, place: &str, to: Option<Value>) -> Value {
    let mut body = body.clone();
    let (parent, name) = place.rsplit_once('/').unwrap();
    let parent = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match to {
        Some(value) => parent.insert(name.to_owned(), value),
        None => parent.remove(name),
    };
    body
}

/// (place, value, whether the rules are kept)
type Case = (&'static str, Option<Value>, bool);

fn check_table(good: &Value, check: impl Fn(&Value) -> Vec<String>, table: Vec<Case>) {
    assert_eq!(check(good), Vec::<String>::new(), "the starting point");
    for (place, value, kept) in table {
        let body = changed(good, place, value.clone());
        let problems = check(&body);
        assert_eq!(problems.is_empty(), kept, "{place} = {value:?}: {problems:?}");
    }
}

fn refused(place: &'static str, values: impl IntoIterator<Item = Value>) -> impl Iterator<Item = Case> {
    values.into_iter().map(move |value| (place, Some(value), false))
}

fn accepted(place: &'static str, values: impl IntoIterator<Item = Value>) -> impl Iterator<Item = Case> {
    values.into_iter().map(move |value| (place, Some(value), true))
}

#[test]
fn rules_of_a_received_message() {
    let mut table: Vec<Case> = Vec::new();
    for id in ["/id", "/channel_id", "/sender_id", "/conversation_id"] {
        table.push((id, None, false));
        table.extend(refused(
            id,
            [
                json!(""),
                json!(5),
                json!(null),
                json!("a b"),
                json!("a/b"),
                json!("ä"),
            ],
        ));
        table.extend(accepted(
            id,
            [json!("a"), json!("A-9_x.~"), json!("x".repeat(255))],
        ));
    }
    table.push(("/message", None, false));
    table.extend(refused("/message", [json!(""), json!(null), json!(5)]));
    table.extend(accepted("/message", [json!(" "), json!("ok 👍")]));
    table.push(("/status", None, false));
    table.extend(refused("/status", [json!("queued"), json!("SENT"), json!("")]));
    table.extend(accepted(
        "/status",
        ["sent", "delivered", "read", "failed"].map(Value::from),
    ));
    for time in ["/created_at", "/reply_by"] {
        table.extend(refused(
            time,
            [json!(null), json!(""), json!(1_769_744_285), json!("yesterday")],
        ));
        table.extend(accepted(
            time,
            [json!("2026-03-01 09:30"), json!("2026-03-01T09:30:00.000Z")],
        ));
    }
    table.push(("/created_at", None, false));
    table.push(("/reply_by", None, true));
    table.extend(refused(
        "/conversation_link",
        [json!(null), json!(""), json!(5), json!("gw/c1")],
    ));
    table.extend(accepted("/conversation_link", [json!("https://gw.example/c1")]));
    table.push(("/attachments", None, false));
    table.extend(refused("/attachments", [json!(null), json!({}), json!("")]));
    table.extend(refused("/surprise", [json!(1)]));
    check_table(&message("m1", "c1"), contract::received_message, table);
}

#[test]
fn rules_of_a_received_attachment() {
    let mut good = message("m1", "c1");
    good["attachments"] = json!([{
        "id": "f1", "type": "image/png", "url": "https://gw.example/media/x", "name": "a.png", "size": 7,
        "preview_url": "https://gw.example/media/x", "link_expires": true,
    }]);
    let mut table: Vec<Case> = Vec::new();
    for required in [
        "/attachments/0/id",
        "/attachments/0/type",
        "/attachments/0/url",
        "/attachments/0/name",
        "/attachments/0/size",
        "/attachments/0/preview_url",
    ] {
        table.push((required, None, false));
        table.extend(refused(required, [json!(null), json!([])]));
    }
    table.push(("/attachments/0/link_expires", None, true));
    table.extend(refused(
        "/attachments/0/link_expires",
        [json!("true"), json!(null)],
    ));
    table.extend(refused(
        "/attachments/0/url",
        [json!(""), json!("/media/x"), json!("ftp://a/b")],
    ));
    table.extend(refused(
        "/attachments/0/size",
        [json!(-1), json!("7"), json!(0.5)],
    ));
    table.extend(accepted("/attachments/0/size", [json!(0)]));
    table.extend(accepted("/attachments/0/preview_url", [json!("")]));
    table.extend(refused("/attachments/0/surprise", [json!(1)]));
    let two = json!([good["attachments"][0], good["attachments"][0]]);
    table.push(("/attachments", Some(two), false));
    check_table(&good, contract::received_message, table);
}

#[test]
fn rules_of_a_channel() {
    let good = json!({
        "name": "Office", "provider_channel_id": "gw-office", "avatar_url": "https://gw.example/a.png",
        "provider_type": "other", "template_support": false,
    });
    let mut table: Vec<Case> = vec![
        ("/name", None, false),
        ("/provider_channel_id", None, false),
        ("/avatar_url", None, true),
        ("/provider_type", None, true),
        ("/template_support", None, true),
    ];
    table.extend(refused("/name", [json!(""), json!(1)]));
    table.extend(refused("/avatar_url", [json!(null), json!(""), json!("a.png")]));
    table.extend(refused("/provider_type", [json!("sms"), json!(null)]));
    table.extend(accepted("/provider_type", [json!("facebook"), json!("whatsapp")]));
    table.extend(refused("/template_support", [json!("yes"), json!(null)]));
    table.extend(refused("/id", [json!("x")]));
    check_table(&good, contract::channel, table);
}

#[test]
fn rules_of_a_served_conversation() {
    let good = one(&conversation("c1", &[served_message("m1")], ""));
    let (office, customer) = (participants()[0].clone(), participants()[1].clone());
    let mut table: Vec<Case> = Vec::new();
    for field in [
        "id",
        "link",
        "status",
        "seen",
        "next_messages_cursor",
        "messages",
        "participants",
    ] {
        let place: &'static str = Box::leak(format!("/data/{field}").into_boxed_str());
        table.push((place, None, false));
        table.extend(refused(place, [json!(null), json!(5)]));
    }
    for field in ["id", "status", "created_at", "message", "sender_id"] {
        let place: &'static str = Box::leak(format!("/data/messages/0/{field}").into_boxed_str());
        table.push((place, None, false));
        table.extend(refused(place, [json!(null)]));
    }
    table.extend([
        ("/success", Some(json!(false)), false),
        ("/success", None, false),
        ("/additional_data", None, false),
        ("/additional_data/after", Some(json!(null)), false),
        ("/additional_data/after", Some(json!("other")), false),
        ("/data/id", Some(json!("c2")), false),
        ("/data/link", Some(json!("https://gw.example/c1")), true),
        ("/data/link", Some(json!("c1")), false),
        ("/data/status", Some(json!("closed")), true),
        ("/data/status", Some(json!("new")), false),
        ("/data/extra", Some(json!(1)), false),
        // The gateway's own time format is not one of two here: only ISO 8601.
        (
            "/data/messages/0/created_at",
            Some(json!("2026-03-01 09:30")),
            false,
        ),
        (
            "/data/messages/0/created_at",
            Some(json!("2026-03-01T10:30:00+01:00")),
            true,
        ),
        ("/data/messages/0/message", Some(json!("")), true),
        ("/data/messages/0/status", Some(json!("queued")), false),
        ("/data/messages/0/reply_by", Some(json!(null)), false),
        (
            "/data/messages",
            Some(json!([served_message("m1"), served_message("m1")])),
            false,
        ),
        (
            "/data/participants",
            Some(json!([office, customer, customer])),
            false,
        ),
        ("/data/participants", Some(json!([office])), false),
        ("/data/participants", Some(json!([customer])), false),
        (
            "/data/participants",
            Some(json!([office, office, customer])),
            false,
        ),
        ("/data/participants/1/role", Some(json!("customer")), false),
        ("/data/participants/1/name", Some(json!("")), false),
        ("/data/participants/1/avatar_url", Some(json!(null)), false),
        ("/data/participants/1/fetch_avatar", Some(json!(true)), true),
    ]);
    check_table(&good, |body| contract::one_conversation(body, "c1"), table);

    let list = json!({
        "success": true, "data": [good["data"]], "additional_data": {"after": "x"},
    });
    let twice = json!([good["data"], good["data"]]);
    check_table(
        &list,
        contract::conversation_list,
        vec![
            ("/data", Some(json!([])), true),
            ("/data", Some(twice), false),
            ("/data", Some(json!({})), false),
            ("/additional_data/after", Some(json!("")), true),
            ("/additional_data/after", None, false),
            ("/additional_data/more", Some(json!(true)), false),
        ],
    );
}

#[test]
fn rules_of_the_other_answers() {
    check_table(
        &served_message("m1"),
        |body| contract::one_message(body, "m1"),
        vec![
            ("/success", Some(json!(true)), false),
            ("/data", Some(json!({})), false),
            ("/id", Some(json!("m2")), false),
            ("/attachments", None, false),
        ],
    );
    check_table(
        &json!({"success": true, "data": {"id": "s1", "name": "Someone"}}),
        |body| contract::sender(body, "s1"),
        vec![
            ("/data/avatar_url", Some(json!("https://gw.example/a.png")), true),
            ("/data/avatar_url", Some(json!(null)), false),
            ("/data/id", Some(json!("s2")), false),
            ("/data/name", None, false),
            ("/data/role", Some(json!("end_user")), false),
        ],
    );
    check_table(
        &json!({"success": true, "data": {"templates": [
            {"id": "t1", "name": "Hello", "content": "Good morning", "language": "en"},
        ]}}),
        contract::templates,
        vec![
            ("/data/templates", Some(json!([])), true),
            ("/data/templates", None, false),
            ("/data/templates/0/content", None, false),
        ],
    );
    check_table(
        &json!({"success": true, "data": {"id": "m1"}}),
        contract::posted,
        vec![
            ("/data/id", Some(json!(7)), false),
            ("/data/status", Some(json!("sent")), false),
            ("/data", None, false),
        ],
    );
    check_table(
        &json!({"success": true}),
        contract::deleted,
        vec![
            ("/success", Some(json!("true")), false),
            ("/data", Some(json!({})), false),
        ],
    );
}

#[test]
fn rules_of_an_error() {
    let error = |status: u16, code: &str| {
        let body = json!({"success": false, "data": {"message": "why", "code": code}});
        contract::error(status, &body).is_empty()
    };
    for (status, code, kept) in [
        (400, "INVALID_BODY", true),
        (400, "NOT_FOUND", false),
        (401, "UNAUTHORIZED", true),
        (401, "ACCOUNT_SUSPENDED", true),
        (401, "FORBIDDEN", false),
        (403, "FORBIDDEN", true),
        (404, "NOT_FOUND", true),
        (404, "", false),
        (405, "METHOD_NOT_ALLOWED", true),
        (429, "RATE_LIMIT_EXCEEDED", false),
    ] {
        assert_eq!(error(status, code), kept, "{status} {code}");
    }
    let limited = json!({"success": false, "data": {
        "message": "why", "code": "RATE_LIMIT_EXCEEDED", "retry_by": "2026-03-01T09:30:00Z",
    }});
    check_table(
        &limited,
        |body| contract::error(429, body),
        vec![
            ("/data/retry_by", None, false),
            ("/data/retry_by", Some(json!("2026-03-01T10:30:00+01:00")), false),
            ("/success", Some(json!(true)), false),
            ("/error", Some(json!("x")), false),
        ],
    );
}

#[test]
fn rules_of_a_manifest() {
    let api = "https://gw.example/api/channels/:providerChannelId";
    let good = json!({"version": "v202101", "endpoints": {
        "getConversations": format!("{api}/conversations"),
        "getConversationById": format!("{api}/conversations/:sourceConversationId"),
        "postMessage": format!("{api}/messages"),
        "getSenderById": format!("{api}/senders/:senderId"),
        "getTemplates": format!("{api}/templates"),
        "getMessageById": format!("{api}/conversations/:sourceConversationId/messages/:sourceMessageId"),
        "deleteChannelById": api,
    }});
    check_table(
        &good,
        contract::manifest,
        vec![
            ("/version", Some(json!("v1")), false),
            ("/endpoints/getTemplates", None, false),
            (
                "/endpoints/postMessage",
                Some(json!("http://gw.example/api/channels/:providerChannelId")),
                false,
            ),
            (
                "/endpoints/getSenderById",
                Some(json!(format!("{api}/senders/:id"))),
                false,
            ),
            ("/endpoints/getEverything", Some(json!(api)), false),
        ],
    );
}

#[test]
fn times_ids_and_urls_are_read_strictly() {
    for (text, iso) in [
        ("2026-03-01T09:30:00Z", true),
        ("2026-03-01T09:30:00.1Z", true),
        ("2026-03-01T09:30:00.123456789+02:00", true),
        ("2026-02-30T09:30:00Z", false),
        ("2026-03-01T25:30:00Z", false),
        ("2026-03-01T09:30:00", false),
        ("2026-03-01 09:30:00Z", false),
        ("2026-03-01t09:30:00z", false),
        ("2026-03-01T09:30:00.Z", false),
        ("2026-03-01T09:30:00Z ", false),
        ("20260301T093000Z", false),
    ] {
        assert_eq!(is_iso_time(text), iso, "{text}");
    }
    for (text, minutes) in [
        ("2026-03-01 09:30", true),
        ("2026-03-01 09:60", false),
        ("2026-13-01 09:30", false),
        ("2026-03-01 9:30", false),
        ("2026-03-01 09:30:00", false),
    ] {
        assert_eq!(is_minutes_time(text), minutes, "{text}");
    }
    assert!(same_time("2026-03-01 09:30", "2026-03-01T10:30:59.999+01:00"));
    assert!(!same_time("2026-03-01T09:30:00Z", "2026-03-01T09:30:01Z"));
    assert!(is_id("gw-1.a_~") && !is_id("..") && !is_id("a%20b"));
    assert!(is_url("http://[::1]:80/a") && !is_url("https://") && !is_url("https://a/b c"));
}
