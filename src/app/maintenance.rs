//! Keeps the store tidy: packing, retention, expired keys, orphaned files.

use std::time::Duration;

use log::{info, warn};

use super::tasks::Tasks;
use crate::domain::Timestamp;
use crate::store::{Maintenance, Store};

/// Between rounds when nothing is left to do.
const PAUSE: Duration = Duration::from_secs(600);
/// Between rounds when the last one said that there is more: short, and still leaving room for messages.
const PAUSE_WITH_MORE: Duration = Duration::from_secs(1);
/// The first round waits until the start's own work is done.
const FIRST: Duration = Duration::from_secs(30);

/// Starts the rounds.
pub(super) fn spawn(tasks: &mut Tasks, store: &Store) {
    let (store, mut shutdown) = (store.clone(), tasks.shutdown());
    tasks.spawn("maintenance", async move {
        let mut pause = FIRST;
        loop {
            tokio::select! {
                () = shutdown.wait() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            let now = Timestamp::from_system_time(std::time::SystemTime::now());
            pause = match store.maintain(now).await {
                Ok(done) => {
                    report(&done);
                    if done.more { PAUSE_WITH_MORE } else { PAUSE }
                }
                Err(error) => {
                    warn!(reason = error.to_string().as_str(); "Maintenance of the store failed; it is tried again");
                    PAUSE
                }
            };
        }
    });
}

fn report(done: &Maintenance) {
    if done.removed > 0 || done.orphans > 0 {
        info!(removed = done.removed, orphans = done.orphans; "Removed what is past its retention");
    }
}
