//! A mapping proposed from a captured payload: `pipepost mqtt suggest`.

use serde_json::Value;

use super::files::recognised;
use super::mapping::{Mapping, Packet, Read};
use super::presets;
use super::spec::DeviceSpec;
use crate::domain::{ChannelId, Timestamp};
use crate::protocol::file;

const FROM: &[&str] = &[
    "from",
    "number",
    "sender",
    "phone",
    "phonenumber",
    "msisdn",
    "source",
    "src",
    "originator",
    "address",
    "devicename",
    "deviceid",
    "deveui",
    "node",
    "user",
    "id",
];
const TEXT: &[&str] = &[
    "text",
    "message",
    "msg",
    "body",
    "content",
    "smstext",
    "sms",
    "payload",
    "data",
    "frmpayload",
    "value",
];
const NAME: &[&str] = &["fromname", "name", "sendername", "longname", "contact"];
const ID: &[&str] = &["messageid", "msgid", "smsid", "uuid", "deduplicationid", "id"];
const TIME: &[&str] = &[
    "timestamp",
    "time",
    "datetime",
    "date",
    "receivedat",
    "sentat",
    "datereceived",
    "ts",
];
const FILE_NAME: &[&str] = &["filename", "file", "name", "title"];
const FILE_TYPE: &[&str] = &["mimetype", "mime", "contenttype", "mediatype", "type"];
/// Forms of time without a zone that devices write, beside ISO 8601.
const PATTERNS: &[&str] = &[
    "%Y-%m-%d %H:%M:%S",
    "%Y/%m/%d %H:%M:%S",
    "%d.%m.%Y %H:%M:%S",
    "%d/%m/%Y %H:%M:%S",
    "%y/%m/%d,%H:%M:%S",
    "%a %b %e %H:%M:%S %Y",
];

/// Proposes a `[[device]]` that reads `payload` as a message. What comes back is TOML, was compiled, and reads it.
///
/// # Errors
/// Why nothing can be proposed, with what to do.
pub fn suggest(topic: &str, payload: &[u8], now: Timestamp) -> Result<String, String> {
    for (name, _) in presets::ALL {
        let spec = DeviceSpec {
            preset: Some((*name).to_owned()),
            ..DeviceSpec::default()
        };
        // A preset whose topic takes everything says nothing about the device.
        let known = Mapping::compile(&spec)
            .is_ok_and(|mapping| !mapping.filters().contains("+") && reads(&mapping, topic, payload, now));
        if known {
            return Ok(format!("[[device]]\nname = \"new-device\"\npreset = {name:?}\n"));
        }
    }
    let proposals = match (
        std::str::from_utf8(payload),
        serde_json::from_slice::<Value>(payload),
    ) {
        _ if file::is_recognised(payload) => {
            vec![from_topic(
                topic,
                "attachments = { at = \"raw\", decode = \"bytes\" }",
                "",
            )]
        }
        (Err(_), _) => {
            return Err(
                "the payload is binary and of no type that shows itself: only devices that send text, JSON or a file \
                 such as a picture can be mapped"
                    .to_owned(),
            );
        }
        (_, Ok(json @ (Value::Object(_) | Value::Array(_)))) => from_json(topic, &json),
        (Ok(text), _) if recognised(text) => vec![from_topic(topic, "attachments = { at = \"raw\" }", "")],
        _ => vec![from_topic(topic, "text = \"raw\"", "")],
    };
    proposals
        .into_iter()
        .find(|proposal| {
            compile(proposal).is_some_and(|mapping| reads(&mapping, topic, payload, now))
        })
        .ok_or_else(|| {
            "no text was found in the payload: look which of its values is the message, and write `text` and `from` \
             by hand"
                .to_owned()
        })
}

/// The mapping of the first `[[device]]` in a TOML text.
fn compile(proposal: &str) -> Option<Mapping> {
    let mut table: toml::Table = toml::from_str(proposal).ok()?;
    let toml::Value::Array(mut devices) = table.remove("device")? else {
        return None;
    };
    let mut device = devices.pop()?;
    device.as_table_mut()?.remove("name");
    let spec: DeviceSpec = device.try_into().ok()?;
    Mapping::compile(&spec).ok()
}

