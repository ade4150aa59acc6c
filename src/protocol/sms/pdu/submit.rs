//! SMS-SUBMIT: 3GPP TS 23.040, section 9.2.2.2.

use std::time::Duration;

use super::super::PduAddress;
use super::body::{self, Body};
use super::coding::Coding;
use super::deliver::Part;
use super::header::Header;
use super::reader::{Damage, PduError, Problem, Reader};
use super::{TYPE_MASK, TYPE_SUBMIT, USER_DATA_HEADER, time};
use crate::domain::Timestamp;

/// A message on its way to the network, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "they are the bits of the first octet"
)]
pub struct SubmitPdu {
    /// The service centre; `None` means the one that the modem knows.
    pub smsc: Option<PduAddress>,
    /// Message reference; modems put their own in place of it.
    pub reference: u8,
    /// Whom it is for.
    pub to: PduAddress,
    /// Protocol identifier.
    pub protocol: u8,
    /// How the content is coded.
    pub coding: Coding,
    /// How long the network tries.
    pub validity: Option<Validity>,
    /// Whether a report is asked for.
    pub report: bool,
    /// Whether the service centre drops it when it holds one with the same reference already.
    pub reject_duplicates: bool,
    /// Whether the answer goes the same way.
    pub reply_path: bool,
    /// Which part of a message it is.
    pub part: Option<Part>,
    /// The content.
    pub body: Body,
    /// All elements of the user data header.
    pub header: Header,
    /// What was wrong with it.
    pub damage: Option<Damage>,
}

/// How long the network tries to deliver (section 9.2.3.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// From when the service centre has it.
    Relative(Duration),
    /// Until then; `None` when that is no time.
    Absolute(Option<Timestamp>),
    /// Seven octets of functionality indicator and value, not read further.
    Enhanced([u8; 7]),
}

pub(super) fn read(reader: &mut Reader<'_>, smsc: Option<PduAddress>) -> Result<SubmitPdu, PduError> {
    let first = reader.octet("message type")?;
    if first & TYPE_MASK != TYPE_SUBMIT {
        return Err(reader.error_before(Problem::NotSubmit));
    }
    let reference = reader.octet("message reference")?;
    let to = reader.address("recipient's address")?;
    let protocol = reader.octet("protocol identifier")?;
    let coding = Coding::from_octet(reader.octet("data coding scheme")?);
    let field = "validity period";
    let validity = match (first >> 3) & 3 {
        0b00 => None,
        0b10 => Some(Validity::Relative(time::relative_validity(reader.octet(field)?))),
        0b11 => Some(Validity::Absolute(time::timestamp(reader.array(field)?))),
        _ => Some(Validity::Enhanced(reader.array(field)?)),
    };
    let data = body::read(reader, coding, first & USER_DATA_HEADER != 0)?;
    Ok(SubmitPdu {
        smsc,
        reference,
        to,
        protocol,
        coding,
        validity,
        report: first & 0x20 != 0,
        reject_duplicates: first & 0x04 != 0,
        reply_path: first & 0x80 != 0,
        part: data.header.part(),
        body: data.body,
        header: data.header,
        damage: data.damage,
    })
}
