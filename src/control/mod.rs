//! The Unix-socket API that the commands use while the daemon runs, and the same answers without a daemon.

mod answers;
pub mod client;
mod connecting;
mod contacts;
mod gateway;
mod modem;
pub mod server;

pub use answers::{
    BudgetSummary, ChannelStatus, ContactRow, ContactsPage, Conversation, ConversationRow, Done, Failure,
    LinkStatus, ListenerStatus, MessageRow, QueueView, RefusedUpdate, SaveContacts, SavedContact,
    SavedContacts, SendRequest, Sent, Status, StoreStatus, UnmappedRow, UplinkSummary, UssdRequest, Waiting,
};
pub use connecting::{
    ConnectOpened, ConnectPhase, ConnectProgress, ConnectRequest, Connecting, InstallationStatus,
};
pub use contacts::{CONTACTS_AT_ONCE, contact_segment};
pub use gateway::{ChannelCalls, Gateway, Live};

/// Longest body in either direction, in bytes.
const MAX_BODY: usize = 4 << 20;
