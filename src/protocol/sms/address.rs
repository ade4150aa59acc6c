//! Addresses in PDUs: 3GPP TS 23.040, section 9.1.2.5.

use std::fmt;

use super::charset::{self, Tables};

/// Type of number: bits 4 to 6 of the type of address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TypeOfNumber {
    /// The network does not say; the digits may have a prefix.
    #[default]
    Unknown,
    /// Country code and number, without a prefix.
    International,
    /// Number within the country of the network; some networks leave the trunk prefix on.
    National,
    /// A number of the network itself, such as a service.
    NetworkSpecific,
    /// A short number of the network.
    Subscriber,
    /// Text: up to 11 characters of the GSM alphabet.
    Alphanumeric,
    /// An abbreviated number.
    Abbreviated,
    /// Reserved for extension.
    Reserved,
}

impl TypeOfNumber {
    const fn from_bits(type_of_address: u8) -> Self {
        match (type_of_address >> 4) & 7 {
            0 => Self::Unknown,
            1 => Self::International,
            2 => Self::National,
            3 => Self::NetworkSpecific,
            4 => Self::Subscriber,
            5 => Self::Alphanumeric,
            6 => Self::Abbreviated,
            _ => Self::Reserved,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::International => 1,
            Self::National => 2,
            Self::NetworkSpecific => 3,
            Self::Subscriber => 4,
            Self::Alphanumeric => 5,
            Self::Abbreviated => 6,
            Self::Reserved => 7,
        }
    }
}

/// An address as a PDU has it. [`Home`](super::Home) makes a customer of it.
///
/// Personal data: `Debug` shows the type and the length only.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct PduAddress {
    /// How `value` is meant.
    pub kind: TypeOfNumber,
    /// Numbering plan: bits 0 to 3 of the type of address; 1 is the telephone's (E.164).
    pub plan: u8,
    /// Digits out of `0-9 * # a b c` without a `+`, or the text of an alphanumeric address. May be empty.
    pub value: String,
}

/// The telephone's numbering plan.
const E164: u8 = 1;

/// What the sixteen semi-octets mean; the last one fills up an odd number of digits.
const DIGITS: &[u8; 15] = b"0123456789*#abc";

impl PduAddress {
    /// Most digits of an address (section 9.1.2.3). More are read when a network sends them.
    pub const MAX_DIGITS: usize = 20;

    /// A number: with `+` an international one, else one whose type the network finds out.
    /// `None` when it is empty, longer than [`Self::MAX_DIGITS`] or has other characters than digits, `*` and `#`.
    #[must_use]
    pub fn number(text: &str) -> Option<Self> {
        let (kind, digits) = match text.strip_prefix('+') {
            Some(rest) => (TypeOfNumber::International, rest),
            None => (TypeOfNumber::Unknown, text),
        };
        let known = digits
            .bytes()
            .all(|c| c.is_ascii_digit() || (kind == TypeOfNumber::Unknown && matches!(c, b'*' | b'#')));
        (known && (1..=Self::MAX_DIGITS).contains(&digits.len())).then(|| Self {
            kind,
            plan: E164,
            value: digits.to_owned(),
        })
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// Whether a message can be sent to it.
    #[must_use]
    pub fn is_sendable(&self) -> bool {
        let digits = self.value.bytes().all(|c| DIGITS.contains(&c));
        self.kind != TypeOfNumber::Alphanumeric
            && digits
            && (1..=Self::MAX_DIGITS).contains(&self.value.len())
    }

    /// Reads the type of address and the semi-octets after it. `digits` is the number of semi-octets that count;
    /// more than there are means all there are.
    pub(super) fn read(type_of_address: u8, octets: &[u8], digits: usize) -> Self {
        let kind = TypeOfNumber::from_bits(type_of_address);
        let value = if kind == TypeOfNumber::Alphanumeric {
            // The length counts semi-octets; what does not fill a septet is padding.
            let septets = charset::unpack(octets, digits * 4 / 7);
            // Seven characters in whole octets leave room for an eighth, which would read as `@`; some networks
            // fill a field of fixed length up with more of them.
            let zeros = septets.iter().rev().take_while(|septet| **septet == 0).count();
            let filled = zeros > 1 || (zeros == 1 && septets.len().is_multiple_of(8));
            let end = septets.len() - if filled { zeros } else { 0 };
            charset::decode_septets(septets.get(..end).unwrap_or_default(), Tables::DEFAULT)
        } else {
            octets
                .iter()
                .flat_map(|octet| [octet & 0x0f, octet >> 4])
                .take(digits)
                .map_while(|digit| DIGITS.get(usize::from(digit)))
                .map(|digit| char::from(*digit))
                .collect()
        };
        Self {
            kind,
            plan: type_of_address & 0x0f,
            value,
        }
    }

    /// The address field of a TPDU: number of semi-octets, type of address, semi-octets. What is no digit is left
    /// out: only numbers are sent to.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let digits: Vec<u8> = self
            .value
            .bytes()
            .filter_map(|c| DIGITS.iter().position(|digit| *digit == c))
            .filter_map(|digit| u8::try_from(digit).ok())
            .collect();
        out.push(u8::try_from(digits.len()).unwrap_or(u8::MAX));
        out.push(0x80 | (self.kind.bits() << 4) | (self.plan & 0x0f));
        for pair in digits.chunks(2) {
            let low = pair.first().copied().unwrap_or(0x0f);
            let high = pair.get(1).copied().unwrap_or(0x0f);
            out.push(low | (high << 4));
        }
    }
}

/// An international number with its `+`, everything else as it came.
impl fmt::Display for PduAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == TypeOfNumber::International {
            f.write_str("+")?;
        }
        f.write_str(&self.value)
    }
}

impl fmt::Debug for PduAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PduAddress({:?}, {} characters)",
            self.kind,
            self.value.chars().count()
        )
    }
}
