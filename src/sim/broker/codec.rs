//! Packets of both protocol versions as the broker sees them. rumqttc's codecs read and write them; what those accept
//! although the specification forbids it (flags, packet ids, aliases) is checked here.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::{self as bytes4, v4};
pub(super) use rumqttc::v5::mqttbytes as bytes5;
use rumqttc::v5::mqttbytes::{QoS, v5};

use super::topic;
use v5::DisconnectReasonCode as Reason;

/// Protocol version of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// MQTT 3.1.1.
    V4,
    /// MQTT 5.0.
    V5,
}

/// Why a client is thrown out.
#[derive(Debug)]
pub(super) struct Violation {
    /// Told to a version 5 client.
    pub(super) code: Reason,
    /// For the log and the statistics.
    pub(super) why: String,
}

impl Violation {
    pub(super) fn new(code: Reason, why: impl Into<String>) -> Self {
        Self {
            code,
            why: why.into(),
        }
    }
}

/// An application message on its way through the broker.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) topic: Arc<str>,
    pub(super) payload: Bytes,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) properties: Option<Arc<v5::PublishProperties>>,
}

/// Published on behalf of a client that went without a word.
#[derive(Clone, Debug)]
pub(super) struct Will {
    pub(super) message: Message,
    /// Seconds.
    pub(super) delay: u32,
}

/// The first packet of a connection.
#[derive(Debug)]
pub(super) struct Connect {
    pub(super) version: Version,
    pub(super) client_id: String,
    pub(super) clean_start: bool,
    /// Seconds; 0 means none.
    pub(super) keep_alive: u16,
    /// Seconds the session outlives the connection; `u32::MAX` is for ever.
    pub(super) expiry: u32,
    /// QoS 1 messages that the client takes unacknowledged.
    pub(super) receive_maximum: u16,
    /// Bytes.
    pub(super) max_packet: u32,
    pub(super) will: Option<Will>,
    pub(super) login: Option<(String, String)>,
}

/// A packet from a client.
#[derive(Debug)]
pub(super) enum Received {
    Connect(Box<Connect>),
    Publish {
        message: Message,
        id: u16,
        dup: bool,
    },
    PubAck {
        id: u16,
    },
    Subscribe {
        id: u16,
        filters: Vec<v5::Filter>,
        identifier: Option<usize>,
    },
    Unsubscribe {
        id: u16,
        filters: Vec<String>,
    },
    Ping,
    Disconnect {
        with_will: bool,
        expiry: Option<u32>,
    },
}

/// A packet to a client.
#[derive(Debug)]
pub(super) enum Packet {
    ConnAck {
        session_present: bool,
        assigned: Option<String>,
        receive_maximum: u16,
        max_packet: u32,
    },
    Refuse(v5::ConnectReturnCode),
    PubAck {
        id: u16,
        matched: bool,
    },
    SubAck {
        id: u16,
        grants: Vec<Result<QoS, v5::SubscribeReasonCode>>,
    },
    UnsubAck {
        id: u16,
        existed: Vec<bool>,
    },
    PingResp,
    Publish(Box<v5::Publish>),
    Disconnect(Reason),
}

/// Fixed header: first byte, header length, remaining length. `None` means that more bytes are needed.
fn fixed_header(buffer: &[u8]) -> Result<Option<(u8, usize, usize)>, Violation> {
    let Some((&first, rest)) = buffer.split_first() else {
        return Ok(None);
    };
    let mut length = 0_usize;
    for (index, &byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((first, index + 2, length)));
        }
    }
    if rest.len() >= 4 {
        return Err(Violation::new(
            Reason::MalformedPacket,
            "remaining length has more than four bytes",
        ));
    }
    Ok(None)
}

