//! Finished messages move into packs: fewer keys, so less memory and less disk.
//!
//! sled keeps up to 16 values in a page, writes pages whole, puts one beyond 128 KiB into a file of its own that
//! nothing syncs, and its page cache holds pages by the count of looks, not by size. So packs are small: at
//! 1 KiB a page of them has 16 KiB, and a million short messages are 25,000 pages instead of 125,000.

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

fn is_full(pack: &Pack) -> bool {
    pack.len() >= FULL_MESSAGES || pack.iter().map(|(_, m)| bytes(m)).sum::<u64>() >= FULL_BYTES
}

/// Packs the oldest finished messages of a conversation. Returns how many.
pub(super) fn pack(tx: &mut Tx<'_>, id: ConversationId, now: Timestamp) -> Result<u64, StoreError> {
    let mut finished: Pack = Vec::new();
    let mut last_at = None;
    for item in tx.scan(keys::lives(id, None), false) {
        let (key, value) = item?;
        let sequence = keys::tail(&key).unwrap_or_default();
        let message: MessageRecord = decode(&value)?;
        let waits = message.is_waiting()
            || tx
                .get(&keys::entry(
                    Queue::ToUplink,
                    MessageId {
                        conversation: id,
                        sequence: Sequence(sequence),
                    },
                ))?
                .is_some();
        if waits || finished.len() >= MAX_STEP {
            break;
        }
        last_at = Some(message.stored_at);
        finished.push((sequence, message));
    }
    let idle = last_at.is_some_and(|at: Timestamp| at.plus_ms(IDLE_MS) <= now);
    if finished.is_empty() || (!idle && !is_full(&finished)) {
        return Ok(0);
    }
    // Fill up the last pack first.
    let last = tx.scan(keys::packs(id, None), true).next().transpose()?;
    let mut current: Pack = match last {
        Some((key, value)) => {
            let pack: Pack = decode(&value)?;
            if is_full(&pack) {
                Vec::new()
            } else {
                tx.delete(key.to_vec());
                pack
            }
        }
        None => Vec::new(),
    };
    let mut packed = 0;
    let mut waiting = Vec::new();
    for (sequence, message) in finished {
        current.push((sequence, message));
        waiting.push(sequence);
        if is_full(&current) {
            packed += move_into(tx, id, &mut current, &mut waiting)?;
        }
    }
    // The rest stays live while the conversation goes on, unless the last pack was opened for it.
    if !current.is_empty() && (idle || current.len() > waiting.len()) {
        packed += move_into(tx, id, &mut current, &mut waiting)?;
    }
    Ok(packed)
}

fn move_into(
    tx: &mut Tx<'_>,
    id: ConversationId,
    pack: &mut Pack,
    live: &mut Vec<u64>,
) -> Result<u64, StoreError> {
    let Some((last, _)) = pack.last() else {
        return Ok(0);
    };
    tx.put(keys::pack(id, *last), &*pack)?;
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
