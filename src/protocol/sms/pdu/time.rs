//! Time stamps and validity periods: 3GPP TS 23.040, sections 9.2.3.11 and 9.2.3.12.

use std::time::Duration;

use crate::domain::Timestamp;

const MINUTE_MS: i64 = 60_000;

/// Two semi-octets, the first digit in the low one.
const fn two_digits(octet: u8) -> Option<u8> {
    let (first, second) = (octet & 0x0f, octet >> 4);
    if first > 9 || second > 9 {
        return None;
    }
    Some(first * 10 + second)
}

/// Days from 1970-01-01 to a day of the Gregorian calendar.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March have their leap day at the end.
    let year = if month < 3 { year - 1 } else { year };
    let since_march = (month + 9) % 12;
    let day_of_year = (153 * since_march + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Year, month, day, hour, minute, second and zone in quarters of an hour; `None` when that is no time, as with the
/// zeroes of some networks.
pub(super) fn timestamp(octets: [u8; 7]) -> Option<Timestamp> {
    let [year, month, day, hour, minute, second, zone] = octets;
    let two = |octet| two_digits(octet).map(i64::from);
    // Bit 3 is the sign of the zone; the first digit has the three below it.
    let east = zone & 0x08 == 0;
    let quarters = two(zone & !0x08)?;
    let (year, month, day) = (two(year)?, two(month)?, two(day)?);
    let (hour, minute, second) = (two(hour)?, two(minute)?, two(second)?);
    // GSM began in 1991.
    let year = if year >= 90 { 1900 + year } else { 2000 + year };
    let exists = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !exists {
        return None;
    }
    let local = ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * MINUTE_MS + second * 1000;
    let zone = quarters * 15 * MINUTE_MS;
    Some(Timestamp::from_unix_ms(if east {
        local - zone
    } else {
        local + zone
    }))
}

const STEP: u64 = 60;
const HOUR: u64 = 60 * STEP;
const DAY: u64 = 24 * HOUR;

/// What a relative validity period means.
pub(super) fn relative_validity(octet: u8) -> Duration {
    let value = u64::from(octet);
    Duration::from_secs(match octet {
        0..=143 => (value + 1) * 5 * STEP,
        144..=167 => 12 * HOUR + (value - 143) * 30 * STEP,
        168..=196 => (value - 166) * DAY,
        197.. => (value - 192) * 7 * DAY,
    })
}

/// The shortest relative validity period that is not shorter than asked for; at most 63 weeks.
pub(in super::super) fn relative_validity_octet(validity: Duration) -> u8 {
    (0..=u8::MAX)
        .find(|octet| relative_validity(*octet) >= validity)
        .unwrap_or(u8::MAX)
}
