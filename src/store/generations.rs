//! The database lies in a folder of its own, `store@` and eight digits, and the link `store` says which of them it is:
//! so a copy can take its place in one step. Every other such folder is what a crash left behind.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{info, warn};
use sled::Tree;

use super::StoreError;
use super::attachments::sync_dir;
use super::error::OpenError;
use super::records::HeadRecord;
use super::rescue;
use super::watermark::{self, Watermark};

/// Names the folder in use.
const LINK: &str = "store";
/// Leads the names of the folders.
const PREFIX: &str = "store@";
/// The first folder, and what becomes of a folder `store`, which is how it was before there were links.
const FIRST: &str = "store@00000000";

/// sled's page cache. Small: the kernel's cache keeps the file anyway.
const CACHE_BYTES: u64 = 1 << 20;
/// A file that grows is lengthened to a multiple of this, which is a part of a segment of sled's.
const AHEAD: u64 = 64 << 10;
/// What grows by more at once is written in large pieces anyway.
const MUCH: u64 = 16 << 10;
/// How long a store that was closed in this process may take to let go of its file.
const LET_GO: Duration = Duration::from_secs(2);

/// An open database.
#[derive(Clone)]
pub(super) struct Generation {
    pub(super) tree: Tree,
    pub(super) folder: PathBuf,
    /// A second handle of sled's file, for the sync that sled does not do.
    pub(super) file: Arc<File>,
    /// For its [`Watermark`]; `None` when it is not to be written.
    pub(super) mark: Option<Arc<File>>,
}

/// Why a database was not opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("{0}")]
    Sled(sled::Error),
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

fn trouble(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Trouble {
    let path = path.to_owned();
    move |source| Trouble::Io { what, path, source }
}

impl Trouble {
    pub(super) fn into_open_error(self, state_dir: &Path) -> OpenError {
        let path = state_dir.to_owned();
        match self {
            Self::Sled(sled::Error::Io(source)) if is_locked(&source) => OpenError::InUse { path, pid: None },
            Self::Sled(sled::Error::Io(source)) => OpenError::Io {
                what: "open the store in",
                path,
                source,
            },
            Self::Sled(other) => OpenError::Corrupt {
                path,
                reason: other.to_string(),
            },
            Self::Io { what, path, source } => OpenError::Io { what, path, source },
        }
    }
}

impl Generation {
    /// Opens the database in a folder, or makes it. Its files and their names are durable, what is written into it
    /// is not yet.
    pub(super) fn open(folder: PathBuf) -> Result<Self, Trouble> {
        let db = open_sled(&folder).map_err(Trouble::Sled)?;
        // sled syncs none of these when it makes them, and lets the umask decide who may read the tokens in them.
        let path = folder.join("db");
        for path in [&folder.join("conf"), &path] {
            File::open(path)
                .and_then(|file| {
                    file.set_permissions(Permissions::from_mode(0o600))?;
                    file.sync_all()
                })
                .map_err(trouble("sync", path))?;
        }
        // Without it the database is as good; a full disk may not have room for it.
        let mark = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join(watermark::FILE))
            .ok();
        sync_dir(&folder).map_err(trouble("sync", &folder))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(trouble("open", &path))?;
        Ok(Self {
            tree: Tree::clone(&db),
            folder,
            file: Arc::new(file),
            mark: mark.map(Arc::new),
        })
    }

    /// Notes that everything up to these counters is synced.
    pub(super) fn mark(&self, head: &HeadRecord) {
        if let Some(file) = &self.mark {
            // One that stays behind says less, and nothing wrong.
            Watermark::now(head).write(file).ok();
        }
    }

    /// Writes zeros behind the end of a file that grows a little at a time: each sync of a file that has grown writes the
    /// file system's log too, which is several times what a message takes. sled reads zeros as the end of its log, and
    /// writes them there itself. `known` is the length at the last call.
    ///
    /// Only while nothing is written to the database.
    pub(super) fn write_ahead(&self, known: &mut u64) -> io::Result<()> {
        let length = self.size()?;
        let grown = length.saturating_sub(*known);
        *known = length;
        if grown == 0 || grown > MUCH || length.is_multiple_of(AHEAD) {
            return Ok(());
        }
        let end = length.next_multiple_of(AHEAD);
        let zeros = vec![0; usize::try_from(end - length).unwrap_or_default()];
        self.file.write_all_at(&zeros, length)?;
        *known = end;
        Ok(())
    }

    /// Bytes of sled's file.
    pub(super) fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

fn is_locked(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

fn open_sled(path: &Path) -> Result<sled::Db, sled::Error> {
    let begun = Instant::now();
    loop {
        let opened = sled::Config::default()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            // Syncs are the committer's: an idle store writes nothing.
            .flush_every_ms(None)
            .open();
        match opened {
            // The lock of the state directory is ours, so this is a store that this process closed just now: sled's
            // threads let go of their file a moment after the last handle.
            Err(sled::Error::Io(error)) if is_locked(&error) && begun.elapsed() < LET_GO => {
                std::thread::sleep(Duration::from_millis(2));
            }
            opened => return opened,
        }
    }
}

/// Makes a folder for nobody else's eyes, and its name durable.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => Ok(()),
    }
}

