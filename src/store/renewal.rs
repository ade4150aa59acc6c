//! Writes the database anew when most of its file is dead.
//!
//! sled moves pages of half-empty segments one by one and never gets ahead of what writing leaves behind: its file grows,
//! and with it what a start has to read. So the entries are copied in the order of their keys into a new database, in
//! small steps between commits, and then the copy takes the old one's place.
//!
//! Commits go to the old database alone; they only note which of the keys that are copied already have changed, and
//! these are copied again. When nothing is left but a few of them, the committer writes these, syncs the copy, makes the
//! link lead to it, and goes on with it. Until then a crash leaves the old one as it was, from then on the copy is as
//! good: both hold everything that was acknowledged.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{info, warn};
use sled::Tree;

use super::committer::{Blobs, Worker};
use super::generations::{self, Generation, Pointing};
use super::shared::{Shared, lock};
use super::tx::{self, Source, broken};
use super::types::Maintenance;
use super::{Store, StoreError, keys};

/// The file has become so many times as large as it was when it was new.
const FACTOR: u64 = 3;
/// Entries that one step copies at most, and its time: messages wait for so long.
const STEP_KEYS: usize = if cfg!(test) { 32 } else { 256 };
const STEP_TIME: Duration = Duration::from_millis(4);
/// Entries of one look at the old database.
const LOOK: usize = 32;
/// Entries after which the copy is synced, on another thread, so that little is left to sync at the end.
const SYNC_KEYS: usize = if cfg!(test) { 64 } else { 4096 };
/// Changed keys that are left to the committer for the moment in which the copy takes over.
const LAST_KEYS: usize = 128;
/// So many may have come to these when it is the committer's turn, else the moment has passed.
const LAST_KEYS_AT_MOST: usize = 2048;
/// Changed keys that are remembered, some 100 bytes each.
const MAX_CHANGED: usize = 100_000;
/// How long one round of maintenance goes on.
const ROUND: Duration = if cfg!(test) {
    Duration::ZERO
} else {
    Duration::from_secs(2)
};
/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_secs(600);
/// What must be free beside the disk reserve, at least.
const MARGIN: u64 = 4 << 20;

/// The committer's side of a copy under way.
pub(super) struct Copy {
    folder: PathBuf,
    /// `None` while it is opened anew.
    tree: Option<Tree>,
    /// All keys before this one are copied; `None` when all are.
    next: Option<Vec<u8>>,
    /// Copied keys that have changed since.
    changed: BTreeSet<Vec<u8>>,
}

impl Copy {
    /// Keys that are about to be written, and the counters, which always are.
    pub(super) fn note<'k>(&mut self, written: impl Iterator<Item = &'k Vec<u8>>) {
        for key in written {
            self.note_one(key);
        }
        self.note_one(keys::HEAD);
    }

    fn note_one(&mut self, key: &[u8]) {
        let copied = self.next.as_ref().is_none_or(|next| key < next.as_slice());
        // One too many says that there were too many.
        if copied && self.changed.len() <= MAX_CHANGED && !self.changed.contains(key) {
            self.changed.insert(key.to_vec());
        }
    }

    fn is_overtaken(&self) -> bool {
        self.changed.len() > MAX_CHANGED
    }

    fn is_complete(&self) -> bool {
        self.next.is_none() && self.changed.is_empty()
    }

    /// Copies some entries. Returns how many.
    fn step(&mut self, old: &Tree) -> Result<usize, StoreError> {
        let Some(tree) = self.tree.clone() else {
            return Ok(0);
        };
        let begun = Instant::now();
        let mut copied = 0;
        while copied < STEP_KEYS && begun.elapsed() < STEP_TIME {
            // What has changed may change again: it waits until the rest is there.
            let more = match self.next.take() {
                Some(next) if self.changed.len() < MAX_CHANGED / 2 => self.copy_from(old, &tree, next)?,
                next => {
                    self.next = next;
                    self.copy_changed(old, &tree, LOOK)?
                }
            };
            if more == 0 && self.is_complete() {
                break;
            }
            copied += more;
        }
        Ok(copied)
    }

    fn copy_from(&mut self, old: &Tree, tree: &Tree, next: Vec<u8>) -> Result<usize, StoreError> {
        let mut copied = 0;
        for item in tx::scan(old, (next, vec![u8::MAX])) {
            let (key, value) = item?;
            tree.insert(&key, value).map_err(broken)?;
            copied += 1;
            if copied >= LOOK {
                let mut behind = key.to_vec();
                behind.push(0);
                self.next = Some(behind);
                break;
            }
        }
        Ok(copied)
    }

    fn copy_changed(&mut self, old: &Tree, tree: &Tree, limit: usize) -> Result<usize, StoreError> {
        let mut copied = 0;
        while copied < limit
            && let Some(key) = self.changed.pop_first()
        {
            match Source::get(old, &key)? {
                Some(value) => tree.insert(key, value),
                None => tree.remove(key),
            }
            .map_err(broken)?;
            copied += 1;
        }
        Ok(copied)
    }
}

