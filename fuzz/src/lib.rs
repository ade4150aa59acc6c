//! What the fuzzers and the short deterministic run in `tests/fuzz.rs` feed with bytes from outside. None may panic.

#[path = "listener.rs"]
mod listener;

pub use listener::{end_listener, exchange, http, multipart, posted};

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::Duration;

use pipepost::config::{self, Request};
use pipepost::domain::{AttachmentId, ChannelId, ConversationId, MessageId, ParticipantId, Timestamp};
use pipepost::protocol::avatar::Avatar;
use pipepost::protocol::contacts::{self, Book, Item};
use pipepost::protocol::file::{self, clean_name};
use pipepost::protocol::media;
use pipepost::protocol::mqtt::{Mapping, Packet, Read, presets, suggest};
use pipepost::protocol::pipedrive::channels::{Call, Reply, classify};
use pipepost::protocol::pipedrive::manifest::{
    Cursor, PostForm, is_file_field, needs_credentials, page_request, route,
};
use pipepost::protocol::retry::Limits;
use pipepost::protocol::sms::at::{Action, Dialogue, Event, Settings, Source};
use pipepost::protocol::sms::charset::Language;
use pipepost::protocol::sms::pdu::join;
use pipepost::protocol::sms::{
    Assembler, Home, Incoming, PduAddress, Reference, Step, SubmitOptions, decode_incoming, decode_submit,
    decode_tpdu, encode_submit,
};

const NOW: Timestamp = Timestamp::from_unix_ms(1_769_744_285_000);

/// Splits at the first line break.
fn two(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(bytes.len());
    let (first, rest) = bytes.split_at(end);
    (first, rest.strip_prefix(b"\n").unwrap_or(rest))
}

/// A mapping that finds files in every form that there is.
const FILES: &str = r#"
[[in]]
topic = "files/{name}"
from = "{name}"
text = "/text"
attachments = [
    { each = "/media", at = "/data", url = "/url", name = "/name", type = "/type", max_size = "4KiB" },
    { at = "/hex", decode = "hex" },
    { each = "/list/*/of" },
]
[[in]]
topic = "raw/{name}"
from = "{name}"
attachments = { at = "raw", decode = "bytes", name = "{name}" }
[[in]]
topic = "base64/{name}"
from = "{name}"
attachments = { at = "raw" }
"#;

static FILES_MAPPING: LazyLock<Option<Mapping>> =
    LazyLock::new(|| Mapping::compile(&toml::from_str(FILES).ok()?).ok());

/// A preset may leave a variable to the device: then it does not compile alone.
static PRESETS: LazyLock<Vec<Mapping>> = LazyLock::new(|| {
    let specs = presets::ALL
        .iter()
        .filter_map(|(name, _)| presets::get(name).ok());
    specs.filter_map(|spec| Mapping::compile(&spec).ok()).collect()
});

/// What came out of a payload is fit to be stored and shown.
fn check_files(read: &Read) {
    if let Read::Message(message) = read {
        assert!(message.attachments.len() <= 10);
        for file in &message.attachments {
            assert!(!file.name.is_empty() && !file.name.contains(['/', '\\', '\n', '\0']));
            assert!(!file.bytes.is_empty());
            assert!(!file::is_active(&file.mime), "{}", file.mime);
        }
    }
}

/// First line: topic; the rest: payload. Every shipped preset reads it, and a mapping of files.
pub fn mapping(bytes: &[u8]) {
    let (topic, payload) = two(bytes);
    let topic = String::from_utf8_lossy(topic);
    let Ok(channel) = "fuzz".parse::<ChannelId>() else {
        return;
    };
    // It compiles every preset: a part of the inputs is enough for it.
    if bytes.len().is_multiple_of(8) {
        black_box(suggest(&topic, payload, NOW).is_ok());
    }
    assert!(!PRESETS.is_empty() && FILES_MAPPING.is_some());
    if let Some(files) = FILES_MAPPING.as_ref() {
        for topic in [topic.as_ref(), "files/x", "raw/x", "base64/x"] {
            let packet = Packet {
                topic,
                payload,
                packet_id: Some(1),
                retained: false,
                dup: false,
            };
            check_files(&files.read(&channel, &packet, NOW));
        }
    }
    for mapping in PRESETS.iter() {
        for (packet_id, dup, retained) in [(None, false, false), (Some(7), true, true)] {
            let packet = Packet {
                topic: &topic,
                payload,
                packet_id,
                retained,
                dup,
            };
            black_box(mapping.read(&channel, &packet, NOW));
        }
        // The topic that the device itself would use, so that the payload is looked at.
        for filter in mapping.filters() {
            let topic = filter.replace(['+', '#'], "x");
            let packet = Packet {
                topic: &topic,
                payload,
                packet_id: Some(1),
                retained: false,
                dup: false,
            };
            black_box(mapping.read(&channel, &packet, NOW));
        }
    }
}

