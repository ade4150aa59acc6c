//! The driver through MQTT 3.1.1 against a real mosquitto.

use pipepost::config::{Broker, Protocol};
use pipepost::domain::*;
use pipepost::driver::Stored;

use crate::gateway::{Gateway, broker, text, texts};
use crate::mosquitto_support::{Device, Mosquitto};

macro_rules! mosquitto_or_skip {
    ($start:expr) => {
        match $start {
            Some(broker) => broker,
            None => return,
        }
    };
}

/// A broker as MQTT 3.1.1 sees it.
fn older(port: u16) -> Broker {
    Broker {
        protocol: Protocol::V4,
        ..broker(port)
    }
}

#[tokio::test]
async fn with_mqtt_3_1_1_nothing_is_acknowledged_before_it_was_stored_and_the_session_waits() {
    let site = mosquitto_or_skip!(Mosquitto::start());
    let mut gateway = Gateway::start(older(site.port));
    gateway.up().await;
    let mut device = Device::connect(site.port, "device", &[]).await;
    device.publish_all([text("one")]).await;
    let (message, _unanswered) = gateway.received().await;
    assert_eq!(message.text, "one");
    gateway.crash().await;
    device.publish_all(texts((0..100).map(|n| n.to_string()))).await;

    let mut gateway = Gateway::start(older(site.port));
    let (message, stored) = gateway.received().await;
    assert_eq!(message.text, "one", "it was not stored, so it comes again");
    assert!(
        matches!(message.dedup, Some(DedupKey::Hash(_))),
        "marked as a repeat"
    );
    stored.send(Stored::Acknowledge).unwrap();
    for n in 0..100 {
        let (message, stored) = gateway.received().await;
        assert_eq!(message.text, n.to_string());
        stored.send(Stored::Acknowledge).unwrap();
    }
    gateway.stop().await;
    let mut gateway = Gateway::start(older(site.port));
    gateway.up().await;
    device.publish_all([text("after")]).await;
    let (message, _stored) = gateway.received().await;
    assert_eq!(message.text, "after", "what was acknowledged did not come again");
}

#[tokio::test]
async fn with_mqtt_3_1_1_an_answer_is_sent_when_the_broker_has_confirmed_it() {
    let site = mosquitto_or_skip!(Mosquitto::start());
    let mut gateway = Gateway::start(older(site.port));
    gateway.up().await;
    let mut device = Device::connect(site.port, "device", &["desk/1/send"]).await;
    device.publish_all([text("one")]).await;
    let (_, stored) = gateway.received().await;
    stored.send(Stored::Acknowledge).unwrap();
    let attempt = gateway.send("hello", "1").await;
    assert_eq!(attempt, Attempt::Sent);
}
