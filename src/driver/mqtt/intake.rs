//! Packets become events; acknowledgements go back in the order in which the packets came (MQTT 5.0,
//! section 4.6), as soon as the store has synced.

use std::collections::{BTreeMap, VecDeque};
use std::future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use log::{debug, info, warn};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Publish;
use tokio::sync::{mpsc, oneshot};

use super::Device;
use crate::domain::Unmapped;
use crate::driver::{DriverEvent, Stored, now};
use crate::protocol::mqtt::{Packet, Read};
use crate::protocol::retry::Backoff;

/// How often refused packets are offered again.
const REFUSED: Backoff = Backoff {
    first: Duration::from_secs(1),
    most: Duration::from_secs(30),
};

/// A packet and the connection that it came on.
pub(super) struct Arrived {
    pub(super) publish: Publish,
    pub(super) epoch: u64,
    /// Place in the order of arrival.
    pub(super) order: u64,
}

impl Arrived {
    /// Whether it came on a connection that is gone and the broker delivers it again.
    fn is_stale(&self, epoch: u64) -> bool {
        self.publish.qos != QoS::AtMostOnce && self.epoch != epoch
    }
}

/// The packet is stored: its acknowledgement may go out, on its own connection only.
pub(super) struct Ack {
    pub(super) publish: Publish,
    pub(super) epoch: u64,
}

/// A packet whose event is on its way, or (`None`) that needs none.
struct Waiting {
    packet: Arrived,
    stored: Option<oneshot::Receiver<Stored>>,
}

/// Offers packets to the store, many at a time.
pub(super) struct Intake {
    devices: Arc<[Device]>,
    /// How many may wait for the store at a time.
    window: usize,
    events: mpsc::Sender<DriverEvent>,
    packets: mpsc::Receiver<Arrived>,
    acks: mpsc::Sender<Ack>,
    /// The connection that exists now.
    epoch: Arc<AtomicU64>,
    waiting: VecDeque<Waiting>,
    /// Packets that the store refused, by order of arrival. While there are any, no newer one is offered.
    refused: BTreeMap<u64, Arrived>,
    /// How often in a row the store refused; 0 while it takes packets.
    refusals: u32,
}

impl Intake {
    pub(super) fn new(
        devices: Arc<[Device]>,
        window: usize,
        events: mpsc::Sender<DriverEvent>,
        packets: mpsc::Receiver<Arrived>,
        acks: mpsc::Sender<Ack>,
        epoch: Arc<AtomicU64>,
    ) -> Self {
        Self {
            devices,
            window,
            events,
            packets,
            acks,
            epoch,
            waiting: VecDeque::new(),
            refused: BTreeMap::new(),
            refusals: 0,
        }
    }

    /// Works until the connection is gone for good.
    pub(super) async fn run(mut self) {
        let mut offer: Option<(Arrived, DriverEvent, oneshot::Receiver<Stored>)> = None;
        let events = self.events.clone();
        loop {
            // Many packets wait for the store at a time, so that one sync serves them all; a store that refuses is
            // tried with one.
            let epoch = self.epoch.load(Ordering::Relaxed);
            self.refused.retain(|_, packet| !packet.is_stale(epoch));
            let room = offer.is_none() && self.waiting.len() < self.window;
            let hold = !self.refused.is_empty();
            let again = hold
                && if self.refusals == 0 {
                    room
                } else {
                    offer.is_none() && self.waiting.is_empty()
                };
            tokio::select! {
                answer = front(&mut self.waiting), if !self.waiting.is_empty() => {
                    if self.settle(answer).await.is_err() {
                        return;
                    }
                }
                permit = events.reserve(), if offer.is_some() => {
                    let Ok(permit) = permit else { return };
                    if let Some((packet, event, stored)) = offer.take() {
                        permit.send(event);
                        self.waiting.push_back(Waiting { packet, stored: Some(stored) });
                    }
                }
                packet = self.packets.recv(), if room && !hold => {
                    let Some(packet) = packet else { return };
                    offer = self.prepare(packet);
                }
                () = pause(self.refusals), if again => {
                    if let Some((_, packet)) = self.refused.pop_first() {
                        offer = self.prepare(packet);
                    }
                }
            }
        }
    }

