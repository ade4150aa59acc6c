//! The driver against a broker that does what brokers should not do.

use std::time::Duration;

use pipepost::config::{self, Protocol};
use pipepost::domain::*;
use pipepost::driver::{DriverEvent, Link, Stored};
use pipepost::sim::broker::{Broker, Duplicate, Options, QoS, Refuse};
use tokio::time::timeout;

use crate::gateway::{Gateway, broker, text};
use crate::mosquitto_support::LIMIT;

async fn start() -> Broker {
    Broker::start("127.0.0.1:0".parse().unwrap()).await.unwrap()
}

/// The driver speaks both, and what a broker does wrong must cost nothing in either.
const BOTH: [Protocol; 2] = [Protocol::V5, Protocol::V4];

fn speaking(protocol: Protocol, port: u16) -> config::Broker {
    config::Broker {
        protocol,
        ..broker(port)
    }
}

async fn publish(site: &Broker, name: &str) {
    let (topic, payload) = text(name);
    site.publish_local(&topic, payload, QoS::AtLeastOnce, false)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_answer_whose_confirmation_is_lost_is_unknown_and_not_sent_twice() {
    for protocol in BOTH {
        let site = start().await;
        let mut device = site.subscribe_local("desk/1/send", 100);
        let mut gateway = Gateway::start(speaking(protocol, site.port()));
        gateway.up().await;
        assert_eq!(gateway.send("first", "1").await, Attempt::Sent);
        site.faults().drop_all_pubacks(true);
        let sending = gateway.send("second", "1");
        let cutting = async {
            for _ in 0..2 {
                timeout(LIMIT, device.recv()).await.unwrap().unwrap();
            }
            site.faults().close_all_connections();
        };
        let (outcome, ()) = tokio::join!(sending, cutting);
        assert!(matches!(outcome, Attempt::Unknown(_)), "{outcome:?}");
        site.faults().drop_all_pubacks(false);
        gateway.down("").await;
        gateway.up().await;
        assert_eq!(gateway.send("third", "1").await, Attempt::Sent);
        let heard = timeout(LIMIT, device.recv()).await.unwrap().unwrap();
        assert!(
            String::from_utf8_lossy(&heard.payload).contains("third"),
            "the second came again"
        );
    }
}

#[tokio::test]
async fn at_a_stop_only_answers_that_the_broker_has_seen_are_unknown() {
    let site = start().await;
    let mut device = site.subscribe_local("desk/1/send", 100);
    let mut gateway = Gateway::start(broker(site.port()));
    gateway.up().await;
    site.faults().drop_all_pubacks(true);
    let mut outcomes = Vec::new();
    for number in 0..14 {
        outcomes.push(gateway.submit(&number.to_string(), "1").await);
    }
    // As many as are in flight at a time, but for the gateway's own state.
    for _ in 0..7 {
        timeout(LIMIT, device.recv()).await.unwrap().unwrap();
    }
    gateway.stop().await;
    let (mut unknown, mut waited) = (0, 0);
    for outcome in outcomes {
        match outcome.await {
            Ok(Attempt::Unknown(_)) => unknown += 1,
            Ok(Attempt::NotStarted(_)) => waited += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(
        unknown <= 8 && unknown + waited == 14,
        "{unknown} unknown, {waited} waited"
    );
}

#[tokio::test]
async fn a_lost_session_is_subscribed_again() {
    for protocol in BOTH {
        let site = start().await;
        let mut gateway = Gateway::start(speaking(protocol, site.port()));
        gateway.up().await;
        site.faults().lose_sessions(true);
        site.faults().close_all_connections();
        gateway.down("").await;
        gateway.up().await;
        publish(&site, "here").await;
        assert_eq!(gateway.received().await.0.text, "here");
    }
}

#[tokio::test]
async fn a_marked_repeat_has_the_key_of_the_first_and_an_unmarked_one_is_a_second_message() {
    for protocol in BOTH {
        let site = start().await;
        let mut gateway = Gateway::start(speaking(protocol, site.port()));
        gateway.up().await;
        site.faults().duplicate(Duplicate::Marked);
        publish(&site, "ok").await;
        let (first, stored) = gateway.received().await;
        let _gone = stored.send(Stored::Acknowledge);
        let (second, stored) = gateway.received().await;
        let _gone = stored.send(Stored::Acknowledge);
        let Some(DedupKey::FirstHash(hash)) = first.dedup else {
            panic!("the first is taken for a repeat")
        };
        assert_eq!(second.dedup, Some(DedupKey::Hash(hash)));
        site.faults().duplicate(Duplicate::Unmarked);
        publish(&site, "ok").await;
        for _ in 0..2 {
            let (message, stored) = gateway.received().await;
            assert!(matches!(message.dedup, Some(DedupKey::FirstHash(other)) if other != hash));
            let _gone = stored.send(Stored::Acknowledge);
        }
    }
}

#[tokio::test]
async fn a_frozen_broker_is_noticed_and_found_again() {
    for protocol in BOTH {
        let site = start().await;
        let mut gateway = Gateway::start(config::Broker {
            keep_alive: Duration::from_secs(5),
            ..speaking(protocol, site.port())
        });
        gateway.up().await;
        site.faults().freeze(true);
        gateway.down("").await;
        site.faults().freeze(false);
        gateway.up().await;
        publish(&site, "awake").await;
        assert_eq!(gateway.received().await.0.text, "awake");
    }
}

#[tokio::test]
async fn a_packet_larger_than_allowed_is_read_once_instead_of_ending_every_connection() {
    let site = Broker::start_with(
        "127.0.0.1:0".parse().unwrap(),
        Options {
            max_packet: 8 << 20,
            ..Options::default()
        },
    )
    .await
    .unwrap();
    site.faults().ignore_packet_limit(true);
    let mut gateway = Gateway::start(config::Broker {
        max_packet_size: 4096,
        ..broker(site.port())
    });
    gateway.up().await;
    publish(&site, &"x".repeat(10_000)).await;
    let reason = gateway.down("raise `max_packet_size`").await;
    assert!(reason.contains("4096"), "{reason}");
    let (message, stored) = gateway.received().await;
    assert_eq!(message.text.len(), 10_000);
    stored.send(Stored::Acknowledge).unwrap();
    gateway.up().await;
    publish(&site, "small").await;
    assert_eq!(gateway.received().await.0.text, "small");
}

#[tokio::test]
async fn a_broker_that_refuses_is_asked_again_until_it_lets_the_gateway_in() {
    let site = start().await;
    site.faults().refuse(Refuse::Unavailable);
    let mut gateway = Gateway::start(broker(site.port()));
    gateway.down("busy or starting").await;
    site.faults().refuse(Refuse::NotAuthorized);
    gateway.down("set `username`").await;
    site.faults().refuse(Refuse::No);
    gateway.up().await;
    assert!(matches!(*gateway.handle.link.borrow(), Link::Up(_)));
}

#[tokio::test]
async fn a_flood_without_acknowledgements_waits_for_the_store_and_loses_nothing() {
    let site = start().await;
    let mut gateway = Gateway::start(broker(site.port()));
    gateway.up().await;
    // QoS 0 knows no receive maximum: only the socket can slow the broker.
    let publishing = async {
        for n in 0..2000 {
            let (topic, payload) = text(&n.to_string());
            site.publish_local(&topic, payload, QoS::AtMostOnce, false)
                .await
                .unwrap();
        }
    };
    let storing = async {
        for n in 0..2000 {
            match gateway.event().await {
                DriverEvent::Received { message, stored } => {
                    assert_eq!(message.text, n.to_string());
                    assert_eq!(message.dedup, None);
                    tokio::task::yield_now().await;
                    stored.send(Stored::Acknowledge).unwrap();
                }
                _ => panic!("not a message"),
            }
        }
    };
    tokio::join!(publishing, storing);
}

#[tokio::test]
async fn a_broker_that_confirms_nothing_is_used_and_says_what_that_can_lose() {
    for protocol in BOTH {
        let site = start().await;
        site.faults().grant_qos_0_only(true);
        let mut gateway = Gateway::start(speaking(protocol, site.port()));
        gateway.up().await;
        let link = gateway.handle.link.borrow().clone();
        assert!(
            matches!(&link, Link::Limited { note, .. } if note.contains("QoS 0") && note.contains("lost")),
            "{link:?}"
        );
        publish(&site, "here").await;
        let (message, stored) = gateway.received().await;
        assert_eq!(message.text, "here");
        let _gone = stored.send(Stored::Acknowledge);
    }
}

#[tokio::test]
async fn a_connection_with_mqtt_3_1_1_says_what_the_broker_alone_decides() {
    let site = start().await;
    let mut gateway = Gateway::start(speaking(Protocol::V4, site.port()));
    gateway.up().await;
    let link = gateway.handle.link.borrow().clone();
    assert!(
        matches!(&link, Link::Limited { note, .. } if note.contains("3.1.1")),
        "{link:?}"
    );
}

#[tokio::test]
async fn a_gateway_that_does_not_announce_itself_publishes_nothing_of_its_own() {
    for protocol in BOTH {
        let site = start().await;
        let mut heard = site.subscribe_local("#", 100);
        let mut gateway = Gateway::start(config::Broker {
            announce: false,
            ..speaking(protocol, site.port())
        });
        gateway.up().await;
        // A cut connection would publish a will, a clean end a farewell.
        site.faults().close_all_connections();
        gateway.down("").await;
        gateway.up().await;
        gateway.stop().await;
        publish(&site, "last").await;
        let first = timeout(LIMIT, heard.recv()).await.unwrap().unwrap();
        assert!(
            String::from_utf8_lossy(&first.payload).contains("last"),
            "{first:?}"
        );
    }
}
