//! What readers and the committer share: the tree, and the state in memory that follows it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use log::warn;
use sled::{Batch, IVec, Tree};
use tokio::sync::watch;

use super::StoreError;
use super::archive::Archive;
use super::identity;
use super::keys::{self, Range};
use super::maintenance::Progress;
use super::records::{Channel, Entry, HeadRecord, decode, encode};
use super::space::Gauge;
use super::tx::{self, Archived, Effects, Item, Source, Writes, broken};
use super::types::{ChannelCounts, ChannelLink, Counts, Head, Options, Queue, Updates, UplinkKind};
use crate::domain::{AttachmentId, ChannelId, ConversationId, GatewayId, MessageId, Sequence, Timestamp};

/// Locks, also when a thread died with the lock: what it guards is replaced as a whole, never half.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next entries of a conversation.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Next {
    first: Sequence,
    channel: u16,
    kind: UplinkKind,
    since: Timestamp,
    /// The first new message behind status updates.
    new: Option<Sequence>,
}

/// The conversations of a queue with their next entries, oldest first.
#[derive(Default)]
struct Heads {
    by_conversation: HashMap<ConversationId, Next>,
    by_age: BTreeMap<Sequence, ConversationId>,
}

impl Heads {
    /// Returns whether anything changed.
    fn set(&mut self, conversation: ConversationId, head: Option<Next>) -> bool {
        let old = match head {
            Some(head) => self.by_conversation.insert(conversation, head),
            None => self.by_conversation.remove(&conversation),
        };
        if let Some(next) = old {
            self.by_age.remove(&next.first);
        }
        if let Some(next) = head {
            self.by_age.insert(next.first, conversation);
        }
        old != head
    }
}

struct QueueState {
    heads: Mutex<Heads>,
    changed: watch::Sender<u64>,
}

/// Channels by number; read often, written when one is linked or seen for the first time.
#[derive(Default)]
struct Channels {
    by_id: HashMap<ChannelId, u16>,
    by_number: Vec<Option<(ChannelId, ChannelLink)>>,
}

/// Conversations that were answered for; forgotten in halves so that memory stays bounded.
#[derive(Default)]
struct Served {
    recent: HashSet<ConversationId>,
    older: HashSet<ConversationId>,
}

const SERVED_HALF: usize = 8192;

/// Where readers look.
struct Place {
    /// Changes when the database is written anew.
    tree: Tree,
    /// What goes along with the next batch, over the tree.
    held: Writes,
}

pub(super) struct Shared {
    place: RwLock<Place>,
    pub(super) archive: Archive,
    pub(super) options: Options,
    pub(super) gateway: GatewayId,
    pub(super) media_secret: [u8; 32],
    pub(super) gauge: Gauge,
    head: Mutex<HeadRecord>,
    channels: RwLock<Channels>,
    to_uplink: QueueState,
    to_hardware: QueueState,
    failed: watch::Sender<Option<String>>,
    served: Mutex<Served>,
    /// Files that no message names yet.
    pub(super) staged: Mutex<HashSet<AttachmentId>>,
    pub(super) progress: Mutex<Progress>,
}

impl Shared {
    /// Reads what memory holds: counters, channels, queue heads.
    pub(super) fn load(
        tree: Tree,
        archive: Archive,
        options: Options,
        gateway: GatewayId,
        media_secret: [u8; 32],
    ) -> Result<Self, StoreError> {
        let head: HeadRecord = tree.load(keys::HEAD)?.unwrap_or_default();
        let mut channels = Channels::default();
        for item in Source::scan(&tree, keys::all(b'H')) {
            let (key, value) = item?;
            let id = key
                .get(1..)
                .and_then(|k| std::str::from_utf8(k).ok())
                .and_then(|k| k.parse().ok());
            let Some(id) = id else {
                return Err(StoreError::Corrupt("a channel's name".to_owned()));
            };
            let channel: Channel = decode(&value)?;
            channels.set(id, channel.number, channel.link);
        }
        let load = |queue| {
            let (changed, _) = watch::channel(0);
            load_heads(&tree, queue).map(|heads| QueueState {
                heads: Mutex::new(heads),
                changed,
            })
        };
        let to_uplink = load(Queue::ToUplink)?;
        let to_hardware = load(Queue::ToHardware)?;
        let gauge = Gauge::new(&options);
        let shared = Self {
            gauge,
            head: Mutex::new(head),
            channels: RwLock::new(channels),
            to_uplink,
            to_hardware,
            failed: watch::channel(None).0,
            served: Mutex::default(),
            staged: Mutex::default(),
            progress: Mutex::default(),
            place: RwLock::new(Place {
                tree,
                held: Writes::new(),
            }),
            archive,
            options,
            gateway,
            media_secret,
        };
        shared.gauge.check(shared.head().queued_bytes);
        Ok(shared)
    }

