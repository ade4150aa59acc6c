//! User data header: 3GPP TS 23.040, section 9.2.3.24.

use super::super::charset::{Language, Tables};
use super::Part;
use super::reader::Damage;

/// Element identifiers.
pub(in super::super) const CONCATENATION_8: u8 = 0x00;
const SPECIAL_MESSAGE: u8 = 0x01;
const PORTS_8: u8 = 0x04;
const PORTS_16: u8 = 0x05;
pub(in super::super) const CONCATENATION_16: u8 = 0x08;
pub(in super::super) const SINGLE_SHIFT: u8 = 0x24;
pub(in super::super) const LOCKING_SHIFT: u8 = 0x25;

/// An element of a user data header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// What it is (section 9.2.3.24).
    pub id: u8,
    /// Its octets.
    pub data: Vec<u8>,
}

/// The elements in their order, known or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header(pub Vec<Element>);

impl Header {
    /// Reads the header without its length. An element that reaches beyond the end is damage; those before it
    /// stand: the standard would ignore them too, which would tear a message in parts to pieces.
    pub(super) fn read(mut octets: &[u8]) -> (Self, Option<Damage>) {
        let mut elements = Vec::new();
        while !octets.is_empty() {
            let data = match octets {
                [_, length, rest @ ..] => rest.split_at_checked(usize::from(*length)),
                _ => None,
            };
            let (Some(id), Some((data, rest))) = (octets.first(), data) else {
                return (Self(elements), Some(Damage::Header));
            };
            elements.push(Element {
                id: *id,
                data: data.to_vec(),
            });
            octets = rest;
        }
        (Self(elements), None)
    }

    /// The last of these elements that `read` understands: of elements that exclude each other the last counts.
    fn last<T>(&self, read: impl Fn(u8, &[u8]) -> Option<T>) -> Option<T> {
        let mut elements = self.0.iter().rev();
        elements.find_map(|element| read(element.id, &element.data))
    }

    /// Which part of a message this is. A number that cannot be (zero, beyond the total) and a total of zero or one
    /// mean a message of its own (9.2.3.24.1).
    pub(super) fn part(&self) -> Option<Part> {
        let part = self.last(|id, data| match (id, data) {
            (CONCATENATION_8, &[reference, total, number]) => Some(Part {
                reference: u16::from(reference),
                wide: false,
                total,
                number,
            }),
            (CONCATENATION_16, &[high, low, total, number]) => Some(Part {
                reference: u16::from_be_bytes([high, low]),
                wide: true,
                total,
                number,
            }),
            _ => None,
        })?;
        (part.total > 1 && (1..=part.total).contains(&part.number)).then_some(part)
    }

    /// Destination port and source port.
    pub(super) fn ports(&self) -> Option<(u16, u16)> {
        self.last(|id, data| match (id, data) {
            (PORTS_8, &[to, from]) => Some((u16::from(to), u16::from(from))),
            (PORTS_16, &[a, b, c, d]) => Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))),
            _ => None,
        })
    }

    /// The tables for this part.
    pub(super) fn tables(&self) -> Tables {
        let language = |wanted| {
            let identifier = self.last(|id, data| match data {
                &[identifier] if id == wanted => Some(identifier),
                _ => None,
            });
            identifier.and_then(Language::from_identifier)
        };
        Tables {
            locking: language(LOCKING_SHIFT),
            single: language(SINGLE_SHIFT),
        }
    }

    /// A sign that something waits (9.2.3.24.2), and whether its text is to be kept.
    pub(super) fn waiting(&self) -> Option<bool> {
        self.last(|id, data| match (id, data) {
            (SPECIAL_MESSAGE, &[kind, _]) => Some(kind & 0x80 != 0),
            _ => None,
        })
    }
}
