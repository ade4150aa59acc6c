//! Store → uplink: delivers what waits, in order within a conversation and in parallel across conversations.
//!
//! A request runs on a thread of tokio's blocking pool, which ends when it has nothing to do for ten seconds: an
//! idle gateway holds no thread and no stack for it. A slot is free again as soon as the answer is there; recording
//! the outcome goes on beside it, so that a slow disk does not slow the requests.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::{debug, error, info, warn};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::to_hardware::Links;
use crate::domain::{ChannelId, ConversationId, InstallationId, MessageId, ProviderChannelId, Timestamp};
use crate::protocol::media;
use crate::store::{ChannelLink, Head, Queue, Store, StoreError, UplinkItem, UplinkKind};
use crate::uplink::{Delivered, Delivery, Kind, Link, Outcome, Registration, Uplink};

mod installation;
mod state;
mod status;
#[cfg(test)]
mod tests;

pub use state::Patience;
pub use status::{HeldChannel, InstallationStatus, UplinkState, UplinkStatus, WaitingConversation};

use installation::{Era, Hold, HoldKind};
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
}

/// The pump, not running yet.
pub struct Pump {
    store: Store,
    settings: Settings,
    shared: Arc<Shared>,
    requests: JoinSet<Ended>,
    settling: JoinSet<Settled>,
    registering: HashSet<ChannelId>,
}