/// The flags that section 2.1.3 reserves.
fn check_flags(first: u8) -> Result<(), Violation> {
    let flags = first & 0x0f;
    let wanted = match first >> 4 {
        3 if flags & 0b0110 == 0b0110 => return Err(Violation::new(Reason::MalformedPacket, "QoS 3")),
        3 if flags & 0b1110 == 0b1000 => {
            return Err(Violation::new(Reason::MalformedPacket, "DUP with QoS 0"));
        }
        3 => return Ok(()),
        6 | 8 | 10 => 2,
        _ => 0,
    };
    if flags == wanted {
        Ok(())
    } else {
        Err(Violation::new(
            Reason::MalformedPacket,
            format!("reserved flags {flags:#x} in packet {}", first >> 4),
        ))
    }
}

/// Takes one packet off the buffer. `version` is unknown before CONNECT. `Ok(None)`: more bytes are needed.
pub(super) fn decode(
    version: Option<Version>,
    buffer: &mut BytesMut,
    max_packet: u32,
) -> Result<Option<Received>, Violation> {
    let Some((first, header, remaining)) = fixed_header(buffer)? else {
        return Ok(None);
    };
    check_flags(first)?;
    let total = header.saturating_add(remaining);
    if total > max_packet as usize {
        return Err(Violation::new(
            Reason::PacketTooLarge,
            format!("a packet of {total} bytes, {max_packet} allowed"),
        ));
    }
    let Some(version) = version else {
        if first >> 4 != 1 {
            return Err(Violation::new(
                Reason::ProtocolError,
                "the first packet is not CONNECT",
            ));
        }
        if buffer.len() < total {
            return Ok(None);
        }
        let mut frame = buffer.split_to(total);
        return connect(&mut frame, header).map(|connect| Some(Received::Connect(Box::new(connect))));
    };
    if buffer.len() < total {
        return Ok(None);
    }
    if first >> 4 == 1 {
        return Err(Violation::new(Reason::ProtocolError, "a second CONNECT"));
    }
    let mut frame = buffer.split_to(total);
    match (version, first >> 4) {
        // rumqttc's version 5 codec refuses the two short forms of DISCONNECT.
        (_, 14) if remaining == 0 => Ok(Some(Received::Disconnect {
            with_will: false,
            expiry: None,
        })),
        (Version::V5, 14) if remaining == 1 => {
            let with_will = frame.get(header).is_some_and(|&code| code != 0);
            Ok(Some(Received::Disconnect {
                with_will,
                expiry: None,
            }))
        }
        (Version::V5, _) => decode5(&mut frame).map(Some),
        (Version::V4, _) => decode4(&mut frame).map(Some),
    }
}

fn malformed5(error: &bytes5::Error) -> Violation {
    let code = match error {
        bytes5::Error::EmptySubscription | bytes5::Error::SubscriptionIdZero => Reason::ProtocolError,
        _ => Reason::MalformedPacket,
    };
    Violation::new(code, error.to_string())
}

fn malformed4(error: &bytes4::Error) -> Violation {
    Violation::new(Reason::MalformedPacket, error.to_string())
}

fn connect(frame: &mut BytesMut, header: usize) -> Result<Connect, Violation> {
    let level = match frame.get(header..) {
        Some([0, 4, b'M', b'Q', b'T', b'T', level, flags, ..]) => {
            if flags & 1 != 0 {
                return Err(Violation::new(
                    Reason::MalformedPacket,
                    "reserved CONNECT flag is set",
                ));
            }
            *level
        }
        Some([0, 6, b'M', b'Q', b'I', b's', b'd', b'p', ..]) => 3,
        _ => return Err(Violation::new(Reason::MalformedPacket, "not an MQTT CONNECT")),
    };
    match level {
        4 => match v4::Packet::read(frame, usize::MAX).map_err(|error| malformed4(&error))? {
            v4::Packet::Connect(connect) => connect4(connect),
            _ => Err(Violation::new(
                Reason::ProtocolError,
                "the first packet is not CONNECT",
            )),
        },
        5 => match v5::Packet::read(frame, None).map_err(|error| malformed5(&error))? {
            v5::Packet::Connect(connect, will, login) => connect5(connect, will, login),
            _ => Err(Violation::new(
                Reason::ProtocolError,
                "the first packet is not CONNECT",
            )),
        },
        other => Err(Violation::new(
            Reason::ImplementationSpecificError,
            format!("protocol level {other} is not supported"),
        )),
    }
}

