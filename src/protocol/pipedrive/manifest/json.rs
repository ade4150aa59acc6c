//! Text of JSON, written straight into the answer.
//!
//! A page of messages is some hundred short pieces, most of them known beforehand or made of characters that need no
//! escaping. The program is compiled for size, and then a serialiser's many small steps cost more than reading the page
//! from the store; so pages are written by hand, and what is rare by serde.

use serde::Serialize;

/// A text that grows.
pub(super) struct Json(Vec<u8>);

/// Each of the eight bytes of a number.
const fn all(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

impl Json {
    /// An empty text with room for so many bytes.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds what is JSON already.
    pub(super) fn raw(&mut self, json: &str) {
        self.0.extend_from_slice(json.as_bytes());
    }

    /// Adds a string without characters that need escaping, such as an id.
    pub(super) fn plain(&mut self, text: &str) {
        self.raw("\"");
        self.raw(text);
        self.raw("\"");
    }

    /// Adds any string.
    pub(super) fn string(&mut self, text: &str) {
        self.raw("\"");
        let mut rest = text.as_bytes();
        while let Some((before, byte, behind)) = first_special(rest) {
            self.0.extend_from_slice(before);
            self.escape(byte);
            rest = behind;
        }
        self.0.extend_from_slice(rest);
        self.raw("\"");
    }

    fn escape(&mut self, byte: u8) {
        match byte {
            b'"' => self.raw("\\\""),
            b'\\' => self.raw("\\\\"),
            0x08 => self.raw("\\b"),
            0x0c => self.raw("\\f"),
            b'\n' => self.raw("\\n"),
            b'\r' => self.raw("\\r"),
            b'\t' => self.raw("\\t"),
            _ => self.raw(&format!("\\u{byte:04x}")),
        }
    }

    /// Adds anything.
    pub(super) fn value<T: Serialize>(&mut self, value: &T) {
        let before = self.0.len();
        // Only a map with keys that are no strings could fail, and there is none.
        if serde_json::to_writer(&mut self.0, value).is_err() {
            self.0.truncate(before);
            self.raw("null");
        }
    }

    /// The text.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// What is before the first byte that needs escaping, that byte, and what is behind it.
fn first_special(text: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let (words, _) = text.as_chunks::<8>();
    let plain = words.iter().take_while(|word| !is_special(**word)).count();
    let from = plain * 8;
    let found = text
        .get(from..)?
        .iter()
        .position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))?;
    let (before, rest) = text.split_at_checked(from + found)?;
    let (byte, behind) = rest.split_first()?;
    Some((before, *byte, behind))
}

/// Whether one of eight bytes is a quotation mark, a backslash or a control character: all at once, since nearly none
/// is. (A byte is below `n` exactly when subtracting sets its highest bit and it had not been set; a borrow from the byte
/// before can only follow a byte that is below already.)
const fn is_special(word: [u8; 8]) -> bool {
    let word = u64::from_ne_bytes(word);
    let quote = word ^ all(b'"');
    let backslash = word ^ all(b'\\');
    let below = (word.wrapping_sub(all(0x20)) & !word)
        | (quote.wrapping_sub(all(1)) & !quote)
        | (backslash.wrapping_sub(all(1)) & !backslash);
    below & all(0x80) != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(text: &str) -> String {
        let mut json = Json::with_capacity(0);
        json.string(text);
        String::from_utf8(json.into_bytes()).unwrap()
    }

    proptest! {
        #[test]
        fn a_text_is_written_as_serde_writes_it(text in "(\\PC{0,12}[\\x00-\\x7f]{0,3}){0,6}") {
            prop_assert_eq!(written(&text), serde_json::to_string(&text).unwrap());
        }
    }

    #[test]
    fn every_character_is_written_as_serde_writes_it_at_each_place_of_a_word() {
        for character in (0..=0x100).filter_map(char::from_u32) {
            for place in 0..17 {
                let text = format!(
                    "{}{character}{}",
                    "é".repeat(place / 2) + &"x".repeat(place % 2),
                    "y".repeat(9)
                );
                assert_eq!(written(&text), serde_json::to_string(&text).unwrap());
            }
        }
    }
}
