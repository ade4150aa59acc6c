//! Both of the library's clients behind one face: what MQTT 3.1.1 says is put into the words of MQTT 5.

use std::io;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectProperties, ConnectReturnCode, Filter, LastWill, Packet, PingReq, PubAck, Publish,
    SubAck, SubscribeReasonCode, UnsubAck,
};
use rumqttc::v5::mqttbytes::{self as bytes5, QoS};
use rumqttc::v5::{self, ConnectionError, Event, StateError};
use rumqttc::{self as v4, NetworkOptions, Outgoing, Transport};

use super::CONNECT_TIMEOUT;
use crate::config::{Broker, Protocol};

/// The library reuses packet identifiers up to this number.
const PACKET_IDS: u16 = 16;
/// Largest packet that is sent to an MQTT 3.1.1 broker, which cannot say what it takes: the protocol's own limit.
const LARGEST_SENT: usize = 268_435_455;

/// How a session is to be.
pub(super) struct Session<'a> {
    pub(super) client_id: &'a str,
    /// The broker keeps it between connections, and nothing is acknowledged unasked.
    pub(super) persistent: bool,
    /// Topic on which the broker says "offline" when the connection is lost.
    pub(super) will: Option<&'a str>,
    /// How many requests the library takes at a time.
    pub(super) requests: usize,
}

/// The requesting half.
pub(super) enum Client {
    V5(v5::AsyncClient),
    V4(v4::AsyncClient),
}

/// The half that is polled.
pub(super) enum Library {
    V5(Box<v5::EventLoop>),
    V4(Box<v4::EventLoop>),
}

/// The library has no room for a request now.
pub(super) struct Full;

/// Makes both halves for a broker. Nothing is connected before the first poll.
pub(super) fn new(broker: &Broker, session: &Session<'_>) -> (Client, Library) {
    match broker.protocol {
        Protocol::V5 => {
            let (client, library) = v5::AsyncClient::new(options5(broker, session), session.requests);
            (Client::V5(client), Library::V5(Box::new(library)))
        }
        Protocol::V4 => {
            let (client, mut library) = v4::AsyncClient::new(options4(broker, session), session.requests);
            let mut network = network();
            network.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
            library.set_network_options(network);
            (Client::V4(client), Library::V4(Box::new(library)))
        }
    }
}

impl Client {
    pub(super) fn subscribe(&self, filters: Vec<Filter>) -> Result<(), Full> {
        match self {
            Self::V5(client) => client.try_subscribe_many(filters).map_err(|_| Full),
            Self::V4(client) => {
                let filters = filters
                    .into_iter()
                    .map(|filter| v4::SubscribeFilter::new(filter.path, qos4(filter.qos)));
                client.try_subscribe_many(filters).map_err(|_| Full)
            }
        }
    }

    pub(super) fn unsubscribe(&self, filter: String) -> Result<(), Full> {
        match self {
            Self::V5(client) => client.try_unsubscribe(filter).map_err(|_| Full),
            Self::V4(client) => client.try_unsubscribe(filter).map_err(|_| Full),
        }
    }

    pub(super) fn publish(
        &self,
        topic: String,
        qos: QoS,
        retain: bool,
        payload: Vec<u8>,
    ) -> Result<(), Full> {
        match self {
            Self::V5(client) => client.try_publish(topic, qos, retain, payload).map_err(|_| Full),
            Self::V4(client) => client
                .try_publish(topic, qos4(qos), retain, payload)
                .map_err(|_| Full),
        }
    }

    pub(super) fn ack(&self, publish: &Publish) -> Result<(), Full> {
        match self {
            Self::V5(client) => client.try_ack(publish).map_err(|_| Full),
            Self::V4(client) => {
                let mut own = v4::Publish::new(String::new(), qos4(publish.qos), Vec::new());
                own.pkid = publish.pkid;
                client.try_ack(&own).map_err(|_| Full)
            }
        }
    }

    pub(super) fn disconnect(&self) -> Result<(), Full> {
        match self {
            Self::V5(client) => client.try_disconnect().map_err(|_| Full),
            Self::V4(client) => client.try_disconnect().map_err(|_| Full),
        }
    }
}