/// First line: method, path and query of a request to the listener; the rest: lines `name=value` of a form.
pub fn manifest(bytes: &[u8]) {
    let (head, form) = two(bytes);
    let head = String::from_utf8_lossy(head);
    let (method, target) = head.split_once(' ').unwrap_or(("GET", &head));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // Whatever leads into the API must ask for credentials first.
    if path == "/api" || path.starts_with("/api/") {
        assert!(needs_credentials(method, path), "{method} {path}");
    }
    black_box(route(method, path));
    black_box(page_request(query));
    black_box(media::verify(&[7; 32], path, NOW).is_ok());
    black_box(Avatar::verify(&[7; 32], path).is_some_and(|avatar| avatar.svg().is_empty()));
    black_box(Cursor::Messages(ConversationId(1)).decode(query));
    black_box(path.parse::<ConversationId>().is_ok());
    black_box(path.parse::<MessageId>().is_ok());
    black_box(path.parse::<ParticipantId>().is_ok());
    black_box(path.parse::<AttachmentId>().is_ok());
    let mut post = PostForm::default();
    for line in String::from_utf8_lossy(form).lines() {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        let name_is_clean = clean_name(value);
        assert!(
            !name_is_clean.contains('/') && !name_is_clean.is_empty(),
            "{name_is_clean:?}"
        );
        black_box(is_file_field(name, Some(value)));
        if post.field(name, value.to_owned()).is_err() {
            return;
        }
    }
    black_box(post.finish().is_ok_and(|post| post.check_content(0).is_ok()));
}

/// First line: status and content type of an answer of the Channels API; the rest: its body.
pub fn answers(bytes: &[u8]) {
    let (head, body) = two(bytes);
    let head = String::from_utf8_lossy(head);
    let (status, content_type) = head.split_once(' ').unwrap_or((&head, ""));
    let status = status.parse().unwrap_or(200);
    let calls = [
        Call::Receive {
            known: false,
            served: false,
        },
        Call::Receive {
            known: true,
            served: true,
        },
        Call::Register,
        Call::DeleteChannel,
        Call::DeleteConversation,
    ];
    for call in calls {
        for complete in [true, false] {
            let reply = Reply {
                status,
                content_type: Some(content_type),
                location: Some(content_type),
                limits: Limits::default(),
                body,
                complete,
            };
            black_box(classify(call, &reply));
        }
    }
}

/// What a modem sends, in pieces: before each, one byte says how much time passes and what the gateway wants.
pub fn modem(bytes: &[u8]) {
    let mut now = Duration::ZERO;
    let mut dialogue = Dialogue::new(Settings::default(), now);
    let (mut submitted, mut finished, mut ctrl_z) = (0_u64, 0_u64, 0_u64);
    let mut take = |dialogue: &mut Dialogue, now| {
        while let Some(action) = dialogue.next_action() {
            match action {
                Action::Write(bytes) => ctrl_z += u64::from(bytes.contains(&0x1a)),
                Action::Event(Event::Sent { .. }) => finished += 1,
                Action::Event(Event::Received {
                    source: Source::Stored(place),
                    ..
                }) => dialogue.delete(place, now),
                Action::Event(Event::Received { .. }) => dialogue.confirm(now),
                Action::Event(Event::PinNeeded) => dialogue.enter_pin("1234", now),
                Action::Event(_) => {}
            }
        }
    };
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some((first, rest)) = piece.split_first() else {
            continue;
        };
        now += Duration::from_millis(u64::from(first >> 3) * u64::from(first >> 3) * 40);
        dialogue.tick(now);
        if first & 7 == 1 {
            submitted += 1;
            dialogue.submit(submitted, vec![0, 1, 2], 2, now);
        } else if first & 7 == 2 {
            dialogue.ussd(1, "*100#", now);
        }
        dialogue.receive(rest, now);
        take(&mut dialogue, now);
    }
    dialogue.close("the end");
    take(&mut dialogue, now);
    assert_eq!(submitted, finished, "each message has one outcome");
    assert!(ctrl_z <= submitted, "Ctrl-Z is written once per message");
}

