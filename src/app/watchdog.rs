//! systemd's watchdog, tied to progress: it is fed only while every task beats and the store answers.

use std::time::Duration;

use log::error;

use super::tasks::{Pulse, Pulses, Shutdown};
use crate::store::Store;
use crate::systemd;

/// How long a task may be silent. Tasks beat every few seconds; only a stuck one is silent for this long.
const SILENCE: Duration = Duration::from_secs(30);

/// The limit under a watchdog of `interval`. However short that is, a task that has nothing to do beats only every
/// [`Pulse::INTERVAL`] and must not be taken for a stuck one.
fn silence(interval: Duration) -> Duration {
    SILENCE.min(interval / 2).max(Pulse::INTERVAL * 2)
}

/// Feeds the watchdog, if systemd wants it fed, until the stop.
pub(super) async fn run(pulses: Pulses, store: Store, mut shutdown: Shutdown) -> Result<(), String> {
    let Some(interval) = systemd::watchdog_interval() else {
        shutdown.wait().await;
        return Ok(());
    };
    let limit = silence(interval);
    let mut ticks = tokio::time::interval(interval / 4);
    loop {
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let silent = pulses.silent(limit);
        let store_answers = tokio::time::timeout(limit, store.ping()).await.is_ok();
        if silent.is_empty() && store_answers {
            systemd::notify_watchdog();
        } else {
            let tasks = silent.join(", ");
            error!(tasks = tasks.as_str(), store_answers; "No progress: the watchdog is not fed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_watchdog_does_not_take_idle_tasks_for_stuck_ones() {
        assert!(silence(Duration::from_secs(3)) > Pulse::INTERVAL);
        assert_eq!(silence(Duration::from_secs(60)), SILENCE);
    }
}
