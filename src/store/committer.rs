//! The one thread that writes.
//!
//! It takes what is waiting, runs each operation against the writes of those before it, applies them as few atomic
//! batches, syncs once, then answers everyone. A message that comes alone waits for no timer. What nobody waits for to be
//! durable is held in memory, where readers see it, and written along with the next operation that is: a commit of its
//! own costs the device three pages, and another flush.
//!
//! sled's own `flush()` writes but does not sync (`sync_file_range`), and its `flush_async` deadlocks with eight
//! callers: so there is one caller, and a second handle of the same file for `sync_data`.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use log::{error, warn};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::StoreError;
use super::generations::Generation;
use super::records::HeadRecord;
use super::renewal::Copy;
use super::shared::Shared;
use super::tx::{Archived, Effects, Tx, Writes, broken};

/// How long a lazy write may stay unsynced.
const LAZY_SYNC: Duration = Duration::from_secs(1);
/// How long a write may be held that goes along with the next one.
const HOLD: Duration = Duration::from_secs(30);
/// Keys that are held at most, which bounds what a crash forgets; they make one batch.
const HELD_KEYS: usize = 256;
/// Operations that may wait; more wait for a place.
const CAPACITY: usize = 1024;
/// Operations in one commit, so that the first of them is not kept waiting by the last.
const MAX_GROUP: usize = 256;
/// How long a commit waits for those whom the one before it answered: this part of what that took, which a disk with quick
/// syncs makes too short to be worth it.
const PATIENCE: u32 = 4;
const LEAST_PATIENCE: Duration = Duration::from_micros(50);
const MOST_PATIENCE: Duration = Duration::from_millis(2);
/// Keys in one batch, beyond which the next operation begins another. sled frees no replaced page before the batch that
/// replaced it ends: five thousand keys at once were more than 10 MB of them.
const BATCH_KEYS: usize = 512;

/// When an operation is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// After the sync.
    Synced,
    /// After the write; synced with the next commit that is, at the latest after a second.
    Lazy,
    /// At once, for readers as well; written and synced with the next commit that is, at the latest after half a minute.
    /// For small writes whose loss in a crash costs nothing but doing something again. Leaves no files to remove.
    WithNext,
}

type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
type Run = Box<dyn FnOnce(&mut Tx<'_>) -> (Answer, bool) + Send>;

struct Operation {
    run: Run,
    durability: Durability,
    permit: OwnedSemaphorePermit,
}

enum Order {
    Run(Operation),
    /// Something about the database itself, between two commits.
    Inside {
        run: Box<dyn FnOnce(&mut Worker) + Send>,
        permit: OwnedSemaphorePermit,
    },
    /// Sync what is lazy, answer, end.
    Close(oneshot::Sender<()>),
}

/// The way to the committer.
pub(super) struct Committer {
    orders: SyncSender<Order>,
    places: Arc<Semaphore>,
}

impl Committer {
    pub(super) fn start(shared: Arc<Shared>, generation: Generation) -> std::io::Result<Self> {
        let blobs = Blobs::of(&generation);
        // One more for `Close`, which takes no place.
        let (orders, receiver) = sync_channel(CAPACITY + 1);
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                Worker {
                    shared,
                    generation,
                    unsynced_since: None,
                    held: Writes::new(),
                    held_since: None,
                    blobs,
                    copy: None,
                    length: 0,
                    last: (0, Duration::ZERO),
                }
                .run(&receiver);
            })?;
        Ok(Self {
            orders,
            places: Arc::new(Semaphore::new(CAPACITY)),
        })
    }

    /// Runs an operation in the next commit. Dropping the future does not undo it.
    pub(super) async fn submit<T: Send + 'static>(
        &self,
        durability: Durability,
        operation: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .map_err(|_| StoreError::Closed)?;
        let (sender, receiver) = oneshot::channel();
        let run: Run = Box::new(move |tx| {
            // What is pointed to must be durable before the pointer is.
            let result = operation(tx).and_then(|value| tx.archive().settle().map(|()| value));
            let accepted = result.is_ok();
            let answer: Answer = Box::new(move |committed| {
                // Whoever asked may have gone; the write stands.
                drop(sender.send(result.and_then(|value| committed.map(|()| value))));
            });
            (answer, accepted)
        });
        // Never full: a place was taken.
        self.orders
            .try_send(Order::Run(Operation {
                run,
                durability,
                permit,
            }))
            .map_err(|_| StoreError::Closed)?;
        receiver.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs something on the committer's thread, between two commits.
    pub(super) async fn inside<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .map_err(|_| StoreError::Closed)?;
        let (sender, receiver) = oneshot::channel();
        let run = Box::new(move |worker: &mut Worker| drop(sender.send(run(worker))));
        self.orders
            .try_send(Order::Inside { run, permit })
            .map_err(|_| StoreError::Closed)?;
        receiver.await.map_err(|_| StoreError::Closed)
    }

    /// Ends the thread after a last sync. Later operations are answered with [`StoreError::Closed`].
    pub(super) async fn close(&self) {
        self.places.close();
        let (sender, receiver) = oneshot::channel();
        if self.orders.try_send(Order::Close(sender)).is_ok() {
            drop(receiver.await);
        }
    }
}

pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) generation: Generation,
    pub(super) unsynced_since: Option<Instant>,
    /// What goes along with the next commit; readers see it in [`Shared`].
    held: Writes,
    held_since: Option<Instant>,
    pub(super) blobs: Blobs,
    /// While the database is written anew.
    pub(super) copy: Option<Copy>,
    /// Of the database's file when it was synced last.
    length: u64,
    /// How many operations the last commit had, and how long it took.
    last: (usize, Duration),
}

/// How long to wait for more than the operations that are there. Whoever writes one after the other is never waited for;
/// many who do so together come back one by one, and without patience the first of them would have a sync alone, while
/// all others wait for the next.
fn patience(last: (usize, Duration), there: usize) -> Option<Duration> {
    let (operations, took) = last;
    let patience = (took / PATIENCE).min(MOST_PATIENCE);
    (there < operations.min(MAX_GROUP) && patience >= LEAST_PATIENCE).then_some(patience)
}

/// sled writes a page beyond a quarter of a segment into a file of its own and never syncs it. The layout avoids
/// such pages; should one appear all the same, it is synced here before the log that names it.
pub(super) struct Blobs {
    folder: PathBuf,
    synced: HashSet<OsString>,
    /// When the folder had changed last when it was looked at.
    changed: Option<SystemTime>,
}

/// File systems count changes in ticks of a few milliseconds: a folder that changed just now may change again without
/// showing it.
const TICKS: Duration = Duration::from_secs(2);

impl Blobs {
    pub(super) fn of(generation: &Generation) -> Self {
        Self {
            folder: generation.folder.join("blobs"),
            synced: HashSet::new(),
            changed: None,
        }
    }

    pub(super) fn sync(&mut self) -> std::io::Result<()> {
        let changed = std::fs::metadata(&self.folder)?.modified()?;
        if self.changed == Some(changed) && changed.elapsed().is_ok_and(|ago| ago > TICKS) {
            return Ok(());
        }
        self.changed = Some(changed);
        let mut present = HashSet::new();
        let mut new = false;
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            if !self.synced.contains(&entry.file_name()) {
                File::open(entry.path())?.sync_all()?;
                new = true;
            }
            present.insert(entry.file_name());
        }
        self.synced = present;
        if new {
            File::open(&self.folder)?.sync_all()
        } else {
            Ok(())
        }
    }
}

