//! The database is written anew: at each step of that a crash, writes, reads and a full disk change nothing.

use std::path::{Path, PathBuf};

use super::archiving::copy;
use super::keeping::DAY;
use super::*;

/// Folders of databases, and where the link leads.
fn folders(dir: &Path) -> (Vec<PathBuf>, PathBuf) {
    let mut found: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("store@"))
        .collect();
    found.sort();
    (found, dir.join(std::fs::read_link(dir.join("store")).unwrap()))
}

/// Everything in the tree but the counter that only a copy has.
pub(super) fn everything(store: &Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    use tx::Source;
    store
        .inner
        .shared
        .scan((Vec::new(), vec![u8::MAX]))
        .map(Result::unwrap)
        .filter(|(key, _)| key.as_ref() != keys::RENEWED)
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect()
}

impl Bed {
    pub(super) fn force(&self) {
        shared::lock(&self.store.inner.shared.progress).renewal.forced = true;
    }

    /// One step of whatever maintenance has to do. Returns whether the database was written anew with it.
    pub(super) async fn step(&self) -> bool {
        self.store.maintain(at(0)).await.unwrap().renewed > 0
    }

    async fn renew(&self) {
        self.force();
        for _ in 0..10_000 {
            if self.step().await {
                return;
            }
        }
        panic!("it never ends");
    }

    fn folders(&self) -> (Vec<PathBuf>, PathBuf) {
        folders(self.dir.path())
    }
}

/// A store as a crash would leave it now.
fn crashed(bed: &Bed) -> Bed {
    let dir = TempDir::new().unwrap();
    copy(bed.dir.path(), &dir.path().join("state"));
    let mut options = options(&dir);
    options.state_dir = dir.path().join("state");
    Bed {
        store: Store::open(options).unwrap(),
        dir,
    }
}

#[tokio::test]
async fn a_crash_at_any_step_leaves_what_was_acknowledged_and_one_database() {
    let bed = Bed::new();
    let mut ids = Vec::new();
    for number in 0..150 {
        ids.push(bed.incoming(&format!("+49{}", number % 20), "before").await);
    }
    bed.force();
    let first = bed.folders().1;
    let (mut steps, mut switched) = (0, 0);
    let mut done = false;
    while !done {
        done = bed.step().await;
        // At each step one comes, one is delivered, one conversation goes.
        ids.push(bed.incoming(&format!("+49{}", steps % 23), "during").await);
        let head = bed.heads(Queue::ToUplink)[0];
        let item = bed
            .store
            .reader()
            .uplink_item(head.conversation)
            .unwrap()
            .unwrap();
        bed.store.uplink_done(head, item.revision).await.unwrap();
        if steps % 3 == 0 {
            let gone = ids[steps].conversation;
            bed.store.delete_conversation(gone).await.unwrap();
        }
        // What is written with a delay is synced with this one.
        ids.push(bed.incoming("+50", "synced").await);
        let after = crashed(&bed);
        assert_eq!(everything(&after.store), everything(&bed.store), "step {steps}");
        assert_eq!(after.store.counts(), bed.store.counts());
        let (found, used) = folders(&after.dir.path().join("state"));
        assert_eq!(found, [used], "leftovers are removed at the start");
        // It goes on from there.
        after.incoming("+51", "afterwards").await;
        switched += usize::from(bed.folders().1 != first);
        steps += 1;
        assert!(steps < 1000, "it never ends");
    }
    assert!(
        steps > 6 && switched > 1 && switched < steps,
        "{switched} of {steps}"
    );
    let (found, used) = bed.folders();
    assert_eq!(found, [used], "the old one is removed");
    for id in &ids {
        if let Some((_, message)) = bed.store.reader().message(*id).unwrap() {
            assert!(["before", "during", "synced"].contains(&message.text.as_str()));
        }
    }
    let before = everything(&bed.store);
    let bed = bed.restart().await;
    assert_eq!(everything(&bed.store), before);
}

#[tokio::test]
async fn readers_and_writers_notice_nothing_when_the_database_is_replaced() {
    let bed = Bed::new();
    let mut ids = Vec::new();
    for number in 0..600 {
        ids.push(
            bed.incoming(&format!("+49{}", number % 3), &format!("{number}"))
                .await,
        );
    }
    bed.drain_uplink().await;
    bed.maintain(at(DAY)).await;
    let conversation = ids[0].conversation;
    let expected = bed.texts(conversation);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let reads = {
        let (stop, reader) = (Arc::clone(&stop), bed.store.reader());
        std::thread::spawn(move || {
            let mut read = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) || read == 0 {
                let view = reader.conversation(conversation, 10_000, None).unwrap().unwrap();
                let texts: Vec<_> = view.messages.into_iter().map(|m| m.text).collect();
                assert!(texts == expected);
                let (views, _) = reader.conversations(&channel(), 100, None, 1).unwrap();
                assert!(views.len() >= 3);
                read += 1;
            }
            read
        })
    };
    let writes = {
        let (stop, store) = (Arc::clone(&stop), bed.store.clone());
        tokio::spawn(async move {
            let mut written = Vec::new();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let text = format!("new {}", written.len());
                written.push(store.insert_incoming(received("+48", &text)).await.unwrap().id());
            }
            written
        })
    };
    for _ in 0..5 {
        let before = bed.folders().1;
        bed.renew().await;
        assert_ne!(bed.folders().1, before);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let written = writes.await.unwrap();
    assert!(reads.join().unwrap() > 0 && written.len() > 5);
    let bed = bed.restart().await;
    for (number, id) in written.iter().enumerate() {
        assert_eq!(bed.message(*id).text, format!("new {number}"));
    }
    assert_eq!(bed.texts(conversation).len(), 200);
}

