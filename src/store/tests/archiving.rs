//! The files that finished messages lie in: what a crash, damage, deletion and moving do to them.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::keeping::DAY;
use super::*;
use crate::domain::{DeliveryState, DeviceStatus, OutgoingState, StatusTarget};

impl Bed {
    fn archive(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(self.dir.path().join("archive"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    }

    fn archived_bytes(&self) -> u64 {
        self.archive()
            .iter()
            .map(|path| path.metadata().unwrap().len())
            .sum()
    }

    /// Delivered messages of some conversations, packed.
    async fn packed(&self, conversations: usize, messages: usize) -> Vec<MessageId> {
        let mut ids = Vec::new();
        for number in 0..messages {
            let text = format!("{number} {}", "x".repeat(number * 37 % 400));
            ids.push(
                self.incoming(&format!("+49{}", number % conversations), &text)
                    .await,
            );
        }
        self.drain_uplink().await;
        assert_eq!(self.maintain(at(DAY)).await.packed, messages as u64);
        ids
    }

    async fn close(self) -> TempDir {
        let Self { dir, store } = self;
        store.close().await;
        drop(store);
        dir
    }
}

fn open(dir: TempDir) -> Bed {
    Bed {
        store: Store::open(options(&dir)).unwrap(),
        dir,
    }
}

/// The copy of a folder as it is now; links lead where they led.
pub(super) fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(&path).unwrap(), target).unwrap();
        } else if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_crash_between_the_archive_and_the_tree_loses_nothing() {
    let bed = Bed::new();
    let mut ids = Vec::new();
    for number in 0..200 {
        ids.push(
            bed.incoming(&format!("+49{}", number % 3), &format!("{number}"))
                .await,
        );
    }
    bed.drain_uplink().await;
    // What the tree knows is from before packing, what the archive holds from behind it.
    let dir = bed.close().await;
    let before = TempDir::new().unwrap();
    copy(&dir.path().join("store"), &before.path().join("store"));
    let bed = open(dir);
    assert_eq!(bed.maintain(at(DAY)).await.packed, 200);
    let dir = bed.close().await;
    std::fs::remove_dir_all(dir.path().join("store")).unwrap();
    copy(&before.path().join("store"), &dir.path().join("store"));
    let bed = open(dir);
    let left_behind = bed.archive();
    assert!(!left_behind.is_empty());
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(bed.message(*id).text, format!("{number}"));
    }
    assert_eq!(bed.maintain(at(DAY)).await.packed, 200);
    let bed = bed.restart().await;
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(bed.message(*id).text, format!("{number}"));
    }
    assert!(
        left_behind.iter().all(|path| !path.exists()),
        "nothing points to them"
    );
}