/// An address book, whole and in pieces, which must come to the same.
pub fn contacts(bytes: &[u8]) {
    let read = |size: usize| {
        let mut book = Book::default();
        let mut outcome = Ok(());
        for piece in bytes.chunks(size) {
            outcome = outcome.and_then(|()| book.push(piece));
        }
        let outcome = outcome.and_then(|()| book.finish());
        outcome.map(|()| std::iter::from_fn(|| book.next_item()).collect::<Vec<_>>())
    };
    let whole = read(bytes.len().max(1));
    assert_eq!(read(7), whole);
    let home = Home::new("GB").unwrap_or_default();
    for item in whole.unwrap_or_default() {
        let Item::Contact(contact) = item else { continue };
        // A clean name stays as it is, and fits.
        assert_eq!(contacts::clean_name(&contact.name).as_ref(), Some(&contact.name));
        assert!(contact.name.chars().count() <= contacts::MAX_NAME);
        assert!(!contact.name.chars().any(char::is_control), "{:?}", contact.name);
        for address in contact.addresses(home).flatten() {
            // What is stored is found again.
            let again = contacts::address_of(address.as_str(), home);
            let is_device = contact
                .devices
                .iter()
                .any(|device| device.trim() == address.as_str());
            assert!(
                is_device || again.as_ref() == Ok(&address),
                "{address:?} {again:?}"
            );
        }
    }
}

/// A configuration file.
pub fn config(bytes: &[u8]) {
    let file = std::env::temp_dir().join(format!("pipepost-fuzz-{}.toml", std::process::id()));
    if std::fs::write(&file, bytes).is_err() {
        return;
    }
    let request = Request {
        file: Some(file.clone()),
        without_files: true,
        ..Request::default()
    };
    let loaded = config::load(&request);
    for finding in &loaded.findings {
        let shown = finding.to_string();
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    }
    // What is accepted can be printed and is accepted again.
    assert_eq!(loaded.config.is_some(), loaded.errors() == 0);
    black_box(loaded.effective());
    black_box(std::fs::remove_file(file).is_ok());
}

/// What a modem hands over: a PDU, with and without a service centre. As text it is sent, and must come back.
pub fn pdu(bytes: &[u8]) {
    let home = Home::new("GB").unwrap_or_default();
    let mut assembler = Assembler::new(Duration::from_secs(60));
    for read in [decode_incoming(bytes), decode_tpdu(bytes)] {
        match read {
            Ok(Incoming::Deliver(deliver)) => {
                black_box(home.peer(&deliver.from));
                if let Some(part) = deliver.part {
                    assert!(part.total > 1 && (1..=part.total).contains(&part.number));
                }
                if let Step::Complete(received) = assembler.receive(*deliver, (), Duration::ZERO) {
                    black_box(received.text());
                }
                for received in assembler.expire(Duration::from_secs(60)) {
                    assert!(!received.missing.is_empty());
                    black_box(received.text());
                }
            }
            Ok(Incoming::StatusReport(report)) => {
                black_box(report.outcome.as_str());
            }
            Err(error) => assert!(error.octet <= bytes.len(), "{error}"),
        }
    }
    black_box(decode_submit(bytes).is_ok());

    let text = String::from_utf8_lossy(bytes).replace('\u{feff}', "");
    black_box(home.recipient(&text));
    let Some(to) = PduAddress::number("+447700900123") else {
        return;
    };
    for (languages, reference) in [
        (Vec::new(), Reference::Narrow(7)),
        (Language::ALL.to_vec(), Reference::Wide(7)),
    ] {
        let options = SubmitOptions {
            languages,
            reference,
            max_parts: 255,
            ..SubmitOptions::default()
        };
        let Ok(parts) = encode_submit(&text, &to, &options) else {
            continue;
        };
        let bodies: Vec<_> = parts
            .iter()
            .filter_map(|part| decode_submit(&part.pdu).ok())
            .map(|read| read.body)
            .collect();
        assert_eq!(bodies.len(), parts.len());
        assert_eq!(join(&bodies), text);
    }
}
