//! Store → uplink: delivers what waits, in order within a conversation and in parallel across conversations.
//!
//! A request runs on a thread of tokio's blocking pool, which ends when it has nothing to do for ten seconds: an
//! idle gateway holds no thread and no stack for it. A slot is free again as soon as the answer is there; recording
//! the outcome goes on beside it, so that a slow disk does not slow the requests.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::{error, warn};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::to_hardware::Links;
use crate::domain::{ChannelId, ConversationId, InstallationId, MessageId, ProviderChannelId, Timestamp};
use crate::protocol::budget::Statuses;
use crate::store::{ChannelLink, Head, Queue, Store, StoreError, Updates, UplinkKind};
use crate::uplink::{Delivered, Delivery, Kind, Outcome, Registration, Uplink};

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

use installation::Ticket;
use report::{link_files, report, report_hold};
use spending::Spending;
use state::{Asked, Consequence, State};

/// Outcomes that may wait to be recorded, for each request in flight.
const SETTLING: usize = 4;
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
    state: Mutex<State>,
    uplink: Arc<dyn Uplink>,
    channels: Vec<(ChannelId, ProviderChannelId)>,
    started: Instant,
    wake: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        UplinkStatus::of(&self.shared.state(), &channels, self.shared.now())
    }

    /// Ends every pause: a person has changed a token, a channel or the network.
    pub fn retry_now(&self) {
        self.shared.state().retry_now();
        self.shared.wake.notify_one();
    }

    /// Counts a call of this cost in tokens that went past the queue.
    pub fn count(&self, channel: &ProviderChannelId, cost: u64) {
        if let Ok(installation) = self.shared.uplink.installation(channel) {
            let now = self.shared.now();
            let mut state = self.shared.state();
            state.advance(now, wall_clock());
            let wall = state.wall(now);
            state.budget(&installation, now).count(wall, cost);
        }
    }
}

/// The pump, not running yet.
pub struct Pump {
    store: Store,
    settings: Settings,
    shared: Arc<Shared>,
    requests: JoinSet<Ended>,
    settling: JoinSet<Settled>,
    registering: HashSet<ChannelId>,
    spending: Spending,
}

/// A request that has ended.
struct Ended {
    installation: InstallationId,
    channel: ChannelId,
    work: Work,
    ticket: Ticket,
    result: Result<Option<(Delivered, u64)>, StoreError>,
}

/// What a request was about.
#[derive(Clone, Copy)]
enum Work {
    Register,
    Deliver(MessageId),
}

impl Work {
    const fn conversation(self) -> Option<ConversationId> {
        match self {
            Self::Register => None,
            Self::Deliver(id) => Some(id.conversation),
        }
    }
}

fn wall_clock() -> Timestamp {
    Timestamp::from_system_time(std::time::SystemTime::now())
}

