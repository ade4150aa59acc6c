//! A device's mapping, checked and ready: packets become messages and status reports, answers become publishes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ring::digest::{Context, SHA256};

use super::error::MappingError;
use super::extract::{Check, Document, Extractor};
use super::files::Files;
use super::resolve;
use super::spec::{DeviceSpec, Extract, InSpec, OneOrMany, Retained, StatusSpec, StatusWord};
use super::time::TimeReader;
use super::topic::{Pattern, check_name};
use super::write::{Publish, WriteError, Writer, parse_reference};
use crate::domain::{
    Address, ChannelId, DedupKey, DeviceStatus, MessageId, Outgoing, ReceivedMessage, StatusReport,
    StatusTarget, Timestamp,
};
use crate::protocol::contacts::clean_name;

/// Longest id of a device that is kept as it is, in bytes; a longer one is hashed.
const MAX_DEVICE_ID: usize = 128;

/// A packet that came from a broker.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
    /// MQTT's packet identifier; `None` for QoS 0. A redelivery carries the identifier of the first delivery
    /// (MQTT 5.0, section 4.4).
    pub packet_id: Option<u16>,
    /// The broker kept it from before the subscription.
    pub retained: bool,
    /// The broker may have delivered it before (MQTT 5.0, section 3.3.1.1).
    pub dup: bool,
}

/// What a mapping makes of a packet.
#[derive(Clone)]
pub enum Read {
    /// A customer's message.
    Message(Box<ReceivedMessage>),
    /// A device's word on an answer.
    Status(Box<StatusReport>),
    /// None of the mapping's business; the reason is for a person.
    Ignored(String),
    /// It looks like a message or a status and cannot be read; the reason is for a person.
    Unmapped(String),
}

/// A mapping that was checked and is ready to use.
#[derive(Clone, Debug)]
pub struct Mapping {
    incoming: Vec<InBlock>,
    status: Vec<StatusBlock>,
    writer: Option<Writer>,
}

#[derive(Clone, Debug)]
struct InBlock {
    topic: Pattern,
    when: Vec<Check>,
    from: Extractor,
    from_name: Option<Extractor>,
    group: Option<Extractor>,
    /// `None` only where there are `files`.
    text: Option<Extractor>,
    files: Files,
    ids: Vec<Extractor>,
    time: Option<TimeReader>,
    retained: Retained,
}

#[derive(Clone, Debug)]
struct StatusBlock {
    topic: Pattern,
    when: Vec<Check>,
    target: Target,
    meaning: Meaning,
    reason: Option<Extractor>,
    timeout: Duration,
}

#[derive(Clone, Debug)]
enum Target {
    Id(Extractor),
    Recipient {
        address: Extractor,
        text: Option<Extractor>,
    },
}

#[derive(Clone, Debug)]
enum Meaning {
    Always(StatusWord),
    Words {
        at: Extractor,
        map: BTreeMap<String, StatusWord>,
    },
}

type Vars = BTreeMap<String, String>;

impl Mapping {
    /// Checks a mapping, with its preset filled in, and makes it ready.
    pub fn compile(spec: &DeviceSpec) -> Result<Self, MappingError> {
        let spec = resolve(spec)?;
        for (name, value) in &spec.vars {
            check_name("vars", name, name)?;
            let fits = !value.is_empty()
                && !value.contains(['+', '#', '{', '}'])
                && !value.contains(char::is_control);
            if !fits {
                return Err(MappingError::wrong(
                    format!("vars.{name}"),
                    value.clone(),
                    "a variable becomes part of topics",
                    "write a text without '+', '#' and braces, or leave the variable out to take every value",
                ));
            }
        }
        if spec.incoming.0.is_empty() {
            return Err(MappingError::missing(
                "in",
                "add [device.in] with `topic`, `from` and `text`, or a `preset`",
            ));
        }
        let incoming: Vec<InBlock> = numbered(&spec.incoming, "in")
            .map(|(key, block)| InBlock::compile(&key, block, &spec.vars))
            .collect::<Result<_, _>>()?;
        let status = numbered(&spec.status, "status")
            .map(|(key, block)| StatusBlock::compile(&key, block, &spec.vars))
            .collect::<Result<_, _>>()?;
        let names: BTreeSet<&str> = incoming.iter().flat_map(|block| block.topic.names()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let writer = spec
            .out
            .as_ref()
            .map(|out| Writer::compile(out, &names, &spec.vars))
            .transpose()?;
        Ok(Self {
            incoming,
            status,
            writer,
        })
    }

    /// The subscriptions that the device needs, each once.
    #[must_use]
    pub fn filters(&self) -> BTreeSet<String> {
        self.patterns().map(Pattern::filter).collect()
    }

    /// Whether packets of this topic are the device's.
    #[must_use]
    pub fn takes(&self, topic: &str) -> bool {
        self.patterns().any(|pattern| pattern.captures(topic).is_some())
    }

    /// Bytes of the largest packet that the mapping's `attachments` allow; `None` without attachments.
    #[must_use]
    pub fn largest_packet(&self) -> Option<u64> {
        self.incoming
            .iter()
            .filter_map(|block| block.files.largest_packet())
            .max()
    }

    /// Whether answers can be sent.
    #[must_use]
    pub const fn can_send(&self) -> bool {
        self.writer.is_some()
    }

    fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.incoming
            .iter()
            .map(|block| &block.topic)
            .chain(self.status.iter().map(|block| &block.topic))
    }

