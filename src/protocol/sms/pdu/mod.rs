//! Protocol data units between a modem and the network's centre: 3GPP TS 23.040, section 9.2.
//!
//! No input makes a reader panic. What is damaged and can still be read is read and says so ([`Damage`]); what
//! cannot be read is an error that says where and, when it got so far, from whom it was.

mod body;
mod coding;
mod deliver;
mod header;
mod mms;
mod reader;
mod report;
mod submit;
mod time;

pub use body::{Body, join, join_with_gaps};
pub use coding::{Alphabet, Coding};
pub use deliver::{Deliver, Kind, Part, Silence};
pub use header::{Element, Header};
pub use mms::MmsNotification;
pub use reader::{Damage, PduError, Problem};
pub use report::{ReportOutcome, StatusReport};
pub use submit::{SubmitPdu, Validity};

pub(super) use header::{CONCATENATION_8, CONCATENATION_16, LOCKING_SHIFT, SINGLE_SHIFT};
pub(super) use mms::WAP_PUSH_PORT;
pub(super) use time::relative_validity_octet;

use super::PduAddress;
use reader::Reader;

/// What came from the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A message, or a part of one.
    Deliver(Box<Deliver>),
    /// What became of a message that was sent.
    StatusReport(Box<StatusReport>),
}

/// Message type indicator: section 9.2.3.1.
const TYPE_MASK: u8 = 0b11;
const TYPE_SUBMIT: u8 = 0b01;
const TYPE_STATUS_REPORT: u8 = 0b10;
const USER_DATA_HEADER: u8 = 0x40;

/// Reads what a modem hands over: the address of the service centre and a TPDU, as octets.
///
/// The reserved message type is read as a message, as section 9.2.3.1 says.
pub fn decode_incoming(pdu: &[u8]) -> Result<Incoming, PduError> {
    let mut reader = Reader::new(pdu);
    let smsc = reader.smsc()?;
    incoming(&mut reader, smsc)
}

/// Reads a TPDU without the address of a service centre: some modems leave it out of status reports, which the
/// length in their line tells.
pub fn decode_tpdu(tpdu: &[u8]) -> Result<Incoming, PduError> {
    incoming(&mut Reader::new(tpdu), None)
}

fn incoming(reader: &mut Reader<'_>, smsc: Option<PduAddress>) -> Result<Incoming, PduError> {
    let first = reader.octet("message type")?;
    match first & TYPE_MASK {
        TYPE_SUBMIT => Err(reader.error_before(Problem::NotIncoming)),
        TYPE_STATUS_REPORT => {
            let report = report::read(reader, first)?;
            Ok(Incoming::StatusReport(Box::new(report)))
        }
        _ => Ok(Incoming::Deliver(Box::new(deliver::read(reader, first, smsc)?))),
    }
}

/// Reads a message on its way to the network, with the address of the service centre in front: what
/// [`encode_submit`](super::encode_submit) makes, and what lies in a modem's store as sent or to be sent.
pub fn decode_submit(pdu: &[u8]) -> Result<SubmitPdu, PduError> {
    let mut reader = Reader::new(pdu);
    let smsc = reader.smsc()?;
    submit::read(&mut reader, smsc)
}
