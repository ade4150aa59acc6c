//! What of a damaged log may be older than it was, because the newer state is among what is lost.
//!
//! sled's snapshot says where each page lay when it was opened last: what it names must be there, or replaced by something
//! newer. From then on the log has no holes: each segment follows the one before, each message the one before, up to the
//! end, of which the watermark says whether it is there. So a loss has a place, and what was written behind the last such
//! place is as it was.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;

use super::ending::{replayed_from, segment_number};
use super::salvage::{Bytes, HEADER_AT_MOST, Page, SEGMENT, SEGMENT_HEADER};

/// Pages of sled's own, which are no nodes.
const OWN_PAGES: u64 = 2;
/// At the end of a snapshot: its length, and the CRC-32 of the rest.
const TRAILER: usize = 12;

/// What was found in the places of the file that hold a segment each.
#[derive(Default)]
pub(super) struct Slots {
    /// By the segment's number: where what is missing in it ends, and where it ends itself if it is not full. In bytes
    /// from its beginning.
    segments: BTreeMap<u64, (u64, Option<u64>)>,
    /// Whether a number was there twice.
    twice: bool,
    /// Whether some of them show no segment at all.
    empty: bool,
}

impl Slots {
    /// `found`: segment, place, length of each sound message, and whether it fills the rest.
    pub(super) fn add(&mut self, bytes: &[u8], found: &[(u64, usize, usize, bool)]) {
        let named = found.iter().map(|(segment, ..)| *segment);
        let Some(number) = named.chain(segment_number(bytes)).max() else {
            self.empty = true;
            return;
        };
        let (mut reached, mut missing_to, mut full) = (SEGMENT_HEADER, 0, false);
        for (segment, at, length, fills) in found {
            // From the use before.
            if *segment != number {
                continue;
            }
            if *at > reached {
                missing_to = *at as u64;
            }
            reached = at + length;
            full |= fills;
        }
        full |= reached + HEADER_AT_MOST > SEGMENT;
        let end = (!full).then_some(reached as u64);
        self.twice |= self.segments.insert(number, (missing_to, end)).is_some();
    }

    /// The end of the last thing that is missing of what was written from this place in the log on, but at its end.
    fn missing_to(&self, from: u64) -> u64 {
        let segment = SEGMENT as u64;
        let Some((newest, _)) = self.segments.last_key_value() else {
            return u64::MAX;
        };
        if self.twice {
            return u64::MAX;
        }
        let holes = self.segments.iter().map(|(number, (missing_to, end))| {
            let start = number.saturating_mul(segment);
            match end {
                // The next one begins when it is full.
                Some(_) if number < newest => start.saturating_add(segment),
                _ if *missing_to > 0 => start.saturating_add(*missing_to),
                _ => 0,
            }
        });
        let mut last = holes.filter(|end| *end > from).max().unwrap_or(0);
        if self.empty {
            // It may be any that is not there; as a rule it was used for another one since.
            let absent = (from / segment..*newest)
                .rev()
                .find(|number| !self.segments.contains_key(number));
            last = last.max(absent.map_or(0, |number| (number + 1).saturating_mul(segment)));
        }
        last
    }
}

/// Places of the newest state of each page, by its number.
type Snapshot = BTreeMap<u64, Vec<u64>>;

/// sled's snapshot: of where in the log, and what.
fn snapshot(folder: &Path) -> io::Result<Option<(u64, Snapshot)>> {
    let from = replayed_from(folder)?;
    let bytes = std::fs::read(folder.join(format!("snap.{from:016X}")))?;
    let Some((rest, crc)) = bytes.split_last_chunk::<4>() else {
        return Ok(None);
    };
    let Some((content, _)) = bytes.split_at_checked(bytes.len().saturating_sub(TRAILER)) else {
        return Ok(None);
    };
    let right = rest.len() >= TRAILER - 4 && crc32fast::hash(content) == u32::from_le_bytes(*crc);
    Ok(if right {
        pages_of(content).map(|pages| (from, pages))
    } else {
        None
    })
}

fn place(bytes: &mut Bytes<'_>) -> Option<u64> {
    let place = i64::from_le_bytes(bytes.take(8)?.try_into().ok()?);
    match bytes.byte()? {
        0 => drop(bytes.number()?),
        _ => drop((bytes.number()?, bytes.take(8)?)),
    }
    u64::try_from(place).ok()
}

fn pages_of(content: &[u8]) -> Option<Snapshot> {
    let mut bytes = Bytes(content);
    let mut pages = Snapshot::new();
    // How far it goes, and where the segment of that place lies.
    bytes.take(8)?;
    bytes.number()?;
    for page in 0.. {
        let Some(count) = bytes.byte() else {
            break;
        };
        let mut places = Vec::new();
        if count == 0 {
            places.push(place(&mut bytes)?);
        }
        for _ in 0..count {
            places.push(place(&mut bytes)?);
            bytes.number()?;
        }
        pages.insert(page, places);
    }
    Some(pages)
}

/// What may be older than it was.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Everything before this place in the log.
    to: u64,
    /// Everything in these pages.
    pages: HashSet<u64>,
}

impl Doubts {
    pub(super) fn of(folder: &Path, found: &HashMap<u64, Page>, slots: &Slots) -> Self {
        let (from, snapshot) = snapshot(folder).ok().flatten().unwrap_or_default();
        let is_there = |page: u64, places: &[u64]| {
            found.get(&page).is_some_and(|page| {
                let gone = |place: &u64| !page.is_newer_than(*place) && !page.has(*place);
                !places.iter().any(gone)
            })
        };
        let lacking = snapshot
            .iter()
            .filter(|(page, places)| **page >= OWN_PAGES && !is_there(**page, places));
        Self {
            to: slots.missing_to(from),
            pages: lacking.map(|(page, _)| *page).collect(),
        }
    }

    /// Everything before this place is in doubt.
    pub(super) fn before(&mut self, place: u64) {
        self.to = self.to.max(place);
    }

    /// Something is lost: should nothing show where, then everything is in doubt.
    pub(super) fn explain(&mut self) {
        if self.to == 0 && self.pages.is_empty() {
            self.to = u64::MAX;
        }
    }

    /// Whether what a page says, and was written at this place, may have changed since.
    pub(super) fn has(&self, page: u64, at: u64) -> bool {
        at < self.to || self.pages.contains(&page)
    }
}
