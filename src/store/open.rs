//! Opening: folders, the lock, sled, the schema, what is made once.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use data_encoding::BASE32_DNSSEC;
use log::warn;
use rustix::fs::{FlockOperation, flock};
use sled::Tree;

use super::archive::{self, Archive};
use super::attachments::sync_dir;
use super::error::OpenError;
use super::generations::{self, Generation};
use super::migration::{SCHEMA, migrate};
use super::records::HeadRecord;
use super::shared::{Shared, attachments_dir};
use super::space::Gauge;
use super::tx::Source;
use super::types::Options;
use super::{StoreError, identity, keys, rescue};
use crate::domain::GatewayId;

/// Everything that must live as long as the store is open.
pub(super) struct Opened {
    pub(super) shared: Shared,
    pub(super) generation: Generation,
    pub(super) lock: File,
    /// Whether the database was damaged and has been replaced.
    pub(super) rescued: bool,
}

pub(super) fn open(options: Options, create: bool) -> Result<Opened, OpenError> {
    let state_dir = options.state_dir.clone();
    let make_dir = |path: &Path| generations::make_dir(path).map_err(io("create", path));
    if create {
        make_dir(&state_dir)?;
    } else if !generations::exists(&state_dir) {
        return Err(OpenError::Missing { path: state_dir });
    }
    let lock = take_lock(&state_dir)?;
    Gauge::new(&options).make_room_to_open();
    make_dir(&attachments_dir(&state_dir))?;
    make_dir(&archive::folder(&state_dir))?;
    // Commands that only read leave a damaged store to the daemon.
    let mut tail = None;
    let mut rescued = false;
    if create {
        match rescue::suspicion(&state_dir) {
            Ok(found) => tail = Some(found),
            Err(reason) => {
                rescue::run(&options, &reason, None)?;
                rescued = true;
            }
        }
    }
    let (shared, generation) = match open_database(options.clone(), create) {
        Err(OpenError::Corrupt { reason, .. }) if create => {
            rescue::run(&options, &reason, tail.as_ref())?;
            rescued = true;
            open_database(options, create)?
        }
        opened => opened?,
    };
    Ok(Opened {
        shared,
        generation,
        lock,
        rescued,
    })
}

/// Opens it in a state directory that has been made ready.
fn open_database(options: Options, create: bool) -> Result<(Shared, Generation), OpenError> {
    let state_dir = options.state_dir.clone();
    let corrupt = |reason: String| OpenError::Corrupt {
        path: state_dir.clone(),
        reason,
    };
    let folder = generations::find(&state_dir)?;
    let mut generation = Generation::open(folder).map_err(|error| error.into_open_error(&state_dir))?;
    sync_dir(&state_dir).map_err(io("sync", &state_dir))?;
    generations::remove_others(&state_dir, &generation.folder);
    let tree = generation.tree.clone();
    let is_new = tree.is_empty();
    check_schema(&tree, &options)?;
    let head: Option<HeadRecord> = tree
        .load(keys::HEAD)
        .map_err(|error| corrupt(error.to_string()))?;
    if let Some(reason) = rescue::shortfall(&state_dir, &generation, &head.unwrap_or_default()) {
        if create {
            return Err(corrupt(reason));
        }
        // What a command writes now must not hide it.
        generation.mark = None;
        rescue::leave_to_daemon(&state_dir, &reason);
    }
    let words = |error: StoreError| match error {
        StoreError::NoEntropy => OpenError::NoEntropy,
        other => corrupt(other.to_string()),
    };
    if is_new {
        identity::restore(&tree, &state_dir, false).map_err(words)?;
    }
    let gateway = gateway_id(&tree, options.gateway_id.as_ref()).map_err(words)?;
    let media_secret = media_secret(&tree).map_err(words)?;
    tree.flush().map_err(|error| corrupt(error.to_string()))?;
    generation
        .file
        .sync_data()
        .map_err(io("sync", &generation.folder))?;
    let archive = Archive::open(archive::folder(&state_dir), &tree).map_err(words)?;
    let shared = Shared::load(tree, archive, options, gateway, media_secret).map_err(words)?;
    shared.keep_identity();
    generation.mark(&shared.head());
    Ok((shared, generation))
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { what, path, source }
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
