//! The dialogue with a modem in AT commands (3GPP TS 27.005 and 27.007, ITU-T V.250): bytes and time in, bytes and
//! events out.
//!
//! ```text
//!   bytes of the modem ──► receive ┐                ┌─► Action::Write   ──► bytes to the modem
//!   time                ──► tick   ├─► [`Dialogue`] ┤
//!   submit, delete, …   ──────────┘                └─► Action::Event   ──► the driver
//! ```
//!
//! It moves PDUs as octets and knows nothing of their inside. What makes it safe to use:
//!
//! - The modem's memory is a durable queue. A message is read, handed over and deleted only when the driver says
//!   that it is stored ([`Dialogue::delete`]).
//! - An unsolicited line may stand before, inside or after an answer: lines are told apart by their names, never by
//!   their position.
//! - A message that was sent ends in an honest outcome: [`SendOutcome::NotStarted`] before Ctrl-Z,
//!   [`SendOutcome::Unknown`] when no answer came after it. Ctrl-Z is written once per message.
//! - A wrong PIN is never repeated: the dialogue asks for the PIN ([`Event::PinNeeded`]) and the caller keeps, also
//!   over a restart, that it was given and refused.

mod answers;
mod dialogue;
mod error;
mod line;
mod lines;
mod profile;
mod startup;
mod state;
mod work;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use dialogue::Dialogue;
pub use error::ModemError;
pub use profile::Profile;
pub use state::{Memory, ModemState, Registered, Sim};

/// What a dialogue needs to know before it begins.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The family of the modem; `None`: what the modem says of itself decides.
    pub profile: Option<Profile>,
    /// How often signal, network and memory are looked at when nothing else happens.
    pub poll: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            profile: None,
            poll: Duration::from_secs(30),
        }
    }
}

/// Where a stored message lies in the modem. Valid until the modem starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The memory.
    pub memory: Memory,
    /// The place in it; 0 is one.
    pub index: u16,
    epoch: u32,
}

/// Where a PDU came from, and with it how it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// It lies in the modem's memory: [`Dialogue::delete`] acknowledges it.
    Stored(Place),
    /// The modem does not keep it: [`Dialogue::confirm`] acknowledges it.
    Direct,
}

/// What became of a message that was to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// The network took it. The reference (TP-MR) names it in status reports; the service centre may have had it
    /// already, then there is none.
    Accepted(Option<u8>),
    /// The modem or the network refused it.
    Refused(ModemError),
    /// Nothing left the modem; the reason is for a person.
    NotStarted(String),
    /// It may have been sent; the reason is for a person.
    Unknown(String),
}

/// The network's answer to a USSD code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UssdAnswer {
    /// As the modem wrote it: text, or hexadecimal digits.
    pub text: String,
    /// Data coding scheme (3GPP TS 23.038, section 5).
    pub dcs: u8,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The start-up is complete: messages can come and go.
    Ready,
    /// The modem has started anew; what was in flight has failed and the start-up begins again.
    Restarted,
    /// The SIM wants its PIN: [`Dialogue::enter_pin`] or [`Dialogue::without_pin`].
    PinNeeded,
    /// The SIM is unlocked: a PIN that was given was right, or none is needed.
    SimReady,
    /// The PIN was refused, or nobody knows; it must not be tried again.
    PinRefused(String),
    /// [`Dialogue::state`] has changed.
    StateChanged,
    /// A message or status report came.
    Received {
        /// How it is acknowledged.
        source: Source,
        /// Service centre's address and TPDU.
        pdu: Vec<u8>,
    },
    /// A place in the memory was freed, or could not be (then the message comes again).
    Deleted {
        /// The place.
        place: Place,
        /// Whether it is free.
        freed: bool,
    },
    /// What became of a message.
    Sent {
        /// As given to [`Dialogue::submit`].
        tag: u64,
        /// The outcome.
        outcome: SendOutcome,
    },
    /// The reference of a message whose outcome was unknown came after all.
    LateReference {
        /// As given to [`Dialogue::submit`].
        tag: u64,
        /// TP-MR.
        reference: u8,
    },
    /// The answer to a USSD code; the error is for a person.
    Ussd {
        /// As given to [`Dialogue::ussd`].
        tag: u64,
        /// The answer.
        outcome: Result<UssdAnswer, String>,
    },
    /// The modem is of no use any more on this connection; the reason is for a person. Nothing follows.
    Lost(String),
}

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write these bytes to the modem. They may hold the PIN: they belong in no log.
    Write(Vec<u8>),
    /// Something happened.
    Event(Event),
}
