//! A strict stand-in for Pipedrive: the Channels API with its documented rules, and Pipedrive's own calls to the
//! gateway's manifest endpoints, each answer checked against the contract.
//!
//! ```text
//!  gateway ── POST /channels/messages/receive ──► api ── contract ──► state ◄── page, tests
//!  gateway ◄── getConversationById, postMessage … ── caller ── contract ──► violations
//! ```
//!
//! It shares no wire types with the gateway: a mistake there must not be checked against itself.

mod api;
mod caller;
mod client;
mod clock;
mod contract;
mod core;
mod driver;
mod faults;
mod fields;
mod limits;
mod oauth;
mod page;
mod paging;
mod probes;
mod run;
mod sandbox;
mod served;
mod server;
mod state;
mod switches;
#[cfg(test)]
mod tests;
mod tls;

pub use caller::{File, RecipientsForm, Reply};
pub use client::{Gateway, Trust};
pub use faults::Faults;
pub use limits::{Limits, Plan};
pub use oauth::{App, Company, Decision, Rules, User, Visit};
pub use paging::{History, PageSize};
pub use probes::Probe;
pub use run::{RunOptions, run};
pub use sandbox::{Options, Sandbox, StartError};
pub use state::{Call, Channel, Conversation, Counters, Message, Origin, Participant, State, Violation};
