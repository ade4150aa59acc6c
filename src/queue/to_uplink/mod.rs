//! Store → uplink: delivers what waits, in order within a conversation and in parallel across conversations.
//!
//! Requests are made by a few threads that take the next message themselves (`crew`); what may begin, and what follows
//! from an answer, is decided under one lock (`desk`). The task here wakes them, records outcomes in groups and keeps
//! the time. A place in flight is free again as soon as the answer is there; recording goes on beside it, so that a slow
//! disk does not slow the requests.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::warn;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::to_hardware::Links;
use crate::domain::{ChannelId, ProviderChannelId, Timestamp};
use crate::store::{Queue, Store, StoreError};
use crate::uplink::{Registration, Uplink};

mod crew;
mod desk;
mod installation;
mod report;
mod spending;
mod state;
mod status;
#[cfg(test)]
mod tests;

pub use state::Patience;
pub use status::{
    BudgetStatus, HeldChannel, InstallationStatus, UplinkState, UplinkStatus, WaitingConversation,
};

use desk::{Desk, Engine, Settled};
use spending::Spending;
use state::State;

/// How often the pump shows that it is alive and looks whether a channel or the token has changed.
const TICK: Duration = Duration::from_secs(5);
/// After this many failed attempts a waiting conversation is worth a line in the log.
const STUBBORN: u32 = 3;
/// How long a conversation waits whose entry cannot be read or whose channel is configured no more.
const PARKED: Duration = Duration::from_secs(60 * 60);

/// What the pump works with.
pub struct Settings {
    /// The configured channels, with the names they are registered under.
    pub channels: Vec<(ChannelId, Registration)>,
    /// Requests at a time.
    pub in_flight: usize,
    /// For links to files.
    pub links: Links,
    /// How long a stop waits for requests on their way. What is cut off is delivered again after the start, with
    /// the same id.
    pub drain: Duration,
    /// Pauses.
    pub patience: Patience,
    /// The most tokens that the gateway may spend in a day and company; `None` is what Pipedrive gives.
    pub daily_budget: Option<u64>,
}

/// What the rest of the gateway holds of the pump. Cheap to clone.
#[derive(Clone)]
pub struct PumpHandle {
    shared: Arc<Shared>,
}

struct Shared {
    desk: Mutex<Desk>,
    uplink: Arc<dyn Uplink>,
    channels: Vec<(ChannelId, ProviderChannelId)>,
    started: Instant,
    wake: Notify,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

impl PumpHandle {
    /// The present state, for status, metrics and doctor.
    #[must_use]
    pub fn status(&self) -> UplinkStatus {
        let uplink = &self.shared.uplink;
        let channels: Vec<_> = self
            .shared
            .channels
            .iter()
            .map(|(channel, provider)| (channel, uplink.installation(provider)))
            .collect();
        UplinkStatus::of(&self.shared.desk().state, &channels, self.shared.now())
    }

    /// Ends every pause: a person has changed a token, a channel or the network.
    pub fn retry_now(&self) {
        self.shared.desk().state.retry_now();
        self.shared.wake.notify_one();
    }

    /// Counts a call of this cost in tokens that went past the queue.
    pub fn count(&self, channel: &ProviderChannelId, cost: u64) {
        if let Ok(installation) = self.shared.uplink.installation(channel) {
            let now = self.shared.now();
            let mut desk = self.shared.desk();
            let state = &mut desk.state;
            state.advance(now, wall_clock());
            let wall = state.wall(now);
            // What was spent shows although nothing was delivered yet.
            state.installation(&installation);
            state.budget(&installation, now).count(wall, cost);
        }
    }
}

/// The pump, not running yet.
pub struct Pump {
    engine: Arc<Engine>,
    drain: Duration,
    settling: JoinSet<Result<Settled, StoreError>>,
    spending: Spending,
}

fn wall_clock() -> Timestamp {
    Timestamp::from_system_time(std::time::SystemTime::now())
}

impl Pump {
    /// Makes a pump between a store and an uplink.
    #[must_use]
    pub fn new(store: Store, uplink: Arc<dyn Uplink>, settings: Settings) -> (Self, PumpHandle) {
        let state = State::new(settings.patience, settings.in_flight, settings.daily_budget);
        let shared = Arc::new(Shared {
            desk: Mutex::new(Desk::new(state)),
            uplink,
            channels: settings
                .channels
                .iter()
                .map(|(channel, registration)| (channel.clone(), registration.id.clone()))
                .collect(),
            started: Instant::now(),
            wake: Notify::new(),
        });
        let handle = PumpHandle {
            shared: Arc::clone(&shared),
        };
        let pump = Self {
            engine: Arc::new(Engine {
                shared,
                store,
                channels: settings.channels,
                in_flight: settings.in_flight.max(1),
                links: settings.links,
                work: Condvar::new(),
                threads: watch::Sender::new(0),
            }),
            drain: settings.drain,
            settling: JoinSet::new(),
            spending: Spending::default(),
        };
        (pump, handle)
    }

