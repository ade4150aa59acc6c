//! Messages, read by hand from what [`super::records`] writes.
//!
//! A page reads dozens of them. The program is compiled for size, and then serde's many small steps cost more than
//! sled does; and of a pack with 64 messages a page may need one. The form is postcard's
//! (<https://postcard.jamesmunns.com/wire-format>): numbers in groups of seven bits, lowest first; signed ones in zigzag;
//! texts and lists behind their length; options and variants behind a number; structures without anything.

use super::StoreError;
use super::records::{MessageRecord, RecordState, VERSION};
use crate::domain::{Attachment, OutgoingState, Timestamp};

/// What is left to read. Every method answers `None` when the bytes are not what is expected.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u64> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            // Of the tenth byte one bit is left.
            if shift == 63 && byte > 1 {
                return None;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
            shift += 7;
        }
    }

    /// A number of which postcard reads so many bytes at most.
    fn short(&mut self, longest: usize) -> Option<u64> {
        let before = self.0.len();
        let number = self.number()?;
        (before - self.0.len() <= longest).then_some(number)
    }

    /// Which variant follows: 32 bits.
    fn variant(&mut self) -> Option<u64> {
        self.short(5)
    }

    fn participant(&mut self) -> Option<u16> {
        u16::try_from(self.short(3)?).ok()
    }

    fn time(&mut self) -> Option<Timestamp> {
        let number = self.number()?;
        let half = (number >> 1).cast_signed();
        Some(Timestamp::from_unix_ms(if number & 1 == 0 {
            half
        } else {
            !half
        }))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<String> {
        Some(std::str::from_utf8(self.bytes()?).ok()?.to_owned())
    }

    #[allow(clippy::option_option, reason = "unreadable, nothing, something")]
    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.byte()? {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }

    fn state(&mut self) -> Option<RecordState> {
        Some(match self.variant()? {
            0 => RecordState::Incoming {
                sender: self.participant()?,
                failed: self.option(Self::text)?,
            },
            1 => RecordState::Outgoing {
                state: match self.variant()? {
                    0 => OutgoingState::Queued,
                    1 => OutgoingState::Attempted,
                    2 => OutgoingState::Sent,
                    3 => OutgoingState::Delivered,
                    4 => OutgoingState::Read,
                    5 => OutgoingState::Rejected(self.text()?),
                    6 => OutgoingState::Unknown(self.text()?),
                    _ => return None,
                },
                handed_at: self.time()?,
            },
            _ => return None,
        })
    }

    fn message(&mut self) -> Option<MessageRecord> {
        Some(MessageRecord {
            created_at: self.time()?,
            stored_at: self.time()?,
            state: self.state()?,
            text: self.text()?,
            long_text: self.option(|input| Some((input.number()?, input.number()?)))?,
            attachments: self.attachments()?,
        })
    }

    fn attachments(&mut self) -> Option<Vec<Attachment>> {
        // A number is not longer than a byte when it is below 128, and most messages have no files.
        if let Some((0, rest)) = self.0.split_first() {
            self.0 = rest;
            return Some(Vec::new());
        }
        let (attachments, rest) = postcard::take_from_bytes(self.0).ok()?;
        self.0 = rest;
        Some(attachments)
    }

    /// Goes past a message, without a look at what is in its texts.
    fn pass_message(&mut self) -> Option<()> {
        self.number()?;
        self.number()?;
        match self.number()? {
            0 => {
                self.number()?;
                self.option(Self::bytes)?;
            }
            1 => {
                if self.number()? > 4 {
                    self.bytes()?;
                }
                self.number()?;
            }
            _ => return None,
        }
        self.bytes()?;
        self.option(|input| Some((input.number()?, input.number()?)))?;
        for _ in 0..self.number()? {
            self.bytes()?;
            self.bytes()?;
            self.bytes()?;
            self.number()?;
        }
        Some(())
    }
}

fn versioned(bytes: &[u8]) -> Option<Input<'_>> {
    let (version, rest) = bytes.split_first()?;
    (*version == VERSION).then_some(Input(rest))
}

fn damaged(what: &str) -> StoreError {
    StoreError::Corrupt(format!("{what}: cannot be read"))
}

/// A message as it lies in the tree.
pub(super) fn message(bytes: &[u8]) -> Result<MessageRecord, StoreError> {
    versioned(bytes)
        .and_then(|mut input| input.message())
        .ok_or_else(|| damaged("a message"))
}

/// The messages of a pack, newest first, each read when it is asked for.
#[derive(Default)]
pub(super) struct PackFromItsEnd {
    bytes: Vec<u8>,
    /// Sequences, and where the messages begin.
    places: Vec<(u64, usize)>,
}

