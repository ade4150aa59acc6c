//! Opening: folders, the lock, sled, the schema, what is made once.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

use data_encoding::BASE32_DNSSEC;
use log::warn;
use rustix::fs::{FlockOperation, flock};
use sled::Tree;

use super::archive::{self, Archive};
use super::attachments::sync_dir;
use super::error::OpenError;
use super::migration::{SCHEMA, migrate};
use super::shared::{Shared, attachments_dir};
use super::space::Gauge;
use super::tx::Source;
use super::types::Options;
use super::{StoreError, keys};
use crate::domain::GatewayId;

/// sled's page cache. Small: the kernel's cache keeps the file anyway.
const CACHE_BYTES: u64 = 1 << 20;

/// How long a store that was closed in this process may take to let go of its file.
const LET_GO: Duration = Duration::from_secs(2);

/// Everything that must live as long as the store is open.
pub(super) struct Opened {
    pub(super) shared: Shared,
    pub(super) db_file: File,
    pub(super) lock: File,
}

pub(super) fn open(options: Options, create: bool) -> Result<Opened, OpenError> {
    let state_dir = options.state_dir.clone();
    let store_dir = state_dir.join("store");
    if create {
        make_dir(&state_dir)?;
    } else if !store_dir.join("db").exists() {
        return Err(OpenError::Missing { path: state_dir });
    }
    let lock = take_lock(&state_dir)?;
    Gauge::new(&options).make_room_to_open();
    make_dir(&store_dir)?;
    make_dir(&attachments_dir(&state_dir))?;
    make_dir(&archive::folder(&state_dir))?;
    let corrupt = |reason: String| OpenError::Corrupt {
        path: state_dir.clone(),
        reason,
    };
    let db = open_sled(&store_dir).map_err(|error| match error {
        sled::Error::Io(source) if is_locked(&source) => OpenError::InUse {
            path: state_dir.clone(),
            pid: None,
        },
        sled::Error::Io(source) => io("open the store in", &store_dir)(source),
        other => corrupt(other.to_string()),
    })?;
    // sled syncs none of these when it makes them.
    for path in [store_dir.join("conf"), store_dir.join("db")] {
        File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(io("sync", &path))?;
    }
    for path in [&store_dir, &state_dir] {
        sync_dir(path).map_err(io("sync", path))?;
    }
    let db_path = store_dir.join("db");
    let db_file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&db_path)
        .map_err(io("open", &db_path))?;
    let tree: Tree = Tree::clone(&db);
    check_schema(&tree, &options)?;
    let words = |error: StoreError| match error {
        StoreError::NoEntropy => OpenError::NoEntropy,
        other => corrupt(other.to_string()),
    };
    let gateway = gateway_id(&tree, options.gateway_id.as_ref()).map_err(words)?;
    let media_secret = media_secret(&tree).map_err(words)?;
    tree.flush().map_err(|error| corrupt(error.to_string()))?;
    db_file.sync_data().map_err(io("sync", &db_path))?;
    let archive = Archive::open(archive::folder(&state_dir), &tree).map_err(words)?;
    let shared = Shared::load(tree, archive, options, gateway, media_secret).map_err(words)?;
    Ok(Opened {
        shared,
        db_file,
        lock,
    })
}

fn is_locked(error: &std::io::Error) -> bool {
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

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { what, path, source }
}

/// Makes a folder for nobody else's eyes, and its name durable.
fn make_dir(path: &Path) -> Result<(), OpenError> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io("create", path))?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent).map_err(io("sync", parent)),
        _ => Ok(()),
    }
}

/// Takes the lock, or says who has it.
fn take_lock(state_dir: &Path) -> Result<File, OpenError> {
    let path = state_dir.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let pid = file
                .read_to_string(&mut text)
                .ok()
                .and_then(|_| text.trim().parse().ok());
            return Err(OpenError::InUse {
                path: state_dir.to_owned(),
                pid,
            });
        }
        Err(error) => return Err(io("lock", &path)(error.into())),
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
    if let Err(error) = written {
        // Only the words for a second process suffer.
        warn!("Cannot write {}: {error}", path.display());
    }
    Ok(file)
}

fn check_schema(tree: &Tree, options: &Options) -> Result<(), OpenError> {
    let corrupt = |reason: String| OpenError::Corrupt {
        path: options.state_dir.clone(),
        reason,
    };
    let found = tree.get(keys::SCHEMA).map_err(|e| corrupt(e.to_string()))?;
    let found = match found {
        Some(bytes) => {
            let bytes = bytes
                .as_ref()
                .try_into()
                .map_err(|_| corrupt("its schema number".to_owned()))?;
            u32::from_be_bytes(bytes)
        }
        None if tree.is_empty() => {
            tree.insert(keys::SCHEMA, &SCHEMA.to_be_bytes())
                .map_err(|e| corrupt(e.to_string()))?;
            SCHEMA
        }
        None => return Err(corrupt("it has no schema number".to_owned())),
    };
    if found < SCHEMA {
        migrate(tree, found).map_err(|e| corrupt(e.to_string()))?;
    }
    if found > SCHEMA {
        return Err(OpenError::Newer {
            path: options.state_dir.clone(),
            found,
            known: SCHEMA,
        });
    }
    Ok(())
}

fn gateway_id(tree: &Tree, configured: Option<&GatewayId>) -> Result<GatewayId, StoreError> {
    if let Some(id) = configured {
        return Ok(id.clone());
    }
    if let Some(bytes) = Source::get(tree, keys::GATEWAY)? {
        let text = std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| text.parse().ok());
        return text.ok_or_else(|| StoreError::Corrupt("the gateway's id".to_owned()));
    }
    let id = GatewayId::generate().map_err(|_| StoreError::NoEntropy)?;
    tree.insert(keys::GATEWAY, id.as_str().as_bytes())
        .map_err(super::tx::broken)?;
    Ok(id)
}

fn media_secret(tree: &Tree) -> Result<[u8; 32], StoreError> {
    if let Some(bytes) = Source::get(tree, keys::MEDIA_SECRET)? {
        return bytes
            .as_ref()
            .try_into()
            .map_err(|_| StoreError::Corrupt("the secret of links".to_owned()));
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|_| StoreError::NoEntropy)?;
    tree.insert(keys::MEDIA_SECRET, &secret)
        .map_err(super::tx::broken)?;
    Ok(secret)
}

/// A random name, e.g. `pipepost-0k3v9d2m1c4f7g6h`.
pub(super) fn random_name() -> Result<String, StoreError> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).map_err(|_| StoreError::NoEntropy)?;
    Ok(format!("pipepost-{}", BASE32_DNSSEC.encode(&bytes)))
}
