//! Behaviour of the store through its public surface.

mod archiving;
mod delivery;
mod doubting;
mod holding;
mod keeping;
mod layout;
mod model;
mod people;
mod refusing;
mod renewing;
mod rescuing;
mod shortening;

use std::collections::{BTreeMap, HashSet};

use tempfile::TempDir;

use super::*;
use crate::domain::{DedupKey, Message};

/// 2026-03-01T09:00:00Z.
const NOW: i64 = 1_772_355_600_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_ms(NOW + seconds * 1000)
}

fn channel() -> ChannelId {
    "office".parse().unwrap()
}

fn address(text: &str) -> Address {
    Address::new(text).unwrap()
}

fn received(from: &str, text: &str) -> ReceivedMessage {
    ReceivedMessage {
        channel: channel(),
        from: address(from),
        from_name: None,
        group: None,
        text: text.to_owned(),
        device_time: None,
        received_at: at(0),
        dedup: None,
        route: BTreeMap::new(),
        attachments: Vec::new(),
    }
}

fn with_id(mut m: ReceivedMessage, id: &str) -> ReceivedMessage {
    m.dedup = Some(DedupKey::DeviceId(id.to_owned()));
    m
}

fn outgoing(conversation: ConversationId, text: &str) -> NewOutgoing {
    NewOutgoing {
        channel: channel(),
        conversation,
        text: text.to_owned(),
        attachments: Vec::new(),
        now: at(0),
        announce: false,
    }
}

struct Bed {
    dir: TempDir,
    store: Store,
}

fn options(dir: &TempDir) -> Options {
    Options {
        disk_reserve: 1 << 20,
        ..Options::new(dir.path())
    }
}

impl Bed {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = Store::open(options(&dir)).unwrap();
        Self { dir, store }
    }

    async fn restart(self) -> Self {
        let Self { dir, store } = self;
        store.close().await;
        drop(store);
        let store = Store::open(options(&dir)).unwrap();
        Self { dir, store }
    }

    async fn incoming(&self, from: &str, text: &str) -> MessageId {
        match self.store.insert_incoming(received(from, text)).await.unwrap() {
            Inserted::New(id) => id,
            Inserted::Duplicate(id) => panic!("{id} is a duplicate"),
        }
    }

    fn message(&self, id: MessageId) -> Message {
        self.store.reader().message(id).unwrap().unwrap().1
    }

    fn texts(&self, id: ConversationId) -> Vec<String> {
        let view = self
            .store
            .reader()
            .conversation(id, 10_000, None)
            .unwrap()
            .unwrap();
        view.messages.into_iter().map(|m| m.text).collect()
    }

    fn heads(&self, queue: Queue) -> Vec<MessageId> {
        self.store
            .heads(queue, None, &HashSet::new(), 100)
            .iter()
            .map(Head::message)
            .collect()
    }

    /// Rounds of maintenance until there is nothing left to do.
    async fn maintain(&self, now: Timestamp) -> Maintenance {
        let mut sum = Maintenance::default();
        for _ in 0..1000 {
            let round = self.store.maintain(now).await.unwrap();
            sum.packed += round.packed;
            sum.removed += round.removed;
            sum.expired_keys += round.expired_keys;
            sum.orphans += round.orphans;
            sum.moved += round.moved;
            sum.renewed += round.renewed;
            if !round.more {
                return sum;
            }
        }
        panic!("maintenance never ends");
    }

    /// Delivers everything that waits for the uplink, in order; returns the messages.
    async fn drain_uplink(&self) -> Vec<(MessageId, UplinkKind)> {
        let mut delivered = Vec::new();
        while let Some(head) = self.heads(Queue::ToUplink).first() {
            let item = self
                .store
                .reader()
                .uplink_item(head.conversation)
                .unwrap()
                .unwrap();
            assert_eq!(item.message.id, *head);
            delivered.push((*head, item.kind));
            self.store.uplink_done(*head, item.revision).await.unwrap();
        }
        delivered
    }
}
