use super::*;
use crate::domain::{AttachmentId, Sequence};
use crate::protocol::avatar::Avatar;
use crate::protocol::pipedrive::manifest::{Cursor, body::first_customer};
use crate::store::ChannelLink;
use serde_json::json;

/// The picture of a customer without a name.
fn face(gateway: &Gateway, number: &str) -> String {
    Avatar::of(number, number).url(PUBLIC_URL, &gateway.store.media_secret())
}

#[tokio::test]
async fn conversations_are_listed_newest_first_in_exactly_the_documented_shape() {
    let gateway = Gateway::start().await;
    let old = gateway.receive("desk", "+15550001", "first").await;
    let new = gateway.receive("desk", "+15550002", "second").await;
    let other = gateway.receive("yard", "+15550001", "elsewhere").await;
    let shown = |id: MessageId, text: &str, number: &str| {
        json!({
            "id": id.conversation.to_string(), "link": "", "status": "open", "seen": false,
            "next_messages_cursor": "",
            "messages": [{
                "id": id.to_string(), "status": "sent", "created_at": "2026-01-30T03:38:05.007Z", "message": text,
                "sender_id": first_customer(id.conversation).to_string(), "attachments": [],
            }],
            "participants": [
                {"id": "gw-1-desk", "name": "Front desk", "role": "source_user",
                 "avatar_url": "https://example.com/desk.png"},
                {"id": first_customer(id.conversation).to_string(), "name": number, "role": "end_user",
                 "avatar_url": face(&gateway, number)},
            ],
        })
    };
    assert_eq!(
        gateway.get(&conversations_path("desk")).await,
        json!({
            "success": true,
            "data": [shown(new, "second", "+15550002"), shown(old, "first", "+15550001")],
            "additional_data": {"after": ""},
        })
    );
    assert_eq!(
        gateway.get(&conversation_path("desk", old.conversation)).await,
        json!({
            "success": true, "data": shown(old, "first", "+15550001"), "additional_data": {"after": ""},
        })
    );
    let yard = gateway.get(&conversations_path("yard")).await;
    assert_eq!(yard["data"].as_array().unwrap().len(), 1);
    assert_eq!(yard["data"][0]["id"], other.conversation.to_string());
    gateway.end().await;
}

#[tokio::test]
async fn paging_through_a_history_neither_skips_nor_repeats_while_messages_arrive() {
    let gateway = Gateway::start().await;
    let mut sent = Vec::new();
    for number in 0..23 {
        sent.push(gateway.receive("desk", "+15550001", &format!("m{number}")).await);
    }
    let path = conversation_path("desk", sent[0].conversation);
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = gateway
            .get(&format!("{path}?messages_limit=5&after={after}&unknown=1"))
            .await;
        let messages = page["data"]["messages"].as_array().unwrap();
        assert!((1..=5).contains(&messages.len()));
        seen.extend(
            messages
                .iter()
                .map(|message| message["id"].as_str().unwrap().to_owned()),
        );
        assert_eq!(
            page["additional_data"]["after"],
            page["data"]["next_messages_cursor"]
        );
        page["additional_data"]["after"]
            .as_str()
            .unwrap()
            .clone_into(&mut after);
        if after.is_empty() {
            break;
        }
        gateway.receive("desk", "+15550001", "in between").await;
    }
    let expected: Vec<_> = sent.iter().rev().map(ToString::to_string).collect();
    assert_eq!(seen, expected);
    gateway.end().await;
}

#[tokio::test]
async fn paging_through_conversations_repeats_none_while_one_moves_up() {
    let gateway = Gateway::start().await;
    for number in 0..11 {
        gateway
            .receive("desk", &format!("+1555000{number}"), "hello")
            .await;
    }
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!(
            "{}?conversations_limit=2&after={after}",
            conversations_path("desk")
        );
        let page = gateway.get(&path).await;
        for conversation in page["data"].as_array().unwrap() {
            seen.push(conversation["id"].as_str().unwrap().to_owned());
        }
        page["additional_data"]["after"]
            .as_str()
            .unwrap()
            .clone_into(&mut after);
        if after.is_empty() {
            break;
        }
        if seen.len() == 4 {
            gateway.receive("desk", "+15550000", "the oldest moves up").await;
        }
    }
    // All but the one that moved, each once.
    assert_eq!(seen.len(), 10);
    let distinct: std::collections::HashSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), 10);
    gateway.end().await;
}

