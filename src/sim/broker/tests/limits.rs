//! Limits, broken clients and backpressure.

use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{self, DisconnectReasonCode as Reason, Packet};

use super::super::{Options, QoS};
use super::{Bare, Connect, broker, broker_with, publish, text, until, within};

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_told_why_and_closed() {
    let qos2 = |topic: &str| {
        let mut publish = v5::Publish::new(topic, QoS::ExactlyOnce, "x", None);
        publish.pkid = 1;
        let mut bytes = bytes::BytesMut::new();
        publish.write(&mut bytes).unwrap();
        bytes.to_vec()
    };
    let cases: [(&str, Vec<u8>, Reason); 11] = [
        (
            "a second CONNECT",
            b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00".to_vec(),
            Reason::ProtocolError,
        ),
        ("QoS 2", qos2("a"), Reason::QoSNotSupported),
        (
            "QoS 3",
            b"\x36\x06\x00\x01a\x00\x01\x00".to_vec(),
            Reason::MalformedPacket,
        ),
        (
            "DUP with QoS 0",
            b"\x38\x04\x00\x01a\x00".to_vec(),
            Reason::MalformedPacket,
        ),
        (
            "a wildcard in a topic",
            b"\x30\x06\x00\x03a/#\x00".to_vec(),
            Reason::TopicNameInvalid,
        ),
        (
            "an empty topic",
            b"\x30\x03\x00\x00\x00".to_vec(),
            Reason::TopicNameInvalid,
        ),
        (
            "a topic alias",
            b"\x30\x07\x00\x01a\x03\x23\x00\x01".to_vec(),
            Reason::TopicAliasInvalid,
        ),
        (
            "a topic that is not UTF-8",
            b"\x30\x04\x00\x01\xff\x00".to_vec(),
            Reason::MalformedPacket,
        ),
        (
            "SUBSCRIBE with packet id 0",
            b"\x82\x07\x00\x00\x00\x00\x01a\x01".to_vec(),
            Reason::ProtocolError,
        ),
        (
            "reserved flags of SUBSCRIBE",
            b"\x80\x07\x00\x01\x00\x00\x01a\x01".to_vec(),
            Reason::MalformedPacket,
        ),
        (
            "a CONNACK from a client",
            b"\x20\x03\x00\x00\x00".to_vec(),
            Reason::ProtocolError,
        ),
    ];
    let broker = broker().await;
    let count = cases.len() as u64;
    for (what, bytes, reason) in cases {
        let (mut client, _) = Bare::connect(&broker, &Connect::clean("c")).await;
        client.send_bytes(&bytes).await;
        assert_eq!(client.dismissed().await, Some(reason), "{what}");
    }
    assert_eq!(broker.stats().violations, count);
}

#[tokio::test]
async fn what_comes_before_connect_is_closed_without_an_answer() {
    let broker = broker().await;
    for bytes in [
        b"\xc0\x00".as_slice(),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x10\xff\xff\xff\xff\x01",
    ] {
        let mut client = Bare::open(&broker).await;
        client.send_bytes(bytes).await;
        assert_eq!(client.dismissed().await, None);
    }
}

