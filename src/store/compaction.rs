//! Keeps the archive small: files that nothing points to are removed, what is left of mostly dead ones is moved, packs
//! that older stores have in the tree are moved too. All of it in small operations, each of which can be the last.

use std::sync::Arc;

use log::{debug, warn};
use sled::IVec;

use super::archive::{self, FileRecord};
use super::committer::Durability;
use super::packs::{self, Packed};
use super::records::{decode_as, encode};
use super::shared::{Shared, lock};
use super::tx::{Archived, Source, Tx};
use super::types::Maintenance;
use super::{Store, StoreError, keys};

/// Pointers and conversations looked at in one round.
const LOOKED_AT: usize = 16_384;
/// Packs that one operation moves: the committer's other callers wait for so many.
const STEP: usize = 32;
/// A file that is appended to is closed for moving only when so much of it is dead.
const WORTH_CLOSING: u64 = if cfg!(test) { 4 << 10 } else { 1 << 20 };

/// What has to be moved, and how far that has come.
#[derive(Default)]
pub(super) struct Moving {
    /// Files whose packs are moved, in one pass over all pointers.
    targets: Vec<u32>,
    after: Option<Vec<u8>>,
    under_way: bool,
    /// Files with a pack that cannot be read: they stay until the next start.
    unmovable: Vec<u32>,
    /// Whether packs in the tree itself were looked for.
    inline_done: bool,
    leftovers_done: bool,
}

/// One round.
pub(super) async fn round(store: &Store, done: &mut Maintenance) -> Result<(), StoreError> {
    remove_leftovers(store).await?;
    if !begin(store).await? {
        return Ok(());
    }
    let (targets, inline, after) = {
        let progress = lock(&store.inner.shared.progress);
        let moving = &progress.moving;
        (moving.targets.clone(), !moving.inline_done, moving.after.clone())
    };
    let looked_for = targets.clone();
    let (found, last) = store
        .read(move |reader| candidates(&reader.shared, &looked_for, inline, after))
        .await?;
    for step in found.chunks(STEP) {
        let step = step.to_vec();
        let unmovable = store
            .write(Durability::Lazy, move |tx, _| move_packs(tx, step))
            .await?;
        lock(&store.inner.shared.progress)
            .moving
            .unmovable
            .extend(unmovable);
    }
    done.moved += found.len() as u64;
    let mut progress = lock(&store.inner.shared.progress);
    let moving = &mut progress.moving;
    moving.under_way = last.is_some();
    moving.inline_done |= last.is_none();
    moving.after = last;
    // Once more, to remove what is empty now.
    done.more |= moving.under_way || !found.is_empty();
    Ok(())
}

/// Removes files that nothing points to and finds those to move. Returns whether there is something to move.
async fn begin(store: &Store) -> Result<bool, StoreError> {
    let shared = Arc::clone(&store.inner.shared);
    if lock(&shared.progress).moving.under_way {
        return Ok(true);
    }
    let files = store.read(|reader| archive::files(&*reader.shared)).await?;
    let current = shared.archive.current();
    let worth = |number: &u32, record: &FileRecord| {
        current != Some(*number) || record.end.saturating_sub(record.bytes) >= WORTH_CLOSING
    };
    let empty: Vec<u32> = files
        .iter()
        .filter(|(number, record)| record.packs == 0 && worth(number, record))
        .map(|(number, _)| *number)
        .collect();
    if !empty.is_empty() {
        // Synced: after a power cut nothing points there again.
        store
            .write(Durability::Synced, move |tx, _| remove_empty(tx, &empty))
            .await?;
    }
    let mut progress = lock(&shared.progress);
    let moving = &mut progress.moving;
    moving.targets = files
        .iter()
        .filter(|(number, record)| {
            record.packs > 0
                && record.is_mostly_dead()
                && worth(number, record)
                && !moving.unmovable.contains(number)
        })
        .map(|(number, _)| *number)
        .collect();
    moving.after = None;
    Ok(!moving.targets.is_empty() || !moving.inline_done)
}

fn remove_empty(tx: &mut Tx<'_>, numbers: &[u32]) -> Result<(), StoreError> {
    for number in numbers {
        let key = keys::archive_file(*number);
        if tx
            .load::<FileRecord>(&key)?
            .is_some_and(|record| record.packs == 0)
        {
            tx.archive().close(*number)?;
            tx.delete(key);
            tx.effects.remove_archived.push(*number);
        }
    }
    Ok(())
}

type Candidates = (Vec<(IVec, IVec)>, Option<Vec<u8>>);

/// Packs to move behind `after`, and where the next round goes on.
fn candidates(
    shared: &Shared,
    targets: &[u32],
    inline: bool,
    after: Option<Vec<u8>>,
) -> Result<Candidates, StoreError> {
    let (mut start, end) = keys::all(b'C');
    if let Some(after) = after {
        start = after;
        start.push(0);
    }
    let mut found = Vec::new();
    for (looked, item) in shared.scan((start, end)).enumerate() {
        let (key, value) = item?;
        let wanted = if keys::message_of(&key).is_none() {
            // The conversation itself.
            false
        } else if packs::is_inline(&value) {
            inline
        } else {
            decode_as::<archive::Pointer>(packs::POINTER, &value)
                .is_ok_and(|pointer| targets.contains(&pointer.file))
        };
        let last = key.to_vec();
        if wanted {
            found.push((key, value));
        }
        if looked + 1 >= LOOKED_AT || found.len() >= LOOKED_AT / 16 {
            return Ok((found, Some(last)));
        }
    }
    Ok((found, None))
}

/// Moves packs that still lie where they were found. Returns the files with one that cannot be read.
fn move_packs(tx: &mut Tx<'_>, found: Vec<(IVec, IVec)>) -> Result<Vec<u32>, StoreError> {
    let mut unmovable = Vec::new();
    for (key, value) in found {
        if tx.get(&key)?.as_ref() != Some(&value) {
            continue;
        }
        let (id, first) = packs::of_key(&key)?;
        match Packed::decode(&value) {
            Ok(Packed::Inline(pack)) => packs::store(tx, id, &pack)?,
            Ok(Packed::Archived(pointer)) => {
                if tx.archive().current() == Some(pointer.file) {
                    tx.archive().close(pointer.file)?;
                }
                match packs::read(tx.archive(), &key, &value) {
                    Ok(pack) => {
                        packs::discount(tx, &value)?;
                        packs::place(tx, id, first, &pointer, &encode(&pack)?)?;
                    }
                    Err(error) => {
                        warn!("What is left of an archive file cannot be moved: {error}");
                        unmovable.push(pointer.file);
                    }
                }
            }
            Err(error) => debug!("A pack stays where it is: {error}"),
        }
    }
    Ok(unmovable)
}

/// Once after the start: files that a crash left behind before anything pointed to them.
async fn remove_leftovers(store: &Store) -> Result<(), StoreError> {
    if std::mem::replace(
        &mut lock(&store.inner.shared.progress).moving.leftovers_done,
        true,
    ) {
        return Ok(());
    }
    // As an operation: no other one is writing to such a file meanwhile.
    store
        .write(Durability::Lazy, |tx, shared| {
            let numbers = shared
                .archive
                .numbers()
                .map_err(|e| StoreError::Archive(e.to_string()))?;
            for number in numbers {
                if shared.archive.current() != Some(number) && tx.get(&keys::archive_file(number))?.is_none()
                {
                    tx.effects.remove_archived.push(number);
                }
            }
            Ok(())
        })
        .await
}