impl Worker {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let first = match self.due() {
                None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => orders.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            let behind = match first {
                Ok(Order::Run(operation)) => {
                    let (group, behind) = self.gather(orders, operation);
                    let (operations, begun) = (group.len(), Instant::now());
                    self.commit(group);
                    self.last = (operations, begun.elapsed());
                    behind
                }
                Ok(other) => Some(other),
                Err(RecvTimeoutError::Timeout) => {
                    self.sync_lazy();
                    None
                }
                Err(RecvTimeoutError::Disconnected) => return self.sync_lazy(),
            };
            match behind {
                Some(Order::Inside { run, permit }) => {
                    drop(permit);
                    // It may look into the tree, or put another one in its place.
                    self.write_held();
                    run(&mut self);
                }
                Some(Order::Close(answer)) => {
                    self.sync_lazy();
                    // The lock goes with the last handle: let go before saying that it is closed.
                    drop(self);
                    answer.send(()).ok();
                    return;
                }
                Some(Order::Run(_)) | None => {}
            }
        }
    }

    /// When something has to be synced for which nobody waits.
    fn due(&self) -> Option<Instant> {
        let lazy = self.unsynced_since.map(|since| since + LAZY_SYNC);
        let held = self.held_since.map(|since| since + HOLD);
        lazy.into_iter().chain(held).min()
    }

    /// The operations of one commit, and the order behind them if that is something else.
    fn gather(&self, orders: &Receiver<Order>, first: Operation) -> (Vec<Operation>, Option<Order>) {
        let mut group = vec![first];
        let mut until = None;
        while group.len() < MAX_GROUP {
            match orders.try_recv() {
                Ok(Order::Run(operation)) => group.push(operation),
                Ok(other) => return (group, Some(other)),
                Err(_) => {
                    let Some(patience) = patience(self.last, group.len()) else {
                        break;
                    };
                    let now = Instant::now();
                    if *until.get_or_insert(now + patience) <= now {
                        break;
                    }
                    std::thread::sleep(LEAST_PATIENCE);
                }
            }
        }
        (group, None)
    }

    fn commit(&mut self, group: Vec<Operation>) {
        let failed = self.shared.failure();
        let tree = self.shared.tree();
        let mut head = self.shared.head();
        let mut writes = std::mem::take(&mut self.held);
        let mut effects = Effects::default();
        let (mut sync, mut now) = (false, false);
        let mut result = failed.map_or(Ok(()), |reason| Err(StoreError::Failed(reason)));
        let mut written = false;
        let mut added = Writes::new();
        let mut answers: Vec<Answer> = Vec::with_capacity(group.len());
        for Operation {
            run,
            durability,
            permit,
        } in group
        {
            drop(permit);
            let mut tx = Tx::new(&tree, &self.shared.archive, &writes, head.clone());
            let (answer, accepted) = run(&mut tx);
            let (own, own_head, own_effects) = tx.finish();
            if accepted && result.is_ok() {
                if !own.is_empty() {
                    sync |= durability == Durability::Synced;
                    now |= durability != Durability::WithNext;
                    if !now {
                        added.extend(own.clone());
                    }
                }
                writes.extend(own);
                head = own_head;
                effects.absorb(own_effects);
            }
            if writes.len() >= BATCH_KEYS && result.is_ok() {
                result = self.write(std::mem::take(&mut writes), &mut head);
                written = true;
            }
            answers.push(answer);
        }
        if !writes.is_empty() && result.is_ok() {
            if now || written || writes.len() >= HELD_KEYS {
                result = self.write(writes, &mut head);
                written = true;
            } else {
                self.shared.hold(added);
                self.held = writes;
                self.held_since.get_or_insert_with(Instant::now);
            }
        }
        if written && result.is_ok() {
            if sync {
                result = self.sync(&head);
            } else {
                self.unsynced_since.get_or_insert_with(Instant::now);
            }
        }
        match &result {
            Ok(()) => self.shared.committed(head, effects),
            Err(error) => self.fail(error),
        }
        for answer in answers {
            answer(result.clone());
        }
    }

    /// Every batch has a revision of its own, by which a start recognises whether the last ones are missing.
    fn write(&mut self, writes: Writes, head: &mut HeadRecord) -> Result<(), StoreError> {
        head.revision += 1;
        if let Some(copy) = &mut self.copy {
            copy.note(writes.keys());
        }
        self.shared.write(writes, head)?;
        // They were among these.
        self.held_since = None;
        self.shared.release();
        Ok(())
    }

    /// Writes what was held, without a sync.
    fn write_held(&mut self) {
        if self.held.is_empty() || self.shared.failure().is_some() {
            return;
        }
        let mut head = self.shared.head();
        let waiting = std::mem::take(&mut self.held);
        match self.write(waiting, &mut head) {
            Ok(()) => {
                self.unsynced_since.get_or_insert_with(Instant::now);
                self.shared.committed(head, Effects::default());
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Makes everything that was written survive a power cut.
    fn sync(&mut self, head: &HeadRecord) -> Result<(), StoreError> {
        self.generation.tree.flush().map_err(broken)?;
        // On a full disk it stays as long as it is; what matters is synced next.
        self.generation.write_ahead(&mut self.length).ok();
        self.blobs
            .sync()
            .and_then(|()| self.generation.file.sync_data())
            .map_err(|e| StoreError::Failed(format!("the sync to disk failed: {e}")))?;
        self.generation.mark(head);
        self.unsynced_since = None;
        Ok(())
    }

    fn sync_lazy(&mut self) {
        self.write_held();
        if self.unsynced_since.is_some()
            && self.shared.failure().is_none()
            && let Err(error) = self.sync(&self.shared.head())
        {
            self.fail(&error);
        }
    }

    /// After a failed sync the kernel may have dropped what it could not write: a second sync that succeeds
    /// would prove nothing. So nothing is acknowledged any more.
    pub(super) fn fail(&mut self, error: &StoreError) {
        self.unsynced_since = None;
        self.held_since = None;
        if self.shared.failure().is_none() {
            error!("The store has stopped: {error}. Nothing is acknowledged until pipepost is started again");
            self.shared.set_failed(error.to_string());
        } else {
            warn!("The store has stopped; an operation was refused");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_waits_only_for_those_whom_a_slow_one_before_it_answered() {
        let slow = Duration::from_millis(4);
        assert_eq!(patience((0, Duration::ZERO), 1), None);
        assert_eq!(patience((1, slow), 1), None, "who writes alone waits for nobody");
        assert_eq!(patience((64, slow), 1), Some(Duration::from_millis(1)));
        assert_eq!(patience((64, slow), 64), None, "all are there");
        assert_eq!(patience((64, Duration::from_secs(5)), 1), Some(MOST_PATIENCE));
        assert_eq!(patience((64, Duration::from_micros(90)), 1), None, "a quick sync");
        assert_eq!(patience((2 * MAX_GROUP, slow), MAX_GROUP), None);
    }
}
