//! User data: what it says, alone and together with the other parts.

use super::super::charset::{self, SeptetReader, Tables, unpack};
use super::coding::{Alphabet, Coding};
use super::header::Header;
use super::reader::{Damage, PduError, Problem, Reader};

/// The content of one part, not read yet: a character may be split over two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// GSM 7 bit, one septet per octet.
    Septets {
        /// 0 to 127 each.
        septets: Vec<u8>,
        /// The tables that this part is read with.
        tables: Tables,
    },
    /// UTF-16, big endian, as octets: their number may be odd.
    Utf16(Vec<u8>),
    /// Anything else.
    Octets(Vec<u8>),
}

impl Body {
    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Septets { septets: data, .. } | Self::Utf16(data) | Self::Octets(data) => data.is_empty(),
        }
    }

    /// The octets of a binary part.
    #[must_use]
    pub fn octets(&self) -> Option<&[u8]> {
        match self {
            Self::Octets(octets) => Some(octets),
            Self::Septets { .. } | Self::Utf16(_) => None,
        }
    }
}

/// User data with its header.
pub(super) struct UserData {
    pub(super) header: Header,
    pub(super) body: Body,
    pub(super) damage: Option<Damage>,
}

/// Reads the length and what follows it.
pub(super) fn read(reader: &mut Reader<'_>, coding: Coding, with_header: bool) -> Result<UserData, PduError> {
    let length = usize::from(reader.octet("length of the user data")?);
    let septets = coding.alphabet == Alphabet::Gsm7 && !coding.compressed;
    let (octets, mut damage) = {
        let needed = if septets {
            charset::packed_len(length)
        } else {
            length
        };
        match reader.rest().get(..needed) {
            Some(octets) => (octets, None),
            None => (reader.rest(), Some(Damage::Shortened)),
        }
    };
    let mut header = Header::default();
    let mut header_octets = 0;
    if with_header {
        header_octets = octets.first().map_or(0, |length| usize::from(*length) + 1);
        let elements = octets
            .get(1..header_octets)
            .ok_or_else(|| reader.error(Problem::HeaderTooLong))?;
        let header_damage;
        (header, header_damage) = Header::read(elements);
        damage = damage.or(header_damage);
    }
    let body = if septets {
        let mut all = unpack(octets, length);
        // The text starts at the next septet boundary.
        let text = all.split_off((header_octets * 8).div_ceil(7).min(all.len()));
        Body::Septets {
            septets: text,
            tables: header.tables(),
        }
    } else {
        let data = octets.get(header_octets..).unwrap_or_default().to_vec();
        if coding.alphabet == Alphabet::Utf16 && !coding.compressed {
            Body::Utf16(data)
        } else {
            Body::Octets(data)
        }
    };
    Ok(UserData { header, body, damage })
}

/// The text of parts in their order; characters that were split over two parts come together.
///
/// Octets that are neither are shown as text when they are text (UTF-8 without control characters), else as
/// numbers.
#[must_use]
pub fn join(parts: &[Body]) -> String {
    join_with_gaps(parts.iter().map(Some), "")
}

/// As [`join`], with `gap` in the place of each missing part.
#[must_use]
pub fn join_with_gaps<'a>(parts: impl IntoIterator<Item = Option<&'a Body>>, gap: &str) -> String {
    let mut joiner = Joiner::default();
    for part in parts {
        match part {
            Some(Body::Septets { septets, tables }) => {
                joiner.flush();
                joiner.septets.read(septets, *tables, &mut joiner.text);
            }
            Some(Body::Utf16(octets)) => {
                joiner.septets.reset();
                joiner.utf16.push(octets);
            }
            Some(Body::Octets(octets)) => {
                joiner.break_off();
                joiner.text.push_str(&show_octets(octets));
            }
            None => {
                joiner.break_off();
                joiner.text.push_str(gap);
            }
        }
    }
    joiner.flush();
    joiner.text
}

#[derive(Default)]
struct Joiner<'a> {
    text: String,
    septets: SeptetReader,
    /// Parts in UTF-16 in a row.
    utf16: Vec<&'a [u8]>,
}

impl Joiner<'_> {
    fn flush(&mut self) {
        let parts = std::mem::take(&mut self.utf16);
        let odd = parts.iter().filter(|part| part.len() % 2 == 1).count();
        // Two odd parts in a row: a unit was cut in two. One alone: an octet is missing or too much, which must
        // not shift the rest.
        let cut = odd % 2 == 0;
        let mut units = Vec::with_capacity(parts.iter().map(|part| part.len() / 2 + 1).sum());
        let mut held = None;
        for part in &parts {
            for octet in *part {
                match held.take() {
                    Some(high) => units.push(u16::from_be_bytes([high, *octet])),
                    None => held = Some(*octet),
                }
            }
            if !cut {
                held = None;
            }
        }
        let text = char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER));
        // Some phones put a byte order mark in front.
        self.text.extend(text.filter(|c| *c != '\u{feff}'));
    }

    fn break_off(&mut self) {
        self.flush();
        self.septets.reset();
    }
}

/// Octets as a person can read them.
pub(in super::super) fn show_octets(octets: &[u8]) -> String {
    /// More than that helps nobody; the raw message is kept elsewhere.
    const SHOWN: usize = 64;
    if let Ok(text) = std::str::from_utf8(octets)
        && !text
            .chars()
            .any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
    {
        return text.to_owned();
    }
    let mut shown = data_encoding::HEXLOWER.encode(octets.get(..SHOWN).unwrap_or(octets));
    if octets.len() > SHOWN {
        shown.push('…');
    }
    format!("(binary message, {} octets: {shown})", octets.len())
}
