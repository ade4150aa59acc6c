//! Address books as people export them: CSV of Google, Outlook and others, and vCards (RFC 6350, RFC 2426, vCard 2.1).
//!
//! Bytes go in as they come, contacts come out; memory is bounded by the longest line that is kept. What cannot be used
//! is reported with its line and a reason.

mod csv;
#[cfg(test)]
mod tests;
mod vcard;

use std::collections::VecDeque;

use crate::domain::Address;
use crate::protocol::sms::{Home, Peer};

/// Longest name that is kept, in characters.
pub const MAX_NAME: usize = 128;
/// Most numbers of one contact.
const MAX_NUMBERS: usize = 20;
/// Most bytes that are looked at to find out what a file is.
const MAX_HEAD: usize = 64 * 1024;

/// Somebody in an address book, as it was written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Line on which the contact begins, counted from 1.
    pub line: u64,
    /// The name, cleaned.
    pub name: String,
    /// Phone numbers in whatever form.
    pub numbers: Vec<String>,
    /// Addresses of devices, which are no numbers and stay as they are.
    pub devices: Vec<String>,
}

/// Why a line, or one of its numbers, is left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skip {
    /// There is nobody to show.
    #[error("there is no name")]
    NoName,
    /// There is nothing to find the name by.
    #[error("there is no phone number")]
    NoNumber,
    /// Not readable as a phone number.
    #[error("{0:?} is not a phone number")]
    NotANumber(String),
    /// It could be a number of any country.
    #[error("{0:?} has no country code, and the home country is not known")]
    NoCountry(String),
    /// An address of a device that is too long or has control characters.
    #[error("{0:?} cannot be the address of a device")]
    NotAnAddress(String),
    /// Longer than any contact, mostly because a quotation mark is not closed.
    #[error("the line is too long or has too many columns; is a quotation mark not closed?")]
    TooLong,
    /// The file ends in the middle of a vCard.
    #[error("the vCard has no end")]
    Unfinished,
}

/// What came out of an address book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A contact.
    Contact(Contact),
    /// A line that cannot be used.
    Skipped {
        /// Counted from 1.
        line: u64,
        /// Why.
        why: Skip,
    },
}

/// Why a file is no address book.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// The columns say nothing.
    #[error(
        "the first line must name the columns, such as \"name,phone\" or \"First Name;Last Name;Mobile Phone\"; it has no {missing}"
    )]
    NoColumns {
        /// What is not among them.
        missing: &'static str,
    },
    /// UTF-16 or UTF-32.
    #[error("the file is not UTF-8 text: save it as CSV UTF-8")]
    NotUtf8,
    /// Nothing is in it.
    #[error("the file is empty")]
    Empty,
}

/// Reads one file.
#[derive(Debug, Default)]
pub struct Book {
    state: State,
    items: VecDeque<Item>,
}

#[derive(Debug)]
enum State {
    /// The beginning, until it shows what it is.
    Head(Vec<u8>),
    Csv(Box<csv::Reader>),
    VCard(vcard::Reader),
}

impl Default for State {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl Book {
    /// Takes the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), BookError> {
        match &mut self.state {
            State::Head(head) => {
                head.extend_from_slice(bytes);
                let whole_line = start(head).iter().any(|byte| is_line_end(*byte));
                if whole_line || head.len() > MAX_HEAD {
                    return self.begin();
                }
                Ok(())
            }
            State::Csv(reader) => reader.push(bytes, &mut self.items),
            State::VCard(reader) => {
                reader.push(bytes, &mut self.items);
                Ok(())
            }
        }
    }

