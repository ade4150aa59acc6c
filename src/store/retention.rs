//! What becomes too old, or too much, goes: oldest first over all conversations, never what waits in a queue.

use super::incoming::CHECKPOINT_MS;
use super::messages::Pack;
use super::records::{Checkpoint, Conversation, MessageRecord, decode};
use super::shared::Shared;
use super::tx::{Source, Tx};
use super::types::Queue;
use super::{StoreError, keys};
use crate::domain::{ConversationId, MessageId, Sequence, Timestamp};

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
    for item in Source::scan(&shared.tree, (start, end)) {
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

/// Removes a conversation's messages from before the horizon. Returns how many.
pub(super) fn sweep(tx: &mut Tx<'_>, id: ConversationId, horizon: u64) -> Result<u64, StoreError> {
    let mut removed = Vec::new();
    let begun = keys::packs(id, Some(Sequence(horizon.saturating_sub(1))));
    let packs: Vec<_> = tx.scan(begun).collect::<Result<_, _>>()?;
    for (key, value) in packs {
        let pack: Pack = decode(&value)?;
        // What has a status to tell stays until it is told.
        let mut kept = Vec::new();
        for (sequence, message) in pack {
            if sequence >= horizon || waits(tx, id, sequence)? {
                kept.push((sequence, message));
            } else {
                removed.push(message);
            }
        }
        if kept.first().map(|(first, _)| *first) != keys::inverted_tail(&key) {
            tx.delete(key.to_vec());
        }
        if let Some((first, _)) = kept.first() {
            tx.put(keys::pack(id, *first), &kept)?;
        }
    }
    let live: Vec<_> = tx
        .scan(keys::lives(id, Some(Sequence(horizon))))
        .collect::<Result<_, _>>()?;
    for (key, value) in live {
        let message: MessageRecord = decode(&value)?;
        if message.is_waiting() || waits(tx, id, keys::inverted_tail(&key).unwrap_or_default())? {
            continue;
        }
        tx.delete(key.to_vec());
        removed.push(message);
    }
    for message in &removed {
        for file in message.files() {
            tx.delete(keys::file(file));
            tx.effects.remove_files.push(file);
        }
        tx.head.messages = tx.head.messages.saturating_sub(1);
        tx.head.logical_bytes = tx.head.logical_bytes.saturating_sub(message.logical_bytes());
    }
    if !removed.is_empty() && is_empty(tx, id)? {
        remove_conversation(tx, id)?;
    }
    Ok(removed.len() as u64)
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
    Ok(())
}
