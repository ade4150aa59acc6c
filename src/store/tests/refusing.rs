//! When the store takes nothing in: a failed sync, too much that waits.

use super::*;

/// Inserts until the answer is as wanted, and returns how many messages were taken in.
async fn insert_until(bed: &Bed, wanted: fn(&Result<Inserted, StoreError>) -> bool) -> u64 {
    for taken in 0..10_000 {
        let result = bed
            .store
            .insert_incoming(received("+491", &"x".repeat(936)))
            .await;
        if wanted(&result) {
            return taken;
        }
        // The disk is asked at most every few milliseconds.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("it never came");
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_until_the_store_is_opened_again() {
    let dir = TempDir::new().unwrap();
    let mut opened = open::open(options(&dir), true).unwrap();
    // A device that refuses to be synced.
    opened.generation.file = Arc::new(File::open("/dev/null").unwrap());
    let store = Store::start(opened).unwrap();
    let bed = Bed { dir, store };
    let mut failed = bed.store.failed();
    assert_eq!(*failed.borrow_and_update(), None);
    for attempt in 0..2 {
        let message = with_id(received("+491", "hello"), "1");
        let result = bed.store.insert_incoming(message).await;
        let Err(error) = result else {
            panic!("acknowledged at attempt {attempt}: {result:?}");
        };
        assert!(error.requires_stop() && error.refuses_hardware(), "{error}");
    }
    assert!(failed.has_changed().unwrap());
    let reason = failed.borrow_and_update().clone().unwrap();
    assert!(reason.contains("the sync to disk failed"), "{reason}");
    assert!(
        bed.heads(Queue::ToUplink).is_empty(),
        "what is not acknowledged is not delivered"
    );
    let bed = bed.restart().await;
    assert_eq!(*bed.store.failed().borrow(), None);
    // The device offers it again. It may have reached the disk all the same: once, not twice.
    let message = with_id(received("+491", "hello"), "1");
    let id = bed.store.insert_incoming(message).await.unwrap().id();
    assert_eq!(bed.texts(id.conversation), ["hello"]);
    assert_eq!(bed.heads(Queue::ToUplink), [id]);
}

#[tokio::test]
async fn when_too_much_waits_the_hardware_keeps_its_messages_until_some_are_delivered() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(Options {
        retain_bytes: 100_000,
        ..options(&dir)
    })
    .unwrap();
    let bed = Bed { dir, store };
    let taken = insert_until(&bed, |result| *result == Err(StoreError::NoSpace)).await;
    assert!(taken >= 100, "refused after {taken} messages of 1000 bytes");
    let space = *bed.store.space().borrow();
    assert!(
        matches!(space, Space::TooMuchQueued { queued, allowed: 100_000 } if queued > 100_000),
        "{space:?}"
    );
    let waits = bed.store.counts().queued.uplink_messages;
    assert_eq!(waits, taken, "what waits is kept");
    assert_eq!(bed.drain_uplink().await.len() as u64, taken);
    insert_until(&bed, Result::is_ok).await;
    assert_eq!(*bed.store.space().borrow(), Space::Enough);
}
