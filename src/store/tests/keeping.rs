//! Packing, retention, files, paging, damage, a second process.

use proptest::prelude::*;

use super::*;
use crate::domain::{DeliveryState, DeviceStatus, OutgoingState, ReceivedAttachment, StatusTarget};

pub(super) const DAY: i64 = 24 * 60 * 60;

impl Bed {
    fn files(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("attachments"))
            .unwrap()
            .count()
    }
}

fn open_with(dir: TempDir, change: impl FnOnce(&mut Options)) -> Bed {
    let mut options = options(&dir);
    change(&mut options);
    Bed {
        store: Store::open(options).unwrap(),
        dir,
    }
}

#[tokio::test]
async fn packing_changes_nothing_that_a_reader_sees() {
    let bed = Bed::new();
    let mut ids = Vec::new();
    for number in 0..150 {
        let text = format!("message {number} {}", "x".repeat(number % 90));
        ids.push(
            bed.incoming(if number % 3 == 0 { "+491" } else { "+492" }, &text)
                .await,
        );
    }
    bed.drain_uplink().await;
    let last = bed.incoming("+491", "waits").await;
    let before: Vec<_> = ids.iter().map(|id| bed.message(*id)).collect();
    let texts = bed.texts(ids[0].conversation);
    let counts = bed.store.counts();
    let done = bed.maintain(at(2 * DAY)).await;
    assert_eq!(done.packed, 150);
    assert_eq!(done.removed, 0);
    let bed = bed.restart().await;
    assert_eq!(ids.iter().map(|id| bed.message(*id)).collect::<Vec<_>>(), before);
    assert_eq!(bed.texts(ids[0].conversation), texts);
    assert_eq!(bed.store.counts(), counts);
    assert_eq!(bed.heads(Queue::ToUplink), [last]);
    let unknown = MessageId {
        sequence: crate::domain::Sequence(9999),
        ..ids[0]
    };
    assert!(bed.store.reader().message(unknown).unwrap().is_none());
    assert_eq!(
        bed.maintain(at(2 * DAY)).await.packed,
        0,
        "what waits is not packed, the rest is done"
    );
    bed.drain_uplink().await;
    assert_eq!(bed.maintain(at(2 * DAY)).await.packed, 1);
    assert_eq!(bed.texts(ids[0].conversation), texts);
}

#[tokio::test]
async fn a_report_for_a_packed_message_still_changes_it() {
    let bed = Bed::new();
    let question = bed.incoming("+491", "?").await;
    let answer = bed
        .store
        .insert_outgoing(outgoing(question.conversation, "yes"))
        .await
        .unwrap();
    bed.store.start_attempt(answer, at(1)).await.unwrap();
    bed.store
        .finish_attempt(answer, Attempt::Sent, false)
        .await
        .unwrap();
    bed.drain_uplink().await;
    assert_eq!(bed.maintain(at(DAY)).await.packed, 2);
    let of = StatusTarget::Recipient {
        address: address("+491"),
        text: None,
        not_before: at(0),
    };
    let report = StatusReport {
        channel: channel(),
        of,
        status: DeviceStatus::Delivered,
    };
    assert_eq!(
        bed.store.apply_status(report).await.unwrap(),
        StatusApplied::Applied(answer)
    );
    assert_eq!(
        bed.message(answer).state,
        DeliveryState::Outgoing(OutgoingState::Delivered)
    );
    assert_eq!(bed.drain_uplink().await, [(answer, UplinkKind::Status)]);
    assert_eq!(bed.texts(question.conversation), ["yes", "?"]);
}

#[tokio::test]
async fn old_messages_go_with_their_files_but_never_those_that_wait() {
    let bed = Bed::new();
    let file = || ReceivedAttachment {
        name: "photo.jpg".to_owned(),
        mime: "image/jpeg".to_owned(),
        bytes: vec![7; 1000],
    };
    let mut old = received("+491", "old");
    old.attachments = vec![file()];
    let old = bed.store.insert_incoming(old).await.unwrap().id();
    bed.drain_uplink().await;
    let mut waits = received("+492", "waits");
    waits.attachments = vec![file()];
    let waits = bed.store.insert_incoming(waits).await.unwrap().id();
    let mut recent = received("+491", "recent");
    recent.received_at = at(300 * DAY);
    let recent = bed.store.insert_incoming(recent).await.unwrap().id();
    let mut later = received("+493", "later");
    later.received_at = at(400 * DAY);
    bed.store.insert_incoming(later).await.unwrap();
    assert_eq!(bed.files(), 2);
    assert_eq!(bed.maintain(at(360 * DAY)).await.removed, 0);
    let done = bed.maintain(at(400 * DAY)).await;
    assert_eq!(done.removed, 1);
    assert!(bed.store.reader().message(old).unwrap().is_none());
    assert_eq!(bed.message(waits).text, "waits");
    assert_eq!(bed.message(recent).text, "recent");
    assert_eq!(bed.files(), 1);
    assert_eq!(bed.store.counts().messages, 3);
}

