//! The server's clock: real, or moved and accelerated so that a test sees days pass.

use std::time::Duration;

/// A clock that starts with the real one.
pub(super) struct Clock {
    /// Real milliseconds since the epoch when speed or time were last changed.
    since: i64,
    /// What the clock showed then.
    shown: i64,
    speed: u32,
}

impl Clock {
    pub(super) const fn new(real_ms: i64) -> Self {
        Self {
            since: real_ms,
            shown: real_ms,
            speed: 1,
        }
    }

    /// Milliseconds since the epoch, as the server sees it.
    pub(super) fn now_ms(&self, real_ms: i64) -> i64 {
        let passed = real_ms.saturating_sub(self.since);
        self.shown
            .saturating_add(passed.saturating_mul(i64::from(self.speed)))
    }

    /// Puts the clock forward.
    pub(super) fn advance(&mut self, by: Duration, real_ms: i64) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.shown = self.now_ms(real_ms).saturating_add(by);
        self.since = real_ms;
    }

    /// Seconds of this clock in one real second from now on.
    pub(super) fn set_speed(&mut self, speed: u32, real_ms: i64) {
        self.shown = self.now_ms(real_ms);
        self.since = real_ms;
        self.speed = speed;
    }
}

/// A time as the header `Date` shows it.
pub(super) fn http_date(unix_ms: i64) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(unix_ms).ok()?;
    jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&at)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_and_accelerated_clock_goes_on_from_where_it_was() {
        let mut clock = Clock::new(1_000);
        assert_eq!(clock.now_ms(1_500), 1_500);
        clock.advance(Duration::from_secs(60), 2_000);
        assert_eq!(clock.now_ms(2_000), 62_000);
        clock.set_speed(100, 3_000);
        assert_eq!(clock.now_ms(3_000), 63_000);
        assert_eq!(clock.now_ms(4_000), 163_000);
    }

    #[test]
    fn the_date_header_has_the_form_of_rfc_9110() {
        assert_eq!(
            http_date(784_111_777_000).as_deref(),
            Some("Sun, 06 Nov 1994 08:49:37 GMT")
        );
    }
}