#[tokio::test]
async fn a_page_of_conversations_continues_in_the_history_of_each() {
    let gateway = Gateway::start().await;
    let first = gateway.receive("desk", "+15550001", "one").await;
    gateway.receive("desk", "+15550001", "two").await;
    let page = gateway
        .get(&format!("{}?messages_limit=1", conversations_path("desk")))
        .await;
    let cursor = page["data"][0]["next_messages_cursor"].as_str().unwrap();
    assert_eq!(page["data"][0]["messages"][0]["message"], "two");
    let path = format!("{}?after={cursor}", conversation_path("desk", first.conversation));
    let page = gateway.get(&path).await;
    assert_eq!(page["data"]["messages"].as_array().unwrap().len(), 1);
    assert_eq!(page["data"]["messages"][0]["message"], "one");
    gateway.end().await;
}

#[tokio::test]
async fn senders_are_the_channel_itself_and_its_customers() {
    let gateway = Gateway::start().await;
    let id = gateway.receive("desk", "+15550001", "hi").await;
    let path = |channel: &str, sender: &str| format!("/api/channels/gw-1-{channel}/senders/{sender}");
    assert_eq!(
        gateway.get(&path("desk", "gw-1-desk")).await,
        json!({"success": true, "data": {
            "id": "gw-1-desk", "name": "Front desk", "avatar_url": "https://example.com/desk.png"
        }})
    );
    assert_eq!(
        gateway.get(&path("yard", "gw-1-yard")).await,
        json!({"success": true, "data": {"id": "gw-1-yard", "name": "Yard"}})
    );
    let customer = first_customer(id.conversation).to_string();
    assert_eq!(
        gateway.get(&path("desk", &customer)).await,
        json!({"success": true, "data": {
            "id": customer, "name": "+15550001", "avatar_url": face(&gateway, "+15550001")
        }})
    );
    for path in [
        path("yard", &customer),
        path("yard", "gw-1-desk"),
        path("desk", "somebody"),
    ] {
        gateway
            .call("GET", &path)
            .await
            .assert_failure(404, "NOT_FOUND", &path);
    }
    gateway.end().await;
}

#[tokio::test]
async fn a_conversation_that_the_gateway_began_already_has_its_customer() {
    let gateway = Gateway::start().await;
    let to = Address::new("+15550009").unwrap();
    let id = gateway
        .store
        .find_or_start_conversation(channel_id("desk"), to, START)
        .await
        .unwrap();
    let page = gateway.get(&conversation_path("desk", id)).await;
    assert_eq!(page["data"]["messages"], json!([]));
    let customer = page["data"]["participants"][1].clone();
    assert_eq!(customer["role"], "end_user");
    assert_eq!(customer["name"], "+15550009");
    let path = format!(
        "/api/channels/gw-1-desk/senders/{}",
        customer["id"].as_str().unwrap()
    );
    assert_eq!(gateway.get(&path).await["data"]["name"], "+15550009");
    gateway.end().await;
}

#[tokio::test]
async fn a_message_is_found_under_both_paths_and_has_no_envelope() {
    let gateway = Gateway::start().await;
    let id = gateway.receive("desk", "+15550001", "").await;
    let other = gateway.receive("desk", "+15550002", "x").await;
    let expected = json!({
        "id": id.to_string(), "status": "sent", "created_at": "2026-01-30T03:38:05.007Z",
        "message": "(empty message)", "sender_id": first_customer(id.conversation).to_string(), "attachments": [],
    });
    let long = format!("{}/messages/{id}", conversation_path("desk", id.conversation));
    let short = format!("/api/channels/gw-1-desk/messages/{id}");
    assert_eq!(gateway.get(&long).await, expected);
    assert_eq!(gateway.get(&short).await, expected);
    for path in [
        format!("{}/messages/{id}", conversation_path("desk", other.conversation)),
        format!("/api/channels/gw-1-yard/messages/{id}"),
        format!(
            "/api/channels/gw-1-desk/messages/{}",
            MessageId {
                conversation: id.conversation,
                sequence: Sequence(u64::MAX)
            }
        ),
    ] {
        gateway
            .call("GET", &path)
            .await
            .assert_failure(404, "NOT_FOUND", &path);
    }
    gateway.end().await;
}

#[tokio::test]
async fn there_are_no_templates() {
    let gateway = Gateway::start().await;
    assert_eq!(
        gateway.get("/api/channels/gw-1-desk/templates").await,
        json!({"success": true, "data": {"templates": []}})
    );
    gateway.end().await;
}

