//! What any broker does.

use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{self, DisconnectReasonCode as Reason, LastWill, Packet, RetainForwardRule};

use super::super::{Options, PublishError, QoS};
use super::{Bare, Connect, broker, broker_with, publish, text, until, within};

fn filter(path: &str, change: impl FnOnce(&mut v5::Filter)) -> v5::Filter {
    let mut filter = v5::Filter::new(path, QoS::AtLeastOnce);
    change(&mut filter);
    filter
}

#[tokio::test]
async fn a_message_reaches_every_matching_subscriber_once_and_is_confirmed() {
    let broker = broker().await;
    let (mut publisher, _) = Bare::connect(&broker, &Connect::clean("publisher")).await;
    let (mut plus, _) = Bare::connect(&broker, &Connect::clean("plus")).await;
    let (mut hash, _) = Bare::connect(&broker, &Connect::clean("hash")).await;
    plus.subscribe("sms/+/received").await;
    hash.subscribe("sms/#").await;
    // Two subscriptions of one client that both match are one delivery.
    hash.subscribe("sms/office/received").await;

    publisher.publish("sms/office/received", "Grüße 👋", 5).await;
    publisher.expect_puback(5).await;
    for client in [&mut plus, &mut hash] {
        let message = client.next_publish().await;
        assert_eq!(
            (text(&message), message.qos, message.dup),
            ("Grüße 👋", QoS::AtLeastOnce, false)
        );
        client.acknowledge(message.pkid).await;
        client.expect_silence().await;
    }
    publisher.publish("sms/office/sent", "only for the hash", 0).await;
    assert_eq!(hash.next_publish().await.qos, QoS::AtMostOnce);
    plus.expect_silence().await;
    until(&broker, "both acknowledgements", |stats| stats.acked == 2).await;
    assert_eq!(broker.stats().received, 2);
    assert_eq!(broker.stats().delivered, 3);
}

