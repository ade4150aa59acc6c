//! A broker whose access list keeps some topics from the gateway.

use pipepost::config::{self, Protocol};
use pipepost::domain::Attempt;
use pipepost::driver::{DriverEvent, Link, Stored};
use pipepost::sim::broker::{Broker, QoS};
use tokio::time::timeout;

use crate::gateway::{Gateway, broker, text};
use crate::mosquitto_support::LIMIT;

const REPORTS: &str = "desk/+/report";

async fn publish(site: &Broker, name: &str) {
    let (topic, payload) = text(name);
    site.publish_local(&topic, payload, QoS::AtLeastOnce, false)
        .await
        .unwrap();
}

/// What is said once a part of the connection does not work, and since when.
async fn fault(gateway: &Gateway) -> (pipepost::domain::Timestamp, String) {
    let mut link = gateway.handle.link.clone();
    let link = timeout(LIMIT, link.wait_for(|link| matches!(link, Link::Faulty { .. })))
        .await
        .unwrap_or_else(|_| panic!("{:?}", gateway.handle.link.borrow()))
        .unwrap()
        .clone();
    match link {
        Link::Faulty { since, reason } => (since, reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refused_subscription_is_asked_for_again_on_the_same_connection_while_the_others_work() {
    for (protocol, code) in [(Protocol::V5, "0x87"), (Protocol::V4, "0x80")] {
        let site = Broker::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let mut device = site.subscribe_local("desk/1/send", 100);
        site.faults().refuse_subscription(Some(REPORTS));
        let mut gateway = Gateway::start(config::Broker {
            protocol,
            ..broker(site.port())
        });
        let (_, reason) = fault(&gateway).await;
        for part in [REPORTS, code, "access list"] {
            assert!(reason.contains(part), "{part} is not in {reason:?}");
        }
        assert!(
            !reason.contains("desk/+/received"),
            "{reason:?} names a topic that works"
        );
        publish(&site, "here").await;
        let (message, stored) = gateway.received().await;
        assert_eq!(message.text, "here");
        stored.send(Stored::Acknowledge).unwrap();
        assert_eq!(gateway.send("answer", "1").await, Attempt::Sent);

        site.faults().refuse_subscription(None);
        gateway.up().await;
        assert_eq!(site.stats().connected, 1, "it was a second connection");
        let answer = timeout(LIMIT, device.recv()).await.unwrap().unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
        let report = serde_json::json!({"id": answer["id"], "state": "ok"}).to_string();
        site.publish_local("desk/1/report", report.into_bytes(), QoS::AtLeastOnce, false)
            .await
            .unwrap();
        assert!(matches!(gateway.event().await, DriverEvent::Status { .. }));
    }
}

#[tokio::test]
async fn a_subscription_that_stays_refused_says_since_when_also_after_a_reconnect() {
    let site = Broker::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    site.faults().refuse_subscription(Some(REPORTS));
    let mut gateway = Gateway::start(broker(site.port()));
    let (since, _) = fault(&gateway).await;
    site.faults().close_all_connections();
    gateway.down("").await;
    assert_eq!(fault(&gateway).await.0, since);
}
