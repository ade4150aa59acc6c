//! Messages: live ones under a key of their own, finished ones in packs. All packs of a conversation are older
//! than all its live messages.

use std::collections::VecDeque;

use sled::IVec;

use super::packs::{self, Pack};
use super::records::{Conversation, Entry, MessageRecord, RecordState, decode};
use super::shared::Shared;
use super::tx::{Archived, Item, Source, Tx};
use super::types::{Queue, UplinkKind};
use super::{StoreError, keys};
use crate::domain::{
    ChannelId, ConversationId, DeliveryState, IncomingState, Message, MessageId, ParticipantId,
    ProviderChannelId, Sequence,
};

/// How often something is read again that moved while it was read.
const AGAIN: usize = 8;

/// A message and where it lies.
pub(super) struct Found {
    pub(super) stored: MessageRecord,
    /// The pack that it lies in, with its key and value.
    pack: Option<(IVec, IVec, Pack)>,
}

pub(super) fn find(source: &impl Archived, id: MessageId) -> Result<Option<Found>, StoreError> {
    // Live first: packing moves messages the other way, so that this order never misses one.
    if let Some(stored) = source.load(&keys::live(id))? {
        return Ok(Some(Found { stored, pack: None }));
    }
    let mut again = 0;
    loop {
        let range = keys::packs(id.conversation, Some(id.sequence));
        let Some((key, value)) = source.scan(range).next().transpose()? else {
            return Ok(None);
        };
        let pack = match packs::read(source.archive(), &key, &value) {
            Ok(pack) => pack,
            Err(error) => {
                again += 1;
                if again > AGAIN || source.get(&key)?.as_ref() == Some(&value) {
                    return Err(error);
                }
                continue;
            }
        };
        let stored = pack
            .iter()
            .find(|(sequence, _)| *sequence == id.sequence.0)
            .map(|(_, stored)| stored.clone());
        return Ok(stored.map(|stored| Found {
            stored,
            pack: Some((key, value, pack)),
        }));
    }
}

/// Writes a changed message back to where it lay.
pub(super) fn replace(tx: &mut Tx<'_>, id: MessageId, found: Found) -> Result<(), StoreError> {
    match found.pack {
        None => tx.put(keys::live(id), &found.stored),
        Some((key, value, mut pack)) => {
            for (sequence, stored) in &mut pack {
                if *sequence == id.sequence.0 {
                    *stored = found.stored.clone();
                }
            }
            packs::forget(tx, &key, &value)?;
            packs::store(tx, id.conversation, &pack)
        }
    }
}

/// Messages of a conversation, newest first, from before a sequence.
pub(super) fn newest_first<S: Archived>(
    source: &S,
    conversation: ConversationId,
    before: Option<Sequence>,
) -> NewestFirst<'_, S> {
    NewestFirst {
        source,
        conversation,
        live: Some(source.scan(keys::lives(conversation, before))),
        ahead: VecDeque::new(),
        packs: None,
        pack: Pack::new(),
        oldest: before.map_or(u64::MAX, |sequence| sequence.0),
    }
}

pub(super) struct NewestFirst<'s, S> {
    source: &'s S,
    conversation: ConversationId,
    live: Option<Box<dyn Iterator<Item = Item> + 's>>,
    /// Live messages that were read and not given out.
    ahead: VecDeque<(Sequence, MessageRecord)>,
    packs: Option<Box<dyn Iterator<Item = Item> + 's>>,
    /// What is left of the pack that was read last.
    pack: Pack,
    /// What was given out last.
    oldest: u64,
}

impl<S: Archived> NewestFirst<'_, S> {
    /// The conversation itself, when up to `count` messages will be asked for. It lies before its packs, so one look finds
    /// both.
    pub(super) fn conversation(&mut self, count: usize) -> Result<Option<Conversation>, StoreError> {
        let newest = self.oldest == u64::MAX;
        // Live ones first, as everywhere: packing moves messages the other way.
        while self.ahead.len() < count {
            match self.next_live()? {
                Some(live) => self.ahead.push_back(live),
                None => break,
            }
        }
        let mut scan = self.source.scan(keys::with_packs(self.conversation));
        let Some((key, value)) = scan.next().transpose()? else {
            return Ok(None);
        };
        if key != keys::conversation(self.conversation) {
            return Ok(None);
        }
        if newest && self.live.is_none() {
            self.packs = Some(scan);
        }
        decode(&value).map(Some)
    }

    fn next_live(&mut self) -> Result<Option<(Sequence, MessageRecord)>, StoreError> {
        let Some((key, value)) = self.live.as_mut().and_then(Iterator::next).transpose()? else {
            self.live = None;
            return Ok(None);
        };
        let sequence =
            keys::inverted_tail(&key).ok_or_else(|| StoreError::Corrupt("a message's key".to_owned()))?;
        self.oldest = sequence;
        Ok(Some((Sequence(sequence), decode(&value)?)))
    }

    fn next_pack(&mut self) -> Result<Option<Pack>, StoreError> {
        let mut again = 0;
        loop {
            let packs = self.packs.get_or_insert_with(|| {
                let newest = Sequence(self.oldest.saturating_sub(1));
                self.source.scan(keys::packs(self.conversation, Some(newest)))
            });
            let Some((key, value)) = packs.next().transpose()? else {
                return Ok(None);
            };
            match packs::read(self.source.archive(), &key, &value) {
                Ok(pack) => return Ok(Some(pack)),
                Err(error) => {
                    again += 1;
                    if again > AGAIN || self.source.get(&key)?.as_ref() == Some(&value) {
                        return Err(error);
                    }
                    // It was moved, perhaps into the pack before it: look at all of them again.
                    self.packs = None;
                }
            }
        }
    }

    fn step(&mut self) -> Result<Option<(Sequence, MessageRecord)>, StoreError> {
        if let Some(found) = self.ahead.pop_front() {
            return Ok(Some(found));
        }
        if self.live.is_some()
            && let Some(found) = self.next_live()?
        {
            return Ok(Some(found));
        }
        loop {
            while let Some((sequence, stored)) = self.pack.pop() {
                // Also skips what was packed while the live ones were read.
                if sequence < self.oldest {
                    self.oldest = sequence;
                    return Ok(Some((Sequence(sequence), stored)));
                }
            }
            match self.next_pack()? {
                Some(pack) => self.pack = pack,
                None => return Ok(None),
            }
        }
    }
}

impl<S: Archived> Iterator for NewestFirst<'_, S> {
    type Item = Result<(Sequence, MessageRecord), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
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
    if let (Some((newest, _)), Some((oldest, _))) = (page.first(), page.last())
        && shared.may_wait(conversation, *newest)
    {
        let range = keys::entries_between(Queue::ToUplink, id(*oldest), id(*newest));
        for item in shared.scan(range) {
            waiting.extend(keys::message_tail(&item?.0).map(|id| id.sequence));
        }
    }
    let source = ProviderChannelId::new(&shared.gateway, channel);
    let shown = page.into_iter().map(|(sequence, stored)| {
        let waits = waiting.binary_search(&sequence).is_ok();
        present_one(shared, &source, id(sequence), stored, waits)
    });
    Ok(shown.collect())
}

fn present_one(
    shared: &Shared,
    source: &ProviderChannelId,
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
            ParticipantId::Source(source.clone()),
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
