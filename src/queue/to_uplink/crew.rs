//! The threads that make requests.
//!
//! A thread that has an answer takes what comes next itself: under a backlog nothing goes to another thread and back
//! for a message. Threads begin when there is work for one more, and end when they have idled for a while: an idle
//! gateway holds no thread and no stack for them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use log::warn;

use super::desk::{Desk, Engine};

/// How long a thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(10);

impl Engine {
    /// Sees to it that there is a thread for every job. `here`: whether the caller takes one itself.
    pub(super) fn hire(self: &Arc<Self>, desk: &mut Desk, here: bool) {
        let waiting = desk.jobs.len().saturating_sub(usize::from(here));
        for _ in 0..waiting.min(desk.idle) {
            self.work.notify_one();
        }
        for _ in desk.idle..waiting {
            self.threads.send_modify(|threads| *threads += 1);
            let engine = Arc::clone(self);
            let begun = std::thread::Builder::new()
                .name("uplink".to_owned())
                .spawn(move || engine.work());
            if let Err(error) = begun {
                self.threads.send_modify(|threads| *threads -= 1);
                // The others take it, or the next look does.
                warn!("No thread for a request to Pipedrive: {error}");
                return;
            }
        }
    }

    fn work(self: Arc<Self>) {
        let mut desk = self.shared.desk();
        loop {
            let Some(job) = desk.jobs.pop_front() else {
                if desk.closed {
                    break;
                }
                let (again, timed_out) = self.idle(desk);
                desk = again;
                if timed_out && desk.jobs.is_empty() {
                    break;
                }
                continue;
            };
            drop(desk);
            let ended = catch_unwind(AssertUnwindSafe(|| self.perform(job)));
            desk = self.shared.desk();
            match ended {
                Ok(ended) => self.ended(&mut desk, ended),
                Err(_) => desk.fail("a delivery to Pipedrive broke off".to_owned()),
            }
            self.next(&mut desk);
        }
        drop(desk);
        let threads = self.threads.clone();
        // Whoever waits for the threads wants what they hold.
        drop(self);
        threads.send_modify(|threads| *threads -= 1);
    }

    fn idle<'a>(&'a self, mut desk: MutexGuard<'a, Desk>) -> (MutexGuard<'a, Desk>, bool) {
        desk.idle += 1;
        let (mut desk, waited) = self
            .work
            .wait_timeout(desk, IDLE)
            .unwrap_or_else(PoisonError::into_inner);
        desk.idle -= 1;
        (desk, waited.timed_out())
    }

    /// Begins what may begin now, and wakes the task when it has something to do.
    fn next(self: &Arc<Self>, desk: &mut Desk) {
        if desk.closed || desk.failure.is_some() {
            self.shared.wake.notify_one();
            return;
        }
        let alarm = self.dispatch(desk);
        self.hire(desk, true);
        let earlier = alarm.is_some_and(|at| desk.alarm.is_none_or(|known| at < known));
        if earlier || self.is_time_to_record(desk) {
            self.shared.wake.notify_one();
        }
    }

    /// No thread takes anything up any more; those that idle end.
    pub(super) fn close(&self) {
        let mut desk = self.shared.desk();
        desk.closed = true;
        drop(desk);
        self.work.notify_all();
    }
}