/// Whether there is a store, also one that was just being moved.
pub(super) fn exists(state_dir: &Path) -> bool {
    state_dir.join(LINK).join("db").exists() || state_dir.join(FIRST).join("db").exists()
}

/// The folder of the database. Makes it where there is none, and the link where there was a folder of its name. Needs
/// the lock of the state directory.
pub(super) fn find(state_dir: &Path) -> Result<PathBuf, OpenError> {
    let link = state_dir.join(LINK);
    let first = state_dir.join(FIRST);
    let io = |what, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { what, path, source }
    };
    match fs::symlink_metadata(&link) {
        Ok(metadata) if metadata.is_symlink() => {
            let target = fs::read_link(&link).map_err(io("read", &link))?;
            let folder = state_dir.join(target);
            if !folder.is_dir() {
                return Err(OpenError::Corrupt {
                    path: state_dir.to_owned(),
                    reason: format!(
                        "{} leads to {}, which is missing",
                        link.display(),
                        folder.display()
                    ),
                });
            }
            return Ok(folder);
        }
        Ok(_) => {
            // From before there were links, or put back from a copy: it is the one that counts.
            if first.exists() {
                fs::remove_dir_all(&first).map_err(io("remove", &first))?;
            }
            fs::rename(&link, &first).map_err(io("rename", &link))?;
        }
        // A rename of which the link is still missing, or nothing at all.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let others = folders(state_dir).map_err(io("read", state_dir))?;
            if !others.is_empty() && !others.contains(&first) {
                return Err(OpenError::Corrupt {
                    path: state_dir.to_owned(),
                    reason: format!(
                        "the link {} is missing, which leads to one of the folders beside it",
                        link.display()
                    ),
                });
            }
            make_dir(&first).map_err(io("create", &first))?;
        }
        Err(error) => return Err(io("read", &link)(error)),
    }
    match point_to(state_dir, &first) {
        Ok(()) => Ok(first),
        Err(Pointing::Before(error)) => {
            // A file system without links: it works all the same, but nothing can take its place.
            warn!("{} cannot be made a link: {error}", link.display());
            fs::rename(&first, &link).map_err(io("rename", &first))?;
            Ok(link)
        }
        Err(Pointing::Unsure(error)) => Err(io("sync", state_dir)(error)),
    }
}

/// Why the link was not changed.
pub(super) enum Pointing {
    /// It leads where it led.
    Before(io::Error),
    /// It was changed, but nobody knows where it leads after a power cut.
    Unsure(io::Error),
}

/// Makes the link lead to a folder, also after a power cut.
pub(super) fn point_to(state_dir: &Path, folder: &Path) -> Result<(), Pointing> {
    let new = state_dir.join("store.new");
    let name = folder.file_name().unwrap_or_default();
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Pointing::Before(error)),
        _ => {}
    }
    symlink(name, &new).map_err(Pointing::Before)?;
    fs::rename(&new, state_dir.join(LINK)).map_err(Pointing::Before)?;
    sync_dir(state_dir).map_err(Pointing::Unsure)
}

/// Whether another folder can take the place of this one.
pub(super) fn is_replaceable(state_dir: &Path, folder: &Path) -> bool {
    is_ours(folder) && folder.parent() == Some(state_dir)
}

fn is_ours(folder: &Path) -> bool {
    folder
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix(PREFIX))
        // Strictly: what a person called so, a copy for example, is not ours to remove.
        .is_some_and(|number| number.len() == 8 && number.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// A new folder with a name that was never used before: something that still works in an abandoned one of the same name
/// could not be told apart.
pub(super) fn make(state_dir: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 4];
    getrandom::fill(&mut random)
        .map_err(|_| io::Error::other("the operating system gave no random bytes"))?;
    let folder = state_dir.join(format!("{PREFIX}{:08x}", u32::from_be_bytes(random)));
    DirBuilder::new().mode(0o700).create(&folder)?;
    sync_dir(state_dir)?;
    Ok(folder)
}

fn folders(state_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(state_dir)? {
        let path = entry?.path();
        if is_ours(&path) && path.is_dir() {
            found.push(path);
        }
    }
    Ok(found)
}

/// Removes every folder but the one in use, which has been opened: until then the others are worth keeping.
pub(super) fn remove_others(state_dir: &Path, used: &Path) {
    let others = folders(state_dir).unwrap_or_default();
    for folder in others.iter().filter(|folder| folder.as_path() != used) {
        if !rescue::keeps(folder) {
            info!("Removing {}, which is not in use", folder.display());
            remove(folder);
        }
    }
}

/// Removes a folder that is not in use.
pub(super) fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        // The next start tries again.
        warn!("Cannot remove {}: {error}", folder.display());
    }
}

/// The words for an error of the file system in a copy.
pub(super) fn failed(error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::NoSpace,
        _ => StoreError::Failed(error.to_string()),
    }
}
