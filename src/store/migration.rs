//! Older layouts become the present one.
//!
//! Each step may be cut off and run again: it skips what is done, and the new number is written last. It holds a
//! bounded piece of the store in memory.

use log::{info, warn};
use sled::{Batch, IVec, Tree};

use super::packs::Pack;
use super::records::{HeadRecord, Known, Remembered, decode, encode};
use super::tx::{Source, broken};
use super::{StoreError, keys};

/// Schema of stores that this program makes.
pub(super) const SCHEMA: u32 = 4;

/// Keys that change in one piece.
const STEP: usize = 256;

/// Brings a store of an older schema to [`SCHEMA`].
pub(super) fn migrate(tree: &Tree, found: u32) -> Result<(), StoreError> {
    info!("The store has schema {found}: it is brought to {SCHEMA}");
    if found < 2 {
        remember_times(tree)?;
    }
    if found < 3 {
        invert(tree, b'L', |_, number| !number)?;
        invert(tree, b'P', |value, last| match decode::<Pack>(value) {
            Ok(pack) => !pack.first().map_or(last, |(first, _)| *first),
            Err(error) => {
                warn!("A pack cannot be read, and stays so: {error}");
                !last
            }
        })?;
        invert(tree, b'U', |_, number| !number)?;
    }
    if found < 4 {
        put_beside_conversations(tree)?;
    }
    tree.insert(keys::SCHEMA, &SCHEMA.to_be_bytes()).map_err(broken)?;
    Ok(())
}

/// Schema 1 kept deduplication keys for ever. They get the time of the last checkpoint, and expire from there.
fn remember_times(tree: &Tree) -> Result<(), StoreError> {
    let head: HeadRecord = tree.load(keys::HEAD)?.unwrap_or_default();
    for item in Source::scan(tree, keys::all(b'D')) {
        let (key, value) = item?;
        if decode::<Remembered>(&value).is_err() {
            let message: Known = decode(&value)?;
            let remembered = encode(&Remembered {
                message,
                at: head.checkpoint.1,
            })?;
            tree.insert(key, remembered).map_err(broken)?;
        }
    }
    Ok(())
}

/// Schema 2 had messages and packs in rising order, packs by their last sequence. `invert` says from the value and
/// the old number which number comes to the key.
///
/// An inverted number has its highest bit set, one that is not never has.
fn invert(tree: &Tree, letter: u8, invert: impl Fn(&IVec, u64) -> u64) -> Result<(), StoreError> {
    let (mut start, end) = keys::all(letter);
    loop {
        let mut batch = Batch::default();
        let mut next = None;
        for (index, item) in Source::scan(tree, (start.clone(), end.clone())).enumerate() {
            let (key, value) = item?;
            let Some((before, number)) = key.split_last_chunk::<8>() else {
                return Err(StoreError::Corrupt("a key is too short".to_owned()));
            };
            let number = u64::from_be_bytes(*number);
            if number >> 63 == 1 {
                // Behind the old ones of a conversation lie only inverted ones.
                next = Some(keys::prefix(before.to_vec()).1);
                break;
            }
            let inverted = [before, &invert(&value, number).to_be_bytes()].concat();
            batch.insert(inverted, value);
            batch.remove(&key);
            let mut behind = key.to_vec();
            behind.push(0);
            next = Some(behind);
            if index + 1 >= STEP {
                break;
            }
        }
        let Some(next) = next else {
            return Ok(());
        };
        tree.apply_batch(batch).map_err(broken)?;
        start = next;
    }
}

/// Schema 3 had packs under a letter of their own.
fn put_beside_conversations(tree: &Tree) -> Result<(), StoreError> {
    let range = keys::all(b'P');
    loop {
        let mut batch = Batch::default();
        let mut found = 0;
        for item in Source::scan(tree, range.clone()).take(STEP) {
            let (key, value) = item?;
            batch.remove(&key);
            found += 1;
            let Some((id, first)) = keys::message_of(&key) else {
                warn!("A pack has a key that no pack can have: it is left out");
                continue;
            };
            let beside = keys::pack(id, first);
            // In what was rescued a key may have come back that had been moved.
            if Source::get(tree, &beside)?.is_none() {
                batch.insert(beside, value);
            }
        }
        if found == 0 {
            return Ok(());
        }
        tree.apply_batch(batch).map_err(broken)?;
    }
}
