//! Drivers → store: what comes up from the hardware is stored in the order it came, many at one sync.

use futures_util::future::join_all;
use log::{debug, info, warn};
use tokio::sync::{mpsc, oneshot, watch};

use crate::domain::{ReceivedMessage, StatusReport, Unmapped};
use crate::driver::{DriverEvent, Stored};
use crate::store::{Inserted, MAX_TEXT, StatusApplied, Store, StoreError};

/// Events that share one round; as many as a broker keeps in flight towards the gateway.
const ROUND: usize = 64;

/// Stores events until every driver has gone or `stop` turns true.
///
/// # Errors
/// In words when the store has stopped: then the daemon must stop too.
pub(super) async fn run(
    store: Store,
    mut events: mpsc::Receiver<DriverEvent>,
    mut stop: watch::Receiver<bool>,
    beat: impl Fn(),
) -> Result<(), String> {
    let mut round = Vec::with_capacity(ROUND);
    let mut ticks = tokio::time::interval(std::time::Duration::from_secs(5));
    loop {
        tokio::select! {
            biased;
            count = events.recv_many(&mut round, ROUND) => if count == 0 { return Ok(()) },
            stopped = stop.wait_for(|stop| *stop) => {
                if let Err(error) = stopped {
                    debug!("The owner of the tasks is gone: {error}");
                }
                return Ok(());
            }
            _ = ticks.tick() => { beat(); continue }
        }
        // `join_all` polls in order, and the first poll hands each write to the store: the order is kept.
        let outcomes = join_all(round.drain(..).map(|event| store_event(&store, event))).await;
        if let Some(fatal) = outcomes.into_iter().flatten().next() {
            return Err(fatal);
        }
    }
}

/// Stores one event and tells its driver. Returns a reason to stop the daemon.
async fn store_event(store: &Store, event: DriverEvent) -> Option<String> {
    match event {
        DriverEvent::Received { message, stored } => answer(stored, received(store, *message).await),
        DriverEvent::Unmapped { record, stored } => answer(stored, unmapped(store, *record).await),
        DriverEvent::Status { report, stored } => answer(stored, status(store, *report).await),
    }
}

fn answer(stored: oneshot::Sender<Stored>, outcome: Result<(), StoreError>) -> Option<String> {
    let (verdict, fatal) = match outcome {
        Ok(()) => (Stored::Acknowledge, None),
        Err(error) => {
            let fatal = error.requires_stop().then(|| error.to_string());
            let verdict = if error.refuses_hardware() {
                Stored::Refused
            } else {
                Stored::Acknowledge
            };
            warn!(reason = error.to_string().as_str(), kept_by_hardware = (verdict == Stored::Refused); "Not stored");
            (verdict, fatal)
        }
    };
    if stored.send(verdict).is_err() {
        debug!("The driver no longer waits for the store");
    }
    fatal
}

async fn received(store: &Store, message: ReceivedMessage) -> Result<(), StoreError> {
    let channel = message.channel.clone();
    if message.text.len() > MAX_TEXT {
        // It will never fit: a visible record with its beginning, instead of refusing the hardware for ever.
        let mut payload = message.text.into_bytes();
        let reason = format!(
            "the text has {} bytes and {MAX_TEXT} are the limit",
            payload.len()
        );
        payload.truncate(Unmapped::MAX_PAYLOAD);
        let source = message.from.as_str().to_owned();
        let received_at = message.received_at;
        return unmapped(
            store,
            Unmapped {
                device: channel.to_string(),
                source,
                payload,
                reason,
                received_at,
            },
        )
        .await;
    }
    match store.insert_incoming(message).await? {
        Inserted::New(id) => {
            info!(message_id = id.to_string().as_str(), channel = channel.as_str(); "Stored incoming message");
        }
        Inserted::Duplicate(id) => {
            debug!(message_id = id.to_string().as_str(), channel = channel.as_str(); "Recognised a repeat");
        }
    }
    Ok(())
}

async fn unmapped(store: &Store, record: Unmapped) -> Result<(), StoreError> {
    warn!(device = record.device.as_str(), reason = record.reason.as_str(); "Could not read what a device sent");
    store.insert_unmapped(record).await
}

async fn status(store: &Store, report: StatusReport) -> Result<(), StoreError> {
    let channel = report.channel.clone();
    match store.apply_status(report).await? {
        StatusApplied::Applied(id) => {
            info!(message_id = id.to_string().as_str(), channel = channel.as_str(); "A device reported on a message");
        }
        StatusApplied::Unchanged(id) => {
            debug!(message_id = id.to_string().as_str(), channel = channel.as_str(); "A device repeated itself");
        }
        StatusApplied::NoMatch => {
            info!(channel = channel.as_str(); "A device reported on a message that nobody knows");
        }
    }
    Ok(())
}
