//! Messages and what comes with them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Address, AttachmentId, ChannelId, DeliveryState, MessageId, ParticipantId, Timestamp};

/// Which way a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Customer → Pipedrive.
    Incoming,
    /// Agent → customer.
    Outgoing,
}

/// A message as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Stable for ever; the id that Pipedrive knows.
    pub id: MessageId,
    /// Who wrote it.
    pub sender: ParticipantId,
    /// The text; empty when there are only attachments.
    pub text: String,
    /// Time shown to people: see [`Timestamp::trusted`].
    pub created_at: Timestamp,
    /// When the gateway stored it.
    pub stored_at: Timestamp,
    /// Files.
    pub attachments: Vec<Attachment>,
    /// Direction and how far it has come.
    pub state: DeliveryState,
}

impl Message {
    /// Which way the message travels.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        match self.state {
            DeliveryState::Incoming(_) => Direction::Incoming,
            DeliveryState::Outgoing(_) => Direction::Outgoing,
        }
    }
}

/// A file that belongs to a message. The bytes lie in `<state>/attachments/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Unique for ever.
    pub id: AttachmentId,
    /// File name as given by the sender, without folders.
    pub name: String,
    /// MIME type.
    pub mime: String,
    /// Size in bytes.
    pub size: u64,
}

/// A file that came with a received message, not stored yet.
#[derive(Clone, PartialEq, Eq)]
pub struct ReceivedAttachment {
    /// File name as given by the sender.
    pub name: String,
    /// MIME type.
    pub mime: String,
    /// Content.
    pub bytes: Vec<u8>,
}

/// What a template needs beside the address to answer: captures of the topic that the customer's last message
/// came on, e.g. `modem = "1"`.
pub type Route = BTreeMap<String, String>;

/// How a repeat of a message from a device is recognised. Unique within one channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DedupKey {
    /// The device's own message id.
    DeviceId(String),
    /// SHA-256 over everything that identifies the packet, where a repeat is possible (DUP flag, resumed session)
    /// or the payload carries a time: recorded, and a message whose key is known already is a repeat.
    Hash([u8; 32]),
    /// The same digest of a packet that is certainly no repeat: recorded, so that its redelivery after a crash
    /// (then a [`Self::Hash`] of the same bytes) is recognised, but never itself taken for a repeat: two
    /// customers' "ok", "ok" stay two messages.
    FirstHash([u8; 32]),
}

/// A message as a driver hands it over.
#[derive(Clone)]
pub struct ReceivedMessage {
    /// Configured channel that it came in on.
    pub channel: ChannelId,
    /// Who wrote it.
    pub from: Address,
    /// A name for the writer, if the device gives one.
    pub from_name: Option<String>,
    /// Where an answer goes when that is not the writer: a group.
    pub group: Option<Address>,
    /// The text; may be empty.
    pub text: String,
    /// The device's own time.
    pub device_time: Option<Timestamp>,
    /// When the gateway received it.
    pub received_at: Timestamp,
    /// Recognises a repeat.
    pub dedup: Option<DedupKey>,
    /// For the answer's template.
    pub route: Route,
    /// Files.
    pub attachments: Vec<ReceivedAttachment>,
}
