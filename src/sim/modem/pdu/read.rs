//! Reads SMS-SUBMIT, as strictly as the strictest modem and service centre together.

use super::gsm7::{self, Tables};

/// What is wrong with a PDU.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PduError {
    /// Not pairs of hexadecimal digits.
    #[error("not hexadecimal octets")]
    Hex,
    /// Ends in the middle of something.
    #[error("ends before its {0}")]
    Short(&'static str),
    /// The length that the command gave is not the TPDU's.
    #[error("{declared} octets were declared, {actual} came")]
    Length {
        /// As in `AT+CMGS=`.
        declared: usize,
        /// Without the service centre's address.
        actual: usize,
    },
    /// Not the kind of PDU that can be sent.
    #[error("not an SMS-SUBMIT")]
    Kind,
    /// An address whose length, type or digits cannot be.
    #[error("the {whose} address: {reason}")]
    Address {
        /// Service centre's or recipient's.
        whose: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A data coding scheme that is reserved or compressed.
    #[error("data coding scheme {0:#04x}")]
    Coding(u8),
    /// A validity period that is no time.
    #[error("the validity period is none")]
    Validity,
    /// The user data's length does not fit the data.
    #[error("user data length {declared} needs {needed} octets, {actual} came")]
    UserDataLength {
        /// TP-UDL.
        declared: usize,
        /// Octets for it.
        needed: usize,
        /// Octets that are there.
        actual: usize,
    },
    /// The user data header is not well formed.
    #[error("the user data header: {0}")]
    Header(&'static str),
}

/// Place of a part in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// The sender's reference.
    pub reference: u16,
    /// Whether it had 16 bits.
    pub wide: bool,
    /// How many there are.
    pub total: u8,
    /// Which one this is, from 1.
    pub number: u8,
}

/// User data without its header, not yet decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(private_interfaces, reason = "the tables matter to the decoder alone")]
pub enum Body {
    /// In a 7-bit alphabet.
    Septets {
        /// One per octet.
        septets: Vec<u8>,
        /// Shift tables of the header.
        tables: Tables,
    },
    /// UTF-16.
    Units(Vec<u16>),
    /// Data.
    Octets(Vec<u8>),
}

/// A message that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submit {
    /// Service centre in the PDU; `None` means the modem's own.
    pub smsc: Option<String>,
    /// Recipient: `+…` for international numbers, else digits.
    pub to: String,
    /// Whether a status report is wanted.
    pub wants_report: bool,
    /// Protocol identifier.
    pub pid: u8,
    /// Data coding scheme.
    pub dcs: u8,
    /// Message class.
    pub class: Option<u8>,
    /// Which part of a longer message.
    pub part: Option<Part>,
    /// What it carries.
    pub body: Body,
}

