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
        self.with_iso8601(str::to_owned)
    }

    /// The same without a detour over the heap.
    pub(crate) fn with_iso8601<T>(self, use_it: impl FnOnce(&str) -> T) -> T {
        let civil = self.civil();
        match civil.as_ref().map(|text| std::str::from_utf8(text)) {
            Some(Ok(text)) => use_it(text),
            _ => use_it(&self.format("%Y-%m-%dT%H:%M:%S.%3fZ")),
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
    fn civil(self) -> Option<[u8; 24]> {
        const DAY_MS: u64 = 86_400_000;
        const DAYS_FROM_1600_03_01_TO_1970: u32 = 135_080;
        const DAYS_OF_400_YEARS: u32 = 146_097;
        const DAYS_OF_100_YEARS: u32 = 36_524;
        const DAYS_OF_4_YEARS: u32 = 1461;
        let two = |number: u32| {
            let number = u8::try_from(number).unwrap_or_default();
            [b'0' + number / 10, b'0' + number % 10]
        };

        let ms = u64::try_from(self.0).ok()?;
        let time = u32::try_from(ms % DAY_MS).ok()?;
        let day = u32::try_from(ms / DAY_MS)
            .ok()?
            .checked_add(DAYS_FROM_1600_03_01_TO_1970)?;
        // The calendar repeats after 400 years. Counted from March a leap day is the last day of its year, and months
        // are 153 days for each five.
        let (cycle, day) = (day / DAYS_OF_400_YEARS, day % DAYS_OF_400_YEARS);
        if cycle > 1 {
            return None;
        }
        let century = (day / DAYS_OF_100_YEARS).min(3);
        let day = day - century * DAYS_OF_100_YEARS;
        let (four, day) = (day / DAYS_OF_4_YEARS, day % DAYS_OF_4_YEARS);
        let one = (day / 365).min(3);
        let day = day - one * 365;
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        // January and February belong to the next year.
        let (month, next) = if month < 10 {
            (month + 3, 0)
        } else {
            (month - 9, 1)
        };
        let year = 1600 + 400 * cycle + 100 * century + 4 * four + one + next;

        let (seconds, ms) = (time / 1000, time % 1000);
        let ([y0, y1], [y2, y3]) = (two(year / 100), two(year % 100));
        let ([m0, m1], [d0, d1], [h0, h1]) = (two(month), two(day), two(seconds / 3600));
        let ([n0, n1], [s0, s1]) = (two(seconds / 60 % 60), two(seconds % 60));
        let ([f0, f1], [_, f2]) = (two(ms / 10), two(ms % 10));
        Some([
            y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', h0, h1, b':', n0, n1, b':', s0, s1, b'.', f0,
            f1, f2, b'Z',
        ])
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