/// How far the copy has come.
enum Stage {
    Copying(Generation),
    /// Everything is copied. It is closed and opened once: sled writes its snapshot only when it opens, with which the
    /// next start is quick, and what cannot be opened is noticed in time.
    Reopening(Generation),
    CatchingUp(Generation),
    /// The old one, which nobody needs any more.
    Removing(Generation),
}

/// Maintenance's side.
#[derive(Default)]
pub(super) struct Renewal {
    stage: Option<Stage>,
    failed_at: Option<Instant>,
    /// Without regard to sizes.
    #[cfg(test)]
    pub(super) forced: bool,
}

/// One round.
pub(super) async fn round(store: &Store, done: &mut Maintenance) -> Result<(), StoreError> {
    let begun = Instant::now();
    let progress = &store.inner.shared.progress;
    let taken = lock(progress).renewal.stage.take();
    let mut stage = match taken {
        Some(stage) => stage,
        None => match begin(store).await {
            Ok(Some(stage)) => stage,
            Ok(None) => return Ok(()),
            Err(error) => return give_up(store, &error),
        },
    };
    loop {
        let folder = stage.folder();
        stage = match stage.advance(store).await {
            Ok(Some(stage)) => stage,
            Ok(None) => {
                done.renewed += 1;
                done.more = true;
                return Ok(());
            }
            Err(error) => {
                // Its handles went with the stage.
                abandon(store, folder).await;
                return give_up(store, &error);
            }
        };
        if begun.elapsed() >= ROUND {
            lock(progress).renewal.stage = Some(stage);
            done.more = true;
            return Ok(());
        }
    }
}

/// The old database goes on as if nothing had been.
fn give_up(store: &Store, error: &StoreError) -> Result<(), StoreError> {
    if let Some(reason) = store.inner.shared.failure() {
        return Err(StoreError::Failed(reason));
    }
    if *error == StoreError::Closed {
        return Err(StoreError::Closed);
    }
    warn!("The database stays as large as it is for now: {error}");
    lock(&store.inner.shared.progress).renewal.failed_at = Some(Instant::now());
    Ok(())
}

async fn abandon(store: &Store, folder: PathBuf) {
    let of = folder.clone();
    let inside = store.inner.committer.inside(move |worker| {
        // The one in use is never removed, however the failure came about.
        worker.copy.take_if(|copy| copy.folder == of);
        // Nor one that the link may lead to.
        worker.generation.folder != of && worker.shared.failure().is_none()
    });
    // A store that was closed removes it when it is opened.
    if inside.await == Ok(true) {
        blocking(move || {
            generations::remove(&folder);
            Ok(())
        })
        .await
        .ok();
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| StoreError::Closed)?
}

