//! The device's time in the forms that devices use.

use std::collections::BTreeMap;

use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::{Offset, TimeZone};

use super::error::MappingError;
use super::extract::{Document, Extractor};
use super::spec::{Decode, Extract, TimeSpec};
use crate::domain::Timestamp;

#[derive(Clone, Debug)]
enum Format {
    Rfc3339,
    UnixSeconds,
    UnixMilliseconds,
    Pattern(String),
}

/// A [`TimeSpec`], checked.
#[derive(Clone, Debug)]
pub(super) struct TimeReader {
    at: Extractor,
    format: Format,
    zone: TimeZone,
}

impl TimeReader {
    pub(super) fn compile(
        key: &str,
        spec: &TimeSpec,
        names: &[&str],
        vars: &BTreeMap<String, String>,
    ) -> Result<Self, MappingError> {
        let at = Extract {
            at: spec.at.clone(),
            decode: Decode::Utf8,
        };
        let format = match spec.format.as_deref() {
            None | Some("rfc3339") => Format::Rfc3339,
            Some("unix_s") => Format::UnixSeconds,
            Some("unix_ms") => Format::UnixMilliseconds,
            Some(pattern) if pattern.contains('%') => {
                let sample = DateTime::constant(2026, 3, 1, 9, 30, 0, 0).to_zoned(TimeZone::UTC);
                let written = sample
                    .ok()
                    .and_then(|sample| jiff::fmt::strtime::format(pattern, &sample).ok())
                    .filter(|text| BrokenDownTime::parse(pattern, text).is_ok());
                if written.is_none() {
                    return Err(MappingError::wrong(
                        format!("{key}.format"),
                        pattern,
                        "this pattern cannot be used",
                        "use the letters of strftime, e.g. \"%Y-%m-%d %H:%M:%S\"",
                    ));
                }
                Format::Pattern(pattern.to_owned())
            }
            Some(other) => {
                return Err(MappingError::wrong(
                    format!("{key}.format"),
                    other,
                    "there is no such format",
                    "use \"rfc3339\", \"unix_s\", \"unix_ms\" or a pattern such as \"%Y-%m-%d %H:%M:%S\"",
                ));
            }
        };
        Ok(Self {
            at: Extractor::compile(key, &at, names, vars)?,
            format,
            zone: parse_zone(key, spec.zone.as_deref().unwrap_or("UTC"))?,
        })
    }

    /// The time; `None` when the payload has none, an error in words when it cannot be read.
    pub(super) fn get(&self, document: &Document<'_>) -> Result<Option<Timestamp>, String> {
        let Some(text) = self.at.get(document)?.filter(|text| !text.trim().is_empty()) else {
            return Ok(None);
        };
        self.parse(text.trim())
            .map(Some)
            .ok_or_else(|| format!("{} is not a time of the configured format", self.at.spelling()))
    }

    fn parse(&self, text: &str) -> Option<Timestamp> {
        match &self.format {
            Format::UnixSeconds => unix(text, 1000),
            Format::UnixMilliseconds => unix(text, 1),
            Format::Rfc3339 => match text.parse::<jiff::Timestamp>() {
                Ok(time) => Some(time.as_millisecond()),
                // ISO 8601 without a zone.
                Err(_) => self.local(text.parse::<DateTime>().ok()?),
            },
            Format::Pattern(pattern) => {
                let parts = BrokenDownTime::parse(pattern, text).ok()?;
                match parts.to_timestamp() {
                    Ok(time) => Some(time.as_millisecond()),
                    Err(_) => self.local(parts.to_datetime().ok()?),
                }
            }
        }
        .map(Timestamp::from_unix_ms)
    }

    fn local(&self, time: DateTime) -> Option<i64> {
        Some(
            self.zone
                .to_ambiguous_timestamp(time)
                .compatible()
                .ok()?
                .as_millisecond(),
        )
    }
}

/// Whole or decimal numbers, as JSON libraries write them.
fn unix(text: &str, factor: i64) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let millis: i64 = if factor == 1000 {
        format!("{fraction:0<3}").get(..3)?.parse().ok()?
    } else {
        0
    };
    whole.checked_mul(factor)?.checked_add(millis)
}

fn parse_zone(key: &str, zone: &str) -> Result<TimeZone, MappingError> {
    match zone {
        "UTC" | "utc" | "Z" => return Ok(TimeZone::UTC),
        "local" => return Ok(TimeZone::system()),
        _ => {}
    }
    let offset = BrokenDownTime::parse("%:z", zone)
        .ok()
        .and_then(|parts| parts.offset());
    if let Some(offset) = offset {
        return Ok(TimeZone::fixed(
            Offset::from_seconds(offset.seconds()).unwrap_or(Offset::UTC),
        ));
    }
    TimeZone::get(zone).map_err(|_| {
        MappingError::wrong(
            format!("{key}.zone"),
            zone,
            "this machine knows no such time zone",
            "use \"UTC\", \"local\", an offset such as \"+02:00\" or a name such as \"Europe/Berlin\" (Debian package tzdata)",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Option<&str>, zone: Option<&str>, text: &str) -> Option<String> {
        let spec = TimeSpec {
            at: "/t".to_owned(),
            format: format.map(str::to_owned),
            zone: zone.map(str::to_owned),
        };
        let reader = TimeReader::compile("in.time", &spec, &[], &BTreeMap::new()).unwrap();
        reader.parse(text).map(Timestamp::to_iso8601)
    }

    #[test]
    fn times_are_read_in_the_forms_that_devices_use() {
        let expected = Some("2026-01-30T03:38:05.000Z".to_owned());
        assert_eq!(read(Some("unix_ms"), None, "1769744285000"), expected);
        assert_eq!(read(Some("unix_s"), None, "1769744285"), expected);
        assert_eq!(read(Some("unix_s"), None, "1769744285.0"), expected);
        assert_eq!(read(None, None, "2026-01-30T03:38:05Z"), expected);
        assert_eq!(read(None, None, "2026-01-30T04:38:05+01:00"), expected);
        assert_eq!(read(None, Some("+01:00"), "2026-01-30 04:38:05"), expected);
        assert_eq!(
            read(Some("%Y-%m-%d %H:%M:%S"), Some("+01:00"), "2026-01-30 04:38:05"),
            expected
        );
        assert_eq!(
            read(Some("%a %b %e %H:%M:%S %Y"), None, "Fri Jan 30 03:38:05 2026"),
            expected
        );
    }

    #[test]
    fn what_is_not_a_time_is_not_guessed() {
        assert_eq!(read(None, None, "yesterday"), None);
        assert_eq!(read(Some("unix_s"), None, "9223372036854775807"), None);
        assert_eq!(read(Some("unix_s"), None, "1.2.3"), None);
        assert_eq!(read(Some("%Y-%m-%d %H:%M:%S"), None, "2026-13-30 04:38:05"), None);
    }
}