fn jitter() -> u32 {
    // Without random numbers retries come at even times, which is no reason to stop.
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

impl Pump {
    /// Makes a pump between a store and an uplink.
    #[must_use]
    pub fn new(store: Store, uplink: Arc<dyn Uplink>, settings: Settings) -> (Self, PumpHandle) {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(
                settings.patience,
                settings.in_flight,
                settings.daily_budget,
            )),
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
            store,
            settings,
            shared,
            requests: JoinSet::new(),
            settling: JoinSet::new(),
            registering: HashSet::new(),
            spending: Spending::default(),
        };
        (pump, handle)
    }

    /// Runs until `stop` turns true and the requests on their way have ended, or the drain limit is reached.
    /// `beat` is called at least every few seconds. The error is for a person: the store has stopped.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>, beat: impl Fn()) -> Result<(), String> {
        let mut changed = self.store.queue_changed(Queue::ToUplink);
        let mut ticks = tokio::time::interval(TICK);
        let shared = Arc::clone(&self.shared);
        self.spending.load(&self.store, &mut shared.state(), wall_clock());
        while !*stop.borrow_and_update() {
            changed.mark_unchanged();
            let wake_at = self.dispatch();
            tokio::select! {
                Some(ended) = self.requests.join_next() => self.ended(ended)?,
                Some(settled) = self.settling.join_next() => self.settled(settled)?,
                alive = changed.changed() => if alive.is_err() { return Ok(()) },
                alive = stop.changed() => if alive.is_err() { return Ok(()) },
                () = shared.wake.notified() => {}
                () = sleep_until(wake_at) => {}
                _ = ticks.tick() => {
                    shared.state().tidy(shared.now());
                    self.save_spending();
                    beat();
                }
            }
        }
        let drained = self.drain(beat).await;
        let changed = self.spending.changed(&shared.state(), shared.now(), true);
        spending::keep(&self.store, changed).await;
        drained
    }

    /// Writes what was spent, once in a while: a crash forgets a minute, and a 429 would tell.
    fn save_spending(&mut self) {
        let changed = self
            .spending
            .changed(&self.shared.state(), self.shared.now(), false);
        if !changed.is_empty() {
            let store = self.store.clone();
            self.settling.spawn(async move {
                spending::keep(&store, changed).await;
                Ok(None)
            });
        }
    }

    async fn drain(&mut self, beat: impl Fn()) -> Result<(), String> {
        let limit = Instant::now() + self.settings.drain;
        let mut ticks = tokio::time::interval(TICK);
        while !(self.requests.is_empty() && self.settling.is_empty()) {
            tokio::select! {
                Some(ended) = self.requests.join_next() => self.ended(ended)?,
                Some(settled) = self.settling.join_next() => self.settled(settled)?,
                _ = ticks.tick() => beat(),
                () = tokio::time::sleep_until(limit) => {
                    let left = self.requests.len();
                    warn!(left; "Stopped before every answer was there; these messages are delivered again after the start");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Begins what may begin, and says when to look again if nothing else happens.
    fn dispatch(&mut self) -> Option<Instant> {
        let shared = Arc::clone(&self.shared);
        let now = shared.now();
        let mut state = shared.state();
        state.advance(now, wall_clock());
        let backlog = (self.settings.in_flight * SETTLING).saturating_sub(self.settling.len());
        let mut room = state.room().min(backlog);
        let mut paced = None;
        if room > 0 {
            let open = self.open_channels(&mut state, now, &mut room, &mut paced);
            for (installation, head) in self.heads(&mut state, &open, room, now, &mut paced) {
                if room == 0 {
                    break;
                }
                // The room of an installation shrinks with each request; one that is paced lets the others go on.
                if state.room_of(installation, now) == 0 {
                    continue;
                }
                let Some(provider) = self.provider(&head.channel) else {
                    continue;
                };
                match state.begin(installation, Some(head.conversation), now) {
                    Err(wait) => paced = Some(earliest(paced, now + wait)),
                    Ok(ticket) => {
                        room -= 1;
                        self.deliver(installation.clone(), provider, ticket, head);
                    }
                }
            }
        }
        let alarm = [state.next_alarm(now), paced].into_iter().flatten().min();
        alarm.map(|at| shared.started + at)
    }

    /// Channels that may be delivered for, with their installation. Begins the registration of those that are not
    /// registered. A channel without an installation is looked at again with every tick.
    fn open_channels(
        &mut self,
        state: &mut State,
        now: Duration,
        room: &mut usize,
        paced: &mut Option<Duration>,
    ) -> Vec<Open> {
        let reader = self.store.reader();
        let mut open = Vec::with_capacity(self.settings.channels.len());
        for index in 0..self.settings.channels.len() {
            let Some((channel, registration)) = self.settings.channels.get(index) else {
                break;
            };
            if state.is_channel_held(channel, now) {
                continue;
            }
            let Ok(installation) = self.shared.uplink.installation(&registration.id) else {
                continue;
            };
            let free = state.room_of(&installation, now).min(*room) > 0;
            // From memory: the store keeps the few channels there.
            match reader.channel_link(channel) {
                Ok(ChannelLink::Registered(_)) => open.push(Open {
                    channel: channel.clone(),
                    installation,
                }),
                Ok(ChannelLink::NotRegistered) if free && !self.registering.contains(channel) => {
                    let ticket = match state.begin(&installation, None, now) {
                        Ok(ticket) => ticket,
                        Err(wait) => {
                            *paced = Some(earliest(*paced, now + wait));
                            continue;
                        }
                    };
                    *room -= 1;
                    self.registering.insert(channel.clone());
                    let (channel, registration) = (channel.clone(), registration.clone());
                    let uplink = Arc::clone(&self.shared.uplink);
                    self.requests.spawn_blocking(move || Ended {
                        result: Ok(Some((uplink.register(&registration, wall_clock()), 0))),
                        installation,
                        channel,
                        work: Work::Register,
                        ticket,
                    });
                }
                Ok(ChannelLink::NotRegistered | ChannelLink::Unlinked { .. }) => {}
                Err(error) => warn!(channel = channel.as_str(), reason = error.to_string().as_str();
                    "A channel's registration cannot be read"),
            }
        }
        open
    }

    /// The oldest heads. While some channels are closed, or configured no more, or belong to different
    /// installations, each open one is asked for its own, so that a long queue of another does not hide it.
    fn heads<'a>(
        &self,
        state: &mut State,
        open: &'a [Open],
        room: usize,
        now: Duration,
        alarm: &mut Option<Duration>,
    ) -> Vec<(&'a InstallationId, Head)> {
        let mut deliverable = |state: &mut State, installation, channel| {
            let wanted = room.min(state.room_of(installation, now));
            if wanted == 0 {
                return Vec::new();
            }
            let (place, wait) = state.statuses(installation, now);
            let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
            let before = state.wall(now).plus_ms(wait.saturating_neg());
            let updates = match place {
                Statuses::Wait => Updates::No,
                Statuses::ByAge | Statuses::AfterMessages => Updates::Since {
                    before,
                    last: place == Statuses::AfterMessages,
                },
            };
            let (heads, next) = self.store.deliverable(channel, state.excluded(), wanted, updates);
            if let Some(since) = next {
                // With a clock that was set back it is looked at again after the wait at the latest.
                let left = since.unix_ms().saturating_sub(before.unix_ms());
                let left = Duration::from_millis(u64::try_from(left.clamp(1, wait.max(1))).unwrap_or(1));
                *alarm = Some(earliest(*alarm, now + left));
            }
            heads
        };
        let one = open.first().map(|open| &open.installation);
        let one = one.filter(|one| open.iter().all(|open| open.installation == **one));
        if let (Some(installation), true) = (one, open.len() == self.settings.channels.len()) {
            let mut heads = deliverable(state, installation, None);
            let mut of_others = heads.clone();
            of_others.retain(|head| !open.iter().any(|open| open.channel == head.channel));
            if of_others.is_empty() {
                return heads.into_iter().map(|head| (installation, head)).collect();
            }
            heads.clear();
            for head in of_others {
                let reason = format!(
                    "The channel {} is configured no more; its messages are kept.",
                    head.channel
                );
                state.park(head.conversation, &head.channel, reason, now + PARKED);
            }
        }
        let mut heads = Vec::new();
        for open in open {
            let of_channel = deliverable(state, &open.installation, Some(&open.channel));
            heads.extend(of_channel.into_iter().map(|head| (&open.installation, head)));
        }
        heads.sort_unstable_by_key(|(_, head): &(_, Head)| (head.kind == UplinkKind::Status, head.sequence));
        heads
    }

    fn provider(&self, channel: &ChannelId) -> Option<ProviderChannelId> {
        let mut channels = self.shared.channels.iter();
        let found = channels.find(|(known, _)| known == channel)?;
        Some(found.1.clone())
    }

    fn deliver(
        &mut self,
        installation: InstallationId,
        provider: ProviderChannelId,
        ticket: Ticket,
        head: Head,
    ) {
        let work = Work::Deliver(head.message());
        let links = self.settings.links.clone();
        let (store, uplink) = (self.store.clone(), Arc::clone(&self.shared.uplink));
        self.requests.spawn_blocking(move || {
            let result = store.reader().uplink_item_of(head.message()).map(|item| {
                let item = item?;
                let now = wall_clock();
                let urls = link_files(&links, &item, now);
                let served = || store.was_served(head.conversation);
                let delivery = Delivery {
                    channel: &provider,
                    message: &item.message,
                    kind: match item.kind {
                        UplinkKind::New => Kind::New,
                        UplinkKind::Status => Kind::Status,
                    },
                    links: &urls,
                    known_to_pipedrive: item.known_to_pipedrive,
                    served: &served,
                };
                let delivered = uplink.deliver(&delivery, now);
                Some((delivered, item.revision))
            });
            Ended {
                installation,
                channel: head.channel,
                work,
                ticket,
                result,
            }
        });
    }

    fn ended(&mut self, ended: Result<Ended, JoinError>) -> Result<(), String> {
        let ended = ended.map_err(|error| format!("a delivery to Pipedrive broke off: {error}"))?;
        let Ended {
            installation,
            channel,
            work,
            ticket,
            result,
        } = ended;
        let shared = Arc::clone(&self.shared);
        let now = shared.now();
        let mut state = shared.state();
        match result {
            Ok(Some((delivered, revision))) => {
                report(&channel, work, &delivered.outcome);
                let before = state.hold_of(&installation).map(|hold| hold.kind);
                let attempts = |state: &State| {
                    let conversation = work.conversation()?;
                    state.waits().get(&conversation).map(|wait| wait.attempts)
                };
                let tried = attempts(&state);
                let reason = match &delivered.outcome {
                    Outcome::Retry { reason, .. } => reason.clone(),
                    _ => String::new(),
                };
                let asked = Asked {
                    installation: &installation,
                    ticket,
                    channel: &channel,
                    conversation: work.conversation(),
                };
                let consequence = state.judge(now, asked, delivered, jitter());
                report_hold(&installation, state.hold_of(&installation), before);
                if attempts(&state) == Some(STUBBORN) && tried != Some(STUBBORN) && !reason.is_empty() {
                    warn!(channel = channel.as_str(), attempts = STUBBORN, reason = reason.as_str();
                        "A conversation waits; the others go on");
                }
                drop(state);
                self.settle(channel, work, revision, consequence);
                Ok(())
            }
            Ok(None) => {
                state.withdraw(&installation, ticket, now);
                if let Some(conversation) = work.conversation() {
                    state.settle(conversation, now);
                }
                Ok(())
            }
            Err(reason @ StoreError::Corrupt(_)) => {
                state.withdraw(&installation, ticket, now);
                if let Some(conversation) = work.conversation() {
                    let words = format!("The next message cannot be read: {reason}.");
                    error!(conversation_id = conversation.to_string().as_str(), reason = words.as_str();
                        "A conversation cannot be delivered");
                    state.park(conversation, &channel, words, now + PARKED);
                    state.settle(conversation, now);
                }
                Ok(())
            }
            Err(reason) => Err(format!("the queue to Pipedrive cannot be read: {reason}")),
        }
    }

    /// Records what follows from an answer, beside the next requests.
    fn settle(&mut self, channel: ChannelId, work: Work, revision: u64, consequence: Consequence) {
        let store = self.store.clone();
        let link = match (work, consequence) {
            (Work::Deliver(id), Consequence::Accepted) => {
                self.settling.spawn(async move {
                    store
                        .uplink_done(id, revision)
                        .await
                        .map(|()| Some((channel, work)))
                });
                return;
            }
            (Work::Deliver(id), Consequence::Refused(reason)) => {
                self.settling.spawn(async move {
                    let recorded = store.uplink_failed(id, revision, reason).await;
                    recorded.map(|()| Some((channel, work)))
                });
                return;
            }
            (Work::Register, Consequence::Refused(_)) | (_, Consequence::Waits) => {
                self.settled_work(&channel, work);
                return;
            }
            (Work::Register, Consequence::Accepted) => ChannelLink::Registered(wall_clock()),
            (_, Consequence::Unlinked(reason)) => ChannelLink::Unlinked {
                since: wall_clock(),
                reason,
            },
        };
        self.settling.spawn(async move {
            let recorded = store.set_channel_link(&channel, link).await;
            recorded.map(|()| Some((channel, work)))
        });
    }

    fn settled(&mut self, settled: Result<Settled, JoinError>) -> Result<(), String> {
        let settled = settled
            .map_err(|error| format!("recording an answer of Pipedrive broke off: {error}"))?
            .map_err(|error| format!("an answer of Pipedrive could not be recorded: {error}"))?;
        if let Some((channel, work)) = settled {
            self.settled_work(&channel, work);
        }
        Ok(())
    }

    fn settled_work(&mut self, channel: &ChannelId, work: Work) {
        match work.conversation() {
            Some(conversation) => self.shared.state().settle(conversation, self.shared.now()),
            None => {
                self.registering.remove(channel);
            }
        }
    }
}

/// A channel that may be delivered for.
struct Open {
    channel: ChannelId,
    installation: InstallationId,
}

fn earliest(one: Option<Duration>, other: Duration) -> Duration {
    one.map_or(other, |one| one.min(other))
}

/// What was recorded.
type Settled = Result<Option<(ChannelId, Work)>, StoreError>;

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
