//! What is left in a damaged file of sled 0.34, read without sled, which panics at the first byte that is not as it
//! should be.
//!
//! The file is a log in segments of 512 KiB. A message is: CRC-32 of body and rest of the header, inverted (4 bytes,
//! little-endian); kind (1 byte); length of the body, number of the segment, page (three numbers of 1 to 9 bytes); the
//! body. Its place in the log is the segment's number times the segment's size plus its offset there. The state of a
//! page is its newest node with the links behind it. So whatever has a right checksum counts, wherever it lies, and one
//! bad byte costs one message. Of leaves whose ranges overlap, because one is from before another was split off, the
//! newer one says what is there.
//!
//! What counts may be older than it was, because something newer is lost; where that is not ruled out, it is said with
//! each entry (`doubts`).

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::doubts::{Doubts, Slots};
use super::keys::Range;

pub(super) const SEGMENT: usize = 512 * 1024;
/// Disks lose so much at a time.
const SECTOR: usize = 4096;
pub(super) const SEGMENT_HEADER: usize = 20;
/// sled begins no message nearer to a segment's end.
pub(super) const HEADER_AT_MOST: usize = 32;

/// Fills the rest of a segment.
pub(super) const CAP: u8 = 2;
pub(super) const BATCH: u8 = 3;
const FREE: u8 = 4;
const NODE: u8 = 8;
const NODE_IN_FILE: u8 = 9;
const LINK: u8 = 10;
const LINK_IN_FILE: u8 = 11;
const LAST_KIND: u8 = 11;

/// Behind all keys: they begin with a letter.
const END: &[u8] = &[u8::MAX];

/// What could not be read.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Ranges of keys of which nothing is known.
    pub(super) gaps: Vec<Range>,
    /// Pages of which only later changes were found.
    pub(super) pages: u64,
}

/// Bytes that are taken from the front; `None` when there are not enough.
pub(super) struct Bytes<'b>(pub(super) &'b [u8]);

impl<'b> Bytes<'b> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let first = self.byte()?;
        Some(match first {
            0..=240 => u64::from(first),
            241..=248 => 240 + 256 * (u64::from(first) - 241) + u64::from(self.byte()?),
            249 => 2288 + 256 * u64::from(self.byte()?) + u64::from(self.byte()?),
            250.. => {
                let mut bytes = [0; 8];
                let taken = self.take(usize::from(first - 247))?;
                bytes.get_mut(..taken.len())?.copy_from_slice(taken);
                u64::from_le_bytes(bytes)
            }
        })
    }

    fn string(&mut self) -> Option<&'b [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }
}

pub(super) struct Message<'b> {
    pub(super) kind: u8,
    pub(super) segment: u64,
    page: u64,
    pub(super) body: &'b [u8],
    /// Bytes of all of it.
    pub(super) length: usize,
}

/// The message at the beginning, if its checksum is right.
pub(super) fn message(bytes: &[u8]) -> Option<Message<'_>> {
    let mut rest = Bytes(bytes);
    let crc = u32::from_le_bytes(rest.take(4)?.try_into().ok()?);
    let kind = rest.byte()?;
    if kind == 0 || kind > LAST_KIND {
        return None;
    }
    let length = usize::try_from(rest.number()?).ok()?;
    let (segment, page) = (rest.number()?, rest.number()?);
    let header = bytes.len() - rest.0.len();
    let body = rest.take(length)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(body);
    hasher.update(bytes.get(4..header)?);
    (crc == !hasher.finalize()).then_some(Message {
        kind,
        segment,
        page,
        body,
        length: header + length,
    })
}

/// Where the messages of a page lie in the file, by their places in the log.
#[derive(Default)]
pub(super) struct Page {
    /// The newest that replaces all before it; with its kind.
    base: Option<(u64, u64, u8)>,
    links: Vec<(u64, u64)>,
}

impl Page {
    /// Whether something newer than at this place replaces all of it.
    pub(super) fn is_newer_than(&self, place: u64) -> bool {
        self.base.is_some_and(|(at, ..)| at > place)
    }

    /// Whether what was written at this place was found.
    pub(super) fn has(&self, place: u64) -> bool {
        self.base.is_some_and(|(at, ..)| at == place) || self.links.iter().any(|(at, _)| *at == place)
    }

    fn add(&mut self, kind: u8, at: u64, offset: u64) {
        let from = self.base.map_or(0, |(at, ..)| at);
        match kind {
            FREE | NODE | NODE_IN_FILE if at >= from => {
                self.base = Some((at, offset, kind));
                self.links.retain(|(link, _)| *link > at);
            }
            LINK | LINK_IN_FILE if at > from => self.links.push((at, offset)),
            _ => {}
        }
    }
}

