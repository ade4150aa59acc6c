//! What becomes too old, or too much, goes: oldest first over all conversations, never what waits in a queue.

use log::warn;

use super::archive::{Archive, Pointer};
use super::incoming::CHECKPOINT_MS;
use super::packs::{self, Pack, Packed};
use super::records::{Checkpoint, Conversation, MessageRecord, decode};
use super::shared::Shared;
use super::tx::{Archived, Source, Tx};
use super::types::Queue;
use super::{StoreError, keys, refused};
use crate::domain::{AttachmentId, ConversationId, MessageId, Sequence, Timestamp};

/// By size, this part more is removed than must be, so that not every message removes another.
const SLACK: u64 = 50;

/// The sequence before which messages are removed: beyond the present horizon, if something is due.
pub(super) fn due(shared: &Shared, now: Timestamp) -> Result<Option<u64>, StoreError> {
    let head = shared.head();
    let retain = i64::try_from(shared.options.retain_for.as_millis()).unwrap_or(i64::MAX);
    let cutoff = Timestamp::from_unix_ms(now.unix_ms().saturating_sub(retain));
    let allowed = shared.options.retain_bytes;
    let excess = match head.logical_bytes.checked_sub(allowed) {
        None | Some(0) => None,
        Some(over) => Some(over + allowed / SLACK),
    };
    let (start, end) = (keys::checkpoint(head.horizon), keys::all(b'K').1);
    let mut first: Option<Checkpoint> = None;
    let mut previous: Option<Checkpoint> = None;
    let mut by_age = None;
    let mut by_size = None;
    // A checkpoint is never further from the messages behind it than this.
    let aged = |checkpoint: &Checkpoint| checkpoint.at.plus_ms(CHECKPOINT_MS) <= cutoff;
    // A round through everything is only worth it when the oldest is overdue by a hundredth of its time.
    let overdue = |first: &Checkpoint| cutoff.unix_ms().saturating_sub(first.at.unix_ms()) >= retain / 100;
    for item in shared.scan((start, end)) {
        let (key, value) = item?;
        let (Some(sequence), checkpoint) = (keys::tail(&key), decode::<Checkpoint>(&value)?) else {
            continue;
        };
        let first = first.get_or_insert(checkpoint);
        if overdue(first) && previous.as_ref().is_some_and(aged) {
            by_age = Some(sequence);
        }
        let frees = checkpoint.bytes_before.saturating_sub(first.bytes_before);
        if by_size.is_none() && excess.is_some_and(|excess| frees >= excess) {
            by_size = Some(sequence);
        }
        previous = Some(checkpoint);
        if !aged(&checkpoint) && (excess.is_none() || by_size.is_some()) {
            break;
        }
    }
    let behind_all = Some(head.sequence + 1);
    if first.as_ref().is_some_and(overdue) && previous.as_ref().is_some_and(aged) {
        by_age = behind_all;
    }
    if excess.is_some() {
        by_size = by_size.or(behind_all);
    }
    Ok(by_age
        .max(by_size)
        .filter(|horizon| *horizon > head.horizon.max(1)))
}

/// Messages that go.
#[derive(Default)]
pub(super) struct Removed {
    pub(super) messages: u64,
    logical_bytes: u64,
    files: Vec<AttachmentId>,
}

impl Removed {
    pub(super) fn add(&mut self, message: &MessageRecord) {
        self.messages += 1;
        self.logical_bytes += message.logical_bytes();
        self.files.extend(message.files());
    }

    /// A whole pack; it is only read when files belong to it. One that cannot be read goes all the same.
    pub(super) fn add_pack(&mut self, archive: &Archive, key: &[u8], value: &[u8]) {
        let packed = match Packed::decode(value) {
            Ok(packed) => packed,
            Err(error) => return warn!("A pack is removed unread: {error}"),
        };
        match packed {
            Packed::Inline(pack) => {
                for (_, message) in &pack {
                    self.add(message);
                }
            }
            Packed::Archived(pointer) => {
                self.messages += pointer.count;
                self.logical_bytes += pointer.logical_bytes;
                if pointer.has_files {
                    match packs::read(archive, key, value) {
                        Ok(pack) => self
                            .files
                            .extend(pack.iter().flat_map(|(_, message)| message.files())),
                        Err(error) => warn!("A pack is removed unread, its files stay: {error}"),
                    }
                }
            }
        }
    }

    /// Takes them out of the sums; their files go with the commit.
    pub(super) fn apply(self, tx: &mut Tx<'_>) {
        for file in self.files {
            tx.delete(keys::file(file));
            tx.effects.remove_files.push(file);
        }
        tx.head.messages = tx.head.messages.saturating_sub(self.messages);
        tx.head.logical_bytes = tx.head.logical_bytes.saturating_sub(self.logical_bytes);
    }
}

