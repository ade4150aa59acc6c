//! A stream of bytes becomes lines and prompts.

/// Longest line that is read, in bytes. The longest useful one is a PDU of 175 octets as hexadecimal digits.
const LONGEST: usize = 2048;

/// What the stream gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A line that is not empty, without its end.
    Line(String),
    /// `> `, which has no end of line.
    Prompt,
}

/// Collects bytes. Holds at most one line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    line: Vec<u8>,
    /// The line was too long: what is left of it is passed over.
    skipping: bool,
}

impl Lines {
    /// Takes the next byte. Control characters and the padding that a starting modem sends are left out. Within a
    /// text (`in_text`) there are no prompts.
    pub(super) fn push(&mut self, byte: u8, in_text: bool) -> Option<Piece> {
        match byte {
            b'\r' | b'\n' => {
                let line = std::mem::take(&mut self.line);
                if std::mem::take(&mut self.skipping) {
                    return None;
                }
                let line = String::from_utf8_lossy(&line);
                let line = line.trim_end();
                (!line.is_empty()).then(|| Piece::Line(line.to_owned()))
            }
            b' ' if self.line.is_empty() => None,
            b' ' if self.line == b">" && !in_text => {
                self.line.clear();
                Some(Piece::Prompt)
            }
            0..=0x1f | 0x7f if byte != b'\t' => None,
            _ if self.skipping => None,
            _ => {
                self.line.push(byte);
                if self.line.len() > LONGEST {
                    self.line = Vec::new();
                    self.skipping = true;
                }
                None
            }
        }
    }

    /// Whether the stream stands at a `>` that lacks its blank, as some modems write it.
    pub(super) fn is_at_bare_prompt(&self) -> bool {
        self.line == b">"
    }

    /// Forgets what it holds of a line.
    pub(super) fn clear(&mut self) {
        self.line.clear();
        self.skipping = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(bytes: &[u8]) -> Vec<Piece> {
        let mut lines = Lines::default();
        bytes.iter().filter_map(|byte| lines.push(*byte, false)).collect()
    }

    fn line(text: &str) -> Piece {
        Piece::Line(text.to_owned())
    }

    #[test]
    fn lines_end_with_any_mix_of_carriage_return_and_line_feed() {
        assert_eq!(
            pieces(b"AT\r\r\nOK\r\n\n+CSQ: 3,4\n"),
            [line("AT"), line("OK"), line("+CSQ: 3,4")]
        );
    }

    #[test]
    fn a_prompt_needs_no_end_of_line_and_stands_only_at_the_beginning_of_one() {
        assert_eq!(pieces(b"\r\n> "), [Piece::Prompt]);
        assert_eq!(pieces(b"a > b\r"), [line("a > b")]);
        assert_eq!(pieces(b"> > "), [Piece::Prompt, Piece::Prompt]);
    }

    #[test]
    fn a_line_without_end_takes_no_memory_and_hides_only_itself() {
        let mut bytes = vec![b'x'; 1 << 20];
        bytes.extend_from_slice(b"\r\nOK\r\n");
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for byte in bytes {
            found.extend(lines.push(byte, false));
            assert!(lines.line.capacity() <= LONGEST * 2);
        }
        assert_eq!(found, [line("OK")]);
    }

    #[test]
    fn what_a_starting_modem_sends_before_it_speaks_is_left_out() {
        assert_eq!(pieces(b"\0\0\x1a\r\nRDY\r\n"), [line("RDY")]);
    }
}
