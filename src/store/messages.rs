//! Messages: live ones under a key of their own, finished ones in packs. All packs of a conversation are older
//! than all its live messages.

use sled::IVec;

use super::StoreError;
use super::keys;
use super::records::{Entry, MessageRecord, RecordState, decode};
use super::shared::Shared;
use super::tx::{Source, Tx};
use super::types::{Queue, UplinkKind};
use crate::domain::{
    ChannelId, ConversationId, DeliveryState, IncomingState, Message, MessageId, ParticipantId,
    ProviderChannelId, Sequence,
};

/// Neighbouring packs lie in one page of the database: about so many.
const PACKS_OF_A_PAGE: usize = 8;

/// Finished messages of one conversation, oldest first.
pub(super) type Pack = Vec<(u64, MessageRecord)>;

/// A message and where it lies.
pub(super) struct Found {
    pub(super) stored: MessageRecord,
    /// The pack that it lies in, with the pack's key.
    pack: Option<(IVec, Pack)>,
}

pub(super) fn find(source: &impl Source, id: MessageId) -> Result<Option<Found>, StoreError> {
    // Live first: packing moves messages the other way, so that this order never misses one.
    if let Some(stored) = source.load(&keys::live(id))? {
        return Ok(Some(Found { stored, pack: None }));
    }
    let Some(item) = source
        .scan(keys::packs(id.conversation, Some(id.sequence)))
        .next()
    else {
        return Ok(None);
    };
    let (key, value) = item?;
    source.release(&key);
    let pack: Pack = decode(&value)?;
    let stored = pack
        .iter()
        .find(|(sequence, _)| *sequence == id.sequence.0)
        .map(|(_, s)| s.clone());
    Ok(stored.map(|stored| Found {
        stored,
        pack: Some((key, pack)),
    }))
}

/// Writes a changed message back to where it lay.
pub(super) fn replace(tx: &mut Tx<'_>, id: MessageId, found: Found) -> Result<(), StoreError> {
    match found.pack {
        None => tx.put(keys::live(id), &found.stored),
        Some((key, mut pack)) => {
            for (sequence, stored) in &mut pack {
                if *sequence == id.sequence.0 {
                    *stored = found.stored.clone();
                }
            }
            tx.put(key.to_vec(), &pack)
        }
    }
}

/// Messages of a conversation, newest first, from before a sequence.
pub(super) fn newest_first(
    source: &impl Source,
    conversation: ConversationId,
    before: Option<Sequence>,
) -> impl Iterator<Item = Result<(Sequence, MessageRecord), StoreError>> {
    let mut live = source.scan(keys::lives(conversation, before));
    let mut packs = None;
    let mut pack: Pack = Vec::new();
    let mut packs_read = 0;
    let mut oldest = before.map_or(u64::MAX, |sequence| sequence.0);
    std::iter::from_fn(move || {
        if packs.is_none() {
            match live
                .next()
                .map(|item| item.and_then(|(key, value)| Ok((keys::inverted_tail(&key), decode(&value)?))))
            {
                Some(Ok((Some(sequence), stored))) => {
                    oldest = sequence;
                    return Some(Ok((Sequence(sequence), stored)));
                }
                Some(Ok((None, _))) => return Some(Err(StoreError::Corrupt("a message's key".to_owned()))),
                Some(Err(error)) => return Some(Err(error)),
                None => {}
            }
        }
        let packs = packs.get_or_insert_with(|| {
            let newest = Sequence(oldest.saturating_sub(1));
            source.scan(keys::packs(conversation, Some(newest)))
        });
        loop {
            while let Some((sequence, stored)) = pack.pop() {
                // Also skips what was packed while the live ones were read.
                if sequence < oldest {
                    oldest = sequence;
                    return Some(Ok((Sequence(sequence), stored)));
                }
            }
            let read = packs.next()?.and_then(|(key, value)| {
                if packs_read % PACKS_OF_A_PAGE == 0 {
                    source.release(&key);
                }
                packs_read += 1;
                decode(&value)
            });
            match read {
                Ok(next) => pack = next,
                Err(error) => return Some(Err(error)),
            }
        }
    })
}

