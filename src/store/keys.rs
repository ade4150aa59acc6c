//! The layout of the one tree: a letter for the kind of record, then big-endian numbers, so that a range of keys
//! is a range of meanings.
//!
//! | key | value |
//! |---|---|
//! | `A` channel, inverted sequence | conversation: the order of activity, newest first |
//! | `B` channel, hash of the address | conversation |
//! | `C` conversation | [`super::records::Conversation`] |
//! | `C` conversation, inverted first sequence | [`super::packs::Packed`]: finished messages that are older than all live ones |
//! | `D` channel, hash of the key | message: recognises repeats |
//! | `E` address | name: an entry of the address book |
//! | `F` attachment | message |
//! | `G` number of an archive file | [`super::archive::FileRecord`] |
//! | `H` channel's id as text | [`super::records::Channel`] |
//! | `I` installation's id as text | [`super::Installation`]: who has connected, with sealed tokens |
//! | `K` sequence | [`super::records::Checkpoint`] |
//! | `L` conversation, inverted sequence | [`super::records::MessageRecord`]: one message |
//! | `M` name | meta: schema, ids, counters |
//! | `N` driver, its own key | its own value: what a driver must remember |
//! | `Q` queue, conversation, sequence | [`super::records::Entry`] |
//! | `U` inverted number | [`super::records::UnmappedRecord`] |
//!
//! A conversation and its packs lie side by side, because a page of it needs both: one look for a page of sled's, which
//! with many conversations has to be read from the file. Live messages are few and lie apart: packing finds them without
//! a look at everybody else.
//!
//! What is read newest first has its number inverted, so that nothing is ever scanned backwards: sled's code for
//! that keeps a constant of 1 MiB in the program.

use ring::digest::{SHA256, digest};

use super::types::Queue;
use crate::domain::{
    Address, AttachmentId, ChannelId, ConversationId, DedupKey, InstallationId, MessageId, Sequence,
};

/// From the first key of a range to the first one behind it.
pub(super) type Range = (Vec<u8>, Vec<u8>);

pub(super) const SCHEMA: &[u8] = b"Mschema";
pub(super) const GATEWAY: &[u8] = b"Mgateway";
pub(super) const MEDIA_SECRET: &[u8] = b"Msecret";
pub(super) const HEAD: &[u8] = b"Mhead";
/// How many entries the address book has.
pub(super) const CONTACTS: &[u8] = b"Mcontacts";
/// How large sled's file was when it was written anew last, 8 bytes.
pub(super) const RENEWED: &[u8] = b"Mrenewed";

fn key(letter: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|p| p.len()).sum::<usize>());
    key.push(letter);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// The first 16 bytes of SHA-256: enough that no two keys of one store ever meet.
fn hash16(bytes: &[u8]) -> [u8; 16] {
    digest(&SHA256, bytes)
        .as_ref()
        .first_chunk()
        .copied()
        .unwrap_or_default()
}

/// All keys that begin with `prefix`.
pub(super) fn prefix(prefix: Vec<u8>) -> Range {
    let mut end = prefix.clone();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            break;
        }
        end.pop();
    }
    (prefix, end)
}

pub(super) fn all(letter: u8) -> Range {
    prefix(vec![letter])
}

pub(super) fn name(key: &str) -> Vec<u8> {
    self::key(b'M', &[b"name:", key.as_bytes()])
}

/// What a driver keeps under its own key, or all that begins with it.
pub(super) fn note(driver: &str, own: &[u8]) -> Vec<u8> {
    // The length in front keeps drivers apart whose names begin alike.
    let length = u8::try_from(driver.len()).unwrap_or(u8::MAX);
    key(b'N', &[&[length], driver.as_bytes(), own])
}

pub(super) fn activity(channel: u16, last: u64) -> Vec<u8> {
    key(b'A', &[&channel.to_be_bytes(), &(!last).to_be_bytes()])
}

