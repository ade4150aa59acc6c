//! How the log of a database ends: what a power cut did to its last messages, and what is damage, which sled would take
//! for the end of the log.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::salvage::{BATCH, CAP, HEADER_AT_MOST, Log, SEGMENT, SEGMENT_HEADER, message};

/// More than commits write as a rule before they are synced; one that wrote more is taken over whole all the same.
const TORN: u64 = if cfg!(test) { 64 << 10 } else { 256 << 10 };
/// The same where a watermark judges after sled: more than any commit writes.
const TORN_AND_JUDGED: u64 = 1 << 20;
/// Segments of the log's end that are held in memory meanwhile.
const HELD: usize = 4;

/// The number of a segment that has a right header.
pub(super) fn segment_number(bytes: &[u8]) -> Option<u64> {
    let header = bytes.get(..SEGMENT_HEADER)?;
    let (crc, rest) = header.split_first_chunk::<4>()?;
    let place = u64::from_le_bytes(*rest.first_chunk()?) ^ (u64::MAX >> 1);
    (u32::from_le_bytes(*crc) == !crc32fast::hash(rest)).then_some(place / SEGMENT as u64)
}

/// Where sled would read the log on from, which is all that was written since it was opened last.
pub(super) fn replayed_from(folder: &Path) -> io::Result<u64> {
    let mut from = 0;
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let place = name.to_str().and_then(|name| name.strip_prefix("snap."));
        let place = place.and_then(|place| u64::from_str_radix(place, 16).ok());
        from = from.max(place.unwrap_or(0));
    }
    Ok(from)
}

/// How a log ends.
#[derive(Debug)]
pub(super) enum End {
    /// A message is damaged at this place in the log, and sled would silently leave out what comes behind it.
    Damaged(u64),
    /// Nothing is, or only the last messages, which a power cut does to what was not synced yet.
    Torn(Tail),
}

/// Looks for damage in what sled reads when it opens. `judged`: a watermark says afterwards whether all is there.
pub(super) fn find_damage(folder: &Path, judged: bool) -> io::Result<End> {
    let log = Log::open(folder)?;
    let from = replayed_from(folder)?;
    // By the place of the last message, with the place in the file.
    let mut walks = BTreeMap::new();
    let mut start = 0;
    while start < log.length {
        let mut header = [0; SEGMENT_HEADER];
        let read = log.file.read_at(&mut header, start);
        let number = read.ok().and(segment_number(&header));
        if number.is_none_or(|number| (number + 1).saturating_mul(SEGMENT as u64) > from) {
            let walk = walk(&log.segment(start), number, from);
            if walk.last > 0 || walk.broken.is_some() {
                walks.insert(walk.last.max(walk.broken.unwrap_or(0)), (start, walk));
            }
        }
        start += SEGMENT as u64;
    }
    let first = walks.values().filter_map(|(_, walk)| walk.broken).min();
    let first = first.unwrap_or(u64::MAX);
    let last = walks.values().map(|(_, walk)| walk.last).max().unwrap_or(0);
    let torn = if judged { TORN_AND_JUDGED } else { TORN };
    if first.saturating_add(torn) < last {
        return Ok(End::Damaged(first));
    }
    // A batch counts as a whole.
    let batches = walks.values().filter_map(|(_, walk)| walk.batch);
    let batch = batches.filter(|(_, end)| *end >= first).min();
    let from = batch.map_or(first, |(place, _)| place.min(first));
    let mut tail = Tail {
        goes_on: first < last,
        ..Tail::default()
    };
    for (place, (start, _)) in walks
        .range(from / SEGMENT as u64 * SEGMENT as u64..)
        .rev()
        .take(HELD)
    {
        let skipped = from.saturating_sub(place / SEGMENT as u64 * SEGMENT as u64);
        let mut bytes = log.segment(*start);
        let end = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        bytes.truncate(end);
        bytes.drain(..usize::try_from(skipped).unwrap_or(usize::MAX).min(end));
        tail.pieces.push((start + skipped, bytes));
    }
    Ok(End::Torn(tail))
}

/// The end of a log from the first broken message on, by places in the file.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pieces: Vec<(u64, Vec<u8>)>,
    /// Whether something sound lies behind that message.
    goes_on: bool,
}

impl Tail {
    /// Makes the log end where it is broken. sled would go on with the next segment, as if what is missing had never
    /// been; so it leaves out everything behind, and what it then has says whether that was needed.
    pub(super) fn cut(&self, folder: &Path) -> io::Result<()> {
        if !self.goes_on {
            return Ok(());
        }
        self.write(folder, |bytes| vec![0; bytes.len()])
    }

    /// Writes it back, for a rescue: sled overwrites what it does not take over.
    pub(super) fn put_back(&self, folder: &Path) -> io::Result<()> {
        self.write(folder, <[u8]>::to_vec)
    }

    fn write(&self, folder: &Path, content: impl Fn(&[u8]) -> Vec<u8>) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(folder.join("db"))?;
        for (start, bytes) in &self.pieces {
            file.write_all_at(&content(bytes), *start)?;
        }
        file.sync_all()
    }
}

/// What a segment holds, by places in the log.
#[derive(Default)]
struct Walk {
    /// The first broken message.
    broken: Option<u64>,
    /// The last message.
    last: u64,
    /// The last batch that begins before the broken one, and where it ends.
    batch: Option<(u64, u64)>,
}

fn walk(bytes: &[u8], number: Option<u64>, from: u64) -> Walk {
    let (mut number, mut walk) = (number, Walk::default());
    let mut offset = SEGMENT_HEADER;
    if number.is_some_and(|number| number == from / SEGMENT as u64) {
        offset = offset.max(usize::try_from(from % SEGMENT as u64).unwrap_or(0));
    }
    let mut sound = number.is_some();
    let unknown = SEGMENT_HEADER as u64;
    while offset + HEADER_AT_MOST <= bytes.len() {
        let found = bytes.get(offset..).and_then(message);
        let Some(found) = found.filter(|found| sound || number.is_none_or(|of| of <= found.segment)) else {
            if sound {
                walk.broken = number.map(|number| number.saturating_mul(SEGMENT as u64) + offset as u64);
            }
            sound = false;
            offset += 1;
            continue;
        };
        match number {
            // Its header is gone.
            None => {
                number = Some(found.segment);
                walk.broken = Some(found.segment.saturating_mul(SEGMENT as u64) + unknown);
            }
            // It is being used again: what it had is dead.
            Some(of) if found.segment > of => {
                walk.broken = None;
                return walk;
            }
            // And here is something of the use before.
            Some(of) if found.segment < of => {
                if sound {
                    walk.broken = Some(of.saturating_mul(SEGMENT as u64) + offset as u64);
                }
                sound = false;
                offset += found.length;
                continue;
            }
            Some(_) => {}
        }
        let place = found.segment.saturating_mul(SEGMENT as u64) + offset as u64;
        walk.last = walk.last.max(place);
        if found.kind == BATCH && walk.broken.is_none() {
            walk.batch = found
                .body
                .first_chunk()
                .map(|end| (place, u64::from_le_bytes(*end)));
        }
        if found.kind == CAP {
            break;
        }
        offset += found.length;
    }
    if number.is_some_and(|number| (number + 1).saturating_mul(SEGMENT as u64) <= from) {
        return Walk::default();
    }
    walk
}
