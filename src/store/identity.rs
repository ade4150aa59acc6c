//! Who the gateway is, once more beside the database: its id, the secret of its links, its names at brokers and the
//! numbers of its channels. Pipedrive and brokers know it by them, so it keeps them when the database is lost.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use data_encoding::HEXLOWER;
use log::warn;
use sled::Tree;

use super::attachments::sync_dir;
use super::tx::{Source, broken};
use super::{StoreError, keys};

const FILE: &str = "identity";

/// A line is a key, its value and the CRC-32 of both, in hexadecimal.
fn lines(tree: &Tree) -> Result<String, StoreError> {
    let mut text = String::new();
    let ids = [keys::GATEWAY, keys::MEDIA_SECRET];
    let ids = ids.map(|key| (key.to_vec(), [key, &[0]].concat()));
    for range in ids
        .into_iter()
        .chain([keys::prefix(keys::name("")), keys::all(b'H')])
    {
        for item in Source::scan(tree, range) {
            let (key, value) = item?;
            text.push_str(&line(&key, &value));
        }
    }
    Ok(text)
}

fn line(key: &[u8], value: &[u8]) -> String {
    let crc = crc32fast::hash(&[key, value].concat());
    format!("{} {} {crc:08x}\n", HEXLOWER.encode(key), HEXLOWER.encode(value))
}

/// Brings the file up to date, when that is needed. Blocks.
pub(super) fn keep(tree: &Tree, state_dir: &Path) {
    let path = state_dir.join(FILE);
    let kept = lines(tree).and_then(|text| {
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        write(state_dir, &text).map_err(|error| StoreError::File(error.to_string()))
    });
    if let Err(error) = kept {
        // It is needed only after a second misfortune.
        warn!("Cannot write {}: {error}", path.display());
    }
}

fn write(state_dir: &Path, text: &str) -> io::Result<()> {
    let new = state_dir.join("identity.new");
    // Left by a crash, perhaps with another owner.
    fs::remove_file(&new).ok();
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, state_dir.join(FILE))?;
    sync_dir(state_dir)
}

/// Puts back what is missing in the database: the ids, and with `channels` the channels. Lines that cannot be read are
/// left out.
pub(super) fn restore(tree: &Tree, state_dir: &Path, channels: bool) -> Result<(), StoreError> {
    let text = fs::read_to_string(state_dir.join(FILE)).unwrap_or_default();
    for of in text.lines() {
        let mut words = of.split(' ').map(|word| HEXLOWER.decode(word.as_bytes()));
        let (Some(Ok(key)), Some(Ok(value))) = (words.next(), words.next()) else {
            continue;
        };
        let wanted = key.first() == Some(&b'M') || (channels && key.first() == Some(&b'H'));
        if wanted && line(&key, &value).trim_end() == of && Source::get(tree, &key)?.is_none() {
            tree.insert(key, value).map_err(broken)?;
        }
    }
    Ok(())
}
