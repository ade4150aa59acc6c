//! Makes a database of what was read from a damaged one whole again: what cannot be read or belongs to nothing goes,
//! what follows from the rest is made anew.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use sled::Tree;

use super::archive::{self, FileRecord};
use super::installations::Installation;
use super::packs::{self, Packed};
use super::records::{
    Channel, Checkpoint, Conversation, Entry, HeadRecord, MessageRecord, RecordState, Remembered,
    UnmappedRecord, decode, encode,
};
use super::report::Report;
use super::salvage::Lost;
use super::shared::attachments_dir;
use super::tx::{Source, broken};
use super::types::{ChannelLink, Queue, UplinkKind};
use super::watermark::Watermark;
use super::{StoreError, keys};
use crate::domain::{AttachmentId, ChannelId, ConversationId, MessageId, OutgoingState};

/// What was given out last may have been lost: numbers go on so far behind what was found.
const MARGIN: u64 = 1 << 20;

/// What is known of the damaged database.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// Its counters, as they were found.
    pub(super) head: Option<HeadRecord>,
    /// What its last sync noted.
    pub(super) mark: Option<Watermark>,
    pub(super) lost: Lost,
    /// Keys of live messages that may have changed since.
    pub(super) live: HashSet<Vec<u8>>,
    /// Finished messages in packs of which that is so.
    pub(super) packed: u64,
}

impl Evidence {
    /// Whether the last changes are there. If they are not, anything may have changed since.
    fn ends_well(&self) -> bool {
        let found = self.head.as_ref().map(|head| head.revision);
        let known = self.mark.map(|mark| mark.revision);
        found.is_some() && known.is_some() && found >= known
    }
}

struct Repair<'r> {
    tree: &'r Tree,
    evidence: &'r Evidence,
    head: HeadRecord,
    report: Report,
    channels: BTreeSet<u16>,
}

pub(super) fn run(tree: &Tree, state_dir: &Path, evidence: &Evidence) -> Result<Report, StoreError> {
    let (old, mark) = (evidence.head.clone(), evidence.mark);
    let found = old.as_ref().map(Watermark::of);
    let mut repair = Repair {
        tree,
        evidence,
        report: Report {
            gaps: evidence.lost.gaps.len(),
            pages: evidence.lost.pages,
            older: evidence.packed,
            ..Report::default()
        },
        head: old.map_or_else(HeadRecord::default, |old| HeadRecord {
            messages: 0,
            conversations: 0,
            logical_bytes: 0,
            queued_bytes: 0,
            waiting: Vec::new(),
            ..old
        }),
        channels: BTreeSet::new(),
    };
    repair.conversations()?;
    repair.packs(state_dir)?;
    repair.queue(Queue::ToUplink)?;
    repair.queue(Queue::ToHardware)?;
    repair.messages()?;
    repair.others()?;
    repair.attachments(state_dir)?;
    repair.channels()?;
    let Repair {
        mut head, mut report, ..
    } = repair;
    report.reckon(found, mark, head.sequence);
    let mark = mark.unwrap_or_default();
    head.sequence = head.sequence.max(mark.sequence) + MARGIN;
    head.revision = head.revision.max(mark.revision) + MARGIN;
    head.total_bytes = head.total_bytes.max(head.logical_bytes);
    tree.insert(keys::HEAD, encode(&head)?).map_err(broken)?;
    report.messages = head.messages;
    if !evidence.ends_well() {
        report.older = head.messages;
    }
    report.conversations = head.conversations;
    report.queued = head
        .waiting
        .iter()
        .map(|of| of.uplink_messages + of.hardware)
        .sum();
    Ok(report)
}

