//! Finished messages lie in files beside the tree, which keeps a small pointer to each pack: sled writes what it
//! moves again and again, and holds pages in memory by their number, not by their size.
//!
//! A file is only ever appended to. A pack is a frame: length of what follows the checksum (4 bytes), CRC-32 of that
//! (4 bytes), conversation (8 bytes), the pack's record ([`super::records::encode`]); numbers are big-endian. Bytes are
//! found by pointers alone, so whatever a crash leaves behind the last frame does no harm.
//!
//! The frame is synced before the tree is told of it. What is no longer pointed to stays until maintenance removes
//! the file, or moves what is left of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use log::{info, warn};
use serde::{Deserialize, Serialize};
use sled::Tree;

use super::attachments::sync_dir;
use super::records::decode;
use super::shared::{lock, remove_file};
use super::tx::Source;
use super::{StoreError, keys};
use crate::domain::ConversationId;

/// A file is closed when it would become larger than this.
const FILE_BYTES: u64 = if cfg!(test) { 32 << 10 } else { 8 << 20 };
/// Files that are kept open for reading.
const OPEN_FILES: usize = 128;
/// Length and checksum.
const FRAME_HEAD: usize = 8;
/// Length, checksum and conversation.
pub(super) const BEFORE_RECORD: usize = FRAME_HEAD + 8;
/// Longest record that is believed.
const MAX_RECORD: u32 = 16 << 20;

/// Where a pack lies, and what must be known of it without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pointer {
    pub(super) file: u32,
    pub(super) offset: u64,
    /// Bytes of the whole frame.
    pub(super) length: u32,
    /// Its last message. The first is in the key; what lies before it in the pack is removed.
    pub(super) last: u64,
    pub(super) count: u64,
    /// What retention counts for its messages.
    pub(super) logical_bytes: u64,
    /// Whether files belong to its messages.
    pub(super) has_files: bool,
}

/// What the tree knows of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileRecord {
    /// Packs that are pointed to, and their bytes.
    pub(super) packs: u64,
    pub(super) bytes: u64,
    /// Where the last frame ends that was ever pointed to.
    pub(super) end: u64,
}

impl FileRecord {
    /// Whether moving what is left frees more than it writes.
    pub(super) const fn is_mostly_dead(&self) -> bool {
        self.bytes * 2 < self.end
    }
}

/// The frame of a new pack.
pub(super) struct Place {
    pub(super) file: u32,
    pub(super) offset: u64,
    pub(super) length: u32,
}

struct Current {
    number: u32,
    file: Arc<File>,
    end: u64,
}

/// Used by the committer alone.
struct Writer {
    current: Option<Current>,
    next: u32,
    unsynced: bool,
    /// A file was made whose name is not synced.
    new_name: bool,
}

/// The files.
pub(super) struct Archive {
    folder: PathBuf,
    writer: Mutex<Writer>,
    /// Last used last.
    open: Mutex<Vec<(u32, Arc<File>)>>,
}

fn write_failed(path: &Path, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::NoSpace,
        _ => StoreError::Archive(format!("cannot write {}: {error}", path.display())),
    }
}

pub(super) fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("archive")
}

/// What the tree knows of every file, by number.
pub(super) fn files(source: &impl Source) -> Result<Vec<(u32, FileRecord)>, StoreError> {
    let mut files = Vec::new();
    for item in source.scan(keys::all(b'G')) {
        let (key, value) = item?;
        let Some(number) = keys::archive_number(&key) else {
            return Err(StoreError::Corrupt("the key of an archive file".to_owned()));
        };
        files.push((number, decode(&value)?));
    }
    Ok(files)
}

impl Archive {
    /// Goes on with the last file where the tree says that it ends.
    pub(super) fn open(folder: PathBuf, tree: &Tree) -> Result<Self, StoreError> {
        let known = files(tree)?;
        let archive = Self {
            folder,
            writer: Mutex::new(Writer {
                current: None,
                next: 0,
                unsynced: false,
                new_name: false,
            }),
            open: Mutex::default(),
        };
        let on_disk = archive.numbers().map_err(|e| write_failed(&archive.folder, &e))?;
        let highest = on_disk
            .iter()
            .copied()
            .chain(known.iter().map(|(number, _)| *number))
            .max();
        {
            let mut writer = lock(&archive.writer);
            writer.next = highest.map_or(0, |highest| highest.saturating_add(1));
            if let Some((number, record)) = known.last()
                && record.end < FILE_BYTES
            {
                writer.current = archive.go_on(*number, record.end);
            }
        }
        Ok(archive)
    }

