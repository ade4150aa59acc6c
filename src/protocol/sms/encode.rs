//! A text becomes SMS-SUBMIT PDUs: as few parts as carry it.

use std::time::Duration;

use super::PduAddress;
use super::charset::{self, ESCAPE, Language, Tables};
use super::pdu::{
    Alphabet, CONCATENATION_8, CONCATENATION_16, LOCKING_SHIFT, SINGLE_SHIFT, relative_validity_octet,
};

/// Octets of user data in one PDU (3GPP TS 23.040, section 9.2.3.16).
const MAX_USER_DATA: usize = 140;

/// The reference that holds the parts of a message together; the next message to the same number needs another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// 8 bits: one more character per part; every phone knows it.
    Narrow(u8),
    /// 16 bits.
    Wide(u16),
}

/// How a text is to be sent.
#[derive(Clone, Debug)]
pub struct SubmitOptions {
    /// Languages whose tables may be used, in the order of preference.
    pub languages: Vec<Language>,
    /// Whether characters that the alphabet does not have may be replaced ([`charset::transliterate()`]). It happens
    /// where the whole text fits the GSM alphabet then and needs no more parts than unchanged.
    pub transliterate: bool,
    /// Most parts that the text may need; at most 255.
    pub max_parts: u8,
    /// Holds the parts together.
    pub reference: Reference,
    /// How long the network tries: 5 minutes to 63 weeks, rounded up to what can be said. `None` leaves it to the
    /// network.
    pub validity: Option<Duration>,
    /// Whether the network is to report the delivery.
    pub report: bool,
    /// Whether the phone shows it at once and keeps nothing (class 0).
    pub flash: bool,
}

impl Default for SubmitOptions {
    fn default() -> Self {
        Self {
            languages: Vec::new(),
            transliterate: false,
            max_parts: 10,
            reference: Reference::Narrow(0),
            validity: None,
            report: false,
            flash: false,
        }
    }
}

/// One PDU for the modem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submit {
    /// With the length of the service centre's address in front: 0, the modem's own.
    pub pdu: Vec<u8>,
    /// Octets without the service centre's address: what `AT+CMGS=` is given (3GPP TS 27.005, section 4.3).
    pub tpdu_length: usize,
    /// Which part it is, from 1.
    pub number: u8,
    /// How many parts there are.
    pub total: u8,
}

/// Why a text is not sent. Nothing has cost anything then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It needs more parts than allowed.
    #[error("the text needs {needed} parts, {limit} are allowed")]
    TooManyParts {
        /// Parts that it needs.
        needed: usize,
        /// The limit.
        limit: u8,
    },
    /// Only numbers can be sent to.
    #[error("not a number that can be sent to")]
    Recipient,
}

/// A text in one of the encodings, cut into parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The alphabet.
    pub alphabet: Alphabet,
    /// The tables, for GSM 7 bit.
    pub tables: Tables,
    /// Whether characters were replaced.
    pub transliterated: bool,
    parts: Vec<Vec<u16>>,
}

impl Plan {
    /// How many parts the text needs.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.parts.len()
    }
}

/// Chooses the encoding: the one with the fewest parts. Among equals GSM 7 bit comes first, then the tables of the
/// allowed languages, then replaced characters, then UTF-16.
#[must_use]
pub fn plan(text: &str, options: &SubmitOptions) -> Plan {
    let mut tables = vec![Tables::DEFAULT];
    for language in options.languages.iter().copied().map(Some) {
        tables.extend(
            [(None, language), (language, None), (language, language)]
                .map(|(locking, single)| Tables { locking, single }),
        );
    }
    let mut best = None;
    let keep = |plan: Plan, best: &mut Option<Plan>| {
        if best.as_ref().is_none_or(|best| plan.parts() < best.parts()) {
            *best = Some(plan);
        }
    };
    let septets = |text: &str, transliterated: bool, best: &mut Option<Plan>| {
        for tables in &tables {
            // One part in the default alphabet cannot be bettered.
            if best.as_ref().is_some_and(|best| best.parts() <= 1) {
                return;
            }
            let Some(septets) = charset::encode_septets(text, *tables) else {
                continue;
            };
            let units = septets.into_iter().map(u16::from).collect();
            keep(
                cut(units, Alphabet::Gsm7, *tables, transliterated, options.reference),
                best,
            );
        }
    };
    septets(text, false, &mut best);
    if options.transliterate && best.as_ref().is_none_or(|best| best.parts() > 1) {
        septets(&charset::transliterate(text), true, &mut best);
    }
    let wide = || {
        let units = text.encode_utf16().collect();
        cut(units, Alphabet::Utf16, Tables::DEFAULT, false, options.reference)
    };
    match best {
        // UTF-16 cannot need fewer parts than one.
        Some(plan) if plan.parts() <= 1 => plan,
        best => {
            let mut best = best;
            keep(wide(), &mut best);
            best.unwrap_or_else(wide)
        }
    }
}

