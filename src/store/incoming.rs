//! Customer → Pipedrive.

use super::attachments::StagedAttachment;
use super::conversations::{channel_number, find_or_start, participant_index, save_with_activity};
use super::messages::{dequeue, enqueue, find, replace};
use super::records::{
    Checkpoint, Conversation, Entry, Known, MessageRecord, RecordState, Remembered, UnmappedRecord,
};
use super::shared::Shared;
use super::tx::{Source, Tx};
use super::types::{Inserted, Queue, UplinkKind};
use super::{StoreError, keys, refused};
use crate::domain::{
    ConversationStatus, DedupKey, MessageId, ReceivedMessage, Sequence, Timestamp, Unmapped,
};

/// Records that no mapping could read: how many are kept.
const UNMAPPED_KEPT: u64 = 1000;
/// A checkpoint is made after this many messages …
const CHECKPOINT_MESSAGES: u64 = 256;
/// … or after this many milliseconds with at least one message.
pub(super) const CHECKPOINT_MS: i64 = 60 * 60 * 1000;

/// Gives out the next sequence and counts a message.
pub(super) fn next_sequence(tx: &mut Tx<'_>, now: Timestamp, bytes: u64) -> Result<Sequence, StoreError> {
    tx.head.sequence += 1;
    let sequence = tx.head.sequence;
    let (last, at) = tx.head.checkpoint;
    let due = sequence >= last + CHECKPOINT_MESSAGES || at.plus_ms(CHECKPOINT_MS) <= now || last == 0;
    if due {
        tx.put(
            keys::checkpoint(sequence),
            &Checkpoint {
                at: now,
                bytes_before: tx.head.total_bytes,
            },
        )?;
        tx.head.checkpoint = (sequence, now);
    }
    tx.head.messages += 1;
    tx.head.logical_bytes += bytes;
    tx.head.total_bytes += bytes;
    Ok(Sequence(sequence))
}

pub(super) fn insert(
    tx: &mut Tx<'_>,
    shared: &Shared,
    m: ReceivedMessage,
    mut files: Vec<StagedAttachment>,
    mut long_text: Option<StagedAttachment>,
) -> Result<Inserted, StoreError> {
    let channel = channel_number(tx, shared, &m.channel)?;
    let dedup = m.dedup.as_ref().map(|key| keys::dedup(channel, key));
    if let (Some(key), false) = (&dedup, matches!(m.dedup, Some(DedupKey::FirstHash(_))))
        && let Some(known) = tx.load::<Remembered>(key)?
    {
        return Ok(Inserted::Duplicate(known.message.message()));
    }
    if !shared.gauge.space().is_enough() {
        return Err(StoreError::NoSpace);
    }
    let address = m.group.clone().unwrap_or_else(|| m.from.clone());
    let (id, mut conversation) = find_or_start(tx, channel, address)?;
    let sender = participant_index(&mut conversation, &m.from, m.from_name);
    conversation.route = m.route;
    conversation.seen = false;
    // Whoever writes wants an answer.
    conversation.status = ConversationStatus::Open;
    let stored = MessageRecord {
        created_at: Timestamp::trusted(m.device_time, m.received_at),
        stored_at: m.received_at,
        state: RecordState::Incoming { sender, failed: None },
        text: m.text,
        long_text: long_text.as_ref().map(StagedAttachment::extent),
        attachments: files.iter().map(StagedAttachment::attachment).collect(),
    };
    let bytes = stored.logical_bytes();
    let message = MessageId {
        conversation: id,
        sequence: next_sequence(tx, m.received_at, bytes)?,
    };
    tx.put(keys::live(message), &stored)?;
    save_with_activity(tx, id, conversation, message.sequence)?;
    if let Some(key) = dedup {
        tx.put(
            key,
            &Remembered {
                message: Known::from(message),
                at: m.received_at,
            },
        )?;
    }
    for file in files.iter().chain(&long_text) {
        tx.put(keys::file(file.id()), &Known::from(message))?;
    }
    let entry = Entry {
        channel,
        kind: UplinkKind::New,
        revision: 0,
        bytes,
        since: m.received_at,
    };
    enqueue(tx, Queue::ToUplink, message, entry)?;
    // From here on the files belong to the message.
    files
        .iter_mut()
        .chain(&mut long_text)
        .for_each(StagedAttachment::keep);
    Ok(Inserted::New(message))
}

pub(super) fn insert_unmapped(tx: &mut Tx<'_>, shared: &Shared, mut u: Unmapped) -> Result<(), StoreError> {
    if !shared.gauge.space().is_enough() {
        return Err(StoreError::NoSpace);
    }
    u.payload.truncate(Unmapped::MAX_PAYLOAD);
    let record = UnmappedRecord {
        device: u.device,
        source: u.source,
        payload: u.payload,
        reason: u.reason,
        received_at: u.received_at,
    };
    let number = tx.head.unmapped_next;
    tx.put(keys::unmapped(number), &record)?;
    tx.head.unmapped_next += 1;
    while tx.head.unmapped_next - tx.head.unmapped_first > UNMAPPED_KEPT {
        let oldest = tx.head.unmapped_first;
        tx.delete(keys::unmapped(oldest));
        tx.head.unmapped_first += 1;
    }
    Ok(())
}

/// Pipedrive accepted the entry, or refused it for good.
pub(super) fn uplink_finished(
    tx: &mut Tx<'_>,
    id: MessageId,
    revision: u64,
    refusal: Option<String>,
) -> Result<(), StoreError> {
    let Some(entry) = tx.load::<Entry>(&keys::entry(Queue::ToUplink, id))? else {
        return Ok(());
    };
    if refusal.is_none() {
        let key = keys::conversation(id.conversation);
        if let Some(mut conversation) = tx.load::<Conversation>(&key)?
            && !conversation.known
        {
            conversation.known = true;
            tx.put(key, &conversation)?;
        }
    }
    if entry.revision != revision {
        // It changed while it was on its way: what is left to say is an update, unless the message was refused.
        if refusal.is_none() && entry.kind == UplinkKind::New {
            let entry = Entry {
                kind: UplinkKind::Status,
                ..entry
            };
            dequeue(tx, Queue::ToUplink, id)?;
            return enqueue(tx, Queue::ToUplink, id, entry);
        }
        return Ok(());
    }
    dequeue(tx, Queue::ToUplink, id)?;
    let Some(reason) = refusal else {
        return match entry.kind {
            UplinkKind::New => Ok(()),
            UplinkKind::Status => refused::forget(tx, id),
        };
    };
    let Some(mut found) = find(tx, id)? else {
        return Ok(());
    };
    match &mut found.stored.state {
        RecordState::Incoming { failed, .. } => {
            *failed = Some(reason);
            replace(tx, id, found)
        }
        // How far it has come at the hardware stays true.
        RecordState::Outgoing { .. } => refused::remember(tx, id, reason),
    }
}
