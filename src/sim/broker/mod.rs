//! A small, strict MQTT broker inside the process, for the demo and for tests that need a broker to misbehave.
//!
//! It speaks MQTT 5.0 and 3.1.1 with QoS 0 and 1 over TCP: persistent sessions, redelivery with DUP, retained messages,
//! wills, session takeover, keep-alive, and the limits that both sides state. QoS 2, topic aliases and shared
//! subscriptions are not offered; a client that uses them nevertheless is thrown out as the specification says.
//! Everything is in memory. Queues are bounded: a full one delays the publisher's PUBACK and drops nothing.
//!
//! What it can do wrong is in [`Faults`]; what went through it in [`Stats`].

mod codec;
mod connection;
mod encode;
mod faults;
mod session;
mod state;
mod stats;
#[cfg(test)]
mod tests;
mod topic;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

pub use faults::{Duplicate, Faults, Refuse};
pub use rumqttc::v5::mqttbytes::QoS;
pub use stats::Stats;

use codec::Message;
use state::Shared;

/// How long [`Broker::stop`] waits for connections to end.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// How a broker behaves when it has no fault.
#[derive(Clone, Debug)]
pub struct Options {
    /// User name and password that clients must give; `None` lets everybody in.
    pub credentials: Option<(String, String)>,
    /// Messages that wait for one subscriber, without those it has and did not acknowledge. A full queue delays the
    /// PUBACKs of everybody who publishes to it.
    pub queue_length: usize,
    /// QoS 1 messages that a client may send before the first PUBACK.
    pub receive_maximum: u16,
    /// Largest packet the broker takes, in bytes.
    pub max_packet: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            credentials: None,
            queue_length: 10_000,
            receive_maximum: 64,
            max_packet: 1 << 20,
        }
    }
}

/// A message that a local subscriber gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalMessage {
    /// Topic it was published to.
    pub topic: String,
    /// Its payload.
    pub payload: Bytes,
    /// As it was published.
    pub qos: QoS,
    /// Whether it was published as retained.
    pub retain: bool,
}

/// A subscription inside the process. Messages that nobody takes fill its queue and then delay publishers.
#[derive(Debug)]
pub struct LocalSubscription {
    from: mpsc::Receiver<LocalMessage>,
    shared: Arc<Shared>,
}

impl LocalSubscription {
    /// The next message; `None` after the broker has stopped.
    pub async fn recv(&mut self) -> Option<LocalMessage> {
        let message = self.from.recv().await;
        self.shared.room.notify_waiters();
        message
    }
}

impl Drop for LocalSubscription {
    fn drop(&mut self) {
        self.from.close();
        self.shared.room.notify_waiters();
    }
}

/// What a local publisher did wrong.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The topic is empty, too long or has wildcards.
    #[error("`{0}` is not a topic that can be published to")]
    Topic(String),
    /// The broker has stopped.
    #[error("the broker has stopped")]
    Stopped,
}

/// A running broker. It stops when this is dropped; [`Broker::stop`] also waits for the end.
#[derive(Debug)]
pub struct Broker {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: Option<JoinHandle<()>>,
}

impl Broker {
    /// Listens on `address` (port 0 chooses a free one) with the default options.
    pub async fn start(address: SocketAddr) -> io::Result<Self> {
        Self::start_with(address, Options::default()).await
    }

    /// Listens on `address` (port 0 chooses a free one).
    pub async fn start_with(address: SocketAddr, options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(options));
        let task = Some(tokio::spawn(run(shared.clone(), listener)));
        Ok(Self {
            shared,
            address,
            task,
        })
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its faults.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.shared.faults.clone()
    }

    /// What went through it so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        *self.shared.stats.borrow()
    }

    /// The same, to wait for a change.
    #[must_use]
    pub fn watch_stats(&self) -> watch::Receiver<Stats> {
        self.shared.stats.subscribe()
    }

    /// Publishes from inside the process and returns when every subscriber's queue has taken the message. QoS 2 counts
    /// as 1.
    pub async fn publish_local(
        &self,
        topic: &str,
        payload: impl Into<Bytes>,
        qos: QoS,
        retain: bool,
    ) -> Result<(), PublishError> {
        if !topic::is_name(topic) {
            return Err(PublishError::Topic(topic.to_owned()));
        }
        let qos = session::lower(qos, QoS::AtLeastOnce);
        let message = Message {
            topic: topic.into(),
            payload: payload.into(),
            qos,
            retain,
            properties: None,
        };
        let mut stopping = self.shared.stopping.subscribe();
        loop {
            let room = self.shared.room.notified();
            tokio::pin!(room);
            // Registered before looking, so that no wake-up is missed in between.
            room.as_mut().enable();
            if *stopping.borrow_and_update() {
                return Err(PublishError::Stopped);
            }
            if self.shared.route(&message, None).is_ok() {
                return Ok(());
            }
            tokio::select! {
                () = room => {}
                changed = stopping.changed() => drop(changed),
            }
        }
    }

    /// Subscribes from inside the process, to what is published from now on. `capacity` messages are kept; then
    /// publishers wait. An invalid filter matches nothing.
    #[must_use]
    pub fn subscribe_local(&self, filter: &str, capacity: usize) -> LocalSubscription {
        LocalSubscription {
            from: self.shared.subscribe_local(filter, capacity),
            shared: self.shared.clone(),
        }
    }

    /// The retained payload of a topic.
    #[must_use]
    pub fn retained(&self, topic: &str) -> Option<Bytes> {
        self.shared.retained(topic).map(|message| message.payload)
    }

    /// Messages on the way to a client: queued and unacknowledged. `None` if it has no session.
    #[must_use]
    pub fn pending(&self, client_id: &str) -> Option<usize> {
        self.shared.pending(client_id)
    }

    /// Filters a client has subscribed to. `None` if it has no session.
    #[must_use]
    pub fn subscriptions(&self, client_id: &str) -> Option<Vec<String>> {
        self.shared.subscriptions(client_id)
    }

    /// Tells the clients that the broker shuts down, closes all connections and waits for the end.
    pub async fn stop(mut self) {
        self.shared.stopping.send_replace(true);
        if let Some(task) = self.task.take() {
            let handle = task.abort_handle();
            if timeout(STOP_WITHIN, task).await.is_err() {
                log::warn!("the simulated broker did not stop in time");
                handle.abort();
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.shared.stopping.send_replace(true);
    }
}

/// Accepts connections and watches deadlines until the broker stops.
async fn run(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    let mut next = None;
    loop {
        let wait_until = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection::serve(shared.clone(), stream));
                }
                Err(error) => {
                    // Out of file descriptors, for instance: try again when something has ended.
                    log::warn!(error:err = error; "Simulated broker: cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            () = shared.stopped() => break,
            () = shared.deadlines.notified() => {}
            () = sleep_until(wait_until) => {}
            Some(_) = connections.join_next() => {}
        }
        next = shared.sweep();
    }
    drop(listener);
    shared.room.notify_waiters();
    while connections.join_next().await.is_some() {}
    shared.close_locals();
}
