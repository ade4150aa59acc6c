//! Packets to clients, written by rumqttc's codecs.

use bytes::{BufMut, BytesMut};
use rumqttc::mqttbytes::{self as bytes4, v4};
use rumqttc::v5::mqttbytes::{QoS, v5};

use super::codec::{Packet, Version};

/// Writes one packet. The error is the codec's, for the log.
pub(super) fn encode(version: Version, packet: Packet, to: &mut BytesMut) -> Result<(), String> {
    match version {
        Version::V5 => encode5(packet, to),
        Version::V4 => encode4(packet, to),
    }
}

fn encode5(packet: Packet, to: &mut BytesMut) -> Result<(), String> {
    let packet = match packet {
        Packet::ConnAck {
            session_present,
            assigned,
            receive_maximum,
            max_packet,
        } => v5::Packet::ConnAck(v5::ConnAck {
            session_present,
            code: v5::ConnectReturnCode::Success,
            properties: Some(v5::ConnAckProperties {
                receive_max: Some(receive_maximum),
                max_qos: Some(1),
                max_packet_size: Some(max_packet),
                assigned_client_identifier: assigned,
                shared_subscription_available: Some(0),
                ..no_properties()
            }),
        }),
        Packet::Refuse(code) => v5::Packet::ConnAck(v5::ConnAck {
            session_present: false,
            code,
            properties: None,
        }),
        Packet::PubAck { id, matched } => {
            let mut ack = v5::PubAck::new(id, None);
            if !matched {
                ack.reason = v5::PubAckReason::NoMatchingSubscribers;
            }
            v5::Packet::PubAck(ack)
        }
        Packet::SubAck { id, grants } => v5::Packet::SubAck(v5::SubAck {
            pkid: id,
            return_codes: grants
                .into_iter()
                .map(|grant| grant.map_or_else(|code| code, v5::SubscribeReasonCode::Success))
                .collect(),
            properties: None,
        }),
        Packet::UnsubAck { id, existed } => v5::Packet::UnsubAck(v5::UnsubAck {
            pkid: id,
            reasons: existed
                .into_iter()
                .map(|existed| {
                    if existed {
                        v5::UnsubAckReason::Success
                    } else {
                        v5::UnsubAckReason::NoSubscriptionExisted
                    }
                })
                .collect(),
            properties: None,
        }),
        Packet::PingResp => v5::Packet::PingResp(v5::PingResp),
        Packet::Publish(publish) => v5::Packet::Publish(*publish),
        Packet::Disconnect(code) => {
            // Written by hand: the codec states a length of 1 and then writes two bytes.
            to.put_slice(&[0xe0, 2, code as u8, 0]);
            return Ok(());
        }
    };
    packet
        .write(to, None)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

fn no_properties() -> v5::ConnAckProperties {
    v5::ConnAckProperties {
        session_expiry_interval: None,
        receive_max: None,
        max_qos: None,
        retain_available: None,
        max_packet_size: None,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    }
}

fn encode4(packet: Packet, to: &mut BytesMut) -> Result<(), String> {
    let packet = match packet {
        Packet::ConnAck { session_present, .. } => {
            v4::Packet::ConnAck(v4::ConnAck::new(v4::ConnectReturnCode::Success, session_present))
        }
        Packet::Refuse(code) => v4::Packet::ConnAck(v4::ConnAck::new(refusal4(code), false)),
        Packet::PubAck { id, .. } => v4::Packet::PubAck(v4::PubAck::new(id)),
        Packet::SubAck { id, grants } => v4::Packet::SubAck(v4::SubAck::new(
            id,
            grants
                .into_iter()
                .map(|grant| {
                    grant.map_or(v4::SubscribeReasonCode::Failure, |qos| {
                        v4::SubscribeReasonCode::Success(to_qos4(qos))
                    })
                })
                .collect(),
        )),
        Packet::UnsubAck { id, .. } => v4::Packet::UnsubAck(v4::UnsubAck::new(id)),
        Packet::PingResp => v4::Packet::PingResp,
        Packet::Publish(publish) => {
            let topic = String::from_utf8_lossy(&publish.topic).into_owned();
            let mut packet = v4::Publish::from_bytes(topic, to_qos4(publish.qos), publish.payload);
            packet.dup = publish.dup;
            packet.retain = publish.retain;
            packet.pkid = publish.pkid;
            v4::Packet::Publish(packet)
        }
        // 3.1.1 has no DISCONNECT from the server: closing says it.
        Packet::Disconnect(_) => return Ok(()),
    };
    packet
        .write(to, usize::MAX)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

fn refusal4(code: v5::ConnectReturnCode) -> v4::ConnectReturnCode {
    match code {
        v5::ConnectReturnCode::UnsupportedProtocolVersion => v4::ConnectReturnCode::RefusedProtocolVersion,
        v5::ConnectReturnCode::ClientIdentifierNotValid => v4::ConnectReturnCode::BadClientId,
        v5::ConnectReturnCode::BadUserNamePassword => v4::ConnectReturnCode::BadUserNamePassword,
        v5::ConnectReturnCode::NotAuthorized => v4::ConnectReturnCode::NotAuthorized,
        _ => v4::ConnectReturnCode::ServiceUnavailable,
    }
}

fn to_qos4(qos: QoS) -> bytes4::QoS {
    match qos {
        QoS::AtMostOnce => bytes4::QoS::AtMostOnce,
        QoS::AtLeastOnce => bytes4::QoS::AtLeastOnce,
        QoS::ExactlyOnce => bytes4::QoS::ExactlyOnce,
    }
}
