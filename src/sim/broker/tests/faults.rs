//! Each fault, switched on and off while the broker runs.

use rumqttc::v5::mqttbytes::v5::{self, DisconnectReasonCode as Reason, LastWill, Packet};

use super::super::{Broker, Duplicate, QoS, Refuse};
use super::{Bare, Connect, broker, publish, text, until};

async fn subscriber(broker: &Broker, filter: &str) -> Bare {
    let (mut client, _) = Bare::connect(broker, &Connect::persistent("subscriber")).await;
    client.subscribe(filter).await;
    client
}

#[tokio::test]
async fn dropped_pubacks_deliver_all_the_same_and_the_next_ones_come_again() {
    let broker = broker().await;
    let mut local = broker.subscribe_local("a", 8);
    let (mut client, _) = Bare::connect(&broker, &Connect::clean("c")).await;
    broker.faults().drop_next_pubacks(2);
    for id in 1..=3 {
        client.publish("a", &id.to_string(), id).await;
    }
    client.expect_puback(3).await;
    broker.faults().drop_all_pubacks(true);
    client.publish("a", "4", 4).await;
    client.expect_silence().await;
    broker.faults().drop_all_pubacks(false);
    client.publish("a", "5", 5).await;
    client.expect_puback(5).await;
    for wanted in ["1", "2", "3", "4", "5"] {
        assert_eq!(local.recv().await.unwrap().payload, wanted);
    }
    assert_eq!(broker.stats().pubacks_dropped, 3);
}

#[tokio::test]
async fn a_lost_session_takes_subscriptions_and_messages_with_it() {
    let broker = broker().await;
    let client = subscriber(&broker, "a").await;
    drop(client);
    until(&broker, "the end", |stats| stats.connections == 0).await;
    broker
        .publish_local("a", "x", QoS::AtLeastOnce, false)
        .await
        .unwrap();
    broker.faults().lose_sessions(true);
    let (mut client, present) = Bare::connect(&broker, &Connect::persistent("subscriber")).await;
    assert!(!present);
    client.expect_silence().await;
    assert_eq!(broker.subscriptions("subscriber"), Some(Vec::new()));
    assert_eq!(broker.stats().lost_with_session, 1);
}

#[tokio::test]
async fn duplicates_come_marked_or_unmarked() {
    let broker = broker().await;
    let mut client = subscriber(&broker, "a").await;
    broker.faults().duplicate(Duplicate::Marked);
    broker
        .publish_local("a", "x", QoS::AtLeastOnce, false)
        .await
        .unwrap();
    let first = client.next_publish().await;
    let second = client.next_publish().await;
    assert_eq!((first.dup, second.dup, first.pkid), (false, true, second.pkid));
    client.acknowledge(first.pkid).await;
    client.acknowledge(second.pkid).await;
    until(&broker, "both acknowledgements", |stats| {
        stats.acked == 1 && stats.unknown_acks == 1
    })
    .await;

    broker.faults().duplicate(Duplicate::Unmarked);
    broker
        .publish_local("a", "y", QoS::AtLeastOnce, false)
        .await
        .unwrap();
    let first = client.next_publish().await;
    let second = client.next_publish().await;
    assert_eq!((text(&first), text(&second), second.dup), ("y", "y", false));
    assert_ne!(first.pkid, second.pkid);
    assert_eq!(broker.stats().duplicated, 2);

    broker.faults().duplicate(Duplicate::Off);
    broker
        .publish_local("a", "z", QoS::AtLeastOnce, false)
        .await
        .unwrap();
    assert_eq!(text(&client.next_publish().await), "z");
    client.expect_silence().await;
}