impl Library {
    /// The next event. A poll that is dropped before it has answered may lose what it has read.
    pub(super) async fn poll(&mut self) -> Result<Event, ConnectionError> {
        match self {
            Self::V5(library) => library.poll().await,
            Self::V4(library) => library.poll().await.map(event).map_err(error),
        }
    }

    pub(super) fn set_transport(&mut self, transport: Transport) {
        match self {
            Self::V5(library) => drop(library.options.set_transport(transport)),
            Self::V4(library) => drop(library.mqtt_options.set_transport(transport)),
        }
    }

    /// As agreed with the broker.
    pub(super) fn keep_alive(&self) -> Duration {
        match self {
            Self::V5(library) => library.options.keep_alive(),
            Self::V4(library) => library.mqtt_options.keep_alive(),
        }
    }

    /// From the next connection on.
    pub(super) fn read_packets_of(&mut self, size: usize) {
        match self {
            Self::V5(library) => drop(library.options.set_max_packet_size(u32::try_from(size).ok())),
            Self::V4(library) => drop(library.mqtt_options.set_max_packet_size(size, LARGEST_SENT)),
        }
    }

    /// Ends the connection, forgets what must not survive it, and gives back the events that were read before.
    pub(super) fn forget(&mut self) -> Vec<Event> {
        match self {
            Self::V5(library) => {
                library.clean();
                library.state.collision = None;
                library.pending.clear();
                library.state.events.drain(..).collect()
            }
            Self::V4(library) => {
                library.clean();
                library.state.collision = None;
                library.pending.clear();
                library.state.events.drain(..).map(event).collect()
            }
        }
    }
}

/// The library joins host and port with a colon; TLS wants the bare name.
fn host(broker: &Broker) -> String {
    if broker.host.contains(':') && broker.tls.is_none() && !broker.host.starts_with('[') {
        format!("[{}]", broker.host)
    } else {
        broker.host.clone()
    }
}

fn network() -> NetworkOptions {
    let mut network = NetworkOptions::new();
    // Acknowledgements are small; Nagle's algorithm would hold each back until the one before it has arrived.
    network.set_tcp_nodelay(true);
    network
}

/// The library asserts at least 5 s.
fn keep_alive(broker: &Broker) -> Duration {
    broker.keep_alive.max(Duration::from_secs(5))
}

fn password(broker: &Broker) -> &str {
    broker.password.as_ref().map_or("", |password| password.expose())
}

fn options5(broker: &Broker, session: &Session<'_>) -> v5::MqttOptions {
    let mut options = v5::MqttOptions::new(session.client_id, host(broker), broker.port);
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = Some(if session.persistent {
        u32::try_from(broker.session_expiry.as_secs()).unwrap_or(u32::MAX)
    } else {
        0
    });
    properties.receive_maximum = Some(broker.receive_maximum.max(1));
    properties.max_packet_size = Some(broker.max_packet_size);
    options
        .set_connect_properties(properties)
        .set_clean_start(!session.persistent)
        .set_manual_acks(session.persistent)
        .set_keep_alive(keep_alive(broker))
        .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
        .set_outgoing_inflight_upper_limit(PACKET_IDS);
    if let Some(topic) = session.will {
        options.set_last_will(LastWill::new(topic, "offline", QoS::AtLeastOnce, true, None));
    }
    options.set_network_options(network());
    if let Some(username) = &broker.username {
        options.set_credentials(username, password(broker));
    }
    options
}

fn options4(broker: &Broker, session: &Session<'_>) -> v4::MqttOptions {
    let mut options = v4::MqttOptions::new(session.client_id, host(broker), broker.port);
    options
        .set_clean_session(!session.persistent)
        .set_manual_acks(session.persistent)
        .set_keep_alive(keep_alive(broker))
        .set_inflight(PACKET_IDS)
        .set_max_packet_size(
            usize::try_from(broker.max_packet_size).unwrap_or(usize::MAX),
            LARGEST_SENT,
        );
    if let Some(topic) = session.will {
        options.set_last_will(v4::LastWill::new(topic, "offline", v4::QoS::AtLeastOnce, true));
    }
    if let Some(username) = &broker.username {
        options.set_credentials(username, password(broker));
    }
    options
}

const fn qos4(qos: QoS) -> v4::QoS {
    match qos {
        QoS::AtMostOnce => v4::QoS::AtMostOnce,
        QoS::AtLeastOnce => v4::QoS::AtLeastOnce,
        QoS::ExactlyOnce => v4::QoS::ExactlyOnce,
    }
}