#[tokio::test]
async fn when_the_sum_of_bytes_is_too_large_the_oldest_go_first() {
    let bed = open_with(TempDir::new().unwrap(), |o| o.retain_bytes = 400_000);
    let mut ids = Vec::new();
    for number in 0..2000 {
        let from = format!("+49{}", number % 40);
        ids.push(bed.incoming(&from, &"x".repeat(236)).await);
        if number % 100 == 99 {
            bed.drain_uplink().await;
        }
    }
    assert_eq!(bed.store.counts().logical_bytes, 600_000);
    let done = bed.maintain(at(DAY)).await;
    let counts = bed.store.counts();
    assert!(done.removed > 0 && counts.logical_bytes <= 400_000, "{counts:?}");
    assert!(
        counts.logical_bytes > 250_000,
        "not more than necessary: {counts:?}"
    );
    assert_eq!(counts.messages, 2000 - done.removed);
    let kept: Vec<bool> = ids
        .iter()
        .map(|id| bed.store.reader().message(*id).unwrap().is_some())
        .collect();
    assert!(kept.is_sorted(), "the oldest went first");
    assert_eq!(kept.iter().filter(|kept| **kept).count() as u64, counts.messages);
}

#[tokio::test]
async fn a_long_text_comes_back_whole_and_goes_with_its_conversation() {
    let bed = Bed::new();
    let text = "grüße ".repeat(5000);
    let id = bed.incoming("+491", &text).await;
    assert_eq!(bed.message(id).text, text);
    let answer = bed
        .store
        .insert_outgoing(outgoing(id.conversation, &text))
        .await
        .unwrap();
    assert_eq!(
        bed.store
            .start_attempt(answer, at(1))
            .await
            .unwrap()
            .unwrap()
            .text,
        text
    );
    assert_eq!(bed.files(), 2);
    assert!(bed.store.delete_conversation(id.conversation).await.unwrap());
    assert!(!bed.store.delete_conversation(id.conversation).await.unwrap());
    assert_eq!(bed.files(), 0);
    assert!(
        bed.store
            .reader()
            .conversation(id.conversation, 1, None)
            .unwrap()
            .is_none()
    );
    assert_eq!(bed.store.counts().queued, ChannelCounts::default());
    assert_eq!(bed.store.counts().messages, 0);
    let again = bed.incoming("+491", "me again").await;
    assert_ne!(again.conversation, id.conversation);
}

#[tokio::test]
async fn a_file_that_no_message_names_is_removed_and_one_being_written_is_not() {
    let bed = Bed::new();
    let mut named = received("+491", "look");
    named.attachments = vec![ReceivedAttachment {
        name: "a".into(),
        mime: "b/c".into(),
        bytes: vec![1],
    }];
    let named = bed.store.insert_incoming(named).await.unwrap().id();
    let folder = bed.dir.path().join("attachments");
    let left_behind = crate::domain::AttachmentId(7);
    std::fs::write(folder.join(left_behind.to_string()), b"x").unwrap();
    std::fs::write(
        folder.join(format!("{}.part", crate::domain::AttachmentId(8))),
        b"x",
    )
    .unwrap();
    let mut writer = bed.store.stage_attachment("b", "text/plain").await.unwrap();
    writer.write_all(b"hello").await.unwrap();
    assert_eq!(bed.maintain(at(0)).await.orphans, 2);
    let staged = writer.finish().await.unwrap();
    let mut order = outgoing(named.conversation, "");
    let file = staged.id();
    order.attachments.push(staged);
    bed.store.insert_outgoing(order).await.unwrap();
    let (attachment, path) = bed.store.reader().attachment(file).unwrap().unwrap();
    assert_eq!(
        (attachment.size, std::fs::read(path).unwrap()),
        (5, b"hello".to_vec())
    );
    let mut dropped = bed.store.stage_attachment("c", "text/plain").await.unwrap();
    dropped.write_all(b"x").await.unwrap();
    drop(dropped);
    assert_eq!(bed.files(), 2);
}