    fn queue(&self, queue: Queue) -> &QueueState {
        match queue {
            Queue::ToUplink => &self.to_uplink,
            Queue::ToHardware => &self.to_hardware,
        }
    }

    fn place(&self) -> RwLockReadGuard<'_, Place> {
        self.place.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn place_mut(&self) -> RwLockWriteGuard<'_, Place> {
        self.place.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tree as it is now, without what is held: to be asked for anew for each read, so that none is kept alive that was
    /// replaced.
    pub(super) fn tree(&self) -> Tree {
        self.place().tree.clone()
    }

    /// Puts a copy in the place of the tree, and gives that back.
    pub(super) fn replace_tree(&self, tree: Tree) -> Tree {
        std::mem::replace(&mut self.place_mut().tree, tree)
    }

    /// Shows readers what goes along with the next batch, too.
    pub(super) fn hold(&self, added: Writes) {
        self.place_mut().held.extend(added);
    }

    /// It is in the tree.
    pub(super) fn release(&self) {
        if !self.place().held.is_empty() {
            self.place_mut().held.clear();
        }
    }

    /// Blocks.
    pub(super) fn keep_identity(&self) {
        identity::keep(&self.tree(), &self.options.state_dir);
    }

    pub(super) fn head(&self) -> HeadRecord {
        lock(&self.head).clone()
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failed.borrow().clone()
    }

    pub(super) fn set_failed(&self, reason: String) {
        self.failed.send_replace(Some(reason));
    }

    pub(super) fn failed(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    /// Applies writes as one atomic batch, with the counters.
    pub(super) fn write(&self, writes: Writes, head: &HeadRecord) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        batch.insert(keys::HEAD, encode(head)?);
        self.tree().apply_batch(batch).map_err(broken)
    }

    /// Brings memory up to what was committed.
    pub(super) fn committed(&self, head: HeadRecord, effects: Effects) {
        self.gauge.check(head.queued_bytes);
        // A channel that is registered lets its messages go.
        let linked = !effects.channels.is_empty();
        if linked {
            let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
            for (id, number, link) in effects.channels {
                channels.set(id, number, link);
            }
        }
        if linked {
            self.keep_identity();
        }
        for queue in [Queue::ToUplink, Queue::ToHardware] {
            let mut changed = linked && queue == Queue::ToUplink;
            for (_, conversation) in effects
                .heads
                .iter()
                .filter(|(up, _)| *up == (queue == Queue::ToUplink))
            {
                match first_entry(self, queue, *conversation) {
                    Ok(head) => changed |= lock(&self.queue(queue).heads).set(*conversation, head),
                    Err(error) => warn!("A queue entry cannot be read: {error}"),
                }
            }
            if changed {
                self.queue(queue)
                    .changed
                    .send_modify(|count| *count = count.wrapping_add(1));
            }
        }
        // Behind the heads: see `may_wait`.
        *lock(&self.head) = head;
        for id in effects.remove_files {
            remove_file(&self.attachment_path(id));
        }
        for number in effects.remove_archived {
            self.archive.remove(number);
        }
    }

    /// Whether one of a conversation's incoming messages up to this one may wait for the uplink. Spares a look into the
    /// tree: what is newer than the last commit that memory knows of may wait without being among the heads.
    pub(super) fn may_wait(&self, conversation: ConversationId, newest: Sequence) -> bool {
        let known = lock(&self.head).sequence;
        newest.0 > known
            || lock(&self.to_uplink.heads)
                .by_conversation
                .contains_key(&conversation)
    }