/// The header of a part without its length octet.
fn header(tables: Tables, reference: Reference, part: Option<(u8, u8)>) -> Vec<u8> {
    let mut elements = Vec::new();
    if let Some((number, total)) = part {
        match reference {
            Reference::Narrow(reference) => elements.extend([CONCATENATION_8, 3, reference, total, number]),
            Reference::Wide(reference) => {
                let [high, low] = reference.to_be_bytes();
                elements.extend([CONCATENATION_16, 4, high, low, total, number]);
            }
        }
    }
    if let Some(language) = tables.single {
        elements.extend([SINGLE_SHIFT, 1, language.identifier()]);
    }
    if let Some(language) = tables.locking {
        elements.extend([LOCKING_SHIFT, 1, language.identifier()]);
    }
    elements
}

/// Units that fit into a part with such a header.
fn room(alphabet: Alphabet, header: &[u8]) -> usize {
    let header = if header.is_empty() { 0 } else { header.len() + 1 };
    match alphabet {
        Alphabet::Gsm7 => MAX_USER_DATA * 8 / 7 - (header * 8).div_ceil(7),
        Alphabet::Utf16 | Alphabet::Octets => (MAX_USER_DATA - header) / 2,
    }
}

/// Whether the unit and the next one are one character.
fn goes_on(alphabet: Alphabet, unit: u16) -> bool {
    match alphabet {
        Alphabet::Gsm7 => unit == u16::from(ESCAPE),
        Alphabet::Utf16 | Alphabet::Octets => (0xd800..0xdc00).contains(&unit),
    }
}

fn cut(
    units: Vec<u16>,
    alphabet: Alphabet,
    tables: Tables,
    transliterated: bool,
    reference: Reference,
) -> Plan {
    let mut parts = Vec::new();
    if units.len() <= room(alphabet, &header(tables, reference, None)) {
        parts.push(units);
    } else {
        let room = room(alphabet, &header(tables, reference, Some((1, 1))));
        let mut rest = units.as_slice();
        while !rest.is_empty() {
            let mut length = room.min(rest.len());
            if length < rest.len() && rest.get(length - 1).is_some_and(|unit| goes_on(alphabet, *unit)) {
                length -= 1;
            }
            let (part, after) = rest.split_at(length);
            parts.push(part.to_vec());
            rest = after;
        }
    }
    Plan {
        alphabet,
        tables,
        transliterated,
        parts,
    }
}

const SUBMIT: u8 = 0x01;
const RELATIVE_VALIDITY: u8 = 0x10;
const REPORT: u8 = 0x20;
const HEADER: u8 = 0x40;

/// Makes the PDUs of a text: one, or several that the phone joins.
///
/// No part ends within a character. A text that needs more parts than allowed is refused as a whole.
pub fn encode_submit(
    text: &str,
    to: &PduAddress,
    options: &SubmitOptions,
) -> Result<Vec<Submit>, EncodeError> {
    if !to.is_sendable() {
        return Err(EncodeError::Recipient);
    }
    let plan = plan(text, options);
    let total = u8::try_from(plan.parts())
        .ok()
        .filter(|parts| *parts <= options.max_parts);
    let total = total.ok_or(EncodeError::TooManyParts {
        needed: plan.parts(),
        limit: options.max_parts,
    })?;
    let numbered = (1..=total).zip(&plan.parts);
    let submit = |(number, units): (u8, &Vec<u16>)| {
        let part = (total > 1).then_some((number, total));
        let mut elements = header(plan.tables, options.reference, part);
        let mut pdu = vec![0, SUBMIT, 0];
        if let Some(first) = pdu.get_mut(1) {
            *first |= if options.validity.is_some() {
                RELATIVE_VALIDITY
            } else {
                0
            };
            *first |= if options.report { REPORT } else { 0 };
            *first |= if elements.is_empty() { 0 } else { HEADER };
        }
        to.write(&mut pdu);
        let class = if options.flash { 0x10 } else { 0 };
        let alphabet = if plan.alphabet == Alphabet::Gsm7 { 0 } else { 0x08 };
        pdu.extend([0, class | alphabet]);
        pdu.extend(options.validity.map(relative_validity_octet));
        if !elements.is_empty() {
            elements.insert(0, u8::try_from(elements.len()).unwrap_or(u8::MAX));
        }
        let mut data = elements;
        let length = if plan.alphabet == Alphabet::Gsm7 {
            let septets: Vec<u8> = units.iter().map(|unit| unit.to_le_bytes()[0]).collect();
            charset::pack_after(&mut data, &septets)
        } else {
            data.extend(units.iter().flat_map(|unit| unit.to_be_bytes()));
            data.len()
        };
        pdu.push(u8::try_from(length).unwrap_or(u8::MAX));
        pdu.append(&mut data);
        Submit {
            tpdu_length: pdu.len() - 1,
            pdu,
            number,
            total,
        }
    };
    Ok(numbered.map(submit).collect())
}