#[tokio::test]
async fn a_deduplication_key_is_forgotten_after_thirty_days() {
    let bed = Bed::new();
    bed.store
        .insert_incoming(with_id(received("+491", "ok"), "1"))
        .await
        .unwrap();
    assert_eq!(bed.maintain(at(29 * DAY)).await.expired_keys, 0);
    assert_eq!(bed.maintain(at(31 * DAY)).await.expired_keys, 1);
    let again = bed
        .store
        .insert_incoming(with_id(received("+491", "ok"), "1"))
        .await
        .unwrap();
    assert!(matches!(again, Inserted::New(_)));
}

#[tokio::test]
async fn only_the_newest_thousand_unreadable_records_are_kept() {
    let bed = Bed::new();
    for number in 0..1003 {
        let record = Unmapped {
            device: "d".into(),
            source: "t".into(),
            payload: vec![b'x'; 5000],
            reason: format!("reason {number}"),
            received_at: at(number),
        };
        bed.store.insert_unmapped(record).await.unwrap();
    }
    let records = bed.store.reader().unmapped(2000).unwrap();
    assert_eq!(records.len(), 1000);
    assert_eq!(records[0].reason, "reason 1002");
    assert_eq!(records[0].payload.len(), Unmapped::MAX_PAYLOAD);
    assert_eq!(bed.store.counts().unmapped, 1000);
}

#[tokio::test]
async fn groups_name_their_writers_and_conversations_page_by_activity() {
    let bed = Bed::new();
    for (writer, name) in [("+491", Some("Ada")), ("+492", None), ("+491", None)] {
        let mut m = received(writer, "hi all");
        m.group = Some(address("team"));
        m.from_name = name.map(str::to_owned);
        bed.store.insert_incoming(m).await.unwrap();
    }
    for number in 0..5 {
        bed.incoming(&format!("+50{number}"), "x").await;
    }
    let reader = bed.store.reader();
    let (first, cursor) = reader.conversations(&channel(), 4, None, 1).unwrap();
    bed.incoming("team", "the group itself writes").await;
    let (second, end) = reader.conversations(&channel(), 4, cursor, 1).unwrap();
    let seen: Vec<_> = first
        .iter()
        .chain(&second)
        .map(|v| v.address.as_str().to_owned())
        .collect();
    assert_eq!(
        seen,
        ["+504", "+503", "+502", "+501", "+500"],
        "what moved up is missed, never repeated"
    );
    assert_eq!(end, None);
    let (page, _) = reader.conversations(&channel(), 1, None, 10).unwrap();
    let names: Vec<_> = page[0].participants.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["Ada", "+492", "team"]);
    let (of, who) = reader.participant(&page[0].participants[1].id).unwrap().unwrap();
    assert_eq!((of, who.name.as_str()), (channel(), "+492"));
    assert!(!page[0].seen);
    assert!(bed.store.mark_seen(page[0].id).await.unwrap());
    assert!(reader.conversation(page[0].id, 0, None).unwrap().unwrap().seen);
    assert_eq!(
        reader
            .conversations(&"other".parse().unwrap(), 1, None, 1)
            .unwrap()
            .0
            .len(),
        0
    );
}

#[tokio::test]
async fn a_second_process_is_told_who_has_the_store() {
    let bed = Bed::new();
    let error = Store::open(options(&bed.dir)).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "{} is in use by another pipepost (pid {})",
            bed.dir.path().display(),
            std::process::id()
        )
    );
    let empty = TempDir::new().unwrap();
    let missing = Store::open_existing(options(&empty)).err().unwrap();
    assert!(matches!(missing, OpenError::Missing { .. }));
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn after_close_writes_are_refused_and_the_store_can_be_opened_again() {
    let bed = Bed::new();
    bed.store.close().await;
    assert_eq!(
        bed.store.insert_incoming(received("+491", "x")).await,
        Err(StoreError::Closed)
    );
    bed.restart().await;
}

