//! The GSM 7-bit alphabet (3GPP TS 23.038, 6.2.1) and the shift tables that the simulated phones can read.

/// Leads to the extension table.
const ESCAPE: u8 = 0x1b;

const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\u{1b}ÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZ\
ÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";

const EXTENSION: [(u8, char); 10] = [
    (0x0a, '\u{c}'),
    (0x14, '^'),
    (0x28, '{'),
    (0x29, '}'),
    (0x2f, '\\'),
    (0x3c, '['),
    (0x3d, '~'),
    (0x3e, ']'),
    (0x40, '|'),
    (0x65, '€'),
];

/// 3GPP TS 23.038, A.2.1: what Turkish has beside the extension table.
const TURKISH_SINGLE: [(u8, char); 7] = [
    (0x47, 'Ğ'),
    (0x49, 'İ'),
    (0x53, 'Ş'),
    (0x63, 'ç'),
    (0x67, 'ğ'),
    (0x69, 'ı'),
    (0x73, 'ş'),
];

/// A.2.2.
const SPANISH_SINGLE: [(u8, char); 9] = [
    (0x09, 'ç'),
    (0x41, 'Á'),
    (0x49, 'Í'),
    (0x4f, 'Ó'),
    (0x55, 'Ú'),
    (0x61, 'á'),
    (0x69, 'í'),
    (0x6f, 'ó'),
    (0x75, 'ú'),
];

/// A.3.1: where Turkish differs from the basic alphabet.
const TURKISH_LOCKING: [(u8, char); 8] = [
    (0x04, '€'),
    (0x07, 'ı'),
    (0x0b, 'Ğ'),
    (0x0c, 'ğ'),
    (0x1c, 'Ş'),
    (0x1d, 'ş'),
    (0x40, 'İ'),
    (0x60, 'ç'),
];

/// Shift tables that a header names, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) locking: u8,
    pub(crate) single: u8,
}

/// The septets of a text, if the alphabet has all of its characters.
pub(crate) fn encode(text: &str) -> Option<Vec<u8>> {
    let mut septets = Vec::with_capacity(text.len());
    for character in text.chars() {
        if let Some(place) = BASIC
            .chars()
            .position(|known| known == character && known != '\u{1b}')
        {
            septets.push(u8::try_from(place).ok()?);
        } else {
            let (septet, _) = EXTENSION.iter().find(|(_, known)| *known == character)?;
            septets.extend([ESCAPE, *septet]);
        }
    }
    Some(septets)
}

/// The text of septets; `None` if a table is named that is not known here.
pub(crate) fn decode(septets: &[u8], tables: Tables) -> Option<String> {
    let single: &[(u8, char)] = match tables.single {
        0 => &[],
        1 => &TURKISH_SINGLE,
        2 => &SPANISH_SINGLE,
        _ => return None,
    };
    let locking: &[(u8, char)] = match tables.locking {
        0 => &[],
        1 => &TURKISH_LOCKING,
        _ => return None,
    };
    let find = |table: &[(u8, char)], septet: u8| {
        table
            .iter()
            .find(|(known, _)| *known == septet)
            .map(|(_, character)| *character)
    };
    let basic = |septet: u8| find(locking, septet).or_else(|| BASIC.chars().nth(usize::from(septet)));
    let mut text = String::with_capacity(septets.len());
    let mut rest = septets.iter().copied();
    while let Some(septet) = rest.next() {
        if septet != ESCAPE {
            text.extend(basic(septet));
            continue;
        }
        match rest.next() {
            // 6.2.1.1: an extension that does not exist is shown as the character of the basic table.
            Some(next) => text.extend(
                find(single, next)
                    .or_else(|| find(&EXTENSION, next))
                    .or_else(|| basic(next)),
            ),
            None => text.push(' '),
        }
    }
    Some(text)
}

/// Packs septets into octets, the first one after `fill` empty bits (0 to 6).
pub(crate) fn pack(septets: &[u8], fill: usize) -> Vec<u8> {
    let mut octets = Vec::with_capacity(septets.len());
    let (mut held, mut bits) = (0u32, fill);
    for septet in septets {
        held |= u32::from(septet & 0x7f) << bits;
        bits += 7;
        while bits >= 8 {
            let [low, ..] = held.to_le_bytes();
            octets.push(low);
            held >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        let [low, ..] = held.to_le_bytes();
        octets.push(low);
    }
    octets
}

/// Unpacks `count` septets that begin after `fill` bits; fewer if the octets end before.
pub(crate) fn unpack(octets: &[u8], count: usize, fill: usize) -> Vec<u8> {
    let mut septets = Vec::with_capacity(count);
    let (mut held, mut bits) = (0u32, 0usize);
    let mut skip = fill;
    for octet in octets {
        held |= u32::from(*octet) << bits;
        bits += 8;
        if skip > 0 {
            held >>= skip;
            bits -= skip;
            skip = 0;
        }
        while bits >= 7 && septets.len() < count {
            let [low, ..] = held.to_le_bytes();
            septets.push(low & 0x7f);
            held >>= 7;
            bits -= 7;
        }
    }
    septets
}

/// Bits between a header of this many octets (its length octet included) and the first septet.
pub(crate) fn fill_bits(header: usize) -> usize {
    (7 - header * 8 % 7) % 7
}