fn connect4(connect: v4::Connect) -> Result<Connect, Violation> {
    let will = match connect.last_will {
        Some(will) => {
            let qos = qos4(will.qos);
            let message = message(will.topic, will.message, qos, will.retain, None)?;
            Some(Will { message, delay: 0 })
        }
        None => None,
    };
    Ok(Connect {
        version: Version::V4,
        client_id: connect.client_id,
        clean_start: connect.clean_session,
        keep_alive: connect.keep_alive,
        // In 3.1.1 a session that is not clean has no end.
        expiry: if connect.clean_session { 0 } else { u32::MAX },
        receive_maximum: u16::MAX,
        max_packet: u32::MAX,
        will,
        login: connect.login.map(|login| (login.username, login.password)),
    })
}

fn connect5(
    connect: v5::Connect,
    will: Option<v5::LastWill>,
    login: Option<v5::Login>,
) -> Result<Connect, Violation> {
    let properties = connect.properties.unwrap_or_default();
    if properties.receive_maximum == Some(0) {
        return Err(Violation::new(Reason::ProtocolError, "receive maximum is 0"));
    }
    if properties.max_packet_size == Some(0) {
        return Err(Violation::new(Reason::ProtocolError, "maximum packet size is 0"));
    }
    let will = match will {
        Some(will) => {
            let topic = utf8(&will.topic)?;
            let delay = will
                .properties
                .as_ref()
                .and_then(|properties| properties.delay_interval)
                .unwrap_or(0);
            let properties = will.properties.map(|properties| v5::PublishProperties {
                payload_format_indicator: properties.payload_format_indicator,
                message_expiry_interval: properties.message_expiry_interval,
                content_type: properties.content_type,
                response_topic: properties.response_topic,
                correlation_data: properties.correlation_data,
                user_properties: properties.user_properties,
                ..v5::PublishProperties::default()
            });
            Some(Will {
                message: message(topic, will.message, will.qos, will.retain, properties)?,
                delay,
            })
        }
        None => None,
    };
    Ok(Connect {
        version: Version::V5,
        client_id: connect.client_id,
        clean_start: connect.clean_start,
        keep_alive: connect.keep_alive,
        expiry: properties.session_expiry_interval.unwrap_or(0),
        receive_maximum: properties.receive_maximum.unwrap_or(u16::MAX),
        max_packet: properties.max_packet_size.unwrap_or(u32::MAX),
        will,
        login: login.map(|login| (login.username, login.password)),
    })
}

fn decode5(frame: &mut BytesMut) -> Result<Received, Violation> {
    match v5::Packet::read(frame, None).map_err(|error| malformed5(&error))? {
        v5::Packet::Publish(publish) => {
            if let Some(properties) = &publish.properties {
                if properties.topic_alias.is_some() {
                    return Err(Violation::new(
                        Reason::TopicAliasInvalid,
                        "topic aliases were not offered",
                    ));
                }
                if !properties.subscription_identifiers.is_empty() {
                    return Err(Violation::new(
                        Reason::ProtocolError,
                        "a client sent a subscription identifier",
                    ));
                }
            }
            let topic = utf8(&publish.topic)?;
            let message = message(
                topic,
                publish.payload,
                publish.qos,
                publish.retain,
                publish.properties,
            )?;
            Ok(Received::Publish {
                message,
                id: publish.pkid,
                dup: publish.dup,
            })
        }
        v5::Packet::PubAck(ack) => Ok(Received::PubAck { id: ack.pkid }),
        v5::Packet::Subscribe(subscribe) => {
            let identifier = subscribe.properties.and_then(|properties| properties.id);
            Ok(Received::Subscribe {
                id: nonzero(subscribe.pkid)?,
                filters: subscribe.filters,
                identifier,
            })
        }
        v5::Packet::Unsubscribe(unsubscribe) => unsubscribe_of(unsubscribe.pkid, unsubscribe.filters),
        v5::Packet::PingReq(_) => Ok(Received::Ping),
        v5::Packet::Disconnect(disconnect) => Ok(Received::Disconnect {
            with_will: disconnect.reason_code != Reason::NormalDisconnection,
            expiry: disconnect
                .properties
                .and_then(|properties| properties.session_expiry_interval),
        }),
        other => Err(Violation::new(
            Reason::ProtocolError,
            format!("unexpected packet {other:?}"),
        )),
    }
}

