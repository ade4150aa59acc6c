//! A damaged database is not the end: what can be read goes into a new one, which takes its place; the old one is kept.
//!
//! sled answers a damaged file by a panic as a rule, when it opens or later. The panic hook notes that in the state
//! directory, so that the next start but one does not open the same file once more. A power cut leaves no such note.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use log::{error, info, warn};

use super::attachments::sync_dir;
use super::committer::Blobs;
use super::ending::{self, End, Tail};
use super::error::OpenError;
use super::generations::{self, Generation};
use super::migration::{SCHEMA, migrate};
use super::packs::Packed;
use super::records::{HeadRecord, decode};
use super::repair::{self, Evidence};
use super::report::Report;
use super::space::Gauge;
use super::tx::{Source, broken};
use super::types::Options;
use super::watermark::Watermark;
use super::{StoreError, identity, keys, salvage};
use crate::domain::Timestamp;

/// Notes that tell of damage, one a line.
const NOTES: &str = "damaged";
/// How many of them there must be: the first may have been the memory's fault.
const ENOUGH: usize = 2;
/// Leads the names of damaged databases that are kept.
const KEPT: &str = "store-damaged-";
/// How many of them at most.
const COPIES: usize = 3;
/// What is said about one, inside it.
const REPORT: &str = "report.txt";

static WATCHED: OnceLock<PathBuf> = OnceLock::new();
static NOTED: AtomicBool = AtomicBool::new(false);

/// Notes from now on when the database in this state directory turns out to be damaged, and ends the process when sled
/// panics. For the daemon.
pub fn watch_for_damage(state_dir: &Path) {
    if WATCHED.set(state_dir.to_owned()).is_err() {
        return;
    }
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
        let place = panic.location().filter(|place| place.file().contains("/sled-"));
        if let Some(place) = place {
            note(1, &format!("panic at {}:{}", place.file(), place.line()));
        }
        before(panic);
        if place.is_some() {
            // Nothing more can be expected of that database, also where a panic alone does not end the daemon.
            std::process::abort();
        }
    }));
}

/// sled has read something whose checksum is wrong: that needs no second time. Ends the daemon, as its panics do: its
/// next start mends it, and raises the alarm.
pub(super) fn note_corruption(reason: &str) {
    note(ENOUGH, reason);
    if WATCHED.get().is_some() {
        error!("The store is damaged ({reason}): the next start of pipepost reads what can be read");
        std::process::abort();
    }
}

fn note(times: usize, reason: &str) {
    if let Some(state_dir) = WATCHED.get()
        && !NOTED.swap(true, Ordering::Relaxed)
    {
        write_notes(state_dir, times, reason).ok();
    }
}

pub(super) fn write_notes(state_dir: &Path, times: usize, reason: &str) -> io::Result<()> {
    let line = format!("{}\n", reason.replace('\n', " "));
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(state_dir.join(NOTES))?;
    file.write_all(line.repeat(times).as_bytes())?;
    file.sync_all()
}

/// Why the database is taken for damaged before it is opened; or the end of its log, should that turn out afterwards.
pub(super) fn suspicion(state_dir: &Path) -> Result<Tail, String> {
    let notes = fs::read_to_string(state_dir.join(NOTES)).unwrap_or_default();
    if notes.lines().count() >= ENOUGH {
        return Err(notes.lines().last().unwrap_or_default().to_owned());
    }
    let Some(folder) = current(state_dir) else {
        return Ok(Tail::default());
    };
    let judged = Watermark::read(&folder).is_some();
    match ending::find_damage(&folder, judged) {
        Ok(End::Torn(tail)) => {
            if let Some(Err(error)) = judged.then(|| tail.cut(&folder)) {
                warn!("The end of the log cannot be cut off: {error}");
            }
            Ok(tail)
        }
        Ok(End::Damaged(place)) => Err(format!("a broken message at {place} of its log")),
        Err(error) => {
            warn!("The database cannot be checked: {error}");
            Ok(Tail::default())
        }
    }
}

