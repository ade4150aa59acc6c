//! systemd's watchdog, tied to progress: it is fed only while every task beats and the store answers.

use std::time::Duration;

use log::error;

use super::tasks::{Pulses, Shutdown};
use crate::store::Store;
use crate::systemd;

/// How long a task may be silent. Tasks beat every few seconds; only a stuck one is silent for this long.
const SILENCE: Duration = Duration::from_secs(30);

/// Feeds the watchdog, if systemd wants it fed, until the stop.
pub(super) async fn run(pulses: Pulses, store: Store, mut shutdown: Shutdown) -> Result<(), String> {
    let Some(interval) = systemd::watchdog_interval() else {
        shutdown.wait().await;
        return Ok(());
    };
    let limit = SILENCE.min(interval / 2);
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