#[tokio::test]
async fn a_deleted_channel_is_unlinked_keeps_its_data_and_can_be_deleted_again() {
    let gateway = Gateway::start().await;
    let id = gateway.receive("desk", "+15550001", "hi").await;
    let link = || async {
        gateway
            .store
            .read(|reader| reader.channel_link(&channel_id("desk")))
            .await
            .unwrap()
    };
    for _ in 0..2 {
        let answer = gateway.call("DELETE", "/api/channels/gw-1-desk").await;
        assert_eq!((answer.status, answer.json()), (200, json!({"success": true})));
    }
    let ChannelLink::Unlinked { since, .. } = link().await else {
        panic!("not unlinked")
    };
    gateway.call("DELETE", "/api/channels/gw-1-desk").await;
    assert!(matches!(link().await, ChannelLink::Unlinked { since: again, .. } if again == since));
    // Pipedrive pages through the history before it answers a new registration.
    let page = gateway.get(&conversation_path("desk", id.conversation)).await;
    assert_eq!(page["data"]["messages"][0]["message"], "hi");
    gateway
        .call("DELETE", "/api/channels/gw-1-attic")
        .await
        .assert_failure(404, "NOT_FOUND", "unknown channel");
    gateway.end().await;
}

#[tokio::test]
async fn only_an_answered_get_conversation_by_id_counts_as_served() {
    let gateway = Gateway::start().await;
    let id = gateway.receive("desk", "+15550001", "hi").await.conversation;
    gateway.get(&conversations_path("desk")).await;
    gateway
        .call("GET", &format!("{}?after=x", conversation_path("desk", id)))
        .await;
    gateway.call("GET", &conversation_path("yard", id)).await;
    assert!(!gateway.store.was_served(id));
    gateway.get(&conversation_path("desk", id)).await;
    assert!(gateway.store.was_served(id));
    gateway.end().await;
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let gateway = Gateway::start().await;
    let desk = gateway.receive("desk", "+15550001", "hi").await;
    let unknown = ConversationId(1);
    let cursors = [
        "x".to_owned(),
        "%FF".to_owned(),
        Cursor::Conversations(&channel_id("yard")).encode(5),
        Cursor::Messages(unknown).encode(5),
    ];
    let mut paths = vec![
        "/api/channels/gw-1-attic/conversations".to_owned(),
        "/api/channels/gw-2-desk/conversations".to_owned(),
        "/api/channels/desk/conversations".to_owned(),
        "/api/channels/0/conversations".to_owned(),
        conversation_path("desk", unknown),
        conversation_path("yard", desk.conversation),
        format!("{}/null", conversations_path("desk")),
        "/api/channels/gw-1-desk/messages/m1".to_owned(),
        "/api/channels/gw-1-desk/senders/p.1".to_owned(),
        "/api".to_owned(),
        "/api/".to_owned(),
        "/api/channels".to_owned(),
        "/api/channels/gw-1-desk/".to_owned(),
        "/nothing".to_owned(),
        "/".to_owned(),
        "/oauth/callback?code=1".to_owned(),
    ];
    for cursor in &cursors {
        paths.push(format!("{}?after={cursor}", conversations_path("desk")));
        paths.push(format!(
            "{}?after={cursor}",
            conversation_path("desk", desk.conversation)
        ));
    }
    for path in paths {
        gateway
            .call("GET", &path)
            .await
            .assert_failure(404, "NOT_FOUND", &path);
    }
    gateway.end().await;
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let gateway = Gateway::start().await;
    for (path, allow) in [
        ("/api/channels/gw-1-desk", "DELETE"),
        ("/api/channels/gw-1-desk/conversations", "GET"),
        ("/api/channels/gw-1-desk/messages", "POST"),
        ("/api/channels/gw-1-desk/templates", "GET"),
        ("/healthz", "GET, HEAD"),
        ("/media/abc", "GET, HEAD"),
        ("/avatar/abc", "GET, HEAD"),
        ("/oauth/callback", "GET, POST, DELETE"),
    ] {
        for method in ["PUT", "PATCH", "OPTIONS", "TRACE", "BREW"] {
            let answer = gateway.call(method, path).await;
            answer.assert_failure(405, "METHOD_NOT_ALLOWED", &format!("{method} {path}"));
            assert_eq!(answer.header("allow"), allow);
        }
    }
    let head = gateway
        .call("HEAD", "/api/channels/gw-1-desk/conversations")
        .await;
    assert_eq!((head.status, head.header("allow")), (405, "GET"));
    gateway.end().await;
}