impl PackFromItsEnd {
    /// Reads a pack's record, which lies in `bytes` behind `skip` others. Messages before `first` do not count.
    pub(super) fn new(bytes: Vec<u8>, skip: usize, first: u64) -> Result<Self, StoreError> {
        let places = bytes
            .get(skip..)
            .and_then(versioned)
            .and_then(|input| places(input, bytes.len(), first))
            .ok_or_else(|| damaged("a pack"))?;
        Ok(Self { bytes, places })
    }

    /// The newest of those that are left and are older than `before`.
    pub(super) fn next(&mut self, before: u64) -> Result<Option<(u64, MessageRecord)>, StoreError> {
        while let Some((sequence, place)) = self.places.pop() {
            if sequence < before {
                let rest = self.bytes.get(place..).unwrap_or_default();
                let message = Input(rest).message().ok_or_else(|| damaged("a packed message"))?;
                return Ok(Some((sequence, message)));
            }
        }
        Ok(None)
    }
}

fn places(mut input: Input<'_>, length: usize, first: u64) -> Option<Vec<(u64, usize)>> {
    let count = usize::try_from(input.number()?).ok()?;
    // A message has more than four bytes.
    let mut places = Vec::with_capacity(count.min(input.0.len() / 4));
    for _ in 0..count {
        let sequence = input.number()?;
        if sequence >= first {
            places.push((sequence, length - input.0.len()));
        }
        input.pass_message()?;
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::records::{decode, encode};
    use super::*;
    use crate::domain::AttachmentId;

    fn a_message() -> impl Strategy<Value = MessageRecord> {
        let reason = || proptest::option::of(".{0,9}");
        let state = prop_oneof![
            (any::<u16>(), reason()).prop_map(|(sender, failed)| RecordState::Incoming { sender, failed }),
            (0..7, ".{0,9}", any::<i64>()).prop_map(|(state, reason, at)| RecordState::Outgoing {
                state: match state {
                    0 => OutgoingState::Queued,
                    1 => OutgoingState::Attempted,
                    2 => OutgoingState::Sent,
                    3 => OutgoingState::Delivered,
                    4 => OutgoingState::Read,
                    5 => OutgoingState::Rejected(reason),
                    _ => OutgoingState::Unknown(reason),
                },
                handed_at: Timestamp::from_unix_ms(at),
            }),
        ];
        let file =
            (any::<u64>(), ".{0,9}", ".{0,9}", any::<u64>()).prop_map(|(id, name, mime, size)| Attachment {
                id: AttachmentId(id),
                name,
                mime,
                size,
            });
        let times = (any::<i64>(), 0..2_000_000_000_000_i64);
        let files = proptest::collection::vec(file, 0..3);
        let long_text = proptest::option::of((any::<u64>(), any::<u64>()));
        (times, state, ".{0,300}", long_text, files).prop_map(
            |(times, state, text, long_text, attachments)| MessageRecord {
                created_at: Timestamp::from_unix_ms(times.0),
                stored_at: Timestamp::from_unix_ms(times.1),
                state,
                text,
                long_text,
                attachments,
            },
        )
    }

    proptest! {
        #[test]
        fn a_message_is_read_as_it_was_written(written in a_message()) {
            prop_assert_eq!(message(&encode(&written).unwrap()).unwrap(), written);
        }

        #[test]
        fn a_pack_is_read_from_its_end_without_what_was_removed(
            messages in proptest::collection::vec(a_message(), 0..9), first in 0_u64..12, before in 0_u64..30
        ) {
            let pack: Vec<(u64, MessageRecord)> = (1_u64..).map(|n| n * 3).zip(messages).collect();
            let mut bytes = b"in front".to_vec();
            bytes.extend(encode(&pack).unwrap());
            let mut read = PackFromItsEnd::new(bytes, 8, first).unwrap();
            let wanted = pack.into_iter().rev().filter(|(sequence, _)| (first..before).contains(sequence));
            for one in wanted {
                prop_assert_eq!(read.next(before).unwrap(), Some(one));
            }
            prop_assert_eq!(read.next(before).unwrap(), None);
        }

        #[test]
        fn damaged_bytes_are_read_as_serde_reads_them(written in a_message(), at: usize, to: u8, cut: bool) {
            let mut bytes = encode(&written).unwrap();
            let at = at % bytes.len();
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] = to;
            }
            prop_assert_eq!(message(&bytes).ok(), decode::<MessageRecord>(&bytes).ok());
        }

        #[test]
        fn no_bytes_make_a_pack_panic(bytes: Vec<u8>) {
            let mut bytes = bytes;
            bytes.insert(0, VERSION);
            if let Ok(mut pack) = PackFromItsEnd::new(bytes, 0, 0) {
                while let Ok(Some(_)) = pack.next(u64::MAX) {}
            }
        }
    }
}
