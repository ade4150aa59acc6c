//! SMS-STATUS-REPORT: 3GPP TS 23.040, section 9.2.2.3.

use super::super::PduAddress;
use super::reader::{PduError, Reader};
use super::time;
use crate::domain::Timestamp;

/// What became of one part of a message that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusReport {
    /// The reference that the modem gave the part. Only 8 bits: it means something together with the recipient and
    /// the time only.
    pub reference: u8,
    /// Whom the part went to.
    pub recipient: PduAddress,
    /// When the service centre got the part.
    pub sent_at: Option<Timestamp>,
    /// When the outcome was known, or the last attempt was made.
    pub discharged_at: Option<Timestamp>,
    /// What became of it.
    pub outcome: ReportOutcome,
}

/// The status (section 9.2.3.15); the number is the octet as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportOutcome {
    /// The other side has it.
    Delivered,
    /// The network is done with it and does not know more: handed on, replaced, a code of its own or a reserved one.
    Unconfirmed(u8),
    /// Not delivered yet; the network goes on trying. Another report follows.
    Pending(u8),
    /// Not delivered, and no further attempt is made.
    Failed(u8),
}

impl ReportOutcome {
    /// From the octet of the status.
    #[must_use]
    pub const fn from_octet(status: u8) -> Self {
        match status {
            0 => Self::Delivered,
            0x20..=0x3f => Self::Pending(status),
            0x40..=0x7f => Self::Failed(status),
            _ => Self::Unconfirmed(status),
        }
    }

    /// Whether no other report follows.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Pending(_))
    }

    /// For a person.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Unconfirmed(1) => "handed on; the network cannot confirm the delivery",
            Self::Unconfirmed(2) => "replaced by the network",
            Self::Unconfirmed(_) => "the network gives no known outcome",
            // The same reasons before and after the network has given up.
            Self::Pending(0x20) | Self::Failed(0x60) => "congestion",
            Self::Pending(0x21) | Self::Failed(0x61) => "the phone is busy",
            Self::Pending(0x22) | Self::Failed(0x62) => "the phone does not answer",
            Self::Pending(0x23) | Self::Failed(0x63) => "service rejected",
            Self::Pending(0x24) | Self::Failed(0x44 | 0x64) => "quality of service not available",
            Self::Pending(0x25) | Self::Failed(0x65) => "error in the phone",
            Self::Pending(_) => "not delivered yet",
            Self::Failed(0x40) => "remote procedure error",
            Self::Failed(0x41) => "incompatible destination",
            Self::Failed(0x42) => "connection rejected by the phone",
            Self::Failed(0x43) => "not obtainable",
            Self::Failed(0x45) => "no interworking available",
            Self::Failed(0x46) => "validity period expired",
            Self::Failed(0x47) => "deleted by the sender",
            Self::Failed(0x48) => "deleted by the network",
            Self::Failed(0x49) => "the message does not exist",
            Self::Failed(_) => "not delivered",
        }
    }
}

/// What follows the status (parameter indicator, protocol, coding, text) says nothing about the outcome and is often
/// damaged: it is not looked at.
pub(super) fn read(reader: &mut Reader<'_>, _first: u8) -> Result<StatusReport, PduError> {
    let reference = reader.octet("message reference")?;
    let recipient = reader.address("recipient's address")?;
    let sent_at = time::timestamp(reader.array("time stamp")?);
    let discharged_at = time::timestamp(reader.array("discharge time")?);
    let status = reader.octet("status")?;
    Ok(StatusReport {
        reference,
        recipient,
        sent_at,
        discharged_at,
        outcome: ReportOutcome::from_octet(status),
    })
}
