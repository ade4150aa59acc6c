//! Older layouts, written by hand, become the present one.

use super::keeping::{DAY, tamper};
use super::*;
use crate::domain::{DeliveryState, DeviceStatus, OutgoingState, StatusTarget};

fn items(db: &sled::Db, letter: u8) -> Vec<(sled::IVec, sled::IVec)> {
    tx::Source::scan(&**db, keys::all(letter))
        .map(Result::unwrap)
        .collect()
}

/// Packs as schema 3 had them: under a letter of their own. `which` leaves some as they are.
fn to_schema_3(db: &sled::Db, which: impl Fn(usize) -> bool) {
    let packs = items(db, b'C')
        .into_iter()
        .filter(|(key, _)| keys::message_of(key).is_some());
    for (_, (key, value)) in packs.enumerate().filter(|(index, _)| which(*index)) {
        db.remove(&key).unwrap();
        db.insert([b"P", &key[1..]].concat(), value).unwrap();
    }
    db.insert(keys::SCHEMA, &3_u32.to_be_bytes()).unwrap();
}

/// Keys of a kind as schema 2 had them: rising, packs in the tree and by their last sequence. `which` leaves some as
/// they are.
fn to_schema_2(dir: &TempDir, db: &sled::Db, which: impl Fn(usize) -> bool) {
    to_schema_3(db, &which);
    let archive = archive::Archive::open(archive::folder(dir.path()), db).unwrap();
    for letter in [b'L', b'P', b'U'] {
        for (index, (key, value)) in items(db, letter).into_iter().enumerate() {
            if letter != b'P' && !which(index) {
                continue;
            }
            db.remove(&key).unwrap();
            let (before, number) = key.split_last_chunk::<8>().unwrap();
            if letter == b'P' {
                // They were small.
                for pack in packs::read(&archive, &key, &value).unwrap().chunks(5) {
                    let key = [before, &pack.last().unwrap().0.to_be_bytes()].concat();
                    db.insert(key, records::encode(&pack.to_vec()).unwrap()).unwrap();
                }
            } else {
                let number = !u64::from_be_bytes(*number);
                db.insert([before, &number.to_be_bytes()].concat(), value)
                    .unwrap();
            }
        }
    }
    db.insert(keys::SCHEMA, &2_u32.to_be_bytes()).unwrap();
}

#[tokio::test]
async fn a_store_of_schema_3_is_migrated_also_when_that_was_cut_off_or_it_is_damaged() {
    let mut bed = Bed::new();
    let mut ids = Vec::new();
    for number in 0..900 {
        // Many customers of whom some have several packs.
        let from = if number % 2 == 0 { 7 } else { number % 150 };
        let text = format!("{number} {}", "x".repeat(number % 300));
        ids.push(bed.incoming(&format!("+49{from}"), &text).await);
    }
    bed.drain_uplink().await;
    assert_eq!(bed.maintain(at(DAY)).await.packed, 900);
    ids.push(bed.incoming("+497", "live").await);
    let before: Vec<_> = ids.iter().map(|id| bed.message(*id)).collect();
    let texts = bed.texts(ids[0].conversation);
    let counts = bed.store.counts();
    for (half, damaged) in [(false, false), (true, false), (true, true)] {
        let Bed { dir, store } = bed;
        store.close().await;
        drop(store);
        if damaged {
            rescue::write_notes(dir.path(), 2, "a test").unwrap();
        }
        tamper(&dir, |db| {
            to_schema_3(db, |index| !half || index % 2 == 0);
            assert!(items(db, b'P').len() > 40);
        });
        let store = Store::open(options(&dir)).unwrap();
        bed = Bed { dir, store };
        assert_eq!(ids.iter().map(|id| bed.message(*id)).collect::<Vec<_>>(), before);
        assert_eq!(bed.texts(ids[0].conversation), texts);
        assert_eq!(bed.store.counts(), counts);
    }
    let Bed { dir, store } = bed;
    store.close().await;
    drop(store);
    tamper(&dir, |db| assert_eq!(items(db, b'P').len(), 0));
    // It goes on like any other store: retention, deletion.
    let store = Store::open(options(&dir)).unwrap();
    let bed = Bed { dir, store };
    bed.drain_uplink().await;
    assert!(bed.store.delete_conversation(ids[0].conversation).await.unwrap());
    assert_eq!(
        bed.maintain(at(800 * DAY)).await.removed,
        bed_left(&counts, texts.len())
    );
    assert_eq!(bed.store.counts().messages, 0);
    assert_eq!(bed.store.counts().conversations, 0);
}

