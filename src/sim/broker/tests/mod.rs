//! Conformance and faults, with a client that speaks the bare protocol, with rumqttc and with mosquitto's clients.

mod clients;
mod conformance;
mod faults;
mod limits;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::v5::{self, Packet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Broker, Options, QoS, Stats};

/// Nothing here takes long; this is only reached when something is broken.
const LIMIT: Duration = Duration::from_secs(10);

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn broker() -> Broker {
    Broker::start(loopback()).await.unwrap()
}

async fn broker_with(options: Options) -> Broker {
    Broker::start_with(loopback(), options).await.unwrap()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = timeout(LIMIT, future).await else {
        panic!("waited too long for {what}")
    };
    value
}

async fn until(broker: &Broker, what: &str, condition: impl Fn(&Stats) -> bool) {
    let mut stats = broker.watch_stats();
    let reached = timeout(LIMIT, stats.wait_for(|stats| condition(stats)))
        .await
        .is_ok();
    assert!(reached, "waited too long for {what}: {:?}", broker.stats());
}

/// How the bare client connects.
#[derive(Clone)]
struct Connect {
    id: &'static str,
    clean: bool,
    keep_alive: u16,
    expiry: Option<u32>,
    receive_maximum: Option<u16>,
    max_packet: Option<u32>,
    will: Option<v5::LastWill>,
    login: Option<v5::Login>,
}

impl Connect {
    fn clean(id: &'static str) -> Self {
        Self {
            id,
            clean: true,
            keep_alive: 0,
            expiry: None,
            receive_maximum: None,
            max_packet: None,
            will: None,
            login: None,
        }
    }

    fn persistent(id: &'static str) -> Self {
        Self {
            clean: false,
            expiry: Some(3600),
            ..Self::clean(id)
        }
    }
}

/// A version 5 client that does nothing by itself.
struct Bare {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Bare {
    async fn open(broker: &Broker) -> Self {
        Self {
            stream: TcpStream::connect(broker.address()).await.unwrap(),
            buffer: BytesMut::new(),
        }
    }

    /// Connects and returns what CONNACK says.
    async fn try_connect(broker: &Broker, how: &Connect) -> (Self, v5::ConnAck) {
        let mut client = Self::open(broker).await;
        let properties = v5::ConnectProperties {
            session_expiry_interval: how.expiry,
            receive_maximum: how.receive_maximum,
            max_packet_size: how.max_packet,
            ..v5::ConnectProperties::new()
        };
        let connect = v5::Connect {
            keep_alive: how.keep_alive,
            client_id: how.id.to_owned(),
            clean_start: how.clean,
            properties: Some(properties),
        };
        client
            .send(Packet::Connect(connect, how.will.clone(), how.login.clone()))
            .await;
        match client.next().await {
            Packet::ConnAck(ack) => (client, ack),
            other => panic!("{other:?} instead of CONNACK"),
        }
    }

    /// Connects; the second value says whether there was a session.
    async fn connect(broker: &Broker, how: &Connect) -> (Self, bool) {
        let (client, ack) = Self::try_connect(broker, how).await;
        assert_eq!(ack.code, v5::ConnectReturnCode::Success);
        (client, ack.session_present)
    }

    async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).unwrap();
        self.send_bytes(&bytes).await;
    }

    async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next packet; `None` when the broker has closed the connection.
    async fn receive(&mut self) -> Option<Packet> {
        within("a packet", async {
            loop {
                match Packet::read(&mut self.buffer, None) {
                    Ok(packet) => return Some(packet),
                    Err(super::codec::bytes5::Error::InsufficientBytes(_)) => {}
                    Err(error) => panic!("the broker sent nonsense: {error}"),
                }
                // A cut connection may end with a reset.
                if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        })
        .await
    }

    async fn next(&mut self) -> Packet {
        self.receive().await.expect("the broker closed the connection")
    }

    async fn next_publish(&mut self) -> v5::Publish {
        match self.next().await {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?} instead of PUBLISH"),
        }
    }

    /// The reason the broker gives before it closes the connection.
    async fn dismissed(&mut self) -> Option<v5::DisconnectReasonCode> {
        let reason = match self.receive().await {
            Some(Packet::Disconnect(disconnect)) => Some(disconnect.reason_code),
            Some(other) => panic!("{other:?} instead of the end"),
            None => return None,
        };
        assert_eq!(
            self.receive().await,
            None,
            "the connection goes on after DISCONNECT"
        );
        reason
    }

    async fn subscribe_with(&mut self, filter: v5::Filter) -> v5::SubscribeReasonCode {
        let mut subscribe = v5::Subscribe::new(filter, None);
        subscribe.pkid = 7;
        self.send(Packet::Subscribe(subscribe)).await;
        match self.next().await {
            Packet::SubAck(ack) => {
                assert_eq!(ack.pkid, 7);
                ack.return_codes[0]
            }
            other => panic!("{other:?} instead of SUBACK"),
        }
    }

    async fn subscribe(&mut self, filter: &str) {
        let grant = self
            .subscribe_with(v5::Filter::new(filter, QoS::AtLeastOnce))
            .await;
        assert_eq!(grant, v5::SubscribeReasonCode::Success(QoS::AtLeastOnce));
    }

    async fn publish(&mut self, topic: &str, payload: &str, id: u16) {
        self.send(publish(topic, payload, id)).await;
    }

    async fn acknowledge(&mut self, id: u16) {
        self.send(Packet::PubAck(v5::PubAck::new(id, None))).await;
    }

    async fn expect_puback(&mut self, id: u16) {
        match self.next().await {
            Packet::PubAck(ack) => assert_eq!(ack.pkid, id),
            other => panic!("{other:?} instead of PUBACK {id}"),
        }
    }

    /// A PINGRESP shows that everything before it was handled and nothing else came.
    async fn expect_silence(&mut self) {
        self.send(Packet::PingReq(v5::PingReq)).await;
        assert_eq!(self.next().await, Packet::PingResp(v5::PingResp));
    }
}

/// A PUBLISH with QoS 1, or with QoS 0 for id 0.
fn publish(topic: &str, payload: &str, id: u16) -> Packet {
    let qos = if id == 0 {
        QoS::AtMostOnce
    } else {
        QoS::AtLeastOnce
    };
    let mut publish = v5::Publish::new(topic, qos, payload.to_owned(), None);
    publish.pkid = id;
    Packet::Publish(publish)
}

fn text(publish: &v5::Publish) -> &str {
    std::str::from_utf8(&publish.payload).unwrap()
}
