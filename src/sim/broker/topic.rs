//! Topic names and filters (MQTT 5.0, section 4.7). rumqttc's own `matches` is not used: it panics on a topic that
//! starts with a letter outside ASCII.

/// Longest topic that fits its two-byte length field.
const LONGEST: usize = u16::MAX as usize;

/// Whether a publisher may use this topic.
pub(super) fn is_name(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= LONGEST && !topic.contains(['+', '#', '\0'])
}

/// Whether a subscriber may use this filter.
pub(super) fn is_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > LONGEST || filter.contains('\0') {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let wildcard = level.contains(['+', '#']);
        if wildcard && level.len() != 1 {
            return false;
        }
        if level == "#" && levels.peek().is_some() {
            return false;
        }
    }
    true
}

/// Whether a message on `topic` goes to a subscription with `filter`.
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    // Section 4.7.2: a leading wildcard does not reach the topics that belong to the server.
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_no_wildcards_and_a_filter_has_them_as_whole_levels() {
        for name in ["a", "/", "a//b", "straße/ä", "$SYS/x", " "] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "a/+", "a/#", "a#", "a\0b"] {
            assert!(!is_name(name), "{name}");
        }
        for filter in ["#", "+", "/+", "a/+/b", "a/#", "+/+/#", "a", "//"] {
            assert!(is_filter(filter), "{filter}");
        }
        for filter in ["", "a#", "a/#/b", "a+", "+a/b", "##", "a/b#", "a\0"] {
            assert!(!is_filter(filter), "{filter}");
        }
    }

    #[test]
    fn the_examples_of_the_specification_match_as_it_says() {
        for (filter, topic) in [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
            ("sport/#", "sport"),
            ("#", "a/b/c"),
            ("sport/tennis/+", "sport/tennis/player1"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("$SYS/#", "$SYS/monitor"),
            ("ü/+", "ü/ß"),
        ] {
            assert!(matches(filter, topic), "{filter} should take {topic}");
        }
        for (filter, topic) in [
            ("sport/tennis/+", "sport/tennis/player1/ranking"),
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/monitor"),
            ("+/monitor", "$SYS/monitor"),
            ("a/b", "a/B"),
            ("a/b", "a/b/"),
        ] {
            assert!(!matches(filter, topic), "{filter} should not take {topic}");
        }
    }
}
