//! A strict GSM modem with its card and its network, for the demo and for tests that need a modem to misbehave.
//!
//! [`Engine`] is the modem without a cable: it takes bytes and the time and gives bytes. It speaks ITU-T V.250, 3GPP TS
//! 27.007 and TS 27.005 in PDU and text mode, refuses every PDU that is not well formed, has memories that get full, and
//! behaves as one of several makes ([`Profile`]). [`Modem`] hangs it on a pseudo-terminal or a socket.

mod answer;
mod at;
mod cable;
mod customer;
mod engine;
mod memory;
mod options;
pub mod pdu;
mod profile;
mod running;
#[cfg(test)]
mod tests;
mod words;

pub use cable::Cable;
pub use customer::Customer;
pub use engine::Engine;
pub use options::{Counts, Interruption, Options, Place, Registration, SendFault, Sent, Shown};
pub use profile::Profile;
pub use running::Modem;
pub use words::{HELP, Said, obey};
