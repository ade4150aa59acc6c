//! Reads of the store, off the runtime's thread.
//!
//! Waking a thread for each request and letting it sleep again costs more than a short page. So one that works takes
//! what has been asked for meanwhile, and only who finds nobody at work wakes somebody.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// How many reads run at a time at most. More only cost threads: a Pi has four cores.
const MOST: usize = 4;
/// A read that waits for so long waits for the disk, not for the processor: another thread helps then.
const STUCK: Duration = Duration::from_millis(20);

type Job = Box<dyn FnOnce() + Send>;

/// What waits, and how many threads work on it.
pub(super) struct Reads {
    state: Mutex<State>,
    /// Threads that are worth their while when nothing waits for the disk: the runtime has one core for itself.
    at_once: usize,
}

#[derive(Default)]
struct State {
    /// No more than there are connections.
    waiting: VecDeque<(Job, Instant)>,
    workers: usize,
}

impl Reads {
    pub(super) fn new() -> Arc<Self> {
        let cores = available_parallelism().map_or(1, NonZeroUsize::get);
        Arc::new(Self {
            state: Mutex::default(),
            at_once: cores.saturating_sub(1).clamp(1, MOST),
        })
    }

    /// Runs something where blocking is allowed. `None` when it panicked, or when the gateway is ending.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.add(Box::new(move || {
            // Nobody may wait for it any more.
            if !answer.is_closed() {
                answer.send(read()).ok();
            }
        }));
        answered.await.ok()
    }

    fn add(self: &Arc<Self>, job: Job) {
        let now = Instant::now();
        let mut state = self.lock();
        let stuck = state
            .waiting
            .front()
            .is_some_and(|(_, since)| now.duration_since(*since) > STUCK);
        state.waiting.push_back((job, now));
        let enough = if stuck { MOST } else { self.at_once };
        if state.workers >= enough {
            return;
        }
        state.workers += 1;
        drop(state);
        let reads = Arc::clone(self);
        tokio::task::spawn_blocking(move || reads.work());
    }

    /// Does what waits, until nothing does.
    fn work(&self) {
        while let Some(job) = self.next() {
            // Who waits for it sees that there is no answer; the panic itself is told of by the hook.
            catch_unwind(AssertUnwindSafe(job)).ok();
        }
    }

    /// The next job; without one the thread that asks no longer counts.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.workers = state.workers.saturating_sub(1);
        }
        next.map(|(job, _)| job)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_read_is_answered_also_behind_one_that_panics_and_one_that_nobody_waits_for() {
        let reads = Reads::new();
        let mut answers = tokio::task::JoinSet::new();
        for number in 0..200 {
            let reads = Arc::clone(&reads);
            answers.spawn(async move {
                if number % 7 == 0 {
                    drop(tokio::time::timeout(Duration::ZERO, reads.run(|| 0)).await);
                }
                let answer = reads.run(move || {
                    if number % 50 == 3 {
                        panic!("{number}")
                    } else {
                        number
                    }
                });
                (number, answer.await)
            });
        }
        while let Some(answer) = answers.join_next().await {
            let (number, answer) = answer.unwrap();
            assert_eq!(answer, (number % 50 != 3).then_some(number));
        }
    }

    #[tokio::test]
    async fn a_read_that_waits_for_the_disk_does_not_hold_up_the_others_for_long() {
        let reads = Reads::new();
        let (go_on, held) = std::sync::mpsc::sync_channel::<()>(1);
        let slow = tokio::spawn({
            let reads = Arc::clone(&reads);
            async move { reads.run(move || held.recv().is_ok()).await }
        });
        // As many as it takes: each that comes after `STUCK` may find a thread of its own.
        let quick = async {
            loop {
                let answer = reads.run(|| 7);
                if let Ok(Some(7)) = tokio::time::timeout(STUCK * 2, answer).await {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), quick)
            .await
            .unwrap();
        go_on.send(()).unwrap();
        assert_eq!(slow.await.unwrap(), Some(true));
    }
}
