//! What the gateway says to systemd, and what it hears from it about the clock.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::debug;
use sd_notify::NotifyState;

use crate::domain::Timestamp;

/// systemd-timesyncd makes this file once it has synchronised the clock (systemd-timesyncd.service(8)).
const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";

/// systemd-timesyncd's runtime folder: there while it runs.
const TIMESYNC: &str = "/run/systemd/timesync";

/// No release is older than this, so a clock that shows an earlier time is wrong: 2026-11-01T00:00:00Z.
const RELEASED: Timestamp = Timestamp::from_unix_ms(1_793_491_200_000);

/// How often a clock that is not synchronised is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How often the watchdog must be fed (`$WATCHDOG_USEC`); `None` when systemd does not watch this process.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
}

/// Feeds the watchdog. Call it only after progress: a stuck gateway must be restarted.
pub fn notify_watchdog() {
    notify(&[NotifyState::Watchdog]);
}

/// The start is over; also ends a reload.
pub fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// One line that `systemctl status` shows. Control characters are replaced.
pub fn notify_status(status: &str) {
    let status = one_line(status);
    notify(&[NotifyState::Status(&status)]);
}

/// The stop has begun.
pub fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

/// A reload has begun; [`notify_ready`] ends it.
pub fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => debug!(error = error.to_string().as_str(); "No monotonic time for systemd"),
    }
}

/// Does nothing without `$NOTIFY_SOCKET`.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(error = error.to_string().as_str(); "systemd was not told");
    }
}

/// A line break would begin another assignment of the protocol.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// What is known about the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockState {
    /// systemd-timesyncd says that it is synchronised.
    Synchronized,
    /// Nobody says so, but the time is not before the release and not before the newest stored message.
    Plausible,
    /// systemd-timesyncd runs and has not synchronised it yet.
    Unsynchronized,
    /// It shows a time before this.
    Behind(Timestamp),
}

impl ClockState {
    /// Whether certificates can be judged and messages stamped by it.
    #[must_use]
    pub fn is_trusted(self) -> bool {
        matches!(self, Self::Synchronized | Self::Plausible)
    }
}

impl fmt::Display for ClockState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Synchronized => f.write_str("synchronised"),
            Self::Plausible => {
                f.write_str("plausible (no systemd-timesyncd here to say whether it is synchronised)")
            }
            Self::Unsynchronized => {
                f.write_str("not synchronised (systemd-timesyncd has not reached a time server)")
            }
            Self::Behind(time) => write!(f, "wrong: it shows a time before {time}"),
        }
    }
}

/// Looks at the clock. `newest_stored`: the time of the newest message in the store; the present cannot be
/// before it.
#[must_use]
pub fn clock(newest_stored: Option<Timestamp>) -> ClockState {
    judge(
        Path::new(SYNCHRONIZED).exists(),
        Path::new(TIMESYNC).exists(),
        now(),
        newest_stored,
    )
}

fn judge(
    synchronized: bool,
    has_timesync: bool,
    now: Timestamp,
    newest_stored: Option<Timestamp>,
) -> ClockState {
    let earliest = newest_stored.map_or(RELEASED, |newest| newest.max(RELEASED));
    match (synchronized, has_timesync) {
        (true, _) => ClockState::Synchronized,
        (false, _) if now < earliest => ClockState::Behind(earliest),
        (false, true) => ClockState::Unsynchronized,
        (false, false) => ClockState::Plausible,
    }
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// Waits until the clock can be trusted, at most `limit`; returns what is known about it then.
///
/// A Raspberry Pi has no clock battery: right after power-on certificates look not yet valid. The kernel would
/// know best (`adjtimex`), but `ProtectClock=` of the unit forbids asking it.
pub async fn wait_for_clock(limit: Duration, newest_stored: Option<Timestamp>) -> ClockState {
    wait_until_trusted(limit, || clock(newest_stored)).await
}

async fn wait_until_trusted(limit: Duration, mut look: impl FnMut() -> ClockState) -> ClockState {
    let trusted = async {
        loop {
            let state = look();
            if state.is_trusted() {
                return state;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let waited = tokio::time::timeout(limit, trusted).await;
    waited.unwrap_or_else(|_| look())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_the_release_or_the_newest_message_is_wrong() {
        let day = 86_400_000;
        assert_eq!(
            judge(false, false, RELEASED.plus_ms(-1), None),
            ClockState::Behind(RELEASED)
        );
        assert_eq!(
            judge(false, false, RELEASED.plus_ms(day), None),
            ClockState::Plausible
        );
        let newest = RELEASED.plus_ms(2 * day);
        assert_eq!(
            judge(false, true, RELEASED.plus_ms(day), Some(newest)),
            ClockState::Behind(newest)
        );
    }

    #[test]
    fn systemd_timesyncd_has_the_last_word() {
        assert_eq!(
            judge(true, true, Timestamp::from_unix_ms(0), None),
            ClockState::Synchronized
        );
        assert_eq!(
            judge(false, true, RELEASED.plus_ms(1), None),
            ClockState::Unsynchronized
        );
    }

    #[tokio::test]
    async fn waiting_ends_as_soon_as_the_clock_is_synchronised() {
        let mut looks = 0;
        let state = wait_until_trusted(Duration::from_secs(30), || {
            looks += 1;
            if looks < 2 {
                ClockState::Unsynchronized
            } else {
                ClockState::Synchronized
            }
        });
        assert_eq!(state.await, ClockState::Synchronized);
    }

    #[tokio::test]
    async fn waiting_has_a_limit_and_tells_what_is_wrong() {
        let state = wait_until_trusted(Duration::from_millis(1), || ClockState::Unsynchronized).await;
        assert!(!state.is_trusted());
        assert!(state.to_string().starts_with("not synchronised"), "{state}");
    }

    #[test]
    fn a_status_stays_one_line() {
        assert_eq!(one_line("a\nREADY=1"), "a READY=1");
    }
}
