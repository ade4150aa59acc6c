//! One connection to a broker after another.
//!
//! A single task polls the library and decides about everything that belongs to the connection, so that nothing
//! can be sent between the end of a connection and the news of it. It never waits for the store.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use log::{debug, info, warn};
use rumqttc::Outgoing as Written;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnAck, Packet, Publish, SubAck};
use rumqttc::v5::{ConnectionError, Event};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::failure::{Failure, classify};
use super::intake::{Ack, Arrived};
use super::library::{self, Client, Library};
use super::outgoing::{Ledger, Origin};
use super::subscribing::Subscribing;
use super::subscriptions::Subscriptions;
use super::{CONNECT_TIMEOUT, Device, tls};
use crate::config::{Broker, Protocol};
use crate::domain::{Attempt, Timestamp};
use crate::driver::{Link, OutgoingJob, now};
use crate::protocol::retry::Backoff;

const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    most: Duration::from_secs(60),
};
/// A connection that lasted this long was a good one: the next failure starts a new row.
const STABLE: Duration = Duration::from_secs(20);
/// Least pause after another client took the session over.
const TAKEN_OVER: Duration = Duration::from_secs(10);
/// For the last acknowledgements when the gateway stops.
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// Publishes that are not settled at a time. The library keeps memory for each possible one.
const IN_FLIGHT: usize = 8;
/// Largest packet that is read although it is larger than announced, so that it does not come again for ever.
const LARGEST_PACKET: usize = 64 << 20;

/// What a connection is made of.
pub(super) struct Parts {
    pub(super) broker: Broker,
    pub(super) devices: Arc<[Device]>,
    pub(super) client_id: String,
    /// Where the gateway says whether it is there.
    pub(super) status_topic: Option<String>,
    pub(super) filters: BTreeSet<String>,
    pub(super) subscriptions_file: Option<PathBuf>,
    pub(super) packets: mpsc::Sender<Arrived>,
    pub(super) epoch: Arc<AtomicU64>,
    pub(super) acks: mpsc::Receiver<Ack>,
    pub(super) jobs: mpsc::Receiver<OutgoingJob>,
    pub(super) link: watch::Sender<Link>,
    pub(super) stop: watch::Receiver<bool>,
}

/// How a connection ended.
enum End {
    Failed(Box<ConnectionError>),
    /// The library gave no sign of life.
    Frozen,
    /// The broker did not acknowledge in time.
    Unanswered,
    Stopped,
}

/// The state that one connection has and the next has not.
#[derive(Default)]
struct Session {
    since: Option<Instant>,
    /// Largest packet that the broker takes.
    max_packet: Option<u32>,
    in_flight: usize,
    subscribing: Subscribing,
    unsubscribing: usize,
}

pub(super) struct Connection {
    parts: Parts,
    client: Client,
    session: Session,
    ledger: Ledger,
    subscriptions: Option<Subscriptions>,
    /// A packet for which the intake had no room: nothing is polled until it has.
    held: Option<Arrived>,
    /// Acknowledgements for which the library had no room.
    unsent: VecDeque<Publish>,
    arrivals: u64,
    /// Since when the broker refuses a subscription, over connections.
    refused_since: Option<Timestamp>,
}

impl Connection {
    pub(super) fn new(parts: Parts) -> Self {
        // Replaced by the real one before anything is polled.
        let (client, _) = library::new(&parts.broker, &session(&parts, 1));
        Self {
            parts,
            client,
            session: Session::default(),
            ledger: Ledger::default(),
            subscriptions: None,
            held: None,
            unsent: VecDeque::new(),
            arrivals: 0,
            refused_since: None,
        }
    }

    /// Connects, works and reconnects until the gateway stops.
    pub(super) async fn run(mut self) {
        self.work().await;
        // What still waits for its turn has not left the gateway: dropped, it would count as sent or not.
        self.parts.jobs.close();
        while let Some(job) = self.parts.jobs.recv().await {
            drop(
                job.outcome
                    .send(Attempt::NotStarted("the gateway is stopping".to_owned())),
            );
        }
    }

