use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::{ReceivedMessage, Timestamp};
use crate::protocol::mqtt::{DeviceSpec, Mapping, Packet, Read};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

fn mapping(attachments: &str) -> Mapping {
    let text = format!(
        "in = {{ topic = \"a/{{who}}\", from = \"{{who}}\", text = \"/text\", attachments = {attachments} }}"
    );
    let spec: DeviceSpec = toml::from_str(&text).unwrap();
    Mapping::compile(&spec).unwrap_or_else(|error| panic!("{error}"))
}

fn problem(attachments: &str) -> String {
    let text = format!("in = {{ topic = \"a\", from = \"/f\", attachments = {attachments} }}");
    Mapping::compile(&toml::from_str(&text).unwrap())
        .unwrap_err()
        .to_string()
}

fn read(mapping: &Mapping, payload: &[u8]) -> Result<ReceivedMessage, String> {
    let packet = Packet {
        topic: "a/cam",
        payload,
        packet_id: Some(1),
        retained: false,
        dup: false,
    };
    match mapping.read(
        &"desk".parse().unwrap(),
        &packet,
        Timestamp::from_unix_ms(1_769_744_400_000),
    ) {
        Read::Message(message) => Ok(*message),
        Read::Unmapped(reason) | Read::Ignored(reason) => Err(reason),
        Read::Status(_) => panic!("read as a status"),
    }
}

fn message(mapping: &Mapping, payload: &Value) -> ReceivedMessage {
    read(mapping, payload.to_string().as_bytes()).unwrap()
}

/// Name, type and content of the files.
fn files(message: &ReceivedMessage) -> Vec<(&str, &str, &[u8])> {
    let files = message.attachments.iter();
    files
        .map(|file| (file.name.as_str(), file.mime.as_str(), file.bytes.as_slice()))
        .collect()
}

fn packed(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(bytes)
}

