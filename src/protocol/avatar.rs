//! Pictures of people who have none: initials on a colour, or a figure for a number.
//!
//! A link carries everything that the picture is made of, and an HMAC over it: nothing is looked up or stored, another
//! name is another link, and this gateway draws nothing that it has not named itself. SVG, because a name may be in any
//! script and the fonts for it are where it is looked at.

use data_encoding::BASE64URL_NOPAD;
use ring::digest::{SHA256, digest};
use ring::hmac;
use subtle::ConstantTimeEq;

/// MIME type of [`Avatar::svg`].
pub const MIME: &str = "image/svg+xml";

const TAG_LEN: usize = 10;
/// Longest initials, in bytes.
const MAX_INITIALS: usize = 32;
/// Longest signed part of a link, in characters.
const MAX_LINK: usize = 60;
/// Most marks that are kept on a letter.
const MAX_MARKS: usize = 2;
/// Keeps these tags apart from those of links to files.
const PURPOSE: &[u8] = b"pipepost avatar\0";

/// White letters are readable on each of them (WCAG 2.1, contrast of 4.5).
const COLOURS: [&str; 12] = [
    "#2f6f9f", "#7a5aa6", "#a8553c", "#2f7a53", "#85651b", "#9b4069", "#3f63b5", "#a1453f", "#4a6f2a",
    "#167474", "#7d4fa0", "#66615a",
];

/// A picture of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avatar {
    /// Index of a colour.
    colour: u8,
    /// Empty: a figure.
    initials: String,
}

impl Avatar {
    /// The picture of somebody with this name; the colour comes from the address, and stays when the name changes.
    #[must_use]
    pub fn of(name: &str, address: &str) -> Self {
        let first = digest(&SHA256, address.as_bytes())
            .as_ref()
            .first()
            .copied()
            .unwrap_or(0);
        let colours = u8::try_from(COLOURS.len()).unwrap_or(u8::MAX);
        Self {
            colour: first % colours,
            initials: initials(name),
        }
    }