    async fn work(&mut self) {
        self.open_subscriptions();
        let requests = usize::from(self.parts.broker.receive_maximum) * 2 + 64;
        let (client, mut library) = library::new(&self.parts.broker, &session(&self.parts, requests));
        self.client = client;
        let mut failures: u32 = 0;
        let mut cut_short: u32 = 0;
        loop {
            let (reason, least) = match tls::transport(self.parts.broker.tls.as_ref()) {
                Err(reason) => (reason, Duration::ZERO),
                Ok(transport) => {
                    library.set_transport(transport);
                    let end = self.connection(&mut library).await;
                    let lasted = self.session.since.map(|since| since.elapsed());
                    self.forget(&mut library);
                    if lasted.is_some_and(|lasted| lasted >= STABLE) {
                        failures = 0;
                    }
                    let mut failure = match end {
                        End::Stopped => return,
                        End::Failed(error) => classify(&error, &self.parts.broker),
                        End::Frozen => {
                            Failure::because("the broker gave no sign of life: the connection is made anew")
                        }
                        End::Unanswered => Failure::because(
                            "the broker did not confirm a message in time: the connection is made anew",
                        ),
                    };
                    cut_short = match lasted {
                        Some(lasted) if failure.closed && lasted < STABLE => cut_short.saturating_add(1),
                        _ => 0,
                    };
                    if cut_short >= 2 {
                        failure.suspect_twin(&self.parts.client_id);
                    }
                    if let Some(size) = failure.oversize.filter(|size| *size <= LARGEST_PACKET) {
                        // It is delivered again and again; read it once.
                        library.read_packets_of(size);
                    }
                    let least = if failure.taken_over {
                        TAKEN_OVER
                    } else {
                        Duration::ZERO
                    };
                    (failure.reason, least)
                }
            };
            failures = failures.saturating_add(1);
            let pause = BACKOFF.pause(failures, jitter()).max(least);
            self.down(&reason, pause);
            if self.wait(pause, &reason).await {
                return;
            }
        }
    }

    fn open_subscriptions(&mut self) {
        let file = self.parts.subscriptions_file.clone();
        let opened = Subscriptions::open(file, self.parts.filters.clone()).or_else(|error| {
            warn!(broker = self.name(), error = error.to_string().as_str();
                "The list of subscriptions cannot be kept: those that leave the configuration are not ended");
            Subscriptions::open(None, self.parts.filters.clone())
        });
        self.subscriptions = opened.ok();
    }

    fn name(&self) -> &str {
        &self.parts.broker.name
    }

    fn down(&self, reason: &str, pause: Duration) {
        let mut since = now();
        let known = match &*self.parts.link.borrow() {
            Link::Down {
                since: before,
                reason: same,
            } => {
                since = *before;
                same == reason
            }
            Link::Starting
            | Link::Up(_)
            | Link::Limited { .. }
            | Link::Faulty { .. }
            | Link::Paused { .. } => false,
        };
        if known {
            debug!(broker = self.name(), reason, retry_in_s = pause.as_secs(); "Still no connection to the broker");
        } else {
            warn!(broker = self.name(), reason, retry_in_s = pause.as_secs(); "No connection to the broker");
        }
        self.parts.link.send_replace(Link::Down {
            since,
            reason: reason.to_owned(),
        });
    }