#[test]
fn a_file_comes_as_base64_with_its_name_and_the_type_of_its_bytes() {
    let mapping = mapping(r#"{ at = "/image", name = "/name", type = "/type" }"#);
    let payload =
        json!({"text": "The roof", "image": packed(PNG), "name": "../roof.png", "type": "text/html"});
    let received = message(&mapping, &payload);
    assert_eq!(received.text, "The roof");
    assert_eq!(files(&received), [("roof.png", "image/png", PNG)]);
}

#[test]
fn every_spelling_of_base64_is_read() {
    let bytes = [PNG, b"\xfb\xff\xfe"].concat();
    let standard = packed(&bytes);
    let url_safe = data_encoding::BASE64URL.encode(&bytes);
    let lines = standard
        .as_bytes()
        .chunks(8)
        .map(|line| String::from_utf8_lossy(line));
    let mapping = mapping(r#"{ at = "/image" }"#);
    for spelling in [
        standard.clone(),
        standard.trim_end_matches('=').to_owned(),
        url_safe.clone(),
        url_safe.trim_end_matches('=').to_owned(),
        lines.collect::<Vec<_>>().join("\r\n"),
        format!(" {standard}\n"),
        format!("data:image/jpeg;base64,{standard}"),
        format!("DATA:;charset=x;BASE64,{url_safe}"),
    ] {
        let received = message(&mapping, &json!({"text": "", "image": spelling}));
        assert_eq!(
            files(&received),
            [("picture.png", "image/png", bytes.as_slice())],
            "{spelling}"
        );
    }
}

#[test]
fn a_list_of_files_is_read_with_pointers_that_start_at_its_elements() {
    let mapping = mapping(r#"{ each = "/media", at = "/data", url = "/link", name = "/file" }"#);
    let payload = json!({"text": "two", "media": [
        {"file": "a.png", "data": packed(PNG)},
        {"file": "b", "data": packed(b"%PDF-1.7")},
        {"file": "far.mp4", "link": "https://cdn.example/far.mp4"},
        {"file": "none"},
    ]});
    let received = message(&mapping, &payload);
    assert_eq!(received.text, "two\nfar.mp4: https://cdn.example/far.mp4");
    assert_eq!(
        files(&received),
        [
            ("a.png", "image/png", PNG),
            ("b.pdf", "application/pdf", b"%PDF-1.7")
        ]
    );
    // A single element instead of a list, and none at all.
    let one = message(&mapping, &json!({"text": "one", "media": {"data": packed(PNG)}}));
    assert_eq!(one.attachments.len(), 1);
    for nothing in [
        json!({"text": "x"}),
        json!({"text": "x", "media": []}),
        json!({"text": "x", "media": null}),
    ] {
        assert_eq!(files(&message(&mapping, &nothing)), []);
    }
    let bare = self::mapping(r#"{ each = "/pictures/*/list" }"#);
    let payload = json!({"text": "", "pictures": [{"list": [packed(PNG)]}, {"list": [packed(PNG)]}]});
    assert_eq!(message(&bare, &payload).attachments.len(), 2);
}

#[test]
fn several_sources_add_up_and_hexadecimal_is_read() {
    let mapping = mapping(r#"[{ at = "/a" }, { at = "/b", decode = "hex", name = "{who}.x" }]"#);
    let payload = json!({"text": "", "a": packed(PNG), "b": "4F67675300"});
    assert_eq!(
        files(&message(&mapping, &payload)),
        [
            ("picture.png", "image/png", PNG),
            ("cam.x", "audio/ogg", b"OggS\0")
        ]
    );
}

#[test]
fn a_payload_that_is_the_file_needs_no_text() {
    let spec = r#"in = { topic = "a/{who}", from = "{who}", attachments = { at = "raw", decode = "bytes", name = "{who}" } }"#;
    let mapping = Mapping::compile(&toml::from_str(spec).unwrap()).unwrap();
    let received = read(&mapping, PNG).unwrap();
    assert_eq!((received.text.as_str(), received.from.as_str()), ("", "cam"));
    assert_eq!(files(&received), [("cam.png", "image/png", PNG)]);
    assert_eq!(
        read(&mapping, b"").err().unwrap(),
        "there is no file in the payload"
    );
}

#[test]
fn what_is_no_file_leaves_the_text_and_says_why() {
    let mapping = mapping(r#"{ at = "/f", name = "/n", max_size = "16B" }"#);
    for (content, line) in [
        (json!("https"), "it is not base64"),
        (json!("QQ==QQ=="), "it is not base64"),
        (json!("===="), "it is empty"),
        (json!("data:text/html,<b>"), "it is a data: URI without base64"),
        (json!("data:x"), "it is a data: URI without content"),
        (json!(7), "it is not a text"),
        (json!({"a": 1}), "it is an object, not a text"),
        (
            json!(packed(&[0; 17])),
            "it has 17 bytes, and 16 bytes are the limit",
        ),
    ] {
        let received = message(&mapping, &json!({"text": "hello", "f": content, "n": "a/b.png"}));
        assert_eq!(
            received.text,
            format!("hello\n[a file \"b.png\" was left out: {line}]")
        );
        assert!(received.attachments.is_empty());
        // Only the broken file is a message, too.
        let alone = message(&mapping, &json!({"f": content}));
        assert_eq!(alone.text, format!("[a file was left out: {line}]"));
    }
    let fits = message(&mapping, &json!({"text": "x", "f": packed(&[0; 16])}));
    assert_eq!(fits.attachments.len(), 1);
}

#[test]
fn a_link_goes_into_the_text_and_is_never_more_than_a_link() {
    let mapping = mapping(r#"{ at = "/f", url = "/u", name = "/n" }"#);
    let received = message(&mapping, &json!({"text": "see", "u": "https://x.example/a.jpg"}));
    assert_eq!(received.text, "see\nhttps://x.example/a.jpg");
    // In the place of the content.
    let received = message(&mapping, &json!({"f": "HTTP://x.example/a.jpg", "n": "a.jpg"}));
    assert_eq!(received.text, "a.jpg: HTTP://x.example/a.jpg");
    for link in [
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://a b",
        &format!("https://{}", "x".repeat(2048)),
    ] {
        let received = message(&mapping, &json!({"text": "see", "u": link}));
        assert_eq!(
            received.text,
            "see\n[a file was left out: its address is no http or https link]"
        );
    }
}

#[test]
fn a_message_brings_ten_files_at_most_and_says_so() {
    let mapping = mapping(r#"{ each = "/m" }"#);
    let many = vec![packed(PNG); 100];
    let received = message(&mapping, &json!({"text": "x", "m": many}));
    assert_eq!(received.attachments.len(), 10);
    assert_eq!(
        received.text,
        "x\n[90 more files were left out: 10 are the limit]"
    );
}

#[test]
fn without_a_file_the_text_is_read_as_before() {
    let mapping = mapping(r#"{ at = "/f" }"#);
    assert_eq!(message(&mapping, &json!({"text": ""})).text, "");
    let reason = read(&mapping, b"{}").err().unwrap();
    assert_eq!(reason, "`text` cannot be read: there is no /text in the payload");
    let reason = read(&mapping, b"\xff").err().unwrap();
    assert_eq!(reason, "`text` cannot be read: the payload is binary, not JSON");
}

#[test]
fn a_mapping_of_files_that_cannot_work_says_what_to_write() {
    for (attachments, expected) in [
        (
            "{}",
            "`in.attachments.at` is missing; say where the file is, e.g. at = \"/image\" for base64, or url = \"/image_url\"",
        ),
        (
            r#"{ at = "image" }"#,
            "`in.attachments.at` is \"image\": this is not a place in the payload; write a JSON pointer such as \"/image\", a capture such as \"{name}\", or \"raw\"",
        ),
        (
            r#"[{ at = "/a" }, { each = "raw", at = "/a" }]"#,
            "`in.attachments.2.each` is \"raw\": this is not a JSON pointer; write where it is in the payload, e.g. \"/files\"",
        ),
        (
            r#"{ at = "/a", decode = "bytes" }"#,
            "`in.attachments.decode` is \"bytes\": a JSON value never holds plain bytes; write at = \"raw\" if the whole payload is the file, else \"base64\" or \"hex\"",
        ),
        (
            r#"{ each = "/a", at = "raw" }"#,
            "`in.attachments.at` is \"raw\": the whole payload is no element of `each`; write a JSON pointer that starts at an element, or leave `each` out",
        ),
        (
            r#"{ at = "/a", max_size = "1GiB" }"#,
            "`in.attachments.max_size` is \"1GiB\": no packet carries that; write a size up to 256MiB",
        ),
    ] {
        assert_eq!(problem(attachments), expected);
    }
}

#[test]
fn the_largest_packet_follows_from_the_largest_file() {
    assert_eq!(mapping(r#"{ url = "/u" }"#).largest_packet(), None);
    assert_eq!(
        mapping(r#"{ at = "/a", max_size = 3000 }"#).largest_packet(),
        Some(4000 + BESIDE)
    );
    let both = mapping(r#"[{ at = "/a", max_size = 3000 }, { at = "/b", decode = "hex", max_size = 3000 }]"#);
    assert_eq!(both.largest_packet(), Some(6000 + BESIDE));
}

proptest! {
    #[test]
    fn base64_of_any_bytes_is_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..200), width in 1_usize..80) {
        for text in [
            data_encoding::BASE64.encode(&bytes),
            data_encoding::BASE64_NOPAD.encode(&bytes),
            data_encoding::BASE64URL.encode(&bytes),
            data_encoding::BASE64URL_NOPAD.encode(&bytes),
            data_encoding::BASE64_MIME.encode(&bytes),
        ] {
            let broken: Vec<u8> = text.as_bytes().chunks(width).collect::<Vec<_>>().join(&b'\n');
            prop_assert_eq!(decoded_len(&broken), bytes.len());
            prop_assert_eq!(base64(&broken).unwrap(), bytes.clone());
        }
    }

    #[test]
    fn no_text_makes_the_decoder_panic_or_exceed_its_forecast(text in proptest::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(bytes) = base64(&text) {
            prop_assert!(bytes.len() <= decoded_len(&text) + 2);
        }
    }

    #[test]
    fn whatever_stands_where_a_file_should_be_the_message_arrives(content in ".{0,60}", name in ".{0,20}") {
        let mapping = mapping(r#"{ at = "/f", name = "/n", url = "/f" }"#);
        let received = message(&mapping, &json!({"text": "hello", "f": content, "n": name}));
        prop_assert!(received.text.starts_with("hello"));
    }
}
