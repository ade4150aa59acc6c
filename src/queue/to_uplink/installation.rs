//! What belongs to one installation, because it belongs to its token or its company: pauses, pace, limits.

use std::collections::HashSet;
use std::time::Duration;

use super::state::{Patience, Pause};
use crate::domain::ConversationId;
use crate::protocol::retry::{Limits, Pacer, Permit};

/// Why everything of an installation waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HoldKind {
    Trouble,
    Token,
    Gone,
    /// The company's tokens of the day are spent.
    Day,
}

#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) kind: HoldKind,
    pub(super) reason: String,
    pub(super) since: Duration,
    pub(super) until: Duration,
    failures: u32,
}

/// A request that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// Which hold was in force then: an answer that belongs to an older one changes nothing.
    era: u64,
    permit: Permit,
    /// Tokens that it costs.
    pub(super) cost: u64,
}

pub(super) struct Installation {
    patience: Patience,
    pacer: Pacer,
    hold: Option<Hold>,
    era: u64,
    /// Conversations that failed without a clear reason since the last sensible answer.
    unclear: HashSet<Option<ConversationId>>,
    signs: u32,
    running: usize,
}

impl Installation {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            pacer: Pacer::new(patience.window),
            hold: None,
            era: 0,
            unclear: HashSet::new(),
            signs: 0,
            running: 0,
        }
    }

    /// How many requests may begin now, of `in_flight` at a time. After a hold, and after the first sign that the
    /// API is gone, it is one at a time: a request that finds out.
    pub(super) fn room(&self, now: Duration, in_flight: usize) -> usize {
        let allowed = match &self.hold {
            Some(hold) if hold.until > now => 0,
            Some(_) => 1,
            None if self.signs > 0 => 1,
            None => in_flight,
        };
        allowed.saturating_sub(self.running)
    }

    /// Begins one request, or says how long the pacer wants to wait.
    pub(super) fn begin(&mut self, now: Duration, cost: u64) -> Result<Ticket, Duration> {
        let permit = self.pacer.take(now)?;
        self.running += 1;
        Ok(Ticket {
            era: self.era,
            permit,
            cost,
        })
    }

    /// Nothing was sent.
    pub(super) fn withdraw(&mut self, ticket: Ticket) {
        self.running = self.running.saturating_sub(1);
        self.pacer.withdraw(ticket.permit);
    }

    /// The answer is there, or none will come.
    pub(super) fn end(&mut self, now: Duration, ticket: Ticket, limits: &Limits) {
        self.running = self.running.saturating_sub(1);
        self.pacer.answered(now, ticket.permit, limits);
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// Requests that began before the present hold say nothing about what it found out.
    pub(super) fn is_current(&self, ticket: Ticket) -> bool {
        ticket.era == self.era
    }

    /// The API itself gave a sensible answer.
    pub(super) fn answered(&mut self, current: bool) {
        self.signs = 0;
        self.unclear.clear();
        if current {
            self.hold = None;
        }
    }

    /// A sign that the API is gone. Returns whether that is proved now.
    pub(super) fn sign(&mut self, current: bool) -> bool {
        if current {
            self.signs += 1;
        }
        self.signs >= self.patience.signs
    }

    /// A failure without a clear reason. Returns whether it means everything: one conversation that fails again and
    /// again says nothing about the others.
    pub(super) fn unclear(&mut self, current: bool, conversation: Option<ConversationId>) -> bool {
        if current {
            self.unclear.insert(conversation);
        }
        let everything = self.unclear.len() >= self.patience.unclear;
        if everything {
            self.unclear.clear();
        }
        everything
    }

    /// Everything waits. Requests that were on their way when the hold began do not make it longer.
    pub(super) fn hold(&mut self, now: Duration, current: bool, kind: HoldKind, pause: Pause) {
        if !current {
            return;
        }
        let earlier = self.hold.as_ref().filter(|hold| hold.kind == kind);
        let failures = earlier.map_or(0, |hold| hold.failures).saturating_add(1);
        let since = earlier.map_or(now, |hold| hold.since);
        let wanted = match kind {
            HoldKind::Gone => self.patience.gone,
            HoldKind::Token => self.patience.token.pause(failures, pause.jitter),
            HoldKind::Trouble | HoldKind::Day => pause
                .after
                .unwrap_or_else(|| self.patience.everything.pause(failures, pause.jitter)),
        };
        self.era += 1;
        self.hold = Some(Hold {
            kind,
            reason: pause.reason,
            since,
            until: now + wanted,
            failures,
        });
    }

    /// A person changed something.
    pub(super) fn retry_now(&mut self) {
        self.hold = None;
        self.era += 1;
        self.signs = 0;
        self.unclear.clear();
    }

    pub(super) fn current_hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }
}
