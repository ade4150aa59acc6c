//! The shape of a device's mapping in TOML: strict, every key optional, so that a device can lean on a preset
//! and override single keys. [`Mapping::compile`](super::Mapping::compile) says what is missing.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::domain::ByteSize;

/// The mapping of one device, as in `[[device]]` (beside `name` and `broker`) and in the preset files.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceSpec {
    /// `preset`: name of a mapping that comes with the gateway. The other keys override its keys one by one:
    /// the nth `in` block those of the preset's nth `in` block, likewise `status`; further blocks are added.
    pub preset: Option<String>,
    /// `vars`: values for names in topics and templates, e.g. `{ prefix = "sms2mqtt" }`. A `{name}` in a topic
    /// that has no value here is a one-level wildcard with a name.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
    /// `[device.in]` or `[[device.in]]`: how a customer's message is read. The first block that takes a payload wins.
    #[serde(default, rename = "in")]
    pub incoming: OneOrMany<InSpec>,
    /// `[device.out]`: how an agent's answer is written. Without it the device only receives.
    pub out: Option<OutSpec>,
    /// `[[device.status]]`: how the device reports what became of an answer.
    #[serde(default)]
    pub status: OneOrMany<StatusSpec>,
}

/// `[device.in]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InSpec {
    /// `topic`, with `{name}` for one level that is remembered and `+` for one that is not; `#` only at the end.
    pub topic: Option<String>,
    /// `when`: every condition must hold, else the payload is none of this block's business.
    pub when: Option<OneOrMany<Condition>>,
    /// `from`: who wrote it; the answer goes there unless there is a `group`.
    pub from: Option<Extract>,
    /// `from_name`: a name for the writer.
    pub from_name: Option<Extract>,
    /// `group`: where the answer goes when the message was written to a group.
    pub group: Option<Extract>,
    /// `text`; may be left out where there are `attachments`.
    pub text: Option<Extract>,
    /// `attachments`: files in the payload.
    pub attachments: Option<OneOrMany<AttachmentSpec>>,
    /// `id`: the device's own id of the message; the first that exists recognises a repeat. `"hash"` (the
    /// default): a digest of topic and payload.
    pub id: Option<OneOrMany<Extract>>,
    /// `time`: when the device says it was written.
    pub time: Option<TimeSpec>,
    /// `retained`: what to do with a message that the broker kept from before the subscription. Default `ignore`.
    pub retained: Option<Retained>,
}

/// One of `attachments`: a file in the payload, or a list of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachmentSpec {
    /// `each`: a JSON pointer to a list (or to a single one of its kind); the other pointers then start at each of
    /// its elements.
    pub each: Option<String>,
    /// `at`: where the content is, as base64 or a `data:` URI: a JSON pointer, or `raw` for the whole payload.
    /// With `each` alone the elements are the content.
    pub at: Option<String>,
    /// `decode`: how the content is packed. Default `base64`.
    pub decode: Option<Packing>,
    /// `url`: where a link to the file is, when there is no content: the link goes into the text.
    pub url: Option<String>,
    /// `name`: where the file's name is: a JSON pointer, or a text with `{captures}`.
    pub name: Option<String>,
    /// `type`: where the MIME type is. The content decides; this helps where it cannot.
    #[serde(rename = "type")]
    pub mime: Option<String>,
    /// `max_size` of the decoded content. Default 5 MiB. The text of a message whose file is larger is delivered
    /// all the same, and says so.
    pub max_size: Option<ByteSize>,
}

/// How the content of a file is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// Base64, standard or URL-safe, with or without padding, or a `data:` URI with it.
    #[default]
    Base64,
    /// Hexadecimal digits.
    Hex,
    /// Nothing is packed: with `at = "raw"` the payload is the file.
    Bytes,
}

/// `[device.out]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutSpec {
    /// `topic`: a template, e.g. `"gsm2mqtt/modem/{{modem}}/sms/send"`. A value may not hold `/`, `+` or `#`.
    pub topic: Option<String>,
    /// `payload`: a template, e.g. `'{"to":{{to}},"text":{{text}}}'`.
    pub payload: Option<String>,
    /// `format` of the payload. Default `json`.
    pub format: Option<PayloadFormat>,
    /// `qos`: 0 or 1. Default 1.
    pub qos: Option<u8>,
    /// `retain`. Default false: a retained command would be carried out again by a device that reconnects.
    pub retain: Option<bool>,
}