/// Octets from hexadecimal digits of either case.
pub(crate) fn unhex(text: &str) -> Result<Vec<u8>, PduError> {
    data_encoding::HEXUPPER_PERMISSIVE
        .decode(text.as_bytes())
        .map_err(|_| PduError::Hex)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], PduError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(PduError::Short(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn octet(&mut self, what: &'static str) -> Result<u8, PduError> {
        let (octet, rest) = self.0.split_first().ok_or(PduError::Short(what))?;
        self.0 = rest;
        Ok(*octet)
    }
}

/// Reads a PDU as `AT+CMGS=<declared>` takes it, the service centre's address in front.
pub fn read_submit(pdu: &[u8], declared: usize) -> Result<Submit, PduError> {
    let mut reader = Reader(pdu);
    let smsc = service_centre(&mut reader)?;
    let actual = reader.0.len();
    if actual != declared {
        return Err(PduError::Length { declared, actual });
    }
    let first = reader.octet("first octet")?;
    if first & 3 != 1 {
        return Err(PduError::Kind);
    }
    reader.octet("message reference")?;
    let to = recipient(&mut reader)?;
    let pid = reader.octet("protocol identifier")?;
    let dcs = reader.octet("data coding scheme")?;
    let (alphabet, class) = coding(dcs)?;
    validity(&mut reader, first >> 3 & 3)?;
    let (part, body) = user_data(&mut reader, alphabet, first & 0x40 != 0)?;
    Ok(Submit {
        smsc,
        to,
        wants_report: first & 0x20 != 0,
        pid,
        dcs,
        class,
        part,
        body,
    })
}

/// What a modem shows of an SMS-DELIVER in text mode.
#[derive(Debug)]
pub(crate) struct Deliver {
    pub(crate) first: u8,
    pub(crate) from: String,
    pub(crate) from_kind: u8,
    pub(crate) pid: u8,
    pub(crate) dcs: u8,
    pub(crate) timestamp: String,
    pub(crate) length: u8,
    pub(crate) body: Body,
}

/// Reads an SMS-DELIVER, the service centre's address in front.
pub(crate) fn read_deliver(pdu: &[u8]) -> Result<Deliver, PduError> {
    let mut reader = Reader(pdu);
    service_centre(&mut reader)?;
    let first = reader.octet("first octet")?;
    if first & 3 != 0 {
        return Err(PduError::Kind);
    }
    let (from, from_kind) = sender(&mut reader)?;
    let pid = reader.octet("protocol identifier")?;
    let dcs = reader.octet("data coding scheme")?;
    let (alphabet, _) = coding(dcs)?;
    let timestamp = shown_time(reader.take(7, "timestamp")?);
    let length = reader.0.first().copied().unwrap_or(0);
    let (_, body) = user_data(&mut reader, alphabet, first & 0x40 != 0)?;
    Ok(Deliver {
        first,
        from,
        from_kind,
        pid,
        dcs,
        timestamp,
        length,
        body,
    })
}

/// What a modem shows of an SMS-STATUS-REPORT in text mode: the line after `+CDS: `.
pub(crate) fn read_report(pdu: &[u8]) -> Result<String, PduError> {
    let mut reader = Reader(pdu);
    service_centre(&mut reader)?;
    let first = reader.octet("first octet")?;
    if first & 3 != 2 {
        return Err(PduError::Kind);
    }
    let reference = reader.octet("message reference")?;
    let (to, kind) = sender(&mut reader)?;
    let accepted = shown_time(reader.take(7, "timestamp")?);
    let discharged = shown_time(reader.take(7, "discharge time")?);
    let status = reader.octet("status")?;
    Ok(format!(
        "{first},{reference},\"{to}\",{kind},\"{accepted}\",\"{discharged}\",{status}"
    ))
}

/// What a modem looks at to route a message; of a PDU that makes no sense it is what an ordinary message has.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) is_report: bool,
    pub(crate) pid: u8,
    pub(crate) class: Option<u8>,
    /// A notification of a multimedia message, by its port (9.2.3.24.4).
    pub(crate) is_mms: bool,
}

/// Reads as far as routing needs.
pub(crate) fn head(pdu: &[u8]) -> Head {
    let read = || -> Result<Head, PduError> {
        let mut reader = Reader(pdu);
        let smsc = reader.octet("service centre")?;
        reader.take(usize::from(smsc), "service centre")?;
        let first = reader.octet("first octet")?;
        if first & 3 == 2 {
            return Ok(Head {
                is_report: true,
                ..Head::default()
            });
        }
        let digits = reader.octet("sender")?;
        reader.take(usize::from(digits).div_ceil(2) + 1, "sender")?;
        let pid = reader.octet("protocol identifier")?;
        let dcs = reader.octet("data coding scheme")?;
        let ports = [5, 4, 0x0b, 0x84];
        Ok(Head {
            is_report: false,
            pid,
            class: coding(dcs).ok().and_then(|(_, class)| class),
            is_mms: first & 0x40 != 0 && reader.0.windows(4).any(|window| window == ports),
        })
    };
    read().unwrap_or_default()
}

fn service_centre(reader: &mut Reader<'_>) -> Result<Option<String>, PduError> {
    let wrong = |reason| PduError::Address {
        whose: "service centre's",
        reason,
    };
    let length = usize::from(reader.octet("service centre")?);
    if length == 0 {
        return Ok(None);
    }
    if !(2..=11).contains(&length) {
        return Err(wrong("its length"));
    }
    let octets = reader.take(length, "service centre")?;
    let (kind, digits) = octets.split_first().ok_or(wrong("no type"))?;
    let filled = digits.last().is_some_and(|last| last >> 4 == 0xf);
    let count = digits.len() * 2 - usize::from(filled);
    number(*kind, digits, count).map(Some).map_err(wrong)
}