fn has_room(shared: &Shared, bytes: u64) -> Result<(), StoreError> {
    if shared.gauge.has_room_for(bytes) {
        Ok(())
    } else {
        Err(StoreError::NoSpace)
    }
}

/// Makes the copy, if it is time for one.
async fn begin(store: &Store) -> Result<Option<Stage>, StoreError> {
    let shared = &store.inner.shared;
    let rests = |progress: &Renewal| progress.failed_at.is_some_and(|at| at.elapsed() < PAUSE);
    if shared.failure().is_some() || rests(&lock(&shared.progress).renewal) {
        return Ok(None);
    }
    let (folder, size) = store
        .inner
        .committer
        .inside(|worker| (worker.generation.folder.clone(), worker.generation.size()))
        .await?;
    let size = size.map_err(|error| generations::failed(&error))?;
    let new = shared
        .get(keys::RENEWED)?
        .and_then(|value| keys::tail(&value))
        .unwrap_or_default();
    let limit = shared.options.renew_bytes;
    let due = limit == 0 || size >= limit.max(new.saturating_mul(FACTOR));
    #[cfg(test)]
    let due = due || std::mem::take(&mut lock(&shared.progress).renewal.forced);
    let state_dir = shared.options.state_dir.clone();
    if !due || !generations::is_replaceable(&state_dir, &folder) {
        return Ok(None);
    }
    let of = Arc::clone(shared);
    let copy = blocking(move || {
        has_room(&of, new.max(MARGIN))?;
        let folder = generations::make(&state_dir).map_err(|error| generations::failed(&error))?;
        open(&folder)
    })
    .await?;
    info!("The database is written anew: its file has {size} bytes");
    let begun = Copy {
        folder: copy.folder.clone(),
        tree: Some(copy.tree.clone()),
        next: Some(Vec::new()),
        changed: BTreeSet::new(),
    };
    store
        .inner
        .committer
        .inside(move |worker| worker.copy = Some(begun))
        .await?;
    Ok(Some(Stage::Copying(copy)))
}

fn open(folder: &Path) -> Result<Generation, StoreError> {
    Generation::open(folder.to_owned()).map_err(|error| {
        generations::remove(folder);
        StoreError::Failed(error.to_string())
    })
}

/// Makes what was copied survive a power cut.
fn sync(copy: &Generation) -> Result<(), StoreError> {
    copy.tree.flush().map_err(broken)?;
    Blobs::of(copy)
        .sync()
        .and_then(|()| copy.file.sync_data())
        .map_err(|error| generations::failed(&error))
}

/// The copy of this folder, if it is still the one under way.
fn of<'w>(worker: &'w mut Worker, folder: &Path) -> Result<&'w mut Copy, StoreError> {
    worker
        .copy
        .as_mut()
        .filter(|copy| copy.folder == folder && !copy.is_overtaken())
        .ok_or_else(|| StoreError::Failed("the copy was overtaken".to_owned()))
}

impl Stage {
    /// What is removed when it fails.
    fn folder(&self) -> PathBuf {
        let (Self::Copying(of) | Self::Reopening(of) | Self::CatchingUp(of) | Self::Removing(of)) = self;
        of.folder.clone()
    }

    /// `None`: it is done.
    async fn advance(self, store: &Store) -> Result<Option<Self>, StoreError> {
        match self {
            Self::Copying(copy) => {
                let (copy, complete) = copy_some(store, copy).await?;
                Ok(Some(if complete {
                    Self::Reopening(copy)
                } else {
                    Self::Copying(copy)
                }))
            }
            Self::Reopening(copy) => reopen(store, copy).await.map(Self::CatchingUp).map(Some),
            Self::CatchingUp(copy) => {
                let (copy, _) = copy_some(store, copy).await?;
                // Once more, for what has changed while that was synced.
                if copy_until(store, &copy, LAST_KEYS_AT_MOST).await?
                    && let Some(old) = switch(store, copy.clone()).await?
                {
                    return Ok(Some(Self::Removing(old)));
                }
                Ok(Some(Self::CatchingUp(copy)))
            }
            Self::Removing(old) => {
                blocking(move || {
                    let folder = old.folder.clone();
                    drop(old);
                    generations::remove(&folder);
                    Ok(None)
                })
                .await
            }
        }
    }
}