#[tokio::test]
async fn reordering_mixes_topics_and_keeps_the_order_within_each() {
    let broker = broker().await;
    drop(subscriber(&broker, "#").await);
    until(&broker, "the end", |stats| stats.connections == 0).await;
    for number in 1..=3 {
        for topic in ["a", "b"] {
            broker
                .publish_local(topic, number.to_string(), QoS::AtLeastOnce, false)
                .await
                .unwrap();
        }
    }
    broker.faults().reorder_across_topics(true);
    let (mut client, _) = Bare::connect(&broker, &Connect::persistent("subscriber")).await;
    let mut order = Vec::new();
    for _ in 0..6 {
        let message = client.next_publish().await;
        order.push(format!(
            "{}{}",
            String::from_utf8_lossy(&message.topic),
            text(&message)
        ));
    }
    let of = |topic: &str| {
        order
            .iter()
            .filter(|name| name.starts_with(topic))
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(of("a"), ["a1", "a2", "a3"]);
    assert_eq!(of("b"), ["b1", "b2", "b3"]);
    assert_ne!(order, ["a1", "b1", "a2", "b2", "a3", "b3"]);
}

#[tokio::test]
async fn a_frozen_broker_accepts_connections_and_says_nothing() {
    let broker = broker().await;
    let (mut old, _) = Bare::connect(
        &broker,
        &Connect {
            keep_alive: 1,
            ..Connect::clean("old")
        },
    )
    .await;
    broker.faults().freeze(true);
    let mut new = Bare::open(&broker).await;
    new.send_bytes(b"\x10\x10\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x03new")
        .await;
    old.publish("a", "x", 1).await;
    // Longer than the keep-alive allows: a frozen broker does not notice that either.
    let silent = std::time::Duration::from_millis(1700);
    for client in [&mut old, &mut new] {
        assert!(
            tokio::time::timeout(silent, client.stream.readable())
                .await
                .is_err()
        );
    }
    assert_eq!(broker.stats().received, 0);
    broker.faults().freeze(false);
    old.expect_puback(1).await;
    assert!(matches!(new.next().await, Packet::ConnAck(_)));
}

#[tokio::test]
async fn all_connections_can_be_cut_and_come_back() {
    let broker = broker().await;
    let mut local = broker.subscribe_local("status", 1);
    let will = Some(LastWill::new("status", "offline", QoS::AtLeastOnce, false, None));
    let (mut client, _) = Bare::connect(
        &broker,
        &Connect {
            will,
            ..Connect::persistent("c")
        },
    )
    .await;
    broker.faults().close_all_connections();
    assert_eq!(client.dismissed().await, None);
    assert_eq!(local.recv().await.unwrap().payload, "offline");
    let (_client, present) = Bare::connect(&broker, &Connect::persistent("c")).await;
    assert!(present);
}

#[tokio::test]
async fn connections_can_be_refused_in_three_ways() {
    let broker = broker().await;
    for (how, code) in [
        (Refuse::Unavailable, v5::ConnectReturnCode::ServerUnavailable),
        (Refuse::NotAuthorized, v5::ConnectReturnCode::NotAuthorized),
        (Refuse::No, v5::ConnectReturnCode::Success),
    ] {
        broker.faults().refuse(how);
        let (_client, ack) = Bare::try_connect(&broker, &Connect::clean("c")).await;
        assert_eq!(ack.code, code);
    }
    broker.faults().refuse(Refuse::Close);
    let mut client = Bare::open(&broker).await;
    client
        .send_bytes(b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c")
        .await;
    assert_eq!(client.dismissed().await, None);
}

#[tokio::test]
async fn an_oversize_packet_can_be_forced_on_a_subscriber() {
    let broker = broker().await;
    let how = Connect {
        max_packet: Some(64),
        ..Connect::persistent("c")
    };
    let (mut client, _) = Bare::connect(&broker, &how).await;
    client.subscribe("a").await;
    broker.faults().ignore_packet_limit(true);
    broker
        .publish_local("a", "x".repeat(64), QoS::AtLeastOnce, false)
        .await
        .unwrap();
    assert_eq!(client.next_publish().await.payload.len(), 64);
    assert_eq!(broker.stats().too_large, 0);
    // It is in flight and comes again at every connection, until the client acknowledges it.
    drop(client);
    until(&broker, "the end", |stats| stats.connections == 0).await;
    let (mut client, _) = Bare::connect(&broker, &how).await;
    assert!(client.next_publish().await.dup);
    client.send(publish("b", "x", 0)).await;
    client.send_bytes(b"\x00\x00").await;
    assert_eq!(client.dismissed().await, Some(Reason::MalformedPacket));
}
