//! Named tasks with an owner: started, watched and drained together.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use log::{debug, error, warn};
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

/// Tells every task that the gateway stops. Cheap to clone.
#[derive(Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Whether the stop has begun.
    #[must_use]
    pub fn begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the stop begins.
    pub async fn wait(&mut self) {
        // An error means that the owner is gone, which is a stop as well.
        if self.0.wait_for(|stop| *stop).await.is_err() {
            debug!("The owner of the tasks is gone");
        }
    }

    /// The flag itself, for rooms below that take a plain watch.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.0.clone()
    }
}

/// The pulse of one task: it beats while the task makes progress. The watchdog looks at all of them.
#[derive(Clone)]
pub struct Pulse(Arc<AtomicU64>, Instant);

impl Pulse {
    /// How often a task that has nothing to do must beat.
    pub const INTERVAL: Duration = Duration::from_secs(5);

    /// Says that the task is alive and not stuck.
    pub fn beat(&self) {
        let elapsed = u64::try_from(self.1.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.store(elapsed, Ordering::Relaxed);
    }
}

/// All tasks of the daemon.
pub struct Tasks {
    set: JoinSet<Result<(), String>>,
    names: HashMap<Id, String>,
    stop: watch::Sender<bool>,
    pulses: Pulses,
}

/// A task's name and when it last beat, in milliseconds since the start.
type Beat = (String, Arc<AtomicU64>);

/// The pulses of all tasks that promised to beat.
#[derive(Clone)]
pub struct Pulses {
    beats: Arc<Mutex<Vec<Beat>>>,
    start: Instant,
}

impl Pulses {
    /// Names of the tasks that have not beaten for longer than `limit`.
    #[must_use]
    pub fn silent(&self, limit: Duration) -> Vec<String> {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats
            .iter()
            .filter(|(_, beat)| now.saturating_sub(beat.load(Ordering::Relaxed)) > limit)
            .map(|(name, _)| name.clone())
            .collect()
    }
}

impl Default for Tasks {
    fn default() -> Self {
        let pulses = Pulses {
            beats: Arc::default(),
            start: Instant::now(),
        };
        Self {
            set: JoinSet::new(),
            names: HashMap::new(),
            stop: watch::Sender::new(false),
            pulses,
        }
    }
}

impl Tasks {
    /// What a new task waits on for the stop.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        Shutdown(self.stop.subscribe())
    }

    /// A pulse for a task that is about to be spawned.
    #[must_use]
    pub fn pulse(&self, name: &str) -> Pulse {
        let beat = Arc::new(AtomicU64::new(0));
        let pulse = Pulse(Arc::clone(&beat), self.pulses.start);
        pulse.beat();
        self.pulses
            .beats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((name.to_owned(), beat));
        pulse
    }

    /// The pulses, for the watchdog.
    #[must_use]
    pub fn pulses(&self) -> Pulses {
        self.pulses.clone()
    }

    /// Starts a task that runs until the stop. Ending earlier, or with an error, stops the gateway.
    pub fn spawn(&mut self, name: &str, task: impl Future<Output = Result<(), String>> + Send + 'static) {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name.to_owned());
    }

    fn finished(&mut self, id: Id) -> String {
        self.names.remove(&id).unwrap_or_else(|| "unnamed".to_owned())
    }

    fn outcome(
        &mut self,
        joined: Result<(Id, Result<(), String>), JoinError>,
    ) -> (String, Result<(), String>) {
        match joined {
            Ok((id, outcome)) => (self.finished(id), outcome),
            Err(failure) => (
                self.finished(failure.id()),
                Err(format!("the task broke off: {failure}")),
            ),
        }
    }

    /// Waits for the first task that ends although nobody asked it to; never returns while all run.
    pub async fn first_end(&mut self) -> (String, Result<(), String>) {
        match self.set.join_next_with_id().await {
            Some(joined) => self.outcome(joined),
            None => std::future::pending().await,
        }
    }

    /// Asks every task to stop and waits for them. Returns the names of those that were still running at the
    /// limit; those are aborted.
    pub async fn drain(mut self, limit: Duration) -> Vec<String> {
        self.stop.send_replace(true);
        let deadline = Instant::now() + limit;
        while let Ok(Some(joined)) = tokio::time::timeout_at(deadline, self.set.join_next_with_id()).await {
            let (task, outcome) = self.outcome(joined);
            match outcome {
                Ok(()) => debug!(task = task.as_str(); "Task drained"),
                Err(reason) => {
                    error!(task = task.as_str(), reason = reason.as_str(); "Task failed while stopping");
                }
            }
        }
        let mut late: Vec<String> = self.names.values().cloned().collect();
        late.sort_unstable();
        for task in &late {
            warn!("still running after {} s: {task}", limit.as_secs());
        }
        self.set.shutdown().await;
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ignores_the_stop_is_named() {
        let mut tasks = Tasks::default();
        let mut shutdown = tasks.shutdown();
        tasks.spawn("good", async move {
            shutdown.wait().await;
            Ok(())
        });
        tasks.spawn("modem office", std::future::pending());
        assert_eq!(tasks.drain(Duration::from_millis(50)).await, ["modem office"]);
    }

    #[tokio::test]
    async fn a_task_that_breaks_off_is_reported_with_its_name() {
        let mut tasks = Tasks::default();
        tasks.spawn("broker site", async { Err("no socket".to_owned()) });
        assert_eq!(
            tasks.first_end().await,
            ("broker site".to_owned(), Err("no socket".to_owned()))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_without_a_pulse_is_noticed_and_a_beating_one_is_not() {
        let tasks = Tasks::default();
        let (stuck, alive) = (tasks.pulse("stuck"), tasks.pulse("alive"));
        tokio::time::advance(Duration::from_secs(20)).await;
        alive.beat();
        assert_eq!(tasks.pulses().silent(Duration::from_secs(15)), ["stuck"]);
        stuck.beat();
        assert!(tasks.pulses().silent(Duration::from_secs(15)).is_empty());
    }
}