/// Copies so many entries or a few more. Returns whether all but a few are copied: while messages come
/// there is always something that has just changed.
async fn copy_until(store: &Store, copy: &Generation, limit: usize) -> Result<bool, StoreError> {
    let mut copied = 0;
    let mut complete = false;
    while !complete && copied < limit {
        let folder = copy.folder.clone();
        let (step, now_complete) = store
            .inner
            .committer
            .inside(move |worker| {
                let old = worker.generation.tree.clone();
                let copy = of(worker, &folder)?;
                let step = copy.step(&old)?;
                Ok::<_, StoreError>((step, copy.next.is_none() && copy.changed.len() <= LAST_KEYS))
            })
            .await??;
        copied += step;
        complete = now_complete;
    }
    Ok(complete)
}

/// Copies some entries, and makes them survive a power cut. Returns whether all but a few are copied.
async fn copy_some(store: &Store, copy: Generation) -> Result<(Generation, bool), StoreError> {
    let complete = copy_until(store, &copy, SYNC_KEYS).await?;
    let shared = Arc::clone(&store.inner.shared);
    let copy = blocking(move || {
        sync(&copy)?;
        has_room(&shared, MARGIN)?;
        Ok(copy)
    })
    .await?;
    Ok((copy, complete))
}

async fn reopen(store: &Store, copy: Generation) -> Result<Generation, StoreError> {
    let folder = copy.folder.clone();
    store
        .inner
        .committer
        .inside(move |worker| of(worker, &folder).map(|copy| copy.tree = None))
        .await??;
    let copy = blocking(move || {
        let folder = copy.folder.clone();
        drop(copy);
        open(&folder)
    })
    .await?;
    let (folder, tree) = (copy.folder.clone(), copy.tree.clone());
    store
        .inner
        .committer
        .inside(move |worker| of(worker, &folder).map(|copy| copy.tree = Some(tree)))
        .await??;
    Ok(copy)
}

/// Lets the copy take over. Returns the old database, or nothing when too much has changed meanwhile.
async fn switch(store: &Store, copy: Generation) -> Result<Option<Generation>, StoreError> {
    store
        .inner
        .committer
        .inside(move |worker| {
            if let Some(reason) = worker.shared.failure() {
                return Err(StoreError::Failed(reason));
            }
            let old = worker.generation.tree.clone();
            let under_way = of(worker, &copy.folder)?;
            if under_way.next.is_some() || under_way.changed.len() > LAST_KEYS_AT_MOST {
                return Ok(None);
            }
            under_way.copy_changed(&old, &copy.tree, usize::MAX)?;
            let size = copy.size().map_err(|error| generations::failed(&error))?;
            copy.tree
                .insert(keys::RENEWED, &size.to_be_bytes())
                .map_err(broken)?;
            sync(&copy)?;
            match generations::point_to(&worker.shared.options.state_dir, &copy.folder) {
                Ok(()) => {}
                Err(Pointing::Before(error)) => return Err(generations::failed(&error)),
                Err(Pointing::Unsure(error)) => {
                    // Whichever of the two went on could be the wrong one after a power cut.
                    let error = StoreError::Failed(format!("the sync to disk failed: {error}"));
                    worker.fail(&error);
                    return Err(error);
                }
            }
            copy.mark(&worker.shared.head());
            worker.copy = None;
            worker.blobs = Blobs::of(&copy);
            worker.unsynced_since = None;
            drop(worker.shared.replace_tree(copy.tree.clone()));
            info!("The database is written anew: its file has {size} bytes now");
            Ok(Some(std::mem::replace(&mut worker.generation, copy)))
        })
        .await?
}