    /// Reads a packet. The first block that takes it decides.
    #[must_use]
    pub fn read(&self, channel: &ChannelId, packet: &Packet<'_>, now: Timestamp) -> Read {
        let mut refusals = Refusals::default();
        for block in &self.incoming {
            let Some(captures) = block.topic.captures(packet.topic) else {
                continue;
            };
            let document = Document::new(packet.payload, &captures);
            if refusals.pass(&block.when, &document) {
                return block.read(channel, packet, &document, &captures, now);
            }
        }
        for block in &self.status {
            let Some(captures) = block.topic.captures(packet.topic) else {
                continue;
            };
            let document = Document::new(packet.payload, &captures);
            if refusals.pass(&block.when, &document) {
                return block.read(channel, &document, now).unwrap_or_else(Read::Unmapped);
            }
        }
        refusals.verdict()
    }

    /// Writes an answer.
    pub fn write(&self, message: &Outgoing) -> Result<Publish, WriteError> {
        match &self.writer {
            Some(writer) => writer.write(message),
            None => Err(WriteError::receive_only()),
        }
    }
}

/// Why blocks did not take a packet.
#[derive(Default)]
struct Refusals {
    conditions: Vec<String>,
    unreadable: Option<String>,
}

impl Refusals {
    fn pass(&mut self, when: &[Check], document: &Document<'_>) -> bool {
        for check in when {
            match check.holds(document) {
                Ok(true) => {}
                Ok(false) => {
                    self.conditions.push(check.words());
                    return false;
                }
                Err(reason) => {
                    self.unreadable = Some(reason);
                    return false;
                }
            }
        }
        true
    }

    fn verdict(self) -> Read {
        match self.unreadable {
            Some(reason) => Read::Unmapped(reason),
            None if self.conditions.is_empty() => Read::Ignored("no `topic` of the mapping fits".to_owned()),
            None => Read::Ignored(format!("`when` does not hold: {}", self.conditions.join("; "))),
        }
    }
}

impl InBlock {
    fn compile(key: &str, spec: &InSpec, vars: &Vars) -> Result<Self, MappingError> {
        let topic = topic(key, spec.topic.as_deref(), vars)?;
        let names: Vec<&str> = topic.names().collect();
        let optional = |name: &str, extract: Option<&Extract>| {
            extract
                .map(|extract| Extractor::compile(&format!("{key}.{name}"), extract, &names, vars))
                .transpose()
        };
        let required = |name: &str, extract: Option<&Extract>, remedy: &str| {
            optional(name, extract)?.ok_or_else(|| MappingError::missing(format!("{key}.{name}"), remedy))
        };
        let ids = spec.id.iter().flat_map(|ids| &ids.0).filter(|id| id.at != "hash");
        Ok(Self {
            when: checks(key, spec.when.as_ref(), &names, vars)?,
            from: required(
                "from",
                spec.from.as_ref(),
                "say where the sender is, e.g. from = \"/number\"",
            )?,
            from_name: optional("from_name", spec.from_name.as_ref())?,
            group: optional("group", spec.group.as_ref())?,
            text: match &spec.attachments {
                // A camera has nothing to say.
                Some(_) => optional("text", spec.text.as_ref())?,
                None => Some(required(
                    "text",
                    spec.text.as_ref(),
                    "say where the text is, e.g. text = \"/text\"",
                )?),
            },
            files: Files::compile(key, spec.attachments.as_ref(), &names, vars)?,
            ids: ids
                .map(|id| Extractor::compile(&format!("{key}.id"), id, &names, vars))
                .collect::<Result<_, _>>()?,
            time: spec
                .time
                .as_ref()
                .map(|time| TimeReader::compile(&format!("{key}.time"), time, &names, vars))
                .transpose()?,
            retained: spec.retained.unwrap_or_default(),
            topic,
        })
    }