/// The same when it is open: why it is not all that was acknowledged. Such a thing can only be left alone where another
/// database cannot take its place.
pub(super) fn shortfall(state_dir: &Path, generation: &Generation, head: &HeadRecord) -> Option<String> {
    let known = Watermark::read(&generation.folder)?;
    if known.revision <= head.revision {
        return None;
    }
    let reason = format!(
        "its last {} changes until {} are missing",
        known.revision - head.revision,
        known.at.to_iso8601()
    );
    if generations::is_replaceable(state_dir, &generation.folder) {
        return Some(reason);
    }
    error!("The store in {} is damaged ({reason})", state_dir.display());
    None
}

/// The damaged databases that are kept, the newest one last.
fn kept_copies(state_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state_dir).into_iter().flatten();
    let named = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut copies: Vec<PathBuf> = named
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(KEPT)) && path.is_dir()
        })
        .collect();
    copies.sort_unstable();
    copies
}

/// The newest of them.
pub(super) fn kept_copy(state_dir: &Path) -> Option<PathBuf> {
    kept_copies(state_dir).pop()
}

/// What its report says of what is lost.
pub(super) fn lost_with(copy: &Path) -> Option<String> {
    let report = fs::read_to_string(copy.join(REPORT)).ok()?;
    let lost = report.lines().find_map(|line| line.strip_prefix("Lost: "))?;
    Some(lost.trim_end_matches('.').to_owned())
}

/// How many answers its report says were held back, because they may have left.
pub(super) fn held_with(copy: &Path) -> u64 {
    let report = fs::read_to_string(copy.join(REPORT)).unwrap_or_default();
    let held = report.lines().find_map(|line| line.strip_prefix("Held back: "));
    held.and_then(|held| held.split(' ').next()?.parse().ok())
        .unwrap_or(0)
}

/// Whether there is room for so many bytes. Older damaged databases make room: on a disk that goes on failing they must
/// not be what ends the gateway.
fn make_room(options: &Options, bytes: u64) -> bool {
    let gauge = Gauge::new(options);
    let copies = kept_copies(&options.state_dir);
    let mut kept = copies.len();
    for oldest in &copies {
        if kept < COPIES && gauge.has_room_for(bytes) {
            break;
        }
        warn!("Removing {}, an older damaged database", oldest.display());
        generations::remove(oldest);
        kept -= 1;
    }
    gauge.has_room_for(bytes)
}

/// Whether a folder of a database is one that must be kept. If so, gives it a name that says so.
pub(super) fn keeps(folder: &Path) -> bool {
    if !folder.join(REPORT).exists() {
        return false;
    }
    let now = Timestamp::from_system_time(SystemTime::now()).to_iso8601();
    let mut name = format!("{KEPT}{}", now.replace(':', "-"));
    while folder.with_file_name(&name).exists() {
        // Twice in a second.
        name.push('+');
    }
    if let Err(error) = fs::rename(folder, folder.with_file_name(&name)) {
        warn!("{} cannot be called {name}: {error}", folder.display());
    }
    true
}

/// Lets the next start of the daemon rescue the database.
pub(super) fn leave_to_daemon(state_dir: &Path, reason: &str) {
    if let Err(error) = write_notes(state_dir, ENOUGH, reason) {
        warn!("Cannot note in {} that {reason}: {error}", state_dir.display());
    }
}

