//! Who has to wait, and for how long: decisions without clock, store or socket.
//!
//! Times are a monotonic `Duration` since the pump's start.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::time::Duration;

use crate::domain::{ChannelId, ConversationId};
use crate::protocol::retry::{Backoff, Limits, Pacer};
use crate::uplink::{Outcome, Scope};

/// How patient the pump is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Pauses of one conversation.
    pub conversation: Backoff,
    /// Pauses of everything, and of a channel.
    pub everything: Backoff,
    /// Pauses while the token is not accepted.
    pub token: Backoff,
    /// How often a withdrawn API is asked whether it is back.
    pub gone: Duration,
    /// Conversations in a row with an unclear failure that mean everything.
    pub unclear: usize,
    /// Signs in a row that the API is gone.
    pub signs: u32,
    /// The rolling window of the server's burst limit.
    pub window: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let backoff = |first, most| Backoff {
            first: Duration::from_secs(first),
            most: Duration::from_secs(most),
        };
        Self {
            conversation: backoff(2, 15 * 60),
            everything: backoff(1, 5 * 60),
            token: backoff(60, 15 * 60),
            gone: Duration::from_secs(60 * 60),
            unclear: 5,
            signs: 3,
            window: Pacer::WINDOW,
        }
    }
}

/// Why everything waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HoldKind {
    Trouble,
    Token,
    Gone,
}

#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) kind: HoldKind,
    pub(super) reason: String,
    pub(super) since: Duration,
    pub(super) until: Duration,
    failures: u32,
}

/// A conversation or a channel that waits.
#[derive(Clone, Debug)]
pub(super) struct Wait {
    pub(super) channel: ChannelId,
    pub(super) attempts: u32,
    pub(super) next: Duration,
    pub(super) reason: String,
}

/// Which hold was in force when a request began: an answer that belongs to an older one changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Era(u64);

/// What the pump has to do about an outcome, beside waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Consequence {
    /// Record that it was accepted.
    Accepted,
    /// Record that it was refused.
    Refused(String),
    /// Record that the channel is unlinked.
    Unlinked(String),
    /// Nothing: it stays in the queue.
    Waits,
}

pub(super) struct State {
    patience: Patience,
    in_flight: usize,
    pacer: Pacer,
    /// Conversations with a request on its way, or whose outcome is being recorded.
    busy: HashSet<ConversationId>,
    /// Busy or waiting conversations.
    excluded: HashSet<ConversationId>,
    waits: HashMap<ConversationId, Wait>,
    alarms: BinaryHeap<Reverse<(Duration, ConversationId)>>,
    channels: HashMap<ChannelId, Wait>,
    hold: Option<Hold>,
    era: u64,
    /// Conversations that failed without a clear reason since the last sensible answer.
    unclear: HashSet<Option<ConversationId>>,
    signs: u32,
    running: usize,
    pub(super) accepted: u64,
    pub(super) failed: u64,
    pub(super) limits: Limits,
}

impl State {
    pub(super) fn new(patience: Patience, in_flight: usize) -> Self {
        Self {
            patience,
            in_flight: in_flight.max(1),
            pacer: Pacer::new(patience.window),
            busy: HashSet::new(),
            excluded: HashSet::new(),
            waits: HashMap::new(),
            alarms: BinaryHeap::new(),
            channels: HashMap::new(),
            hold: None,
            era: 0,
            unclear: HashSet::new(),
            signs: 0,
            running: 0,
            accepted: 0,
            failed: 0,
            limits: Limits::default(),
        }
    }

    /// Ends the pauses that are over.
    pub(super) fn advance(&mut self, now: Duration) {
        while let Some(Reverse((at, conversation))) = self.alarms.peek().copied() {
            if at > now {
                break;
            }
            self.alarms.pop();
            self.unless_waiting(conversation, now);
        }
    }

    /// Forgets conversations whose pause has long been over and which have nothing in the queue any more.
    pub(super) fn tidy(&mut self, now: Duration) {
        let long = self.patience.gone;
        let busy = &self.busy;
        self.waits
            .retain(|conversation, wait| wait.next + long > now || busy.contains(conversation));
    }

    fn unless_waiting(&mut self, conversation: ConversationId, now: Duration) {
        let waits = self.waits.get(&conversation).is_some_and(|wait| wait.next > now);
        if !waits && !self.busy.contains(&conversation) {
            self.excluded.remove(&conversation);
        }
    }

