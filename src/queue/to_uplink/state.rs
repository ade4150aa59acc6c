//! Who has to wait, and for how long: decisions without clock, store or socket.
//!
//! Times are a monotonic `Duration` since the pump's start.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::time::Duration;

use super::installation::{Hold, HoldKind, Installation, Ticket};
use crate::domain::{ChannelId, ConversationId, InstallationId, Timestamp};
use crate::protocol::budget::{self, Budget, Spent, Statuses};
use crate::protocol::retry::{Backoff, Pacer};
use crate::uplink::{Delivered, Outcome, Scope};

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
    /// How long a status update waits for one that overtakes it. Short enough that nobody who looks at a message
    /// notices.
    pub merge: Duration,
    /// The same while the tokens of the day are running out.
    pub merge_when_short: Duration,
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
            merge: Duration::from_secs(3),
            merge_when_short: Duration::from_secs(60),
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
    pub(super) ticket: Ticket,
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
    /// Tokens of the day, by company.
    budgets: BTreeMap<String, Budget>,
    /// The most that may be spent in a day, if that is configured.
    daily_budget: Option<u64>,
    /// Until which midnight it has been said of a company that this is spent.
    told: BTreeMap<String, Timestamp>,
    /// The wall clock at the pump's start, as it is believed now: the clock may be set while the pump runs.
    start: Timestamp,
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
    pub(super) fn new(patience: Patience, in_flight: usize, daily_budget: Option<u64>) -> Self {
        Self {
            patience,
            in_flight: in_flight.max(1),
            installations: BTreeMap::new(),
            budgets: BTreeMap::new(),
            daily_budget,
            told: BTreeMap::new(),
            start: Timestamp::from_unix_ms(0),
            busy: HashSet::new(),
            excluded: HashSet::new(),
            waits: HashMap::new(),
            alarms: BinaryHeap::new(),
            channels: HashMap::new(),
            accepted: 0,
            failed: 0,
        }
    }

    /// Ends the pauses that are over, and looks at the wall clock.
    pub(super) fn advance(&mut self, now: Duration, wall: Timestamp) {
        self.start = wall.plus_ms(milliseconds(now).saturating_neg());
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

    /// The wall clock at `now`.
    pub(super) fn wall(&self, now: Duration) -> Timestamp {
        self.start.plus_ms(milliseconds(now))
    }

    /// The tokens of an installation's company.
    pub(super) fn budget(&mut self, id: &InstallationId, now: Duration) -> &mut Budget {
        let (allowed, wall) = (self.daily_budget, self.wall(now));
        self.budgets
            .entry(id.company().to_owned())
            .or_insert_with(|| Budget::new(allowed, Spent::default(), wall))
    }

    /// What is known of a company's tokens.
    pub(super) fn budget_of(&self, id: &InstallationId) -> Option<&Budget> {
        self.budgets.get(id.company())
    }

    /// Goes on with what was spent before a restart.
    pub(super) fn resume_budget(&mut self, company: String, spent: Spent, wall: Timestamp) {
        let budget = Budget::new(self.daily_budget, spent, wall);
        self.budgets.insert(company, budget);
    }

    /// What has to survive a restart, by company.
    pub(super) fn spent(&self) -> impl Iterator<Item = (&String, &Spent)> {
        self.budgets
            .iter()
            .map(|(company, budget)| (company, budget.record()))
    }

    /// Whether the gateway has spent what it may in a day; true once a day and company.
    pub(super) fn has_just_spent(&mut self, id: &InstallationId, now: Duration) -> bool {
        let (Some(most), wall) = (self.daily_budget, self.wall(now)) else {
            return false;
        };
        let left = most.saturating_sub(self.budget(id, now).spent(wall));
        let midnight = budget::midnight(wall);
        if left >= budget::RECEIVE || self.told.get(id.company()) == Some(&midnight) {
            return false;
        }
        self.told.insert(id.company().to_owned(), midnight);
        true
    }

    /// How many requests of one installation may begin now.
    pub(super) fn room_of(&mut self, id: &InstallationId, now: Duration) -> usize {
        let (room, in_flight, wall) = (self.room(), self.in_flight, self.wall(now));
        let affordable = self.budget(id, now).room(wall, budget::RECEIVE);
        self.installation(id)
            .room(now, in_flight)
            .min(room)
            .min(affordable)
    }

    /// Which place an installation's status updates have, and how long one waits for another.
    pub(super) fn statuses(&mut self, id: &InstallationId, now: Duration) -> (Statuses, Duration) {
        let wall = self.wall(now);
        let statuses = self.budget(id, now).statuses(wall);
        let wait = match statuses {
            Statuses::ByAge => self.patience.merge,
            Statuses::AfterMessages | Statuses::Wait => self.patience.merge_when_short,
        };
        (statuses, wait)
    }

    /// Whether a channel has to wait.
    pub(super) fn is_channel_held(&self, channel: &ChannelId, now: Duration) -> bool {
        self.channels.get(channel).is_some_and(|wait| wait.next > now)
    }

    /// Conversations that must not be taken.
    pub(super) fn excluded(&self) -> &HashSet<ConversationId> {
        &self.excluded
    }

    /// A request begins, unless the pacer wants to wait that long; for a registration there is no conversation.
    pub(super) fn begin(
        &mut self,
        id: &InstallationId,
        conversation: Option<ConversationId>,
        now: Duration,
    ) -> Result<Ticket, Duration> {
        let cost = match conversation {
            Some(_) => budget::RECEIVE,
            None => budget::REGISTER,
        };
        let ticket = self.installation(id).begin(now, cost)?;
        self.budget(id, now).begin(cost);
        if let Some(conversation) = conversation {
            self.busy.insert(conversation);
            self.excluded.insert(conversation);
        }
        Ok(ticket)
    }

    /// A request has ended without an outcome: there was nothing to send.
    pub(super) fn withdraw(&mut self, id: &InstallationId, ticket: Ticket, now: Duration) {
        self.installation(id).withdraw(ticket);
        self.budget(id, now).withdraw(ticket.cost);
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
        delivered: Delivered,
        jitter: u32,
    ) -> Consequence {
        let Asked {
            installation: id,
            ticket,
            channel,
            conversation,
        } = asked;
        let Delivered { outcome, limits } = delivered;
        let wall = self.wall(now);
        // Refused with 429, or it never arrived: neither is counted by the other side.
        let free = matches!(
            outcome,
            Outcome::Retry {
                scope: Scope::Everything | Scope::Day,
                ..
            }
        );
        self.budget(id, now).end(wall, ticket.cost, free, &limits);
        let installation = self.installation(id);
        installation.end(now, ticket, &limits);
        let current = installation.is_current(ticket);
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
        let wall = self.wall(now);
        let installation = self.installation(asked.installation);
        match scope {
            Scope::Everything => installation.hold(now, current, HoldKind::Trouble, pause),
            Scope::Day => {
                let pause = Pause {
                    after: Some(budget::pause(pause.after, wall, pause.jitter)),
                    ..pause
                };
                installation.hold(now, current, HoldKind::Day, pause);
            }
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

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
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
