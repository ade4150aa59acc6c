//! A database that is less than it was: its end damaged or cut off. What is missing is noticed, and named by a number
//! that it does not exceed.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::archiving::copy;
use super::keeping::DAY;
use super::rescuing::{Promised, copied, database, end, filled, run};
use super::*;

const MARK: &str = "watermark";

fn mark(folder: &Path) -> std::path::PathBuf {
    database(folder).with_file_name(MARK)
}

/// Opens it as the daemon does, again and again if need be.
fn reopened(folder: &Path) -> (Store, usize) {
    for _ in 0..3 {
        match run(folder) {
            Ok((store, found)) => return (store, found.len()),
            Err(_) => rescue::write_notes(folder, 1, "a trial").unwrap(),
        }
    }
    panic!("it does not open");
}

/// What the report says is lost at most.
pub(super) fn reported(store: &Store) -> Option<usize> {
    let report = std::fs::read_to_string(store.damaged_copy()?.join("report.txt")).unwrap();
    let (_, rest) = report.split_once("Lost: at most ")?;
    Some(rest.split(' ').next()?.parse().unwrap())
}

fn overwrite(folder: &Path, bytes: &[u8], at: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(database(folder));
    file.unwrap().write_all_at(bytes, at).unwrap();
}

/// Damages the last 256 KiB of what is in the file, or cuts it off there.
fn damage_the_end(database: &Path, trial: u64) {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(database)
        .unwrap();
    let end = end(database);
    let back = trial.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 46;
    let at = end - back.min(end);
    match trial % 4 {
        0 => file.write_all_at(&[0x5a; 8], at).unwrap(),
        1 => file.write_all_at(&[0xa5; 4096], at / 4096 * 4096).unwrap(),
        2 => file.write_all_at(&vec![0; 65536], at / 4096 * 4096).unwrap(),
        _ => file.set_len(at).unwrap(),
    }
}

/// Damages copies of a store. Returns unnoticed losses, noticed ones, and alarms.
fn damaged(bed: &Bed, promised: &Promised, prepare: impl Fn(&Path)) -> (usize, usize, usize) {
    let (mut unnoticed, mut noticed, mut alarms) = (0, 0, 0);
    for trial in 0..24_u64 {
        let dir = TempDir::new().unwrap();
        let folder = copied(bed, &dir);
        prepare(&folder);
        damage_the_end(&database(&folder), trial);
        let (store, found) = reopened(&folder);
        let lost = promised.len() - found;
        alarms += usize::from(store.damaged_copy().is_some());
        match reported(&store) {
            Some(most) => assert!(lost <= most, "trial {trial}: {lost} lost, {most} reported"),
            None => unnoticed += lost,
        }
        noticed += lost;
    }
    (unnoticed, noticed - unnoticed, alarms)
}

#[tokio::test]
async fn nothing_is_lost_unnoticed_at_the_end_of_the_log_and_not_more_than_is_reported() {
    let (bed, promised) = filled().await;
    let (unnoticed, noticed, alarms) = damaged(&bed, &promised, |_| {});
    println!("{alarms} alarms, {noticed} lost and reported");
    assert_eq!(unnoticed, 0);
    assert!(noticed > 0, "the trial damages nothing");
}

#[tokio::test]
async fn without_its_watermark_the_end_of_a_log_is_lost_unnoticed() {
    let (bed, promised) = filled().await;
    let (unnoticed, _, _) = damaged(&bed, &promised, |folder| {
        std::fs::remove_file(mark(folder)).unwrap();
    });
    assert!(unnoticed > 0, "the trial above proves nothing");
}

#[tokio::test]
async fn a_database_that_has_become_empty_is_noticed() {
    let (bed, promised) = filled().await;
    let dir = TempDir::new().unwrap();
    let folder = copied(&bed, &dir);
    std::fs::write(database(&folder), "").unwrap();
    for entry in database(&folder).parent().unwrap().read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("snap.") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let (store, found) = reopened(&folder);
    assert_eq!(found, 0);
    assert_eq!(reported(&store), Some(promised.len()));
    assert_eq!(store.gateway_id(), bed.store.gateway_id());
}

#[tokio::test]
async fn what_lies_behind_a_broken_message_at_the_end_is_read_all_the_same() {
    let bed = Bed::new();
    let mut ends = Vec::new();
    for number in 0..40 {
        bed.incoming(&format!("+49{number}"), &format!("text {number}"))
            .await;
        ends.push(end(&database(bed.dir.path())));
    }
    let dir = TempDir::new().unwrap();
    let folder = copied(&bed, &dir);
    overwrite(&folder, &[0x5a; 4], ends[20] - 8);
    let (store, found) = reopened(&folder);
    assert!(found >= 38, "{found}");
    assert!(reported(&store).unwrap() >= 40 - found);
}

