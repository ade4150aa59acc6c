//! Wall-clock time as it is stored and shown.

use std::fmt;

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
        match self.civil() {
            Some(text) => text,
            None => self.format("%Y-%m-%dT%H:%M:%S.%3fZ"),
        }
    }

    /// UTC `YYYY-MM-DD HH:MM`, the form in the prose of Pipedrive's Channels API documentation.
    #[must_use]
    pub fn to_minutes(self) -> String {
        self.format("%Y-%m-%d %H:%M")
    }

    fn format(self, format: &str) -> String {
        // Outside jiff's range of years (−9999 to 9999) only a corrupted value can lie; show the epoch.
        let timestamp = jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        timestamp.strftime(format).to_string()
    }

    /// What [`Self::to_iso8601`] shows, for times from 1970 to 2399, by arithmetic alone: a page of messages has
    /// dozens of times, and a general formatter parses its pattern for each.
    fn civil(self) -> Option<String> {
        const DAY_MS: i64 = 86_400_000;
        // The calendar repeats after 400 years. Counted from 2000-03-01 a leap day is the last day of its year.
        const DAYS_TO_2000_03_01: i64 = 11_017;
        const DAYS_OF_400_YEARS: i64 = 146_097;
        const DAYS_OF_100_YEARS: i64 = 36_524;
        const DAYS_OF_4_YEARS: i64 = 1461;
        const DAYS_BEFORE_MONTH: [i64; 12] = [0, 31, 61, 92, 122, 153, 184, 214, 245, 275, 306, 337];
        const LAST_MS: i64 = (DAYS_TO_2000_03_01 + DAYS_OF_400_YEARS - 60) * DAY_MS;
        if !(0..LAST_MS).contains(&self.0) {
            return None;
        }
        let (day, time) = (self.0 / DAY_MS - DAYS_TO_2000_03_01, self.0 % DAY_MS);
        // One more cycle keeps the days before 2000-03-01 from being negative.
        let day = (day + DAYS_OF_400_YEARS) % DAYS_OF_400_YEARS;
        let before_2000 = self.0 / DAY_MS < DAYS_TO_2000_03_01;
        let century = (day / DAYS_OF_100_YEARS).min(3);
        let day = day - century * DAYS_OF_100_YEARS;
        let four = day / DAYS_OF_4_YEARS;
        let day = day - four * DAYS_OF_4_YEARS;
        let one = (day / 365).min(3);
        let day = day - one * 365;
        let month = DAYS_BEFORE_MONTH.iter().rposition(|before| *before <= day)?;
        let day = day - DAYS_BEFORE_MONTH.get(month)? + 1;
        // Months count from March; January and February belong to the next year.
        let month = i64::try_from(month).ok()?;
        let (month, next) = if month < 10 {
            (month + 3, 0)
        } else {
            (month - 9, 1)
        };
        let start = if before_2000 { 1600 } else { 2000 };
        let year = start + century * 100 + four * 4 + one + next;

        let mut text = String::with_capacity(24);
        let mut put = |number: i64, mut place: i64, after: char| {
            while place > 0 {
                let digit = u8::try_from(number / place % 10).unwrap_or_default();
                text.push(char::from(b'0' + digit));
                place /= 10;
            }
            text.push(after);
        };
        put(year, 1000, '-');
        put(month, 10, '-');
        put(day, 10, 'T');
        put(time / 3_600_000, 10, ':');
        put(time / 60_000 % 60, 10, ':');
        put(time / 1000 % 60, 10, '.');
        put(time % 1000, 100, 'Z');
        Some(text)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_iso8601())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_time_is_written_as_jiff_writes_it(ms in -1_000_000_000_i64..14_000_000_000_000) {
            let time = Timestamp::from_unix_ms(ms);
            prop_assert_eq!(time.to_iso8601(), time.format("%Y-%m-%dT%H:%M:%S.%3fZ"));
        }
    }

    #[test]
    fn every_day_of_four_centuries_is_written_as_jiff_writes_it() {
        for day in -400..157_500 {
            for time in [day * 86_400_000, day * 86_400_000 - 1] {
                let time = Timestamp::from_unix_ms(time);
                assert_eq!(time.to_iso8601(), time.format("%Y-%m-%dT%H:%M:%S.%3fZ"));
            }
        }
    }

    #[test]
    fn time_is_written_as_iso_8601_with_milliseconds() {
        let time = Timestamp::from_unix_ms(1_769_744_285_007);
        assert_eq!(time.to_iso8601(), "2026-01-30T03:38:05.007Z");
        assert_eq!(time.to_minutes(), "2026-01-30 03:38");
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
