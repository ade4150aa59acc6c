//! Octets one after another, and what can be wrong with them.

use std::fmt;

use super::super::PduAddress;

/// Why a PDU cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct PduError {
    /// Where: octets from the beginning.
    pub octet: usize,
    /// What is wrong there.
    pub problem: Problem,
    /// Who sent it, when that could be read: what came can then be shown where it belongs.
    pub from: Option<Box<PduAddress>>,
}

impl fmt::Display for PduError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "octet {}: {}", self.octet, self.problem)
    }
}

/// What is wrong with a PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It ends before or within this field.
    EndsBefore(&'static str),
    /// An address of so many digits cannot be.
    AddressTooLong(u8),
    /// A message to the network, not from it: one that the modem's store keeps as sent.
    NotIncoming,
    /// Another type than a message to the network.
    NotSubmit,
    /// The user data's header is longer than the user data.
    HeaderTooLong,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndsBefore(field) => write!(f, "it ends before the end of the {field}"),
            Self::AddressTooLong(digits) => write!(f, "an address of {digits} digits"),
            Self::NotIncoming => f.write_str("a message to the network, not from it"),
            Self::NotSubmit => f.write_str("not a message to the network"),
            Self::HeaderTooLong => f.write_str("the user data's header is longer than the user data"),
        }
    }
}

/// What was wrong with a PDU that could be read nevertheless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It has less user data than it says: the text is what came.
    Shortened,
    /// An element of the user data's header reaches beyond the header: it and what follows it are not known.
    Header,
}

impl Damage {
    /// For a person.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shortened => "the end of the message is missing",
            Self::Header => "the header of the message is damaged",
        }
    }
}

/// Reads octets from the front.
pub(super) struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(octets: &'a [u8]) -> Self {
        Self { octets, at: 0 }
    }

    /// An error at this place.
    pub(super) const fn error(&self, problem: Problem) -> PduError {
        PduError {
            octet: self.at,
            problem,
            from: None,
        }
    }

    /// An error at the octet that was just read.
    pub(super) const fn error_before(&self, problem: Problem) -> PduError {
        PduError {
            octet: self.at.saturating_sub(1),
            problem,
            from: None,
        }
    }

    pub(super) fn octet(&mut self, field: &'static str) -> Result<u8, PduError> {
        let octet = self.octets.get(self.at).copied();
        let octet = octet.ok_or_else(|| self.error(Problem::EndsBefore(field)))?;
        self.at += 1;
        Ok(octet)
    }

    pub(super) fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], PduError> {
        let taken = self.rest().get(..count);
        let taken = taken.ok_or_else(|| self.error(Problem::EndsBefore(field)))?;
        self.at += count;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], PduError> {
        let taken = self.take(N, field)?;
        taken
            .try_into()
            .map_err(|_| self.error(Problem::EndsBefore(field)))
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.octets.get(self.at..).unwrap_or_default()
    }

    /// The service centre's address: its length counts octets (3GPP TS 27.005, 3.1 and TS 24.011, 8.2.5.1).
    pub(super) fn smsc(&mut self) -> Result<Option<PduAddress>, PduError> {
        let length = self.octet("service centre's address")?;
        if length == 0 {
            return Ok(None);
        }
        // Ten octets of digits and the type.
        if length > 12 {
            return Err(self.error_before(Problem::AddressTooLong(length.saturating_mul(2))));
        }
        let field = self.take(usize::from(length), "service centre's address")?;
        let (kind, digits) = field
            .split_first()
            .map_or((0, field), |(kind, rest)| (*kind, rest));
        Ok(Some(PduAddress::read(kind, digits, digits.len() * 2)))
    }

    /// An address in a TPDU: its length counts semi-octets.
    pub(super) fn address(&mut self, field: &'static str) -> Result<PduAddress, PduError> {
        let digits = self.octet(field)?;
        // Beyond the standard's 20 only a little: a larger number means that this is no address.
        if usize::from(digits) > PduAddress::MAX_DIGITS + 4 {
            return Err(self.error_before(Problem::AddressTooLong(digits)));
        }
        let kind = self.octet(field)?;
        let octets = self.take(usize::from(digits).div_ceil(2), field)?;
        Ok(PduAddress::read(kind, octets, usize::from(digits)))
    }
}
