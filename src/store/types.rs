//! What goes into the store and what comes out of it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::{
    Address, Attachment, ChannelId, ConversationId, ConversationStatus, GatewayId, Message, MessageId,
    Participant, Sequence, Timestamp,
};
use crate::protocol::sms::Home;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Holds the database, `archive/`, `attachments/`, the lock and the reserve file.
    pub state_dir: PathBuf,
    /// The configured id; made once and kept when absent.
    pub gateway_id: Option<GatewayId>,
    /// Free bytes on the file system below which nothing new is taken in.
    pub disk_reserve: u64,
    /// Age after which finished messages are removed.
    pub retain_for: Duration,
    /// Logical bytes of messages and attachments that are kept.
    pub retain_bytes: u64,
    /// How numbers without a country code are meant when a name is looked up.
    pub home: Home,
    /// Size of the database's file, in bytes, from which on it is written anew when most of it is dead; 0 for
    /// again and again, which is for trials.
    pub renew_bytes: u64,
}

impl Options {
    /// The documented defaults for a state directory: 64 MiB reserve, 365 days, 2 GiB, anew from 64 MiB.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            gateway_id: None,
            disk_reserve: 64 << 20,
            retain_for: Duration::from_secs(365 * 24 * 60 * 60),
            retain_bytes: 2 << 30,
            home: Home::NOWHERE,
            renew_bytes: 64 << 20,
        }
    }
}

/// What became of a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is stored under this id.
    New(MessageId),
    /// The device has sent it before; nothing was stored.
    Duplicate(MessageId),
}

impl Inserted {
    /// The message, whether it is new or not.
    #[must_use]
    pub const fn id(self) -> MessageId {
        match self {
            Self::New(id) | Self::Duplicate(id) => id,
        }
    }
}

/// What became of a device's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusApplied {
    /// The state of this message changed.
    Applied(MessageId),
    /// This message is meant, and knows better already.
    Unchanged(MessageId),
    /// No message is meant.
    NoMatch,
}

/// An agent's message, or one that another command sends.
#[derive(Debug)]
pub struct NewOutgoing {
    /// Channel of the conversation.
    pub channel: ChannelId,
    /// Where it goes.
    pub conversation: ConversationId,
    /// The text, as it is shown.
    pub text: String,
    /// Files; theirs from now on.
    pub attachments: Vec<super::StagedAttachment>,
    /// Time of the order.
    pub now: Timestamp,
    /// Not from Pipedrive: push it there as a new message too.
    pub announce: bool,
}

/// The two queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Incoming messages, and what became of outgoing ones, on their way to Pipedrive.
    ToUplink,
    /// Outgoing messages on their way to the hardware.
    ToHardware,
}

/// The next entry of a conversation in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The conversation.
    pub conversation: ConversationId,
    /// Its channel.
    pub channel: ChannelId,
    /// The message that is next.
    pub sequence: Sequence,
    /// Why it is in the queue; always `New` on the way to the hardware.
    pub kind: UplinkKind,
}

/// Which status updates are wanted beside the messages that Pipedrive does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updates {
    /// None.
    No,
    /// Those that have waited since before this moment; new messages first if `last`.
    Since {
        /// The moment.
        before: Timestamp,
        /// Whether they stand behind all new messages.
        last: bool,
    },
}

impl Head {
    /// The message that is next.
    #[must_use]
    pub const fn message(&self) -> MessageId {
        MessageId {
            conversation: self.conversation,
            sequence: self.sequence,
        }
    }
}

/// Why an entry is in the queue to the uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UplinkKind {
    /// Pipedrive does not know the message.
    New,
    /// Its state changed.
    Status,
}

/// The next entry of a conversation in the queue to the uplink, with everything a delivery needs.
#[derive(Clone, Debug)]
pub struct UplinkItem {
    /// Channel of the conversation.
    pub channel: ChannelId,
    /// The message in its present state.
    pub message: Message,
    /// Moves on when the message changes while its entry waits.
    pub revision: u64,
    /// New, or an update.
    pub kind: UplinkKind,
    /// Whether Pipedrive has ever accepted a message of this conversation.
    pub known_to_pipedrive: bool,
}

/// What became of an entry in the queue to the uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkResult {
    /// Which message.
    pub message: MessageId,
    /// Of the entry that was delivered.
    pub revision: u64,
    /// Why it was refused for good; `None` when it was accepted.
    pub refusal: Option<String>,
}