    fn begin(&mut self) -> Result<(), BookError> {
        let State::Head(head) = &mut self.state else {
            return Ok(());
        };
        let head = std::mem::take(head);
        let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&head);
        let first_line = start(text)
            .split(|byte| is_line_end(*byte))
            .next()
            .unwrap_or_default();
        if first_line.contains(&0) || text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
            return Err(BookError::NotUtf8);
        }
        let is_vcard = start(text)
            .get(..b"BEGIN:VCARD".len())
            .is_some_and(|start| start.eq_ignore_ascii_case(b"BEGIN:VCARD"));
        self.state = if is_vcard {
            State::VCard(vcard::Reader::default())
        } else {
            State::Csv(Box::new(csv::Reader::new(text)))
        };
        self.push(text)
    }

    /// Takes the end of the file.
    pub fn finish(&mut self) -> Result<(), BookError> {
        if let State::Head(head) = &self.state {
            if start(head).is_empty() {
                return Err(BookError::Empty);
            }
            self.begin()?;
        }
        match &mut self.state {
            State::Csv(reader) => reader.finish(&mut self.items),
            State::VCard(reader) => {
                reader.finish(&mut self.items);
                Ok(())
            }
            State::Head(_) => Ok(()),
        }
    }

    /// The next contact, or the next line that is left out.
    pub fn next_item(&mut self) -> Option<Item> {
        self.items.pop_front()
    }
}

impl Contact {
    /// The addresses under which messages of this contact arrive, with its name's numbers in the form in which
    /// customers' numbers are stored.
    pub fn addresses(&self, home: Home) -> impl Iterator<Item = Result<Address, Skip>> {
        let numbers = self.numbers.iter().map(move |number| address_of(number, home));
        let devices = self
            .devices
            .iter()
            .map(|device| Address::new(device).ok_or_else(|| Skip::NotAnAddress(device.clone())));
        numbers.chain(devices)
    }
}

/// The address that somebody means who writes a phone number.
pub fn address_of(number: &str, home: Home) -> Result<Address, Skip> {
    let not_a_number = || Skip::NotANumber(number.to_owned());
    // RFC 3966 has parameters behind the number.
    let plain = number.split(';').next().unwrap_or_default();
    match home.recipient(plain).ok_or_else(not_a_number)? {
        Peer::Local(_) if home == Home::NOWHERE => Err(Skip::NoCountry(number.to_owned())),
        peer @ (Peer::Number(_) | Peer::ShortCode(_) | Peer::Local(_)) => {
            Address::new(peer.as_str()).ok_or_else(not_a_number)
        }
        Peer::Name(_) | Peer::Unknown => Err(not_a_number()),
    }
}

/// A name on one line, without what steers a terminal or turns the direction of the text around it; `None` when nothing
/// is left.
#[must_use]
pub fn clean_name(text: &str) -> Option<String> {
    let mut name = String::new();
    let mut length = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        let mut first = !name.is_empty();
        for c in word.chars().filter(|c| !is_invisible(*c)) {
            if length + usize::from(first) >= MAX_NAME {
                break;
            }
            if std::mem::take(&mut first) {
                name.push(' ');
                length += 1;
            }
            name.push(c);
            length += 1;
        }
    }
    (!name.is_empty()).then_some(name)
}

/// Marks of direction, byte order and the like. Joiners stay: they shape letters and pictures.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// Without the mark of UTF-8 and white space in front.
fn start(head: &[u8]) -> &[u8] {
    head.strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(head)
        .trim_ascii_start()
}

fn is_line_end(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}

/// What Windows-1252 has in place of the control characters 80 to 9F.
const WINDOWS: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ";

/// UTF-8, or what older programs write.
fn text_of(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes
            .iter()
            .map(|byte| match byte {
                0x80..=0x9f => WINDOWS
                    .chars()
                    .nth(usize::from(byte - 0x80))
                    .unwrap_or('\u{fffd}'),
                other => char::from(*other),
            })
            .collect(),
    }
}

/// What a contact comes to that was read in pieces.
fn item(line: u64, name: &str, numbers: Vec<String>, devices: Vec<String>) -> Item {
    let skipped = |why| Item::Skipped { line, why };
    if numbers.is_empty() && devices.is_empty() {
        return skipped(Skip::NoNumber);
    }
    match clean_name(name) {
        None => skipped(Skip::NoName),
        Some(name) => Item::Contact(Contact {
            line,
            name,
            numbers,
            devices,
        }),
    }
}
