//! How long tokens live: arithmetic on times that are passed in.

use std::time::Duration;

use crate::domain::Timestamp;

/// A refresh token dies when it is not used for so long.
pub const REFRESH_TOKEN_LIFE: Duration = Duration::from_secs(60 * DAY);
/// A gateway that has nothing to send refreshes all the same when the last time is so long ago.
pub const IDLE_REFRESH: Duration = Duration::from_secs(DAY);

const DAY: u64 = 24 * 60 * 60;
/// An access token is refreshed so long before it expires, or after nine tenths of a short life.
const MARGIN: Duration = Duration::from_secs(5 * 60);
/// After a refresh the next one is not forced before this, or before a quarter of a short life: a server that refuses
/// every token is not asked for one new token after the other.
const GAP: Duration = Duration::from_secs(60);

/// How long before its end an access token of this lifetime is refreshed.
#[must_use]
pub fn refresh_early(lifetime: Duration) -> Duration {
    MARGIN.min(lifetime / 10)
}

/// How old an access token of this lifetime must be before a refusal of it leads to another refresh.
#[must_use]
pub fn retry_gap(lifetime: Duration) -> Duration {
    GAP.min(lifetime / 4)
}

/// Milliseconds from one time to another; negative when the clock was set back in between.
fn elapsed_ms(since: Timestamp, now: Timestamp) -> i64 {
    now.unix_ms().saturating_sub(since.unix_ms())
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Whether a refresh is due although nothing needs a token. Also when the last one lies in the future: one of the two
/// times is wrong, and a refresh puts that right.
#[must_use]
pub fn idle_refresh_due(refreshed_at: Timestamp, now: Timestamp) -> bool {
    let elapsed = elapsed_ms(refreshed_at, now);
    elapsed < -ms(MARGIN) || elapsed >= ms(IDLE_REFRESH)
}

/// When the refresh token dies unless it is used.
#[must_use]
pub fn dies_at(refreshed_at: Timestamp) -> Timestamp {
    refreshed_at.plus_ms(ms(REFRESH_TOKEN_LIFE))
}

/// How near the end of the refresh token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Warning {
    /// 30 days or less.
    Month,
    /// 7 days or less.
    Week,
    /// One day or less.
    Day,
    /// It should be over; Pipedrive has the last word.
    Over,
}

impl Warning {
    /// For a sentence: `in less than …`.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Month => "in less than 30 days",
            Self::Week => "in less than 7 days",
            Self::Day => "in less than a day",
            Self::Over => "probably already",
        }
    }
}

/// Which warning is due. `None` while all is well: the last refresh is younger than 30 days.
#[must_use]
pub fn warning(refreshed_at: Timestamp, now: Timestamp) -> Option<Warning> {
    let left = ms(REFRESH_TOKEN_LIFE).saturating_sub(elapsed_ms(refreshed_at, now));
    let days = |count: u64| ms(Duration::from_secs(count * DAY));
    if left <= 0 {
        Some(Warning::Over)
    } else if left <= days(1) {
        Some(Warning::Day)
    } else if left <= days(7) {
        Some(Warning::Week)
    } else if left <= days(30) {
        Some(Warning::Month)
    } else {
        None
    }
}
