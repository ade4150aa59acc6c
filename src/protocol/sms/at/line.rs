//! What a line says.

use super::error::ModemError;
use super::state::{Memory, Registered};

/// Most fields of a line that are looked at.
const MOST_FIELDS: usize = 32;

/// A line that carries a PDU in the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: HeaderKind,
    /// Octets of the TPDU, as the modem counts them.
    pub(super) length: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HeaderKind {
    /// `+CMT:` a message that the modem does not keep.
    Message,
    /// `+CDS:` a status report that the modem does not keep.
    Report,
    /// `+CMGR:` the answer to a read.
    Read { incoming: bool },
    /// `+CMGL:` one entry of a list.
    Listed { index: u16, incoming: bool },
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Ok,
    Error(ModemError),
    /// The modem has started anew.
    Started,
    /// A part of a starting modem has become ready.
    PartReady,
    /// The SIM was pulled out, or pushed in.
    SimChanged,
    /// `+CMTI:`, `+CDSI:` something new lies in the memory.
    Stored {
        memory: Memory,
        index: u16,
    },
    Header(Header),
    /// A header in text mode: the modem has forgotten its settings.
    TextMode,
    /// `+CREG:`, `+CGREG:`, `+CEREG:`, as an answer and unsolicited.
    Registration {
        lte: bool,
        registered: Registered,
    },
    /// `+CSQ:` 0 to 31.
    Signal(u8),
    StorageFull,
    /// `+CMGS: reference`
    Reference(u8),
    /// `+CUSD: state,"text",dcs`; the text may go on in the next lines.
    Ussd(String),
    /// Any other line with a name: `+CPIN: READY`.
    Named {
        name: String,
        rest: String,
    },
    /// Anything else.
    Text(String),
}

/// One field of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) text: String,
    pub(super) quoted: bool,
}

/// Splits `2,"SM",(0-3)` at its commas; commas in quotes and brackets do not separate.
pub(super) fn fields(text: &str) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut field = Field {
        text: String::new(),
        quoted: false,
    };
    let (mut in_quotes, mut depth) = (false, 0_u32);
    for c in text.chars() {
        match c {
            '"' => {
                in_quotes = !in_quotes;
                field.quoted = true;
                if depth > 0 {
                    field.text.push(c);
                }
                continue;
            }
            '(' if !in_quotes => depth += 1,
            ')' if !in_quotes => depth = depth.saturating_sub(1),
            ',' if !in_quotes && depth == 0 => {
                let next = Field {
                    text: String::new(),
                    quoted: false,
                };
                fields.push(std::mem::replace(&mut field, next));
                if fields.len() >= MOST_FIELDS {
                    return fields;
                }
                continue;
            }
            _ => {}
        }
        field.text.push(c);
    }
    fields.push(field);
    for field in &mut fields {
        if !field.quoted {
            field.text = field.text.trim().to_owned();
        }
    }
    fields
}

fn number<T: std::str::FromStr>(fields: &[Field], index: usize) -> Option<T> {
    fields.get(index)?.text.trim().parse().ok()
}

/// Reads a line. Never fails: what is not known is [`Line::Text`].
pub(super) fn read(line: &str) -> Line {
    if let Some(known) = whole(line) {
        return known;
    }
    let Some((name, rest)) = line.split_once(':') else {
        return Line::Text(line.to_owned());
    };
    let rest = rest.trim_start();
    let named = || Line::Named {
        name: name.to_owned(),
        rest: rest.to_owned(),
    };
    match name {
        "+CMS ERROR" => Line::Error(rest.parse().map_or_else(|_| in_words(rest), ModemError::Cms)),
        "+CME ERROR" => Line::Error(rest.parse().map_or_else(|_| in_words(rest), ModemError::Cme)),
        "+CMTI" | "+CDSI" => {
            let fields = fields(rest);
            match (
                fields.first().map(|field| Memory::new(&field.text)),
                number(&fields, 1),
            ) {
                (Some(Some(memory)), Some(index)) => Line::Stored { memory, index },
                _ => named(),
            }
        }
        "+CMT" => {
            let length = fields(rest).last().and_then(|field| field.text.parse().ok());
            Line::Header(Header {
                kind: HeaderKind::Message,
                length,
            })
        }
        "+CDS" => {
            let length = fields(rest).last().and_then(|field| field.text.parse().ok());
            Line::Header(Header {
                kind: HeaderKind::Report,
                length,
            })
        }
        "+CMGR" => {
            let fields = fields(rest);
            match number::<u8>(&fields, 0) {
                Some(state) => {
                    let length = fields.last().and_then(|field| field.text.parse().ok());
                    Line::Header(Header {
                        kind: HeaderKind::Read { incoming: state <= 1 },
                        length,
                    })
                }
                None => Line::TextMode,
            }
        }
        "+CMGL" => {
            let fields = fields(rest);
            match (number(&fields, 0), number::<u8>(&fields, 1)) {
                (Some(index), Some(state)) => {
                    let length = fields.last().and_then(|field| field.text.parse().ok());
                    Line::Header(Header {
                        kind: HeaderKind::Listed {
                            index,
                            incoming: state <= 1,
                        },
                        length,
                    })
                }
                _ => Line::TextMode,
            }
        }
        "+CMGS" => {
            // Some modems count further than 8 bits; the message carries the lower ones.
            let reference: Option<u32> = number(&fields(rest), 0);
            reference.map_or_else(named, |reference| {
                Line::Reference(u8::try_from(reference & 0xff).unwrap_or_default())
            })
        }
        "+CREG" | "+CGREG" | "+CEREG" => match registration(&fields(rest)) {
            Some(registered) => Line::Registration {
                lte: name == "+CEREG",
                registered,
            },
            None => named(),
        },
        "+CSQ" | "^RSSI" => number(&fields(rest), 0).map_or_else(named, Line::Signal),
        "^SMMEMFULL" => Line::StorageFull,
        "+CIEV" => {
            let fields = fields(rest);
            let name = fields.first().map(|field| field.text.to_ascii_lowercase());
            let full = name.is_some_and(|name| name.contains("smsfull")) && number(&fields, 1) == Some(1_u8);
            if full { Line::StorageFull } else { named() }
        }
        "+CUSD" => Line::Ussd(rest.to_owned()),
        "+QIND" if rest.contains("SMS DONE") => Line::PartReady,
        "^SYSSTART" | "^BOOT" => Line::Started,
        "^SIMST" => Line::SimChanged,
        "+CPIN"
            if rest.contains("REMOVED") || rest.contains("NOT READY") || rest.contains("NOT INSERTED") =>
        {
            Line::SimChanged
        }
        _ => named(),
    }
}

