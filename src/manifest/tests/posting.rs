use super::*;
use crate::domain::{DeliveryState, Message, OutgoingState, ParticipantId};
use crate::protocol::pipedrive::manifest::body::first_customer;
use crate::store::Queue;
use serde_json::json;

const BOUNDARY: &str = "----edge";

struct Part<'a> {
    disposition: &'a str,
    mime: Option<&'a str>,
    content: &'a [u8],
}

fn text<'a>(disposition: &'a str, content: &'a str) -> Part<'a> {
    Part {
        disposition,
        mime: None,
        content: content.as_bytes(),
    }
}

fn form(parts: &[Part<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(format!("--{BOUNDARY}\r\n").as_bytes());
        body.extend_from_slice(
            format!("Content-Disposition: form-data; {}\r\n", part.disposition).as_bytes(),
        );
        if let Some(mime) = part.mime {
            body.extend_from_slice(format!("Content-Type: {mime}\r\n").as_bytes());
        }
        body.extend_from_slice(b"\r\n");
        body.extend_from_slice(part.content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

fn post(content_type: &str, body: &[u8]) -> Vec<u8> {
    let headers = [
        ("Authorization", credentials()),
        ("Content-Type", content_type.to_owned()),
    ];
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    request("POST", "/api/channels/gw-1-desk/messages", &headers, body)
}

fn multipart() -> String {
    format!("multipart/form-data; boundary={BOUNDARY}")
}

impl Gateway {
    async fn post(&self, parts: &[Part<'_>]) -> Answer {
        self.raw(&post(&multipart(), &form(parts))).await
    }

    async fn stored(&self, id: MessageId) -> Message {
        self.store
            .read(move |reader| reader.message(id))
            .await
            .unwrap()
            .unwrap()
            .1
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("attachments")).map_or(0, Iterator::count)
    }
}

/// An answer of texts alone.
pub(super) async fn post_fields(gateway: &Gateway, fields: &[(&str, &str)]) -> Answer {
    let names: Vec<String> = fields
        .iter()
        .map(|(name, _)| format!("name=\"{name}\""))
        .collect();
    let parts: Vec<_> = names
        .iter()
        .zip(fields)
        .map(|(name, (_, content))| text(name, content))
        .collect();
    gateway.post(&parts).await
}

fn posted(answer: &Answer) -> MessageId {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let json = answer.json();
    let id = json["data"]["id"].as_str().unwrap();
    assert_eq!(json, json!({"success": true, "data": {"id": id}}));
    id.parse().unwrap()
}

#[tokio::test]
async fn an_answer_is_stored_and_queued_for_the_hardware_before_200() {
    let gateway = Gateway::start().await;
    let conversation = gateway.receive("desk", "+15550001", "hi").await.conversation;
    let (id, customer) = (conversation.to_string(), first_customer(conversation).to_string());
    let answer = gateway
        .post(&[
            text("name=\"senderId\"", "gw-1-desk"),
            text("name=\"conversationId\"", &id),
            text("name=\"recipientIds[]\"", &customer),
            text(
                "name=\"message\"",
                "We come at 9 o'clock – ok?\r\n--not a boundary",
            ),
        ])
        .await;
    let stored = gateway.stored(posted(&answer)).await;
    assert_eq!(stored.text, "We come at 9 o'clock – ok?\r\n--not a boundary");
    assert_eq!(stored.state, DeliveryState::Outgoing(OutgoingState::Queued));
    assert_eq!(stored.sender, ParticipantId::Source("gw-1-desk".parse().unwrap()));
    let heads = gateway
        .store
        .heads(Queue::ToHardware, None, &std::collections::HashSet::new(), 10);
    assert_eq!(heads.len(), 1);
    assert_eq!(heads[0].message(), stored.id);
    let page = gateway.get(&conversation_path("desk", conversation)).await;
    assert_eq!(page["data"]["seen"], true);
    assert_eq!(page["data"]["messages"][0]["sender_id"], "gw-1-desk");
    assert_eq!(page["data"]["messages"][0]["status"], "sent");
    gateway.end().await;
}

#[tokio::test]
async fn recipients_are_checked_against_the_conversation_in_every_spelling() {
    let gateway = Gateway::start().await;
    let one = gateway.receive("desk", "+15550001", "hi").await.conversation;
    let two = gateway.receive("desk", "+15550002", "hi").await.conversation;
    let (id, right, wrong) = (
        one.to_string(),
        first_customer(one).to_string(),
        first_customer(two).to_string(),
    );
    let both = format!("{right},{wrong}");
    for (field, value, status) in [
        ("name=\"recipientIds[]\"", right.as_str(), 200),
        ("name=\"recipientIds\"", &right, 200),
        ("name=\"recipientIds[0]\"", &right, 200),
        ("name=recipientIds", &right, 200),
        ("name=\"unknown\"", "x", 200),
        ("name=\"recipientIds[]\"", &wrong, 400),
        ("name=\"recipientIds\"", &both, 400),
        ("name=\"recipientIds[0]\"", "gw-1-desk", 400),
        ("name=\"recipientIds[]\"", "+15550001", 400),
    ] {
        let answer = gateway
            .post(&[
                text("name=\"conversationId\"", &id),
                text("name=\"message\"", "x"),
                text(field, value),
            ])
            .await;
        if status == 200 {
            posted(&answer);
        } else {
            answer.assert_failure(400, "INVALID_BODY", value);
        }
    }
    gateway.end().await;
}

#[tokio::test]
async fn files_are_kept_with_their_names_and_bytes() {
    let gateway = Gateway::start().await;
    let conversation = gateway
        .receive("desk", "+15550001", "hi")
        .await
        .conversation
        .to_string();
    let binary: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    let file = |disposition, mime, content| Part {
        disposition,
        mime,
        content,
    };
    let answer = gateway
        .post(&[
            text("name=\"conversationId\"", &conversation),
            file(
                "name=\"files\"; filename=\"roof.jpg\"",
                Some("image/jpeg"),
                &binary,
            ),
            file(
                "name=\"files\"; filename=\"a \\\"quoted\\\"; name.txt\"",
                Some("text/plain"),
                b"x",
            ),
            file(
                "name=\"files[]\"; filename=\"Größe \u{1F600}.pdf\"",
                None,
                b"\r\n--",
            ),
            file(
                "name=\"files\"; filename=\"../../etc/passwd\"",
                Some("not a type"),
                b"",
            ),
            file(
                "name=\"files\"; filename=\"\"",
                Some("application/octet-stream"),
                b"",
            ),
        ])
        .await;
    let stored = gateway.stored(posted(&answer)).await;
    assert_eq!(stored.text, "");
    let shown: Vec<_> = stored
        .attachments
        .iter()
        .map(|file| (file.name.as_str(), file.mime.as_str(), file.size))
        .collect();
    assert_eq!(
        shown,
        [
            ("roof.jpg", "image/jpeg", 200_000),
            ("a \"quoted\"; name.txt", "text/plain", 1),
            ("Größe \u{1F600}.pdf", "application/octet-stream", 4),
            ("passwd", "application/octet-stream", 0),
        ]
    );
    let id = stored.attachments[0].id;
    let (_, path) = gateway
        .store
        .read(move |reader| reader.attachment(id))
        .await
        .unwrap()
        .unwrap();
    assert!(std::fs::read(path).unwrap() == binary);
    assert_eq!(gateway.files(), 4);
    gateway.end().await;
}

#[tokio::test]
async fn a_form_that_cannot_be_read_or_says_nothing_is_invalid() {
    let gateway = Gateway::start().await;
    let conversation = gateway
        .receive("desk", "+15550001", "hi")
        .await
        .conversation
        .to_string();
    let good = form(&[
        text("name=\"conversationId\"", &conversation),
        text("name=\"message\"", "x"),
    ]);
    let no_text = form(&[
        text("name=\"conversationId\"", &conversation),
        text("name=\"message\"", " "),
    ]);
    let no_conversation = form(&[text("name=\"message\"", "x")]);
    let not_utf8 = form(&[
        text("name=\"conversationId\"", &conversation),
        Part {
            disposition: "name=\"message\"",
            mime: None,
            content: b"\xff\xfe",
        },
    ]);
    let no_name = form(&[text("filename=\"x\"", "x")]);
    let cut = &good[..good.len() - 10];
    for (what, content_type, body) in [
        ("no text", multipart(), &no_text[..]),
        ("no conversation", multipart(), &no_conversation),
        ("not UTF-8", multipart(), &not_utf8),
        ("no name", multipart(), &no_name),
        ("cut", multipart(), cut),
        ("empty", multipart(), b""),
        ("nonsense", multipart(), b"nonsense"),
        ("only the end", multipart(), b"------edge--\r\n"),
        (
            "no headers",
            multipart(),
            b"------edge\r\n\r\nx\r\n------edge--\r\n",
        ),
        (
            "other boundary",
            "multipart/form-data; boundary=other".to_owned(),
            &good,
        ),
        ("no boundary", "multipart/form-data".to_owned(), &good),
        (
            "empty boundary",
            "multipart/form-data; boundary=".to_owned(),
            &good,
        ),
        (
            "empty quoted boundary",
            "multipart/form-data; boundary=\"\"".to_owned(),
            &good,
        ),
        (
            "endless boundary",
            format!("multipart/form-data; boundary={}", "x".repeat(300)),
            &good,
        ),
    ] {
        gateway
            .raw(&post(&content_type, body))
            .await
            .assert_failure(400, "INVALID_BODY", what);
    }
    gateway.end().await;
}

#[tokio::test]
async fn only_multipart_is_understood_and_its_name_may_be_spelled_any_way() {
    let gateway = Gateway::start().await;
    let conversation = gateway
        .receive("desk", "+15550001", "hi")
        .await
        .conversation
        .to_string();
    let good = form(&[
        text("name=\"conversationId\"", &conversation),
        text("name=\"message\"", "x"),
    ]);
    for wrong in [
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/mixed; boundary=----edge",
        "",
    ] {
        let answer = gateway.raw(&post(wrong, &good)).await;
        answer.assert_failure(415, "UNSUPPORTED_MEDIA_TYPE", wrong);
    }
    let none = request(
        "POST",
        "/api/channels/gw-1-desk/messages",
        &[("Authorization", &credentials())],
        &good,
    );
    gateway
        .raw(&none)
        .await
        .assert_failure(415, "UNSUPPORTED_MEDIA_TYPE", "none");
    for right in [
        "Multipart/FORM-Data; charset=utf-8; boundary=----edge",
        "multipart/form-data; boundary=\"----edge\"",
        "multipart/form-data;boundary=----edge",
    ] {
        posted(&gateway.raw(&post(right, &good)).await);
    }
    gateway.end().await;
}

#[tokio::test]
async fn an_answer_to_an_unknown_conversation_or_channel_is_not_found() {
    let gateway = Gateway::start().await;
    let yard = gateway
        .receive("yard", "+15550001", "hi")
        .await
        .conversation
        .to_string();
    // Whatever the message says: a form of the right shape is refused for its conversation first.
    for message in ["x", "", " \n"] {
        for conversation in ["nothing", "", &ConversationId(1).to_string(), &yard] {
            let answer = gateway
                .post(&[
                    text("name=\"conversationId\"", conversation),
                    text("name=\"message\"", message),
                ])
                .await;
            answer.assert_failure(404, "NOT_FOUND", conversation);
        }
    }
    let attic = request(
        "POST",
        "/api/channels/gw-1-attic/messages",
        &[("Authorization", &credentials())],
        b"",
    );
    gateway
        .raw(&attic)
        .await
        .assert_failure(404, "NOT_FOUND", "unknown channel");
    gateway.end().await;
}

#[tokio::test]
async fn too_much_is_refused_in_words_and_leaves_nothing_behind() {
    let gateway = Gateway::start_with(|config| config.listener.max_upload = 300_000).await;
    let conversation = gateway
        .receive("desk", "+15550001", "hi")
        .await
        .conversation
        .to_string();
    let file = |content| Part {
        disposition: "name=\"files\"; filename=\"f\"",
        mime: None,
        content,
    };
    let large = vec![b'x'; 400_000];
    let parts = [text("name=\"conversationId\"", &conversation), file(&large)];

    let announced = gateway.post(&parts).await;
    announced.assert_failure(413, "PAYLOAD_TOO_LARGE", "announced");
    assert_eq!(announced.header("connection"), "close");

    let mut chunked = Vec::new();
    for chunk in form(&parts).chunks(10_000) {
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let auth = credentials();
    let content_type = multipart();
    let headers = [
        ("Authorization", auth.as_str()),
        ("Content-Type", &content_type),
        ("Transfer-Encoding", "chunked"),
    ];
    let path = "/api/channels/gw-1-desk/messages";
    let answer = gateway.raw(&request("POST", path, &headers, &chunked)).await;
    answer.assert_failure(413, "PAYLOAD_TOO_LARGE", "chunked");

    let long = "x".repeat(70_000);
    let answer = gateway
        .post(&[
            text("name=\"conversationId\"", &conversation),
            text("name=\"message\"", &long),
        ])
        .await;
    answer.assert_failure(413, "PAYLOAD_TOO_LARGE", "a long text");

    let many: Vec<_> = (0..21).map(|_| file(b"x")).collect();
    gateway
        .post(&many)
        .await
        .assert_failure(413, "PAYLOAD_TOO_LARGE", "many files");
    let many: Vec<_> = (0..257).map(|_| text("name=\"x\"", "x")).collect();
    gateway
        .post(&many)
        .await
        .assert_failure(413, "PAYLOAD_TOO_LARGE", "many fields");
    eventually("no file stays", || gateway.files() == 0).await;
    gateway.end().await;
}

#[tokio::test]
async fn a_form_that_never_comes_to_the_point_is_given_up() {
    let gateway = Gateway::start().await;
    let noise = vec![b'x'; 900_000];
    let endless_head = [b"------edge\r\nX: ", &noise[..]].concat();
    for body in [&noise, &endless_head] {
        let answer = gateway.raw(&post(&multipart(), body)).await;
        answer.assert_failure(400, "INVALID_BODY", "noise");
        assert_eq!(answer.json()["data"]["message"], "the body broke off");
    }
    gateway.end().await;
}

#[tokio::test]
async fn a_chunked_upload_is_taken() {
    let gateway = Gateway::start().await;
    let conversation = gateway
        .receive("desk", "+15550001", "hi")
        .await
        .conversation
        .to_string();
    let body = form(&[
        text("name=\"conversationId\"", &conversation),
        text("name=\"message\"", "bit by bit"),
    ]);
    let auth = credentials();
    let content_type = multipart();
    let headers = [
        ("Authorization", auth.as_str()),
        ("Content-Type", &content_type),
        ("Transfer-Encoding", "chunked"),
    ];
    let mut client = gateway.connect().await;
    client
        .send(&request(
            "POST",
            "/api/channels/gw-1-desk/messages",
            &headers,
            b"",
        ))
        .await;
    for byte in &body {
        client
            .send(format!("1\r\n{}\r\n", char::from(*byte)).as_bytes())
            .await;
    }
    client.send(b"0\r\n\r\n").await;
    let id = posted(&client.answer(true).await.unwrap());
    assert_eq!(gateway.stored(id).await.text, "bit by bit");
    gateway.end().await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_no_file_and_no_message() {
    let gateway = Gateway::start().await;
    let conversation = gateway.receive("desk", "+15550001", "hi").await.conversation;
    let id = conversation.to_string();
    let large = vec![b'x'; 500_000];
    let whole = form(&[
        text("name=\"conversationId\"", &id),
        Part {
            disposition: "name=\"files\"; filename=\"one\"",
            mime: None,
            content: b"complete",
        },
        Part {
            disposition: "name=\"files\"; filename=\"two\"",
            mime: None,
            content: &large,
        },
        text("name=\"message\"", "x"),
    ]);
    let bytes = post(&multipart(), &whole);
    let mut client = gateway.connect().await;
    client.send(&bytes[..300_000]).await;
    eventually("both files are being written", || gateway.files() == 2).await;
    drop(client);
    eventually("no file stays", || gateway.files() == 0).await;
    let page = gateway.get(&conversation_path("desk", conversation)).await;
    assert_eq!(page["data"]["messages"].as_array().unwrap().len(), 1);
    gateway.end().await;
}

#[tokio::test]
async fn a_body_that_takes_too_long_is_given_up() {
    let gateway =
        Gateway::start_with(|config| config.listener.body_timeout = Duration::from_millis(300)).await;
    let body = form(&[text("name=\"message\"", "x")]);
    let bytes = post(&multipart(), &body);
    let mut client = gateway.connect().await;
    client.send(&bytes[..bytes.len() - 5]).await;
    let answer = client.answer(true).await.unwrap();
    answer.assert_failure(408, "REQUEST_TIMEOUT", "slow body");
    gateway.end().await;
}

#[tokio::test]
async fn without_space_the_answer_is_503_and_reading_goes_on() {
    let gateway = Gateway::start().await;
    let conversation = gateway.receive("desk", "+15550001", "hi").await.conversation;
    let dir = gateway.dir.path().to_owned();
    gateway.stop.send_replace(true);
    gateway.task.await.unwrap();
    gateway.store.close().await;
    drop(gateway.store);

    // The same store, on a disk that is too full by decree.
    let mut options = Options::new(&dir);
    options.gateway_id = Some("gw-1".parse().unwrap());
    options.disk_reserve = u64::MAX;
    let store = Store::open(options).unwrap();
    let mut full = config(&gateway.dir);
    full.gateway.state_dir = dir;
    let listener = Listener::bind(&full, store.clone()).await.unwrap();
    let handle = listener.handle();
    let (stop, stopped) = watch::channel(false);
    let gateway = Gateway {
        store,
        handle,
        tls: gateway.tls,
        stop,
        task: tokio::spawn(listener.serve(stopped)),
        dir: gateway.dir,
    };
    let id = conversation.to_string();
    let answer = gateway
        .post(&[
            text("name=\"conversationId\"", &id),
            text("name=\"message\"", "x"),
        ])
        .await;
    answer.assert_failure(503, "SERVICE_UNAVAILABLE", "no space");
    let page = gateway.get(&conversation_path("desk", conversation)).await;
    assert_eq!(page["data"]["messages"][0]["message"], "hi");
    let health = gateway.raw(&request("GET", "/healthz", &[], b"")).await;
    assert_eq!(
        health.json(),
        json!({"status": "ok", "gateway": "gw-1", "store": "no space"})
    );
    gateway.end().await;
}
