//! Names, pictures, templates, and conversations that are closed.

use super::*;
use crate::config::Template;
use crate::domain::ConversationStatus;
use crate::protocol::pipedrive::manifest::body::first_customer;
use crate::store::Contact;
use serde_json::json;

fn contact(of: &str, name: &str) -> Contact {
    Contact {
        address: Address::new(of).unwrap(),
        name: name.to_owned(),
    }
}

async fn picture(gateway: &Gateway, url: &str) -> Answer {
    let path = url.strip_prefix(PUBLIC_URL).unwrap();
    assert!(path.starts_with("/avatar/"), "{path}");
    gateway.raw(&request("GET", path, &[], b"")).await
}

#[tokio::test]
async fn a_name_of_the_address_book_shows_everywhere_at_once_and_so_does_its_picture() {
    let gateway = Gateway::start().await;
    let id = gateway
        .receive("desk", "+447700900142", "hello")
        .await
        .conversation;
    let customer = first_customer(id).to_string();
    let sender = format!("/api/channels/gw-1-desk/senders/{customer}");
    let number = gateway.get(&sender).await;
    assert_eq!(number["data"]["name"], "+44 7700 900142");
    let figure = picture(&gateway, number["data"]["avatar_url"].as_str().unwrap()).await;
    assert!(String::from_utf8_lossy(&figure.body).contains("<circle"));

    gateway
        .store
        .put_contacts(vec![contact("+447700900142", "Ann Smith")])
        .await
        .unwrap();
    let named = gateway.get(&sender).await;
    assert_eq!(named["data"]["name"], "Ann Smith");
    assert_ne!(named["data"]["avatar_url"], number["data"]["avatar_url"]);
    for page in [
        gateway.get(&conversation_path("desk", id)).await["data"].clone(),
        gateway.get(&conversations_path("desk")).await["data"][0].clone(),
    ] {
        let participants = page["participants"].as_array().unwrap();
        assert_eq!(participants.len(), 2);
        assert_eq!(participants[0]["role"], "source_user");
        assert_eq!(
            participants[1],
            json!({"id": customer, "name": "Ann Smith", "role": "end_user", "avatar_url": named["data"]["avatar_url"]})
        );
    }
    let initials = picture(&gateway, named["data"]["avatar_url"].as_str().unwrap()).await;
    assert!(String::from_utf8_lossy(&initials.body).contains(">AS</text>"));
    gateway.end().await;
}

#[tokio::test]
async fn a_picture_is_cached_can_do_nothing_and_cannot_be_guessed() {
    let gateway = Gateway::start().await;
    let id = gateway
        .receive("desk", "+447700900142", "hello")
        .await
        .conversation;
    let page = gateway.get(&conversation_path("desk", id)).await;
    let url = page["data"]["participants"][1]["avatar_url"].as_str().unwrap();
    let answer = picture(&gateway, url).await;
    assert_eq!(answer.status, 200);
    for (name, value) in [
        ("content-type", "image/svg+xml"),
        ("cache-control", "public, max-age=2592000, immutable"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; sandbox"),
    ] {
        assert_eq!(answer.header(name), value);
    }
    let path = url.strip_prefix(PUBLIC_URL).unwrap();
    let head = gateway.raw(&request("HEAD", path, &[], b"")).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let other = path.replace("/avatar/", "/avatar/x");
    for path in [
        "/avatar/",
        "/avatar/AAAA",
        other.as_str(),
        &path.replace("/avatar/", "/media/"),
    ] {
        let answer = gateway.raw(&request("GET", path, &[], b"")).await;
        answer.assert_failure(404, "NOT_FOUND", path);
    }
    gateway.end().await;
}

#[tokio::test]
async fn templates_are_served_by_channel_and_replaced_on_reload() {
    let template = |id: &str, channels: &[&str]| Template {
        id: id.to_owned(),
        name: format!("Name of {id}"),
        language: "en".to_owned(),
        content: "Thank you.".to_owned(),
        channels: channels.iter().map(|id| id.parse().unwrap()).collect(),
    };
    let gateway =
        Gateway::start_with(|config| config.templates = vec![template("a", &[]), template("b", &["yard"])])
            .await;
    let ids = async |channel: &str| -> Vec<String> {
        let answer = gateway
            .get(&format!("/api/channels/gw-1-{channel}/templates"))
            .await;
        let list = answer["data"]["templates"].as_array().unwrap().clone();
        list.iter()
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids("desk").await, ["a"]);
    assert_eq!(ids("yard").await, ["a", "b"]);
    gateway.handle.set_templates(vec![template("c", &["desk"])]);
    assert_eq!(
        gateway.get("/api/channels/gw-1-desk/templates").await,
        json!({"success": true, "data": {"templates": [
            {"id": "c", "name": "Name of c", "content": "Thank you.", "language": "en"}
        ]}})
    );
    assert!(ids("yard").await.is_empty());
    gateway.end().await;
}

#[tokio::test]
async fn a_closed_conversation_takes_no_answer_until_the_customer_writes_again() {
    let gateway = Gateway::start().await;
    let id = gateway
        .receive("desk", "+447700900142", "hello")
        .await
        .conversation;
    gateway
        .store
        .set_status(id, ConversationStatus::Closed)
        .await
        .unwrap();
    let page = gateway.get(&conversation_path("desk", id)).await;
    assert_eq!(page["data"]["status"], "closed");
    let form = [
        ("senderId", "gw-1-desk"),
        ("conversationId", &id.to_string()),
        ("message", "one more thing"),
    ];
    let answer = super::posting::post_fields(&gateway, &form).await;
    answer.assert_failure(403, "FORBIDDEN", "closed");
    gateway.receive("desk", "+447700900142", "still there?").await;
    let page = gateway.get(&conversation_path("desk", id)).await;
    assert_eq!(
        (&page["data"]["status"], &page["data"]["seen"]),
        (&json!("open"), &json!(false))
    );
    assert_eq!(super::posting::post_fields(&gateway, &form).await.status, 200);
    let page = gateway.get(&conversation_path("desk", id)).await;
    assert_eq!(page["data"]["seen"], true);
    gateway.end().await;
}