fn recipient(reader: &mut Reader<'_>) -> Result<String, PduError> {
    let wrong = |reason| PduError::Address {
        whose: "recipient's",
        reason,
    };
    let count = usize::from(reader.octet("recipient")?);
    let kind = reader.octet("recipient")?;
    if !(1..=20).contains(&count) {
        return Err(wrong("its length"));
    }
    let digits = reader.take(count.div_ceil(2), "recipient")?;
    number(kind, digits, count).map_err(wrong)
}

fn sender(reader: &mut Reader<'_>) -> Result<(String, u8), PduError> {
    let wrong = |reason| PduError::Address {
        whose: "sender's",
        reason,
    };
    let count = usize::from(reader.octet("sender")?);
    let kind = reader.octet("sender")?;
    let digits = reader.take(count.div_ceil(2), "sender")?;
    if kind & 0x70 == 0x50 {
        let septets = gsm7::unpack(digits, count * 4 / 7, 0);
        return Ok((
            gsm7::decode(&septets, Tables::default()).unwrap_or_default(),
            kind,
        ));
    }
    if count == 0 {
        return Ok((String::new(), kind));
    }
    Ok((number(kind, digits, count).map_err(wrong)?, kind))
}

/// 9.1.2.5: type of number and digits.
fn number(kind: u8, octets: &[u8], count: usize) -> Result<String, &'static str> {
    if kind & 0x80 == 0 {
        return Err("its type has no extension bit");
    }
    let mut text = match kind >> 4 & 7 {
        1 => "+".to_owned(),
        5 | 7 => return Err("its type of number"),
        _ => String::new(),
    };
    let halves = octets.iter().flat_map(|octet| [octet & 15, octet >> 4]);
    for (index, half) in halves.enumerate() {
        if index >= count {
            if half != 15 {
                return Err("it is not filled up with F");
            }
            continue;
        }
        text.push(match half {
            0..=9 => char::from(b'0' + half),
            10 => '*',
            11 => '#',
            12 => 'a',
            13 => 'b',
            14 => 'c',
            _ => return Err("an F among its digits"),
        });
    }
    if kind >> 4 & 7 == 1 && !text.chars().skip(1).all(|digit| digit.is_ascii_digit()) {
        return Err("an international number has other signs than digits");
    }
    Ok(text)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Alphabet {
    Seven,
    Eight,
    Sixteen,
}

/// 3GPP TS 23.038, 4.
fn coding(dcs: u8) -> Result<(Alphabet, Option<u8>), PduError> {
    let bad = PduError::Coding(dcs);
    match dcs >> 4 {
        0..=7 => {
            if dcs & 0x20 != 0 {
                return Err(bad);
            }
            let alphabet = match dcs >> 2 & 3 {
                0 => Alphabet::Seven,
                1 => Alphabet::Eight,
                2 => Alphabet::Sixteen,
                _ => return Err(bad),
            };
            Ok((alphabet, (dcs & 0x10 != 0).then_some(dcs & 3)))
        }
        0xc | 0xd => Ok((Alphabet::Seven, None)),
        0xe => Ok((Alphabet::Sixteen, None)),
        0xf if dcs & 8 == 0 => {
            let alphabet = if dcs & 4 == 0 {
                Alphabet::Seven
            } else {
                Alphabet::Eight
            };
            Ok((alphabet, Some(dcs & 3)))
        }
        _ => Err(bad),
    }
}

/// 9.2.3.12: none, enhanced, relative, absolute.
fn validity(reader: &mut Reader<'_>, format: u8) -> Result<(), PduError> {
    match format {
        0 => {}
        2 => drop(reader.octet("validity period")?),
        1 => {
            let octets = reader.take(7, "validity period")?;
            let kind = octets.first().copied().unwrap_or(0) & 7;
            if kind > 3 {
                return Err(PduError::Validity);
            }
        }
        _ => {
            let octets = reader.take(7, "validity period")?;
            let decimal = |octet: u8| (octet & 15) * 10 + (octet >> 4);
            let digits = |octet: u8| octet & 15 <= 9 && octet >> 4 <= 9;
            let [year, month, day, hour, minute, second, _] = octets else {
                return Err(PduError::Validity);
            };
            let fields = [*year, *month, *day, *hour, *minute, *second];
            let fits = (1..=12).contains(&decimal(*month))
                && (1..=31).contains(&decimal(*day))
                && decimal(*hour) < 24
                && decimal(*minute) < 60
                && decimal(*second) < 60;
            if !fields.into_iter().all(digits) || !fits {
                return Err(PduError::Validity);
            }
        }
    }
    Ok(())
}

