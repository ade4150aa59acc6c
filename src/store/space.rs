//! Whether there is room. What is taken in stops while some is left, because sled may not open again after it
//! ran into a full disk.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use log::{info, warn};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tokio::sync::watch;

use super::shared::{lock, remove_file};
use super::types::{Options, Space};
use crate::domain::ByteSize;

/// How often the file system is asked.
const INTERVAL: Duration = Duration::from_millis(10);
/// Largest size of the reserve file.
const MAX_RESERVE_FILE: u64 = 16 << 20;

pub(super) struct Gauge {
    state_dir: PathBuf,
    needed: u64,
    allowed_queued: u64,
    space: watch::Sender<Space>,
    checked: Mutex<Option<Instant>>,
}

impl Gauge {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            state_dir: options.state_dir.clone(),
            needed: options.disk_reserve,
            allowed_queued: options.retain_bytes,
            space: watch::channel(Space::Enough).0,
            checked: Mutex::new(None),
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Space> {
        self.space.subscribe()
    }

    pub(super) fn space(&self) -> Space {
        *self.space.borrow()
    }

    /// Looks again, unless that was done a moment ago.
    pub(super) fn check(&self, queued: u64) -> Space {
        let now = Instant::now();
        {
            let mut checked = lock(&self.checked);
            if checked.is_some_and(|at| now.duration_since(at) < INTERVAL) {
                return self.space();
            }
            *checked = Some(now);
        }
        self.look(queued)
    }

    /// Looks now.
    pub(super) fn look(&self, queued: u64) -> Space {
        let before = self.space();
        let free = match statvfs(&self.state_dir) {
            Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
            Err(error) => {
                warn!("Cannot ask how much space is free: {error}");
                return before;
            }
        };
        // Once low, some more must come free, so that it does not flicker around the limit.
        let needed = if before.is_enough() {
            self.needed
        } else {
            self.needed.saturating_add(self.needed / 8)
        };
        let space = if free < needed {
            Space::Low { free, needed }
        } else if queued > self.allowed_queued {
            Space::TooMuchQueued {
                queued,
                allowed: self.allowed_queued,
            }
        } else {
            Space::Enough
        };
        self.keep_reserve(free, space);
        if before.is_enough() != space.is_enough() {
            match space {
                Space::Enough => info!("There is room again: messages are taken in"),
                Space::Low { free, needed } => warn!(
                    "The disk is nearly full ({} free, {} needed): messages stay with the hardware",
                    ByteSize(free).rounded(),
                    ByteSize(needed).rounded()
                ),
                Space::TooMuchQueued { queued, allowed } => warn!(
                    "Too much waits in the queues ({} of {}): messages stay with the hardware",
                    ByteSize(queued).rounded(),
                    ByteSize(allowed).rounded()
                ),
            }
        }
        if before != space {
            self.space.send_replace(space);
        }
        space
    }

    /// Whether so much can be written that nobody waits for without coming near to what is needed.
    pub(super) fn has_room_for(&self, bytes: u64) -> bool {
        let needed = self.needed.saturating_add(self.needed / 4).saturating_add(bytes);
        statvfs(&self.state_dir).is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) >= needed)
    }

    /// Looks before the database is opened: opening writes, and must not fail because others filled the disk.
    pub(super) fn make_room_to_open(&self) {
        self.look(0);
    }

    fn reserve_path(&self) -> PathBuf {
        self.state_dir.join("reserve")
    }

    /// Gives the reserve file away when others have filled the disk, so that what is in flight can still be
    /// recorded, and makes it again when there is room.
    fn keep_reserve(&self, free: u64, space: Space) {
        let size = (self.needed / 4).min(MAX_RESERVE_FILE);
        let path = self.reserve_path();
        let exists = path.exists();
        if free < size && exists {
            remove_file(&path);
            warn!("The disk is full: the reserve file was given up");
        } else if space.is_enough() && !exists && size > 0 && free > self.needed + self.needed / 8 + size {
            let made = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)
                .and_then(|file: File| Ok(fallocate(&file, FallocateFlags::empty(), 0, size)?));
            if let Err(error) = made {
                remove_file(&path);
                info!("No reserve file could be made: {error}");
            }
        }
    }
}