/// `[[device.status]]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusSpec {
    /// `topic`, as in `in`.
    pub topic: Option<String>,
    /// `when`, as in `in`.
    pub when: Option<OneOrMany<Condition>>,
    /// `match`: which message is meant.
    #[serde(rename = "match")]
    pub matches: Option<MatchSpec>,
    /// `at`: the device's word for what happened, to be found in `map`.
    pub at: Option<Extract>,
    /// `map`: the device's words and what they mean. A key may end with `*`, which stands for any rest;
    /// the key `""` is for a payload without the word.
    pub map: Option<BTreeMap<String, StatusWord>>,
    /// `means`: what the topic alone says, instead of `at` and `map`.
    pub means: Option<StatusWord>,
    /// `reason`: the device's explanation of a failure.
    pub reason: Option<Extract>,
    /// `timeout`: a report that names only the recipient is about a message handed over at most this long ago.
    /// Default 10 minutes.
    #[serde(default, deserialize_with = "duration")]
    pub timeout: Option<Duration>,
}

/// `match`: by `id`, or by `recipient` with or without `text`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchSpec {
    /// `id`: what the `out` template wrote as `{{id}}` or `{{uuid}}`.
    pub id: Option<Extract>,
    /// `recipient`: whom the answer went to.
    pub recipient: Option<Extract>,
    /// `text`, where the device repeats it.
    pub text: Option<Extract>,
}

/// A place in a topic or payload: `"/pointer"`, `"{capture}"`, `"raw"`, or a table with `at` and what to do with
/// the value.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct Extract {
    /// `at`: a JSON pointer (`*` = the first element of an array that fits), a text with `{captures}`, or `raw`.
    pub at: String,
    /// `decode`: how the value is packed. Default `utf8`.
    #[serde(default)]
    pub decode: Decode,
}

/// A condition on a payload.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// `at`, as in [`Extract`].
    pub at: String,
    /// `decode`, as in [`Extract`].
    #[serde(default)]
    pub decode: Decode,
    /// `eq`: the value is this, or one of these. A text may hold `{captures}`.
    pub eq: Option<OneOrMany<Scalar>>,
    /// `ne`: the value is none of these (or absent).
    pub ne: Option<OneOrMany<Scalar>>,
    /// `exists`: the value is there (`true`) or not (`false`).
    pub exists: Option<bool>,
}

/// `time`: `"/pointer"` (RFC 3339), or a table.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct TimeSpec {
    /// `at`, as in [`Extract`].
    pub at: String,
    /// `format`: `rfc3339` (the default), `unix_s`, `unix_ms`, or a strftime pattern with `%`.
    #[serde(default)]
    pub format: Option<String>,
    /// `zone` of times that carry none: `UTC` (the default), `local`, `+02:00` or a name such as `Europe/Berlin`.
    #[serde(default)]
    pub zone: Option<String>,
}

/// How a value is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decode {
    /// Text.
    #[default]
    Utf8,
    /// Base64 of text, standard or URL-safe, with or without padding.
    Base64,
    /// Hexadecimal digits of text.
    Hex,
    /// A number that Meshtastic writes as `!` and eight hexadecimal digits elsewhere.
    Node,
}

/// What to do with a message that the broker kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retained {
    /// It was seen before.
    #[default]
    Ignore,
    /// It counts; a repeat is recognised by its id or content.
    Accept,
}

/// What a payload template makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PayloadFormat {
    /// JSON: `{{name}}` writes a quoted, escaped JSON value.
    #[default]
    Json,
    /// Text: `{{name}}` writes the value as it is.
    Text,
}

/// A word of `map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatusWord {
    /// The device passed it on.
    Sent,
    /// It arrived.
    Delivered,
    /// It was read.
    Read,
    /// It did not arrive.
    Failed,
    /// A word without consequence, such as "queued".
    Ignore,
}