    /// How many requests may begin now. After a hold, and after the first sign that the API is gone, it is one at a
    /// time: a request that finds out.
    pub(super) fn room(&self, now: Duration) -> usize {
        let allowed = match &self.hold {
            Some(hold) if hold.until > now => 0,
            Some(_) => 1,
            None if self.signs > 0 => 1,
            None => self.in_flight,
        };
        allowed.saturating_sub(self.running)
    }

    /// Takes the pacer's permission for one request.
    pub(super) fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.pacer.take(now)
    }

    /// Whether a channel has to wait.
    pub(super) fn is_channel_held(&self, channel: &ChannelId, now: Duration) -> bool {
        self.channels.get(channel).is_some_and(|wait| wait.next > now)
    }

    /// Conversations that must not be taken.
    pub(super) fn excluded(&self) -> &HashSet<ConversationId> {
        &self.excluded
    }

    /// A request begins; for a registration there is no conversation.
    pub(super) fn begin(&mut self, conversation: Option<ConversationId>) -> Era {
        self.running += 1;
        if let Some(conversation) = conversation {
            self.busy.insert(conversation);
            self.excluded.insert(conversation);
        }
        Era(self.era)
    }

    /// A request has ended without an outcome: there was nothing to send.
    pub(super) fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// The outcome is on record: the conversation's next entry may be taken, unless it waits.
    pub(super) fn settle(&mut self, conversation: ConversationId, now: Duration) {
        self.busy.remove(&conversation);
        self.unless_waiting(conversation, now);
    }

    /// A conversation waits although no request was made, e.g. because its channel is configured no more.
    pub(super) fn park(
        &mut self,
        conversation: ConversationId,
        channel: &ChannelId,
        reason: String,
        until: Duration,
    ) {
        let attempts = self.waits.get(&conversation).map_or(0, |wait| wait.attempts);
        self.excluded.insert(conversation);
        self.alarms.push(Reverse((until, conversation)));
        let wait = Wait {
            channel: channel.clone(),
            attempts,
            next: until,
            reason,
        };
        self.waits.insert(conversation, wait);
    }

    /// A request has ended with an answer.
    pub(super) fn judge(
        &mut self,
        now: Duration,
        era: Era,
        channel: &ChannelId,
        conversation: Option<ConversationId>,
        outcome: Outcome,
        jitter: u32,
    ) -> Consequence {
        self.end();
        // Requests that began before the present hold say nothing about what it found out.
        let current = era.0 == self.era;
        if !matches!(outcome, Outcome::Gone { .. }) && answered(&outcome) {
            self.signs = 0;
            self.unclear.clear();
            if current {
                self.hold = None;
            }
        }
        match outcome {
            Outcome::Accepted => {
                self.accepted += u64::from(conversation.is_some());
                self.clear(channel, conversation);
                Consequence::Accepted
            }
            Outcome::Rejected { reason } => {
                if conversation.is_some() {
                    self.failed += 1;
                    self.clear(channel, conversation);
                } else {
                    // A registration that is refused: only a person can change what is sent.
                    self.hold_channel(now, channel, reason.clone(), Some(self.patience.gone), jitter);
                }
                Consequence::Refused(reason)
            }
            // Meanwhile a person may have registered the channel again: the next request finds out.
            Outcome::ChannelUnlinked { .. } if !current => Consequence::Waits,
            Outcome::ChannelUnlinked { reason } => {
                self.clear(channel, conversation);
                Consequence::Unlinked(reason)
            }
            Outcome::Retry { reason, after, scope } => {
                self.retry(
                    now,
                    current,
                    channel,
                    conversation,
                    Pause {
                        reason,
                        after,
                        jitter,
                    },
                    scope,
                );
                Consequence::Waits
            }
            Outcome::NotAuthorized { reason } => {
                self.hold(now, current, HoldKind::Token, Pause::new(reason, jitter));
                Consequence::Waits
            }
            Outcome::Gone { reason } => {
                if current {
                    self.signs += 1;
                }
                if self.signs >= self.patience.signs {
                    self.hold(now, current, HoldKind::Gone, Pause::new(reason, jitter));
                } else {
                    self.postpone(now, channel, conversation, Pause::new(reason, jitter));
                }
                Consequence::Waits
            }
        }
    }

    fn retry(
        &mut self,
        now: Duration,
        current: bool,
        channel: &ChannelId,
        conversation: Option<ConversationId>,
        pause: Pause,
        scope: Scope,
    ) {
        match scope {
            Scope::Everything => {
                self.hold(now, current, HoldKind::Trouble, pause);
            }
            Scope::Channel => {
                self.hold_channel(now, channel, pause.reason, pause.after, pause.jitter);
            }
            Scope::Conversation => self.postpone(now, channel, conversation, pause),
            Scope::Unclear => {
                // One that fails again and again says nothing about the others.
                if current {
                    self.unclear.insert(conversation);
                }
                if self.unclear.len() >= self.patience.unclear {
                    self.unclear.clear();
                    let everything = Pause {
                        reason: format!("Several requests in a row failed. The last one: {}", pause.reason),
                        ..pause.clone()
                    };
                    self.hold(now, current, HoldKind::Trouble, everything);
                }
                self.postpone(now, channel, conversation, pause);
            }
        }
    }

    fn clear(&mut self, channel: &ChannelId, conversation: Option<ConversationId>) {
        self.channels.remove(channel);
        if let Some(conversation) = conversation {
            self.waits.remove(&conversation);
        }
    }

    fn postpone(
        &mut self,
        now: Duration,
        channel: &ChannelId,
        conversation: Option<ConversationId>,
        pause: Pause,
    ) {
        let Some(conversation) = conversation else {
            return self.hold_channel(now, channel, pause.reason, pause.after, pause.jitter);
        };
        let attempts = self
            .waits
            .get(&conversation)
            .map_or(0, |wait| wait.attempts)
            .saturating_add(1);
        let wanted = pause
            .after
            .unwrap_or_else(|| self.patience.conversation.pause(attempts, pause.jitter));
        self.park(conversation, channel, pause.reason, now + wanted);
        if let Some(wait) = self.waits.get_mut(&conversation) {
            wait.attempts = attempts;
        }
    }

    fn hold_channel(
        &mut self,
        now: Duration,
        channel: &ChannelId,
        reason: String,
        after: Option<Duration>,
        jitter: u32,
    ) {
        let attempts = self
            .channels
            .get(channel)
            .map_or(0, |wait| wait.attempts)
            .saturating_add(1);
        let pause = after.unwrap_or_else(|| self.patience.everything.pause(attempts, jitter));
        let wait = Wait {
            channel: channel.clone(),
            attempts,
            next: now + pause,
            reason,
        };
        self.channels.insert(channel.clone(), wait);
    }

    /// Everything waits. Requests that were on their way when the hold began do not make it longer.
    fn hold(&mut self, now: Duration, current: bool, kind: HoldKind, pause: Pause) {
        if !current {
            return;
        }
        let earlier = self.hold.as_ref().filter(|hold| hold.kind == kind);
        let failures = earlier.map_or(0, |hold| hold.failures).saturating_add(1);
        let since = earlier.map_or(now, |hold| hold.since);
        let wanted = match kind {
            HoldKind::Gone => self.patience.gone,
            HoldKind::Token => self.patience.token.pause(failures, pause.jitter),
            HoldKind::Trouble => pause
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

    /// Learns the limits of the other side.
    pub(super) fn learn(&mut self, now: Duration, limits: &Limits) {
        if *limits != Limits::default() {
            self.limits = *limits;
            self.pacer.learn(now, limits);
        }
    }

    /// A person changed something: everything may be tried again now.
    pub(super) fn retry_now(&mut self) {
        self.hold = None;
        self.era += 1;
        self.signs = 0;
        self.unclear.clear();
        self.channels.clear();
        self.waits.clear();
        self.alarms.clear();
        self.excluded.clone_from(&self.busy);
    }

    /// When the next pause ends.
    pub(super) fn next_alarm(&self, now: Duration) -> Option<Duration> {
        let hold = self.hold.as_ref().map(|hold| hold.until);
        let channel = self.channels.values().map(|wait| wait.next).min();
        let conversation = self.alarms.peek().map(|Reverse((at, _))| *at);
        [hold, channel, conversation]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .min()
    }

    pub(super) fn current_hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }

    pub(super) fn waits(&self) -> &HashMap<ConversationId, Wait> {
        &self.waits
    }

    pub(super) fn channel_waits(&self) -> &HashMap<ChannelId, Wait> {
        &self.channels
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }
}

#[derive(Clone)]
struct Pause {
    reason: String,
    after: Option<Duration>,
    jitter: u32,
}

impl Pause {
    fn new(reason: String, jitter: u32) -> Self {
        Self {
            reason,
            after: None,
            jitter,
        }
    }
}

/// Whether the API itself gave a sensible answer.
fn answered(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Accepted | Outcome::Rejected { .. } | Outcome::ChannelUnlinked { .. } => true,
        Outcome::Retry { scope, .. } => matches!(scope, Scope::Conversation | Scope::Channel),
        Outcome::NotAuthorized { .. } | Outcome::Gone { .. } => false,
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