#[tokio::test]
async fn without_the_right_credentials_every_path_under_api_looks_the_same() {
    let gateway = Gateway::start().await;
    let id = gateway.receive("desk", "+15550001", "hi").await;
    let wrong = format!("Basic {}", BASE64.encode(b"client:secreu"));
    let mut bodies = std::collections::HashSet::new();
    for (method, path) in [
        ("GET", conversation_path("desk", id.conversation)),
        ("GET", conversation_path("desk", ConversationId(1))),
        ("PUT", conversations_path("desk")),
        ("POST", "/api/channels/gw-1-desk/messages".to_owned()),
        ("DELETE", "/api/channels/gw-1-desk".to_owned()),
        ("GET", "/api/nothing".to_owned()),
        ("DELETE", "/oauth/callback".to_owned()),
    ] {
        for headers in [&[][..], &[("Authorization", wrong.as_str())]] {
            let answer = gateway.raw(&request(method, &path, headers, b"")).await;
            answer.assert_failure(401, "UNAUTHORIZED", &path);
            assert_eq!(
                answer.header("www-authenticate"),
                "Basic realm=\"pipepost\", charset=\"UTF-8\""
            );
            bodies.insert(answer.body);
        }
    }
    assert_eq!(bodies.len(), 1);
    assert_eq!(gateway.handle.metrics().auth_failures, 14);
    assert_eq!(gateway.handle.metrics().last_from_pipedrive, None);
    assert!(!gateway.store.was_served(id.conversation));
    gateway.end().await;
}

#[tokio::test]
async fn without_a_configured_secret_nobody_gets_in() {
    let gateway = Gateway::start_with(|config| config.pipedrive.client_secret = None).await;
    assert!(!gateway.handle.has_credentials());
    let answer = gateway.call("GET", &conversations_path("desk")).await;
    answer.assert_failure(401, "UNAUTHORIZED", "no secret");
    gateway.end().await;
}

#[tokio::test]
async fn health_is_told_to_anybody() {
    let gateway = Gateway::start().await;
    let answer = gateway.raw(&request("GET", "/healthz", &[], b"")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({"status": "ok", "gateway": "gw-1", "store": "ready"})
    );
    let head = gateway.raw(&request("HEAD", "/healthz", &[], b"")).await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, answer.header("content-length"))
    );
    std::fs::create_dir(gateway.dir.path().join("store-damaged-2026")).unwrap();
    let answer = gateway.raw(&request("GET", "/healthz", &[], b"")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["store"], "damaged");
    gateway.end().await;
}

#[tokio::test]
async fn requests_are_counted_and_the_last_call_of_pipedrive_is_remembered() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect().await;
    for _ in 0..3 {
        let path = conversations_path("desk");
        client
            .send(&request("GET", &path, &[("Authorization", &credentials())], b""))
            .await;
        let answer = client.answer(true).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
    }
    gateway.call("GET", "/nothing").await;
    let metrics = gateway.handle.metrics();
    assert_eq!(
        metrics.requests,
        [("getConversations", 200, 3), ("other", 404, 1)]
    );
    assert_eq!(metrics.accepted, 2);
    assert!(metrics.last_from_pipedrive.is_some());
    drop(client);
    eventually("all connections are closed", || {
        gateway.handle.metrics().open == 0
    })
    .await;
    gateway.end().await;
}

#[tokio::test]
async fn attachments_are_shown_with_links_that_open() {
    let gateway = Gateway::start().await;
    let file = ReceivedAttachment {
        name: "roof.jpg".to_owned(),
        mime: "image/jpeg".to_owned(),
        bytes: b"picture".to_vec(),
    };
    let id = gateway.receive_with("desk", "+15550001", "", vec![file]).await;
    let message = gateway
        .get(&format!("/api/channels/gw-1-desk/messages/{id}"))
        .await;
    let shown = &message["attachments"][0];
    assert_eq!(message["message"], "roof.jpg");
    assert_eq!(
        (&shown["type"], &shown["name"], &shown["size"]),
        (&json!("image/jpeg"), &json!("roof.jpg"), &json!(7))
    );
    assert!(shown["id"].as_str().unwrap().parse::<AttachmentId>().is_ok());
    let path = shown["url"].as_str().unwrap().strip_prefix(PUBLIC_URL).unwrap();
    assert_eq!(
        gateway.raw(&request("GET", path, &[], b"")).await.body,
        b"picture"
    );
    gateway.end().await;
}
