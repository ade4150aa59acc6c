//! Log records: to the journal with their fields under systemd, as plain lines on standard error otherwise.
//!
//! Journal priorities as the crate `systemd-journal-logger` maps them: error 3, warn 4, info 5, debug 6.
//! Fields become journal fields in upper case: `journalctl -u pipepost CHANNEL=front-desk`. They also stand in the
//! message, because `journalctl -u pipepost` shows nothing else.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;

use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record, SetLoggerError};
use systemd_journal_logger::{JournalLog, connected_to_journal};

use crate::config;

/// Part of the MQTT library that repeats what the driver reports.
const REPEATED_TARGET: &str = "rumqttc::v5::state";
/// Own records carry targets that begin like this.
const OWN_TARGET: &str = env!("CARGO_CRATE_NAME");

/// Starts logging. Fails only when a logger is installed already.
///
/// Records go to the journal when standard error is connected to it (`$JOURNAL_STREAM` names it) and the journal
/// takes them; otherwise they are lines on standard error: `info: Stored incoming message message_id=… channel=…`.
pub fn start(options: &config::Log) -> Result<(), SetLoggerError> {
    let sink = if connected_to_journal() {
        JournalLog::new().map_or(Sink::Lines, |journal| {
            Sink::Journal(journal.with_syslog_identifier(OWN_TARGET.to_owned()))
        })
    } else {
        Sink::Lines
    };
    log::set_boxed_logger(Box::new(Logger {
        sink,
        level: options.level,
    }))?;
    log::set_max_level(options.level);
    Ok(())
}

/// Text for standard error as the journal understands it when standard error leads there: lines get the priority
/// of the `error:` or `warning:` that they belong to (sd-daemon(3)), so that `journalctl -p err` shows them.
#[must_use]
pub fn for_standard_error(text: &str) -> Cow<'_, str> {
    if connected_to_journal() {
        Cow::Owned(with_priorities(text))
    } else {
        Cow::Borrowed(text)
    }
}

fn with_priorities(text: &str) -> String {
    let mut priority = "3";
    let mut out = String::new();
    for line in text.lines() {
        if line.starts_with("error: ") {
            priority = "3";
        } else if line.starts_with("warning: ") {
            priority = "4";
        }
        if !out.is_empty() {
            out.push('\n');
        }
        out.extend(["<", priority, ">", line]);
    }
    out
}

enum Sink {
    Journal(JournalLog),
    Lines,
}

struct Logger {
    sink: Sink,
    level: LevelFilter,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_wanted(self.level, metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match &self.sink {
            Sink::Journal(journal) => {
                journal.log(
                    &record
                        .to_builder()
                        .args(format_args!("{}", words(record)))
                        .build(),
                );
            }
            Sink::Lines => {
                // With standard error gone there is nobody left to tell.
                drop(std::io::stderr().lock().write_all(line(record).as_bytes()));
            }
        }
    }

    fn flush(&self) {}
}

/// Libraries may speak up from `warn` on: their `debug` and `trace` can hold message texts.
fn is_wanted(level: LevelFilter, metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let own = target
        .strip_prefix(OWN_TARGET)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let limit = if own {
        level
    } else if target == REPEATED_TARGET {
        // What it warns of, a refused subscription once a minute, the driver says once and in words.
        level.min(LevelFilter::Error)
    } else {
        level.min(LevelFilter::Warn)
    };
    metadata.level() <= limit
}

/// One line for a person, with a line break.
fn line(record: &Record<'_>) -> String {
    let level = record.level().as_str().to_ascii_lowercase();
    format!("{level}: {}\n", words(record))
}

/// The message and its fields.
fn words(record: &Record<'_>) -> String {
    let mut text = String::new();
    append_escaped(&mut text, &record.args().to_string());
    // Visiting fails only when the visitor does, and this one does not.
    drop(record.key_values().visit(&mut Fields(&mut text)));
    text
}

struct Fields<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.push(' ');
        append_escaped(self.0, key.as_str());
        self.0.push('=');
        let value = value.to_string();
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=';
        if !value.is_empty() && value.chars().all(plain) {
            self.0.push_str(&value);
        } else {
            write!(self.0, "{value:?}")?;
        }
        Ok(())
    }
}

/// Appends text; control characters, which could forge a line or drive a terminal, are escaped.
fn append_escaped(to: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() {
            to.extend(c.escape_default());
        } else {
            to.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Level;

    fn shown(message: &str, fields: &[(&str, &str)]) -> String {
        let args = format_args!("{message}").to_string();
        line(
            &Record::builder()
                .level(Level::Info)
                .args(format_args!("{args}"))
                .key_values(&fields)
                .build(),
        )
    }

    #[test]
    fn a_line_carries_its_fields() {
        let fields = [("channel", "front"), ("reason", "no answer"), ("empty", "")];
        assert_eq!(
            shown("Stored incoming message", &fields),
            "info: Stored incoming message channel=front reason=\"no answer\" empty=\"\"\n"
        );
    }

    #[test]
    fn a_refusal_of_the_configuration_has_a_priority_in_the_journal() {
        assert_eq!(
            with_priorities("warning: odd\n  --> a.toml:1:1\n\nerror: wrong\nhint: mend it"),
            "<4>warning: odd\n<4>  --> a.toml:1:1\n<4>\n<3>error: wrong\n<3>hint: mend it"
        );
    }

    #[test]
    fn a_value_cannot_forge_a_line_or_drive_the_terminal() {
        let text = shown("a\nb", &[("topic", "x\nerror: forged\u{1b}[2J")]);
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn libraries_are_heard_from_warn_on() {
        let wanted = |level, target, record| {
            is_wanted(level, &Metadata::builder().target(target).level(record).build())
        };
        assert!(wanted(LevelFilter::Debug, "pipepost::store", Level::Debug));
        assert!(!wanted(LevelFilter::Debug, "rumqttc::v5", Level::Debug));
        assert!(wanted(LevelFilter::Info, "rumqttc::v5", Level::Warn));
        assert!(!wanted(LevelFilter::Error, "rumqttc::v5", Level::Warn));
        assert!(!wanted(LevelFilter::Debug, REPEATED_TARGET, Level::Warn));
        assert!(!wanted(LevelFilter::Debug, "pipeposture", Level::Debug));
    }
}