    /// Waits before the next attempt; meanwhile answers come back at once. True when the gateway stops.
    async fn wait(&mut self, pause: Duration, reason: &str) -> bool {
        let end = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(end) => return false,
                stopped = self.parts.stop.wait_for(|stop| *stop) => { drop(stopped); return true; }
                // Of a connection that is gone.
                Some(_) = self.parts.acks.recv() => {}
                Some(job) = self.parts.jobs.recv() => {
                    drop(job.outcome.send(Attempt::NotStarted(reason.to_owned())));
                }
                permit = self.parts.packets.reserve(), if self.held.is_some() => {
                    if let (Ok(permit), Some(held)) = (permit, self.held.take()) {
                        permit.send(held);
                    }
                }
            }
        }
    }

    /// Forgets what must not survive a connection. The library would keep unsent acknowledgements of packet
    /// identifiers that mean something else now, and would send unconfirmed answers again without asking.
    fn forget(&mut self, library: &mut Library) {
        self.parts.epoch.fetch_add(1, Ordering::Relaxed);
        for event in library.forget() {
            match event {
                Event::Outgoing(Written::Publish(packet_id)) => {
                    self.ledger.written(packet_id, Instant::now());
                }
                Event::Incoming(Packet::PubAck(ack)) => self.ledger.acknowledged(&ack),
                Event::Incoming(_) | Event::Outgoing(_) => {}
            }
        }
        self.ledger.connection_lost();
        self.session = Session::default();
        self.unsent.clear();
    }

    /// One connection, from the attempt to its end.
    async fn connection(&mut self, library: &mut Library) -> End {
        let mut quiet = self.parts.broker.keep_alive.max(Duration::from_secs(5)) * 3;
        let mut last_sign = Instant::now();
        let mut stop_at: Option<Instant> = None;
        let mut stop = self.parts.stop.clone();
        let packets = self.parts.packets.clone();
        loop {
            self.flush_acks();
            let event = {
                let mut poll = pin!(library.poll());
                loop {
                    let connected = self.session.since.is_some();
                    let patience = if connected { quiet } else { CONNECT_TIMEOUT * 2 };
                    let unanswered = self.ledger.deadline();
                    let stopping = stop_at.is_some();
                    let subscribe_at = self.session.subscribing.due();
                    // Dropped polls would lose what they have read: every other branch returns to this one.
                    tokio::select! {
                        event = &mut poll, if self.held.is_none() => break event,
                        permit = packets.reserve(), if self.held.is_some() => {
                            let (Ok(permit), Some(held)) = (permit, self.held.take()) else { return End::Stopped };
                            permit.send(held);
                            last_sign = Instant::now();
                        }
                        Some(ack) = self.parts.acks.recv() => {
                            if ack.epoch == self.parts.epoch.load(Ordering::Relaxed) {
                                self.unsent.push_back(ack.publish);
                                self.flush_acks();
                            }
                        }
                        Some(job) = self.parts.jobs.recv(), if self.ledger.open() < self.session.in_flight || !connected => {
                            self.start(job, stopping);
                        }
                        stopped = stop.wait_for(|stop| *stop), if !stopping => {
                            drop(stopped);
                            if !connected {
                                return End::Stopped;
                            }
                            self.publish_state("offline");
                            stop_at = Some(Instant::now() + STOP_LIMIT);
                        }
                        () = sleep_until(subscribe_at.unwrap_or(last_sign)), if subscribe_at.is_some() && !stopping => {
                            self.subscribe();
                        }
                        () = sleep_until(last_sign + patience), if self.held.is_none() => return End::Frozen,
                        () = sleep_until(unanswered.unwrap_or(last_sign)), if unanswered.is_some() => return End::Unanswered,
                        () = sleep_until(stop_at.unwrap_or(last_sign)), if stopping => return End::Stopped,
                    }
                }
            };
            last_sign = Instant::now();
            match event {
                Err(error) => {
                    return if stop_at.is_some() {
                        End::Stopped
                    } else {
                        End::Failed(Box::new(error))
                    };
                }
                Ok(Event::Incoming(packet)) => self.incoming(packet),
                Ok(Event::Outgoing(Written::Publish(packet_id))) => self.ledger.written(packet_id, last_sign),
                Ok(Event::Outgoing(Written::Disconnect)) => return End::Stopped,
                Ok(Event::Outgoing(_)) => {}
            }
            quiet = quiet.max(library.keep_alive() * 3);
            if stop_at.is_some() && self.ledger.open() == 0 && self.client.disconnect().is_err() {
                return End::Stopped;
            }
        }
    }

    fn incoming(&mut self, packet: Packet) {
        match packet {
            Packet::ConnAck(ack) => self.connected(&ack),
            Packet::Publish(publish) => {
                self.arrivals += 1;
                let epoch = self.parts.epoch.load(Ordering::Relaxed);
                let arrived = Arrived {
                    publish,
                    epoch,
                    order: self.arrivals,
                };
                if let Err(mpsc::error::TrySendError::Full(arrived)) = self.parts.packets.try_send(arrived) {
                    self.held = Some(arrived);
                }
            }
            Packet::PubAck(ack) => self.ledger.acknowledged(&ack),
            Packet::SubAck(ack) => self.subscribed(&ack),
            Packet::UnsubAck(_) => {
                self.session.unsubscribing = self.session.unsubscribing.saturating_sub(1);
                if self.session.unsubscribing == 0 {
                    self.stale_ended();
                }
            }
            _ => {}
        }
    }

    fn connected(&mut self, ack: &ConnAck) {
        let properties = ack.properties.as_ref();
        let receive_maximum = properties
            .and_then(|properties| properties.receive_max)
            .unwrap_or(u16::MAX);
        self.session = Session {
            since: Some(Instant::now()),
            max_packet: properties.and_then(|properties| properties.max_packet_size),
            in_flight: IN_FLIGHT.min(usize::from(receive_maximum)).max(1),
            ..Session::default()
        };
        info!(broker = self.name(), session_kept = ack.session_present; "Connected to the broker");
        if self.parts.broker.protocol == Protocol::V4 {
            info!(broker = self.name(); "MQTT 3.1.1: how long the broker keeps messages for an absent gateway is the broker's own setting");
        }
        self.session.subscribing = Subscribing::new(&self.parts.filters);
        if self.parts.filters.is_empty() {
            self.up();
        } else {
            self.subscribe();
        }
        let stale: Vec<String> = match &self.subscriptions {
            Some(subscriptions) if ack.session_present => subscriptions.stale().iter().cloned().collect(),
            _ => Vec::new(),
        };
        self.session.unsubscribing = stale.len();
        if stale.is_empty() {
            // A new session holds nothing of the past.
            self.stale_ended();
        }
        for filter in stale {
            info!(broker = self.name(), filter = filter.as_str(); "Ending a subscription that left the configuration");
            if self.client.unsubscribe(filter).is_err() {
                debug!(broker = self.name(); "The end of a subscription could not be sent; next time");
            }
        }
        self.publish_state("online");
    }

    fn stale_ended(&mut self) {
        let broker = self.parts.broker.name.as_str();
        if let Some(Err(error)) = self.subscriptions.as_mut().map(Subscriptions::stale_ended) {
            warn!(broker, error = error.to_string().as_str(); "The list of subscriptions cannot be written");
        }
    }

    /// Asks for what the broker has not granted.
    fn subscribe(&mut self) {
        let requests = self.session.subscribing.ask();
        if self.client.subscribe(requests).is_err() {
            warn!(broker = self.name(); "The subscriptions could not be sent; they are sent again");
            self.session.subscribing.later(Instant::now(), jitter());
        }
    }

    fn subscribed(&mut self, ack: &SubAck) {
        let unconfirmed = self.session.subscribing.is_without_confirmation();
        let news = self
            .session
            .subscribing
            .answered(&ack.return_codes, Instant::now(), jitter());
        if self.session.subscribing.is_without_confirmation() && !unconfirmed {
            warn!(broker = self.name(); "The broker grants QoS 0 only: what devices send while the gateway is away, \
                restarts or is cut off is lost, and nothing comes again that was not stored");
        }
        let Some(reason) = self
            .session
            .subscribing
            .fault(self.parts.broker.username.as_deref())
        else {
            if self.refused_since.take().is_some() {
                info!(broker = self.name(); "The broker grants every subscription now");
            }
            self.up();
            return;
        };
        let since = *self.refused_since.get_or_insert_with(now);
        if news {
            warn!(broker = self.name(), reason = reason.as_str(); "Messages of some devices cannot be received");
        }
        self.parts.link.send_replace(Link::Faulty { since, reason });
    }

    fn up(&self) {
        let note = if self.session.subscribing.is_without_confirmation() {
            "the broker grants QoS 0 only: what devices send while the gateway is away or cut off is lost. Allow QoS 1 \
             in the broker (mosquitto: max_qos), where it can do more"
        } else if self.parts.broker.protocol == Protocol::V4 {
            "MQTT 3.1.1: the broker alone decides how long it keeps messages for an absent gateway. Leave `protocol` out \
             if it speaks MQTT 5; else look how long it does (mosquitto: persistent_client_expiration)"
        } else {
            self.parts.link.send_replace(Link::Up(now()));
            return;
        };
        self.parts.link.send_replace(Link::Limited {
            since: now(),
            note: note.to_owned(),
        });
    }

    /// Says on the broker whether the gateway is there.
    fn publish_state(&mut self, state: &'static str) {
        let Some(topic) = self.parts.status_topic.clone() else {
            return;
        };
        if self
            .client
            .publish(topic, QoS::AtLeastOnce, true, state.into())
            .is_ok()
        {
            self.ledger.submit(Origin::Own);
        }
    }

    fn flush_acks(&mut self) {
        while let Some(publish) = self.unsent.pop_front() {
            if self.client.ack(&publish).is_err() {
                self.unsent.push_front(publish);
                return;
            }
        }
    }

    fn start(&mut self, job: OutgoingJob, stopping: bool) {
        let answer = |job: OutgoingJob, attempt| drop(job.outcome.send(attempt));
        let waits = |words: &str| Attempt::NotStarted(words.to_owned());
        if stopping {
            return answer(job, waits("the gateway is stopping"));
        }
        if self.session.since.is_none() {
            return answer(job, waits("the connection to the broker is being made"));
        }
        let device = self
            .parts
            .devices
            .iter()
            .find(|device| device.channel == job.message.channel);
        let Some(device) = device else {
            return answer(
                job,
                Attempt::Rejected("no device of this broker carries the channel".to_owned()),
            );
        };
        let publish = match device.mapping.write(&job.message) {
            Ok(publish) => publish,
            Err(error) => return answer(job, Attempt::Rejected(error.to_string())),
        };
        // Fixed header, topic length, packet identifier and properties take less than this.
        let size = publish.topic.len() + publish.payload.len() + 16;
        if let Some(most) = self.session.max_packet.filter(|most| size > *most as usize) {
            // Once handed to the library, it would fail, reconnect and fail again for ever.
            let words = format!("the message takes {size} bytes, and the broker accepts {most}");
            return answer(job, Attempt::Rejected(words));
        }
        let qos = if publish.qos == 0 {
            QoS::AtMostOnce
        } else {
            QoS::AtLeastOnce
        };
        match self
            .client
            .publish(publish.topic, qos, publish.retain, publish.payload)
        {
            Ok(()) => self.ledger.submit(Origin::Job(job.outcome)),
            Err(_) => answer(job, waits("the broker takes messages too slowly")),
        }
    }
}

fn jitter() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

fn session(parts: &Parts, requests: usize) -> library::Session<'_> {
    library::Session {
        client_id: &parts.client_id,
        persistent: true,
        will: parts.status_topic.as_deref(),
        requests,
    }
}
