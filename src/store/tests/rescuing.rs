//! A damaged database: what can be read is there after the next starts, whatever sled says to it.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::archiving::copy;
use super::keeping::DAY;
use super::renewing::everything;
use super::*;
use crate::domain::OutgoingState;

/// Messages with their texts.
pub(super) type Promised = Vec<(MessageId, String)>;

/// A store with something of everything, and what it has promised.
pub(super) async fn filled() -> (Bed, Promised) {
    let bed = Bed::new();
    let mut promised = Promised::new();
    bed.store.persistent_name("broker").await.unwrap();
    for number in 0..900 {
        let text = format!("{number} {}", "text ".repeat(number % 30));
        let id = bed.incoming(&format!("+49{}", number % 40), &text).await;
        promised.push((id, text));
        if number % 9 == 0 {
            let text = format!("answer {number}");
            let id = bed
                .store
                .insert_outgoing(outgoing(id.conversation, &text))
                .await
                .unwrap();
            promised.push((id, text));
            if number % 2 == 0 {
                bed.store.start_attempt(id, at(1)).await.unwrap();
                bed.store.finish_attempt(id, Attempt::Sent, false).await.unwrap();
            }
        }
        if number == 500 {
            for (id, _) in &promised {
                bed.store.uplink_done(*id, u64::MAX).await.unwrap();
                let item = bed.store.reader().uplink_item(id.conversation).unwrap();
                if let Some(item) = item {
                    bed.store
                        .uplink_done(item.message.id, item.revision)
                        .await
                        .unwrap();
                }
            }
            bed.store.maintain(at(DAY)).await.unwrap();
        }
    }
    (bed, promised)
}

pub(super) fn options_of(folder: &Path) -> Options {
    Options {
        disk_reserve: 1 << 20,
        ..Options::new(folder)
    }
}

/// Copies a store as a power cut would leave it now.
pub(super) fn copied(bed: &Bed, dir: &TempDir) -> PathBuf {
    let folder = dir.path().join("state");
    copy(bed.dir.path(), &folder);
    folder
}

/// What a daemon does until it has read everything. Err: it has panicked, or the store does not open.
pub(super) fn run(folder: &Path) -> Result<(Store, BTreeSet<MessageId>), String> {
    catch_unwind(AssertUnwindSafe(|| {
        let store = Store::open(options_of(folder)).map_err(|error| error.to_string())?;
        let mut found = BTreeSet::new();
        let reader = store.reader();
        let (views, _) = reader
            .conversations(&channel(), usize::MAX, None, usize::MAX)
            .map_err(|error| error.to_string())?;
        for view in views {
            found.extend(view.messages.iter().map(|message| message.id));
        }
        for queue in [Queue::ToUplink, Queue::ToHardware] {
            reader
                .queued(queue, usize::MAX)
                .map_err(|error| error.to_string())?;
        }
        Ok((store, found))
    }))
    .unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        Err(words.unwrap_or_else(|| "a panic".to_owned()))
    })
}

pub(super) fn database(folder: &Path) -> PathBuf {
    folder
        .join(std::fs::read_link(folder.join("store")).unwrap())
        .join("db")
}

/// Zeros of sled's own behind the last message do not count.
pub(super) fn end(database: &Path) -> u64 {
    let bytes = std::fs::read(database).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64
}

#[tokio::test]
async fn from_a_sound_database_everything_is_taken_over() {
    let (bed, promised) = filled().await;
    let before = everything(&bed.store);
    let head = bed.store.inner.shared.head();
    let dir = TempDir::new().unwrap();
    let folder = copied(&bed, &dir);
    rescue::write_notes(&folder, 2, "a trial").unwrap();
    let (store, found) = run(&folder).unwrap();
    assert_eq!(found.len(), promised.len());
    let changed = |key: &[u8]| key == keys::HEAD || key == keys::CONTACTS || key.first() == Some(&b'G');
    let pick = |all: Vec<(Vec<u8>, Vec<u8>)>| -> Vec<_> {
        all.into_iter().filter(|(key, _)| !changed(key)).collect()
    };
    assert_eq!(pick(everything(&store)), pick(before));
    let after = store.inner.shared.head();
    assert!(after.sequence > head.sequence && after.revision > head.revision);
    let same = records::HeadRecord {
        sequence: head.sequence,
        revision: head.revision,
        ..after
    };
    assert_eq!(same, head);
    assert!(rescue::suspicion(&folder).is_ok(), "the notes are gone");
    let kept = store.damaged_copy().unwrap();
    assert!(kept.join("db").exists());
    let report = std::fs::read_to_string(kept.join("report.txt")).unwrap();
    assert!(
        report.contains("Lost: at most 0 messages, 0 conversations."),
        "{report}"
    );
}

