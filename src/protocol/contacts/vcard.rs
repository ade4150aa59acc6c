//! vCards: 4.0 (RFC 6350), 3.0 (RFC 2426), and 2.1 with its quoted-printable lines.

use std::collections::VecDeque;

use super::{Item, MAX_NUMBERS, Skip, is_line_end, item, text_of};

/// Most bytes of a line, unfolded, that are kept: photos are longer, and nobody looks at them.
const MAX_LINE: usize = 8 * 1024;

/// Reads cards line by line.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The line in progress as it is in the file.
    physical: Vec<u8>,
    /// The lines before it that belong together.
    logical: Vec<u8>,
    /// Number of lines that have ended.
    lines: u64,
    /// The last byte was a carriage return.
    after_return: bool,
    card: Option<Card>,
    /// Cards inside of a card (an `AGENT` of vCard 2.1), which are passed over.
    inner: usize,
}

#[derive(Debug, Default)]
struct Card {
    line: u64,
    full: String,
    structured: String,
    nickname: String,
    company: String,
    numbers: Vec<String>,
}

impl Reader {
    pub(super) fn push(&mut self, bytes: &[u8], items: &mut VecDeque<Item>) {
        for byte in bytes {
            let after_return = std::mem::replace(&mut self.after_return, *byte == b'\r');
            if *byte == b'\n' && after_return {
                continue;
            }
            if is_line_end(*byte) {
                self.end_of_line(items);
            } else if self.physical.len() < MAX_LINE {
                self.physical.push(*byte);
            }
        }
    }

    pub(super) fn finish(&mut self, items: &mut VecDeque<Item>) {
        self.end_of_line(items);
        self.property(items);
        if let Some(card) = self.card.take() {
            items.push_back(Item::Skipped {
                line: card.line,
                why: Skip::Unfinished,
            });
        }
    }

    fn end_of_line(&mut self, items: &mut VecDeque<Item>) {
        let mut line = std::mem::take(&mut self.physical);
        let folded = line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t'));
        let soft_break = self.logical.ends_with(b"=") && is_quoted_printable(&self.logical);
        if soft_break || (folded && !self.logical.is_empty()) {
            if soft_break {
                self.logical.pop();
            }
            let room = MAX_LINE.saturating_sub(self.logical.len());
            let rest = line.get(usize::from(!soft_break)..).unwrap_or_default();
            self.logical.extend(rest.iter().take(room));
        } else {
            self.property(items);
            self.logical.append(&mut line);
        }
        self.lines += 1;
        // The buffer is used again.
        line.clear();
        self.physical = line;
    }

    fn property(&mut self, items: &mut VecDeque<Item>) {
        let line = std::mem::take(&mut self.logical);
        let Some((head, value)) = split(&line) else {
            return;
        };
        let head = text_of(head);
        let mut parameters = head.split(';');
        // `item1.TEL`: a group in front of the name.
        let name = parameters
            .next()
            .unwrap_or_default()
            .rsplit('.')
            .next()
            .unwrap_or_default();
        let name = name.trim().to_ascii_uppercase();
        let is_card = value.trim_ascii().eq_ignore_ascii_case(b"VCARD");
        match (name.as_str(), &mut self.card) {
            ("BEGIN", Some(_)) if is_card => self.inner += 1,
            ("BEGIN", None) if is_card => {
                self.card = Some(Card {
                    // This line has ended and is counted already, unless the file ends with it.
                    line: self.lines.max(1),
                    ..Card::default()
                });
            }
            ("END", Some(_)) if is_card && self.inner > 0 => self.inner -= 1,
            ("END", Some(_)) if is_card => items.extend(self.card.take().map(Card::item)),
            (name, Some(card)) if self.inner == 0 => {
                let value = if is_quoted_printable(&line) {
                    text_of(&unquoted(value))
                } else {
                    text_of(value)
                };
                card.property(name, parameters, &value);
            }
            _ => {}
        }
    }
}

impl Card {
    fn property<'a>(&mut self, name: &str, parameters: impl Iterator<Item = &'a str>, value: &str) {
        let once = |place: &mut String, text: String| {
            if place.trim().is_empty() {
                *place = text;
            }
        };
        match name {
            "FN" => once(&mut self.full, components(value, &[]).concat()),
            "N" => {
                let parts = components(value, &[';']);
                let part = |index: usize| parts.get(index).map_or("", String::as_str);
                once(&mut self.structured, [part(1), part(2), part(0)].join(" "));
            }
            "NICKNAME" => once(&mut self.nickname, components(value, &[',', ';']).swap_remove(0)),
            "ORG" => once(&mut self.company, components(value, &[';']).swap_remove(0)),
            "TEL" => {
                let parameters: Vec<String> = parameters.map(str::to_ascii_uppercase).collect();
                let has = |word: &str| {
                    parameters.iter().any(|parameter| {
                        let values = parameter
                            .split_once('=')
                            .map_or(parameter.as_str(), |(_, values)| values);
                        values.split(',').any(|value| value.trim_matches('"') == word)
                    })
                };
                let silent = (has("FAX") || has("PAGER")) && !has("VOICE") && !has("CELL");
                let number = components(value, &[]).concat();
                let number = number.trim();
                if !silent
                    && !number.is_empty()
                    && self.numbers.len() < MAX_NUMBERS
                    && !self.numbers.iter().any(|known| known == number)
                {
                    self.numbers.push(number.to_owned());
                }
            }
            _ => {}
        }
    }

    fn item(self) -> Item {
        let mut names = [&self.full, &self.structured, &self.nickname, &self.company].into_iter();
        let name = names
            .find(|name| !name.trim().is_empty())
            .cloned()
            .unwrap_or_default();
        item(self.line, &name, self.numbers, Vec::new())
    }
}

/// Name with parameters, and value: the first colon outside of quotes separates them.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut quoted = false;
    let colon = line.iter().position(|byte| {
        quoted ^= *byte == b'"';
        *byte == b':' && !quoted
    })?;
    Some((line.get(..colon)?, line.get(colon + 1..)?))
}

fn is_quoted_printable(line: &[u8]) -> bool {
    let head = line.split(|byte| *byte == b':').next().unwrap_or_default();
    head.split(|byte| matches!(byte, b';' | b'='))
        .any(|part| part.eq_ignore_ascii_case(b"QUOTED-PRINTABLE"))
}

/// Undoes quoted-printable (RFC 2045, section 6.7). A broken escape stays as it is.
fn unquoted(value: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((first, behind)) = rest.split_first() {
        let escaped = (*first == b'=')
            .then(|| u8::try_from(digit(behind.first())? * 16 + digit(behind.get(1))?).ok())
            .flatten();
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() {
            behind.get(2..).unwrap_or_default()
        } else {
            behind
        };
    }
    bytes
}

/// The parts of a value between unescaped separators, escapes undone. There is at least one.
fn components(value: &str, separators: &[char]) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in value.chars() {
        let Some(part) = parts.last_mut() else { break };
        if std::mem::take(&mut escaped) {
            part.push(if matches!(c, 'n' | 'N') { ' ' } else { c });
        } else if c == '\\' {
            escaped = true;
        } else if separators.contains(&c) {
            parts.push(String::new());
        } else {
            part.push(c);
        }
    }
    parts
}