/// A request that has ended.
struct Ended {
    installation: InstallationId,
    channel: ChannelId,
    work: Work,
    era: Era,
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
            state: Mutex::new(State::new(settings.patience, settings.in_flight)),
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
        };
        (pump, handle)
    }

    /// Runs until `stop` turns true and the requests on their way have ended, or the drain limit is reached.
    /// `beat` is called at least every few seconds. The error is for a person: the store has stopped.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>, beat: impl Fn()) -> Result<(), String> {
        let mut changed = self.store.queue_changed(Queue::ToUplink);
        let mut ticks = tokio::time::interval(TICK);
        let shared = Arc::clone(&self.shared);
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
                    beat();
                }
            }
        }
        self.drain(beat).await
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
        state.advance(now);
        let backlog = (self.settings.in_flight * SETTLING).saturating_sub(self.settling.len());
        let mut room = state.room().min(backlog);
        let mut paced = None;
        if room > 0 {
            let open = self.open_channels(&mut state, now, &mut room, &mut paced);
            for (installation, head) in self.heads(&mut state, &open, room, now) {
                if room == 0 {
                    break;
                }
                // The room of an installation shrinks with each request; one that is paced lets the others go on.
                if state.room_of(installation, now) == 0 {
                    continue;
                }
                if let Err(wait) = state.take(installation, now) {
                    paced = Some(earliest(paced, now + wait));
                    continue;
                }
                room -= 1;
                self.deliver(&mut state, installation.clone(), head);
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
                    if let Err(wait) = state.take(&installation, now) {
                        *paced = Some(earliest(*paced, now + wait));
                        continue;
                    }
                    *room -= 1;
                    let era = state.begin(&installation, None);
                    self.registering.insert(channel.clone());
                    let (channel, registration) = (channel.clone(), registration.clone());
                    let uplink = Arc::clone(&self.shared.uplink);
                    self.requests.spawn_blocking(move || Ended {
                        result: Ok(Some((uplink.register(&registration, wall_clock()), 0))),
                        installation,
                        channel,
                        work: Work::Register,
                        era,
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
    ) -> Vec<(&'a InstallationId, Head)> {
        let one = open.first().map(|open| &open.installation);
        let one = one.filter(|one| open.iter().all(|open| open.installation == **one));
        if let (Some(installation), true) = (one, open.len() == self.settings.channels.len()) {
            let wanted = room.min(state.room_of(installation, now));
            let mut heads = self.store.heads(Queue::ToUplink, None, state.excluded(), wanted);
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
            let wanted = room.min(state.room_of(&open.installation, now));
            if wanted == 0 {
                continue;
            }
            let of_channel = self
                .store
                .heads(Queue::ToUplink, Some(&open.channel), state.excluded(), wanted);
            heads.extend(of_channel.into_iter().map(|head| (&open.installation, head)));
        }
        heads.sort_by_key(|(_, head)| head.sequence);
        heads
    }

    fn deliver(&mut self, state: &mut State, installation: InstallationId, head: Head) {
        let registered = self
            .settings
            .channels
            .iter()
            .find(|(channel, _)| *channel == head.channel);
        let Some((_, Registration { id: provider, .. })) = registered else {
            return;
        };
        let work = Work::Deliver(head.message());
        let era = state.begin(&installation, work.conversation());
        let (provider, links) = (provider.clone(), self.settings.links.clone());
        let (store, uplink) = (self.store.clone(), Arc::clone(&self.shared.uplink));
        self.requests.spawn_blocking(move || {
            let result = store.reader().uplink_item(head.conversation).map(|item| {
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
                Some((item.message.id, delivered, item.revision))
            });
            let (work, result) = match result {
                // The head may have moved on since it was looked up; what was delivered is what counts.
                Ok(Some((id, delivered, revision))) => (Work::Deliver(id), Ok(Some((delivered, revision)))),
                Ok(None) => (work, Ok(None)),
                Err(error) => (work, Err(error)),
            };
            Ended {
                installation,
                channel: head.channel,
                work,
                era,
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
            era,
            result,
        } = ended;
        let shared = Arc::clone(&self.shared);
        let now = shared.now();
        let mut state = shared.state();
        match result {
            Ok(Some((delivered, revision))) => {
                state.learn(&installation, now, &delivered.limits);
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
                    era,
                    channel: &channel,
                    conversation: work.conversation(),
                };
                let consequence = state.judge(now, asked, delivered.outcome, jitter());
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
                state.end(&installation);
                if let Some(conversation) = work.conversation() {
                    state.settle(conversation, now);
                }
                Ok(())
            }
            Err(reason @ StoreError::Corrupt(_)) => {
                state.end(&installation);
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
                self.settling
                    .spawn(async move { store.uplink_done(id, revision).await.map(|()| (channel, work)) });
                return;
            }
            (Work::Deliver(id), Consequence::Refused(reason)) => {
                self.settling.spawn(async move {
                    let recorded = store.uplink_failed(id, revision, reason).await;
                    recorded.map(|()| (channel, work))
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
            recorded.map(|()| (channel, work))
        });
    }

    fn settled(&mut self, settled: Result<Settled, JoinError>) -> Result<(), String> {
        let (channel, work) = settled
            .map_err(|error| format!("recording an answer of Pipedrive broke off: {error}"))?
            .map_err(|error| format!("an answer of Pipedrive could not be recorded: {error}"))?;
        self.settled_work(&channel, work);
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
type Settled = Result<(ChannelId, Work), StoreError>;

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Links to a message's files; none without a public address.
fn link_files(links: &Links, item: &UplinkItem, now: Timestamp) -> Vec<Link> {
    let Some(public_url) = &links.public_url else {
        if !item.message.attachments.is_empty() {
            warn!(message_id = item.message.id.to_string().as_str(), files = item.message.attachments.len();
                "Files are not shown in Pipedrive: set pipedrive.public_url, so that they can be linked");
        }
        return Vec::new();
    };
    let lifetime = i64::try_from(links.lifetime.as_millis()).unwrap_or(i64::MAX);
    let expires = now.plus_ms(lifetime);
    let link = |attachment: &crate::domain::Attachment| Link {
        attachment: attachment.id,
        url: media::url(public_url, &links.secret, attachment.id, expires),
    };
    item.message.attachments.iter().map(link).collect()
}

fn report(channel: &ChannelId, work: Work, outcome: &Outcome) {
    let channel = channel.as_str();
    let message = match work {
        Work::Register => "channel".to_owned(),
        Work::Deliver(id) if log::log_enabled!(log::Level::Debug) || *outcome != Outcome::Accepted => {
            id.to_string()
        }
        Work::Deliver(_) => return,
    };
    let message_id = message.as_str();
    match (work, outcome) {
        (Work::Register, Outcome::Accepted) => info!(channel; "Registered a channel with Pipedrive"),
        (Work::Deliver(_), Outcome::Accepted) => debug!(message_id, channel; "Pipedrive accepted a message"),
        (_, Outcome::Rejected { reason }) => {
            error!(message_id, channel, reason = reason.as_str(); "Pipedrive refused a message for good");
        }
        (_, Outcome::ChannelUnlinked { reason }) => {
            error!(channel, reason = reason.as_str(); "A channel is not linked to Pipedrive any more");
        }
        (_, Outcome::Retry { reason, .. } | Outcome::NotAuthorized { reason } | Outcome::Gone { reason }) => {
            debug!(message_id, channel, reason = reason.as_str(); "A message waits");
        }
    }
}

/// Says once when a hold begins, changes its kind or ends.
fn report_hold(installation: &InstallationId, hold: Option<&Hold>, before: Option<HoldKind>) {
    if before == hold.map(|hold| hold.kind) {
        return;
    }
    let installation = installation.as_str();
    match hold {
        None => info!(installation; "Messages flow to Pipedrive again"),
        Some(hold) if hold.kind == HoldKind::Trouble => {
            warn!(installation, reason = hold.reason.as_str(); "Messages to Pipedrive wait");
        }
        Some(hold) => {
            error!(installation, reason = hold.reason.as_str(); "Messages to Pipedrive wait until a person helps");
        }
    }
}
