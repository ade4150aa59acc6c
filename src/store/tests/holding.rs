//! What nobody waits for goes along with the next write.

use super::*;

impl Bed {
    /// Whether the queue's entry is in the tree itself.
    fn is_written(&self, id: MessageId) -> bool {
        let tree = self.store.inner.shared.tree();
        tree.get(keys::entry(Queue::ToUplink, id)).unwrap().is_some()
    }

    /// Every batch has a revision of its own, and every entry of a queue.
    fn revision(&self) -> u64 {
        self.store.inner.shared.head().revision
    }

    async fn done(&self, id: MessageId) {
        let item = self.store.reader().uplink_item_of(id).unwrap().unwrap();
        self.store.uplink_done(id, item.revision).await.unwrap();
    }

    fn queued(&self) -> Vec<MessageId> {
        let queued = self.store.reader().queued(Queue::ToUplink, 1000).unwrap();
        queued.into_iter().map(|entry| entry.message).collect()
    }
}

#[tokio::test]
async fn an_outcome_shows_at_once_and_is_written_with_the_next_message() {
    let bed = Bed::new();
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(bed.incoming(&format!("+49{number}"), "hello").await);
    }
    let before = bed.revision();
    bed.done(ids[2]).await;
    assert!(bed.is_written(ids[2]), "nothing was written for it");
    assert_eq!(bed.revision(), before);
    assert_eq!(bed.store.counts().queued.uplink_messages, 4);
    assert_eq!(bed.heads(Queue::ToUplink), [ids[0], ids[1], ids[3], ids[4]]);
    let mut left = bed.queued();
    left.sort_by_key(|id| id.sequence);
    assert_eq!(left, [ids[0], ids[1], ids[3], ids[4]]);
    assert!(bed.store.reader().uplink_item_of(ids[2]).unwrap().is_none());
    let known = |id| {
        bed.store
            .reader()
            .uplink_item_of(id)
            .unwrap()
            .unwrap()
            .known_to_pipedrive
    };
    assert!(!known(ids[0]));
    let next = bed.incoming("+492", "again").await;
    assert!(!bed.is_written(ids[2]));
    assert_eq!(bed.revision(), before + 2, "an entry, and one batch for both");
    assert!(known(next), "what was held was not lost under the new message");
    assert_eq!(bed.heads(Queue::ToUplink), [ids[0], ids[1], ids[3], ids[4], next]);
}

#[tokio::test]
async fn what_is_held_survives_a_stop() {
    let bed = Bed::new();
    let first = bed.incoming("+491", "hello").await;
    let second = bed.incoming("+492", "hello").await;
    bed.done(first).await;
    assert!(bed.store.mark_seen(second.conversation).await.unwrap());
    let seen = |bed: &Bed| {
        let reader = bed.store.reader();
        let view = reader
            .conversation(second.conversation, 1, None)
            .unwrap()
            .unwrap();
        view.seen
    };
    assert!(seen(&bed));
    let bed = bed.restart().await;
    assert_eq!(bed.heads(Queue::ToUplink), [second]);
    assert_eq!(bed.store.counts().queued.uplink_messages, 1);
    assert!(seen(&bed));
}

#[tokio::test]
async fn not_more_than_some_hundred_are_held() {
    let bed = Bed::new();
    let mut ids = Vec::new();
    for number in 0..400 {
        ids.push(bed.incoming(&format!("+49{number}"), "hello").await);
    }
    for (done, id) in ids.iter().enumerate() {
        bed.done(*id).await;
        let written = ids.iter().filter(|id| !bed.is_written(**id)).count();
        assert!(done + 1 - written <= 256, "{written} of {} are written", done + 1);
    }
    assert!(bed.queued().is_empty());
}
