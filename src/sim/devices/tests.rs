//! The devices against the simulated broker, and their formats against the real devices' documentation.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::domain::{ChannelId, ConversationId, DeviceStatus, MessageId, Outgoing, Sequence};
use crate::protocol::mqtt::{DeviceSpec, Mapping, Packet, Read};

use super::super::broker::{Broker, LocalSubscription, QoS};
use super::formats::{self, Command};
use super::{Customer, Device, Devices, Event, File, Script, Text, What};

const LIMIT: Duration = Duration::from_secs(10);

async fn broker() -> Broker {
    Broker::start(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap()
}

async fn json_from(local: &mut LocalSubscription) -> Value {
    let message = timeout(LIMIT, local.recv())
        .await
        .expect("no message came")
        .unwrap();
    assert_eq!(message.qos, QoS::AtLeastOnce);
    assert!(!message.retain);
    serde_json::from_slice(&message.payload).unwrap()
}

async fn until(devices: &mut Devices, what: &str, condition: impl Fn(&Event) -> bool) -> Event {
    let wanted = async {
        loop {
            let event = devices.event().await.expect("the devices have stopped");
            if condition(&event) {
                return event;
            }
        }
    };
    timeout(LIMIT, wanted)
        .await
        .unwrap_or_else(|_| panic!("waited too long for {what}"))
}

fn script(device: Device, texts: &[&str], answers: &[&str]) -> Script {
    Script {
        customers: vec![Customer {
            name: "Emma".to_owned(),
            number: "+447700900142".to_owned(),
            device,
            texts: texts.iter().map(|&text| Text::from(text.to_owned())).collect(),
            answers: answers.iter().map(|&answer| answer.to_owned()).collect(),
        }],
        confirm_after: Duration::from_millis(20),
        answer_after: Duration::from_millis(20),
    }
}

#[tokio::test]
async fn a_customer_writes_and_answers_the_agent_through_sms2mqtt() {
    let broker = broker().await;
    let mut received = broker.subscribe_local("sms2mqtt/received", 8);
    let mut sent = broker.subscribe_local("sms2mqtt/sent", 8);
    let mut devices = Devices::start(
        broker.port(),
        &script(Device::Sms2mqtt, &["Grüße 👋", "noch da?"], &["danke"]),
    );

    let first = json_from(&mut received).await;
    assert_eq!(
        (&first["number"], &first["text"]),
        (&json!("+447700900142"), &json!("Grüße 👋"))
    );
    jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", first["datetime"].as_str().unwrap()).unwrap();
    assert_eq!(json_from(&mut received).await["text"], "noch da?");
    assert_eq!(
        broker.retained("sms2mqtt/connected").as_deref(),
        Some(b"1".as_slice())
    );

    let command = |text: &str| json!({ "number": "+447700900142", "text": text }).to_string();
    broker
        .publish_local("sms2mqtt/send", command("Ja, gern!"), QoS::AtLeastOnce, false)
        .await
        .unwrap();
    let confirmed = json_from(&mut sent).await;
    assert_eq!(
        (&confirmed["result"], &confirmed["number"], &confirmed["text"]),
        (&json!("success"), &json!("+447700900142"), &json!("Ja, gern!"))
    );
    assert_eq!(json_from(&mut received).await["text"], "danke");
    until(
        &mut devices,
        "the answer",
        |event| matches!(&event.what, What::Received { text, .. } if text == "danke"),
    )
    .await;

    // Content and silent after the last answer, but every message is confirmed.
    broker
        .publish_local("sms2mqtt/send", command("Bis bald"), QoS::AtLeastOnce, false)
        .await
        .unwrap();
    assert_eq!(json_from(&mut sent).await["text"], "Bis bald");

    devices.stop().await;
    // A goodbye, so no will.
    assert_eq!(broker.stats().wills, 0);
    assert_eq!(broker.stats().violations, 0);
}

#[tokio::test]
async fn gsm2mqtt_reports_the_delivery() {
    let broker = broker().await;
    let mut received = broker.subscribe_local("gsm2mqtt/modem/+/sms/received", 8);
    let mut reports = broker.subscribe_local("gsm2mqtt/modem/+/sms/delivery_report", 8);
    let mut devices = Devices::start(broker.port(), &script(Device::Gsm2mqtt, &["Hej"], &["Tack"]));
    let first = json_from(&mut received).await;
    assert_eq!(
        (&first["from"], &first["text"], &first["multipart"]),
        (&json!("+447700900142"), &json!("Hej"), &json!(false))
    );
    first["timestamp"]
        .as_str()
        .unwrap()
        .parse::<jiff::Timestamp>()
        .unwrap();

    let command =
        json!({ "to": "+447700900142", "text": "Torsdag går bra", "delivery_report": true }).to_string();
    broker
        .publish_local("gsm2mqtt/modem/office/sms/send", command, QoS::AtLeastOnce, false)
        .await
        .unwrap();
    let report = json_from(&mut reports).await;
    assert_eq!(
        (&report["message_ref"], &report["recipient"], &report["status"]),
        (&json!(1), &json!("+447700900142"), &json!("delivered"))
    );
    assert_eq!(json_from(&mut received).await["text"], "Tack");
    let sending = until(&mut devices, "the message", |event| {
        matches!(event.what, What::Sending { .. })
    })
    .await;
    assert_eq!(sending.to_string(), "GSM2MQTT sends to Emma: Torsdag går bra");
    devices.stop().await;
}

#[tokio::test]
async fn a_device_comes_back_after_the_broker_was_away_and_gets_what_waited() {
    let broker = broker().await;
    let mut sent = broker.subscribe_local("sms2mqtt/sent", 8);
    let mut devices = Devices::start(broker.port(), &script(Device::Sms2mqtt, &[], &[]));
    let up = |event: &Event| event.device == Device::Sms2mqtt && event.what == What::Connected;
    until(&mut devices, "the connection", up).await;
    broker.faults().close_all_connections();
    until(&mut devices, "the loss", |event| {
        matches!(event.what, What::Disconnected { .. })
    })
    .await;
    let command = json!({ "number": "+12025550143", "text": "still there?" }).to_string();
    broker
        .publish_local("sms2mqtt/send", command, QoS::AtLeastOnce, false)
        .await
        .unwrap();
    assert_eq!(json_from(&mut sent).await["number"], "+12025550143");
    devices.stop().await;
}

#[tokio::test]
async fn a_command_that_sms2mqtt_cannot_read_is_answered_with_its_error() {
    let broker = broker().await;
    let mut sent = broker.subscribe_local("sms2mqtt/sent", 8);
    let mut devices = Devices::start(broker.port(), &script(Device::Sms2mqtt, &[], &[]));
    until(&mut devices, "the connection", |event| {
        event.device == Device::Sms2mqtt && event.what == What::Connected
    })
    .await;
    for (payload, result) in [
        ("{\"text\":\"x\"}", "error : no number to send to"),
        ("{\"number\":\"+1\"}", "error : no text body to send"),
    ] {
        broker
            .publish_local("sms2mqtt/send", payload, QoS::AtLeastOnce, false)
            .await
            .unwrap();
        let answer = json_from(&mut sent).await;
        assert_eq!(
            (&answer["result"], &answer["payload"]),
            (&json!(result), &json!(payload))
        );
    }
    devices.stop().await;
}

#[tokio::test]
async fn the_demo_starts_at_once_and_speaks_many_languages() {
    let script = Script::demo();
    let texts: Vec<&Text> = script
        .customers
        .iter()
        .flat_map(|customer| &customer.texts)
        .collect();
    assert!(
        texts
            .iter()
            .filter(|text| text.after < Duration::from_secs(2))
            .count()
            >= 3
    );
    assert!(texts.iter().any(|text| text.text.chars().count() > 320));
    assert!(texts.iter().any(|text| text.text.contains('ß')));
    for device in Device::ALL {
        assert!(script.customers.iter().any(|customer| {
            customer.device == device
                && customer
                    .texts
                    .iter()
                    .any(|text| text.after < Duration::from_secs(1))
        }));
    }
    let broker = broker().await;
    let mut all = broker.subscribe_local("#", 64);
    let devices = Devices::start(broker.port(), &script);
    let first = timeout(Duration::from_secs(2), async {
        loop {
            let message = all.recv().await.unwrap();
            if message.topic.ends_with("received") {
                return message;
            }
        }
    });
    first.await.expect("no message within two seconds");
    devices.stop().await;
}

#[tokio::test]
async fn the_bridge_for_picture_messages_brings_a_file_and_reports_the_delivery() {
    let broker = broker().await;
    let mut received = broker.subscribe_local("mms/received", 8);
    let mut reports = broker.subscribe_local("mms/report", 8);
    let mut script = script(Device::Mms, &["look"], &[]);
    script.customers[0].texts[0].files.push(File {
        name: "a.png".to_owned(),
        mime: "image/png".to_owned(),
        bytes: vec![1, 2, 3, 4],
    });
    let mut devices = Devices::start(broker.port(), &script);
    let message = json_from(&mut received).await;
    assert_eq!(
        (&message["from"], &message["text"], &message["media"]),
        (
            &json!("+447700900142"),
            &json!("look"),
            &json!([{"name": "a.png", "type": "image/png", "data": "AQIDBA=="}])
        )
    );
    let event = until(&mut devices, "the message", |event| {
        matches!(event.what, What::Received { .. })
    })
    .await;
    assert_eq!(event.to_string(), "Emma wrote to the MMS bridge: look [a.png]");
    let command = json!({ "to": "+447700900142", "text": "I see" }).to_string();
    broker
        .publish_local("mms/send", command, QoS::AtLeastOnce, false)
        .await
        .unwrap();
    assert_eq!(
        json_from(&mut reports).await,
        json!({ "to": "+447700900142", "state": "delivered" })
    );
    devices.stop().await;
}

#[test]
fn a_long_or_foreign_text_is_marked_as_multipart() {
    let now = jiff::Timestamp::UNIX_EPOCH;
    for (text, multipart) in [
        ("x".repeat(160), false),
        ("x".repeat(161), true),
        ("ш".repeat(71), true),
    ] {
        let payload = formats::received(Device::Gsm2mqtt, "+1", &Text::from(text.clone()), now).payload;
        let payload: Value = serde_json::from_str(&payload).unwrap();
        assert_eq!(payload["multipart"], multipart, "{text}");
        assert_eq!(payload["timestamp"], "1970-01-01T00:00:00Z");
    }
    let command = Command {
        number: "+1".to_owned(),
        text: "x".to_owned(),
    };
    let report: Value =
        serde_json::from_str(&formats::confirmed(Device::Sms2mqtt, &command, 0, now).payload).unwrap();
    assert_eq!(report["datetime"], "1970-01-01 00:00:00");
}

#[test]
fn the_products_presets_read_and_write_what_the_devices_speak() {
    let now = jiff::Timestamp::now();
    let at = crate::domain::Timestamp::from_unix_ms(now.as_millisecond());
    let desk: ChannelId = "desk".parse().unwrap();
    for (device, preset, delivered) in [
        (Device::Sms2mqtt, "sms2mqtt", false),
        (Device::Gsm2mqtt, "gsm2mqtt", true),
    ] {
        let spec = DeviceSpec {
            preset: Some(preset.to_owned()),
            ..DeviceSpec::default()
        };
        let mapping = Mapping::compile(&spec).unwrap();
        let read = |publication: &formats::Publication| {
            assert!(
                mapping.takes(&publication.topic),
                "{device} publishes to {}",
                publication.topic
            );
            let packet = Packet {
                topic: &publication.topic,
                payload: publication.payload.as_bytes(),
                packet_id: Some(1),
                retained: false,
                dup: false,
            };
            mapping.read(&desk, &packet, at)
        };

        let incoming = formats::received(device, "+447700900142", &"Grüße 👋".to_owned().into(), now);
        let Read::Message(message) = read(&incoming) else {
            panic!("{device}: not read as a message")
        };
        assert_eq!(
            (message.from.as_str(), message.text.as_str()),
            ("+447700900142", "Grüße 👋")
        );
        let time = message.device_time.unwrap();
        assert!(
            (at.unix_ms() - time.unix_ms()).abs() < 1000,
            "{device}: {}",
            time.to_iso8601()
        );

        let answer = Outgoing {
            id: MessageId {
                conversation: ConversationId(1),
                sequence: Sequence(1),
            },
            channel: desk.clone(),
            to: message.from.clone(),
            text: "Gern! \"Bis\" bald\n👍".to_owned(),
            route: message.route.clone(),
        };
        let publish = mapping.write(&answer).unwrap();
        assert_eq!(publish.topic, formats::command_topic(device));
        let command = formats::command(device, &publish.payload).unwrap();
        assert_eq!(
            (command.number.as_str(), &command.text),
            ("+447700900142", &answer.text)
        );

        let Read::Status(report) = read(&formats::confirmed(device, &command, 1, now)) else {
            panic!("{device}: not read as a status")
        };
        let wanted = if delivered {
            DeviceStatus::Delivered
        } else {
            DeviceStatus::Sent
        };
        assert_eq!(report.status, wanted, "{device}");
    }
}