/// A node, as far as it matters here.
struct Node {
    prefix: Vec<u8>,
    low: Vec<u8>,
    high: Vec<u8>,
    /// Values, with the place in the log up to which nothing that was found has changed them.
    entries: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
    /// Whether all links behind it could be read.
    whole: bool,
}

/// `None`: it is no leaf, or not whole.
fn leaf(body: &[u8], at: u64) -> Option<Node> {
    let mut body = Bytes(body);
    body.number()?;
    body.number()?;
    body.byte()?;
    let prefix = usize::from(body.byte()?);
    let low = body.string()?;
    let high = body.string()?;
    let prefix = low.get(..prefix)?.to_vec();
    if body.byte()? != 0 {
        return None;
    }
    let count = body.number()?;
    let mut names = Vec::new();
    for _ in 0..count {
        names.push([&prefix, body.string()?].concat());
    }
    let mut entries = BTreeMap::new();
    for name in names {
        entries.insert(name, (body.string()?.to_vec(), at));
    }
    Some(Node {
        prefix,
        low: low.to_vec(),
        high: if high.is_empty() { END } else { high }.to_vec(),
        entries,
        whole: true,
    })
}

impl Node {
    fn apply(&mut self, link: &[u8], at: u64) -> Option<()> {
        let mut link = Bytes(link);
        match link.byte()? {
            0 => {
                let key = [&self.prefix, link.string()?].concat();
                self.entries.insert(key, (link.string()?.to_vec(), at));
            }
            1 => {
                self.entries.remove(&[&self.prefix, link.string()?].concat());
            }
            // About merging, which shows in the nodes themselves.
            _ => {}
        }
        Some(())
    }
}

/// What lies in a leaf, by the beginning of each piece: its end and the leaf.
type Pieces = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

/// Puts a newer leaf over the older ones.
fn cover(pieces: &mut Pieces, (low, high): Range, page: u64) {
    let before = pieces.range_mut(..low.clone()).next_back();
    if let Some((_, (end, of))) = before
        && *end > low
    {
        let (old_end, of) = (std::mem::replace(end, low.clone()), *of);
        if old_end > high {
            pieces.insert(high.clone(), (old_end, of));
        }
    }
    let inside: Vec<Vec<u8>> = pieces
        .range(low.clone()..high.clone())
        .map(|(start, _)| start.clone())
        .collect();
    for start in inside {
        if let Some((end, of)) = pieces.remove(&start)
            && end > high
        {
            pieces.insert(high.clone(), (end, of));
        }
    }
    pieces.insert(low, (high, page));
}

/// The file of a database, and the folder of its large values.
pub(super) struct Log<'f> {
    folder: &'f Path,
    pub(super) file: File,
    pub(super) length: u64,
}

impl<'f> Log<'f> {
    pub(super) fn open(folder: &'f Path) -> io::Result<Self> {
        let file = File::open(folder.join("db"))?;
        let length = file.metadata()?.len();
        Ok(Self { folder, file, length })
    }

    fn bytes(&self, at: u64) -> io::Result<Vec<u8>> {
        let segment = SEGMENT as u64;
        let end = (at / segment + 1).saturating_mul(segment).min(self.length);
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(at)).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    /// The segment there. What the disk does not give back is lost, the rest of it is not.
    pub(super) fn segment(&self, start: u64) -> Vec<u8> {
        if let Ok(bytes) = self.bytes(start) {
            return bytes;
        }
        let mut bytes = vec![0; SEGMENT];
        for (piece, at) in bytes.chunks_mut(SECTOR).zip((start..).step_by(SECTOR)) {
            self.file.read_at(piece, at).ok();
        }
        bytes
    }

    fn pages(&self) -> (HashMap<u64, Page>, Slots) {
        let mut pages: HashMap<u64, Page> = HashMap::new();
        let mut slots = Slots::default();
        let mut start = 0;
        while start < self.length {
            let bytes = self.segment(start);
            let mut found_here = Vec::new();
            let mut offset = SEGMENT_HEADER;
            while offset < bytes.len() {
                let Some(found) = bytes.get(offset..).and_then(message) else {
                    offset += 1;
                    continue;
                };
                if found.kind >= NODE || found.kind == FREE {
                    let at = found.segment.saturating_mul(SEGMENT as u64) + offset as u64;
                    pages
                        .entry(found.page)
                        .or_default()
                        .add(found.kind, at, start + offset as u64);
                }
                found_here.push((found.segment, offset, found.length, found.kind == CAP));
                offset += found.length;
            }
            slots.add(&bytes, &found_here);
            start += SEGMENT as u64;
        }
        (pages, slots)
    }