impl Repair<'_> {
    /// Every record of a kind that can be read; the others go. `length` of the key, 0 where it differs.
    fn each<T>(
        &mut self,
        (letter, length): (u8, usize),
        what: &'static str,
        read: impl Fn(&[u8]) -> Result<T, StoreError>,
        mut each: impl FnMut(&mut Self, &[u8], T) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        for item in Source::scan(self.tree, keys::all(letter)) {
            let (key, value) = item?;
            // Conversations and their packs share a letter.
            if letter == b'C' && key.len() != length && matches!(key.len(), 9 | 17) {
                continue;
            }
            let record = read(&value).ok();
            let kept = match record.filter(|_| length == 0 || key.len() == length) {
                Some(record) => each(self, &key, record)?,
                None => false,
            };
            if !kept {
                self.tree.remove(&key).map_err(broken)?;
                self.report.drop(what);
            }
        }
        Ok(())
    }

    fn check<T: DeserializeOwned>(
        &mut self,
        kind: (u8, usize),
        what: &'static str,
    ) -> Result<(), StoreError> {
        self.each(kind, what, decode::<T>, |_, _, _| Ok(true))
    }

    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.tree.insert(key, value).map_err(broken)?;
        Ok(())
    }

    fn is_in_gap(&self, key: &[u8]) -> bool {
        let gaps = &self.evidence.lost.gaps;
        gaps.iter()
            .any(|(from, to)| from.as_slice() <= key && key < to.as_slice())
    }

    fn saw(&mut self, sequence: u64) {
        self.head.sequence = self.head.sequence.max(sequence);
    }

    fn conversation(&self, id: ConversationId) -> Result<Option<Conversation>, StoreError> {
        self.tree.load(&keys::conversation(id))
    }

    fn conversations(&mut self) -> Result<(), StoreError> {
        let what = "conversations that could not be read";
        self.each((b'C', 9), what, decode::<Conversation>, |this, key, of| {
            let id = key.get(1..).unwrap_or_default().to_vec();
            if of.last != 0 {
                this.put(keys::activity(of.channel, of.last), id.clone())?;
            }
            this.put(keys::address(of.channel, &of.address), id)?;
            this.saw(of.last);
            this.channels.insert(of.channel);
            this.head.conversations += 1;
            Ok(true)
        })
    }

    fn packs(&mut self, state_dir: &Path) -> Result<(), StoreError> {
        let folder = archive::folder(state_dir);
        let mut on_disk = BTreeMap::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                on_disk.insert(number, entry.metadata()?.len());
            }
        }
        let mut files: BTreeMap<u32, FileRecord> = BTreeMap::new();
        let what = "packs of finished messages that could not be found or belonged to no conversation";
        let mut newer = (ConversationId(0), u64::MAX, 0);
        self.each((b'C', 17), what, Packed::decode, |this, key, packed| {
            let (id, first) = packs::of_key(key)?;
            if this.conversation(id)?.is_none() {
                return Ok(false);
            }
            let (last, count, bytes) = match packed {
                Packed::Inline(pack) => (
                    pack.last().map_or(first, |(last, _)| *last),
                    pack.len() as u64,
                    pack.iter().map(|(_, message)| message.logical_bytes()).sum(),
                ),
                Packed::Archived(pointer) => {
                    let end = pointer.offset.saturating_add(u64::from(pointer.length));
                    let Some(length) = on_disk
                        .get(&pointer.file)
                        .copied()
                        .filter(|length| *length >= end)
                    else {
                        return Ok(false);
                    };
                    let file = files.entry(pointer.file).or_default();
                    file.packs += 1;
                    file.bytes += u64::from(pointer.length);
                    // Nothing is cut off: pointers to it may be among what is lost.
                    file.end = length;
                    (pointer.last, pointer.count, pointer.logical_bytes)
                }
            };
            this.saw(last);
            this.head.messages += count;
            this.head.logical_bytes += bytes;
            if last < this.head.horizon {
                this.report.surplus += count;
            } else if newer.0 == id && newer.1 <= last {
                // From before it was written anew.
                this.report.surplus += count.min(newer.2);
            }
            newer = (id, first, count);
            Ok(true)
        })?;
        for (number, file) in &files {
            self.put(keys::archive_file(*number), encode(file)?)?;
        }
        self.report.files = on_disk.into_keys().filter(|of| !files.contains_key(of)).collect();
        Ok(())
    }

    /// The live message, if it can be read.
    fn live(&self, id: MessageId) -> Result<Option<MessageRecord>, StoreError> {
        let value = Source::get(self.tree, &keys::live(id))?;
        Ok(value.and_then(|value| decode(&value).ok()))
    }

    fn is_packed(&self, id: MessageId) -> Result<bool, StoreError> {
        let range = keys::packs(id.conversation, Some(id.sequence));
        let Some((_, value)) = Source::scan(self.tree, range).next().transpose()? else {
            return Ok(false);
        };
        Ok(match Packed::decode(&value)? {
            Packed::Inline(pack) => pack.iter().any(|(sequence, _)| *sequence == id.sequence.0),
            Packed::Archived(pointer) => pointer.last >= id.sequence.0,
        })
    }

    fn queue(&mut self, queue: Queue) -> Result<(), StoreError> {
        for item in Source::scan(self.tree, keys::entries(queue, None)) {
            let (key, value) = item?;
            let id = keys::message_tail(&key).filter(|_| key.len() == 18);
            let known = match id {
                Some(id) if self.conversation(id.conversation)?.is_none() => false,
                Some(id) => match (self.live(id)?, queue) {
                    (Some(live), Queue::ToHardware) => live.is_waiting(),
                    (Some(_), Queue::ToUplink) => true,
                    (None, Queue::ToHardware) => false,
                    (None, Queue::ToUplink) => self.is_packed(id)?,
                },
                None => false,
            };
            match decode::<Entry>(&value) {
                Ok(entry) if known => self.count(queue, &entry),
                _ => {
                    self.tree.remove(&key).map_err(broken)?;
                    self.report.drop("queue entries without a message");
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, queue: Queue, entry: &Entry) {
        self.head.queued_bytes += entry.bytes;
        self.head.revision = self.head.revision.max(entry.revision);
        self.channels.insert(entry.channel);
        let index = usize::from(entry.channel);
        if self.head.waiting.len() <= index {
            self.head.waiting.resize_with(index + 1, Default::default);
        }
        if let Some(waiting) = self.head.waiting.get_mut(index) {
            match (queue, entry.kind) {
                (Queue::ToHardware, _) => waiting.hardware += 1,
                (Queue::ToUplink, UplinkKind::New) => waiting.uplink_messages += 1,
                (Queue::ToUplink, UplinkKind::Status) => waiting.uplink_statuses += 1,
            }
        }
    }

    fn messages(&mut self) -> Result<(), StoreError> {
        let what = "messages that could not be read, belonged to no conversation or were there twice";
        self.each((b'L', 17), what, decode::<MessageRecord>, |this, key, message| {
            let (id, sequence) = packs::of_key(key)?;
            let Some(conversation) = this.conversation(id)? else {
                return Ok(false);
            };
            let id = MessageId {
                conversation: id,
                sequence: crate::domain::Sequence(sequence),
            };
            if this.is_packed(id)? {
                // From before that.
                return Ok(false);
            }
            this.saw(sequence);
            this.head.messages += 1;
            this.head.logical_bytes += message.logical_bytes();
            this.report.newest = this.report.newest.max(message.stored_at);
            let was_waiting =
                message.is_waiting() || Source::get(this.tree, &keys::entry(Queue::ToUplink, id))?.is_some();
            if sequence < this.head.horizon && !was_waiting {
                this.report.surplus += 1;
            }
            let doubted = !this.evidence.ends_well() || this.evidence.live.contains(key);
            this.report.older += u64::from(doubted);
            this.queue_again(id, conversation.channel, message, doubted)?;
            Ok(true)
        })
    }

    /// What waits has an entry; what may have had one that is lost gets one. Pipedrive knows a message that it gets
    /// again; with the hardware it is as if the gateway had stopped in the middle of an attempt, unless nothing can have
    /// changed since it was found to wait.
    fn queue_again(
        &mut self,
        id: MessageId,
        channel: u16,
        message: MessageRecord,
        doubted: bool,
    ) -> Result<(), StoreError> {
        let kind = match &message.state {
            RecordState::Incoming { failed: None, .. } => Some(UplinkKind::New),
            RecordState::Outgoing {
                state: OutgoingState::Queued | OutgoingState::Attempted | OutgoingState::Sent,
                ..
            }
            | RecordState::Incoming { .. } => None,
            RecordState::Outgoing { .. } => Some(UplinkKind::Status),
        };
        let mut add = |queue, kind| {
            let key = keys::entry(queue, id);
            let lost = queue == Queue::ToHardware || self.is_in_gap(&key);
            if !lost || Source::get(self.tree, &key)?.is_some() {
                return Ok(false);
            }
            let entry = Entry {
                channel,
                kind,
                revision: self.head.revision,
                bytes: message.logical_bytes(),
                since: message.stored_at,
            };
            self.put(key, encode(&entry)?)?;
            self.count(queue, &entry);
            self.report.again += 1;
            Ok::<_, StoreError>(true)
        };
        if let Some(kind) = kind {
            add(Queue::ToUplink, kind)?;
        }
        if !message.is_waiting() {
            return Ok(());
        }
        let had_none = add(Queue::ToHardware, UplinkKind::New)?;
        let unexplained = had_none && !self.is_in_gap(&keys::entry(Queue::ToHardware, id));
        let mut held = message;
        if (doubted || unexplained)
            && let RecordState::Outgoing { state, .. } = &mut held.state
            && *state == OutgoingState::Queued
        {
            *state = OutgoingState::Attempted;
            self.report.held.push((id, held.stored_at));
            self.put(keys::live(id), encode(&held)?)?;
        }
        Ok(())
    }

    fn others(&mut self) -> Result<(), StoreError> {
        self.check::<Remembered>((b'D', 19), "keys that recognise repeats")?;
        self.check::<super::records::Known>((b'F', 9), "names of attachments")?;
        self.check::<Installation>((b'I', 0), "connections to Pipedrive: connect again")?;
        self.head.checkpoint = (0, self.head.checkpoint.1);
        let what = "checkpoints of retention";
        self.each((b'K', 9), what, decode::<Checkpoint>, |this, key, of| {
            this.head.checkpoint = (keys::tail(key).unwrap_or_default(), of.at);
            this.head.total_bytes = this.head.total_bytes.max(of.bytes_before);
            this.saw(this.head.checkpoint.0);
            Ok(true)
        })?;
        let mut contacts = 0_u64;
        self.each(
            (b'E', 0),
            "entries of the address book",
            decode::<String>,
            |_, _, _| {
                contacts += 1;
                Ok(true)
            },
        )?;
        self.put(keys::CONTACTS.to_vec(), encode(&contacts)?)?;
        let mut oldest = None;
        let mut newest = None;
        let what = "packets that no mapping could read";
        self.each((b'U', 9), what, decode::<UnmappedRecord>, |_, key, _| {
            // Newest first.
            oldest = keys::inverted_tail(key);
            newest = newest.or(oldest);
            Ok(true)
        })?;
        let next = newest.map_or(0, |newest: u64| newest.saturating_add(1));
        self.head.unmapped_next = self.head.unmapped_next.max(next);
        self.head.unmapped_first = oldest.unwrap_or(self.head.unmapped_next);
        Ok(())
    }

    fn attachments(&mut self, state_dir: &Path) -> Result<(), StoreError> {
        for entry in fs::read_dir(attachments_dir(state_dir))? {
            let name = entry?.file_name();
            if let Some(id) = name.to_str().and_then(|name| name.parse::<AttachmentId>().ok())
                && Source::get(self.tree, &keys::file(id))?.is_none()
            {
                self.report.attachments.push(id);
            }
        }
        Ok(())
    }

    /// A number that is in use never goes to another channel.
    fn channels(&mut self) -> Result<(), StoreError> {
        let what = "channels that could not be read";
        let mut named = BTreeSet::new();
        self.each((b'H', 0), what, decode::<Channel>, |_, key, channel| {
            let name = key.get(1..).and_then(|name| std::str::from_utf8(name).ok());
            let usable = name.is_some_and(|name| name.parse::<ChannelId>().is_ok());
            Ok(usable && named.insert(channel.number))
        })?;
        for number in self.channels.iter().filter(|number| !named.contains(number)) {
            let Ok(id) = format!("lost-channel-{number}").parse::<ChannelId>() else {
                continue;
            };
            let channel = Channel {
                number: *number,
                link: ChannelLink::NotRegistered,
            };
            self.put(keys::channel(&id), encode(&channel)?)?;
        }
        let highest = named.iter().chain(&self.channels).max().copied();
        let count = highest.map_or(0, |highest| usize::from(highest) + 1);
        if self.head.waiting.len() < count {
            self.head.waiting.resize_with(count, Default::default);
        }
        Ok(())
    }
}