#[tokio::test]
async fn a_file_that_has_become_large_is_written_anew_once() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(Options {
        renew_bytes: 4 << 20,
        ..options(&dir)
    })
    .unwrap();
    let bed = Bed { dir, store };
    let size = || bed.dir.path().join("store").join("db").metadata().unwrap().len();
    let mut number = 0;
    while size() < 4 << 20 {
        let text = format!("{number} {}", "x".repeat(2000));
        bed.incoming(&format!("+49{}", number % 5), &text).await;
        bed.drain_uplink().await;
        number += 1;
        assert!(number < 20_000);
    }
    let mut before = size();
    // The first round packs, which writes too.
    let mut sum = 0;
    for _ in 0..10_000 {
        let round = bed.store.maintain(at(DAY)).await.unwrap();
        sum += round.renewed;
        if !round.more {
            break;
        }
        before = before.max(size());
    }
    assert_eq!(sum, 1);
    assert!(size() < before / 2, "{} of {before}", size());
    assert_eq!(bed.maintain(at(DAY)).await.renewed, 0);
    assert_eq!(bed.store.counts().messages, number);
}

#[tokio::test]
async fn the_folder_of_an_older_store_becomes_the_first_one_also_when_that_was_cut_off() {
    let bed = Bed::new();
    let id = bed.incoming("+491", "old").await;
    let dir = bed.dir.path().to_owned();
    let used = bed.folders().1;
    let reopen = |bed: Bed| async {
        let Bed { dir, store } = bed;
        store.close().await;
        drop(store);
        dir
    };
    let temp = reopen(bed).await;
    // As it was before there were links.
    std::fs::remove_file(dir.join("store")).unwrap();
    std::fs::rename(&used, dir.join("store")).unwrap();
    let store = Store::open_existing(options(&temp)).unwrap();
    let bed = Bed { dir: temp, store };
    assert_eq!(bed.message(id).text, "old");
    assert_eq!(bed.folders().0, [bed.folders().1]);
    // A second process does not get it, before and after the database was replaced.
    for _ in 0..2 {
        let again = Store::open(options(&bed.dir)).map(drop);
        assert!(matches!(again, Err(OpenError::InUse { .. })), "{again:?}");
        bed.renew().await;
    }
    let temp = reopen(bed).await;
    let used = folders(&dir).1;
    // Renamed, and the link not made yet.
    std::fs::remove_file(dir.join("store")).unwrap();
    std::fs::rename(used, dir.join("store@00000000")).unwrap();
    let store = Store::open_existing(options(&temp)).unwrap();
    let bed = Bed { dir: temp, store };
    assert_eq!(bed.message(id).text, "old");
    bed.renew().await;
    let temp = reopen(bed).await;
    // Nobody knows which one it was: better nothing than an empty store.
    std::fs::remove_file(dir.join("store")).unwrap();
    let error = Store::open(options(&temp)).map(drop).unwrap_err().to_string();
    assert!(error.contains("link"), "{error}");
}

#[tokio::test]
async fn what_a_person_put_beside_the_store_stays() {
    let bed = Bed::new();
    let theirs = ["store-copy", "store@2026", "store@20261123x", "store.bak"];
    for name in theirs {
        std::fs::create_dir(bed.dir.path().join(name)).unwrap();
    }
    bed.renew().await;
    let bed = bed.restart().await;
    for name in theirs {
        assert!(bed.dir.path().join(name).exists(), "{name}");
    }
}

#[tokio::test]
async fn a_copy_that_fails_changes_nothing_and_is_tried_again() {
    let bed = Bed::new();
    let id = bed.incoming("+491", "hello").await;
    let first = bed.folders().1;
    bed.force();
    assert!(!bed.step().await);
    // Its folder disappears under it: it cannot be opened anew as it was.
    let copy = bed.folders().0.into_iter().find(|path| *path != first).unwrap();
    std::fs::remove_dir_all(&copy).unwrap();
    std::fs::write(&copy, b"in the way").unwrap();
    for _ in 0..20 {
        assert!(!bed.step().await);
    }
    assert!(bed.store.failed().borrow().is_none());
    assert_eq!(bed.folders().1, first);
    std::fs::remove_file(&copy).ok();
    bed.incoming("+491", "again").await;
    shared::lock(&bed.store.inner.shared.progress).renewal = renewal::Renewal::default();
    bed.renew().await;
    assert_ne!(bed.folders().1, first);
    let bed = bed.restart().await;
    assert_eq!(bed.message(id).text, "hello");
}
