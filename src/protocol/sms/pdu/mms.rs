//! MMS notifications: a WAP push (WAP-230-WSP, section 8) with an m-notification-ind (OMA-TS-MMS-ENC, section 6.2).

use std::fmt;

/// Where phones take WAP pushes.
pub(in super::super) const WAP_PUSH_PORT: u16 = 2948;

/// What an MMS notification says about the message that waits at the network. It is fetched over the operator's data
/// network, which a gateway does not have.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MmsNotification {
    /// Who sent the message.
    pub from: Option<String>,
    /// Its subject.
    pub subject: Option<String>,
    /// Its size in octets.
    pub size: Option<u64>,
    /// Where it lies.
    pub url: Option<String>,
}

/// What a person sees in its place.
impl fmt::Display for MmsNotification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MMS")?;
        if let Some(subject) = &self.subject {
            write!(f, " \"{subject}\"")?;
        }
        if let Some(from) = &self.from {
            write!(f, " from {from}")?;
        }
        if let Some(size) = self.size {
            write!(f, ", {} kB,", size.div_ceil(1000))?;
        }
        f.write_str(" cannot be fetched")?;
        match &self.url {
            Some(url) => write!(f, ": {url}"),
            None => Ok(()),
        }
    }
}

/// Personal data stays out of logs.
impl fmt::Debug for MmsNotification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MmsNotification({:?} octets)", self.size)
    }
}

const PUSH: u8 = 0x06;

/// Header fields of an m-notification-ind, with the bit that marks a well-known one.
const CONTENT_LOCATION: u8 = 0x83;
const FROM: u8 = 0x89;
const MESSAGE_TYPE: u8 = 0x8c;
const MESSAGE_SIZE: u8 = 0x8e;
const SUBJECT: u8 = 0x96;
const NOTIFICATION: u8 = 0x82;
const ADDRESS_PRESENT: u8 = 0x80;

impl MmsNotification {
    /// Reads the octets of all parts; `None` when they are another kind of push. Fields that cannot be read are
    /// absent.
    #[must_use]
    pub fn read(octets: &[u8]) -> Option<Self> {
        let (&[_transaction, PUSH], rest) = octets.split_first_chunk::<2>()? else {
            return None;
        };
        let mut values = Values(rest);
        let headers = values.variable_length()?;
        let mut fields = Values(values.0.get(headers..)?);
        let mut found = Self::default();
        let mut is_notification = false;
        while let Some(field) = fields.octet() {
            let Some(value) = fields.value() else { break };
            match (field, value) {
                (MESSAGE_TYPE, Value::Short(kind)) => is_notification = kind == NOTIFICATION,
                (CONTENT_LOCATION, Value::Text(url)) => found.url = Some(text(url)),
                (MESSAGE_SIZE, Value::Data(size)) if size.len() <= 8 => {
                    found.size = Some(size.iter().fold(0, |sum, octet| (sum << 8) | u64::from(*octet)));
                }
                (SUBJECT, value) => found.subject = encoded(&value),
                (FROM, Value::Data([ADDRESS_PRESENT, address @ ..])) => {
                    let address = Values(address).value().and_then(|value| encoded(&value));
                    found.from = address.map(|address| plain_address(&address));
                }
                _ => {}
            }
        }
        is_notification.then_some(found)
    }
}

/// `+447700900123/TYPE=PLMN` without the type.
fn plain_address(address: &str) -> String {
    address.split("/TYPE=").next().unwrap_or_default().to_owned()
}

/// A value of a header field (WSP, section 8.4.1.2).
enum Value<'a> {
    Short(u8),
    Data(&'a [u8]),
    Text(&'a [u8]),
}

struct Values<'a>(&'a [u8]);

impl<'a> Values<'a> {
    fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// Seven bits per octet, most significant first (`uintvar`).
    fn variable_length(&mut self) -> Option<usize> {
        let mut value = 0_usize;
        for _ in 0..5 {
            let octet = self.octet()?;
            value = (value << 7) | usize::from(octet & 0x7f);
            if octet & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn value(&mut self) -> Option<Value<'a>> {
        let first = *self.0.first()?;
        match first {
            0..=30 => {
                self.octet()?;
                Some(Value::Data(self.take(usize::from(first))?))
            }
            31 => {
                self.octet()?;
                let length = self.variable_length()?;
                Some(Value::Data(self.take(length)?))
            }
            32..=127 => {
                let length = self.0.iter().position(|octet| *octet == 0)?;
                let text = self.take(length)?;
                self.octet()?;
                Some(Value::Text(text))
            }
            128.. => Some(Value::Short(self.octet()?)),
        }
    }
}

/// A text that may have its character set in front.
fn encoded(value: &Value<'_>) -> Option<String> {
    match value {
        Value::Text(octets) => Some(text(octets)),
        Value::Data(octets) => {
            let mut values = Values(octets);
            values.value()?;
            let octets = values.0.strip_suffix(&[0]).unwrap_or(values.0);
            Some(text(octets))
        }
        Value::Short(_) => None,
    }
}

/// UTF-8 where it is, else Latin 1; without control characters and the mark in front of a character above 127.
fn text(octets: &[u8]) -> String {
    let octets = octets.strip_prefix(&[0x7f]).unwrap_or(octets);
    let text = match std::str::from_utf8(octets) {
        Ok(text) => text.to_owned(),
        Err(_) => octets.iter().map(|octet| char::from(*octet)).collect(),
    };
    text.chars().filter(|c| !c.is_control()).collect()
}