    pub(super) fn channel_number(&self, id: &ChannelId) -> Option<u16> {
        self.channels
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .by_id
            .get(id)
            .copied()
    }

    pub(super) fn channel(&self, number: u16) -> Option<(ChannelId, ChannelLink)> {
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        channels.by_number.get(usize::from(number)).cloned().flatten()
    }

    pub(super) fn channel_id(&self, number: u16) -> Result<ChannelId, StoreError> {
        self.channel(number)
            .map(|(id, _)| id)
            .ok_or_else(|| StoreError::Corrupt(format!("channel number {number} has no name")))
    }

    pub(super) fn queue_changed(&self, queue: Queue) -> watch::Receiver<u64> {
        self.queue(queue).changed.subscribe()
    }

    pub(super) fn heads(
        &self,
        queue: Queue,
        channel: Option<&ChannelId>,
        exclude: &HashSet<ConversationId>,
        limit: usize,
    ) -> Vec<Head> {
        let number = match channel {
            None => None,
            Some(id) => match self.channel_number(id) {
                None => return Vec::new(),
                number => number,
            },
        };
        let heads = lock(&self.queue(queue).heads);
        let mut found = Vec::new();
        for (sequence, conversation) in &heads.by_age {
            if found.len() >= limit {
                break;
            }
            let Some(next) = heads.by_conversation.get(conversation) else {
                continue;
            };
            if exclude.contains(conversation) || number.is_some_and(|number| number != next.channel) {
                continue;
            }
            if let Some((channel, _)) = self.channel(next.channel) {
                found.push(Head {
                    conversation: *conversation,
                    channel,
                    sequence: *sequence,
                    kind: next.kind,
                });
            }
        }
        found
    }

    /// What may be delivered next, up to `limit`, and since when the oldest status update that does not yet may has
    /// waited. A new message does not wait for the updates of its conversation.
    pub(super) fn deliverable(
        &self,
        channel: Option<&ChannelId>,
        exclude: &HashSet<ConversationId>,
        limit: usize,
        updates: Updates,
    ) -> (Vec<Head>, Option<Timestamp>) {
        let number = channel.map(|id| self.channel_number(id));
        let heads = lock(&self.to_uplink.heads);
        let (mut new, mut changed, mut waiting) = (Vec::new(), Vec::new(), None::<Timestamp>);
        for conversation in heads.by_age.values() {
            let found = match updates {
                Updates::Since { last: false, .. } => new.len() + changed.len(),
                _ => new.len(),
            };
            if found >= limit {
                break;
            }
            let Some(next) = heads.by_conversation.get(conversation) else {
                continue;
            };
            if exclude.contains(conversation) || number.is_some_and(|number| number != Some(next.channel)) {
                continue;
            }
            let head = |sequence, kind| {
                let (channel, _) = self.channel(next.channel)?;
                Some(Head {
                    conversation: *conversation,
                    channel,
                    sequence,
                    kind,
                })
            };
            let message = match next.kind {
                UplinkKind::New => Some(next.first),
                UplinkKind::Status => next.new,
            };
            match (message, updates) {
                (Some(sequence), _) => new.extend(head(sequence, UplinkKind::New)),
                (None, Updates::Since { before, .. }) if next.since > before => {
                    waiting = Some(waiting.map_or(next.since, |oldest| oldest.min(next.since)));
                }
                (None, Updates::Since { .. }) if changed.len() < limit => {
                    changed.extend(head(next.first, UplinkKind::Status));
                }
                (None, Updates::No | Updates::Since { .. }) => {}
            }
        }
        new.extend(changed);
        if let Updates::Since { last: false, .. } = updates {
            new.sort_unstable_by_key(|head| head.sequence);
        }
        new.truncate(limit);
        (new, waiting)
    }