    /// The file as the one to append to, cut off behind what is pointed to. `None`: a new one is begun.
    fn go_on(&self, number: u32, end: u64) -> Option<Current> {
        let path = self.path(number);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .and_then(|file| {
                let length = file.metadata()?.len();
                if length < end {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("it has {length} bytes instead of {end}"),
                    ));
                }
                if length > end {
                    info!(
                        "{} ends in {} bytes that nothing points to: they are cut off",
                        path.display(),
                        length - end
                    );
                    file.set_len(end)?;
                }
                Ok(file)
            });
        match opened {
            Ok(file) => Some(Current {
                number,
                file: Arc::new(file),
                end,
            }),
            Err(error) => {
                warn!("The archive file {} cannot be continued: {error}", path.display());
                None
            }
        }
    }

    pub(super) fn path(&self, number: u32) -> PathBuf {
        self.folder.join(format!("{number:08}"))
    }

    /// The files that are there.
    pub(super) fn numbers(&self) -> io::Result<Vec<u32>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            numbers.extend(
                entry?
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<u32>().ok()),
            );
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Appends a record. It counts only after [`Archive::settle`].
    pub(super) fn append(&self, conversation: ConversationId, record: &[u8]) -> Result<Place, StoreError> {
        let mut body = conversation.0.to_be_bytes().to_vec();
        body.extend_from_slice(record);
        let length = u32::try_from(body.len())
            .ok()
            .filter(|length| *length <= MAX_RECORD)
            .ok_or_else(|| StoreError::Archive("a pack is too large".to_owned()))?;
        let mut frame = Vec::with_capacity(FRAME_HEAD + body.len());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
        frame.extend_from_slice(&body);

        let mut writer = lock(&self.writer);
        let full = writer
            .current
            .as_ref()
            .is_some_and(|current| current.end > 0 && current.end + frame.len() as u64 > FILE_BYTES);
        if full {
            self.sync(&mut writer)?;
            writer.current = None;
        }
        if writer.current.is_none() {
            self.begin(&mut writer)?;
        }
        let Writer {
            current: Some(current),
            unsynced,
            ..
        } = &mut *writer
        else {
            return Err(StoreError::Archive("no file to append to".to_owned()));
        };
        let (number, offset) = (current.number, current.end);
        if let Err(error) = current.file.write_all_at(&frame, offset) {
            // What was written of it takes room that may be missing.
            current.file.set_len(offset).ok();
            return Err(write_failed(&self.path(number), &error));
        }
        current.end += frame.len() as u64;
        *unsynced = true;
        Ok(Place {
            file: number,
            offset,
            length: length.saturating_add(8),
        })
    }

    fn begin(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let number = writer.next;
        let path = self.path(number);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| write_failed(&path, &error))?;
        writer.next = number.saturating_add(1);
        writer.new_name = true;
        writer.current = Some(Current {
            number,
            file: Arc::new(file),
            end: 0,
        });
        Ok(())
    }

    /// Makes everything that was appended survive a power cut: pointers to it may be written now.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        self.sync(&mut lock(&self.writer))
    }

    fn sync(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let (true, Some(current)) = (writer.unsynced, &writer.current) else {
            return Ok(());
        };
        let synced = current.file.sync_data().and_then(|()| {
            if writer.new_name {
                sync_dir(&self.folder)?;
            }
            Ok(())
        });
        let path = self.path(current.number);
        writer.unsynced = false;
        writer.new_name = false;
        synced.map_err(|error| {
            // A second sync of this file would prove nothing: nothing more is written to it.
            writer.current = None;
            write_failed(&path, &error)
        })
    }

    /// The file that is appended to.
    pub(super) fn current(&self) -> Option<u32> {
        lock(&self.writer).current.as_ref().map(|current| current.number)
    }

    /// Appends nothing more to this file.
    pub(super) fn close(&self, number: u32) -> Result<(), StoreError> {
        let mut writer = lock(&self.writer);
        if writer
            .current
            .as_ref()
            .is_some_and(|current| current.number == number)
        {
            self.sync(&mut writer)?;
            writer.current = None;
        }
        Ok(())
    }

    /// Removes a file that nothing points to, also after a power cut.
    pub(super) fn remove(&self, number: u32) {
        lock(&self.open).retain(|(open, _)| *open != number);
        remove_file(&self.path(number));
    }

    fn handle(&self, number: u32) -> io::Result<Arc<File>> {
        let mut open = lock(&self.open);
        if let Some(index) = open.iter().rposition(|(of, _)| *of == number) {
            let found = open.remove(index);
            let file = Arc::clone(&found.1);
            open.push(found);
            return Ok(file);
        }
        let file = Arc::new(File::open(self.path(number))?);
        if open.len() >= OPEN_FILES {
            open.remove(0);
        }
        open.push((number, Arc::clone(&file)));
        Ok(file)
    }

    /// The frame of a pack: its record is what lies behind the first [`BEFORE_RECORD`] bytes.
    pub(super) fn read(
        &self,
        conversation: ConversationId,
        pointer: &Pointer,
    ) -> Result<Vec<u8>, StoreError> {
        let place = || format!("{} at {}", self.path(pointer.file).display(), pointer.offset);
        let damaged = |why: &str| StoreError::Corrupt(format!("{}: {why}", place()));
        let length = pointer.length as usize;
        if pointer.length > MAX_RECORD || length < BEFORE_RECORD {
            return Err(damaged("its length"));
        }
        let mut frame = vec![0; length];
        self.handle(pointer.file)
            .and_then(|file| file.read_exact_at(&mut frame, pointer.offset))
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => damaged("the file is missing"),
                io::ErrorKind::UnexpectedEof => damaged("the file is too short"),
                _ => StoreError::Archive(format!("cannot read {}: {error}", place())),
            })?;
        let (head, body) = frame.split_at_checked(FRAME_HEAD).unwrap_or_default();
        if !head.ends_with(&crc32fast::hash(body).to_be_bytes()) {
            return Err(damaged("the checksum is wrong"));
        }
        if body.first_chunk::<8>() != Some(&conversation.0.to_be_bytes()) {
            return Err(damaged("it belongs to another conversation"));
        }
        Ok(frame)
    }
}