#[tokio::test]
async fn a_command_leaves_it_to_the_daemon_and_hides_nothing() {
    let bed = Bed::new();
    for number in 0..20 {
        bed.incoming("+491", &format!("text {number}")).await;
    }
    let dir = TempDir::new().unwrap();
    let folder = copied(&bed, &dir);
    for number in 0..5 {
        bed.incoming("+491", &format!("later {number}")).await;
    }
    std::fs::copy(mark(bed.dir.path()), mark(&folder)).unwrap();
    let store = Store::open_existing(options_of(&folder)).unwrap();
    for number in 0..20 {
        store
            .insert_incoming(received("+492", &format!("by hand {number}")))
            .await
            .unwrap();
    }
    store.close().await;
    drop(store);
    let (store, found) = reopened(&folder);
    assert_eq!(found, 40);
    assert!(store.damaged_copy().is_some());
}

fn options_of(folder: &Path) -> Options {
    Options {
        disk_reserve: 1 << 20,
        ..Options::new(folder)
    }
}

#[tokio::test]
async fn no_alarm_without_a_watermark_nor_with_an_older_or_a_torn_one() {
    let (bed, promised) = filled().await;
    let older = std::fs::read(mark(bed.dir.path())).unwrap();
    bed.incoming("+491", "one more").await;
    let newer = std::fs::read(mark(bed.dir.path())).unwrap();
    assert_ne!(older, newer);
    let torn = [&newer[..20], &older[20..]].concat();
    for content in [Some(older), Some(torn), Some(Vec::new()), Some(vec![0; 44]), None] {
        let dir = TempDir::new().unwrap();
        let folder = copied(&bed, &dir);
        match &content {
            Some(content) => std::fs::write(mark(&folder), content).unwrap(),
            None => std::fs::remove_file(mark(&folder)).unwrap(),
        }
        let (store, found) = reopened(&folder);
        assert_eq!(found, promised.len() + 1);
        assert_eq!(store.damaged_copy(), None, "{content:?}");
        assert_eq!(
            std::fs::read(mark(&folder)).unwrap().len(),
            44,
            "it is there again"
        );
    }
}

#[tokio::test]
async fn no_alarm_when_the_whole_directory_is_put_back_from_a_copy() {
    let (bed, promised) = filled().await;
    let dir = TempDir::new().unwrap();
    let folder = copied(&bed, &dir);
    bed.incoming("+491", "one more").await;
    let (store, found) = reopened(&folder);
    assert_eq!(found, promised.len());
    assert_eq!(store.damaged_copy(), None);
}

#[tokio::test]
async fn no_alarm_however_often_the_database_is_written_anew_and_cut_off() {
    let dir = TempDir::new().unwrap();
    let mut folder = dir.path().join("state");
    let mut renewed = 0;
    for round in 0..8 {
        let store = Store::open(Options {
            renew_bytes: 0,
            ..options_of(&folder)
        })
        .unwrap();
        assert_eq!(store.damaged_copy(), None, "round {round}");
        for number in 0..30 {
            store
                .insert_incoming(received(&format!("+49{number}"), "text"))
                .await
                .unwrap();
            renewed += store.maintain(at(DAY)).await.unwrap().renewed;
        }
        let next = dir.path().join(format!("cut{round}"));
        copy(&folder, &next);
        folder = next;
    }
    assert!(renewed > 3, "{renewed}");
}

#[tokio::test]
async fn every_commit_moves_the_watermark_also_one_that_changes_no_counter() {
    let bed = Bed::new();
    let id = bed.incoming("+491", "hello").await;
    let revision = || {
        watermark::Watermark::read(database(bed.dir.path()).parent().unwrap())
            .unwrap()
            .revision
    };
    let before = revision();
    let status = crate::domain::ConversationStatus::Closed;
    bed.store.set_status(id.conversation, status).await.unwrap();
    assert!(revision() > before);
}

#[tokio::test]
async fn a_broken_end_of_a_segment_is_noticed_though_sled_goes_on_with_the_next() {
    let (bed, promised) = filled().await;
    for back in [300, 3000, 20_000] {
        let dir = TempDir::new().unwrap();
        let folder = copied(&bed, &dir);
        let boundary = end(&database(&folder)) / (512 << 10) * (512 << 10);
        overwrite(&folder, &[0x5a; 16], boundary - back);
        let (store, found) = reopened(&folder);
        let most = reported(&store).unwrap();
        assert!(
            promised.len() - found <= most,
            "{back}: {found} found, {most} lost"
        );
        assert!(
            most < promised.len() / 2,
            "{back}: what lies behind is read: {most}"
        );
    }
}

#[tokio::test]
async fn no_alarm_when_only_what_was_not_synced_yet_is_torn() {
    let bed = Bed::new();
    let mut ends = Vec::new();
    let mut known = Vec::new();
    for number in 0..60 {
        bed.incoming(&format!("+49{number}"), &format!("text {number}"))
            .await;
        ends.push(end(&database(bed.dir.path())));
        known.push(std::fs::read(mark(bed.dir.path())).unwrap());
    }
    for torn in [31, 40, 58, 59] {
        let dir = TempDir::new().unwrap();
        let folder = copied(&bed, &dir);
        overwrite(&folder, &[0x5a; 4], ends[torn] - 8);
        std::fs::write(mark(&folder), &known[30]).unwrap();
        let (store, found) = reopened(&folder);
        assert_eq!(store.damaged_copy(), None, "{torn}");
        assert_eq!(found, torn);
    }
}