/// The activity of a channel's conversations, newest first, from before `before`.
pub(super) fn activities(channel: u16, before: Option<u64>) -> Range {
    let (start, end) = prefix(key(b'A', &[&channel.to_be_bytes()]));
    // The inverted sequence of `before` itself is excluded by beginning one behind it.
    (
        before.map_or(start, |b| activity(channel, b.saturating_sub(1))),
        end,
    )
}

/// The sequence inside a key that ends with an inverted one.
pub(super) fn inverted_tail(key: &[u8]) -> Option<u64> {
    tail(key).map(|inverted| !inverted)
}

/// The number at the end of a key.
pub(super) fn tail(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The conversation in its own key, or in that of a live message or of a pack.
pub(super) fn conversation_of(key: &[u8]) -> Option<ConversationId> {
    let bytes: &[u8; 8] = key.get(1..)?.first_chunk()?;
    Some(ConversationId(u64::from_be_bytes(*bytes)))
}

/// The conversation and the sequence in the key of a live message or of a pack; `None` for any other key.
pub(super) fn message_of(key: &[u8]) -> Option<(ConversationId, u64)> {
    let (conversation, inverted) = key.get(1..)?.split_first_chunk::<8>()?;
    let inverted: &[u8; 8] = inverted.try_into().ok()?;
    Some((
        ConversationId(u64::from_be_bytes(*conversation)),
        !u64::from_be_bytes(*inverted),
    ))
}

/// The conversation and sequence at the end of a queue entry's key.
pub(super) fn message_tail(key: &[u8]) -> Option<MessageId> {
    let bytes: &[u8; 16] = key.last_chunk()?;
    let (conversation, sequence) = bytes.split_first_chunk::<8>()?;
    Some(MessageId {
        conversation: ConversationId(u64::from_be_bytes(*conversation)),
        sequence: Sequence(u64::from_be_bytes(sequence.try_into().ok()?)),
    })
}

pub(super) fn address(channel: u16, address: &Address) -> Vec<u8> {
    key(
        b'B',
        &[&channel.to_be_bytes(), &hash16(address.as_str().as_bytes())],
    )
}

pub(super) fn conversation(id: ConversationId) -> Vec<u8> {
    key(b'C', &[&id.0.to_be_bytes()])
}

pub(super) fn dedup(channel: u16, of: &DedupKey) -> Vec<u8> {
    let hash = match of {
        DedupKey::DeviceId(id) => hash16(&key(b'i', &[id.as_bytes()])),
        DedupKey::Hash(hash) | DedupKey::FirstHash(hash) => hash16(&key(b'h', &[hash])),
    };
    key(b'D', &[&channel.to_be_bytes(), &hash])
}

/// Addresses are short enough to be keys, and make a list in order.
pub(super) fn contact(address: &Address) -> Vec<u8> {
    key(b'E', &[address.as_str().as_bytes()])
}

pub(super) fn file(id: AttachmentId) -> Vec<u8> {
    key(b'F', &[&id.0.to_be_bytes()])
}

pub(super) fn archive_file(number: u32) -> Vec<u8> {
    key(b'G', &[&number.to_be_bytes()])
}

/// The number in the key of an archive file.
pub(super) fn archive_number(key: &[u8]) -> Option<u32> {
    key.last_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

pub(super) fn channel(id: &ChannelId) -> Vec<u8> {
    key(b'H', &[id.as_str().as_bytes()])
}

pub(super) fn installation(id: &InstallationId) -> Vec<u8> {
    key(b'I', &[id.as_str().as_bytes()])
}

pub(super) fn checkpoint(sequence: u64) -> Vec<u8> {
    key(b'K', &[&sequence.to_be_bytes()])
}

pub(super) fn live(id: MessageId) -> Vec<u8> {
    key(
        b'L',
        &[&id.conversation.0.to_be_bytes(), &(!id.sequence.0).to_be_bytes()],
    )
}

/// Live messages of a conversation, newest first, from before a sequence if one is given.
pub(super) fn lives(id: ConversationId, before: Option<Sequence>) -> Range {
    let (start, end) = prefix(key(b'L', &[&id.0.to_be_bytes()]));
    let start = before.map_or(start, |sequence| {
        live(MessageId {
            conversation: id,
            sequence: Sequence(sequence.0.saturating_sub(1)),
        })
    });
    (start, end)
}

/// The pack whose first message has this sequence.
pub(super) fn pack(conversation: ConversationId, first: u64) -> Vec<u8> {
    key(b'C', &[&conversation.0.to_be_bytes(), &(!first).to_be_bytes()])
}

/// Packs of a conversation, newest first. With a sequence, those that begin at it or before: the first of them is
/// the one in which it lies, if it is packed.
pub(super) fn packs(id: ConversationId, at: Option<Sequence>) -> Range {
    let (_, end) = with_packs(id);
    // The highest sequence is the first one behind the conversation's own key.
    (pack(id, at.map_or(u64::MAX, |sequence| sequence.0)), end)
}

/// A conversation, then its packs, newest first.
pub(super) fn with_packs(id: ConversationId) -> Range {
    prefix(conversation(id))
}

/// Behind all keys of a conversation among the live messages, or among conversations and packs.
pub(super) fn behind(letter: u8, id: ConversationId) -> Vec<u8> {
    prefix(key(letter, &[&id.0.to_be_bytes()])).1
}

const fn queue_byte(queue: Queue) -> u8 {
    match queue {
        Queue::ToUplink => b'u',
        Queue::ToHardware => b'h',
    }
}

pub(super) fn entry(queue: Queue, id: MessageId) -> Vec<u8> {
    key(
        b'Q',
        &[
            &[queue_byte(queue)],
            &id.conversation.0.to_be_bytes(),
            &id.sequence.0.to_be_bytes(),
        ],
    )
}

/// Entries of a queue: all, or one conversation's.
pub(super) fn entries(queue: Queue, conversation: Option<ConversationId>) -> Range {
    let mut start = key(b'Q', &[&[queue_byte(queue)]]);
    if let Some(id) = conversation {
        start.extend_from_slice(&id.0.to_be_bytes());
    }
    prefix(start)
}

/// Entries of a queue for the messages from `first` to `last` of one conversation.
pub(super) fn entries_between(queue: Queue, first: MessageId, last: MessageId) -> Range {
    let mut end = entry(queue, last);
    end.push(0);
    (entry(queue, first), end)
}

pub(super) fn unmapped(number: u64) -> Vec<u8> {
    key(b'U', &[&(!number).to_be_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_also_exists_when_it_ends_in_the_highest_byte() {
        assert_eq!(prefix(vec![b'L', 0xff, 0xff]).1, vec![b'M']);
        assert_eq!(prefix(vec![b'L', 0x01]).1, vec![b'L', 0x02]);
    }

    #[test]
    fn a_conversation_lies_before_its_packs_and_these_lie_newest_first() {
        let id = ConversationId(u64::MAX);
        let (start, end) = packs(id, None);
        let newest = pack(id, u64::MAX >> 1);
        assert!(with_packs(id).0 == conversation(id) && conversation(id) < start);
        assert!(start < newest && newest < pack(id, 5) && pack(id, 0) < end);
        assert_eq!(with_packs(id).1, end);
        assert_eq!(packs(id, Some(Sequence(5))).0, pack(id, 5));
    }

    #[test]
    fn a_message_is_read_back_from_its_keys() {
        let id = MessageId {
            conversation: ConversationId(7),
            sequence: Sequence(9),
        };
        assert_eq!(conversation_of(&live(id)), Some(id.conversation));
        assert_eq!(
            conversation_of(&conversation(id.conversation)),
            Some(id.conversation)
        );
        assert_eq!(message_of(&live(id)), Some((id.conversation, 9)));
        assert_eq!(message_of(&pack(id.conversation, 9)), Some((id.conversation, 9)));
        assert_eq!(message_of(&conversation(id.conversation)), None);
        assert_eq!(message_tail(&entry(Queue::ToUplink, id)), Some(id));
        assert_eq!(inverted_tail(&activity(3, 12)), Some(12));
    }
}
