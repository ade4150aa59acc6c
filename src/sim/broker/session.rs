//! What the broker knows of one client: its subscriptions and what is on the way to it.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use rumqttc::v5::mqttbytes::{QoS, v5};
use tokio::time::Instant;

use super::codec::{Message, Version, Will};
use super::connection::Connection;
use super::faults::{Duplicate, Faults};
use super::stats::Stats;
use super::topic;

/// How far ahead a reordering broker looks.
const REORDER_WINDOW: usize = 64;

/// Options of one subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) qos: QoS,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    pub(super) identifier: Option<usize>,
}

/// A message with the terms on which one subscriber gets it.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) message: Message,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) identifiers: Vec<usize>,
}

impl Delivery {
    fn packet(&self, id: u16, dup: bool) -> v5::Publish {
        let mut properties = self.message.properties.as_deref().cloned();
        if !self.identifiers.is_empty() {
            properties
                .get_or_insert_default()
                .subscription_identifiers
                .clone_from(&self.identifiers);
        }
        let mut publish = v5::Publish::new(
            self.message.topic.as_ref(),
            self.qos,
            self.message.payload.clone(),
            properties,
        );
        publish.retain = self.retain;
        publish.pkid = id;
        publish.dup = dup;
        publish
    }
}

/// A QoS 1 delivery that the client has not acknowledged.
#[derive(Debug)]
struct InFlight {
    id: u16,
    delivery: Delivery,
    /// On the present connection.
    sent: bool,
    /// On an earlier one.
    before: bool,
}

/// State of one client, with or without a connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) version: Version,
    pub(super) subscriptions: BTreeMap<String, Subscription>,
    queue: VecDeque<Delivery>,
    in_flight: VecDeque<InFlight>,
    last_id: u16,
    pub(super) connection: Option<Arc<Connection>>,
    pub(super) receive_maximum: u16,
    pub(super) max_packet: u32,
    /// Seconds that the session outlives its connection.
    pub(super) expiry: u32,
    /// When it ends, if nobody connects.
    pub(super) expires: Option<Instant>,
    pub(super) will: Option<Will>,
    /// When the will is published, if nobody connects.
    pub(super) will_due: Option<Instant>,
}

/// How a session matched a message.
pub(super) struct Match {
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) identifiers: Vec<usize>,
}

impl Session {
    pub(super) fn new(version: Version) -> Self {
        Self {
            version,
            subscriptions: BTreeMap::new(),
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            last_id: 0,
            connection: None,
            receive_maximum: u16::MAX,
            max_packet: u32::MAX,
            expiry: 0,
            expires: None,
            will: None,
            will_due: None,
        }
    }

    /// What waits, without what is unacknowledged.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Everything on the way to the client.
    pub(super) fn pending(&self) -> usize {
        self.queue.len() + self.in_flight.len()
    }

    /// The terms on which the session takes a message: the best of its matching subscriptions (section 3.3.4).
    pub(super) fn matching(&self, message: &Message, own: bool) -> Option<Match> {
        let mut found: Option<Match> = None;
        for (filter, subscription) in &self.subscriptions {
            if (own && subscription.no_local) || !topic::matches(filter, &message.topic) {
                continue;
            }
            let best = found.get_or_insert(Match {
                qos: QoS::AtMostOnce,
                retain: false,
                identifiers: Vec::new(),
            });
            best.qos = higher(best.qos, subscription.qos);
            best.retain |= subscription.retain_as_published && message.retain;
            best.identifiers.extend(subscription.identifier);
        }
        found.map(|found| Match {
            qos: lower(found.qos, message.qos),
            ..found
        })
    }

    pub(super) fn enqueue(&mut self, delivery: Delivery) {
        self.queue.push_back(delivery);
    }

    /// A new connection: what was sent on an earlier one is sent again first.
    pub(super) fn resume(&mut self) {
        for entry in &mut self.in_flight {
            entry.before |= entry.sent;
            entry.sent = false;
        }
    }

    /// The connection ended. QoS 0 does not wait for the next one.
    pub(super) fn suspend(&mut self) {
        self.queue.retain(|delivery| delivery.qos != QoS::AtMostOnce);
    }

    /// PUBACK came. `false`: the packet id was not on the way.
    pub(super) fn acknowledge(&mut self, id: u16) -> bool {
        let Some(index) = self
            .in_flight
            .iter()
            .position(|entry| entry.id == id && entry.sent)
        else {
            return false;
        };
        self.in_flight.remove(index).is_some()
    }

    fn free_id(&mut self) -> Option<u16> {
        (0..u16::MAX).find_map(|_| {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let id = self.last_id;
            (!self.in_flight.iter().any(|entry| entry.id == id)).then_some(id)
        })
    }

    /// The next packets for the client: resent ones first, then new ones, within its receive maximum.
    pub(super) fn next_packets(
        &mut self,
        faults: &Faults,
        stats: &mut Stats,
        to: &mut Vec<v5::Publish>,
        most: usize,
    ) {
        let mut window = usize::from(self.receive_maximum)
            .saturating_sub(self.in_flight.iter().filter(|entry| entry.sent).count());
        for entry in &mut self.in_flight {
            if to.len() >= most || window == 0 {
                return;
            }
            if !entry.sent {
                entry.sent = true;
                window -= 1;
                to.push(entry.delivery.packet(entry.id, entry.before));
                stats.delivered += 1;
                stats.redelivered += u64::from(entry.before);
            }
        }
        while to.len() < most {
            let index = if faults.reorders() { self.overtaking() } else { 0 };
            let Some(next) = self.queue.get(index) else { return };
            if next.qos != QoS::AtMostOnce && window == 0 {
                return;
            }
            let Some(delivery) = self.queue.remove(index) else {
                return;
            };
            self.take(delivery, &mut window, faults, stats, to);
        }
    }

    fn take(
        &mut self,
        delivery: Delivery,
        window: &mut usize,
        faults: &Faults,
        stats: &mut Stats,
        to: &mut Vec<v5::Publish>,
    ) {
        let packet = delivery.packet(1, false);
        // Section 3.1.2.11.4: too large for this client means as if it had been delivered.
        if packet.size() > self.max_packet as usize && !faults.ignores_packet_limit() {
            stats.too_large += 1;
            return;
        }
        let mut packet = packet;
        if delivery.qos == QoS::AtMostOnce {
            packet.pkid = 0;
        } else {
            let Some(id) = self.free_id() else {
                self.queue.push_front(delivery);
                *window = 0;
                return;
            };
            packet.pkid = id;
            self.in_flight.push_back(InFlight {
                id,
                delivery,
                sent: true,
                before: false,
            });
            *window -= 1;
        }
        stats.delivered += 1;
        let copy = (packet.pkid != 0 && faults.duplicates() == Duplicate::Marked).then(|| {
            let mut copy = packet.clone();
            copy.dup = true;
            copy
        });
        to.push(packet);
        if let Some(copy) = copy {
            stats.delivered += 1;
            stats.duplicated += 1;
            to.push(copy);
        }
    }

    /// Index of a message that may overtake the head: the first one of the topic that turned up last.
    fn overtaking(&self) -> usize {
        let mut topics = HashSet::new();
        let mut latest = 0;
        for (index, delivery) in self.queue.iter().take(REORDER_WINDOW).enumerate() {
            if topics.insert(&delivery.message.topic) {
                latest = index;
            }
        }
        latest
    }
}

fn higher(a: QoS, b: QoS) -> QoS {
    if a as u8 >= b as u8 { a } else { b }
}

pub(super) fn lower(a: QoS, b: QoS) -> QoS {
    if a as u8 <= b as u8 { a } else { b }
}