pub(super) fn tamper(dir: &TempDir, change: impl FnOnce(&sled::Db)) {
    let begun = std::time::Instant::now();
    let db = loop {
        // sled's own threads let go of the file a moment after the last handle.
        match sled::open(dir.path().join("store")) {
            Ok(db) => break db,
            Err(error) => assert!(begun.elapsed().as_secs() < 5, "{error}"),
        }
    };
    change(&db);
    db.flush().unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_in_words() {
    let Bed { dir, store } = Bed::new();
    store.close().await;
    drop(store);
    tamper(&dir, |db| {
        drop(db.insert(keys::SCHEMA, &99_u32.to_be_bytes()).unwrap());
    });
    let error = Store::open(options(&dir)).err().unwrap();
    assert!(
        error
            .to_string()
            .contains("was written by a newer pipepost (schema 99"),
        "{error}"
    );
}

#[tokio::test]
async fn a_store_of_schema_1_is_migrated_and_still_recognises_repeats() {
    let bed = Bed::new();
    let first = bed
        .store
        .insert_incoming(with_id(received("+491", "ok"), "17"))
        .await
        .unwrap();
    let Bed { dir, store } = bed;
    store.close().await;
    drop(store);
    // Schema 1: a deduplication key says the message, and no time.
    tamper(&dir, |db| {
        let old = records::encode(&records::Known::from(first.id())).unwrap();
        let key = tx::Source::scan(&**db, keys::all(b'D'))
            .next()
            .unwrap()
            .unwrap()
            .0;
        db.insert(key, old).unwrap();
        db.insert(keys::SCHEMA, &1_u32.to_be_bytes()).unwrap();
    });
    let bed = Bed {
        store: Store::open(options(&dir)).unwrap(),
        dir,
    };
    let again = bed
        .store
        .insert_incoming(with_id(received("+491", "ok"), "17"))
        .await
        .unwrap();
    assert_eq!(again, Inserted::Duplicate(first.id()));
    assert_eq!(bed.maintain(at(29 * DAY)).await.expired_keys, 0);
    assert_eq!(bed.maintain(at(31 * DAY)).await.expired_keys, 1);
    bed.restart().await;
}

#[tokio::test]
async fn a_damaged_record_is_an_error_and_the_rest_stays_readable() {
    let bed = Bed::new();
    let one = bed.incoming("+491", "one").await;
    let two = bed.incoming("+492", "two").await;
    let Bed { dir, store } = bed;
    store.close().await;
    drop(store);
    tamper(&dir, |db| {
        db.insert(
            keys::live(one),
            b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        )
        .unwrap();
    });
    let bed = Bed {
        store: Store::open(options(&dir)).unwrap(),
        dir,
    };
    assert!(matches!(
        bed.store.reader().message(one),
        Err(StoreError::Corrupt(_))
    ));
    assert_eq!(bed.message(two).text, "two");
    bed.incoming("+491", "goes on").await;
}

#[tokio::test]
async fn a_damaged_conversation_does_not_keep_its_customer_from_writing() {
    let bed = Bed::new();
    let old = bed.incoming("+491", "one").await;
    let dir = bed.dir;
    bed.store.close().await;
    drop(bed.store);
    tamper(&dir, |db| {
        db.insert(keys::conversation(old.conversation), b"\x01\xff")
            .unwrap();
    });
    let bed = Bed {
        store: Store::open(options(&dir)).unwrap(),
        dir,
    };
    let new = bed.incoming("+491", "two").await;
    assert_ne!(new.conversation, old.conversation);
    assert_eq!(bed.incoming("+491", "three").await.conversation, new.conversation);
    let (views, _) = bed
        .store
        .reader()
        .conversations(&channel(), 10, None, 10)
        .unwrap();
    assert_eq!(views.len(), 1);
    assert_eq!(bed.texts(new.conversation), ["three", "two"]);
    bed.maintain(at(2 * DAY)).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn paging_backwards_neither_skips_nor_repeats_while_new_ones_arrive(
        before in 1_usize..60, page in 1_usize..9, during in 0_usize..3, pack_at in 0_usize..6, size in 0_usize..400,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bed = Bed::new();
            let mut sent = Vec::new();
            for number in 0..before {
                sent.push(bed.incoming("+491", &format!("{number} {}", "y".repeat(size))).await);
            }
            let conversation = sent[0].conversation;
            bed.drain_uplink().await;
            let (mut seen, mut cursor, mut pages) = (Vec::new(), None, 0);
            loop {
                if pages == pack_at {
                    bed.maintain(at(DAY)).await;
                }
                let view = bed.store.reader().conversation(conversation, page, cursor).unwrap().unwrap();
                seen.extend(view.messages.iter().map(|m| m.id));
                for _ in 0..during {
                    bed.incoming("+491", "new").await;
                }
                pages += 1;
                cursor = view.next;
                if cursor.is_none() {
                    break;
                }
            }
            sent.reverse();
            assert_eq!(seen, sent);
        });
    }
}
