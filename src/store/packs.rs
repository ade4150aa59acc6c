//! Finished messages move into packs: fewer keys, so less memory and less disk.
//!
//! sled keeps up to 16 values in a page, writes pages whole, puts one beyond 128 KiB into a file of its own that
//! nothing syncs, and its page cache holds pages by the count of looks, not by size. So packs are small: at
//! 1 KiB a page of them has 16 KiB, and a million short messages are 25,000 pages instead of 125,000.

use std::collections::VecDeque;

use log::warn;

use super::messages::Pack;
use super::records::{MessageRecord, decode};
use super::tx::{Source, Tx};
use super::types::Queue;
use super::{StoreError, keys};
use crate::domain::{ConversationId, MessageId, Sequence, Timestamp};

/// A pack is full when its texts and overheads reach this many bytes …
const FULL_BYTES: u64 = 1024;
/// … or when it holds this many messages.
const FULL_MESSAGES: usize = 64;
/// What a message takes in a pack beside its text, roughly.
const RECORD_BYTES: u64 = 20;
/// A conversation in which nobody wrote for so long is packed to its end.
const IDLE_MS: i64 = 60 * 60 * 1000;
/// Messages of one conversation packed by one operation.
const MAX_STEP: usize = 1024;

fn bytes(message: &MessageRecord) -> u64 {
    let files: usize = message
        .attachments
        .iter()
        .map(|a| a.name.len() + a.mime.len() + 16)
        .sum();
    (message.text.len() + files) as u64 + RECORD_BYTES
}

fn size(pack: &Pack) -> u64 {
    pack.iter().map(|(_, message)| bytes(message)).sum()
}

fn is_full(pack: &Pack) -> bool {
    pack.len() >= FULL_MESSAGES || size(pack) >= FULL_BYTES
}

/// Packs the oldest finished messages of a conversation. Returns how many.
pub(super) fn pack(tx: &mut Tx<'_>, id: ConversationId, now: Timestamp) -> Result<u64, StoreError> {
    let finished = finished(tx, id)?;
    let idle = finished
        .last()
        .is_some_and(|(_, last)| last.stored_at.plus_ms(IDLE_MS) <= now);
    if finished.is_empty() || (!idle && !is_full(&finished)) {
        return Ok(0);
    }
    let mut current = absorb(tx, id, size(&finished))?;
    let mut packed = 0;
    let mut live = Vec::new();
    for (sequence, message) in finished {
        current.push((sequence, message));
        live.push(sequence);
        if is_full(&current) {
            packed += move_into(tx, id, &mut current, &mut live)?;
        }
    }
    // The rest stays live while the conversation goes on, unless an earlier pack was opened for it.
    if !current.is_empty() && (idle || current.len() > live.len()) {
        packed += move_into(tx, id, &mut current, &mut live)?;
    }
    Ok(packed)
}

/// The oldest finished messages that are live, oldest first: everything before the first that waits in a queue.
fn finished(tx: &Tx<'_>, id: ConversationId) -> Result<Pack, StoreError> {
    let mut waiting: Option<Sequence> = None;
    for queue in [Queue::ToUplink, Queue::ToHardware] {
        if let Some((key, _)) = tx.scan(keys::entries(queue, Some(id))).next().transpose()? {
            let first = keys::message_tail(&key).map(|message| message.sequence);
            waiting = match (waiting, first) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
    }
    // They come newest first: only the last ones, the oldest, are kept.
    let mut oldest = VecDeque::new();
    for item in tx.scan(keys::lives(id, waiting)) {
        oldest.extend(keys::inverted_tail(&item?.0));
        if oldest.len() > MAX_STEP {
            oldest.pop_front();
        }
    }
    let mut finished = Pack::new();
    for sequence in oldest.into_iter().rev() {
        let message = MessageId {
            conversation: id,
            sequence: Sequence(sequence),
        };
        match tx.load::<MessageRecord>(&keys::live(message)) {
            Ok(Some(record)) if !record.is_waiting() => finished.push((sequence, record)),
            Ok(_) => break,
            Err(error @ StoreError::Corrupt(_)) => {
                // It stays where it is, with everything behind it; the other conversations go on.
                warn!("The message {message} cannot be packed: {error}");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(finished)
}

/// Takes back the last packs that are worth writing anew with this many bytes behind them: those that are not larger
/// than what is added, or that become full with it. So a message is written anew only when what it lies in doubles,
/// however seldom somebody writes.
fn absorb(tx: &mut Tx<'_>, id: ConversationId, added: u64) -> Result<Pack, StoreError> {
    let mut sum = added;
    let mut opened: Vec<(Vec<u8>, Pack)> = Vec::new();
    for item in tx.scan(keys::packs(id, None)) {
        let (key, value) = item?;
        let pack: Pack = decode(&value)?;
        let bytes = size(&pack);
        if is_full(&pack) || (bytes > sum && bytes + sum < FULL_BYTES) {
            break;
        }
        sum += bytes;
        opened.push((key.to_vec(), pack));
    }
    let mut messages = Pack::new();
    for (key, pack) in opened.into_iter().rev() {
        tx.delete(key);
        messages.extend(pack);
    }
    Ok(messages)
}

fn move_into(
    tx: &mut Tx<'_>,
    id: ConversationId,
    pack: &mut Pack,
    live: &mut Vec<u64>,
) -> Result<u64, StoreError> {
    let Some((first, _)) = pack.first() else {
        return Ok(0);
    };
    tx.put(keys::pack(id, *first), &*pack)?;
    for sequence in live.iter() {
        tx.delete(keys::live(MessageId {
            conversation: id,
            sequence: Sequence(*sequence),
        }));
    }
    let moved = live.len() as u64;
    pack.clear();
    live.clear();
    Ok(moved)
}
