//! Characters that a phone's text may lose without losing its sense.

/// What stands in for a character that the default alphabet does not have; `None` when nothing does.
///
/// | characters | become |
/// |---|---|
/// | typographic quotes, primes, guillemets | `'` and `"` |
/// | dashes, hyphens, minus, bullets | `-` |
/// | ellipsis, no-break and other spaces, invisible joiners | `...`, a space, nothing |
/// | ©, ®, ™, №, ×, ÷, ≤, ≥, ≠, fractions | `(c)`, `(r)`, `TM`, `No`, `x`, `/`, `<=`, `>=`, `!=`, `1/2` |
/// | Latin letters with accents that the alphabet does not have | the letter, `Œ` as `OE` |
/// | Greek capitals that look like Latin ones | those |
const fn substitute(c: char) -> Option<&'static str> {
    Some(match c {
        '‘' | '’' | '‚' | '‛' | '′' | '‹' | '›' | '´' | '`' | 'ʹ' | 'ʼ' => "'",
        '“' | '”' | '„' | '‟' | '″' | '«' | '»' | '〝' | '〞' => "\"",
        '‐' | '‑' | '‒' | '–' | '—' | '―' | '−' | '•' | '·' | '‧' | '▪' | '●' => "-",
        '…' => "...",
        '\t' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => " ",
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{202a}'..='\u{202e}' => "",
        '\u{2028}' | '\u{2029}' | '\u{85}' => "\n",
        '©' => "(c)",
        '®' => "(r)",
        '™' => "TM",
        '№' => "No",
        '×' => "x",
        '÷' | '⁄' | '∕' => "/",
        '≤' => "<=",
        '≥' => ">=",
        '≠' => "!=",
        '¼' => "1/4",
        '½' => "1/2",
        '¾' => "3/4",
        '¹' => "1",
        '²' => "2",
        '³' => "3",
        '¦' => "|",
        'À' | 'Á' | 'Â' | 'Ã' | 'Ā' | 'Ă' | 'Ą' | 'Ǎ' | 'Α' => "A",
        'ª' | 'á' | 'â' | 'ã' | 'ā' | 'ă' | 'ą' | 'ǎ' => "a",
        'Ć' | 'Ĉ' | 'Ċ' | 'Č' => "C",
        '¢' | 'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => "c",
        'Ď' | 'Đ' | 'Ð' => "D",
        'ď' | 'đ' | 'ð' => "d",
        'È' | 'Ê' | 'Ë' | 'Ē' | 'Ĕ' | 'Ė' | 'Ę' | 'Ě' | 'Ε' => "E",
        'ê' | 'ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' => "e",
        'Ĝ' | 'Ğ' | 'Ġ' | 'Ģ' => "G",
        'ĝ' | 'ğ' | 'ġ' | 'ģ' => "g",
        'Ĥ' | 'Ħ' | 'Η' => "H",
        'ĥ' | 'ħ' => "h",
        'Ì' | 'Í' | 'Î' | 'Ï' | 'Ĩ' | 'Ī' | 'Ĭ' | 'Į' | 'İ' | 'Ι' => "I",
        'í' | 'î' | 'ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' => "i",
        'Ĵ' => "J",
        'ĵ' => "j",
        'Ķ' | 'Κ' => "K",
        'ķ' => "k",
        'Ĺ' | 'Ļ' | 'Ľ' | 'Ŀ' | 'Ł' => "L",
        'ĺ' | 'ļ' | 'ľ' | 'ŀ' | 'ł' => "l",
        'Μ' => "M",
        'Ń' | 'Ņ' | 'Ň' | 'Ν' => "N",
        'ń' | 'ņ' | 'ň' => "n",
        'Ò' | 'Ó' | 'Ô' | 'Õ' | 'Ō' | 'Ŏ' | 'Ő' | 'Ο' => "O",
        '°' | 'º' | 'ó' | 'ô' | 'õ' | 'ō' | 'ŏ' | 'ő' => "o",
        'Œ' => "OE",
        'œ' => "oe",
        'Ρ' => "P",
        'Ŕ' | 'Ŗ' | 'Ř' => "R",
        'ŕ' | 'ŗ' | 'ř' => "r",
        'Ś' | 'Ŝ' | 'Ş' | 'Š' | 'Ș' => "S",
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' => "s",
        'Ţ' | 'Ť' | 'Ŧ' | 'Ț' | 'Τ' => "T",
        'ţ' | 'ť' | 'ŧ' | 'ț' => "t",
        'Þ' => "Th",
        'þ' => "th",
        'Ù' | 'Ú' | 'Û' | 'Ũ' | 'Ū' | 'Ŭ' | 'Ů' | 'Ű' | 'Ų' => "U",
        'ú' | 'û' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' => "u",
        'Ŵ' => "W",
        'ŵ' => "w",
        'Χ' => "X",
        'Ý' | 'Ŷ' | 'Ÿ' | 'Υ' => "Y",
        'ý' | 'ŷ' | 'ÿ' => "y",
        'Ź' | 'Ż' | 'Ž' | 'Ζ' => "Z",
        'ź' | 'ż' | 'ž' => "z",
        'Β' => "B",
        'ẞ' => "SS",
        _ => return None,
    })
}

/// The text with substitutes for what the default alphabet with its extension table does not have. Characters
/// without a substitute stay, and with one of them the text does not fit the alphabet still.
#[must_use]
pub fn transliterate(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        if super::septets_of(c, super::Tables::DEFAULT).is_some() {
            result.push(c);
            continue;
        }
        match substitute(c) {
            Some(substitute) => result.push_str(substitute),
            None => result.push(c),
        }
    }
    result
}
