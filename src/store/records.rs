//! Values in the tree: a version byte, then postcard.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::types::{ChannelLink, UplinkKind};
use crate::domain::{
    Address, Attachment, AttachmentId, ConversationId, ConversationStatus, MessageId, OutgoingState, Route,
    Sequence, Timestamp,
};

/// Leads every value. A new shape of one kind of record gets a new number, and its reader learns both.
const VERSION: u8 = 1;

/// What a message counts beside its text and files.
const MESSAGE_OVERHEAD: u64 = 64;

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    encode_as(VERSION, value)
}

/// With the number of another shape.
pub(super) fn encode_as<T: Serialize>(version: u8, value: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_extend(value, vec![version])
        .map_err(|error| StoreError::Corrupt(format!("cannot write a record: {error}")))
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    decode_as(VERSION, bytes)
}

/// With the number of another shape.
pub(super) fn decode_as<T: DeserializeOwned>(known: u8, bytes: &[u8]) -> Result<T, StoreError> {
    let kind = || std::any::type_name::<T>().rsplit("::").next().unwrap_or_default();
    match bytes.split_first() {
        Some((version, rest)) if *version == known => {
            postcard::from_bytes(rest).map_err(|error| StoreError::Corrupt(format!("{}: {error}", kind())))
        }
        Some((version, _)) => Err(StoreError::Corrupt(format!(
            "{}: unknown version {version}",
            kind()
        ))),
        None => Err(StoreError::Corrupt(format!("{}: empty", kind()))),
    }
}

/// A channel's number inside keys, and whether Pipedrive has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Channel {
    pub(super) number: u16,
    pub(super) link: ChannelLink,
}

/// Someone who wrote in a conversation; the place in the list is the participant's index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Person {
    /// `None`: the conversation's own address, which is the rule outside groups.
    pub(super) address: Option<Address>,
    pub(super) name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Conversation {
    pub(super) channel: u16,
    pub(super) address: Address,
    pub(super) people: Vec<Person>,
    pub(super) route: Route,
    pub(super) seen: bool,
    pub(super) status: ConversationStatus,
    /// Pipedrive has accepted a message of it.
    pub(super) known: bool,
    /// Sequence of the last message; 0 while there is none.
    pub(super) last: u64,
}

/// A message in the store. Whether an incoming one still waits says its queue entry, so that accepting it
/// does not rewrite it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MessageRecord {
    pub(super) created_at: Timestamp,
    pub(super) stored_at: Timestamp,
    pub(super) state: RecordState,
    /// The text, or the beginning of a long one.
    pub(super) text: String,
    /// The whole of a long text: a file beside the attachments, and its length in bytes.
    pub(super) long_text: Option<(u64, u64)>,
    pub(super) attachments: Vec<Attachment>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RecordState {
    Incoming {
        sender: u16,
        failed: Option<String>,
    },
    Outgoing {
        state: OutgoingState,
        handed_at: Timestamp,
    },
}

impl MessageRecord {
    /// Whether an attempt to send it is on record whose outcome is not.
    pub(super) fn is_attempted(&self) -> bool {
        matches!(
            self.state,
            RecordState::Outgoing {
                state: OutgoingState::Attempted,
                ..
            }
        )
    }

    /// Whether the hardware has not had it yet.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(
            self.state,
            RecordState::Outgoing {
                state: OutgoingState::Queued | OutgoingState::Attempted,
                ..
            }
        )
    }

    /// Files that belong to it.
    pub(super) fn files(&self) -> impl Iterator<Item = AttachmentId> {
        let text = self.long_text.map(|(id, _)| AttachmentId(id));
        self.attachments.iter().map(|a| a.id).chain(text)
    }

    /// What retention counts.
    pub(super) fn logical_bytes(&self) -> u64 {
        let files: u64 = self.attachments.iter().map(|a| a.size).sum();
        let text = self
            .long_text
            .map_or(self.text.len() as u64, |(_, length)| length);
        files.saturating_add(text).saturating_add(MESSAGE_OVERHEAD)
    }
}

/// An entry of a queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) channel: u16,
    pub(super) kind: UplinkKind,
    pub(super) revision: u64,
    /// Logical bytes of the message.
    pub(super) bytes: u64,
    pub(super) since: Timestamp,
}

/// Names a message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) conversation: u64,
    pub(super) sequence: u64,
}

impl Known {
    pub(super) const fn message(&self) -> MessageId {
        MessageId {
            conversation: ConversationId(self.conversation),
            sequence: Sequence(self.sequence),
        }
    }
}

impl From<MessageId> for Known {
    fn from(id: MessageId) -> Self {
        Self {
            conversation: id.conversation.0,
            sequence: id.sequence.0,
        }
    }
}

/// Recognises a repeat from the device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Remembered {
    pub(super) message: Known,
    /// When it came.
    pub(super) at: Timestamp,
}

/// A point from which retention finds a sequence by time or by bytes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    pub(super) at: Timestamp,
    /// Logical bytes of all messages before this sequence, also of removed ones.
    pub(super) bytes_before: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct UnmappedRecord {
    pub(super) device: String,
    pub(super) source: String,
    pub(super) payload: Vec<u8>,
    pub(super) reason: String,
    pub(super) received_at: Timestamp,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) uplink_messages: u64,
    pub(super) uplink_statuses: u64,
    pub(super) hardware: u64,
}

/// Counters that change with every commit, written once with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HeadRecord {
    /// The last sequence that was given out.
    pub(super) sequence: u64,
    /// The last revision that was given out; every batch of writes has one, and some entries of queues.
    pub(super) revision: u64,
    pub(super) messages: u64,
    pub(super) conversations: u64,
    pub(super) logical_bytes: u64,
    pub(super) queued_bytes: u64,
    /// Logical bytes of all messages ever.
    pub(super) total_bytes: u64,
    /// Messages up to here were removed, except those that waited.
    pub(super) horizon: u64,
    /// The last checkpoint's sequence and time.
    pub(super) checkpoint: (u64, Timestamp),
    pub(super) unmapped_first: u64,
    pub(super) unmapped_next: u64,
    /// By channel number.
    pub(super) waiting: Vec<Waiting>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_record_is_an_error_in_words() {
        let mut bytes = encode(&Known {
            conversation: 1,
            sequence: 2,
        })
        .unwrap();
        bytes.truncate(2);
        let error = decode::<Known>(&bytes).unwrap_err().to_string();
        assert!(error.contains("Known"), "{error}");
        assert!(decode::<Known>(&[]).unwrap_err().to_string().contains("empty"));
        let version = decode::<Known>(&[9, 1, 2]).unwrap_err().to_string();
        assert!(version.contains("unknown version 9"), "{version}");
    }
}
