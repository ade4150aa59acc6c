//! Finished messages move into packs in the archive: fewer keys in the tree, so less memory and less disk.

use std::collections::VecDeque;

use log::warn;

use super::archive::{Archive, BEFORE_RECORD, FileRecord, Place, Pointer};
use super::records::{MessageRecord, decode, decode_as, encode, encode_as};
use super::tx::{Archived, Source, Tx};
use super::types::Queue;
use super::{StoreError, keys};
use crate::domain::{ConversationId, MessageId, Sequence, Timestamp};

/// A pack is full when its texts and overheads reach this many bytes …
const FULL_BYTES: u64 = 4096;
/// … or when it holds this many messages.
const FULL_MESSAGES: usize = 64;
/// What a message takes in a pack beside its text, roughly.
const RECORD_BYTES: u64 = 20;
/// A conversation in which nobody wrote for so long is packed to its end.
const IDLE_MS: i64 = 60 * 60 * 1000;
/// Messages of one conversation packed at once. With one operation per so many, what the operation replaces in the tree
/// stays below a megabyte.
pub(super) const MAX_STEP: usize = 128;
/// Leads a pointer, where [`super::records`] has the number of a pack that lies in the tree itself.
pub(super) const POINTER: u8 = 2;

/// Finished messages of one conversation, oldest first.
pub(super) type Pack = Vec<(u64, MessageRecord)>;

/// The value of a pack's key.
pub(super) enum Packed {
    /// As stores of schema 2 and before had them; maintenance moves them.
    Inline(Pack),
    Archived(Pointer),
}

impl Packed {
    pub(super) fn decode(value: &[u8]) -> Result<Self, StoreError> {
        if is_inline(value) {
            decode(value).map(Self::Inline)
        } else {
            decode_as(POINTER, value).map(Self::Archived)
        }
    }

    /// Bytes, and whether it takes no more messages.
    fn extent(&self) -> (u64, bool) {
        match self {
            Self::Inline(pack) => (size(pack), is_full(pack)),
            Self::Archived(pointer) => {
                let bytes = u64::from(pointer.length);
                // The length of a record is not exactly what is reckoned for it.
                let full = pointer.count >= FULL_MESSAGES as u64 || bytes >= FULL_BYTES - FULL_BYTES / 8;
                (bytes, full)
            }
        }
    }
}

/// Whether the value is a pack itself.
pub(super) fn is_inline(value: &[u8]) -> bool {
    value.first() != Some(&POINTER)
}

/// The conversation and the first message in the key of a pack.
pub(super) fn of_key(key: &[u8]) -> Result<(ConversationId, u64), StoreError> {
    keys::message_of(key).ok_or_else(|| StoreError::Corrupt("a pack's key".to_owned()))
}

/// The messages of a pack.
pub(super) fn read(archive: &Archive, key: &[u8], value: &[u8]) -> Result<Pack, StoreError> {
    let (conversation, first) = of_key(key)?;
    let mut pack: Pack = match Packed::decode(value)? {
        Packed::Inline(pack) => pack,
        Packed::Archived(pointer) => {
            let frame = archive.read(conversation, &pointer)?;
            decode(frame.get(BEFORE_RECORD..).unwrap_or_default())?
        }
    };
    pack.retain(|(sequence, _)| *sequence >= first);
    Ok(pack)
}

/// Appends a pack to the archive and points to it. One without messages is nothing.
pub(super) fn store(tx: &mut Tx<'_>, id: ConversationId, pack: &Pack) -> Result<(), StoreError> {
    let (Some((first, _)), Some((last, _))) = (pack.first(), pack.last()) else {
        return Ok(());
    };
    let pointer = Pointer {
        file: 0,
        offset: 0,
        length: 0,
        last: *last,
        count: pack.len() as u64,
        logical_bytes: pack.iter().map(|(_, message)| message.logical_bytes()).sum(),
        has_files: pack.iter().any(|(_, message)| message.files().next().is_some()),
    };
    place(tx, id, *first, &pointer, &encode(pack)?)
}

/// Appends a pack's record and points to it.
pub(super) fn place(
    tx: &mut Tx<'_>,
    id: ConversationId,
    first: u64,
    pointer: &Pointer,
    record: &[u8],
) -> Result<(), StoreError> {
    let Place { file, offset, length } = tx.archive().append(id, record)?;
    let key = keys::archive_file(file);
    let mut known: FileRecord = tx.load(&key)?.unwrap_or_default();
    known.packs += 1;
    known.bytes += u64::from(length);
    known.end = known.end.max(offset + u64::from(length));
    tx.put(key, &known)?;
    point(
        tx,
        id,
        first,
        &Pointer {
            file,
            offset,
            length,
            ..pointer.clone()
        },
    )
}

/// Writes a pointer to what is in the archive already.
pub(super) fn point(
    tx: &mut Tx<'_>,
    id: ConversationId,
    first: u64,
    pointer: &Pointer,
) -> Result<(), StoreError> {
    tx.put_raw(keys::pack(id, first), encode_as(POINTER, pointer)?);
    Ok(())
}

/// Removes a pack. Its bytes in the archive are dead.
pub(super) fn forget(tx: &mut Tx<'_>, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    tx.delete(key.to_vec());
    discount(tx, value)
}

/// What a value pointed to is dead.
pub(super) fn discount(tx: &mut Tx<'_>, value: &[u8]) -> Result<(), StoreError> {
    if is_inline(value) {
        return Ok(());
    }
    let pointer: Pointer = decode_as(POINTER, value)?;
    let key = keys::archive_file(pointer.file);
    let mut known: FileRecord = tx.load(&key)?.unwrap_or_default();
    known.packs = known.packs.saturating_sub(1);
    known.bytes = known.bytes.saturating_sub(u64::from(pointer.length));
    tx.put(key, &known)
}

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
    let mut opened = Vec::new();
    for item in tx.scan(keys::packs(id, None)) {
        let (key, value) = item?;
        let Ok((bytes, full)) = Packed::decode(&value).map(|packed| packed.extent()) else {
            break;
        };
        if full || (bytes > sum && bytes + sum < FULL_BYTES) {
            break;
        }
        sum += bytes;
        match read(tx.archive(), &key, &value) {
            Ok(pack) => opened.push((key, value, pack)),
            Err(error @ StoreError::Corrupt(_)) => {
                warn!("A pack of conversation {id} cannot be added to: {error}");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    let mut messages = Pack::new();
    for (key, value, pack) in opened.into_iter().rev() {
        forget(tx, &key, &value)?;
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
    store(tx, id, pack)?;
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
