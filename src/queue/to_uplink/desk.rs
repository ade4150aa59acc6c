//! What is begun, and what follows from its end: under one lock, for the task and for the threads that make requests.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar};
use std::time::Duration;

use log::{error, warn};
use tokio::sync::watch;

use super::installation::Ticket;
use super::report::{link_files, report, report_hold, report_spent};
use super::state::{Asked, Consequence, State};
use super::{PARKED, STUBBORN, Shared, wall_clock};
use crate::domain::{ChannelId, ConversationId, InstallationId, MessageId, ProviderChannelId};
use crate::protocol::budget::Statuses;
use crate::queue::to_hardware::Links;
use crate::store::{ChannelLink, Head, Store, StoreError, Updates, UplinkItem, UplinkKind, UplinkResult};
use crate::uplink::{Delivered, Delivery, Kind, Outcome, Registration};

/// Outcomes that are recorded together while everything is busy, for each request in flight.
const TOGETHER: usize = 4;
/// Outcomes that may wait to be recorded, for each request in flight.
const UNRECORDED: usize = 12;
/// How long an outcome waits for others to be recorded with. A crash in that time delivers the message again.
const GATHER: Duration = Duration::from_millis(20);

/// The state of things, and what goes between task and threads.
pub(super) struct Desk {
    pub(super) state: State,
    registering: HashSet<ChannelId>,
    /// Begun, and not taken up by a thread yet.
    pub(super) jobs: VecDeque<Job>,
    /// Threads that wait for a job.
    pub(super) idle: usize,
    /// To be recorded, and since when the oldest has waited.
    outcomes: Vec<UplinkResult>,
    oldest: Option<Duration>,
    /// Channels that are unlinked or registered from now on.
    links: Vec<(ChannelId, ChannelLink, Work)>,
    /// Outcomes on their way into the store.
    pub(super) recording: usize,
    /// When the task looks again at the latest.
    pub(super) alarm: Option<Duration>,
    /// Nothing begins any more.
    pub(super) closed: bool,
    /// Why the task has to end.
    pub(super) failure: Option<String>,
}

/// What threads and task work with.
pub(super) struct Engine {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Store,
    pub(super) channels: Vec<(ChannelId, Registration)>,
    pub(super) in_flight: usize,
    pub(super) links: Links,
    /// For threads that wait for a job.
    pub(super) work: Condvar,
    /// How many there are.
    pub(super) threads: watch::Sender<usize>,
}

/// What a request is about.
#[derive(Clone, Copy)]
pub(super) enum Work {
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

/// A request that has begun.
pub(super) struct Job {
    installation: InstallationId,
    channel: ChannelId,
    ticket: Ticket,
    task: Task,
}

enum Task {
    Register(Registration),
    Deliver(ProviderChannelId, Head),
}

/// A request that has ended.
pub(super) struct Ended {
    installation: InstallationId,
    channel: ChannelId,
    work: Work,
    ticket: Ticket,
    result: Result<Option<(Delivered, u64)>, StoreError>,
}

/// A channel that may be delivered for.
struct Open {
    channel: ChannelId,
    installation: InstallationId,
}

/// What is to be recorded together.
pub(super) struct Records {
    pub(super) outcomes: Vec<UplinkResult>,
    pub(super) links: Vec<(ChannelId, ChannelLink, Work)>,
}

impl Desk {
    pub(super) fn new(state: State) -> Self {
        Self {
            state,
            registering: HashSet::new(),
            jobs: VecDeque::new(),
            idle: 0,
            outcomes: Vec::new(),
            oldest: None,
            links: Vec::new(),
            recording: 0,
            alarm: None,
            closed: false,
            failure: None,
        }
    }

    /// The task has to end.
    pub(super) fn fail(&mut self, reason: String) {
        self.failure.get_or_insert(reason);
    }

    /// Whether nothing is on its way any more, neither to Pipedrive nor into the store.
    pub(super) fn is_done(&self) -> bool {
        self.state.running() == 0 && self.outcomes.is_empty() && self.links.is_empty() && self.recording == 0
    }

