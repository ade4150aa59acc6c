//! How far the database had come when it was synced last, in a small file inside its folder. sled takes a log whose end
//! is missing for one that was never longer: a start that finds less than the file says knows that acknowledged things
//! are gone.
//!
//! The file is overwritten in place after each sync and never synced itself, so it is never ahead of what was promised;
//! a power cut leaves it some seconds behind, which only makes it say less. One that is torn, damaged or missing says
//! nothing.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::SystemTime;

use super::records::HeadRecord;
use crate::domain::Timestamp;

/// Its name.
pub(super) const FILE: &str = "watermark";
/// CRC-32 of the rest, and five numbers, all big-endian.
const SIZE: usize = 44;

/// What the database's own counters were then; see [`HeadRecord`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Watermark {
    pub(super) revision: u64,
    pub(super) sequence: u64,
    pub(super) messages: u64,
    pub(super) conversations: u64,
    /// Time of that sync; for people.
    pub(super) at: Timestamp,
}

impl Watermark {
    pub(super) fn now(head: &HeadRecord) -> Self {
        Self {
            at: Timestamp::from_system_time(SystemTime::now()),
            ..Self::of(head)
        }
    }

    pub(super) fn of(head: &HeadRecord) -> Self {
        Self {
            revision: head.revision,
            sequence: head.sequence,
            messages: head.messages,
            conversations: head.conversations,
            at: Timestamp::default(),
        }
    }

    /// Blocks for a write into the kernel's cache.
    pub(super) fn write(self, file: &File) -> std::io::Result<()> {
        let mut bytes = [0; SIZE];
        let numbers = [
            self.revision,
            self.sequence,
            self.messages,
            self.conversations,
            self.at.unix_ms().cast_unsigned(),
        ];
        let (crc, rest) = bytes.split_at_mut(4);
        for (place, number) in rest.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        crc.copy_from_slice(&crc32fast::hash(rest).to_be_bytes());
        file.write_all_at(&bytes, 0)
    }

    /// That of the database in this folder, if it can be read.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        let bytes = std::fs::read(folder.join(FILE)).ok()?;
        let (crc, rest) = bytes.first_chunk::<SIZE>()?.split_first_chunk::<4>()?;
        if u32::from_be_bytes(*crc) != crc32fast::hash(rest) {
            return None;
        }
        let mut numbers = rest
            .chunks_exact(8)
            .filter_map(|number| Some(u64::from_be_bytes(number.try_into().ok()?)));
        Some(Self {
            revision: numbers.next()?,
            sequence: numbers.next()?,
            messages: numbers.next()?,
            conversations: numbers.next()?,
            at: Timestamp::from_unix_ms(numbers.next()?.cast_signed()),
        })
    }
}