#[tokio::test]
async fn a_client_without_sign_of_life_is_closed_after_one_and_a_half_times_its_keep_alive() {
    let broker = broker().await;
    let (mut client, _) = Bare::connect(
        &broker,
        &Connect {
            keep_alive: 1,
            ..Connect::clean("c")
        },
    )
    .await;
    let start = std::time::Instant::now();
    assert_eq!(client.dismissed().await, Some(Reason::KeepAliveTimeout));
    assert!(
        start.elapsed() >= Duration::from_millis(1400),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_client_gets_no_more_unacknowledged_messages_than_it_asked_for() {
    let broker = broker().await;
    let (mut client, _) = Bare::connect(
        &broker,
        &Connect {
            receive_maximum: Some(2),
            ..Connect::persistent("c")
        },
    )
    .await;
    client.subscribe("a").await;
    for text in ["1", "2", "3"] {
        broker
            .publish_local("a", text, QoS::AtLeastOnce, false)
            .await
            .unwrap();
    }
    let first = client.next_publish().await;
    assert_eq!(text(&client.next_publish().await), "2");
    client.expect_silence().await;
    client.acknowledge(first.pkid).await;
    assert_eq!(text(&client.next_publish().await), "3");

    // The limit of the next connection counts for what is repeated, too.
    drop(client);
    until(&broker, "the end", |stats| stats.connections == 0).await;
    let (mut client, _) = Bare::connect(
        &broker,
        &Connect {
            receive_maximum: Some(1),
            ..Connect::persistent("c")
        },
    )
    .await;
    let again = client.next_publish().await;
    assert_eq!((text(&again), again.dup), ("2", true));
    client.expect_silence().await;
    client.acknowledge(again.pkid).await;
    assert_eq!(text(&client.next_publish().await), "3");
}

#[tokio::test]
async fn a_client_that_sends_too_much_at_once_or_too_large_a_packet_is_closed() {
    let options = Options {
        receive_maximum: 2,
        max_packet: 100,
        queue_length: 1,
        ..Options::default()
    };
    let broker = broker_with(options).await;
    let (mut slow, _) = Bare::connect(&broker, &Connect::persistent("slow")).await;
    slow.subscribe("a").await;
    drop(slow);
    until(&broker, "the end", |stats| stats.connections == 0).await;

    let (mut client, ack) = Bare::try_connect(&broker, &Connect::clean("c")).await;
    let stated = ack.properties.unwrap();
    assert_eq!(
        (stated.receive_max, stated.max_packet_size, stated.max_qos),
        (Some(2), Some(100), Some(1))
    );
    for id in 1..=4 {
        client.publish("a", "x", id).await;
    }
    client.expect_puback(1).await;
    assert_eq!(client.dismissed().await, Some(Reason::ReceiveMaximumExceeded));

    let (mut client, _) = Bare::connect(&broker, &Connect::clean("c")).await;
    client.send(publish("b", &"x".repeat(100), 1)).await;
    assert_eq!(client.dismissed().await, Some(Reason::PacketTooLarge));
}

#[tokio::test]
async fn a_message_too_large_for_a_subscriber_is_kept_from_it_and_the_rest_goes_on() {
    let broker = broker().await;
    let (mut client, _) = Bare::connect(
        &broker,
        &Connect {
            max_packet: Some(64),
            ..Connect::clean("c")
        },
    )
    .await;
    client.subscribe("a").await;
    broker
        .publish_local("a", "x".repeat(64), QoS::AtLeastOnce, false)
        .await
        .unwrap();
    broker
        .publish_local("a", "small", QoS::AtLeastOnce, false)
        .await
        .unwrap();
    assert_eq!(text(&client.next_publish().await), "small");
    assert_eq!(broker.stats().too_large, 1);
}

#[tokio::test]
async fn a_full_queue_delays_the_puback_and_loses_nothing() {
    let broker = broker_with(Options {
        queue_length: 10,
        receive_maximum: 5,
        ..Options::default()
    })
    .await;
    let (mut away, _) = Bare::connect(&broker, &Connect::persistent("away")).await;
    away.subscribe("a").await;
    drop(away);
    until(&broker, "the end", |stats| stats.connections == 0).await;

    let (mut publisher, _) = Bare::connect(&broker, &Connect::clean("publisher")).await;
    for id in 1..=15 {
        publisher.publish("a", &id.to_string(), id).await;
        if id <= 10 {
            publisher.expect_puback(id).await;
        }
    }
    // Five wait without an acknowledgement; the connection lives on.
    publisher.expect_silence().await;
    let (mut away, present) = Bare::connect(&broker, &Connect::persistent("away")).await;
    assert!(present);
    for id in 1..=15_u16 {
        let message = away.next_publish().await;
        assert_eq!(text(&message), id.to_string());
        away.acknowledge(message.pkid).await;
    }
    for id in 11..=15 {
        publisher.expect_puback(id).await;
    }
    until(&broker, "the last acknowledgement", |stats| stats.acked == 15).await;
    assert_eq!(broker.pending("away"), Some(0));
}

#[tokio::test]
async fn a_local_subscriber_that_does_not_read_delays_publishers() {
    let broker = broker().await;
    let mut local = broker.subscribe_local("a", 1);
    broker
        .publish_local("a", "1", QoS::AtMostOnce, false)
        .await
        .unwrap();
    let mut second = Box::pin(broker.publish_local("a", "2", QoS::AtMostOnce, false));
    assert!(futures_are_pending(second.as_mut()));
    assert_eq!(local.recv().await.unwrap().payload.as_ref(), b"1");
    within("the second message", second).await.unwrap();
    // One that is dropped does not delay anybody.
    let third = broker.publish_local("a", "3", QoS::AtMostOnce, false);
    drop(local);
    within("the third message", third).await.unwrap();
}

fn futures_are_pending<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    future.poll(&mut context).is_pending()
}

#[tokio::test]
async fn filters_that_are_not_offered_are_refused_one_by_one() {
    let broker = broker().await;
    let (mut client, _) = Bare::connect(&broker, &Connect::clean("c")).await;
    for (filter, code) in [
        (
            "$share/g/a",
            v5::SubscribeReasonCode::SharedSubscriptionsNotSupported,
        ),
        ("a/#/b", v5::SubscribeReasonCode::TopicFilterInvalid),
        ("a/+", v5::SubscribeReasonCode::Success(QoS::AtLeastOnce)),
    ] {
        // QoS 2 is granted as 1.
        assert_eq!(
            client
                .subscribe_with(v5::Filter::new(filter, QoS::ExactlyOnce))
                .await,
            code,
            "{filter}"
        );
    }
    assert_eq!(broker.subscriptions("c"), Some(vec!["a/+".to_owned()]));
    let (mut client, _) = Bare::connect(&broker, &Connect::clean("c")).await;
    client.send(Packet::PingReq(v5::PingReq)).await;
    assert_eq!(client.next().await, Packet::PingResp(v5::PingResp));
}