    pub(super) fn counts(&self) -> Counts {
        let head = self.head();
        let mut counts = Counts {
            messages: head.messages,
            conversations: head.conversations,
            logical_bytes: head.logical_bytes,
            queued_bytes: head.queued_bytes,
            unmapped: head.unmapped_next.saturating_sub(head.unmapped_first),
            ..Counts::default()
        };
        for (number, waiting) in (0_u16..).zip(&head.waiting) {
            let of_channel = ChannelCounts {
                uplink_messages: waiting.uplink_messages,
                uplink_statuses: waiting.uplink_statuses,
                hardware: waiting.hardware,
            };
            counts.queued.uplink_messages += of_channel.uplink_messages;
            counts.queued.uplink_statuses += of_channel.uplink_statuses;
            counts.queued.hardware += of_channel.hardware;
            if let Some((id, _)) = self.channel(number) {
                counts.channels.push((id, of_channel));
            }
        }
        counts
    }

    pub(super) fn note_served(&self, id: ConversationId) {
        let mut served = lock(&self.served);
        if served.recent.len() >= SERVED_HALF {
            served.older = std::mem::take(&mut served.recent);
        }
        served.recent.insert(id);
    }

    pub(super) fn was_served(&self, id: ConversationId) -> bool {
        let served = lock(&self.served);
        served.recent.contains(&id) || served.older.contains(&id)
    }

    pub(super) fn attachment_path(&self, id: AttachmentId) -> PathBuf {
        attachments_dir(&self.options.state_dir).join(id.to_string())
    }
}

impl Source for Shared {
    fn get(&self, key: &[u8]) -> Result<Option<IVec>, StoreError> {
        let place = self.place();
        if let Some(value) = place.held.get(key) {
            return Ok(value.clone());
        }
        let tree = place.tree.clone();
        drop(place);
        Source::get(&tree, key)
    }

    fn scan<'s>(&'s self, range: Range) -> Box<dyn Iterator<Item = Item> + 's> {
        let place = self.place();
        let tree = place.tree.clone();
        let held: Vec<_> = if place.held.is_empty() || range.0 >= range.1 {
            Vec::new()
        } else {
            let held = place.held.range(range.0.clone()..range.1.clone());
            held.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        drop(place);
        let read = tx::scan(&tree, range);
        if held.is_empty() {
            return read;
        }
        Box::new(tx::over(read, held))
    }
}

impl Archived for Shared {
    fn archive(&self) -> &Archive {
        &self.archive
    }
}

impl Channels {
    fn set(&mut self, id: ChannelId, number: u16, link: ChannelLink) {
        let index = usize::from(number);
        if self.by_number.len() <= index {
            self.by_number.resize(index + 1, None);
        }
        if let Some(place) = self.by_number.get_mut(index) {
            *place = Some((id.clone(), link));
        }
        self.by_id.insert(id, number);
    }
}

pub(super) fn attachments_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("attachments")
}

pub(super) fn remove_file(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        // Maintenance finds it again as an orphan.
        warn!("Cannot remove {}: {error}", path.display());
    }
}

fn first_entry(
    source: &impl Source,
    queue: Queue,
    conversation: ConversationId,
) -> Result<Option<Next>, StoreError> {
    let mut found: Option<Next> = None;
    for item in source.scan(keys::entries(queue, Some(conversation))) {
        let (key, value) = item?;
        let entry: Entry = decode(&value)?;
        let Some(id) = keys::message_tail(&key) else {
            return Err(StoreError::Corrupt("a queue entry's key".to_owned()));
        };
        let next = found.get_or_insert(Next {
            first: id.sequence,
            channel: entry.channel,
            kind: entry.kind,
            since: entry.since,
            new: None,
        });
        if entry.kind == UplinkKind::New {
            next.new = (next.kind == UplinkKind::Status).then_some(id.sequence);
            break;
        }
    }
    Ok(found)
}

/// Jumps from conversation to conversation, so that a long queue of few conversations opens quickly.
fn load_heads(tree: &Tree, queue: Queue) -> Result<Heads, StoreError> {
    let mut heads = Heads::default();
    let (mut start, end) = keys::entries(queue, None);
    while let Some(item) = Source::scan(tree, (start, end.clone())).next() {
        let Some(id) = keys::message_tail(&item?.0) else {
            return Err(StoreError::Corrupt("a queue entry's key".to_owned()));
        };
        heads.set(id.conversation, first_entry(tree, queue, id.conversation)?);
        start = keys::entry(
            queue,
            MessageId {
                conversation: id.conversation,
                sequence: Sequence(u64::MAX),
            },
        );
        start.push(0);
    }
    Ok(heads)
}