    /// What is to be offered for a packet; nothing when it can be acknowledged at once.
    fn prepare(&mut self, packet: Arrived) -> Option<(Arrived, DriverEvent, oneshot::Receiver<Stored>)> {
        // After a reconnect the broker delivers again what was not acknowledged.
        if packet.is_stale(self.epoch.load(Ordering::Relaxed)) {
            return None;
        }
        let (stored, receiver) = oneshot::channel();
        if let Some(event) = self.read(&packet.publish, stored) {
            return Some((packet, event, receiver));
        }
        self.waiting.push_back(Waiting { packet, stored: None });
        None
    }

    /// The first device that can read the packet has it; else the first that recognises it.
    fn read(&self, publish: &Publish, stored: oneshot::Sender<Stored>) -> Option<DriverEvent> {
        let topic = String::from_utf8_lossy(&publish.topic);
        let packet = Packet {
            topic: &topic,
            payload: &publish.payload,
            packet_id: (publish.qos != QoS::AtMostOnce).then_some(publish.pkid),
            retained: publish.retain,
            dup: publish.dup,
        };
        let now = now();
        let mut unreadable: Option<(&Device, String)> = None;
        let mut ignored = None;
        for device in self.devices.iter().filter(|device| device.mapping.takes(&topic)) {
            match device.mapping.read(&device.channel, &packet, now) {
                Read::Message(message) => return Some(DriverEvent::Received { message, stored }),
                Read::Status(report) => return Some(DriverEvent::Status { report, stored }),
                Read::Unmapped(reason) => unreadable = unreadable.or(Some((device, reason))),
                Read::Ignored(reason) => ignored = ignored.or(Some((device, reason))),
            }
        }
        if let Some((device, reason)) = unreadable {
            warn!(device = device.name.as_str(), reason = reason.as_str(); "A payload could not be read and is kept as unmapped");
            let payload = publish
                .payload
                .get(..Unmapped::MAX_PAYLOAD)
                .unwrap_or(&publish.payload);
            let record = Unmapped {
                device: device.name.clone(),
                source: topic.into_owned(),
                payload: payload.to_vec(),
                reason,
                received_at: now,
            };
            return Some(DriverEvent::Unmapped {
                record: Box::new(record),
                stored,
            });
        }
        match ignored {
            Some((device, reason)) => {
                debug!(device = device.name.as_str(), reason = reason.as_str(); "A payload was ignored");
            }
            // A subscription from an earlier configuration that the broker has not ended yet.
            None => debug!(topic = topic.as_ref(); "No device claims this topic"),
        }
        None
    }

    /// Acknowledges the front, or puts it back.
    async fn settle(&mut self, answer: Stored) -> Result<(), ()> {
        let Some(Waiting { packet, .. }) = self.waiting.pop_front() else {
            return Ok(());
        };
        match answer {
            Stored::Acknowledge => {
                if self.refusals > 0 {
                    info!(waiting = self.refused.len(); "The store takes messages again");
                    self.refusals = 0;
                }
                let ack = Ack {
                    publish: packet.publish,
                    epoch: packet.epoch,
                };
                self.acks.send(ack).await.map_err(drop)
            }
            Stored::Refused => {
                if self.refusals == 0 {
                    warn!("The store refuses messages: they are not acknowledged, and the broker keeps them");
                }
                // One refusal per attempt, however many packets were in flight.
                if self.waiting.is_empty() || self.refusals == 0 {
                    self.refusals = self.refusals.saturating_add(1);
                }
                self.refused.insert(packet.order, packet);
                Ok(())
            }
        }
    }
}

/// The store's answer about the oldest packet. A store that went away without one has not stored it.
async fn front(waiting: &mut VecDeque<Waiting>) -> Stored {
    match waiting.front_mut() {
        None => future::pending().await,
        Some(Waiting { stored: None, .. }) => Stored::Acknowledge,
        Some(Waiting {
            stored: Some(stored), ..
        }) => stored.await.unwrap_or(Stored::Refused),
    }
}

async fn pause(refusals: u32) {
    if refusals == 0 {
        // Taken again: the rest follows at once.
        return;
    }
    let jitter = getrandom::u32().unwrap_or(u32::MAX / 2);
    tokio::time::sleep(REFUSED.pause(refusals, jitter)).await;
}