    /// Runs until `stop` turns true and the requests on their way have ended, or the drain limit is reached.
    /// `beat` is called at least every few seconds. The error is for a person: the store has stopped.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>, beat: impl Fn()) -> Result<(), String> {
        let engine = Arc::clone(&self.engine);
        let shared = Arc::clone(&engine.shared);
        let mut changed = engine.store.queue_changed(Queue::ToUplink);
        let mut ticks = tokio::time::interval(TICK);
        self.spending
            .load(&engine.store, &mut shared.desk().state, wall_clock());
        while !*stop.borrow_and_update() {
            changed.mark_unchanged();
            let wake_at = self.proceed()?;
            tokio::select! {
                Some(settled) = self.settling.join_next() => self.settled(settled)?,
                alive = changed.changed() => if alive.is_err() { return Ok(()) },
                alive = stop.changed() => if alive.is_err() { return Ok(()) },
                () = shared.wake.notified() => {}
                () = sleep_until(wake_at) => {}
                _ = ticks.tick() => {
                    shared.desk().state.tidy(shared.now());
                    self.save_spending();
                    beat();
                }
            }
        }
        let drained = self.drain(beat).await;
        let spent = self.spending.changed(&shared.desk().state, shared.now(), true);
        spending::keep(&engine.store, spent).await;
        drained
    }

    /// Begins what may begin, hands over what is to be recorded, and says when to look again.
    fn proceed(&mut self) -> Result<Option<Instant>, String> {
        let engine = Arc::clone(&self.engine);
        let mut desk = engine.shared.desk();
        if let Some(reason) = desk.failure.take() {
            return Err(reason);
        }
        let alarm = if desk.closed {
            None
        } else {
            engine.dispatch(&mut desk)
        };
        desk.alarm = alarm;
        engine.hire(&mut desk, false);
        if let Some(records) = engine.take_records(&mut desk) {
            let store = engine.store.clone();
            self.settling.spawn(async move { records.keep(&store).await });
        }
        Ok(alarm.map(|at| engine.shared.started + at))
    }

    /// Writes what was spent, once in a while: a crash forgets a minute, and a 429 would tell.
    fn save_spending(&mut self) {
        let shared = &self.engine.shared;
        let changed = self.spending.changed(&shared.desk().state, shared.now(), false);
        if !changed.is_empty() {
            let store = self.engine.store.clone();
            self.settling.spawn(async move {
                spending::keep(&store, changed).await;
                Ok(Settled::default())
            });
        }
    }

    async fn drain(&mut self, beat: impl Fn()) -> Result<(), String> {
        let engine = Arc::clone(&self.engine);
        let limit = Instant::now() + self.drain;
        let mut ticks = tokio::time::interval(TICK);
        engine.close();
        loop {
            self.proceed()?;
            if engine.shared.desk().is_done() {
                break;
            }
            tokio::select! {
                Some(settled) = self.settling.join_next() => self.settled(settled)?,
                () = engine.shared.wake.notified() => {}
                _ = ticks.tick() => beat(),
                () = tokio::time::sleep_until(limit) => {
                    let left = engine.shared.desk().state.running();
                    warn!(left; "Stopped before every answer was there; these messages are delivered again after the start");
                    return Ok(());
                }
            }
        }
        // They hold the store, which somebody may want to close now.
        let mut threads = engine.threads.subscribe();
        drop(tokio::time::timeout_at(limit, threads.wait_for(|threads| *threads == 0)).await);
        Ok(())
    }

    fn settled(&mut self, settled: Result<Result<Settled, StoreError>, JoinError>) -> Result<(), String> {
        let settled = settled
            .map_err(|error| format!("recording an answer of Pipedrive broke off: {error}"))?
            .map_err(|error| format!("an answer of Pipedrive could not be recorded: {error}"))?;
        let mut desk = self.engine.shared.desk();
        self.engine.recorded(&mut desk, &settled);
        Ok(())
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.engine.shared.desk().jobs.clear();
        self.engine.close();
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