/// Messages of one conversation, newest first, as the rest of the gateway sees them.
pub(super) fn present(
    shared: &Shared,
    channel: &ChannelId,
    conversation: ConversationId,
    page: Vec<(Sequence, MessageRecord)>,
) -> Result<Vec<Message>, StoreError> {
    // One look at the queue for the whole page.
    let id = |sequence| MessageId {
        conversation,
        sequence,
    };
    let mut waiting = Vec::new();
    if let (Some((newest, _)), Some((oldest, _))) = (page.first(), page.last()) {
        let range = keys::entries_between(Queue::ToUplink, id(*oldest), id(*newest));
        for item in Source::scan(&shared.tree, range) {
            waiting.extend(keys::message_tail(&item?.0).map(|id| id.sequence));
        }
    }
    let shown = page.into_iter().map(|(sequence, stored)| {
        let waits = waiting.binary_search(&sequence).is_ok();
        present_one(shared, channel, id(sequence), stored, waits)
    });
    Ok(shown.collect())
}

fn present_one(
    shared: &Shared,
    channel: &ChannelId,
    id: MessageId,
    mut stored: MessageRecord,
    waits: bool,
) -> Message {
    let text = if stored.long_text.is_some() {
        shared.whole_text(&stored)
    } else {
        std::mem::take(&mut stored.text)
    };
    let (sender, state) = match stored.state {
        RecordState::Incoming { sender, failed } => {
            let state = match failed {
                Some(reason) => IncomingState::Failed(reason),
                None if waits => IncomingState::Queued,
                None => IncomingState::Accepted,
            };
            let sender = ParticipantId::EndUser {
                conversation: id.conversation,
                index: sender,
            };
            (sender, DeliveryState::Incoming(state))
        }
        RecordState::Outgoing { state, .. } => (
            ParticipantId::Source(ProviderChannelId::new(&shared.gateway, channel)),
            DeliveryState::Outgoing(state),
        ),
    };
    Message {
        id,
        sender,
        text,
        created_at: stored.created_at,
        stored_at: stored.stored_at,
        attachments: stored.attachments,
        state,
    }
}

/// Puts an entry into a queue. One that waits already moves its revision on, and stays `New` if it was.
pub(super) fn enqueue(
    tx: &mut Tx<'_>,
    queue: Queue,
    id: MessageId,
    mut entry: Entry,
) -> Result<(), StoreError> {
    let key = keys::entry(queue, id);
    tx.head.revision += 1;
    entry.revision = tx.head.revision;
    if let Some(waiting) = tx.load::<Entry>(&key)? {
        entry.kind = waiting.kind;
        entry.since = waiting.since;
        return tx.put(key, &entry);
    }
    count(tx, queue, &entry, true);
    tx.touch(queue, id.conversation);
    tx.put(key, &entry)
}

/// Takes an entry out of a queue, if it is there.
pub(super) fn dequeue(tx: &mut Tx<'_>, queue: Queue, id: MessageId) -> Result<Option<Entry>, StoreError> {
    let key = keys::entry(queue, id);
    let entry: Option<Entry> = tx.load(&key)?;
    if let Some(entry) = &entry {
        tx.delete(key);
        count(tx, queue, entry, false);
        tx.touch(queue, id.conversation);
    }
    Ok(entry)
}

fn count(tx: &mut Tx<'_>, queue: Queue, entry: &Entry, more: bool) {
    let step = |number: &mut u64, by: u64| {
        *number = if more {
            number.saturating_add(by)
        } else {
            number.saturating_sub(by)
        };
    };
    step(&mut tx.head.queued_bytes, entry.bytes);
    tx.count_waiting(entry.channel, |waiting| {
        let of_kind = match (queue, entry.kind) {
            (Queue::ToHardware, _) => &mut waiting.hardware,
            (Queue::ToUplink, UplinkKind::New) => &mut waiting.uplink_messages,
            (Queue::ToUplink, UplinkKind::Status) => &mut waiting.uplink_statuses,
        };
        step(of_kind, 1);
    });
}