fn reads(mapping: &Mapping, topic: &str, payload: &[u8], now: Timestamp) -> bool {
    let Ok(channel) = "suggest".parse::<ChannelId>() else {
        return false;
    };
    let packet = Packet {
        topic,
        payload,
        packet_id: Some(1),
        retained: false,
        dup: false,
    };
    matches!(mapping.read(&channel, &packet, now), Read::Message(_))
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A value of the payload with the pointer to it.
struct Leaf<'v> {
    pointer: String,
    /// The last key, small and without separators.
    key: String,
    value: &'v Value,
}

fn leaves<'v>(value: &'v Value, pointer: &str, key: &str, found: &mut Vec<Leaf<'v>>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let token = name.replace('~', "~0").replace('/', "~1");
                let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
                leaves(
                    value,
                    &format!("{pointer}/{token}"),
                    &plain.to_ascii_lowercase(),
                    found,
                );
            }
        }
        Value::Array(list) => {
            if let Some(first) = list.first() {
                leaves(first, &format!("{pointer}/*"), key, found);
            }
        }
        Value::Null => {}
        _ => found.push(Leaf {
            pointer: pointer.to_owned(),
            key: key.to_owned(),
            value,
        }),
    }
}

/// The leaf whose key stands first in a list of words and that is not taken.
fn pick<'l, 'v>(
    leaves: &'l [Leaf<'v>],
    words: &[&str],
    taken: &[&str],
    fits: fn(&Value) -> bool,
) -> Option<&'l Leaf<'v>> {
    words.iter().find_map(|word| {
        leaves
            .iter()
            .find(|leaf| leaf.key == *word && !taken.contains(&leaf.pointer.as_str()) && fits(leaf.value))
    })
}

fn from_json(topic: &str, json: &Value) -> Vec<String> {
    let mut all = Vec::new();
    leaves(json, "", "", &mut all);
    let (files, all): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|leaf| leaf.value.as_str().is_some_and(recognised));
    let is_text = |value: &Value| value.is_string();
    let is_scalar = |value: &Value| value.is_string() || value.is_number();
    let mut of_files = Vec::new();
    let attachments: Vec<String> = files
        .iter()
        .map(|leaf| attachment(leaf, &all, &mut of_files))
        .collect();
    let all: Vec<Leaf<'_>> = all
        .into_iter()
        .filter(|leaf| !of_files.contains(&leaf.pointer))
        .collect();
    let text = pick(&all, TEXT, &[], is_text).or_else(|| {
        // The longest text with a blank in it is what a person wrote.
        let written = all
            .iter()
            .filter(|leaf| leaf.value.as_str().is_some_and(|text| text.contains(' ')));
        written.max_by_key(|leaf| leaf.value.as_str().map_or(0, str::len))
    });
    if text.is_none() && attachments.is_empty() {
        return Vec::new();
    }
    let mut taken: Vec<&str> = text.iter().map(|leaf| leaf.pointer.as_str()).collect();
    let mut lines: Vec<String> = Vec::new();
    match attachments.as_slice() {
        [] => {}
        [one] => lines.push(format!("attachments = {one}")),
        several => lines.push(format!("attachments = [{}]", several.join(", "))),
    }
    let time = pick(&all, TIME, &taken, is_scalar).and_then(|leaf| Some((leaf, time_format(leaf.value)?)));
    if let Some((leaf, format)) = &time {
        taken.push(&leaf.pointer);
        lines.push(format!("time = {{ at = {}, {format} }}", quoted(&leaf.pointer)));
    }
    let from = pick(&all, FROM, &taken, is_scalar);
    taken.extend(from.map(|leaf| leaf.pointer.as_str()));
    if let Some(leaf) = pick(&all, ID, &taken, is_scalar) {
        taken.push(&leaf.pointer);
        lines.push(format!("id = [{}, \"hash\"]", quoted(&leaf.pointer)));
    }
    if let Some(leaf) = pick(&all, NAME, &taken, is_text) {
        lines.push(format!("from_name = {}", quoted(&leaf.pointer)));
    }
    let lines = lines.join("\n");
    let Some(text) = text else {
        return vec![match from {
            Some(from) => block(topic, &format!("from = {}", quoted(&from.pointer)), &lines, ""),
            None => from_topic(topic, &lines, ""),
        }];
    };
    let plain = format!("text = {}", quoted(&text.pointer));
    let packed = format!("text = {{ at = {}, decode = \"base64\" }}", quoted(&text.pointer));
    // Words with blanks are never base64; four letters may be either, and LoRaWAN names say which.
    let spellings = if ["data", "frmpayload", "payload"].contains(&text.key.as_str()) {
        [packed, plain]
    } else {
        [plain.clone(), plain]
    };
    spellings
        .iter()
        .map(|text| match from {
            Some(from) => block(topic, &format!("from = {}", quoted(&from.pointer)), text, &lines),
            None => from_topic(topic, text, &lines),
        })
        .collect()
}

