//! Wall-clock time as it is stored and shown.

use std::fmt;

use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Serialize};

/// An instant of wall-clock time: milliseconds since the Unix epoch, UTC.
///
/// A Raspberry Pi has no clock battery, so wall time may jump: order comes from
/// [`Sequence`](super::Sequence), never from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_unix_ms(milliseconds: i64) -> Self {
        Self(milliseconds)
    }

    /// From the operating system's clock, which only the rooms at the edge read.
    #[must_use]
    pub fn from_system_time(time: std::time::SystemTime) -> Self {
        let since_epoch = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn unix_ms(self) -> i64 {
        self.0
    }

    /// This instant moved by a number of milliseconds, saturating.
    #[must_use]
    pub const fn plus_ms(self, milliseconds: i64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }

    /// The time of a message: the device's own time when it lies within −7 days / +5 minutes of receipt,
    /// else the time of receipt.
    #[must_use]
    pub fn trusted(device_time: Option<Self>, received_at: Self) -> Self {
        const DAYS_BACK_MS: i64 = 7 * 24 * 60 * 60 * 1000;
        const MINUTES_AHEAD_MS: i64 = 5 * 60 * 1000;
        match device_time {
            Some(time)
                if time.0 >= received_at.0.saturating_sub(DAYS_BACK_MS)
                    && time.0 <= received_at.0.saturating_add(MINUTES_AHEAD_MS) =>
            {
                time
            }
            _ => received_at,
        }
    }

    /// ISO 8601 UTC with milliseconds and `Z`, e.g. `2026-03-01T09:30:00.250Z`.
    #[must_use]
    pub fn to_iso8601(self) -> String {
        const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
        PRINTER.timestamp_to_string(&self.to_jiff())
    }

    /// UTC `YYYY-MM-DD HH:MM`, the form in the prose of Pipedrive's Channels API documentation.
    #[must_use]
    pub fn to_minutes(self) -> String {
        self.to_jiff().strftime("%Y-%m-%d %H:%M").to_string()
    }

    fn to_jiff(self) -> jiff::Timestamp {
        // Outside jiff's range of years (−9999 to 9999) only a corrupted value can lie; show the epoch.
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_iso8601())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_written_as_iso_8601_with_milliseconds() {
        let time = Timestamp::from_unix_ms(1_769_744_285_007);
        assert_eq!(time.to_iso8601(), "2026-01-30T03:38:05.007Z");
        assert_eq!(time.to_minutes(), "2026-01-30 03:38");
        for (milliseconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_250, "2000-02-29T00:00:00.250Z"),
            (i64::MAX, "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(Timestamp::from_unix_ms(milliseconds).to_iso8601(), text);
        }
    }

    #[test]
    fn a_device_time_is_trusted_only_near_the_time_of_receipt() {
        let received = Timestamp::from_unix_ms(1_769_744_285_000);
        let day = 24 * 60 * 60 * 1000;
        for (offset, trusted) in [
            (-6 * day, true),
            (-8 * day, false),
            (4 * 60_000, true),
            (6 * 60_000, false),
        ] {
            let device = received.plus_ms(offset);
            let expected = if trusted { device } else { received };
            assert_eq!(
                Timestamp::trusted(Some(device), received),
                expected,
                "offset {offset}"
            );
        }
        assert_eq!(Timestamp::trusted(None, received), received);
    }
}