fn user_data(
    reader: &mut Reader<'_>,
    alphabet: Alphabet,
    has_header: bool,
) -> Result<(Option<Part>, Body), PduError> {
    let declared = usize::from(reader.octet("user data length")?);
    let most = if alphabet == Alphabet::Seven { 160 } else { 140 };
    let needed = if alphabet == Alphabet::Seven {
        (declared * 7).div_ceil(8)
    } else {
        declared
    };
    let data = reader.0;
    if data.len() != needed || declared > most {
        return Err(PduError::UserDataLength {
            declared,
            needed,
            actual: data.len(),
        });
    }
    let (header, rest) = if has_header {
        let length = data
            .first()
            .copied()
            .ok_or(PduError::Header("there is no user data"))?;
        let (header, rest) = data
            .split_at_checked(usize::from(length) + 1)
            .ok_or(PduError::Header("it is longer than the user data"))?;
        (header.get(1..).unwrap_or_default(), rest)
    } else {
        (&[][..], data)
    };
    let (part, tables) = elements(header)?;
    let before = if has_header { header.len() + 1 } else { 0 };
    let body = match alphabet {
        Alphabet::Seven => {
            let fill = gsm7::fill_bits(before);
            let used = (before * 8 + fill) / 7;
            let count = declared
                .checked_sub(used)
                .ok_or(PduError::Header("it is longer than the user data"))?;
            Body::Septets {
                septets: gsm7::unpack(rest, count, fill),
                tables,
            }
        }
        Alphabet::Eight => Body::Octets(rest.to_vec()),
        Alphabet::Sixteen => {
            if rest.len() % 2 != 0 {
                return Err(PduError::Header("half a character follows"));
            }
            let unit = |pair: &[u8]| match pair {
                [high, low] => u16::from_be_bytes([*high, *low]),
                _ => 0,
            };
            Body::Units(rest.chunks(2).map(unit).collect())
        }
    };
    Ok((part, body))
}

/// 9.2.3.24.
fn elements(header: &[u8]) -> Result<(Option<Part>, Tables), PduError> {
    let mut reader = Reader(header);
    let mut part = None;
    let mut tables = Tables::default();
    let short = |_| PduError::Header("an element ends after the header");
    while !reader.0.is_empty() {
        let kind = reader.octet("element").map_err(short)?;
        let length = usize::from(reader.octet("element").map_err(short)?);
        let data = reader.take(length, "element").map_err(short)?;
        match (kind, data) {
            (0, [reference, total, number]) => {
                part = Some(Part {
                    reference: u16::from(*reference),
                    wide: false,
                    total: *total,
                    number: *number,
                });
            }
            (8, [high, low, total, number]) => {
                part = Some(Part {
                    reference: u16::from_be_bytes([*high, *low]),
                    wide: true,
                    total: *total,
                    number: *number,
                });
            }
            (0x24, [single]) => tables.single = *single,
            (0x25, [locking]) => tables.locking = *locking,
            (0 | 8 | 0x24 | 0x25, _) => return Err(PduError::Header("an element has the wrong length")),
            _ => {}
        }
    }
    match part {
        Some(part) if part.number == 0 || part.number > part.total => {
            Err(PduError::Header("a part that its message does not have"))
        }
        part => Ok((part, tables)),
    }
}

/// A timestamp as in text mode: `yy/MM/dd,hh:mm:ss±zz`.
fn shown_time(octets: &[u8]) -> String {
    let decimal = |octet: u8| format!("{:X}{:X}", octet & 15, octet >> 4);
    match octets {
        [year, month, day, hour, minute, second, zone] => format!(
            "{}/{}/{},{}:{}:{}{}{}",
            decimal(*year),
            decimal(*month),
            decimal(*day),
            decimal(*hour),
            decimal(*minute),
            decimal(*second),
            if zone & 8 == 0 { '+' } else { '-' },
            decimal(zone & 0xf7),
        ),
        _ => String::new(),
    }
}
