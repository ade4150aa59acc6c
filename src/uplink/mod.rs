//! Where stored messages and statuses are delivered.
//!
//! [`Uplink`] is the boundary: the queue knows nothing of the API behind it, so that a second uplink fits beside
//! [`channels`] without touching drivers or store.

use std::time::Duration;

use crate::domain::{AttachmentId, InstallationId, Message, ProviderChannelId, ProviderType, Timestamp};
use crate::protocol::retry::Limits;

pub mod accounts;
pub mod channels;
#[cfg(test)]
pub(crate) mod fake;
mod oauth;
mod seal;

pub use crate::protocol::pipedrive::channels::Scope;
pub use accounts::{AccountOptions, AccountStatus, Accounts, ConnectError, Connected};
pub use channels::{AccessToken, ChannelsUplink, Refusal, RefusalKind};
pub use oauth::App;

/// Whether the other side knows the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It does not.
    New,
    /// Its status changed.
    Status,
}

/// A link to a file, valid for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The file.
    pub attachment: AttachmentId,
    /// Where it can be fetched.
    pub url: String,
}

/// One message to deliver.
#[derive(Clone, Copy)]
pub struct Delivery<'a> {
    /// Our id of the channel.
    pub channel: &'a ProviderChannelId,
    /// The message in its present state.
    pub message: &'a Message,
    /// New, or an update.
    pub kind: Kind,
    /// Links to its files; a file without one is not shown.
    pub links: &'a [Link],
    /// Whether a message of this conversation was accepted before.
    pub known_to_pipedrive: bool,
    /// Whether Pipedrive has fetched the conversation. Asked after the answer: Pipedrive fetches an unknown
    /// conversation before it answers.
    pub served: &'a (dyn Fn() -> bool + Sync),
}

/// A channel as it is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Our id of the channel.
    pub id: ProviderChannelId,
    /// Shown in Pipedrive.
    pub name: String,
    /// A picture.
    pub avatar_url: Option<String>,
    /// Which logo is shown.
    pub provider_type: ProviderType,
    /// Whether templates are asked for.
    pub template_support: bool,
}

/// What became of a call. Each reason is a sentence for a person, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Accepted,
    /// Not now.
    Retry {
        /// Why.
        reason: String,
        /// The pause that the other side asks for.
        after: Option<Duration>,
        /// Who has to wait.
        scope: Scope,
    },
    /// Never.
    Rejected {
        /// Why.
        reason: String,
    },
    /// The other side does not know the channel any more.
    ChannelUnlinked {
        /// What to do.
        reason: String,
    },
    /// The credentials are not accepted.
    NotAuthorized {
        /// What to do.
        reason: String,
    },
    /// A sign that the API is not there any more; several in a row prove it.
    Gone {
        /// What was seen.
        reason: String,
    },
}

/// An outcome with what the answer said about limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// What became of it.
    pub outcome: Outcome,
    /// Limits of the other side.
    pub limits: Limits,
}

impl From<Outcome> for Delivered {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            limits: Limits::default(),
        }
    }
}

/// Why calls for a channel make no sense now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotConnected {
    /// A sentence with the remedy.
    pub reason: String,
    /// Whether a connection that was there is lost until a person connects again.
    pub needs_person: bool,
}

/// Somewhere that messages are delivered to. Calls block, except for [`Uplink::installation`].
pub trait Uplink: Send + Sync {
    /// Whose limits and tokens a call for this channel uses. Asked before each call; from memory.
    fn installation(&self, channel: &ProviderChannelId) -> Result<InstallationId, NotConnected>;

    /// Delivers a message, or an update of one. Delivering the same message again does no harm.
    fn deliver(&self, delivery: &Delivery<'_>, now: Timestamp) -> Delivered;

    /// Makes a channel known. Doing it again does no harm.
    fn register(&self, channel: &Registration, now: Timestamp) -> Delivered;
}