const fn qos5(qos: v4::QoS) -> QoS {
    match qos {
        v4::QoS::AtMostOnce => QoS::AtMostOnce,
        v4::QoS::AtLeastOnce => QoS::AtLeastOnce,
        v4::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn event(event: v4::Event) -> Event {
    match event {
        v4::Event::Outgoing(written) => Event::Outgoing(written),
        v4::Event::Incoming(packet) => match packet {
            v4::Packet::ConnAck(ack) => Event::Incoming(Packet::ConnAck(ConnAck {
                session_present: ack.session_present,
                code: ConnectReturnCode::Success,
                properties: None,
            })),
            v4::Packet::Publish(publish) => Event::Incoming(Packet::Publish(Publish {
                dup: publish.dup,
                qos: qos5(publish.qos),
                retain: publish.retain,
                topic: publish.topic.into(),
                pkid: publish.pkid,
                payload: publish.payload,
                properties: None,
            })),
            v4::Packet::PubAck(ack) => Event::Incoming(Packet::PubAck(PubAck::new(ack.pkid, None))),
            v4::Packet::SubAck(ack) => Event::Incoming(Packet::SubAck(SubAck {
                pkid: ack.pkid,
                return_codes: ack.return_codes.into_iter().map(granted).collect(),
                properties: None,
            })),
            v4::Packet::UnsubAck(ack) => Event::Incoming(Packet::UnsubAck(UnsubAck {
                pkid: ack.pkid,
                reasons: Vec::new(),
                properties: None,
            })),
            // Nothing that the driver looks at.
            _ => Event::Outgoing(Outgoing::PingReq),
        },
    }
}

const fn granted(code: v4::SubscribeReasonCode) -> SubscribeReasonCode {
    match code {
        v4::SubscribeReasonCode::Success(qos) => SubscribeReasonCode::Success(qos5(qos)),
        v4::SubscribeReasonCode::Failure => SubscribeReasonCode::Failure,
    }
}

fn error(error: v4::ConnectionError) -> ConnectionError {
    match error {
        v4::ConnectionError::NetworkTimeout | v4::ConnectionError::FlushTimeout => {
            ConnectionError::Io(io::Error::from(io::ErrorKind::TimedOut))
        }
        v4::ConnectionError::Tls(error) => ConnectionError::Tls(error),
        v4::ConnectionError::Io(error) => ConnectionError::Io(error),
        v4::ConnectionError::ConnectionRefused(code) => ConnectionError::ConnectionRefused(match code {
            v4::ConnectReturnCode::RefusedProtocolVersion => ConnectReturnCode::RefusedProtocolVersion,
            v4::ConnectReturnCode::BadClientId => ConnectReturnCode::BadClientId,
            v4::ConnectReturnCode::ServiceUnavailable => ConnectReturnCode::ServiceUnavailable,
            v4::ConnectReturnCode::BadUserNamePassword => ConnectReturnCode::BadUserNamePassword,
            v4::ConnectReturnCode::NotAuthorized => ConnectReturnCode::NotAuthorized,
            v4::ConnectReturnCode::Success => ConnectReturnCode::Success,
        }),
        v4::ConnectionError::NotConnAck(_) => ConnectionError::NotConnAck(Box::new(Packet::PingReq(PingReq))),
        v4::ConnectionError::RequestsDone => ConnectionError::RequestsDone,
        v4::ConnectionError::MqttState(error) => ConnectionError::MqttState(match error {
            v4::StateError::Io(error) => StateError::Io(error),
            v4::StateError::ConnectionAborted => StateError::ConnectionAborted,
            v4::StateError::AwaitPingResp => StateError::AwaitPingResp,
            v4::StateError::Unsolicited(packet_id) => StateError::Unsolicited(packet_id),
            v4::StateError::Deserialization(v4::Error::PayloadSizeLimitExceeded(pkt_size)) => {
                StateError::Deserialization(bytes5::Error::PayloadSizeLimitExceeded { pkt_size, max: 0 })
            }
            v4::StateError::Deserialization(_) => StateError::Deserialization(bytes5::Error::MalformedPacket),
            error => StateError::Io(io::Error::other(error.to_string())),
        }),
    }
}
