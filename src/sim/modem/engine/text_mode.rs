//! Character sets and text mode (3GPP TS 27.005, 3).

use super::super::memory::Stored;
use super::super::pdu::{
    self, Body, Deliver, gsm7, hex, is_international, join, read_deliver, read_report, read_submit,
};
use super::{Engine, Piece};

impl Engine {
    /// A text in the character set that `+CSCS` chose; what it does not have becomes `?`.
    pub(super) fn in_charset(&self, text: &str) -> Vec<u8> {
        let septets = |text: &str| -> Vec<u8> {
            text.chars()
                .flat_map(|c| gsm7::encode(c.encode_utf8(&mut [0; 4])).unwrap_or_else(|| vec![b'?']))
                .collect()
        };
        match self.settings.charset.as_str() {
            "GSM" => septets(text),
            "HEX" => hex(&septets(text)).into_bytes(),
            "UCS2" => {
                let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
                hex(&units).into_bytes()
            }
            "8859-1" => text
                .chars()
                .map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?'))
                .collect(),
            _ => text
                .chars()
                .map(|c| {
                    if c.is_ascii() {
                        u8::try_from(c).unwrap_or(b'?')
                    } else {
                        b'?'
                    }
                })
                .collect(),
        }
    }

    /// The text of what was given in that character set.
    pub(super) fn out_of_charset(&self, given: &[u8]) -> Option<String> {
        match self.settings.charset.as_str() {
            "GSM" => gsm7::decode(given, gsm7::Tables::default()),
            "HEX" => gsm7::decode(&unhex(given)?, gsm7::Tables::default()),
            "UCS2" => {
                let octets = unhex(given)?;
                let units: Vec<u16> = octets
                    .chunks(2)
                    .map(|pair| match pair {
                        [high, low] => Some(u16::from_be_bytes([*high, *low])),
                        _ => None,
                    })
                    .collect::<Option<_>>()?;
                String::from_utf16(&units).ok()
            }
            "8859-1" => Some(given.iter().copied().map(char::from).collect()),
            _ => Some(String::from_utf8_lossy(given).into_owned()),
        }
    }

    /// An SMS-SUBMIT as `+CSMP` and the text make it; `None` if it does not fit.
    pub(super) fn submit_of_text(&self, to: &str, entry: &[u8]) -> Option<Vec<u8>> {
        let [first, validity, pid, dcs] = self.settings.csmp;
        let octet = |value: u32| u8::try_from(value).ok();
        let (first, dcs) = (octet(first)?, octet(dcs)?);
        let (length, data) = if dcs & 0x0c == 0 {
            let septets = gsm7::encode(&self.out_of_charset(entry)?)?;
            (septets.len(), gsm7::pack(&septets, 0))
        } else {
            // 3.1, `<data>`: octets as two hexadecimal digits each; UCS2 is written like that anyway.
            let octets = unhex(entry)?;
            (octets.len(), octets)
        };
        let most = if dcs & 0x0c == 0 { 160 } else { 140 };
        if length > most {
            return None;
        }
        let mut tpdu = vec![0, first & 0x7c | 1, 0];
        tpdu.extend(pdu::address(to));
        tpdu.extend([octet(pid)?, dcs]);
        match first >> 3 & 3 {
            0 => {}
            2 => tpdu.push(octet(validity)?),
            _ => return None,
        }
        tpdu.push(u8::try_from(length).ok()?);
        tpdu.extend(data);
        Some(tpdu)
    }

    fn data(&self, body: &Body) -> Vec<u8> {
        match body {
            Body::Septets { .. } => self.in_charset(&join(&[body]).unwrap_or_default()),
            Body::Units(units) => {
                let octets: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
                hex(&octets).into_bytes()
            }
            Body::Octets(octets) => hex(octets).into_bytes(),
        }
    }

    fn quoted(&self, text: &str) -> Vec<u8> {
        let mut quoted = vec![b'"'];
        quoted.extend(self.in_charset(text));
        quoted.push(b'"');
        quoted
    }

    /// `"<oa>",[<alpha>],"<scts>"` and, with `+CSDH=1`, what else a message's head says.
    fn deliver_head(&self, message: &Deliver, with_length_only: bool) -> Vec<u8> {
        let mut line = self.quoted(&message.from);
        line.extend(format!(",{},\"{}\"", self.alpha(), message.timestamp).as_bytes());
        if self.settings.show_header {
            let Deliver {
                first,
                from_kind,
                pid,
                dcs,
                length,
                ..
            } = message;
            if with_length_only {
                line.extend(format!(",{from_kind},{length}").as_bytes());
            } else {
                let centre = &self.options.service_centre;
                let kind = if is_international(centre) { 145 } else { 129 };
                line.extend(format!(",{from_kind},{first},{pid},{dcs},").as_bytes());
                line.extend(self.quoted(centre));
                line.extend(format!(",{kind},{length}").as_bytes());
            }
        }
        line
    }

    pub(super) fn listed_as_text(&self, index: u32, stored: &Stored) -> Piece {
        let head = format!("+CMGL: {index},\"{}\",", stored.stat.words());
        self.as_text(&head, stored, true)
    }

    pub(super) fn read_as_text(&self, stored: &Stored) -> Piece {
        let head = format!("+CMGR: \"{}\",", stored.stat.words());
        self.as_text(&head, stored, false)
    }

    fn as_text(&self, head: &str, stored: &Stored, listed: bool) -> Piece {
        let mut line = head.as_bytes().to_vec();
        if let Ok(report) = read_report(&stored.pdu) {
            line.extend(report.as_bytes());
            return Piece::Info(line);
        }
        if let Ok(message) = read_deliver(&stored.pdu) {
            line.extend(self.deliver_head(&message, listed));
            return Piece::Pair(line, self.data(&message.body));
        }
        if let Ok(message) = read_submit(&stored.pdu, stored.length()) {
            line.extend(self.quoted(&message.to));
            line.extend(format!(",{}", self.alpha()).as_bytes());
            if listed {
                line.push(b',');
            }
            return Piece::Pair(line, self.data(&message.body));
        }
        line.extend(b"\"\",,\"\"");
        Piece::Pair(line, hex(&stored.pdu).into_bytes())
    }

    /// `+CMT` and `+CDS` in text mode.
    pub(super) fn handed_over_as_text(&self, name: &str, pdu: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
        let mut line = format!("{name}: ").into_bytes();
        if let Ok(report) = read_report(pdu) {
            line.extend(report.as_bytes());
            return (line, None);
        }
        if let Ok(message) = read_deliver(pdu) {
            line.extend(self.deliver_head(&message, false));
            return (line, Some(self.data(&message.body)));
        }
        line.extend(b"\"\",,\"\"");
        (line, Some(hex(pdu).into_bytes()))
    }
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    pdu::unhex(std::str::from_utf8(digits).ok()?.trim()).ok()
}
