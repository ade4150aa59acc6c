//! Alphabets of short messages: 3GPP TS 23.038.

mod septets;
mod tables;
mod transliterate;

use tables::{locking, single};

pub use septets::{pack_after, packed_len, unpack};
pub use transliterate::transliterate;

/// The septet that announces a character of the single shift table.
pub(super) const ESCAPE: u8 = 0x1b;

/// A language with tables of its own: section 6.2.1.2.4, with its identifier there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Language {
    /// 1
    Turkish = 1,
    /// 2; it has a single shift table only
    Spanish = 2,
    /// 3
    Portuguese = 3,
    /// 4, also Assamese
    Bengali = 4,
    /// 5
    Gujarati = 5,
    /// 6
    Hindi = 6,
    /// 7
    Kannada = 7,
    /// 8
    Malayalam = 8,
    /// 9
    Oriya = 9,
    /// 10
    Punjabi = 10,
    /// 11
    Tamil = 11,
    /// 12
    Telugu = 12,
    /// 13
    Urdu = 13,
}

impl Language {
    /// All of them, by identifier.
    pub const ALL: [Self; 13] = [
        Self::Turkish,
        Self::Spanish,
        Self::Portuguese,
        Self::Bengali,
        Self::Gujarati,
        Self::Hindi,
        Self::Kannada,
        Self::Malayalam,
        Self::Oriya,
        Self::Punjabi,
        Self::Tamil,
        Self::Telugu,
        Self::Urdu,
    ];

    /// The National Language Identifier.
    #[must_use]
    pub const fn identifier(self) -> u8 {
        self as u8
    }

    /// The language of an identifier. Of a reserved one nothing is known, and the default tables stay (6.2.1.2.4).
    #[must_use]
    pub fn from_identifier(identifier: u8) -> Option<Self> {
        let place = usize::from(identifier).checked_sub(1)?;
        Self::ALL.get(place).copied()
    }

    /// The English name, in lower case, as in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Turkish => "turkish",
            Self::Spanish => "spanish",
            Self::Portuguese => "portuguese",
            Self::Bengali => "bengali",
            Self::Gujarati => "gujarati",
            Self::Hindi => "hindi",
            Self::Kannada => "kannada",
            Self::Malayalam => "malayalam",
            Self::Oriya => "oriya",
            Self::Punjabi => "punjabi",
            Self::Tamil => "tamil",
            Self::Telugu => "telugu",
            Self::Urdu => "urdu",
        }
    }

    /// The language that is called so; upper and lower case are one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|language| language.name().eq_ignore_ascii_case(name))
    }
}

/// The tables that a part's septets are read with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tables {
    /// In place of the default alphabet.
    pub locking: Option<Language>,
    /// In place of the default extension table.
    pub single: Option<Language>,
}

impl Tables {
    /// The default alphabet with its extension table.
    pub const DEFAULT: Self = Self {
        locking: None,
        single: None,
    };
}

/// What stands for a septet without a character.
const UNDEFINED: char = char::REPLACEMENT_CHARACTER;

fn character(unit: u16) -> Option<char> {
    (unit != 0).then(|| char::from_u32(u32::from(unit)).unwrap_or(UNDEFINED))
}

/// Reads septets one after another; an escape at the end of one part waits for the next.
#[derive(Debug, Default)]
pub(super) struct SeptetReader {
    escaped: bool,
}

impl SeptetReader {
    /// Appends what `septets` say to `out`.
    pub(super) fn read(&mut self, septets: &[u8], tables: Tables, out: &mut String) {
        let main = locking(tables.locking);
        let extension = single(tables.single);
        let at = |table: &[u16; 128], septet: u8| table.get(usize::from(septet & 0x7f)).copied().unwrap_or(0);
        for septet in septets {
            if std::mem::take(&mut self.escaped) {
                if *septet == ESCAPE {
                    // A table beyond the extension table does not exist: section 6.2.1.1, a space.
                    out.push(' ');
                } else {
                    let shown = character(at(extension, *septet)).or_else(|| character(at(main, *septet)));
                    out.push(shown.unwrap_or(UNDEFINED));
                }
            } else if *septet == ESCAPE {
                self.escaped = true;
            } else {
                out.push(character(at(main, *septet)).unwrap_or(UNDEFINED));
            }
        }
    }

    /// Forgets a waiting escape: what follows belongs to another message, or a part is missing.
    pub(super) fn reset(&mut self) {
        self.escaped = false;
    }
}

/// The text of septets, one per octet.
///
/// A character that the extension table does not have is shown as the main table has it (6.2.1.1); an escape at
/// the end says nothing.
#[must_use]
pub fn decode_septets(septets: &[u8], tables: Tables) -> String {
    let mut text = String::with_capacity(septets.len());
    SeptetReader::default().read(septets, tables, &mut text);
    text
}

/// How a character is written: one septet, or an escape and one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Septets {
    One(u8),
    Escaped(u8),
}

fn position(table: &[u16; 128], unit: u16) -> Option<u8> {
    // Most of the default alphabet stands where ASCII has it.
    if let Ok(same) = u8::try_from(unit)
        && table.get(usize::from(same)) == Some(&unit)
    {
        return Some(same);
    }
    let place = table.iter().position(|entry| *entry == unit)?;
    u8::try_from(place).ok()
}

/// The septets of a character, if the tables have it.
pub(super) fn septets_of(c: char, tables: Tables) -> Option<Septets> {
    let unit = u16::try_from(u32::from(c)).ok().filter(|unit| *unit != 0)?;
    if let Some(septet) = position(locking(tables.locking), unit) {
        return Some(Septets::One(septet));
    }
    position(single(tables.single), unit).map(Septets::Escaped)
}

/// The text as septets, one per octet; `None` when a character is in neither table.
#[must_use]
pub fn encode_septets(text: &str, tables: Tables) -> Option<Vec<u8>> {
    let mut septets = Vec::with_capacity(text.len());
    for c in text.chars() {
        match septets_of(c, tables)? {
            Septets::One(septet) => septets.push(septet),
            Septets::Escaped(septet) => septets.extend([ESCAPE, septet]),
        }
    }
    Some(septets)
}