#[tokio::test]
async fn what_a_crash_left_behind_the_last_pack_is_cut_off_and_overwritten() {
    let bed = Bed::new();
    let ids = bed.packed(2, 20).await;
    let before: Vec<_> = ids.iter().map(|id| bed.message(*id)).collect();
    let dir = bed.close().await;
    let last = std::fs::read_dir(dir.path().join("archive"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max()
        .unwrap();
    let length = last.metadata().unwrap().len();
    let file = File::options().write(true).open(&last).unwrap();
    file.write_all_at(b"half a frame", length).unwrap();
    let bed = open(dir);
    assert_eq!(last.metadata().unwrap().len(), length);
    let more = bed.packed(2, 20).await;
    let bed = bed.restart().await;
    assert_eq!(ids.iter().map(|id| bed.message(*id)).collect::<Vec<_>>(), before);
    assert_eq!(bed.message(more[19]).text.split(' ').next(), Some("19"));
}

#[tokio::test]
async fn a_long_conversation_is_packed_in_one_round_of_small_steps() {
    let bed = Bed::new();
    for number in 0..300 {
        bed.incoming("+491", &format!("{number}")).await;
    }
    let last = bed.incoming("+492", "the other").await;
    bed.drain_uplink().await;
    assert_eq!(bed.store.maintain(at(DAY)).await.unwrap().packed, 301);
    assert_eq!(bed.message(last).text, "the other");
}

#[tokio::test]
async fn many_writes_at_once_are_all_there_after_a_restart() {
    let bed = Bed::new();
    // More keys than one batch takes.
    let inserted = (0..200).map(|number| {
        bed.store
            .insert_incoming(received(&format!("+49{number}"), &format!("{number}")))
    });
    let ids: Vec<_> = futures_util::future::join_all(inserted).await;
    let bed = bed.restart().await;
    assert_eq!(bed.store.counts().messages, 200);
    for (number, id) in ids.into_iter().enumerate() {
        let Inserted::New(id) = id.unwrap() else {
            panic!("a duplicate")
        };
        assert_eq!(bed.message(id).text, format!("{number}"));
    }
}

#[tokio::test]
async fn a_damaged_pack_is_named_and_everything_else_goes_on() {
    for how in ["checksum", "short", "missing"] {
        let bed = Bed::new();
        let ids = bed.packed(3, 30).await;
        let path = bed.archive()[0].clone();
        let dir = bed.close().await;
        let file = File::options().write(true).open(&path).unwrap();
        match how {
            // The first frame belongs to one of the three.
            "checksum" => file.write_all_at(&[0xff; 4], 40).unwrap(),
            "short" => file.set_len(60).unwrap(),
            _ => std::fs::remove_file(&path).unwrap(),
        }
        let bed = open(dir);
        let mut damaged = 0;
        for id in &ids {
            match bed.store.reader().message(*id) {
                Ok(found) => assert!(found.is_some()),
                Err(StoreError::Corrupt(reason)) => {
                    assert!(reason.contains("archive/00000000 at "), "{reason}");
                    damaged += 1;
                }
                other => panic!("{how}: {other:?}"),
            }
        }
        assert_eq!(damaged, if how == "checksum" { 10 } else { 30 }, "{how}");
        let (views, _) = bed.store.reader().conversations(&channel(), 10, None, 5).unwrap();
        assert_eq!(
            views.len(),
            3 - damaged / 10,
            "{how}: the list shows what can be read"
        );
        // New messages, packing, retention and deletion go on.
        let new = bed.incoming("+490", "new").await;
        bed.drain_uplink().await;
        assert_eq!(bed.maintain(at(2 * DAY)).await.packed, 1, "{how}");
        assert_eq!(bed.message(new).text, "new");
        for id in &ids[..3] {
            assert!(
                bed.store.delete_conversation(id.conversation).await.unwrap(),
                "{how}"
            );
        }
        bed.maintain(at(2 * DAY)).await;
        assert_eq!(bed.store.counts().messages, 0, "{how}");
        assert_eq!(bed.store.counts().logical_bytes, 0, "{how}");
    }
}

#[tokio::test]
async fn deleting_and_growing_old_free_the_disk() {
    let bed = Bed::new();
    let ids = bed.packed(10, 2000).await;
    let full = bed.archived_bytes();
    assert!(full > 300_000 && bed.archive().len() > 5, "{full}");
    for id in &ids[..8] {
        assert!(bed.store.delete_conversation(id.conversation).await.unwrap());
    }
    // Whether something has to be moved depends on how the random conversations lie.
    bed.maintain(at(DAY)).await;
    let left = bed.archived_bytes();
    assert!(
        left < full * 2 / 3,
        "{left} of {full} bytes are left for two of ten"
    );
    for id in &ids {
        let gone = ids[..8].iter().any(|other| other.conversation == id.conversation);
        assert_eq!(bed.store.reader().message(*id).unwrap().is_none(), gone);
    }
    let bed = bed.restart().await;
    assert_eq!(bed.texts(ids[8].conversation).len(), 200);
    let mut later = received("+495", "later");
    later.received_at = at(800 * DAY);
    bed.store.insert_incoming(later).await.unwrap();
    assert_eq!(bed.maintain(at(800 * DAY)).await.removed, 400);
    assert!(bed.archived_bytes() < 40_000, "{}", bed.archived_bytes());
    assert_eq!(bed.store.counts().messages, 1);
}

#[tokio::test]
async fn pages_are_whole_while_what_they_show_is_moved() {
    let bed = Bed::new();
    let ids = bed.packed(2, 1500).await;
    let (stop, reader) = (
        std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)),
        bed.store.reader(),
    );
    let conversation = ids[0].conversation;
    let expected = bed.texts(conversation);
    let reads = {
        let (stop, expected) = (std::sync::Arc::clone(&stop), expected.clone());
        std::thread::spawn(move || {
            let mut read = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) || read == 0 {
                let view = reader.conversation(conversation, 10_000, None).unwrap().unwrap();
                let texts: Vec<_> = view.messages.into_iter().map(|m| m.text).collect();
                assert!(texts == expected);
                read += 1;
            }
            read
        })
    };
    // Everybody but the one that is read goes, again and again.
    for round in 0..6 {
        let more: Vec<_> = (0..60)
            .map(|number| received(&format!("+50{}", number % 3), &"y".repeat(300 + round)))
            .collect();
        let mut new = HashSet::new();
        for m in more {
            new.insert(bed.store.insert_incoming(m).await.unwrap().id().conversation);
        }
        bed.drain_uplink().await;
        bed.maintain(at(DAY)).await;
        if round == 0 {
            assert!(bed.store.delete_conversation(ids[1].conversation).await.unwrap());
        }
        for id in new {
            assert!(bed.store.delete_conversation(id).await.unwrap());
        }
        bed.maintain(at(DAY)).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(reads.join().unwrap() > 0);
    assert_eq!(bed.texts(conversation), expected);
}