#[tokio::test]
async fn nothing_is_found_in_a_sound_database_however_often_it_was_opened_and_cut_off() {
    let (bed, promised) = filled().await;
    let dir = TempDir::new().unwrap();
    let mut folder = copied(&bed, &dir);
    for round in 0..12_usize {
        assert!(rescue::suspicion(&folder).is_ok(), "round {round}");
        let (store, found) = run(&folder).unwrap();
        assert!(found.len() >= promised.len());
        for number in 0..60 {
            let text = "text ".repeat((number * 7 + round) % 90);
            store
                .insert_incoming(received(&format!("+49{number}"), &text))
                .await
                .unwrap();
        }
        store.maintain(at(DAY)).await.unwrap();
        if round % 3 == 0 {
            // As a power cut leaves it.
            let next = dir.path().join(format!("cut{round}"));
            copy(&folder, &next);
            folder = next;
        } else {
            store.close().await;
        }
    }
}

#[tokio::test]
async fn one_note_of_a_panic_is_not_enough() {
    let (bed, _) = filled().await;
    let dir = TempDir::new().unwrap();
    let folder = copied(&bed, &dir);
    rescue::write_notes(&folder, 1, "a trial").unwrap();
    let (store, _) = run(&folder).unwrap();
    assert_eq!(store.damaged_copy(), None);
}

#[tokio::test]
async fn a_damaged_database_opens_in_the_end_and_says_what_is_lost() {
    let (bed, promised) = filled().await;
    let names = bed.store.persistent_name("broker").await.unwrap();
    let highest = promised.iter().map(|(id, _)| id.sequence).max().unwrap();
    let (mut rescued, mut kept) = (0, 0);
    for trial in 0..40_u64 {
        let dir = TempDir::new().unwrap();
        let folder = copied(&bed, &dir);
        damage(&database(&folder), trial);
        let mut starts = 0;
        let (store, found) = loop {
            match run(&folder) {
                Ok(opened) => break opened,
                // What the panic hook and the daemon's end are outside of a test.
                Err(_) => rescue::write_notes(&folder, 1, "a trial").unwrap(),
            }
            starts += 1;
            assert!(starts <= 2, "trial {trial} does not open");
        };
        let texts: BTreeMap<_, _> = promised.iter().cloned().collect();
        for id in &found {
            let (_, message) = store.reader().message(*id).unwrap().unwrap();
            assert_eq!(Some(&message.text), texts.get(id), "trial {trial}");
        }
        assert_eq!(store.gateway_id(), bed.store.gateway_id(), "trial {trial}");
        assert_eq!(store.media_secret(), bed.store.media_secret());
        assert_eq!(store.persistent_name("broker").await.unwrap(), names);
        kept += found.len();
        let Some(copy) = store.damaged_copy() else {
            assert_eq!(found.len(), promised.len(), "trial {trial}: lost unnoticed");
            continue;
        };
        rescued += 1;
        println!("trial {trial}: {} of {} messages", found.len(), promised.len());
        let report = std::fs::read_to_string(copy.join("report.txt")).unwrap();
        assert!(
            report.contains(&format!("Found: {} messages", found.len())),
            "{report}"
        );
        let most = super::shortening::reported(&store).unwrap();
        assert!(promised.len() - found.len() <= most, "trial {trial}: {report}");
        let Inserted::New(id) = store.insert_incoming(received("+491", "after")).await.unwrap() else {
            panic!("no duplicate");
        };
        assert!(id.sequence > highest || found.is_empty(), "trial {trial}");
        store.maintain(at(DAY)).await.unwrap();
        store.maintain(at(2 * DAY)).await.unwrap();
        assert_eq!(store.reader().message(id).unwrap().unwrap().1.text, "after");
    }
    let all = promised.len() * 40;
    println!("{rescued} of 40 were rescued, {kept} of {all} messages were kept");
    assert!(rescued >= 8, "{rescued} of 40 were rescued");
    assert!(kept * 10 > all * 6, "{kept} of {all} messages were kept");
}

/// Bytes flipped, a block of noise, 64 KiB of zeros, cut off: by turns, at places that differ.
fn damage(path: &Path, trial: u64) {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let size = file.metadata().unwrap().len();
    let mut state = trial.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let place = next() % size;
    match trial % 4 {
        0 => {
            for _ in 0..5 {
                let mut byte = [0];
                let place = next() % size;
                file.read_exact_at(&mut byte, place).unwrap();
                file.write_all_at(&[!byte[0]], place).unwrap();
            }
        }
        1 => {
            let noise: Vec<u8> = (0..4096).map(|_| u8::try_from(next() >> 56).unwrap()).collect();
            file.write_all_at(&noise, place / 4096 * 4096).unwrap();
        }
        2 => file
            .write_all_at(&vec![0; 64 << 10], place / 4096 * 4096)
            .unwrap(),
        _ => file.set_len(place).unwrap(),
    }
}

