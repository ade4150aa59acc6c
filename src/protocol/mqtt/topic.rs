//! Topics with named one-level captures.

use std::collections::BTreeMap;

use super::error::MappingError;

/// Longest topic in bytes (MQTT 5.0, section 1.5.4).
pub(super) const MAX_TOPIC: usize = 65_535;

/// Names that templates fill in themselves.
pub(super) const RESERVED: &[&str] = &["to", "text", "id", "uuid", "channel"];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Literal(String),
    /// `+`
    Any,
    /// `{name}`
    Capture(String),
}

/// A topic of the configuration, ready to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    levels: Vec<Level>,
    /// Ends with `#`.
    open: bool,
}

impl Pattern {
    /// Reads `gsm2mqtt/modem/{modem}/sms/received`. A `{name}` that has a value in `vars` is replaced by it.
    pub(super) fn parse(
        key: &str,
        text: &str,
        vars: &BTreeMap<String, String>,
    ) -> Result<Self, MappingError> {
        let wrong = |problem: &str, remedy: &str| Err(MappingError::wrong(key, text, problem, remedy));
        let filled = fill_vars(text, vars);
        if filled.is_empty() || filled.len() > MAX_TOPIC {
            return wrong(
                "a topic has 1 to 65535 bytes",
                "write the topic that the device publishes on",
            );
        }
        if filled.contains('\0') {
            return wrong("a topic cannot hold the character NUL", "remove it");
        }
        let mut levels: Vec<Level> = Vec::new();
        let mut open = false;
        for level in filled.split('/') {
            if open {
                return wrong("`#` stands for all levels below", "put it at the end");
            }
            match level {
                "#" => open = true,
                "+" => levels.push(Level::Any),
                _ => levels.push(parse_level(key, text, level)?),
            }
        }
        for (index, level) in levels.iter().enumerate() {
            if matches!(level, Level::Capture(_)) && levels.iter().skip(index + 1).any(|other| other == level)
            {
                return wrong("a name is used twice", "give each level its own name, or use `+`");
            }
        }
        Ok(Self { levels, open })
    }

    /// The subscription that brings these topics.
    pub(super) fn filter(&self) -> String {
        let mut parts: Vec<&str> = self
            .levels
            .iter()
            .map(|level| match level {
                Level::Literal(text) => text.as_str(),
                Level::Any | Level::Capture(_) => "+",
            })
            .collect();
        if self.open {
            parts.push("#");
        }
        parts.join("/")
    }

    /// The named levels of a topic that fits.
    pub(super) fn captures(&self, topic: &str) -> Option<BTreeMap<String, String>> {
        // A filter that starts with a wildcard does not take the broker's own `$SYS` (section 4.7.2).
        if topic.starts_with('$') && !matches!(self.levels.first(), Some(Level::Literal(_))) {
            return None;
        }
        let mut captures = BTreeMap::new();
        let mut rest = Some(topic);
        for level in &self.levels {
            let (found, tail) = match rest?.split_once('/') {
                Some((found, tail)) => (found, Some(tail)),
                None => (rest?, None),
            };
            match level {
                Level::Literal(text) if text != found => return None,
                Level::Literal(_) | Level::Any => {}
                Level::Capture(name) => {
                    captures.insert(name.clone(), found.to_owned());
                }
            }
            rest = tail;
        }
        (rest.is_none() || self.open).then_some(captures)
    }

    /// The names of the captures.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.levels.iter().filter_map(|level| match level {
            Level::Capture(name) => Some(name.as_str()),
            Level::Literal(_) | Level::Any => None,
        })
    }
}

fn parse_level(key: &str, text: &str, level: &str) -> Result<Level, MappingError> {
    if let Some(name) = level.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        check_name(key, text, name)?;
        return Ok(Level::Capture(name.to_owned()));
    }
    if level.contains(['+', '#']) {
        return Err(MappingError::wrong(
            key,
            text,
            "a wildcard stands for a whole level",
            "write `+` or `{name}` between two slashes",
        ));
    }
    if level.contains(['{', '}']) {
        return Err(MappingError::wrong(
            key,
            text,
            "a capture stands for a whole level",
            "write `{name}` between two slashes, or give the name a value in `vars`",
        ));
    }
    Ok(Level::Literal(level.to_owned()))
}

/// Checks a name of `vars` or of a capture.
pub(super) fn check_name(key: &str, text: &str, name: &str) -> Result<(), MappingError> {
    let fits = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_');
    if !fits {
        return Err(MappingError::wrong(
            key,
            text,
            format!("{name:?} is not a name"),
            "use a-z, 0-9 and '_', beginning with a letter",
        ));
    }
    if RESERVED.contains(&name) {
        return Err(MappingError::wrong(
            key,
            text,
            format!("the name {name:?} has a meaning in templates"),
            "choose another one",
        ));
    }
    Ok(())
}

/// Replaces `{name}` by its value where there is one.
pub(super) fn fill_vars(text: &str, vars: &BTreeMap<String, String>) -> String {
    vars.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{name}}}"), value)
    })
}

/// Whether a text can stand in a published topic: nothing that would make it another topic.
pub(super) fn fits_level(text: &str) -> bool {
    !text.is_empty() && !text.contains(['/', '+', '#']) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(
            "in.topic",
            text,
            &BTreeMap::from([("prefix".to_owned(), "home/sms".to_owned())]),
        )
        .unwrap()
    }

    #[test]
    fn a_capture_takes_one_level_and_a_variable_is_filled_in() {
        let topic = pattern("{prefix}/modem/{modem}/+/received");
        assert_eq!(topic.filter(), "home/sms/modem/+/+/received");
        let captures = topic.captures("home/sms/modem/a b/x/received").unwrap();
        assert_eq!(captures, BTreeMap::from([("modem".to_owned(), "a b".to_owned())]));
        assert_eq!(topic.captures("home/sms/modem/a/b/x/received"), None);
        assert_eq!(topic.captures("home/sms/modem/a/x/received/more"), None);
        assert_eq!(topic.captures(""), None);
    }

    #[test]
    fn a_hash_takes_all_levels_below_also_none() {
        let topic = pattern("a/#");
        for fits in ["a", "a/b", "a/b/c", "a/"] {
            assert!(topic.captures(fits).is_some(), "{fits}");
        }
        assert!(topic.captures("b").is_none());
    }

    #[test]
    fn a_leading_wildcard_does_not_take_the_brokers_own_topics() {
        assert!(pattern("+/info").captures("$SYS/info").is_none());
        assert!(pattern("{any}/info").captures("$SYS/info").is_none());
    }

    #[test]
    fn wrong_topics_are_refused_with_a_remedy() {
        for (text, expected) in [
            (
                "a/b+/c",
                "`in.topic` is \"a/b+/c\": a wildcard stands for a whole level; write `+` or `{name}` between two slashes",
            ),
            (
                "a/#/c",
                "`in.topic` is \"a/#/c\": `#` stands for all levels below; put it at the end",
            ),
            (
                "{x}/{x}",
                "`in.topic` is \"{x}/{x}\": a name is used twice; give each level its own name, or use `+`",
            ),
            (
                "a/{to}",
                "`in.topic` is \"a/{to}\": the name \"to\" has a meaning in templates; choose another one",
            ),
            (
                "a/{A b}",
                "`in.topic` is \"a/{A b}\": \"A b\" is not a name; use a-z, 0-9 and '_', beginning with a letter",
            ),
        ] {
            assert_eq!(
                Pattern::parse("in.topic", text, &BTreeMap::new())
                    .unwrap_err()
                    .to_string(),
                expected
            );
        }
    }
}
