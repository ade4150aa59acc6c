//! Makes SMS-DELIVER and SMS-STATUS-REPORT.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use super::gsm7;

/// Septets and octets of user data (3GPP TS 23.040, 9.2.3.16).
const MOST_SEPTETS: usize = 160;
const MOST_OCTETS: usize = 140;

/// A text on its way to the modem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// `+4917…`, a national number, a short code, or a name of up to 11 characters.
    pub from: String,
    /// What it says. Sent in GSM's 7-bit alphabet if that has all characters, else as UTF-16.
    pub text: String,
    /// When the service centre got it.
    pub at: Timestamp,
    /// The service centre's zone, in quarters of an hour east of Greenwich.
    pub zone: i8,
    /// Reference of the parts if it needs several.
    pub reference: u16,
    /// Whether the reference takes 16 bits.
    pub wide: bool,
    /// Cuts parts where they are full, also through an escape or a surrogate pair, as some phones do.
    pub cut_anywhere: bool,
    /// Message class (0 is a flash message).
    pub class: Option<u8>,
    /// Protocol identifier; 0x40 is a message that the phone does not show.
    pub pid: u8,
}

impl Text {
    /// A text that came to the service centre now.
    #[must_use]
    pub fn new(from: &str, text: &str, at: Timestamp) -> Self {
        Self {
            from: from.to_owned(),
            text: text.to_owned(),
            at,
            zone: 0,
            reference: 1,
            wide: false,
            cut_anywhere: false,
            class: None,
            pid: 0,
        }
    }

    /// The TPDUs of its parts, each with the service centre's address in front, in order.
    #[must_use]
    pub fn pdus(&self, service_centre: &str) -> Vec<Vec<u8>> {
        let class = self.class.map_or(0, |class| 0x10 | class & 3);
        let header = if self.wide { 7 } else { 6 };
        let (dcs, parts) = if let Some(septets) = gsm7::encode(&self.text) {
            let fill = gsm7::fill_bits(header);
            let room = MOST_SEPTETS - (header * 8 + fill) / 7;
            let cut = |septets: &[u8], at: usize| at > 0 && septets.get(at - 1) == Some(&0x1b);
            let parts = split(&septets, MOST_SEPTETS, room, |all, at| {
                !self.cut_anywhere && cut(all, at)
            });
            let several = parts.len() > 1;
            let make = |part: &[u8]| {
                let (before, fill) = if several { (header, fill) } else { (0, 0) };
                let length = part.len() + (before * 8 + fill) / 7;
                (length, gsm7::pack(part, fill))
            };
            (class, parts.iter().map(|part| make(part)).collect::<Vec<_>>())
        } else {
            let units: Vec<u16> = self.text.encode_utf16().collect();
            let cut = |units: &[u16], at: usize| {
                at > 0
                    && units
                        .get(at - 1)
                        .is_some_and(|unit| (0xd800..0xdc00).contains(unit))
            };
            let parts = split(&units, MOST_OCTETS / 2, (MOST_OCTETS - header) / 2, |all, at| {
                !self.cut_anywhere && cut(all, at)
            });
            let several = parts.len() > 1;
            let make = |part: &[u16]| {
                let octets: Vec<u8> = part.iter().flat_map(|unit| unit.to_be_bytes()).collect();
                (octets.len() + if several { header } else { 0 }, octets)
            };
            (class | 8, parts.iter().map(|part| make(part)).collect())
        };
        let total = parts.len();
        parts
            .into_iter()
            .enumerate()
            .map(|(index, (length, data))| {
                let mut user_data = Vec::new();
                if total > 1 {
                    user_data.extend(self.header(total, index + 1));
                }
                user_data.extend(data);
                self.pdu(service_centre, dcs, total > 1, length, &user_data)
            })
            .collect()
    }

    /// 9.2.3.24.1 and 9.2.3.24.8.
    fn header(&self, total: usize, number: usize) -> Vec<u8> {
        let octet = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        let [high, low] = self.reference.to_be_bytes();
        if self.wide {
            vec![6, 8, 4, high, low, octet(total), octet(number)]
        } else {
            vec![5, 0, 3, low, octet(total), octet(number)]
        }
    }

    fn pdu(&self, service_centre: &str, dcs: u8, header: bool, length: usize, user_data: &[u8]) -> Vec<u8> {
        let mut pdu = smsc(service_centre);
        // SMS-DELIVER, no more messages waiting.
        pdu.push(if header { 0x44 } else { 0x04 });
        pdu.extend(address(&self.from));
        pdu.extend([self.pid, dcs]);
        pdu.extend(timestamp(self.at, self.zone));
        pdu.push(u8::try_from(length).unwrap_or(u8::MAX));
        pdu.extend(user_data);
        pdu
    }
}