/// The table that reads a file; `beside` gets the pointers of what belongs to it.
fn attachment(content: &Leaf<'_>, all: &[Leaf<'_>], beside: &mut Vec<String>) -> String {
    let (each, at) = match content.pointer.rsplit_once("/*") {
        Some((each, at)) => (Some(each), at),
        None => (None, content.pointer.as_str()),
    };
    let start = content.pointer.len() - at.len();
    let folder = content.pointer.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut keys: Vec<String> = Vec::new();
    keys.extend(each.map(|each| format!("each = {}", quoted(each))));
    if !at.is_empty() {
        keys.push(format!("at = {}", quoted(at)));
    }
    // Beside a picture in the message itself, "name" is more likely the sender's.
    let own = !folder.is_empty();
    for (key, words) in [("name", FILE_NAME), ("type", FILE_TYPE)] {
        let found = words
            .iter()
            .filter(|word| own || !["name", "title", "type"].contains(word))
            .find_map(|word| {
                let same = |leaf: &&Leaf<'_>| {
                    leaf.key == *word && leaf.pointer.rsplit_once('/').is_some_and(|(of, _)| of == folder)
                };
                all.iter().find(same).filter(|leaf| leaf.value.is_string())
            });
        if let Some(pointer) = found.filter(|_| !at.is_empty()).map(|leaf| leaf.pointer.as_str()) {
            keys.push(format!(
                "{key} = {}",
                quoted(pointer.get(start..).unwrap_or_default())
            ));
            beside.push(pointer.to_owned());
        }
    }
    format!("{{ {} }}", keys.join(", "))
}

/// The sender stands in the topic: the level with the most digits, else the last but one, else the only one.
fn from_topic(topic: &str, text: &str, rest: &str) -> String {
    let mut levels: Vec<&str> = topic.split('/').collect();
    let digits = |level: &str| level.bytes().filter(u8::is_ascii_digit).count();
    let most = levels
        .iter()
        .enumerate()
        .max_by_key(|(_, level)| digits(level))
        .filter(|(_, level)| digits(level) >= 3)
        .map_or(levels.len().saturating_sub(2), |(index, _)| index);
    if let Some(level) = levels.get_mut(most) {
        *level = "{sender}";
    }
    block(&levels.join("/"), "from = \"{sender}\"", text, rest)
}

fn block(topic: &str, from: &str, text: &str, rest: &str) -> String {
    let base = topic.rsplit_once('/').map_or(topic, |(base, _)| base);
    let answer = base.replace("{sender}", "{{to|digits}}");
    format!(
        "[[device]]\nname = \"new-device\"\n\n[device.in]\ntopic = {}\n{from}\n{text}\n{rest}\n\
         # How the device takes answers is not in its messages: look it up, then take the '#' away.\n\
         #[device.out]\n#topic = {}\n#payload = '{{\"to\":{{{{to}}}},\"text\":{{{{text}}}}}}'\n",
        quoted(topic),
        quoted(&format!("{answer}/send"))
    )
}