/// Puts a new database with what can be read in the place of the damaged one. The caller has the lock and nothing of the
/// store open. `tail`: what sled has overwritten meanwhile.
pub(super) fn run(options: &Options, reason: &str, tail: Option<&Tail>) -> Result<(), OpenError> {
    let state_dir = &options.state_dir;
    error!("The store in {} is damaged ({reason})", state_dir.display());
    let failed = |what: String| OpenError::Corrupt {
        path: state_dir.clone(),
        reason: format!("{reason}; it could not be rescued: {what}"),
    };
    let damaged = current(state_dir).ok_or_else(|| failed("its folder is missing".to_owned()))?;
    let size = fs::metadata(damaged.join("db")).map_or(0, |metadata| metadata.len());
    if !make_room(options, size) {
        return Err(failed("the disk has no room for a second one".to_owned()));
    }
    if let Some(Err(error)) = tail.map(|tail| tail.put_back(&damaged)) {
        warn!("The end of the log cannot be put back: {error}");
    }
    info!("Reading what is left in {size} bytes of {}", damaged.display());
    let folder = generations::make(state_dir).map_err(|error| failed(error.to_string()))?;
    let report = match build(&damaged, &folder, state_dir) {
        Ok(report) => report,
        Err(error) => {
            generations::remove(&folder);
            return Err(failed(error.to_string()));
        }
    };
    let words = words(&report, reason);
    let switched = write_report(&damaged, &words)
        .map_err(|error| failed(error.to_string()))
        .and_then(|()| match generations::point_to(state_dir, &folder) {
            Ok(()) => Ok(()),
            Err(generations::Pointing::Before(error)) => {
                // It stays the one in use.
                fs::remove_file(damaged.join(REPORT)).ok();
                generations::remove(&folder);
                Err(failed(error.to_string()))
            }
            Err(generations::Pointing::Unsure(error)) => Err(failed(error.to_string())),
        });
    switched?;
    fs::remove_file(state_dir.join(NOTES)).ok();
    keeps(&damaged);
    let copy = kept_copy(state_dir).unwrap_or(damaged);
    report.set_aside(state_dir, &copy);
    sync_dir(state_dir).ok();
    error!(
        "The store goes on with what could be read. {words}The damaged one is kept in {}: remove it when nobody needs \
         it any more",
        copy.display()
    );
    Ok(())
}

/// The folder that the link leads to. Without a link nothing could take its place.
fn current(state_dir: &Path) -> Option<PathBuf> {
    let folder = state_dir.join(fs::read_link(state_dir.join("store")).ok()?);
    folder.join("db").is_file().then_some(folder)
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        generations::failed(&error)
    }
}

fn build(damaged: &Path, folder: &Path, state_dir: &Path) -> Result<Report, StoreError> {
    let new = Generation::open(folder.to_owned()).map_err(|error| StoreError::Failed(error.to_string()))?;
    let mut evidence = Evidence {
        mark: Watermark::read(damaged),
        ..Evidence::default()
    };
    let lost = salvage::read(damaged, |key, value, doubted| {
        match key.first() {
            // They follow from the rest.
            Some(b'A' | b'B' | b'G') => return Ok(()),
            Some(b'L') if doubted => drop(evidence.live.insert(key.clone())),
            Some(b'C') if doubted && key.len() == 17 => evidence.packed += packed_messages(&value),
            _ if key == keys::HEAD => {
                evidence.head = decode(&value).ok();
                return Ok(());
            }
            _ => {}
        }
        new.tree.insert(key, value).map_err(broken)?;
        Ok::<(), StoreError>(())
    })?;
    evidence.lost = lost;
    let schema = match Source::get(&new.tree, keys::SCHEMA)? {
        Some(schema) => schema.as_ref().try_into().map(u32::from_be_bytes).ok(),
        // It is among what is lost. Nothing that this program brings up to date is lost when it is up to date.
        None => Some(SCHEMA - 1),
    };
    match schema {
        Some(SCHEMA) => {}
        Some(older) if older < SCHEMA => migrate(&new.tree, older)?,
        _ => return Err(StoreError::Corrupt("another pipepost wrote it".to_owned())),
    }
    identity::restore(&new.tree, state_dir, true)?;
    let report = repair::run(&new.tree, state_dir, &evidence)?;
    new.tree.flush().map_err(broken)?;
    Blobs::of(&new).sync()?;
    new.file.sync_data()?;
    Ok(report)
}

fn packed_messages(value: &[u8]) -> u64 {
    match Packed::decode(value) {
        Ok(Packed::Inline(pack)) => pack.len() as u64,
        Ok(Packed::Archived(pointer)) => pointer.count,
        Err(_) => 0,
    }
}

fn words(report: &Report, reason: &str) -> String {
    let now = Timestamp::from_system_time(SystemTime::now()).to_iso8601();
    format!("Rescued at {now}; noticed by: {reason}.\n{report}")
}

fn write_report(damaged: &Path, words: &str) -> io::Result<()> {
    let path = damaged.join(REPORT);
    fs::write(&path, words)?;
    fs::File::open(&path)?.sync_all()?;
    sync_dir(damaged)
}
