//! One customer, one address: numbers in the form of ITU-T E.164, by the rules of the channel's home country.
//!
//! A network writes the same number as `+447700900123`, `00447700900123`, `447700900123` or `07700900123`, depending on
//! where the sender is. The rules are country codes, prefixes and the length of mobile numbers, not the allocation of
//! ranges: a number that does not exist stays one. Not covered: carrier selection codes (Brazil, Colombia) and the
//! Argentine `15`.

mod countries;
mod shown;

use std::fmt;

use super::{PduAddress, TypeOfNumber};
use countries::Country;
pub use shown::international_form;

/// Fewest digits of an international number; what is shorter is a service.
const MIN_INTERNATIONAL: usize = 7;
/// Most digits of an international number (ITU-T E.164).
const MAX_INTERNATIONAL: usize = 15;
/// Short codes have at most so many digits where mobile numbers are longer anyway.
const SHORT_CODE: usize = 6;

/// The other side of a conversation.
///
/// Personal data: `Debug` shows the kind and the length only.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Peer {
    /// `+` and the digits of an international number.
    Number(String),
    /// Digits that are no international number and cannot be made one: the home country is not known, or they have
    /// no length that fits. An answer to them is sent as they are.
    Local(String),
    /// A short code or a service such as `*100#`: a machine, which is not answered.
    ShortCode(String),
    /// An alphanumeric sender: there is no way back to it.
    Name(String),
    /// The network gave no sender.
    Unknown,
}

impl Peer {
    /// The address as it is stored and shown; empty for an unknown one.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Number(text) | Self::Local(text) | Self::ShortCode(text) | Self::Name(text) => text,
            Self::Unknown => "",
        }
    }

    /// Whether a person can be answered there.
    #[must_use]
    pub const fn is_answerable(&self) -> bool {
        matches!(self, Self::Number(_) | Self::Local(_))
    }

    /// The address for a message to it; `None` for what cannot be sent to.
    #[must_use]
    pub fn to_pdu(&self) -> Option<PduAddress> {
        match self {
            Self::Number(text) | Self::Local(text) | Self::ShortCode(text) => PduAddress::number(text),
            Self::Name(_) | Self::Unknown => None,
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Number(_) => "Number",
            Self::Local(_) => "Local",
            Self::ShortCode(_) => "ShortCode",
            Self::Name(_) => "Name",
            Self::Unknown => "Unknown",
        };
        write!(f, "{kind}({} characters)", self.as_str().chars().count())
    }
}

/// Where a channel is at home: how numbers without a country code are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Home(Option<Country>);

impl Home {
    /// Without a country: only what has a country code becomes an international number.
    pub const NOWHERE: Self = Self(None);

    /// The country of an ISO 3166 code of two letters, such as `GB`; `None` when there is none.
    #[must_use]
    pub fn new(country: &str) -> Option<Self> {
        countries::by_iso(country).map(|country| Self(Some(country)))
    }

    /// Whom an address of a PDU means.
    #[must_use]
    pub fn peer(&self, address: &PduAddress) -> Peer {
        let text = address.value.trim();
        if text.is_empty() {
            return Peer::Unknown;
        }
        match address.kind {
            TypeOfNumber::Alphanumeric => {
                // Some gateways send numbers as names.
                if let Some(number) = text.strip_prefix('+').and_then(international) {
                    return number;
                }
                // The alphabet has line breaks and a form feed, which have no place in an address.
                let name: String = text.chars().filter(|c| !c.is_control()).collect();
                match name.trim() {
                    "" => Peer::Unknown,
                    name => Peer::Name(name.to_owned()),
                }
            }
            TypeOfNumber::NetworkSpecific | TypeOfNumber::Subscriber | TypeOfNumber::Abbreviated => {
                Peer::ShortCode(text.to_owned())
            }
            // A country code does not begin with 0: what does has been given the wrong type.
            TypeOfNumber::International if !text.starts_with('0') => {
                international(text).unwrap_or_else(|| Peer::ShortCode(text.to_owned()))
            }
            _ => self.digits(text),
        }
    }