fn decode4(frame: &mut BytesMut) -> Result<Received, Violation> {
    match v4::Packet::read(frame, usize::MAX).map_err(|error| malformed4(&error))? {
        v4::Packet::Publish(publish) => {
            let message = message(
                publish.topic,
                publish.payload,
                qos4(publish.qos),
                publish.retain,
                None,
            )?;
            Ok(Received::Publish {
                message,
                id: publish.pkid,
                dup: publish.dup,
            })
        }
        v4::Packet::PubAck(ack) => Ok(Received::PubAck { id: ack.pkid }),
        v4::Packet::Subscribe(subscribe) => {
            let filters = subscribe
                .filters
                .into_iter()
                .map(|filter| v5::Filter::new(filter.path, qos4(filter.qos)))
                .collect();
            Ok(Received::Subscribe {
                id: nonzero(subscribe.pkid)?,
                filters,
                identifier: None,
            })
        }
        v4::Packet::Unsubscribe(unsubscribe) => unsubscribe_of(unsubscribe.pkid, unsubscribe.topics),
        v4::Packet::PingReq => Ok(Received::Ping),
        other => Err(Violation::new(
            Reason::ProtocolError,
            format!("unexpected packet {other:?}"),
        )),
    }
}

fn unsubscribe_of(id: u16, filters: Vec<String>) -> Result<Received, Violation> {
    if filters.is_empty() {
        return Err(Violation::new(
            Reason::ProtocolError,
            "UNSUBSCRIBE without a filter",
        ));
    }
    Ok(Received::Unsubscribe {
        id: nonzero(id)?,
        filters,
    })
}

fn nonzero(id: u16) -> Result<u16, Violation> {
    if id == 0 {
        Err(Violation::new(Reason::ProtocolError, "packet id 0"))
    } else {
        Ok(id)
    }
}

fn utf8(bytes: &Bytes) -> Result<String, Violation> {
    String::from_utf8(bytes.to_vec())
        .map_err(|_| Violation::new(Reason::MalformedPacket, "topic is not UTF-8"))
}

fn message(
    topic: String,
    payload: Bytes,
    qos: QoS,
    retain: bool,
    properties: Option<v5::PublishProperties>,
) -> Result<Message, Violation> {
    if qos == QoS::ExactlyOnce {
        return Err(Violation::new(Reason::QoSNotSupported, "QoS 2 was not offered"));
    }
    if !topic::is_name(&topic) {
        return Err(Violation::new(
            Reason::TopicNameInvalid,
            format!("topic {topic:?}"),
        ));
    }
    Ok(Message {
        topic: topic.into(),
        payload,
        qos,
        retain,
        properties: properties.map(Arc::new),
    })
}

fn qos4(qos: bytes4::QoS) -> QoS {
    match qos {
        bytes4::QoS::AtMostOnce => QoS::AtMostOnce,
        bytes4::QoS::AtLeastOnce => QoS::AtLeastOnce,
        bytes4::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}
