//! MQTT devices through a broker (rumqttc, MQTT 5 or 3.1.1).
//!
//! ```text
//!            ┌──────────── connection ────────────┐ packets  ┌──── intake ────┐ DriverEvent
//!  broker ◄──┤ polls; owns everything that must   ├─────────►│ reads packets, ├────────────► store
//!            │ agree about one connection         │◄─────────┤ keeps order    │◄──────────── stored
//!            └──────────────▲─────────────────────┘   acks   └────────────────┘
//!                           └─ OutgoingJob
//! ```
//!
//! What makes it lose nothing: a persistent session under one client id, and an acknowledgement (PUBACK) only
//! after the store has synced. What makes it repeat little: acknowledgements carry the number of the connection
//! that they belong to, so that a stale packet identifier never confirms something else.

mod connection;
mod failure;
mod intake;
mod library;
pub mod listen;
mod outgoing;
mod subscribing;
mod subscriptions;
mod tls;

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::{DriverEvent, DriverHandle, Link};
use crate::config::{self, Broker};
use crate::domain::{ChannelId, GatewayId};
use crate::protocol::mqtt::{Mapping, MappingError};

/// For the network, TLS and the broker's CONNACK.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many answers wait in the driver for their turn.
const OUTGOING_CAPACITY: usize = 16;

/// A device behind the broker and the channel that it carries.
#[derive(Clone, Debug)]
pub struct Device {
    /// As in the configuration.
    pub name: String,
    /// The channel of its messages.
    pub channel: ChannelId,
    /// How it speaks.
    pub mapping: Mapping,
}

/// What the driver of one broker needs.
pub struct Setup {
    /// The broker.
    pub broker: Broker,
    /// The devices behind it.
    pub devices: Vec<Device>,
    /// Names the session on the broker: unique among its clients, the same after every restart.
    pub client_id: String,
    /// For the topic of the gateway's own state, `pipepost/<gateway>/status`.
    pub gateway: GatewayId,
    /// Remembers which subscriptions the session on the broker may still hold, so that those that left the
    /// configuration are ended. `None`: they are not.
    pub subscriptions_file: Option<PathBuf>,
    /// Where messages and reports go.
    pub events: mpsc::Sender<DriverEvent>,
    /// Becomes `true` when the gateway stops.
    pub stop: watch::Receiver<bool>,
}

/// The devices of one broker that carry a channel, with their mappings compiled.
pub fn devices(
    broker: &str,
    devices: &[config::Device],
    channels: &[config::Channel],
) -> Result<Vec<Device>, MappingError> {
    let carried = |device: &config::Device| {
        channels
            .iter()
            .find(|channel| channel.device.as_deref() == Some(device.name.as_str()))
    };
    devices
        .iter()
        .filter(|device| device.broker == broker)
        .filter_map(|device| Some((device, carried(device)?)))
        .map(|(device, channel)| {
            let mapping = Mapping::compile(&device.spec)?;
            Ok(Device {
                name: device.name.clone(),
                channel: channel.id.clone(),
                mapping,
            })
        })
        .collect()
}

/// Makes the driver of one broker. The future is its work; it ends after `stop`, when what was in flight is
/// settled or a few seconds have passed.
#[must_use = "the driver works only while its future is polled"]
pub fn spawn(setup: Setup) -> (DriverHandle, impl Future<Output = ()> + Send) {
    let (outgoing, jobs) = mpsc::channel(OUTGOING_CAPACITY);
    let (link, link_state) = watch::channel(Link::Starting);
    let handle = DriverHandle {
        name: Arc::from(format!("broker {}", setup.broker.name)),
        outgoing,
        link: link_state,
        modem: None,
    };
    let window = usize::from(setup.broker.receive_maximum.max(1));
    // Room for all that the broker may send unacknowledged, and as much again for QoS 0.
    let (packets, arrived) = mpsc::channel(window * 2);
    let (acks, acknowledged) = mpsc::channel(window * 2);
    let devices: Arc<[Device]> = setup.devices.into();
    let epoch = Arc::new(AtomicU64::new(0));
    let intake = intake::Intake::new(
        Arc::clone(&devices),
        window,
        setup.events,
        arrived,
        acks,
        Arc::clone(&epoch),
    );
    let filters: BTreeSet<String> = devices
        .iter()
        .flat_map(|device| device.mapping.filters())
        .collect();
    let announce = setup.broker.announce;
    let connection = connection::Connection::new(connection::Parts {
        broker: setup.broker,
        devices,
        client_id: setup.client_id,
        status_topic: announce.then(|| format!("pipepost/{}/status", setup.gateway)),
        filters,
        subscriptions_file: setup.subscriptions_file,
        packets,
        epoch,
        acks: acknowledged,
        jobs,
        link,
        stop: setup.stop,
    });
    let work = async move {
        tokio::join!(connection.run(), intake.run());
    };
    (handle, work)
}