/// Cuts into one part of at most `single`, else into parts of at most `several`; `bad(all, at)` says where not to cut.
fn split<T>(all: &[T], single: usize, several: usize, bad: impl Fn(&[T], usize) -> bool) -> Vec<&[T]> {
    if all.len() <= single {
        return vec![all];
    }
    let mut parts = Vec::new();
    let mut start = 0;
    while start < all.len() {
        let mut end = (start + several).min(all.len());
        if end < all.len() && bad(all, end) {
            end -= 1;
        }
        parts.extend(all.get(start..end));
        start = end;
    }
    parts
}

/// A delivery report on its way to the modem (9.2.2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// TP-MR of the message.
    pub reference: u8,
    /// Whom it went to.
    pub to: String,
    /// When the service centre got it, and when this happened.
    pub at: (Timestamp, Timestamp),
    /// TP-ST: 0 delivered, 0x30 still trying, 0x46 validity period expired (9.2.3.15).
    pub status: u8,
}

impl Report {
    /// The TPDU with the service centre's address in front.
    #[must_use]
    pub fn pdu(&self, service_centre: &str) -> Vec<u8> {
        let mut pdu = smsc(service_centre);
        pdu.extend([0x06, self.reference]);
        pdu.extend(address(&self.to));
        pdu.extend(timestamp(self.at.0, 0));
        pdu.extend(timestamp(self.at.1, 0));
        pdu.push(self.status);
        pdu
    }
}

/// The service centre's address: its length counts octets (3GPP TS 24.011, 8.2.5.1).
fn smsc(number: &str) -> Vec<u8> {
    let digits = semi_octets(number.trim_start_matches('+'));
    let kind = if is_international(number) { 0x91 } else { 0x81 };
    let mut octets = vec![u8::try_from(digits.len() + 1).unwrap_or(u8::MAX), kind];
    octets.extend(digits);
    octets
}

/// Whether a number starts with `+`.
pub(crate) fn is_international(number: &str) -> bool {
    number.starts_with('+')
}

/// An address of a TPDU: its length counts digits (9.1.2.5).
pub(crate) fn address(number: &str) -> Vec<u8> {
    let digits = number.trim_start_matches('+');
    let numeric = !digits.is_empty() && digits.chars().all(|digit| digit_value(digit).is_some());
    if numeric {
        let kind = if is_international(number) { 0x91 } else { 0x81 };
        let mut octets = vec![u8::try_from(digits.len()).unwrap_or(u8::MAX), kind];
        octets.extend(semi_octets(digits));
        return octets;
    }
    let septets: Vec<u8> = gsm7::encode(number)
        .unwrap_or_default()
        .into_iter()
        .take(11)
        .collect();
    let packed = gsm7::pack(&septets, 0);
    let mut octets = vec![
        u8::try_from((septets.len() * 7).div_ceil(4)).unwrap_or(u8::MAX),
        0xd0,
    ];
    octets.extend(packed);
    octets
}

/// 9.1.2.3, table.
fn digit_value(digit: char) -> Option<u8> {
    Some(match digit {
        '0'..='9' => digit.to_digit(10).and_then(|value| u8::try_from(value).ok())?,
        '*' => 10,
        '#' => 11,
        'a' => 12,
        'b' => 13,
        'c' => 14,
        _ => return None,
    })
}

/// Digits in swapped half octets, filled up with F.
pub(crate) fn semi_octets(digits: &str) -> Vec<u8> {
    let values: Vec<u8> = digits.chars().filter_map(digit_value).collect();
    values
        .chunks(2)
        .map(|pair| match pair {
            [low, high] => (high << 4) | low,
            [low] => 0xf0 | low,
            _ => 0xff,
        })
        .collect()
}

/// 9.2.3.11.
pub(super) fn timestamp(at: Timestamp, zone: i8) -> Vec<u8> {
    let offset = Offset::from_seconds(i32::from(zone) * 900).unwrap_or(Offset::UTC);
    let local = at.to_zoned(TimeZone::fixed(offset));
    let decimal = |value: u8| ((value % 10) << 4) | (value / 10 % 10);
    let part = |value: i16| decimal(u8::try_from(value.rem_euclid(100)).unwrap_or(0));
    let sign = if zone < 0 { 8 } else { 0 };
    vec![
        part(local.year()),
        part(local.month().into()),
        part(local.day().into()),
        part(local.hour().into()),
        part(local.minute().into()),
        part(local.second().into()),
        decimal(zone.unsigned_abs()) | sign,
    ]
}

/// Upper-case hexadecimal digits.
pub(crate) fn hex(octets: &[u8]) -> String {
    data_encoding::HEXUPPER.encode(octets)
}
