//! The vocabulary of the gateway: identifiers, messages, conversations and their states.
//!
//! This room depends on nothing else in the crate and does no input or output.

mod address;
mod channel;
mod conversation;
mod delivery;
mod hardware;
mod ids;
mod message;
mod secret;
mod size;
mod time;

pub use address::Address;
pub use channel::{ChannelKind, ProviderType};
pub use conversation::{ConversationStatus, Participant, Role};
pub use delivery::{Attempt, DeliveryState, DeviceStatus, IncomingState, OutgoingState, WireStatus};
pub use hardware::{Outgoing, StatusReport, StatusTarget, Unmapped};
pub use ids::{
    AttachmentId, ChannelId, ConversationId, GatewayId, IdError, InstallationId, MessageId, ParticipantId,
    ProviderChannelId, Sequence,
};
pub use message::{Attachment, DedupKey, Direction, Message, ReceivedAttachment, ReceivedMessage, Route};
pub use secret::Secret;
pub use size::ByteSize;
pub use time::Timestamp;