    fn read(
        &self,
        channel: &ChannelId,
        packet: &Packet<'_>,
        document: &Document<'_>,
        captures: &BTreeMap<String, String>,
        now: Timestamp,
    ) -> Read {
        if packet.retained && self.retained == Retained::Ignore {
            return Read::Ignored(
                "the broker kept it from before the subscription (`retained = \"ignore\"`)".to_owned(),
            );
        }
        self.message(channel, packet, document, captures, now)
            .map_or_else(Read::Unmapped, |message| Read::Message(Box::new(message)))
    }

    fn message(
        &self,
        channel: &ChannelId,
        packet: &Packet<'_>,
        document: &Document<'_>,
        captures: &BTreeMap<String, String>,
        now: Timestamp,
    ) -> Result<ReceivedMessage, String> {
        let from = address("from", &self.from.require("from", document)?)?;
        let group = match &self.group {
            Some(group) => group.get(document)?.filter(|group| !group.trim().is_empty()),
            None => None,
        };
        let group = group.map(|group| address("group", &group)).transpose()?;
        let from_name = self
            .from_name
            .as_ref()
            .and_then(|name| clean_name(&name.get(document).ok().flatten()?));
        let (text, attachments) = self.files.read_with_text(self.text.as_ref(), document)?;
        // A broken clock of the device is no reason to lose its message.
        let device_time = self
            .time
            .as_ref()
            .and_then(|time| time.get(document).ok().flatten());
        Ok(ReceivedMessage {
            channel: channel.clone(),
            dedup: self.dedup(packet, document, &from, device_time.is_some()),
            from,
            from_name,
            group,
            text,
            device_time,
            received_at: now,
            route: captures.clone(),
            attachments,
        })
    }

    fn dedup(
        &self,
        packet: &Packet<'_>,
        document: &Document<'_>,
        from: &Address,
        has_time: bool,
    ) -> Option<DedupKey> {
        let id = self
            .ids
            .iter()
            .find_map(|id| id.get(document).ok().flatten().filter(|id| !id.is_empty()));
        if let Some(id) = id {
            // Ids of devices behind one topic may collide: the sender is part of the key.
            let key = format!("{}\u{1f}{id}", from.as_str());
            return Some(if key.len() <= MAX_DEVICE_ID {
                DedupKey::DeviceId(key)
            } else {
                DedupKey::Hash(digest(&[b"id", key.as_bytes()]))
            });
        }
        if has_time || packet.retained {
            return Some(DedupKey::Hash(digest(&[
                b"content",
                packet.topic.as_bytes(),
                packet.payload,
            ])));
        }
        // Without an id and a time, only the broker can tell a repeat from a second "ok": a redelivery is marked
        // DUP and keeps its packet identifier. QoS 0 is never delivered again.
        let packet_id = packet.packet_id?.to_be_bytes();
        let hash = digest(&[b"packet", packet.topic.as_bytes(), packet.payload, &packet_id]);
        Some(if packet.dup {
            DedupKey::Hash(hash)
        } else {
            DedupKey::FirstHash(hash)
        })
    }
}

impl StatusBlock {
    fn compile(key: &str, spec: &StatusSpec, vars: &Vars) -> Result<Self, MappingError> {
        let topic = topic(key, spec.topic.as_deref(), vars)?;
        let names: Vec<&str> = topic.names().collect();
        let compile = |name: &str, extract: &Extract| {
            Extractor::compile(&format!("{key}.{name}"), extract, &names, vars)
        };
        let matches = spec.matches.clone().unwrap_or_default();
        let target = match (&matches.id, &matches.recipient) {
            (Some(id), None) => Target::Id(compile("match.id", id)?),
            (None, Some(recipient)) => Target::Recipient {
                address: compile("match.recipient", recipient)?,
                text: matches
                    .text
                    .as_ref()
                    .map(|text| compile("match.text", text))
                    .transpose()?,
            },
            (Some(_), Some(_)) => {
                return Err(MappingError::wrong(
                    format!("{key}.match"),
                    "id and recipient",
                    "one of them is enough",
                    "keep `id`: it is exact",
                ));
            }
            (None, None) => {
                return Err(MappingError::missing(
                    format!("{key}.match"),
                    "say which message is meant, e.g. match = { recipient = \"/number\" }",
                ));
            }
        };
        let meaning = match (&spec.at, &spec.map, spec.means) {
            (Some(at), Some(map), None) => Meaning::Words {
                at: compile("at", at)?,
                map: map.clone(),
            },
            (None, None, Some(word)) => Meaning::Always(word),
            (Some(_), None, None) => {
                return Err(MappingError::missing(
                    format!("{key}.map"),
                    "say what the device's words mean, e.g. map = { ok = \"delivered\", \"*\" = \"failed\" }",
                ));
            }
            _ => {
                return Err(MappingError::missing(
                    format!("{key}.at"),
                    "give `at` and `map`, or `means` alone when the topic says it all",
                ));
            }
        };
        Ok(Self {
            when: checks(key, spec.when.as_ref(), &names, vars)?,
            target,
            meaning,
            reason: spec
                .reason
                .as_ref()
                .map(|reason| compile("reason", reason))
                .transpose()?,
            timeout: spec.timeout.unwrap_or(Duration::from_secs(600)),
            topic,
        })
    }