/// A TOML value to compare with.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// `true`
    Bool(bool),
    /// `7`
    Integer(i64),
    /// `"received"`
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
        }
    }
}

/// One value, or a list of them.
#[derive(Clone, Debug, PartialEq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

// An untagged enum would answer "did not match any variant" instead of naming the wrong key.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for One<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one value or a list of them")
            }

            fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Self::Value, E> {
                single(serde::de::value::BoolDeserializer::new(value))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
                single(serde::de::value::I64Deserializer::new(value))
            }

            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Self::Value, E> {
                single(serde::de::value::StrDeserializer::new(value))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                single(MapAccessDeserializer::new(map))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(OneOrMany)
            }
        }
        fn single<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
            value: D,
        ) -> Result<OneOrMany<T>, D::Error> {
            T::deserialize(value).map(|one| OneOrMany(vec![one]))
        }
        deserializer.deserialize_any(One(PhantomData))
    }
}

/// Reads a plain string as `at`, and a table through the derived code.
macro_rules! text_or_table {
    ($name:ident, $expecting:literal, $from_text:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct TextOrTable;
                impl<'de> Visitor<'de> for TextOrTable {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                        Ok(($from_text)(text))
                    }

                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                        $name::deserialize(MapAccessDeserializer::new(map))
                    }
                }
                deserializer.deserialize_any(TextOrTable)
            }
        }
    };
}

text_or_table!(
    Extract,
    "a text such as \"/from\", or a table with `at`",
    |at: &str| {
        Extract {
            at: at.to_owned(),
            decode: Decode::Utf8,
        }
    }
);
text_or_table!(
    TimeSpec,
    "a text such as \"/time\", or a table with `at` and `format`",
    |at: &str| {
        TimeSpec {
            at: at.to_owned(),
            format: None,
            zone: None,
        }
    }
);

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map(Some).map_err(|error| {
        serde::de::Error::custom(format!("{text:?} is not a duration such as \"10m\": {error}"))
    })
}

impl DeviceSpec {
    /// This mapping on top of `base`: what is written here wins, key by key.
    #[must_use]
    pub fn over(self, base: Self) -> Self {
        let mut vars = base.vars;
        vars.extend(self.vars);
        Self {
            preset: None,
            vars,
            incoming: merge_lists(self.incoming, base.incoming, InSpec::over),
            out: match (self.out, base.out) {
                (Some(own), Some(base)) => Some(own.over(base)),
                (own, base) => own.or(base),
            },
            status: merge_lists(self.status, base.status, StatusSpec::over),
        }
    }
}

fn merge_lists<T>(own: OneOrMany<T>, base: OneOrMany<T>, over: fn(T, T) -> T) -> OneOrMany<T> {
    let mut own = own.0.into_iter();
    let mut merged: Vec<T> = base
        .0
        .into_iter()
        .map(|base| match own.next() {
            Some(own) => over(own, base),
            None => base,
        })
        .collect();
    merged.extend(own);
    OneOrMany(merged)
}

impl InSpec {
    fn over(self, base: Self) -> Self {
        Self {
            topic: self.topic.or(base.topic),
            when: self.when.or(base.when),
            from: self.from.or(base.from),
            from_name: self.from_name.or(base.from_name),
            group: self.group.or(base.group),
            text: self.text.or(base.text),
            attachments: self.attachments.or(base.attachments),
            id: self.id.or(base.id),
            time: self.time.or(base.time),
            retained: self.retained.or(base.retained),
        }
    }
}

impl OutSpec {
    fn over(self, base: Self) -> Self {
        Self {
            topic: self.topic.or(base.topic),
            payload: self.payload.or(base.payload),
            format: self.format.or(base.format),
            qos: self.qos.or(base.qos),
            retain: self.retain.or(base.retain),
        }
    }
}

impl StatusSpec {
    fn over(self, base: Self) -> Self {
        Self {
            topic: self.topic.or(base.topic),
            when: self.when.or(base.when),
            matches: self.matches.or(base.matches),
            at: self.at.or(base.at),
            map: self.map.or(base.map),
            means: self.means.or(base.means),
            reason: self.reason.or(base.reason),
            timeout: self.timeout.or(base.timeout),
        }
    }
}