#[tokio::test]
async fn a_store_of_schema_2_is_migrated_also_when_that_was_cut_off() {
    let bed = Bed::new();
    let mut ids = Vec::new();
    for number in 0..700 {
        let text = format!("{number} {}", "x".repeat(number % 300));
        ids.push(bed.incoming(&format!("+49{}", number % 3), &text).await);
    }
    bed.drain_uplink().await;
    assert!(bed.maintain(at(DAY)).await.packed >= 700);
    for number in 0..40 {
        ids.push(bed.incoming(&format!("+49{}", number % 3), "live").await);
    }
    let answer = bed
        .store
        .insert_outgoing(outgoing(ids[0].conversation, "yes"))
        .await
        .unwrap();
    for number in 0..5 {
        let record = Unmapped {
            device: "d".into(),
            source: "t".into(),
            payload: vec![b'x'],
            reason: format!("reason {number}"),
            received_at: at(number),
        };
        bed.store.insert_unmapped(record).await.unwrap();
    }
    let before: Vec<_> = ids.iter().map(|id| bed.message(*id)).collect();
    let texts = bed.texts(ids[0].conversation);
    let counts = bed.store.counts();
    let mut bed = bed;
    for half in [false, true] {
        let Bed { dir, store } = bed;
        store.close().await;
        drop(store);
        tamper(&dir, |db| to_schema_2(&dir, db, |index| !half || index % 2 == 0));
        bed = Bed {
            store: Store::open(options(&dir)).unwrap(),
            dir,
        };
        assert_eq!(ids.iter().map(|id| bed.message(*id)).collect::<Vec<_>>(), before);
        assert_eq!(bed.texts(ids[0].conversation), texts);
        let reasons: Vec<_> = bed.store.reader().unmapped(2).unwrap();
        let reasons: Vec<_> = reasons.iter().map(|record| record.reason.as_str()).collect();
        assert_eq!(reasons, ["reason 4", "reason 3"], "newest first");
        assert_eq!(bed.store.counts(), counts);
        assert_eq!(bed.heads(Queue::ToHardware), [answer]);
    }
    // It goes on like any other store: reports, packing, retention, deletion.
    bed.store.start_attempt(answer, at(1)).await.unwrap().unwrap();
    bed.store
        .finish_attempt(answer, Attempt::Sent, false)
        .await
        .unwrap();
    let report = StatusReport {
        channel: channel(),
        of: StatusTarget::Id(answer),
        status: DeviceStatus::Delivered,
    };
    bed.store.apply_status(report).await.unwrap();
    assert_eq!(
        bed.message(answer).state,
        DeliveryState::Outgoing(OutgoingState::Delivered)
    );
    bed.drain_uplink().await;
    assert_eq!(bed.maintain(at(DAY)).await.packed, 41);
    assert_eq!(bed.texts(ids[0].conversation).len(), texts.len());
    assert!(bed.store.delete_conversation(ids[0].conversation).await.unwrap());
    assert_eq!(
        bed.maintain(at(800 * DAY)).await.removed,
        bed_left(&counts, texts.len())
    );
    assert_eq!(bed.store.counts().messages, 0);
}

fn bed_left(before: &Counts, deleted: usize) -> u64 {
    before.messages - u64::try_from(deleted).unwrap()
}

#[tokio::test]
async fn a_conversation_in_which_somebody_writes_seldom_is_not_written_anew_each_time() {
    let bed = Bed::new();
    let mut ids = Vec::new();
    for day in 0..200 {
        let mut m = received("+491", &format!("message {day}"));
        m.received_at = at(day * DAY);
        ids.push(bed.store.insert_incoming(m).await.unwrap().id());
        bed.drain_uplink().await;
        assert_eq!(bed.maintain(at(day * DAY + 7200)).await.packed, 1);
    }
    for (day, id) in ids.iter().enumerate() {
        assert_eq!(bed.message(*id).text, format!("message {day}"));
    }
    assert_eq!(bed.texts(ids[0].conversation).len(), 200);
}
