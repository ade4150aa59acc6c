//! Short messages as modems carry them: octets in, messages out, and the other way round.
//!
//! - [`pdu`]: SMS-DELIVER, SMS-STATUS-REPORT and SMS-SUBMIT (3GPP TS 23.040)
//! - [`charset`]: the GSM alphabet with its national language tables, UTF-16 (3GPP TS 23.038)
//! - [`encode`]: a text becomes the fewest parts that carry it
//! - [`mod@concat`]: parts become the message that was sent
//! - [`number`]: one customer, one address, however the network writes the number
//! - [`at`]: the dialogue with a modem that carries them

pub mod address;
pub mod at;
pub mod charset;
pub mod concat;
pub mod encode;
pub mod number;
pub mod pdu;

pub use address::{PduAddress, TypeOfNumber};
pub use concat::{Assembler, Content, Received, Step};
pub use encode::{EncodeError, Reference, Submit, SubmitOptions, encode_submit};
pub use number::{Home, Peer, international_form};
pub use pdu::{
    Deliver, Incoming, PduError, ReportOutcome, StatusReport, decode_incoming, decode_submit, decode_tpdu,
};

#[cfg(test)]
mod concat_tests;
#[cfg(test)]
mod encode_tests;
#[cfg(test)]
mod nasty_tests;
#[cfg(test)]
mod pdu_tests;
#[cfg(test)]
mod test_pdus;
#[cfg(test)]
mod tests;