#[tokio::test]
async fn a_publish_that_nobody_wants_is_confirmed_as_such() {
    let broker = broker().await;
    let (mut client, _) = Bare::connect(&broker, &Connect::clean("c")).await;
    client.publish("a", "x", 1).await;
    match client.next().await {
        Packet::PubAck(ack) => assert_eq!(ack.reason, v5::PubAckReason::NoMatchingSubscribers),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_session_survives_its_connection_and_repeats_with_dup_what_was_not_acknowledged() {
    let broker = broker().await;
    let (mut client, present) = Bare::connect(&broker, &Connect::persistent("gateway")).await;
    assert!(!present);
    client.subscribe("a/#").await;
    broker
        .publish_local("a/1", "one", QoS::AtLeastOnce, false)
        .await
        .unwrap();
    broker
        .publish_local("a/1", "two", QoS::AtLeastOnce, false)
        .await
        .unwrap();
    let one = client.next_publish().await;
    let two = client.next_publish().await;
    client.acknowledge(one.pkid).await;
    until(&broker, "the acknowledgement", |stats| stats.acked == 1).await;
    drop(client);
    until(&broker, "the end", |stats| stats.connections == 0).await;
    broker
        .publish_local("a/1", "three", QoS::AtLeastOnce, false)
        .await
        .unwrap();
    broker
        .publish_local("a/1", "gone", QoS::AtMostOnce, false)
        .await
        .unwrap();
    assert_eq!(broker.pending("gateway"), Some(2));

    let (mut client, present) = Bare::connect(&broker, &Connect::persistent("gateway")).await;
    assert!(present);
    let again = client.next_publish().await;
    assert_eq!((text(&again), again.dup, again.pkid), ("two", true, two.pkid));
    let three = client.next_publish().await;
    assert_eq!((text(&three), three.dup), ("three", false));
    client.acknowledge(again.pkid).await;
    client.acknowledge(three.pkid).await;
    client.expect_silence().await;
    assert_eq!(broker.pending("gateway"), Some(0));
    assert_eq!(broker.stats().redelivered, 1);
}

#[tokio::test]
async fn clean_start_forgets_the_session() {
    let broker = broker().await;
    let (mut client, _) = Bare::connect(&broker, &Connect::persistent("gateway")).await;
    client.subscribe("a").await;
    drop(client);
    until(&broker, "the end", |stats| stats.connections == 0).await;
    broker
        .publish_local("a", "x", QoS::AtLeastOnce, false)
        .await
        .unwrap();
    let (mut client, present) = Bare::connect(&broker, &Connect::clean("gateway")).await;
    assert!(!present);
    client.expect_silence().await;
    assert_eq!(broker.subscriptions("gateway"), Some(Vec::new()));
    assert_eq!(broker.stats().lost_with_session, 1);
}

#[tokio::test]
async fn a_session_ends_when_its_expiry_has_passed() {
    let broker = broker().await;
    let how = Connect {
        expiry: Some(1),
        ..Connect::persistent("gateway")
    };
    let (client, _) = Bare::connect(&broker, &how).await;
    drop(client);
    until(&broker, "the end of the connection", |stats| {
        stats.connections == 0
    })
    .await;
    assert_eq!(broker.pending("gateway"), Some(0));
    within("the end of the session", async {
        while broker.pending("gateway").is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_disconnect_can_shorten_a_session_but_not_prolong_one_that_was_to_end() {
    let broker = broker().await;
    let goodbye = |expiry| {
        let mut disconnect = v5::Disconnect::new(Reason::NormalDisconnection);
        disconnect.properties = Some(v5::DisconnectProperties {
            session_expiry_interval: Some(expiry),
            reason_string: None,
            user_properties: Vec::new(),
            server_reference: None,
        });
        Packet::Disconnect(disconnect)
    };
    let (mut client, _) = Bare::connect(&broker, &Connect::persistent("a")).await;
    client.send(goodbye(0)).await;
    assert_eq!(client.dismissed().await, None);
    until(&broker, "the end", |stats| stats.connections == 0).await;
    assert_eq!(broker.pending("a"), None);

    let (mut client, _) = Bare::connect(&broker, &Connect::clean("b")).await;
    client.send(goodbye(60)).await;
    assert_eq!(client.dismissed().await, Some(Reason::ProtocolError));
}

#[tokio::test]
async fn a_retained_message_waits_for_subscribers_as_their_rule_says() {
    let broker = broker().await;
    broker
        .publish_local("state/a", "online", QoS::AtLeastOnce, true)
        .await
        .unwrap();
    let (mut client, _) = Bare::connect(&broker, &Connect::persistent("c")).await;
    client.subscribe("state/+").await;
    let kept = client.next_publish().await;
    assert_eq!((text(&kept), kept.retain), ("online", true));
    client.acknowledge(kept.pkid).await;

    // What is published while subscribed is not marked, unless asked for.
    broker
        .publish_local("state/b", "live", QoS::AtLeastOnce, true)
        .await
        .unwrap();
    let live = client.next_publish().await;
    assert!(!live.retain);
    client.acknowledge(live.pkid).await;

    // A known subscription, "only for a new one": nothing comes.
    let again = filter("state/+", |filter| {
        filter.retain_forward_rule = RetainForwardRule::OnNewSubscribe;
    });
    client.subscribe_with(again.clone()).await;
    client.expect_silence().await;
    client
        .subscribe_with(filter("x/+", |filter| {
            filter.retain_forward_rule = RetainForwardRule::Never;
        }))
        .await;
    client.expect_silence().await;
    client
        .subscribe_with(filter("state/a", |filter| filter.preserve_retain = true))
        .await;
    client.next_publish().await;
    broker
        .publish_local("state/a", "kept mark", QoS::AtLeastOnce, true)
        .await
        .unwrap();
    assert!(client.next_publish().await.retain);

    // An empty payload removes it.
    broker
        .publish_local("state/a", "", QoS::AtLeastOnce, true)
        .await
        .unwrap();
    assert_eq!(broker.retained("state/a"), None);
    let (mut other, _) = Bare::connect(&broker, &Connect::clean("other")).await;
    other.subscribe("state/a").await;
    other.expect_silence().await;
}

#[tokio::test]
async fn a_will_is_published_unless_the_client_says_goodbye() {
    let broker = broker().await;
    let mut watcher = broker.subscribe_local("status", 4);
    let how = Connect {
        will: Some(LastWill::new("status", "offline", QoS::AtLeastOnce, true, None)),
        ..Connect::clean("gateway")
    };
    let (mut client, _) = Bare::connect(&broker, &how).await;
    client.send_bytes(&[0xe0, 0]).await;
    assert_eq!(client.dismissed().await, None);
    until(&broker, "the end", |stats| stats.connections == 0).await;
    assert_eq!(broker.stats().wills, 0);

    let (client, _) = Bare::connect(&broker, &how).await;
    drop(client);
    let will = watcher.recv().await.unwrap();
    assert_eq!(
        (will.payload.as_ref(), will.retain),
        (b"offline".as_slice(), true)
    );
    assert_eq!(broker.retained("status").as_deref(), Some(b"offline".as_slice()));

    // DISCONNECT with reason 4 in its short form asks for the will.
    let (mut client, _) = Bare::connect(&broker, &how).await;
    client.send_bytes(&[0xe0, 1, 4]).await;
    assert_eq!(watcher.recv().await.unwrap().payload.as_ref(), b"offline");
}

#[tokio::test]
async fn a_delayed_will_is_not_published_when_the_client_is_back_in_time() {
    let broker = broker().await;
    let mut will = LastWill::new("status", "offline", QoS::AtLeastOnce, false, None);
    will.properties = Some(v5::LastWillProperties {
        delay_interval: Some(3600),
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
    });
    let how = Connect {
        will: Some(will),
        expiry: Some(7200),
        ..Connect::persistent("gateway")
    };
    let (client, _) = Bare::connect(&broker, &how).await;
    drop(client);
    until(&broker, "the end", |stats| stats.connections == 0).await;
    let (_client, present) = Bare::connect(&broker, &how).await;
    assert!(present);
    assert_eq!(broker.stats().wills, 0);
}

#[tokio::test]
async fn a_second_client_with_the_same_id_takes_the_session_over() {
    let broker = broker().await;
    let (mut first, _) = Bare::connect(&broker, &Connect::persistent("gateway")).await;
    first.subscribe("a").await;
    broker
        .publish_local("a", "x", QoS::AtLeastOnce, false)
        .await
        .unwrap();
    first.next_publish().await;
    let (mut second, present) = Bare::connect(&broker, &Connect::persistent("gateway")).await;
    assert!(present);
    assert_eq!(first.dismissed().await, Some(Reason::SessionTakenOver));
    let again = second.next_publish().await;
    assert!(again.dup);
    until(&broker, "one connection", |stats| stats.connections == 1).await;
    assert_eq!(broker.stats().takeovers, 1);
}

#[tokio::test]
async fn no_local_and_unsubscribe_are_honoured() {
    let broker = broker().await;
    let (mut client, _) = Bare::connect(&broker, &Connect::clean("c")).await;
    client
        .subscribe_with(filter("echo", |filter| filter.nolocal = true))
        .await;
    client.publish("echo", "mine", 1).await;
    client.expect_puback(1).await;
    client.expect_silence().await;
    broker
        .publish_local("echo", "not mine", QoS::AtMostOnce, false)
        .await
        .unwrap();
    assert_eq!(text(&client.next_publish().await), "not mine");

    let mut unsubscribe = v5::Unsubscribe::new("echo", None);
    unsubscribe.filters.push("never".to_owned());
    unsubscribe.pkid = 3;
    client.send(Packet::Unsubscribe(unsubscribe)).await;
    match client.next().await {
        Packet::UnsubAck(ack) => {
            assert_eq!(
                ack.reasons,
                [
                    v5::UnsubAckReason::Success,
                    v5::UnsubAckReason::NoSubscriptionExisted
                ]
            );
        }
        other => panic!("{other:?}"),
    }
    broker
        .publish_local("echo", "x", QoS::AtMostOnce, false)
        .await
        .unwrap();
    client.expect_silence().await;
}

#[tokio::test]
async fn properties_and_subscription_identifiers_travel_with_the_message() {
    let broker = broker().await;
    let (mut client, _) = Bare::connect(&broker, &Connect::clean("c")).await;
    let mut subscribe = v5::Subscribe::new(
        v5::Filter::new("a", QoS::AtLeastOnce),
        Some(v5::SubscribeProperties {
            id: Some(300),
            user_properties: Vec::new(),
        }),
    );
    subscribe.pkid = 1;
    client.send(Packet::Subscribe(subscribe)).await;
    client.next().await;
    let properties = v5::PublishProperties {
        content_type: Some("text/plain".to_owned()),
        user_properties: vec![("k".to_owned(), "v".to_owned())],
        ..v5::PublishProperties::default()
    };
    let Packet::Publish(mut message) = publish("a", "x", 0) else {
        unreachable!()
    };
    message.properties = Some(properties.clone());
    client.send(Packet::Publish(message)).await;
    let wanted = v5::PublishProperties {
        subscription_identifiers: vec![300],
        ..properties
    };
    assert_eq!(client.next_publish().await.properties, Some(wanted));
}

#[tokio::test]
async fn credentials_are_checked_when_they_are_demanded() {
    let options = Options {
        credentials: Some(("gateway".to_owned(), "secret".to_owned())),
        ..Options::default()
    };
    let broker = broker_with(options).await;
    for (login, code) in [
        (None, v5::ConnectReturnCode::NotAuthorized),
        (
            Some(v5::Login::new("gateway", "wrong")),
            v5::ConnectReturnCode::BadUserNamePassword,
        ),
        (
            Some(v5::Login::new("gateway", "secret")),
            v5::ConnectReturnCode::Success,
        ),
    ] {
        let (_client, ack) = Bare::try_connect(
            &broker,
            &Connect {
                login,
                ..Connect::clean("c")
            },
        )
        .await;
        assert_eq!(ack.code, code);
    }
    assert_eq!(broker.stats().connected, 1);
}

#[tokio::test]
async fn a_client_without_an_id_is_given_one() {
    let broker = broker().await;
    let (_client, ack) = Bare::try_connect(&broker, &Connect::clean("")).await;
    let id = ack.properties.unwrap().assigned_client_identifier.unwrap();
    assert_eq!(broker.pending(&id), Some(0));
}

#[tokio::test]
async fn stopping_tells_the_clients_and_the_local_subscribers() {
    let broker = broker().await;
    let (mut client, _) = Bare::connect(&broker, &Connect::clean("c")).await;
    let mut local = broker.subscribe_local("#", 1);
    assert_eq!(
        broker.publish_local("a/#", "", QoS::AtMostOnce, false).await,
        Err(PublishError::Topic("a/#".to_owned()))
    );
    broker.stop().await;
    assert_eq!(client.dismissed().await, Some(Reason::ServerShuttingDown));
    assert_eq!(local.recv().await, None);
}