    /// The body of the message there, wherever it lies.
    fn body(&self, at: u64) -> Option<Vec<u8>> {
        // Most are short: not the rest of the segment for each.
        let mut head = vec![0; 8192];
        let read = self.file.read_at(&mut head, at).ok()?;
        let in_segment = usize::try_from(SEGMENT as u64 - at % SEGMENT as u64).ok()?;
        head.truncate(read.min(in_segment));
        let whole;
        let found = if let Some(found) = message(&head) {
            found
        } else {
            whole = self.bytes(at).ok()?;
            message(&whole)?
        };
        if found.kind != NODE_IN_FILE && found.kind != LINK_IN_FILE {
            return Some(found.body.to_vec());
        }
        let name = i64::from_le_bytes(found.body.try_into().ok()?);
        let bytes = std::fs::read(self.folder.join("blobs").join(name.to_string())).ok()?;
        let (crc, content) = bytes.split_first_chunk::<4>()?;
        let right = u32::from_le_bytes(*crc) == crc32fast::hash(content);
        right.then(|| content.get(1..).map(<[u8]>::to_vec)).flatten()
    }

    fn leaf(&self, page: &Page) -> Option<Node> {
        let (at, offset, kind) = page.base?;
        if kind == FREE {
            return None;
        }
        let mut node = leaf(&self.body(offset)?, at)?;
        let mut links = page.links.clone();
        links.sort_unstable();
        for (at, offset) in links {
            let applied = self.body(offset).and_then(|link| node.apply(&link, at));
            node.whole &= applied.is_some();
        }
        Some(node)
    }

    /// Whether its newest node lies in a file of its own, and cannot be read.
    fn has_lost_file(&self, page: &Page) -> bool {
        page.base
            .is_some_and(|(_, offset, kind)| kind == NODE_IN_FILE && self.body(offset).is_none())
    }
}

/// Gives every entry that can be read, in the order of the keys, and whether something newer may be among what is lost.
/// That says nothing about a log whose end is missing.
pub(super) fn read<E: From<io::Error>>(
    folder: &Path,
    mut each: impl FnMut(Vec<u8>, Vec<u8>, bool) -> Result<(), E>,
) -> Result<Lost, E> {
    let log = Log::open(folder)?;
    let (pages, slots) = log.pages();
    let mut doubts = Doubts::of(folder, &pages, &slots);
    let mut lost = Lost::default();
    let mut leaves = Vec::new();
    for (number, page) in &pages {
        match page.base {
            None => lost.pages += 1,
            Some((_, _, FREE)) => {}
            Some((at, ..)) => {
                if let Some(node) = log.leaf(page) {
                    leaves.push((at, *number, (node.low, node.high)));
                } else if log.has_lost_file(page) {
                    doubts.before(at + 1);
                }
            }
        }
    }
    leaves.sort_unstable();
    let mut pieces = Pieces::new();
    for (_, number, range) in leaves {
        if range.0 < range.1 {
            cover(&mut pieces, range, number);
        }
    }
    let mut reached = Vec::new();
    for (low, (high, _)) in &pieces {
        if reached < *low {
            lost.gaps.push((reached.clone(), low.clone()));
        }
        reached.clone_from(high);
    }
    if reached.as_slice() < END {
        lost.gaps.push((reached, END.to_vec()));
    }
    if !lost.gaps.is_empty() {
        doubts.explain();
    }
    for (low, (high, number)) in pieces {
        let Some(node) = pages.get(&number).and_then(|page| log.leaf(page)) else {
            continue;
        };
        for (key, (value, at)) in node.entries {
            if low <= key && key < high {
                each(key, value, !node.whole || doubts.has(number, at))?;
            }
        }
    }
    Ok(lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_leaf_takes_its_range_from_older_ones() {
        let range = |low: &str, high: &str| (low.as_bytes().to_vec(), high.as_bytes().to_vec());
        let mut pieces = Pieces::new();
        cover(&mut pieces, range("a", "z"), 1);
        cover(&mut pieces, range("f", "k"), 2);
        cover(&mut pieces, range("c", "g"), 3);
        let shown: Vec<_> = pieces
            .iter()
            .map(|(low, (high, page))| {
                let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
                format!("{}-{} {page}", text(low), text(high))
            })
            .collect();
        assert_eq!(shown, ["a-c 1", "c-g 3", "g-k 2", "k-z 1"]);
    }

    #[test]
    fn any_bytes_are_read_to_their_end() {
        for seed in 0..200_u8 {
            let bytes: Vec<u8> = (0..600_u32)
                .map(|n| (n.wrapping_mul(u32::from(seed) * 7 + 13) >> 3).to_le_bytes())
                .filter_map(|bytes| bytes.first().copied())
                .collect();
            for start in 0..bytes.len() {
                let rest = bytes.get(start..).unwrap();
                assert!(message(rest).is_none_or(|found| found.length <= rest.len()));
                drop(leaf(rest, 0));
            }
        }
    }
}
