//! The Unix-socket API that the commands use while the daemon runs, and the same answers without a daemon.

mod answers;
pub mod client;
mod gateway;
mod modem;
pub mod server;

pub use answers::{
    ChannelStatus, Conversation, ConversationRow, Done, Failure, LinkStatus, ListenerStatus, MessageRow,
    QueueView, RefusedUpdate, SendRequest, Sent, Status, StoreStatus, UnmappedRow, UplinkSummary,
    UssdRequest, Waiting,
};
pub use gateway::{ChannelCalls, Gateway, Live};

/// Longest body in either direction, in bytes.
const MAX_BODY: usize = 4 << 20;
