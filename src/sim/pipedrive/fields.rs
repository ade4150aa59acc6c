//! Shapes of JSON objects as tables, and the one walk that checks a value against them.
//!
//! Written for this stand-in alone: were the gateway's own types used here, a mistake in them would be checked
//! against itself.

use serde_json::{Map, Value};

/// One field of an object.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) kind: Kind,
}

/// What a field may hold.
pub(super) enum Kind {
    /// A string with at least one character.
    Text,
    /// Any string.
    Str,
    /// An identifier: it is put into URL templates, so only characters that need no escape there.
    Id,
    /// One of these words.
    Word(&'static [&'static str]),
    /// ISO 8601 with a zone.
    IsoTime,
    /// ISO 8601 with a zone, or UTC `YYYY-MM-DD HH:MM`.
    EitherTime,
    /// An absolute http or https URL.
    Url,
    /// An absolute http or https URL, or `""`.
    UrlOrEmpty,
    /// `true` or `false`.
    Bool,
    /// Exactly `true`.
    True,
    /// A whole number, zero or more.
    Count,
    /// An array of objects.
    List(&'static [Field]),
    /// An object.
    Object(&'static [Field]),
}

/// A field that must be there.
pub(super) const fn required(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        required: true,
        kind,
    }
}

/// A field that may be absent (but is never null).
pub(super) const fn optional(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        required: false,
        kind,
    }
}

/// Checks that `value` is an object with exactly the allowed fields; findings are added to `problems`.
pub(super) fn check(path: &str, value: &Value, fields: &[Field], problems: &mut Vec<String>) {
    let Some(object) = value.as_object() else {
        problems.push(format!(
            "{} must be an object, not {}",
            shown(path),
            kind_of(value)
        ));
        return;
    };
    check_members(path, object, fields, problems);
}

fn check_members(path: &str, object: &Map<String, Value>, fields: &[Field], problems: &mut Vec<String>) {
    for field in fields {
        let path = join(path, field.name);
        match object.get(field.name) {
            None if field.required => problems.push(format!("\"{path}\" is missing")),
            None => {}
            Some(value) => check_kind(&path, value, &field.kind, problems),
        }
    }
    for name in object.keys() {
        if !fields.iter().any(|field| field.name == name) {
            problems.push(format!("\"{}\" is not a known field", join(path, name)));
        }
    }
}

fn check_kind(path: &str, value: &Value, kind: &Kind, problems: &mut Vec<String>) {
    let text = value.as_str();
    let wanted = match kind {
        Kind::Text if text.is_some_and(|t| !t.is_empty()) => return,
        Kind::Text => "a string with at least one character",
        Kind::Str if text.is_some() => return,
        Kind::Str => "a string",
        Kind::Id if text.is_some_and(is_id) => return,
        Kind::Id => "a URL-safe identifier (1 to 255 of A-Z a-z 0-9 . _ ~ -)",
        Kind::Word(words) if text.is_some_and(|t| words.contains(&t)) => return,
        Kind::Word(words) => {
            problems.push(format!(
                "\"{path}\" must be one of {}, not {}",
                words.join(", "),
                short(value)
            ));
            return;
        }
        Kind::IsoTime if text.is_some_and(is_iso_time) => return,
        Kind::IsoTime => "an ISO 8601 time with a zone",
        Kind::EitherTime if text.is_some_and(|t| is_iso_time(t) || is_minutes_time(t)) => return,
        Kind::EitherTime => "a time (ISO 8601 with a zone, or UTC YYYY-MM-DD HH:MM)",
        Kind::Url if text.is_some_and(is_url) => return,
        Kind::Url => "an absolute http(s) URL",
        Kind::UrlOrEmpty if text.is_some_and(|t| t.is_empty() || is_url(t)) => return,
        Kind::UrlOrEmpty => "an absolute http(s) URL or an empty string",
        Kind::Bool if value.is_boolean() => return,
        Kind::Bool => "true or false",
        Kind::True if value == &Value::Bool(true) => return,
        Kind::True => "true",
        Kind::Count if value.is_u64() => return,
        Kind::Count => "a whole number",
        Kind::Object(fields) => {
            check(path, value, fields, problems);
            return;
        }
        Kind::List(fields) => {
            if let Some(items) = value.as_array() {
                for (index, item) in items.iter().enumerate() {
                    check(&format!("{path}[{index}]"), item, fields, problems);
                }
                return;
            }
            "an array"
        }
    };
    problems.push(format!("\"{path}\" must be {wanted}, not {}", short(value)));
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn shown(path: &str) -> String {
    if path.is_empty() {
        "the body".to_owned()
    } else {
        format!("\"{path}\"")
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The value itself when it is short enough to be shown, else its kind.
fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= 60 {
        text
    } else {
        kind_of(value).to_owned()
    }
}

/// Whether a text is an identifier that needs no escape in a URL path.
pub(super) fn is_id(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-'))
        && !matches!(text, "." | "..")
}

/// Whether a text is an absolute http or https URL without spaces.
pub(super) fn is_url(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        !host.is_empty()
    }) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// `2026-03-01T09:30:00Z`, with an optional fraction and `Z` or `±hh:mm`.
pub(super) fn is_iso_time(text: &str) -> bool {
    if text.len() < 20 || !text.is_ascii() {
        return false;
    }
    let Some((head, tail)) = text.split_at_checked(19) else {
        return false;
    };
    if !fits(head, "dddd-dd-ddTdd:dd:dd") {
        return false;
    }
    let zone = match tail.strip_prefix('.') {
        Some(fraction) => {
            let rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            let digits = fraction.len() - rest.len();
            if !(1..=9).contains(&digits) {
                return false;
            }
            rest
        }
        None => tail,
    };
    (zone == "Z" || fits(zone, "+dd:dd") || fits(zone, "-dd:dd")) && text.parse::<jiff::Timestamp>().is_ok()
}

/// `2026-03-01 09:30`.
pub(super) fn is_minutes_time(text: &str) -> bool {
    fits(text, "dddd-dd-dd dd:dd")
        && format!("{}:00Z", text.replace(' ', "T"))
            .parse::<jiff::Timestamp>()
            .is_ok()
}

fn fits(text: &str, pattern: &str) -> bool {
    text.len() == pattern.len()
        && text
            .bytes()
            .zip(pattern.bytes())
            .all(|(b, p)| if p == b'd' { b.is_ascii_digit() } else { b == p })
}

/// The instant that a time in either form means, in milliseconds since the epoch, and whether it is only exact to
/// the minute.
pub(super) fn instant(text: &str) -> Option<(i64, bool)> {
    if is_minutes_time(text) {
        let parsed: jiff::Timestamp = format!("{}:00Z", text.replace(' ', "T")).parse().ok()?;
        return Some((parsed.as_millisecond(), true));
    }
    let parsed: jiff::Timestamp = text.parse().ok()?;
    Some((parsed.as_millisecond(), false))
}

/// Whether two times in either form mean the same instant, as far as they tell.
pub(super) fn same_time(a: &str, b: &str) -> bool {
    match (instant(a), instant(b)) {
        (Some((a, a_minutes)), Some((b, b_minutes))) if a_minutes || b_minutes => {
            a.div_euclid(60_000) == b.div_euclid(60_000)
        }
        (Some((a, _)), Some((b, _))) => a == b,
        _ => false,
    }
}
