//! Reading the tree, and one operation's view of it: what it wrote itself, what earlier operations of the same
//! commit wrote, then the tree.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sled::{IVec, Tree};

use super::StoreError;
use super::archive::Archive;
use super::keys::Range;
use super::records::{HeadRecord, Waiting, decode, encode};
use super::rescue;
use super::types::{ChannelLink, Queue};
use crate::domain::{AttachmentId, ChannelId, ConversationId};

/// A key with its value.
pub(super) type Item = Result<(IVec, IVec), StoreError>;
/// Writes that are not in the tree yet; `None` deletes.
pub(super) type Writes = BTreeMap<Vec<u8>, Option<IVec>>;

pub(super) fn broken(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Corruption { .. } => {
            rescue::note_corruption(&error.to_string());
            StoreError::Corrupt(error.to_string())
        }
        other => StoreError::Failed(other.to_string()),
    }
}

/// Keys of a tree in order. What it gives out does not borrow the tree.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that iterates, and only forwards"
)]
pub(super) fn scan(tree: &Tree, (start, end): Range) -> Box<dyn Iterator<Item = Item>> {
    if start >= end {
        return Box::new(std::iter::empty());
    }
    Box::new(tree.range(start..end).map(|item| item.map_err(broken)))
}

/// Something that holds keys and values.
pub(super) trait Source {
    fn get(&self, key: &[u8]) -> Result<Option<IVec>, StoreError>;

    /// Keys in order. There is no other direction: see [`super::keys`].
    fn scan<'s>(&'s self, range: Range) -> Box<dyn Iterator<Item = Item> + 's>;

    fn load<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError>
    where
        Self: Sized,
    {
        self.get(key)?.map(|bytes| decode(&bytes)).transpose()
    }
}

impl Source for Tree {
    fn get(&self, key: &[u8]) -> Result<Option<IVec>, StoreError> {
        Tree::get(self, key).map_err(broken)
    }

    fn scan<'s>(&'s self, range: Range) -> Box<dyn Iterator<Item = Item> + 's> {
        scan(self, range)
    }
}

/// What changes in memory once an operation's writes are in the tree.
#[derive(Default)]
pub(super) struct Effects {
    /// Queue heads to look up again.
    pub(super) heads: BTreeSet<(bool, ConversationId)>,
    pub(super) channels: Vec<(ChannelId, u16, ChannelLink)>,
    pub(super) remove_files: Vec<AttachmentId>,
    /// Files of the archive that nothing points to.
    pub(super) remove_archived: Vec<u32>,
}

impl Effects {
    pub(super) fn absorb(&mut self, other: Self) {
        self.heads.extend(other.heads);
        self.channels.extend(other.channels);
        self.remove_files.extend(other.remove_files);
        self.remove_archived.extend(other.remove_archived);
    }
}

/// A source together with the files that its packs lie in.
pub(super) trait Archived: Source {
    fn archive(&self) -> &Archive;
}

/// One operation.
pub(super) struct Tx<'a> {
    tree: &'a Tree,
    archive: &'a Archive,
    earlier: &'a Writes,
    own: Writes,
    pub(super) head: HeadRecord,
    pub(super) effects: Effects,
}

impl<'a> Tx<'a> {
    pub(super) fn new(tree: &'a Tree, archive: &'a Archive, earlier: &'a Writes, head: HeadRecord) -> Self {
        Self {
            tree,
            archive,
            earlier,
            own: Writes::new(),
            head,
            effects: Effects::default(),
        }
    }

    pub(super) fn finish(self) -> (Writes, HeadRecord, Effects) {
        (self.own, self.head, self.effects)
    }

    pub(super) fn put<T: Serialize>(&mut self, key: Vec<u8>, value: &T) -> Result<(), StoreError> {
        self.own.insert(key, Some(encode(value)?.into()));
        Ok(())
    }

    pub(super) fn put_raw(&mut self, key: Vec<u8>, value: impl Into<IVec>) {
        self.own.insert(key, Some(value.into()));
    }

    pub(super) fn delete(&mut self, key: Vec<u8>) {
        self.own.insert(key, None);
    }

    /// Changes the counters of one channel's queues.
    pub(super) fn count_waiting(&mut self, channel: u16, change: impl FnOnce(&mut Waiting)) {
        let index = usize::from(channel);
        if self.head.waiting.len() <= index {
            self.head.waiting.resize(index + 1, Waiting::default());
        }
        if let Some(waiting) = self.head.waiting.get_mut(index) {
            change(waiting);
        }
    }

    /// The queue's head of this conversation may have changed.
    pub(super) fn touch(&mut self, queue: Queue, conversation: ConversationId) {
        self.effects
            .heads
            .insert((queue == Queue::ToUplink, conversation));
    }
}

impl Archived for Tx<'_> {
    fn archive(&self) -> &Archive {
        self.archive
    }
}

impl Source for Tx<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<IVec>, StoreError> {
        if let Some(value) = self.own.get(key).or_else(|| self.earlier.get(key)) {
            return Ok(value.clone());
        }
        Source::get(self.tree, key)
    }

    fn scan<'s>(&'s self, range: Range) -> Box<dyn Iterator<Item = Item> + 's> {
        let (start, end) = range.clone();
        if start >= end {
            return Box::new(std::iter::empty());
        }
        let mut written: BTreeMap<&[u8], Option<IVec>> = BTreeMap::new();
        for writes in [self.earlier, &self.own] {
            written.extend(
                writes
                    .range(start.clone()..end.clone())
                    .map(|(k, v)| (k.as_slice(), v.clone())),
            );
        }
        Box::new(over(Source::scan(self.tree, range), written))
    }
}

/// Items of the tree with written ones over them; both in order, `None` deletes.
pub(super) fn over<'s, K: AsRef<[u8]> + 's>(
    tree: Box<dyn Iterator<Item = Item> + 's>,
    written: impl IntoIterator<Item = (K, Option<IVec>)> + 's,
) -> impl Iterator<Item = Item> + 's {
    Merged {
        tree: tree.peekable(),
        written: written.into_iter().peekable(),
    }
}

/// The tree's items with the written ones over them.
struct Merged<'s, W: Iterator> {
    tree: std::iter::Peekable<Box<dyn Iterator<Item = Item> + 's>>,
    written: std::iter::Peekable<W>,
}

impl<K: AsRef<[u8]>, W: Iterator<Item = (K, Option<IVec>)>> Iterator for Merged<'_, W> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            let Some((key, _)) = self.written.peek() else {
                return self.tree.next();
            };
            let order = match self.tree.peek() {
                Some(Err(_)) => return self.tree.next(),
                Some(Ok((tree_key, _))) => tree_key.as_ref().cmp(key.as_ref()),
                None => std::cmp::Ordering::Greater,
            };
            if order.is_lt() {
                return self.tree.next();
            }
            if order.is_eq() {
                // Overwritten or deleted.
                drop(self.tree.next());
            }
            let (key, value) = self.written.next()?;
            if let Some(value) = value {
                return Some(Ok((IVec::from(key.as_ref()), value)));
            }
        }
    }
}