    /// The picture.
    #[must_use]
    pub fn svg(&self) -> String {
        let colour = COLOURS.get(usize::from(self.colour)).unwrap_or(&COLOURS[0]);
        let inside = if self.initials.is_empty() {
            "<g fill=\"#fff\"><circle cx=\"32\" cy=\"25\" r=\"11\"/><path d=\"M11 56c0-12 9-19 21-19s21 7 21 19z\"/></g>"
                .to_owned()
        } else {
            let text = self.initials.replace('&', "&amp;").replace('<', "&lt;");
            format!(
                "<text x=\"32\" y=\"32\" dy=\".35em\" text-anchor=\"middle\" font-family=\"sans-serif\" font-size=\"26\" \
                 fill=\"#fff\">{text}</text>"
            )
        };
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 64 64\" width=\"128\" height=\"128\">\
             <rect width=\"64\" height=\"64\" fill=\"{colour}\"/>{inside}</svg>"
        )
    }

    /// The signed part of its link: base64url of the colour (1 byte) ‖ the initials ‖ HMAC-SHA256 over both, cut to
    /// 10 bytes.
    #[must_use]
    pub fn sign(&self, secret: &[u8; 32]) -> String {
        let mut bytes = vec![self.colour];
        bytes.extend_from_slice(self.initials.as_bytes());
        let tag = tag(secret, &bytes);
        bytes.extend_from_slice(tag.as_ref().get(..TAG_LEN).unwrap_or_default());
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// The picture that a link means; `None` when this gateway did not make the link.
    #[must_use]
    pub fn verify(secret: &[u8; 32], text: &str) -> Option<Self> {
        if text.len() > MAX_LINK {
            return None;
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (content, given) = bytes.split_last_chunk::<TAG_LEN>()?;
        let expected = tag(secret, content);
        if !bool::from(expected.as_ref().get(..TAG_LEN)?.ct_eq(given)) {
            return None;
        }
        let (colour, initials) = content.split_first()?;
        Some(Self {
            colour: *colour,
            initials: std::str::from_utf8(initials).ok()?.to_owned(),
        })
    }

    /// The whole link. `public_url` has no trailing slash.
    #[must_use]
    pub fn url(&self, public_url: &str, secret: &[u8; 32]) -> String {
        format!("{public_url}/avatar/{}", self.sign(secret))
    }
}

fn tag(secret: &[u8; 32], bytes: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    context.update(PURPOSE);
    context.update(bytes);
    context.sign()
}

/// The first letters of the first and the last word that have one; nothing for a number.
fn initials(name: &str) -> String {
    let mut letters = name.split_whitespace().filter_map(first_letter);
    let first = letters.next().unwrap_or_default();
    let both = format!("{first}{}", letters.next_back().unwrap_or_default());
    if both.len() <= MAX_INITIALS { both } else { first }
}

/// A letter with the marks on it, in upper case where that is one letter too.
fn first_letter(word: &str) -> Option<String> {
    let mut rest = word.chars().skip_while(|c| !c.is_alphabetic());
    let first = rest.next()?;
    let mut upper = first.to_uppercase();
    let mut letter = match (upper.next(), upper.next()) {
        (Some(upper), None) => upper.to_string(),
        _ => first.to_string(),
    };
    letter.extend(rest.take_while(|c| is_mark(*c)).take(MAX_MARKS));
    Some(letter)
}

/// What stands on the letter before it: the blocks of combining marks, and the vowel signs and viramas of the scripts
/// of India and its neighbours.
fn is_mark(c: char) -> bool {
    let indic = matches!(c, '\u{900}'..='\u{dff}') && {
        let place = u32::from(c) & 0x7f;
        place <= 0x03 || ((0x3c..=0x4d).contains(&place) && place != 0x3d)
    };
    indic
        || matches!(c, '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5bd}' | '\u{64b}'..='\u{65f}'
            | '\u{e31}' | '\u{e34}'..='\u{e3a}' | '\u{e47}'..='\u{e4e}' | '\u{1ab0}'..='\u{1aff}'
            | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: [u8; 32] = [7; 32];

    #[test]
    fn initials_are_the_first_letters_of_the_first_and_the_last_word() {
        for (name, expected) in [
            ("Ann Smith", "AS"),
            ("ann m. o'neil (work)", "AW"),
            ("Zoë", "Z"),
            ("émile Zola", "ÉZ"),
            ("e\u{301}mile", "E\u{301}"),
            ("王小明", "王"),
            ("ßeta", "ß"),
            ("किरण बेदी", "किबे"),
            ("3 Pumps", "P"),
            ("+44 7700 900142", ""),
            ("🙂", ""),
            ("", ""),
            ("<b> &x", "BX"),
        ] {
            assert_eq!(initials(name), expected, "{name}");
        }
    }

    #[test]
    fn a_number_is_a_figure_and_a_name_is_letters() {
        assert!(
            Avatar::of("+44 7700 900142", "+447700900142")
                .svg()
                .contains("<circle")
        );
        let svg = Avatar::of("Ann Smith", "+447700900142").svg();
        assert!(svg.contains(">AS</text>") && !svg.contains("<circle"), "{svg}");
    }

    #[test]
    fn the_colour_stays_when_the_name_changes_and_differs_between_people() {
        let colour = |name: &str, address: &str| Avatar::of(name, address).colour;
        assert_eq!(
            colour("Ann", "+447700900142"),
            colour("Ann Smith", "+447700900142")
        );
        let mut used: Vec<u8> = (0..200).map(|n| colour("Ann", &n.to_string())).collect();
        used.sort_unstable();
        used.dedup();
        assert_eq!(used.len(), COLOURS.len());
    }

    #[test]
    fn white_letters_are_readable_on_every_colour() {
        let channel = |text: &str| {
            let value = f64::from(u8::from_str_radix(text, 16).unwrap()) / 255.0;
            if value <= 0.039_28 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        for colour in COLOURS {
            let luminance = 0.2126 * channel(&colour[1..3])
                + 0.7152 * channel(&colour[3..5])
                + 0.0722 * channel(&colour[5..7]);
            let contrast = 1.05 / (luminance + 0.05);
            assert!(contrast >= 4.5, "{colour}: {contrast}");
        }
    }

    #[test]
    fn a_link_of_another_gateway_or_for_a_file_opens_nothing() {
        let link = Avatar::of("Ann", "1").sign(&SECRET);
        assert_eq!(Avatar::verify(&[8; 32], &link), None);
        let file = crate::protocol::media::sign(
            &SECRET,
            crate::domain::AttachmentId(1),
            crate::domain::Timestamp::from_unix_ms(1),
        );
        assert_eq!(Avatar::verify(&SECRET, &file), None);
    }

    proptest! {
        #[test]
        fn any_name_makes_a_harmless_picture_behind_a_short_link(name in ".{0,60}", address in ".{0,20}") {
            let avatar = Avatar::of(&name, &address);
            let link = avatar.sign(&SECRET);
            prop_assert!(link.len() <= MAX_LINK);
            prop_assert_eq!(Avatar::verify(&SECRET, &link), Some(avatar.clone()));
            let svg = avatar.svg();
            let tags = svg.matches('<').count();
            prop_assert_eq!(tags, if avatar.initials.is_empty() { 7 } else { 5 }, "{}", &svg);
            prop_assert!(!svg.contains("script") && !svg.contains("href"));
        }

        #[test]
        fn any_changed_character_closes_the_link(at in 0_usize..16, to in "[A-Za-z0-9_-]") {
            let link = Avatar::of("Ann Smith", "1").sign(&SECRET);
            let mut changed = link.clone();
            changed.replace_range(at..=at, &to);
            if changed != link {
                prop_assert_eq!(Avatar::verify(&SECRET, &changed), None);
            }
        }

        #[test]
        fn no_text_makes_verify_panic(text in ".{0,80}") {
            prop_assert_eq!(Avatar::verify(&SECRET, &text), None);
        }
    }
}