/// Removes a conversation's messages from before the horizon. Returns how many.
pub(super) fn sweep(tx: &mut Tx<'_>, id: ConversationId, horizon: u64) -> Result<u64, StoreError> {
    let mut removed = Removed::default();
    let before = Sequence(horizon.saturating_sub(1));
    let packs: Vec<_> = tx.scan(keys::packs(id, Some(before))).collect::<Result<_, _>>()?;
    for (key, value) in packs {
        match sweep_pack(tx, &key, &value, horizon, &mut removed) {
            Err(error @ (StoreError::Corrupt(_) | StoreError::Archive(_) | StoreError::NoSpace)) => {
                // The others go on, and so does the next round.
                warn!("A pack of conversation {id} stays beyond its time: {error}");
            }
            swept => swept?,
        }
    }
    let live: Vec<_> = tx
        .scan(keys::lives(id, Some(Sequence(horizon))))
        .collect::<Result<_, _>>()?;
    for (key, value) in live {
        let Ok(message) = decode::<MessageRecord>(&value) else {
            continue;
        };
        if message.is_waiting() || waits(tx, id, keys::inverted_tail(&key).unwrap_or_default())? {
            continue;
        }
        tx.delete(key.to_vec());
        removed.add(&message);
    }
    let messages = removed.messages;
    removed.apply(tx);
    if messages > 0 && is_empty(tx, id)? {
        remove_conversation(tx, id)?;
    }
    Ok(messages)
}

/// Removes what lies before the horizon, and never what has a status to tell.
fn sweep_pack(
    tx: &mut Tx<'_>,
    key: &[u8],
    value: &[u8],
    horizon: u64,
    removed: &mut Removed,
) -> Result<(), StoreError> {
    let (id, first) = packs::of_key(key)?;
    let packed = Packed::decode(value)?;
    let last = match &packed {
        Packed::Inline(pack) => pack.last().map_or(first, |(last, _)| *last),
        Packed::Archived(pointer) => pointer.last,
    };
    if last < horizon && !waits_between(tx, id, first, last)? {
        removed.add_pack(tx.archive(), key, value);
        return packs::forget(tx, key, value);
    }
    let pack = packs::read(tx.archive(), key, value)?;
    let mut kept = Pack::new();
    let mut gone = Vec::new();
    for (sequence, message) in pack {
        if sequence >= horizon || waits(tx, id, sequence)? {
            kept.push((sequence, message));
        } else {
            gone.push((sequence, message));
        }
    }
    let (Some((newest_gone, _)), Some((oldest_kept, _))) = (gone.last(), kept.first()) else {
        return Ok(());
    };
    match packed {
        // Only the beginning goes: the bytes stay where they are, and the key says from where on they count.
        Packed::Archived(pointer) if newest_gone < oldest_kept => {
            tx.delete(key.to_vec());
            let pointer = Pointer {
                count: kept.len() as u64,
                logical_bytes: kept.iter().map(|(_, message)| message.logical_bytes()).sum(),
                ..pointer
            };
            packs::point(tx, id, *oldest_kept, &pointer)?;
        }
        _ => {
            packs::store(tx, id, &kept)?;
            if keys::pack(id, *oldest_kept) == key {
                packs::discount(tx, value)?;
            } else {
                packs::forget(tx, key, value)?;
            }
        }
    }
    for (_, message) in &gone {
        removed.add(message);
    }
    Ok(())
}

fn waits_between(
    tx: &Tx<'_>,
    conversation: ConversationId,
    first: u64,
    last: u64,
) -> Result<bool, StoreError> {
    let id = |sequence| MessageId {
        conversation,
        sequence: Sequence(sequence),
    };
    for queue in [Queue::ToUplink, Queue::ToHardware] {
        let range = keys::entries_between(queue, id(first), id(last));
        if tx.scan(range).next().transpose()?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn waits(tx: &Tx<'_>, conversation: ConversationId, sequence: u64) -> Result<bool, StoreError> {
    let id = MessageId {
        conversation,
        sequence: Sequence(sequence),
    };
    Ok(tx.get(&keys::entry(Queue::ToUplink, id))?.is_some()
        || tx.get(&keys::entry(Queue::ToHardware, id))?.is_some())
}

fn is_empty(tx: &Tx<'_>, id: ConversationId) -> Result<bool, StoreError> {
    for range in [keys::lives(id, None), keys::packs(id, None)] {
        if tx.scan(range).next().transpose()?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A conversation without messages: whoever writes next begins a new one.
fn remove_conversation(tx: &mut Tx<'_>, id: ConversationId) -> Result<(), StoreError> {
    let key = keys::conversation(id);
    if let Some(conversation) = tx.load::<Conversation>(&key)? {
        if conversation.last != 0 {
            tx.delete(keys::activity(conversation.channel, conversation.last));
        }
        tx.delete(keys::address(conversation.channel, &conversation.address));
        tx.delete(key);
        tx.head.conversations = tx.head.conversations.saturating_sub(1);
    }
    Ok(())
}

/// Everything before the horizon is gone: its checkpoints go too.
pub(super) fn swept(tx: &mut Tx<'_>, horizon: u64) -> Result<(), StoreError> {
    tx.head.horizon = horizon;
    let (start, _) = keys::all(b'K');
    let old: Vec<_> = tx
        .scan((start, keys::checkpoint(horizon)))
        .map(|item| item.map(|(key, _)| key.to_vec()))
        .collect::<Result<_, _>>()?;
    for key in old {
        tx.delete(key);
    }
    refused::forget_gone(tx, None, horizon)
}
