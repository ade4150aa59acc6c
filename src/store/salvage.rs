//! What is left in a damaged file of sled 0.34, read without sled, which panics at the first byte that is not as it
//! should be.
//!
//! The file is a log in segments of 512 KiB. A message is: CRC-32 of body and rest of the header, inverted (4 bytes,
//! little-endian); kind (1 byte); length of the body, number of the segment, page (three numbers of 1 to 9 bytes); the
//! body. Its place in the log is the segment's number times the segment's size plus its offset there. The state of a
//! page is its newest node with the links behind it. So whatever has a right checksum counts, wherever it lies, and one
//! bad byte costs one message. Of leaves whose ranges overlap, because one is from before another was split off, the
//! newer one says what is there.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::keys::Range;

const SEGMENT: usize = 512 * 1024;
/// Disks lose so much at a time.
const SECTOR: usize = 4096;
const SEGMENT_HEADER: usize = 20;

/// sled begins no message nearer to a segment's end.
const HEADER_AT_MOST: usize = 32;
/// More than commits write as a rule before they are synced; one that wrote more is taken over whole all the same.
const TORN: u64 = if cfg!(test) { 64 << 10 } else { 256 << 10 };
/// The same where a watermark judges after sled: more than any commit writes.
const TORN_AND_JUDGED: u64 = 1 << 20;
/// Segments of the log's end that are held in memory meanwhile.
const HELD: usize = 4;

const CAP: u8 = 2;
const BATCH: u8 = 3;
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
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u64> {
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

struct Message<'b> {
    kind: u8,
    segment: u64,
    page: u64,
    body: &'b [u8],
    /// Bytes of all of it.
    length: usize,
}

/// The message at the beginning, if its checksum is right.
fn message(bytes: &[u8]) -> Option<Message<'_>> {
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
struct Page {
    /// The newest that replaces all before it; with its kind.
    base: Option<(u64, u64, u8)>,
    links: Vec<(u64, u64)>,
}

impl Page {
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
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// `None`: it is no leaf, or not whole.
fn leaf(body: &[u8]) -> Option<Node> {
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
        entries.insert(name, body.string()?.to_vec());
    }
    Some(Node {
        prefix,
        low: low.to_vec(),
        high: if high.is_empty() { END } else { high }.to_vec(),
        entries,
    })
}

impl Node {
    fn apply(&mut self, link: &[u8]) -> Option<()> {
        let mut link = Bytes(link);
        match link.byte()? {
            0 => {
                let key = [&self.prefix, link.string()?].concat();
                self.entries.insert(key, link.string()?.to_vec());
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
struct Log<'f> {
    folder: &'f Path,
    file: File,
    length: u64,
}

impl<'f> Log<'f> {
    fn open(folder: &'f Path) -> io::Result<Self> {
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
    fn segment(&self, start: u64) -> Vec<u8> {
        if let Ok(bytes) = self.bytes(start) {
            return bytes;
        }
        let mut bytes = vec![0; SEGMENT];
        for (piece, at) in bytes.chunks_mut(SECTOR).zip((start..).step_by(SECTOR)) {
            self.file.read_at(piece, at).ok();
        }
        bytes
    }

    fn pages(&self) -> HashMap<u64, Page> {
        let mut pages: HashMap<u64, Page> = HashMap::new();
        let mut start = 0;
        while start < self.length {
            let bytes = self.segment(start);
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
                offset += found.length;
            }
            start += SEGMENT as u64;
        }
        pages
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
        let (_, offset, kind) = page.base?;
        if kind == FREE {
            return None;
        }
        let mut node = leaf(&self.body(offset)?)?;
        let mut links = page.links.clone();
        links.sort_unstable();
        for (_, offset) in links {
            if let Some(link) = self.body(offset) {
                node.apply(&link);
            }
        }
        Some(node)
    }
}

/// Gives every entry that can be read, in the order of the keys.
pub(super) fn read<E: From<io::Error>>(
    folder: &Path,
    mut each: impl FnMut(Vec<u8>, Vec<u8>) -> Result<(), E>,
) -> Result<Lost, E> {
    let log = Log::open(folder)?;
    let pages = log.pages();
    let mut lost = Lost::default();
    let mut leaves = Vec::new();
    for (number, page) in &pages {
        match page.base {
            None => lost.pages += 1,
            Some((_, _, FREE)) => {}
            Some((at, ..)) => {
                if let Some(node) = log.leaf(page) {
                    leaves.push((at, *number, (node.low, node.high)));
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
    for (low, (high, number)) in pieces {
        if reached < low {
            lost.gaps.push((reached, low.clone()));
        }
        let node = pages.get(&number).and_then(|page| log.leaf(page));
        for (key, value) in node.map(|node| node.entries).unwrap_or_default() {
            if low <= key && key < high {
                each(key, value)?;
            }
        }
        reached = high;
    }
    if reached.as_slice() < END {
        lost.gaps.push((reached, END.to_vec()));
    }
    Ok(lost)
}

/// The number of a segment that has a right header.
fn segment_number(bytes: &[u8]) -> Option<u64> {
    let header = bytes.get(..SEGMENT_HEADER)?;
    let (crc, rest) = header.split_first_chunk::<4>()?;
    let place = u64::from_le_bytes(*rest.first_chunk()?) ^ (u64::MAX >> 1);
    (u32::from_le_bytes(*crc) == !crc32fast::hash(rest)).then_some(place / SEGMENT as u64)
}

/// Where sled would read the log on from, which is all that was written since it was opened last.
fn replayed_from(folder: &Path) -> io::Result<u64> {
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

    /// Writes it back, for [`read`]: sled overwrites what it does not take over.
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
                drop(leaf(rest));
            }
        }
    }
}
