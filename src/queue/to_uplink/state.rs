//! Who has to wait, and for how long: decisions without clock, store or socket.
//!
//! Times are a monotonic `Duration` since the pump's start.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::time::Duration;

use super::installation::{Era, Hold, HoldKind, Installation};
use crate::domain::{ChannelId, ConversationId, InstallationId};
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

/// A conversation or a channel that waits.
#[derive(Clone, Debug)]
pub(super) struct Wait {
    pub(super) channel: ChannelId,
    pub(super) attempts: u32,
    pub(super) next: Duration,
    pub(super) reason: String,
}

/// What a request was about, and which installation it was made for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) installation: &'a InstallationId,
    pub(super) era: Era,
    pub(super) channel: &'a ChannelId,
    /// `None` for a registration.
    pub(super) conversation: Option<ConversationId>,
}

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
    installations: BTreeMap<InstallationId, Installation>,
    /// Conversations with a request on its way, or whose outcome is being recorded.
    busy: HashSet<ConversationId>,
    /// Busy or waiting conversations.
    excluded: HashSet<ConversationId>,
    waits: HashMap<ConversationId, Wait>,
    alarms: BinaryHeap<Reverse<(Duration, ConversationId)>>,
    channels: HashMap<ChannelId, Wait>,
    pub(super) accepted: u64,
    pub(super) failed: u64,
}

impl State {
    pub(super) fn new(patience: Patience, in_flight: usize) -> Self {
        Self {
            patience,
            in_flight: in_flight.max(1),
            installations: BTreeMap::new(),
            busy: HashSet::new(),
            excluded: HashSet::new(),
            waits: HashMap::new(),
            alarms: BinaryHeap::new(),
            channels: HashMap::new(),
            accepted: 0,
            failed: 0,
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

    pub(super) fn installation(&mut self, id: &InstallationId) -> &mut Installation {
        self.installations
            .entry(id.clone())
            .or_insert_with(|| Installation::new(self.patience))
    }

    /// All installations that were asked for, in the order of their ids.
    pub(super) fn installations(&self) -> &BTreeMap<InstallationId, Installation> {
        &self.installations
    }

    /// How many requests may begin now, of all installations.
    pub(super) fn room(&self) -> usize {
        self.in_flight.saturating_sub(self.running())
    }

    /// How many requests of one installation may begin now.
    pub(super) fn room_of(&mut self, id: &InstallationId, now: Duration) -> usize {
        let (room, in_flight) = (self.room(), self.in_flight);
        self.installation(id).room(now, in_flight).min(room)
    }

    /// Takes the permission of an installation's pacer for one request.
    pub(super) fn take(&mut self, id: &InstallationId, now: Duration) -> Result<(), Duration> {
        self.installation(id).take(now)
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
    pub(super) fn begin(&mut self, id: &InstallationId, conversation: Option<ConversationId>) -> Era {
        if let Some(conversation) = conversation {
            self.busy.insert(conversation);
            self.excluded.insert(conversation);
        }
        self.installation(id).begin()
    }

    /// A request has ended without an outcome: there was nothing to send.
    pub(super) fn end(&mut self, id: &InstallationId) {
        self.installation(id).end();
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
        asked: Asked<'_>,
        outcome: Outcome,
        jitter: u32,
    ) -> Consequence {
        let Asked {
            channel,
            conversation,
            ..
        } = asked;
        let installation = self.installation(asked.installation);
        installation.end();
        let current = installation.is_current(asked.era);
        if answered(&outcome) {
            installation.answered(current);
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
                    let pause = Pause {
                        after: Some(self.patience.gone),
                        ..Pause::new(reason.clone(), jitter)
                    };
                    self.hold_channel(now, channel, pause);
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
                let pause = Pause {
                    reason,
                    after,
                    jitter,
                };
                self.retry(now, current, asked, pause, scope);
                Consequence::Waits
            }
            Outcome::NotAuthorized { reason } => {
                installation.hold(now, current, HoldKind::Token, Pause::new(reason, jitter));
                Consequence::Waits
            }
            Outcome::Gone { reason } => {
                let pause = Pause::new(reason, jitter);
                if installation.sign(current) {
                    installation.hold(now, current, HoldKind::Gone, pause);
                } else {
                    self.postpone(now, channel, conversation, pause);
                }
                Consequence::Waits
            }
        }
    }

    fn retry(&mut self, now: Duration, current: bool, asked: Asked<'_>, pause: Pause, scope: Scope) {
        let installation = self.installation(asked.installation);
        match scope {
            Scope::Everything => installation.hold(now, current, HoldKind::Trouble, pause),
            Scope::Channel => self.hold_channel(now, asked.channel, pause),
            Scope::Conversation => self.postpone(now, asked.channel, asked.conversation, pause),
            Scope::Unclear => {
                if installation.unclear(current, asked.conversation) {
                    let everything = Pause {
                        reason: format!("Several requests in a row failed. The last one: {}", pause.reason),
                        ..pause.clone()
                    };
                    installation.hold(now, current, HoldKind::Trouble, everything);
                }
                self.postpone(now, asked.channel, asked.conversation, pause);
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
            return self.hold_channel(now, channel, pause);
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

    fn hold_channel(&mut self, now: Duration, channel: &ChannelId, pause: Pause) {
        let attempts = self
            .channels
            .get(channel)
            .map_or(0, |wait| wait.attempts)
            .saturating_add(1);
        let wanted = pause
            .after
            .unwrap_or_else(|| self.patience.everything.pause(attempts, pause.jitter));
        let wait = Wait {
            channel: channel.clone(),
            attempts,
            next: now + wanted,
            reason: pause.reason,
        };
        self.channels.insert(channel.clone(), wait);
    }

    /// Learns the limits of the other side.
    pub(super) fn learn(&mut self, id: &InstallationId, now: Duration, limits: &Limits) {
        self.installation(id).learn(now, limits);
    }

    /// A person changed something: everything may be tried again now.
    pub(super) fn retry_now(&mut self) {
        self.installations.values_mut().for_each(Installation::retry_now);
        self.channels.clear();
        self.waits.clear();
        self.alarms.clear();
        self.excluded.clone_from(&self.busy);
    }

    /// When the next pause ends.
    pub(super) fn next_alarm(&self, now: Duration) -> Option<Duration> {
        let holds = self.installations.values().filter_map(Installation::current_hold);
        let hold = holds.map(|hold| hold.until).filter(|at| *at > now).min();
        let channel = self.channels.values().map(|wait| wait.next).min();
        let conversation = self.alarms.peek().map(|Reverse((at, _))| *at);
        [hold, channel, conversation]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .min()
    }

    pub(super) fn hold_of(&self, id: &InstallationId) -> Option<&Hold> {
        self.installations.get(id)?.current_hold()
    }

    pub(super) fn waits(&self) -> &HashMap<ConversationId, Wait> {
        &self.waits
    }

    pub(super) fn channel_waits(&self) -> &HashMap<ChannelId, Wait> {
        &self.channels
    }

    pub(super) fn running(&self) -> usize {
        self.installations.values().map(Installation::running).sum()
    }
}

/// Why something waits, and for how long if the other side says so.
#[derive(Clone)]
pub(super) struct Pause {
    pub(super) reason: String,
    pub(super) after: Option<Duration>,
    pub(super) jitter: u32,
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