fn time_format(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    if let Ok(number) = text.parse::<f64>() {
        // Seconds of this century, or milliseconds.
        return match number {
            n if (9e8..1e10).contains(&n) => Some("format = \"unix_s\"".to_owned()),
            n if (9e11..1e13).contains(&n) => Some("format = \"unix_ms\"".to_owned()),
            _ => None,
        };
    }
    if text.parse::<jiff::Timestamp>().is_ok() {
        return Some("format = \"rfc3339\"".to_owned());
    }
    let format = if text.parse::<jiff::civil::DateTime>().is_ok() {
        "rfc3339"
    } else {
        PATTERNS
            .iter()
            .find(|pattern| jiff::civil::DateTime::strptime(pattern, &text).is_ok())?
    };
    Some(format!("format = {format:?}, zone = \"UTC\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_unix_ms(1_769_744_400_000)
    }

    fn proposal(topic: &str, payload: &str) -> String {
        let proposal = suggest(topic, payload.as_bytes(), now()).unwrap();
        let mapping = compile(&proposal).unwrap_or_else(|| panic!("{proposal}"));
        assert!(reads(&mapping, topic, payload.as_bytes(), now()), "{proposal}");
        // The example of an answer is valid too.
        let whole = proposal
            .replace("#[", "[")
            .replace("#topic", "topic")
            .replace("#payload", "payload");
        assert!(compile(&whole).is_some(), "{whole}");
        proposal
    }

    #[test]
    fn a_known_device_gets_its_preset() {
        let text = proposal(
            "sms2mqtt/received",
            r#"{"datetime":"2026-01-30 03:38:05","number":"+31612345678","text":"hi"}"#,
        );
        assert!(text.contains("preset = \"sms2mqtt\""), "{text}");
    }

    #[test]
    fn values_of_an_unknown_device_are_found_by_their_names() {
        let text = proposal(
            "yard/gate/in",
            r#"{"meta":{"ts":1769744285000,"msg-id":"a1"},"sms":[{"phone":"+15550100","body":"open please"}]}"#,
        );
        for line in [
            "topic = \"yard/gate/in\"",
            "from = \"/sms/*/phone\"",
            "text = \"/sms/*/body\"",
            "time = { at = \"/meta/ts\", format = \"unix_ms\" }",
            "id = [\"/meta/msg-id\", \"hash\"]",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn base64_and_a_sender_in_the_topic_are_found() {
        let text = proposal(
            "pagers/70b3d57ed005/up",
            r#"{"port":1,"data":"SGVsbG8gdGhlcmU="}"#,
        );
        assert!(text.contains("topic = \"pagers/{sender}/up\""), "{text}");
        assert!(text.contains("decode = \"base64\""), "{text}");
        let text = proposal("doors/15550100/says", "let me in");
        assert!(
            text.contains("text = \"raw\"") && text.contains("from = \"{sender}\""),
            "{text}"
        );
    }

    #[test]
    fn files_are_found_by_their_content() {
        let png = data_encoding::BASE64.encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR");
        let text = proposal(
            "bridge/in",
            &format!(
                r#"{{"from":"+15550100","body":"look","media":[{{"filename":"a.png","type":"image/png","data":"{png}"}}]}}"#
            ),
        );
        assert!(text.contains("text = \"/body\""), "{text}");
        let expected =
            r#"attachments = { each = "/media", at = "/data", name = "/filename", type = "/type" }"#;
        assert!(text.contains(expected), "{text}");
        let text = proposal(
            "cams/gate/alarm",
            &format!(r#"{{"name":"Gate","snapshot":"data:image/png;base64,{png}","list":["{png}"]}}"#),
        );
        assert!(
            text.contains(r#"attachments = [{ each = "/list" }, { at = "/snapshot" }]"#)
                && text.contains("from_name = \"/name\"")
                && !text.contains("text ="),
            "{text}"
        );
        for (payload, expected) in [
            (png.as_bytes(), "attachments = { at = \"raw\" }"),
            (
                b"\xff\xd8\xff\xe0\0",
                "attachments = { at = \"raw\", decode = \"bytes\" }",
            ),
        ] {
            let text = suggest("cams/gate/jpg", payload, now()).unwrap();
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_mapped_says_why() {
        assert!(suggest("a/b", b"\xff\x00", now()).unwrap_err().contains("binary"));
        assert!(
            suggest("a/b", br#"{"temperature":21.5}"#, now())
                .unwrap_err()
                .contains("no text")
        );
    }

    #[test]
    fn strange_topics_and_keys_never_make_a_proposal_that_does_not_work() {
        for topic in ["", "a", "a/{b}/c", "\"/x", "a//b", "+15550100/x"] {
            for payload in [
                "",
                "{}",
                "[]",
                "hi",
                r#"{"a/b~\"":{"text":"x y"},"from":"1"}"#,
                r#"{"text":"","from":"1"}"#,
            ] {
                if let Ok(text) = suggest(topic, payload.as_bytes(), now()) {
                    assert!(compile(&text).is_some(), "{text}");
                }
            }
        }
    }
}