#[tokio::test]
async fn late_reports_do_not_make_the_archive_grow_without_end() {
    let bed = Bed::new();
    let question = bed.incoming("+491", "?").await;
    let mut answers = Vec::new();
    for number in 0..40 {
        let text = format!("{number} {}", "z".repeat(60));
        let id = bed
            .store
            .insert_outgoing(outgoing(question.conversation, &text))
            .await
            .unwrap();
        bed.store.start_attempt(id, at(1)).await.unwrap();
        bed.store.finish_attempt(id, Attempt::Sent, false).await.unwrap();
        answers.push(id);
    }
    bed.drain_uplink().await;
    assert_eq!(bed.maintain(at(DAY)).await.packed, 41);
    for status in [DeviceStatus::Delivered, DeviceStatus::Read] {
        for id in &answers {
            let report = StatusReport {
                channel: channel(),
                of: StatusTarget::Id(*id),
                status: status.clone(),
            };
            assert_eq!(
                bed.store.apply_status(report).await.unwrap(),
                StatusApplied::Applied(*id)
            );
        }
        bed.drain_uplink().await;
        bed.maintain(at(DAY)).await;
    }
    let bed = bed.restart().await;
    for id in &answers {
        assert_eq!(
            bed.message(*id).state,
            DeliveryState::Outgoing(OutgoingState::Read)
        );
    }
    assert!(bed.archived_bytes() < 80_000, "{}", bed.archived_bytes());
}

#[tokio::test]
async fn packing_waits_while_the_archive_refuses_and_goes_on_afterwards() {
    let bed = Bed::new();
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(bed.incoming("+491", &format!("{number}")).await);
    }
    bed.drain_uplink().await;
    // A folder that is not there refuses like a disk that is full.
    let folder = bed.dir.path().join("archive");
    std::fs::remove_dir(&folder).unwrap();
    assert_eq!(bed.maintain(at(DAY)).await.packed, 0);
    assert!(bed.store.failed().borrow().is_none());
    ids.push(bed.incoming("+491", "20").await);
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(bed.message(*id).text, format!("{number}"));
    }
    bed.drain_uplink().await;
    std::fs::create_dir(&folder).unwrap();
    assert_eq!(bed.maintain(at(DAY)).await.packed, 21);
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(bed.message(*id).text, format!("{number}"));
    }
}

#[tokio::test]
async fn a_file_number_that_the_tree_lost_is_not_used_again() {
    let bed = Bed::new();
    let ids = bed.packed(2, 20).await;
    let dir = bed.close().await;
    // Something with the next number lies there already.
    std::fs::write(dir.path().join("archive").join("00000007"), b"left behind").unwrap();
    let bed = open(dir);
    bed.packed(40, 2000).await;
    assert!(
        bed.archive().iter().all(|path| !path.ends_with("00000007")),
        "it is removed"
    );
    assert!(bed.archive().iter().any(|path| path.ends_with("00000008")));
    assert_eq!(bed.texts(ids[0].conversation).len(), 10 + 50);
}
