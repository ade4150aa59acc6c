//! Where a value was written, and how a finding shows it.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// Position of a key or value: which source, and which bytes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) source: usize,
    pub(super) span: Range<usize>,
}

/// Something that the configuration was put together from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A TOML file.
    File { path: PathBuf, text: String },
    /// One variable of the environment. Its value is never shown: it may be a secret.
    Variable { name: String },
}

/// All sources of one configuration; [`Place::source`] is an index into it.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources(Vec<Source>);

impl Sources {
    pub(super) fn add(&mut self, source: Source) -> usize {
        self.0.push(source);
        self.0.len() - 1
    }

    pub(super) fn get(&self, index: usize) -> Option<&Source> {
        self.0.get(index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }

    pub(super) fn is_variable(&self, place: &Place) -> bool {
        matches!(self.get(place.source), Some(Source::Variable { .. }))
    }

    fn location(&self, place: &Place) -> Option<Location> {
        match self.get(place.source)? {
            Source::File { path, text } => Some(Location::in_file(path.clone(), text, &place.span)),
            Source::Variable { name } => Some(Location::Variable(name.clone())),
        }
    }
}

/// Where a finding is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In a file as a whole, e.g. one that cannot be read.
    File(PathBuf),
    /// At a line of a file.
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// The line, secrets masked, cut to a readable length.
        excerpt: String,
        /// Where the carets stand: characters of `excerpt`.
        marked: Range<usize>,
    },
    /// In a variable of the environment, by its name.
    Variable(String),
}

/// Longest source line that is shown whole, in characters.
const EXCERPT_LEN: usize = 120;

impl Location {
    fn in_file(path: PathBuf, text: &str, span: &Range<usize>) -> Self {
        let start = floor_char_boundary(text, span.start);
        let line_start = text
            .get(..start)
            .and_then(|t| t.rfind('\n'))
            .map_or(0, |at| at + 1);
        let line = text.get(..line_start).unwrap_or("").matches('\n').count() + 1;
        let rest = text.get(line_start..).unwrap_or("");
        let content = rest.lines().next().unwrap_or("");
        let column = text.get(line_start..start).unwrap_or("").chars().count();
        let end = floor_char_boundary(text, span.end.clamp(start, line_start + content.len()));
        let width = text.get(start..end).unwrap_or("").chars().count().max(1);

        let before = text.get(..line_start).unwrap_or("");
        let masked = mask_line(content, before);
        // Control characters could drive the terminal that shows the finding.
        let shown: Vec<char> = masked
            .chars()
            .map(|c| {
                if c == '\t' {
                    ' '
                } else if c.is_control() {
                    '\u{fffd}'
                } else {
                    c
                }
            })
            .collect();
        let skipped = if column > EXCERPT_LEN - 20 { column - 40 } else { 0 };
        let excerpt: String = shown.iter().skip(skipped).take(EXCERPT_LEN).collect();
        let length = excerpt.chars().count();
        let first = (column - skipped).min(length);
        let last = (first + width).min(length.max(first + 1));
        Self::Line {
            path,
            line,
            column: column + 1,
            excerpt,
            marked: first..last,
        }
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Whether a key by this name would hold a secret itself (and not the path of a file with one).
pub(super) fn names_a_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let sensitive = [
        "token",
        "secret",
        "password",
        "passwd",
        "passphrase",
        "api_key",
        "private_key",
    ];
    let is_pin = key == "pin" || key.ends_with("_pin");
    (is_pin || sensitive.iter().any(|word| key.contains(word))) && !key.ends_with("_file")
}

/// A source line without the secrets that someone may have written into it although they do not belong there.
fn mask_line(line: &str, before: &str) -> String {
    const MASK: &str = " \"***\"";
    if let Some(end) = secret_assignment(line) {
        return format!("{}{MASK}", line.get(..end).unwrap_or(""));
    }
    // A later line of a text over several lines: its key stands further up.
    let opened = before.lines().rev().find(|l| l.contains('='));
    if !line.contains('=')
        && opened
            .is_some_and(|l| secret_assignment(l).is_some() && (l.contains("\"\"\"") || l.contains("'''")))
    {
        return "***".to_owned();
    }
    mask_user_info(line)
}

/// The byte after the `=` of the first key in the line that would hold a secret.
fn secret_assignment(line: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(found) = line.get(from..).and_then(|rest| rest.find('=')) {
        let equals = from + found;
        let before = line
            .get(..equals)?
            .trim_end_matches(|c: char| c.is_whitespace() || c == '"' || c == '\'');
        let key_start = before
            .rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
            .map_or(0, |at| {
                at + before
                    .get(at..)
                    .and_then(|t| t.chars().next())
                    .map_or(1, char::len_utf8)
            });
        if names_a_secret(before.get(key_start..)?) {
            return Some(equals + 1);
        }
        from = equals + 1;
    }
    None
}

/// Replaces the password in `scheme://user:password@host` by a mask.
pub(super) fn mask_user_info(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let authority_end = rest.find(['/', '"', '\'', ' ']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_end);
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or("");
            format!("{scheme}://{user}:***@{host}{}", mask_user_info(tail))
        }
        None => format!("{scheme}://{authority}{}", mask_user_info(tail)),
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The gateway does not start with it.
    Error,
    /// It starts, but something will not work or is unwise.
    Warning,
}