    /// Whom somebody means who writes a number; `None` when it is no number. Spaces, dashes, dots, slashes and
    /// parentheses do not count, nor does the `(0)` of `+44 (0)7700 …`.
    #[must_use]
    pub fn recipient(&self, text: &str) -> Option<Peer> {
        let text = text.trim().trim_start_matches("tel:");
        let text = if text.starts_with('+') || text.starts_with("00") {
            text.replace("(0)", "")
        } else {
            text.to_owned()
        };
        let plain: String = text.chars().filter(|c| !is_filler(*c)).collect();
        if let Some(digits) = plain.strip_prefix('+') {
            return international(digits);
        }
        let known = plain
            .bytes()
            .all(|c| c.is_ascii_digit() || matches!(c, b'*' | b'#'));
        let fits = (1..=PduAddress::MAX_DIGITS).contains(&plain.len());
        (known && fits).then(|| self.digits(&plain))
    }

    /// Digits of which nobody says what they are.
    fn digits(&self, text: &str) -> Peer {
        if !text.bytes().all(|c| c.is_ascii_digit()) {
            return Peer::ShortCode(text.to_owned());
        }
        let prefixes = self.0.map_or("00", |home| home.international);
        let foreign = prefixes.split_ascii_whitespace().find_map(|prefix| {
            let rest = text.strip_prefix(prefix)?;
            (rest.len() >= MIN_INTERNATIONAL && !rest.starts_with('0')).then(|| international(rest))?
        });
        if let Some(peer) = foreign {
            return peer;
        }
        let Some(home) = self.0 else {
            return if text.len() <= SHORT_CODE {
                Peer::ShortCode(text.to_owned())
            } else {
                Peer::Local(text.to_owned())
            };
        };
        let (least, most) = home.digits;
        let at_home = |number: &str| Peer::Number(format!("+{}{number}", home.code));
        // Landlines may be longer than mobile numbers: with the prefix there is no doubt what they are.
        let longest = MAX_INTERNATIONAL - home.code.len();
        if let Some(number) = home.without_trunk(text, least, longest) {
            return at_home(number);
        }
        // A country code that the network has left without a sign. Where lengths vary this may be a number of this
        // country nevertheless, and is much more seldom.
        if text
            .strip_prefix(home.code)
            .is_some_and(|rest| (least..=most).contains(&rest.len()))
        {
            return international(text).unwrap_or_else(|| Peer::Local(text.to_owned()));
        }
        if text.len() < least {
            return Peer::ShortCode(text.to_owned());
        }
        if text.len() <= most {
            return at_home(text);
        }
        // Too long for a number of this country: one of another country.
        let foreign = countries::by_digits(text).is_some_and(|country| country.fits(text));
        let peer = if foreign { international(text) } else { None };
        peer.unwrap_or_else(|| Peer::Local(text.to_owned()))
    }
}

impl Country {
    /// The number without the prefix for calls within the country, if it has one and enough digits are left.
    fn without_trunk<'a>(&self, number: &'a str, least: usize, most: usize) -> Option<&'a str> {
        let mut prefixes = self.trunk.split_ascii_whitespace();
        prefixes.find_map(|prefix| {
            let rest = number.strip_prefix(prefix)?;
            (least..=most).contains(&rest.len()).then_some(rest)
        })
    }

    /// Whether digits with this country's code have the length of a mobile number.
    fn fits(&self, digits: &str) -> bool {
        let (least, most) = self.digits;
        (least..=most).contains(&digits.len().saturating_sub(self.code.len()))
    }
}

/// A number after its `+`. A prefix for calls within the country that was left in is taken out, where with it the
/// number is too long; so is Mexico's former `1` of mobile numbers.
fn international(digits: &str) -> Option<Peer> {
    let known = digits.bytes().all(|c| c.is_ascii_digit()) && !digits.starts_with('0');
    if !known || !(MIN_INTERNATIONAL..=MAX_INTERNATIONAL).contains(&digits.len()) {
        return None;
    }
    let repaired = countries::by_digits(digits).and_then(|country| {
        let (least, most) = country.digits;
        let number = digits.strip_prefix(country.code)?;
        if number.len() <= most {
            return None;
        }
        let former = if country.code == "52" {
            number.strip_prefix('1')
        } else {
            None
        };
        let number = country
            .without_trunk(number, least, most)
            .or(former.filter(|number| number.len() == most))?;
        Some(format!("+{}{number}", country.code))
    });
    Some(Peer::Number(repaired.unwrap_or_else(|| format!("+{digits}"))))
}

fn is_filler(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '-' | '.' | '/' | '(' | ')' | '\u{2010}'..='\u{2015}' | '\u{200e}' | '\u{202a}'..='\u{202e}')
}

#[cfg(test)]
mod tests;
