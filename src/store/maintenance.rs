//! What nobody waits for: packing, retention, expired keys, files that belong to nothing. Each round does a
//! bounded piece of it and remembers where to go on.

use std::collections::VecDeque;
use std::sync::Arc;

use log::warn;

use super::committer::Durability;
use super::compaction::{self, Moving};
use super::records::{Remembered, decode};
use super::renewal::{self, Renewal};
use super::shared::{Shared, attachments_dir, lock, remove_file};
use super::tx::Source;
use super::types::Maintenance;
use super::{Store, StoreError, keys, packs, retention};
use crate::domain::{AttachmentId, ConversationId, Timestamp};

/// Conversations looked at for packing in one round.
const PACK_CONVERSATIONS: usize = 4096;
/// Conversations looked at for retention in one round.
const SWEEP_CONVERSATIONS: usize = 4096;
/// Deduplication keys looked at in one round.
const EXPIRE_KEYS: usize = 8192;
/// Conversations that one operation changes: the committer's other callers wait for so many at most.
const STEP: usize = 16;
/// How long a deduplication key is kept.
const KEEP_KEYS_MS: i64 = 30 * 24 * 60 * 60 * 1000;
/// How long after the end of one look at all keys the next one begins.
const EXPIRE_EVERY_MS: i64 = 24 * 60 * 60 * 1000;

/// Where to go on. In memory: a restart begins anew, and finds less to do.
#[derive(Default)]
pub(super) struct Progress {
    pack_after: Option<ConversationId>,
    sweep: Option<(u64, Option<ConversationId>)>,
    expire_after: Option<Vec<u8>>,
    expired_at: Option<Timestamp>,
    orphans_done: bool,
    pub(super) moving: Moving,
    pub(super) renewal: Renewal,
}

pub(super) async fn round(store: &Store, now: Timestamp) -> Result<Maintenance, StoreError> {
    let mut done = Maintenance::default();
    let shared = Arc::clone(&store.inner.shared);
    store
        .read(move |_| {
            shared.gauge.look(shared.head().queued_bytes);
            Ok(())
        })
        .await?;
    // Removing comes first: on a full disk there is no room to pack before.
    sweep(store, now, &mut done).await?;
    let mut waiting = None;
    match pack(store, now, &mut done).await {
        Ok(()) => compaction::round(store, &mut done)
            .await
            .or_else(|error| wait(error, &mut waiting))?,
        Err(error) => wait(error, &mut waiting)?,
    }
    expire(store, now, &mut done).await?;
    remove_orphans(store, &mut done).await?;
    renewal::round(store, &mut done).await?;
    if let Some(error) = waiting {
        warn!("Finished messages stay where they are until there is room: {error}");
        done.more = false;
    }
    Ok(done)
}

/// What the archive cannot take stays where it is; the next round tries again.
fn wait(error: StoreError, waiting: &mut Option<StoreError>) -> Result<(), StoreError> {
    match error {
        StoreError::NoSpace | StoreError::Archive(_) => {
            *waiting = Some(error);
            Ok(())
        }
        other => Err(other),
    }
}

/// Conversations that have live messages, or all there are, found by jumping from one to the next.
fn conversations(
    shared: &Shared,
    letter: u8,
    after: Option<ConversationId>,
    limit: usize,
) -> Result<Vec<ConversationId>, StoreError> {
    let mut found = Vec::new();
    let (mut start, end) = keys::all(letter);
    if let Some(after) = after {
        start = keys::behind(letter, after);
    }
    while found.len() < limit {
        let Some(item) = shared.scan((start, end.clone())).next() else {
            break;
        };
        let Some(id) = keys::conversation_of(&item?.0) else {
            return Err(StoreError::Corrupt("a message's key".to_owned()));
        };
        found.push(id);
        start = keys::behind(letter, id);
    }
    Ok(found)
}

async fn pack(store: &Store, now: Timestamp, done: &mut Maintenance) -> Result<(), StoreError> {
    let shared = Arc::clone(&store.inner.shared);
    let after = lock(&shared.progress).pack_after;
    let found = store
        .read(move |_| conversations(&shared, b'L', after, PACK_CONVERSATIONS))
        .await?;
    let mut left: VecDeque<ConversationId> = found.iter().copied().collect();
    while !left.is_empty() {
        let step: Vec<_> = left.iter().take(STEP).copied().collect();
        let (packed, finished) = store
            .write(Durability::Lazy, move |tx, _| {
                let (mut packed, mut finished) = (0, 0);
                for id in step {
                    packed += packs::pack(tx, id, now)?;
                    if packed >= packs::MAX_STEP as u64 {
                        break;
                    }
                    finished += 1;
                }
                Ok((packed, finished))
            })
            .await?;
        done.packed += packed;
        // The conversation that used up the step may have more.
        left.drain(..finished);
    }
    let at_end = found.len() < PACK_CONVERSATIONS;
    lock(&store.inner.shared.progress).pack_after = if at_end { None } else { found.last().copied() };
    done.more |= done.packed > 0 || !at_end;
    Ok(())
}