/// Something to say about the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// Where.
    pub location: Option<Location>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Finding {
    /// Several lines, without a line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}", printable(&self.message))?;
        match &self.location {
            None => {}
            Some(Location::File(path)) => write!(f, "\n  --> {}", printable(&path.to_string_lossy()))?,
            Some(Location::Variable(name)) => write!(f, "\n  --> environment variable {}", printable(name))?,
            Some(Location::Line {
                path,
                line,
                column,
                excerpt,
                marked,
            }) => {
                let number = line.to_string();
                let margin = " ".repeat(number.len());
                write!(
                    f,
                    "\n{margin} --> {}:{line}:{column}",
                    printable(&path.to_string_lossy())
                )?;
                let marks = "^".repeat(marked.len());
                write!(f, "\n{margin} |\n{number} | {excerpt}")?;
                write!(f, "\n{margin} | {}{marks}", " ".repeat(marked.start))?;
            }
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {}", printable(hint))?;
        }
        Ok(())
    }
}

/// The text without characters that would drive a terminal.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Collects findings while the configuration is read.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) sources: Sources,
    pub(super) list: Vec<Finding>,
}

impl Findings {
    pub(super) fn error(&mut self, place: Option<&Place>, message: impl Into<String>, hint: Option<String>) {
        self.push(Severity::Error, place, message.into(), hint);
    }

    pub(super) fn warning(
        &mut self,
        place: Option<&Place>,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        self.push(Severity::Warning, place, message.into(), hint);
    }

    pub(super) fn file_error(&mut self, path: PathBuf, message: String, hint: Option<String>) {
        let location = Some(Location::File(path));
        self.list.push(Finding {
            severity: Severity::Error,
            message,
            location,
            hint,
        });
    }

    pub(super) fn has_errors(&self) -> bool {
        self.list
            .iter()
            .any(|finding| finding.severity == Severity::Error)
    }

    fn push(&mut self, severity: Severity, place: Option<&Place>, message: String, hint: Option<String>) {
        let location = place.and_then(|place| self.sources.location(place));
        let finding = Finding {
            severity,
            message,
            location,
            hint,
        };
        if !self.list.contains(&finding) {
            self.list.push(finding);
        }
    }
}

/// The known name that a misspelt one is nearest to, if it is near at all.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_a_source_line_is_masked() {
        for line in [
            "access_token = \"hunter2\"",
            "  \"client_secret\"= 'hunter2' # why",
            "pipedrive = { client_id = \"x\", client_secret = \"hunter2\" }",
            "broker-password=hunter2",
            "url = \"mqtt://user:hunter2@host:1883\"",
        ] {
            let masked = mask_line(line, "");
            assert!(!masked.contains("hunter2") && masked.contains("***"), "{masked}");
        }
        assert_eq!(mask_line("hunter2\"\"\"", "password = \"\"\"\n"), "***");
        let harmless = "password_file = \"/etc/x\"";
        assert_eq!(mask_line(harmless, ""), harmless);
    }

    #[test]
    fn a_place_outside_its_text_is_shown_at_its_end() {
        let location = Location::in_file("x".into(), "a = 1\nü", &(90..95));
        assert!(
            matches!(
                location,
                Location::Line {
                    line: 2,
                    column: 2,
                    ..
                }
            ),
            "{location:?}"
        );
    }

    #[test]
    fn control_characters_in_a_finding_are_escaped() {
        let finding = Finding {
            severity: Severity::Warning,
            message: "bad \u{1b}[31m".to_owned(),
            location: Some(Location::Variable("A\nB".to_owned())),
            hint: None,
        };
        assert_eq!(
            finding.to_string(),
            "warning: bad \\u{1b}[31m\n  --> environment variable A\\nB"
        );
    }
}
