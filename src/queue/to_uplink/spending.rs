//! What was spent today, kept over a restart: small notes in the store, written once a minute at most.

use std::collections::BTreeMap;
use std::time::Duration;

use log::warn;

use super::state::State;
use crate::domain::Timestamp;
use crate::protocol::budget::Spent;
use crate::store::{Note, Store};

/// Under which the notes lie.
const OWNER: &str = "uplink";
/// In front of the company in a note's key.
const PREFIX: &str = "budget:";
/// Pause between two writes.
const PAUSE: Duration = Duration::from_secs(60);

/// What is written already.
#[derive(Default)]
pub(super) struct Spending {
    written: BTreeMap<String, Spent>,
    next: Duration,
}

impl Spending {
    /// Goes on with what is on record. What cannot be read is forgotten: a 429 would tell.
    pub(super) fn load(&mut self, store: &Store, state: &mut State, wall: Timestamp) {
        let notes = match store
            .reader()
            .notes(OWNER, PREFIX.as_bytes(), usize::MAX, |_| true)
        {
            Ok(notes) => notes,
            Err(error) => {
                warn!("What was spent of the day's tokens cannot be read: {error}");
                return;
            }
        };
        for (key, value) in notes {
            let company = key.get(PREFIX.len()..).map(<[u8]>::to_vec);
            let company = company.and_then(|key| String::from_utf8(key).ok());
            let spent = serde_json::from_slice::<Spent>(&value).ok();
            if let (Some(company), Some(spent)) = (company, spent) {
                self.written.insert(company.clone(), spent.clone());
                state.resume_budget(company, spent, wall);
            }
        }
    }

    /// The notes that have to be written, if it is time or `at_once`.
    pub(super) fn changed(&mut self, state: &State, now: Duration, at_once: bool) -> Vec<Note> {
        if now < self.next && !at_once {
            return Vec::new();
        }
        let mut notes = Vec::new();
        for (company, spent) in state.spent() {
            if self.written.get(company) == Some(spent) {
                continue;
            }
            if let Ok(value) = serde_json::to_vec(spent) {
                notes.push((format!("{PREFIX}{company}").into_bytes(), Some(value)));
                self.written.insert(company.clone(), spent.clone());
                self.next = now + PAUSE;
            }
        }
        notes
    }
}

/// Writes notes. A failure is no reason to stop: the store's own writes find out what is wrong.
pub(super) async fn keep(store: &Store, notes: Vec<Note>) {
    if notes.is_empty() {
        return;
    }
    if let Err(error) = store.keep_notes_in_time(OWNER, notes).await {
        warn!("What was spent of the day's tokens cannot be written: {error}");
    }
}