    /// The outcome is on record.
    pub(super) fn settled(&mut self, channel: &ChannelId, work: Work, now: Duration) {
        match work.conversation() {
            Some(conversation) => self.state.settle(conversation, now),
            None => {
                self.registering.remove(channel);
            }
        }
    }
}

fn jitter() -> u32 {
    // Without random numbers retries come at even times, which is no reason to stop.
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

fn earliest(one: Option<Duration>, other: Duration) -> Duration {
    one.map_or(other, |one| one.min(other))
}

impl Engine {
    /// Begins what may begin, and says when to look again if nothing else happens.
    pub(super) fn dispatch(&self, desk: &mut Desk) -> Option<Duration> {
        let now = self.shared.now();
        desk.state.advance(now, wall_clock());
        let unrecorded = desk.outcomes.len() + desk.recording;
        let backlog = (self.in_flight * UNRECORDED).saturating_sub(unrecorded);
        let mut room = desk.state.room().min(backlog);
        let mut paced = None;
        if room > 0 {
            let open = self.open_channels(desk, now, &mut room, &mut paced);
            for (installation, head) in self.heads(&mut desk.state, &open, room, now, &mut paced) {
                if room == 0 {
                    break;
                }
                // The room of an installation shrinks with each request; one that is paced lets the others go on.
                if desk.state.room_of(installation, now) == 0 {
                    continue;
                }
                let Some(provider) = self.provider(&head.channel) else {
                    continue;
                };
                match desk.state.begin(installation, Some(head.conversation), now) {
                    Err(wait) => paced = Some(earliest(paced, now + wait)),
                    Ok(ticket) => {
                        room -= 1;
                        desk.jobs.push_back(Job {
                            installation: installation.clone(),
                            channel: head.channel.clone(),
                            ticket,
                            task: Task::Deliver(provider, head),
                        });
                    }
                }
            }
        }
        let gathered = desk.oldest.map(|since| since + GATHER);
        let alarms = [desk.state.next_alarm(now), paced, gathered];
        alarms.into_iter().flatten().min()
    }

    /// Channels that may be delivered for, with their installation. Begins the registration of those that are not
    /// registered. A channel without an installation is looked at again with every tick.
    fn open_channels(
        &self,
        desk: &mut Desk,
        now: Duration,
        room: &mut usize,
        paced: &mut Option<Duration>,
    ) -> Vec<Open> {
        let reader = self.store.reader();
        let mut open = Vec::with_capacity(self.channels.len());
        for (channel, registration) in &self.channels {
            if desk.state.is_channel_held(channel, now) {
                continue;
            }
            let Ok(installation) = self.shared.uplink.installation(&registration.id) else {
                continue;
            };
            if desk.state.has_just_spent(&installation, now) {
                report_spent(&installation);
            }
            // From memory: the store keeps the few channels there.
            match reader.channel_link(channel) {
                Ok(ChannelLink::Registered(_)) => open.push(Open {
                    channel: channel.clone(),
                    installation,
                }),
                Ok(ChannelLink::NotRegistered) => {
                    let free = desk.state.room_of(&installation, now).min(*room) > 0;
                    if !free || desk.registering.contains(channel) {
                        continue;
                    }
                    let ticket = match desk.state.begin(&installation, None, now) {
                        Ok(ticket) => ticket,
                        Err(wait) => {
                            *paced = Some(earliest(*paced, now + wait));
                            continue;
                        }
                    };
                    *room -= 1;
                    desk.registering.insert(channel.clone());
                    desk.jobs.push_back(Job {
                        installation,
                        channel: channel.clone(),
                        ticket,
                        task: Task::Register(registration.clone()),
                    });
                }
                Ok(ChannelLink::Unlinked { .. }) => {}
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
        if let (Some(installation), true) = (one, open.len() == self.channels.len()) {
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
        let mut channels = self.channels.iter();
        let (_, registration) = channels.find(|(known, _)| known == channel)?;
        Some(registration.id.clone())
    }

    /// Makes a request. Blocks.
    pub(super) fn perform(&self, job: Job) -> Ended {
        let uplink = &self.shared.uplink;
        let (work, result) = match &job.task {
            Task::Register(registration) => {
                let delivered = uplink.register(registration, wall_clock());
                (Work::Register, Ok(Some((delivered, 0))))
            }
            Task::Deliver(provider, head) => {
                let item = self.store.reader().uplink_item_of(head.message());
                let delivered = item.map(|item| {
                    let item = item?;
                    Some((self.deliver(provider, &item), item.revision))
                });
                (Work::Deliver(head.message()), delivered)
            }
        };
        Ended {
            installation: job.installation,
            channel: job.channel,
            work,
            ticket: job.ticket,
            result,
        }
    }

    fn deliver(&self, provider: &ProviderChannelId, item: &UplinkItem) -> Delivered {
        let now = wall_clock();
        let urls = link_files(&self.links, item, now);
        let served = || self.store.was_served(item.message.id.conversation);
        let delivery = Delivery {
            channel: provider,
            message: &item.message,
            kind: match item.kind {
                UplinkKind::New => Kind::New,
                UplinkKind::Status => Kind::Status,
            },
            links: &urls,
            known_to_pipedrive: item.known_to_pipedrive,
            served: &served,
        };
        self.shared.uplink.deliver(&delivery, now)
    }

    /// Draws the consequences of an answer.
    pub(super) fn ended(&self, desk: &mut Desk, ended: Ended) {
        let Ended {
            installation,
            channel,
            work,
            ticket,
            result,
        } = ended;
        let now = self.shared.now();
        match result {
            Ok(Some((delivered, revision))) => {
                report(&channel, work, &delivered.outcome);
                let state = &mut desk.state;
                let before = state.hold_of(&installation).map(|hold| hold.kind);
                let attempts = |state: &State| {
                    let conversation = work.conversation()?;
                    state.waits().get(&conversation).map(|wait| wait.attempts)
                };
                let tried = attempts(state);
                let reason = match &delivered.outcome {
                    Outcome::Retry { reason, .. } => reason.clone(),
                    _ => String::new(),
                };
                let chance = match &delivered.outcome {
                    Outcome::Accepted => 0,
                    _ => jitter(),
                };
                let asked = Asked {
                    installation: &installation,
                    ticket,
                    channel: &channel,
                    conversation: work.conversation(),
                };
                let consequence = state.judge(now, asked, delivered, chance);
                report_hold(&installation, state.hold_of(&installation), before);
                if attempts(state) == Some(STUBBORN) && tried != Some(STUBBORN) && !reason.is_empty() {
                    warn!(channel = channel.as_str(), attempts = STUBBORN, reason = reason.as_str();
                        "A conversation waits; the others go on");
                }
                self.note(desk, channel, work, revision, consequence);
            }
            Ok(None) => {
                desk.state.withdraw(&installation, ticket, now);
                desk.settled(&channel, work, now);
            }
            Err(reason @ StoreError::Corrupt(_)) => {
                desk.state.withdraw(&installation, ticket, now);
                if let Some(conversation) = work.conversation() {
                    let words = format!("The next message cannot be read: {reason}.");
                    error!(conversation_id = conversation.to_string().as_str(), reason = words.as_str();
                        "A conversation cannot be delivered");
                    desk.state.park(conversation, &channel, words, now + PARKED);
                    desk.state.settle(conversation, now);
                }
            }
            Err(reason) => desk.fail(format!("the queue to Pipedrive cannot be read: {reason}")),
        }
    }

    /// Notes what has to be recorded about an answer.
    fn note(&self, desk: &mut Desk, channel: ChannelId, work: Work, revision: u64, consequence: Consequence) {
        let now = self.shared.now();
        let (message, refusal) = match (work, consequence) {
            (Work::Deliver(message), Consequence::Accepted) => (message, None),
            (Work::Deliver(message), Consequence::Refused(reason)) => (message, Some(reason)),
            (Work::Register, Consequence::Refused(_)) | (_, Consequence::Waits) => {
                return desk.settled(&channel, work, now);
            }
            (Work::Register, Consequence::Accepted) => {
                let link = ChannelLink::Registered(wall_clock());
                return desk.links.push((channel, link, work));
            }
            (_, Consequence::Unlinked(reason)) => {
                let since = wall_clock();
                let link = ChannelLink::Unlinked { since, reason };
                return desk.links.push((channel, link, work));
            }
        };
        desk.oldest.get_or_insert(now);
        desk.outcomes.push(UplinkResult {
            message,
            revision,
            refusal,
        });
    }

    /// Whether what is noted has to be recorded now. While every place in flight is taken, a conversation that waits for
    /// it holds nothing up, so more come together; each write of the store costs as much for one as for many.
    pub(super) fn is_time_to_record(&self, desk: &Desk) -> bool {
        let count = desk.outcomes.len();
        !desk.links.is_empty()
            || count >= self.in_flight * TOGETHER
            || (count > 0
                && (desk.state.room() > 0
                    || desk.closed
                    || desk
                        .oldest
                        .is_some_and(|since| since + GATHER <= self.shared.now())))
    }

    /// Takes what has to be recorded now.
    pub(super) fn take_records(&self, desk: &mut Desk) -> Option<Records> {
        if !self.is_time_to_record(desk) {
            return None;
        }
        desk.oldest = None;
        let records = Records {
            outcomes: std::mem::take(&mut desk.outcomes),
            links: std::mem::take(&mut desk.links),
        };
        desk.recording += records.outcomes.len() + records.links.len();
        Some(records)
    }

    /// They are on record.
    pub(super) fn recorded(&self, desk: &mut Desk, records: &Settled) {
        let now = self.shared.now();
        desk.recording = desk
            .recording
            .saturating_sub(records.conversations.len() + records.links.len());
        for conversation in &records.conversations {
            desk.state.settle(*conversation, now);
        }
        for (channel, work) in &records.links {
            desk.settled(channel, *work, now);
        }
    }
}

/// What was recorded.
#[derive(Default)]
pub(super) struct Settled {
    conversations: Vec<ConversationId>,
    links: Vec<(ChannelId, Work)>,
}

impl Records {
    /// Records them.
    pub(super) async fn keep(self, store: &Store) -> Result<Settled, StoreError> {
        let mut settled = Settled::default();
        for result in &self.outcomes {
            settled.conversations.push(result.message.conversation);
        }
        if !self.outcomes.is_empty() {
            store.uplink_results(self.outcomes).await?;
        }
        for (channel, link, work) in self.links {
            store.set_channel_link(&channel, link).await?;
            settled.links.push((channel, work));
        }
        Ok(settled)
    }
}