/// Lines that are known as a whole.
fn whole(line: &str) -> Option<Line> {
    Some(match line {
        "OK" => Line::Ok,
        // Huawei writes the latter two, Quectel in places the first.
        "ERROR" | "COMMAND NOT SUPPORT" | "TOO MANY PARAMETERS" => Line::Error(ModemError::Plain),
        "RDY" | "^SYSSTART" | "NORMAL POWER DOWN" | "POWERED DOWN" => Line::Started,
        "SMS Ready" | "SMS READY" | "SMS DONE" | "Call Ready" | "PB DONE" => Line::PartReady,
        "^SMMEMFULL" | "+SMSFULL" => Line::StorageFull,
        _ => return None,
    })
}

/// Errors of a modem that does not know `+CMEE=1` yet, or forgot it.
fn in_words(text: &str) -> ModemError {
    let text = text.to_ascii_lowercase();
    let known = [
        ("sim not inserted", 10),
        ("sim pin required", 11),
        ("sim puk required", 12),
        ("sim failure", 13),
        ("sim busy", 14),
        ("sim wrong", 15),
        ("incorrect password", 16),
        ("memory full", 20),
        ("no network service", 30),
    ];
    known
        .iter()
        .find(|(words, _)| text.contains(words))
        .map_or(ModemError::Plain, |(_, code)| ModemError::Cme(*code))
}

/// `n,stat,…` is an answer, `stat,…` unsolicited: only in an answer the second field is a bare small number.
fn registration(fields: &[Field]) -> Option<Registered> {
    let small = |index: usize| {
        let field = fields.get(index)?;
        (!field.quoted && field.text.len() <= 2).then(|| field.text.parse::<u8>().ok())?
    };
    let answered = fields.len() == 2
        || fields
            .get(2)
            .is_some_and(|field| field.quoted || field.text.len() > 2);
    let state = match small(1) {
        Some(state) if answered => state,
        _ => small(0)?,
    };
    Some(Registered::from_code(state))
}

/// Hexadecimal digits as octets; `None` when it is anything else.
pub(super) fn octets(line: &str) -> Option<Vec<u8>> {
    if line.is_empty() || !line.len().is_multiple_of(2) {
        return None;
    }
    data_encoding::HEXUPPER_PERMISSIVE.decode(line.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registration_is_read_from_answers_and_unsolicited_lines_alike() {
        for (line, expected) in [
            ("+CREG: 2,1,\"00C3\",\"0F12\",7", Registered::Home),
            ("+CREG: 2,5", Registered::Roaming),
            ("+CREG: 5,\"00C3\",\"0F12\",7", Registered::Roaming),
            ("+CREG: 1", Registered::Home),
            ("+CREG: 0,1,00C3,0F12", Registered::Home),
            ("+CREG: 1,00C3,0F12", Registered::Home),
            ("+CREG: 2", Registered::Searching),
            ("+CREG: 2,3", Registered::Denied),
        ] {
            assert_eq!(
                read(line),
                Line::Registration {
                    lte: false,
                    registered: expected
                },
                "{line}"
            );
        }
    }

    #[test]
    fn vendors_add_fields_to_a_new_message_and_start_counting_at_zero() {
        let sm = Memory::new("SM").unwrap();
        for (line, index) in [("+CMTI: \"SM\",0", 0), ("+CMTI: \"SM\",1,\"MMS PUSH\",2,1", 1)] {
            assert_eq!(read(line), Line::Stored { memory: sm, index });
        }
    }

    #[test]
    fn commas_in_quotes_and_brackets_do_not_separate() {
        let texts: Vec<String> = fields("(\"ME\",\"SM\"),0,\"a,b\"")
            .into_iter()
            .map(|field| field.text)
            .collect();
        assert_eq!(texts, ["(\"ME\",\"SM\")", "0", "a,b"]);
    }

    #[test]
    fn an_error_in_words_has_its_code() {
        assert_eq!(
            read("+CME ERROR: SIM PIN required"),
            Line::Error(ModemError::Cme(11))
        );
        assert_eq!(read("+CMS ERROR: 331"), Line::Error(ModemError::Cms(331)));
    }
}