#[tokio::test]
async fn a_database_of_which_nothing_is_left_begins_anew_with_the_old_identity() {
    let (bed, promised) = filled().await;
    let name = bed.store.persistent_name("broker").await.unwrap();
    let dir = TempDir::new().unwrap();
    let folder = copied(&bed, &dir);
    let file = database(&folder);
    let size = std::fs::metadata(&file).unwrap().len();
    std::fs::write(&file, vec![0x5a; usize::try_from(size).unwrap()]).unwrap();
    rescue::write_notes(&folder, 2, "a trial").unwrap();
    let (store, found) = run(&folder).unwrap();
    assert!(found.is_empty());
    assert_eq!(store.gateway_id(), bed.store.gateway_id());
    assert_eq!(store.media_secret(), bed.store.media_secret());
    assert_eq!(store.persistent_name("broker").await.unwrap(), name);
    let copy = store.damaged_copy().unwrap();
    let report = std::fs::read_to_string(copy.join("report.txt")).unwrap();
    let lost = format!("Lost: at most {} messages, 40 conversations.", promised.len());
    assert!(report.contains(&lost), "{report}");
    assert!(
        copy.join("archive").read_dir().unwrap().next().is_some(),
        "it may need its packs"
    );
    store.insert_incoming(received("+491", "after")).await.unwrap();
    store.maintain(at(DAY)).await.unwrap();
}

#[tokio::test]
async fn an_answer_whose_entry_is_lost_counts_as_attempted_and_is_not_just_sent_again() {
    let bed = Bed::new();
    let id = bed.incoming("+491", "hello").await;
    let answer = bed
        .store
        .insert_outgoing(outgoing(id.conversation, "answer"))
        .await
        .unwrap();
    let dir = TempDir::new().unwrap();
    let folder = copied(&bed, &dir);
    {
        let store = Store::open(options_of(&folder)).unwrap();
        store
            .write(Durability::Synced, move |tx, _| {
                tx.delete(keys::entry(Queue::ToHardware, answer));
                Ok(())
            })
            .await
            .unwrap();
        store.close().await;
    }
    rescue::write_notes(&folder, 2, "a trial").unwrap();
    let store = Store::open(options_of(&folder)).unwrap();
    assert_eq!(store.recover_attempts(&|_| false).await.unwrap(), 1);
    let (_, message) = store.reader().message(answer).unwrap().unwrap();
    assert!(
        matches!(
            message.state,
            crate::domain::DeliveryState::Outgoing(OutgoingState::Unknown(_))
        ),
        "{message:?}"
    );
}

#[tokio::test]
async fn a_rescue_that_is_cut_off_before_the_switch_or_behind_it_loses_neither_database() {
    let (bed, promised) = filled().await;
    let dir = TempDir::new().unwrap();
    let folder = copied(&bed, &dir);
    // Behind the switch: the damaged one has its report, but not its name yet.
    let old = database(&folder).parent().unwrap().to_owned();
    std::fs::write(old.join("report.txt"), "found").unwrap();
    let new = folder.join("store@12345678");
    copy(&old, &new);
    std::fs::remove_file(new.join("report.txt")).unwrap();
    std::fs::remove_file(folder.join("store")).unwrap();
    std::os::unix::fs::symlink("store@12345678", folder.join("store")).unwrap();
    let (store, found) = run(&folder).unwrap();
    assert_eq!(found.len(), promised.len());
    assert!(store.damaged_copy().unwrap().join("db").exists());
    assert!(!old.exists());
}

#[tokio::test]
async fn commands_that_only_read_leave_a_damaged_store_alone() {
    let (bed, _) = filled().await;
    let dir = TempDir::new().unwrap();
    let folder = copied(&bed, &dir);
    rescue::write_notes(&folder, 2, "a trial").unwrap();
    let store = Store::open_existing(options_of(&folder)).unwrap();
    assert_eq!(store.damaged_copy(), None);
    assert!(rescue::suspicion(&folder).is_err());
}

#[tokio::test]
async fn of_many_damaged_databases_the_last_three_are_kept() {
    let (bed, promised) = filled().await;
    let dir = TempDir::new().unwrap();
    let folder = copied(&bed, &dir);
    for _ in 0..5 {
        rescue::write_notes(&folder, 2, "a trial").unwrap();
        let (store, found) = run(&folder).unwrap();
        assert_eq!(found.len(), promised.len());
        store.close().await;
    }
    let entries = std::fs::read_dir(&folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let kept = names.filter(|name| name.starts_with("store-damaged-")).count();
    assert_eq!(kept, 3);
}

#[tokio::test]
async fn without_room_for_a_second_one_the_damaged_database_stays() {
    let (bed, _) = filled().await;
    let dir = TempDir::new().unwrap();
    let folder = copied(&bed, &dir);
    rescue::write_notes(&folder, 2, "a trial").unwrap();
    let before = database(&folder);
    let opened = Store::open(Options {
        disk_reserve: u64::MAX / 4,
        ..options_of(&folder)
    });
    assert!(matches!(opened, Err(OpenError::Corrupt { .. })));
    assert_eq!(database(&folder), before);
}