async fn sweep(store: &Store, now: Timestamp, done: &mut Maintenance) -> Result<(), StoreError> {
    let shared = Arc::clone(&store.inner.shared);
    let going_on = lock(&shared.progress).sweep;
    let (horizon, after) = match going_on {
        Some(going_on) => going_on,
        None => match store
            .read(move |reader| retention::due(&reader.shared, now))
            .await?
        {
            Some(horizon) => (horizon, None),
            None => return Ok(()),
        },
    };
    let found = store
        .read(move |reader| {
            let mut found = conversations(&reader.shared, b'C', after, SWEEP_CONVERSATIONS)?;
            let live = conversations(&reader.shared, b'L', after, SWEEP_CONVERSATIONS)?;
            found.extend(live);
            found.sort_unstable();
            found.dedup();
            Ok(found)
        })
        .await?;
    let (step_of_all, at_end) = (
        found.get(..SWEEP_CONVERSATIONS).unwrap_or(&found),
        found.len() < SWEEP_CONVERSATIONS,
    );
    for step in step_of_all.chunks(STEP) {
        let step = step.to_vec();
        done.removed += store
            .write(Durability::Lazy, move |tx, _| {
                let mut removed = 0;
                for id in step {
                    removed += retention::sweep(tx, id, horizon)?;
                }
                Ok(removed)
            })
            .await?;
    }
    let progress = if at_end {
        store
            .write(Durability::Lazy, move |tx, _| retention::swept(tx, horizon))
            .await?;
        None
    } else {
        Some((horizon, step_of_all.last().copied()))
    };
    lock(&store.inner.shared.progress).sweep = progress;
    done.more |= progress.is_some();
    Ok(())
}

async fn expire(store: &Store, now: Timestamp, done: &mut Maintenance) -> Result<(), StoreError> {
    let after = {
        let progress = lock(&store.inner.shared.progress);
        let rests = progress
            .expired_at
            .is_some_and(|at| at.plus_ms(EXPIRE_EVERY_MS) > now && at <= now);
        if progress.expire_after.is_none() && rests {
            return Ok(());
        }
        progress.expire_after.clone()
    };
    let (old, last) = store
        .read(move |reader| {
            let (start, end) = keys::all(b'D');
            let mut start = after.unwrap_or(start);
            let mut old = Vec::new();
            let mut last = None;
            start.push(0);
            for (looked, item) in reader.shared.scan((start, end)).enumerate() {
                let (key, value) = item?;
                if decode::<Remembered>(&value)?.at.plus_ms(KEEP_KEYS_MS) < now {
                    old.push(key.to_vec());
                }
                if looked + 1 >= EXPIRE_KEYS {
                    last = Some(key.to_vec());
                    break;
                }
            }
            Ok((old, last))
        })
        .await?;
    done.expired_keys += old.len() as u64;
    for step in old.chunks(256) {
        let step = step.to_vec();
        store
            .write(Durability::Lazy, move |tx, _| {
                for key in step {
                    // It may have come again meanwhile.
                    let old = tx
                        .load::<Remembered>(&key)?
                        .is_some_and(|r| r.at.plus_ms(KEEP_KEYS_MS) < now);
                    if old {
                        tx.delete(key);
                    }
                }
                Ok(())
            })
            .await?;
    }
    let mut progress = lock(&store.inner.shared.progress);
    done.more |= last.is_some();
    if last.is_none() {
        progress.expired_at = Some(now);
    }
    progress.expire_after = last;
    Ok(())
}

/// Once after the start: files that a crash left behind.
async fn remove_orphans(store: &Store, done: &mut Maintenance) -> Result<(), StoreError> {
    if std::mem::replace(&mut lock(&store.inner.shared.progress).orphans_done, true) {
        return Ok(());
    }
    let (removed, candidates) = store
        .read(|reader| {
            let mut removed = 0;
            let mut candidates = Vec::new();
            let folder = attachments_dir(&reader.shared.options.state_dir);
            let entries = std::fs::read_dir(&folder).map_err(|e| StoreError::File(e.to_string()))?;
            for entry in entries {
                let path = entry.map_err(|e| StoreError::File(e.to_string()))?.path();
                let id = path
                    .file_stem()
                    .and_then(|n| n.to_str())
                    .and_then(|n| n.parse::<AttachmentId>().ok());
                let Some(id) = id else {
                    continue;
                };
                if lock(&reader.shared.staged).contains(&id) {
                    continue;
                }
                if path.extension().is_some() {
                    remove_file(&path);
                    removed += 1;
                } else {
                    candidates.push(id);
                }
            }
            Ok((removed, candidates))
        })
        .await?;
    done.orphans += removed;
    for step in candidates.chunks(256) {
        let step = step.to_vec();
        // As an operation: one that names such a file was either before this one, or has staged it just now.
        done.orphans += store
            .write(Durability::Lazy, move |tx, shared| {
                let mut orphans = 0;
                for id in step {
                    if tx.get(&keys::file(id))?.is_none() && !lock(&shared.staged).contains(&id) {
                        tx.effects.remove_files.push(id);
                        orphans += 1;
                    }
                }
                Ok(orphans)
            })
            .await?;
    }
    Ok(())
}