/// One waiting entry, for people.
#[derive(Clone, Debug)]
pub struct Queued {
    /// Channel of the conversation.
    pub channel: ChannelId,
    /// The message.
    pub message: MessageId,
    /// New or an update; always `New` on the way to the hardware.
    pub kind: UplinkKind,
    /// When the entry was made.
    pub since: Timestamp,
}

/// Entries of one channel that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelCounts {
    /// Messages on their way to Pipedrive.
    pub uplink_messages: u64,
    /// Status updates on their way to Pipedrive.
    pub uplink_statuses: u64,
    /// Messages on their way to the hardware.
    pub hardware: u64,
}

/// How much there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// `MessageRecord` messages.
    pub messages: u64,
    /// `MessageRecord` conversations.
    pub conversations: u64,
    /// Bytes of texts and attachments, with a fixed sum for each message; what retention counts.
    pub logical_bytes: u64,
    /// Of these, bytes of messages that wait in a queue.
    pub queued_bytes: u64,
    /// Records that no mapping could read.
    pub unmapped: u64,
    /// What waits, over all channels.
    pub queued: ChannelCounts,
    /// What waits, by channel.
    pub channels: Vec<(ChannelId, ChannelCounts)>,
}

/// Whether Pipedrive has the channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChannelLink {
    /// Never registered.
    #[default]
    NotRegistered,
    /// Registered since.
    Registered(Timestamp),
    /// Pipedrive has let it go: data is kept, nothing is pushed.
    Unlinked {
        /// When that was noticed.
        since: Timestamp,
        /// Why, for a person.
        reason: String,
    },
}

/// Whether there is room to take messages in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// There is.
    Enough,
    /// There is not: the hardware is not acknowledged.
    Low {
        /// Bytes that are free.
        free: u64,
        /// Bytes that must be free.
        needed: u64,
    },
    /// What waits in the queues exceeds what may be kept: the hardware is not acknowledged.
    TooMuchQueued {
        /// Logical bytes that wait.
        queued: u64,
        /// Logical bytes that may be kept.
        allowed: u64,
    },
}

impl Space {
    /// Whether messages are taken in.
    #[must_use]
    pub const fn is_enough(self) -> bool {
        matches!(self, Self::Enough)
    }
}

/// What a round of maintenance did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Messages that were packed.
    pub packed: u64,
    /// Messages that were removed for their age or for their sum of bytes.
    pub removed: u64,
    /// Deduplication keys that expired.
    pub expired_keys: u64,
    /// Files that belonged to nothing.
    pub orphans: u64,
    /// Packs of finished messages that were moved to another file of the archive.
    pub moved: u64,
    /// How often the database was written anew: 0 or 1.
    pub renewed: u64,
    /// Whether there is more to do: call again soon.
    pub more: bool,
}

/// When a conversation was last written in: the sequence of its last message. Orders conversations and is the
/// cursor between pages of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Activity(pub u64);

/// A conversation with a page of its messages.
#[derive(Clone, Debug)]
pub struct ConversationView {
    /// The conversation.
    pub id: ConversationId,
    /// Its channel.
    pub channel: ChannelId,
    /// Where an answer goes.
    pub address: Address,
    /// What the one at this address is called: a name of the address book, or the address in its international form.
    pub name: String,
    /// Whether somebody has read or answered the last message.
    pub seen: bool,
    /// Whether an answer is possible.
    pub status: ConversationStatus,
    /// The customers who wrote; the company's side is not among them.
    pub participants: Vec<Participant>,
    /// Newest first.
    pub messages: Vec<Message>,
    /// Where the page of older messages begins; `None` when there are none.
    pub next: Option<Sequence>,
    /// Its place among conversations.
    pub activity: Activity,
}

/// An entry of the address book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// A number in the form of E.164, or what else a customer is known by.
    pub address: Address,
    /// The name to show.
    pub name: String,
}

/// What became of an entry for the address book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContactOutcome {
    /// It is new.
    Added,
    /// The name was another one.
    Changed {
        /// The name until now.
        from: String,
    },
    /// It was there.
    Same,
    /// There are [`MAX_CONTACTS`](super::MAX_CONTACTS) already.
    Full,
}

/// A stored file and where its bytes lie.
pub type StoredFile = (Attachment, PathBuf);