    fn read(&self, channel: &ChannelId, document: &Document<'_>, now: Timestamp) -> Result<Read, String> {
        let word = match &self.meaning {
            Meaning::Always(word) => *word,
            Meaning::Words { at, map } => {
                let found = at
                    .get(document)
                    .map_err(|reason| format!("`at` cannot be read: {reason}"))?;
                match (look_up(map, found.as_deref().unwrap_or_default()), found) {
                    (Some(word), _) => word,
                    (None, None) => return Err(format!("there is no status at {}", at.spelling())),
                    (None, Some(_)) => {
                        return Err(format!("the status at {} has no entry in `map`", at.spelling()));
                    }
                }
            }
        };
        let status = match word {
            StatusWord::Sent => DeviceStatus::Sent,
            StatusWord::Delivered => DeviceStatus::Delivered,
            StatusWord::Read => DeviceStatus::Read,
            StatusWord::Failed => {
                let reason = self
                    .reason
                    .as_ref()
                    .and_then(|reason| reason.get(document).ok().flatten());
                DeviceStatus::Failed(reason.unwrap_or_else(|| "the device reported a failure".to_owned()))
            }
            StatusWord::Ignore => return Ok(Read::Ignored("this status has no consequence".to_owned())),
        };
        let of = match &self.target {
            // A list may hold references of others beside ours.
            Target::Id(id) => match reference(id, document)? {
                Some(id) => StatusTarget::Id(id),
                None => {
                    return Ok(Read::Ignored(
                        "the report is about a message of someone else".to_owned(),
                    ));
                }
            },
            Target::Recipient {
                address: recipient,
                text,
            } => StatusTarget::Recipient {
                address: address(
                    "match.recipient",
                    &recipient.require("match.recipient", document)?,
                )?,
                text: match text {
                    Some(text) => text.get(document)?,
                    None => None,
                },
                not_before: now.plus_ms(-i64::try_from(self.timeout.as_millis()).unwrap_or(i64::MAX)),
            },
        };
        Ok(Read::Status(Box::new(StatusReport {
            channel: channel.clone(),
            of,
            status,
        })))
    }
}

fn reference(id: &Extractor, document: &Document<'_>) -> Result<Option<MessageId>, String> {
    let unreadable = |reason| format!("`match.id` cannot be read: {reason}");
    let found = id.each(document).map_err(unreadable)?;
    if found.is_empty() {
        id.require("match.id", document)?;
    }
    Ok(found.iter().find_map(|text| parse_reference(text)))
}

/// The longest key that fits; a key that ends with `*` fits every beginning.
fn look_up(map: &BTreeMap<String, StatusWord>, found: &str) -> Option<StatusWord> {
    map.get(found).copied().or_else(|| {
        map.iter()
            .filter_map(|(key, word)| Some((key.strip_suffix('*')?, *word)))
            .filter(|(beginning, _)| found.starts_with(beginning))
            .max_by_key(|(beginning, _)| beginning.len())
            .map(|(_, word)| word)
    })
}

pub(super) fn numbered<'a, T>(list: &'a OneOrMany<T>, key: &'a str) -> impl Iterator<Item = (String, &'a T)> {
    let many = list.0.len() > 1;
    list.0.iter().enumerate().map(move |(index, block)| {
        (
            if many {
                format!("{key}.{}", index + 1)
            } else {
                key.to_owned()
            },
            block,
        )
    })
}

fn topic(key: &str, text: Option<&str>, vars: &Vars) -> Result<Pattern, MappingError> {
    let key = format!("{key}.topic");
    let text = text
        .ok_or_else(|| MappingError::missing(key.clone(), "write the topic that the device publishes on"))?;
    Pattern::parse(&key, text, vars)
}

fn checks(
    key: &str,
    when: Option<&OneOrMany<super::spec::Condition>>,
    names: &[&str],
    vars: &Vars,
) -> Result<Vec<Check>, MappingError> {
    when.iter()
        .flat_map(|conditions| &conditions.0)
        .map(|condition| Check::compile(&format!("{key}.when"), condition, names, vars))
        .collect()
}

fn address(key: &str, text: &str) -> Result<Address, String> {
    Address::new(text).ok_or_else(|| {
        format!(
            "`{key}` cannot be an address: it is empty, longer than {} bytes or holds control characters",
            Address::MAX_LEN
        )
    })
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}
