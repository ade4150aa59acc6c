//! Clients that people use: rumqttc as the driver configures it, and mosquitto's.

use std::collections::HashSet;
use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};

use super::super::{Broker, Duplicate, QoS};
use super::{broker, until, within};

fn options(broker: &Broker, id: &str) -> MqttOptions {
    let mut options = MqttOptions::new(id, "127.0.0.1", broker.port());
    options
        .set_clean_start(false)
        .set_session_expiry_interval(Some(3600))
        .set_manual_acks(true)
        .set_receive_maximum(Some(64))
        .set_max_packet_size(Some(1 << 20))
        .set_outgoing_inflight_upper_limit(16)
        .set_keep_alive(Duration::from_secs(5));
    options
}

/// Polls until `done` says so; connection errors are what the tests provoke, so polling goes on.
async fn poll_until(events: &mut EventLoop, what: &str, mut done: impl FnMut(&Event) -> bool) {
    within(what, async {
        loop {
            match events.poll().await {
                Ok(event) if done(&event) => return,
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await;
}

#[tokio::test]
async fn rumqttc_gets_every_message_in_order_through_cuts_and_duplicates() {
    const COUNT: usize = 500;
    let broker = Arc::new(broker().await);
    let (client, mut events) = AsyncClient::new(options(&broker, "gateway"), 256);
    client.subscribe("device/+", QoS::AtLeastOnce).await.unwrap();
    poll_until(&mut events, "SUBACK", |event| {
        matches!(event, Event::Incoming(Packet::SubAck(_)))
    })
    .await;

    let source = broker.clone();
    let publishing = tokio::spawn(async move {
        for number in 0..COUNT {
            let topic = format!("device/{}", number % 7);
            source
                .publish_local(&topic, number.to_string(), QoS::AtLeastOnce, false)
                .await
                .unwrap();
        }
    });

    broker.faults().duplicate(Duplicate::Unmarked);
    let mut seen = HashSet::new();
    let mut last = [None; 7];
    let mut total = 0;
    let faults = broker.faults();
    let acks = client.clone();
    poll_until(&mut events, "all messages", |event| {
        let Event::Incoming(Packet::Publish(publish)) = event else {
            return false;
        };
        total += 1;
        let number: usize = std::str::from_utf8(&publish.payload).unwrap().parse().unwrap();
        // A repetition may go back in order; the first copies may not.
        if seen.insert(number) {
            let topic = &mut last[number % 7];
            assert!(*topic < Some(number), "{number} came after {topic:?}");
            *topic = Some(number);
        }
        // An acknowledgement that does not fit is one more message to repeat.
        drop(acks.try_ack(publish));
        if total % 200 == 0 {
            faults.close_all_connections();
        }
        seen.len() == COUNT
    })
    .await;
    within("the publisher", publishing).await.unwrap();
    assert!(total > COUNT);
    assert!(broker.stats().connected > 2);
    assert_eq!(broker.stats().violations, 0);
}

#[tokio::test]
async fn rumqttc_sends_again_what_was_not_confirmed() {
    let broker = broker().await;
    let mut local = broker.subscribe_local("out", 8);
    broker.faults().drop_next_pubacks(1);
    let (client, mut events) = AsyncClient::new(options(&broker, "gateway"), 16);
    client
        .publish("out", QoS::AtLeastOnce, false, "reply")
        .await
        .unwrap();
    let faults = broker.faults();
    let cut = async {
        until(&broker, "the dropped PUBACK", |stats| stats.pubacks_dropped == 1).await;
        faults.close_all_connections();
    };
    let confirmed = poll_until(&mut events, "PUBACK", |event| {
        matches!(event, Event::Incoming(Packet::PubAck(_)))
    });
    tokio::join!(cut, confirmed);
    for _ in 0..2 {
        assert_eq!(local.recv().await.unwrap().payload, "reply");
    }
    assert_eq!(broker.stats().received, 2);
}

/// rumqttc repeats in the order of packet ids, which wrap, so the order among its unconfirmed messages is not kept.
#[tokio::test]
async fn nothing_that_rumqttc_publishes_is_lost_through_cuts_and_dropped_pubacks() {
    const COUNT: usize = 500;
    let broker = broker().await;
    let mut local = broker.subscribe_local("device", 64);
    let (client, mut events) = AsyncClient::new(options(&broker, "device"), 16);
    let sending = tokio::spawn(async move {
        for number in 0..COUNT {
            client
                .publish("device", QoS::AtLeastOnce, false, number.to_string())
                .await
                .unwrap();
        }
        client
    });
    let polling = tokio::spawn(async move { poll_until(&mut events, "the end", |_| false).await });
    let trouble = async {
        for round in 1..=4 {
            until(&broker, "messages", |stats| stats.received >= round * 80).await;
            broker.faults().drop_next_pubacks(5);
            // Cut only now: rumqttc waits for a PUBACK that does not come until its pings tell it otherwise.
            until(&broker, "dropped PUBACKs", |stats| {
                stats.pubacks_dropped >= round * 5
            })
            .await;
            broker.faults().close_all_connections();
        }
    };
    let listening = within("all messages", async {
        let mut seen = HashSet::new();
        while seen.len() < COUNT {
            seen.insert(local.recv().await.unwrap().payload);
        }
    });
    tokio::join!(trouble, listening);
    polling.abort();
    within("the sender", sending).await.unwrap();
    assert!(broker.stats().received >= COUNT as u64 + 20);
    assert_eq!(broker.stats().violations, 0);
}

#[tokio::test]
async fn rumqttc_of_3_1_1_subscribes_publishes_and_resumes() {
    let broker = broker().await;
    let mut options = rumqttc::MqttOptions::new("old", "127.0.0.1", broker.port());
    options.set_clean_session(false);
    let connect = || rumqttc::AsyncClient::new(options.clone(), 16);
    let (client, mut events) = connect();
    client.subscribe("a/+", rumqttc::QoS::AtLeastOnce).await.unwrap();
    client
        .publish("a/b", rumqttc::QoS::AtLeastOnce, false, "hello")
        .await
        .unwrap();
    let mut got = (false, false);
    within("the message and its PUBACK", async {
        while got != (true, true) {
            match events.poll().await.unwrap() {
                rumqttc::Event::Incoming(rumqttc::Packet::Publish(message)) => {
                    assert_eq!(message.payload, "hello");
                    got.0 = true;
                }
                rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_)) => got.1 = true,
                _ => {}
            }
        }
    })
    .await;
    drop((client, events));
    until(&broker, "the end", |stats| stats.connections == 0).await;
    broker
        .publish_local("a/c", "later", QoS::AtLeastOnce, false)
        .await
        .unwrap();
    let (_client, mut events) = connect();
    within("the message of the session", async {
        loop {
            match events.poll().await.unwrap() {
                rumqttc::Event::Incoming(rumqttc::Packet::ConnAck(ack)) => assert!(ack.session_present),
                rumqttc::Event::Incoming(rumqttc::Packet::Publish(message)) if message.payload == "later" => {
                    break;
                }
                _ => {}
            }
        }
    })
    .await;
}

/// Mosquitto's client, or `None` with a word when it is not installed.
fn mosquitto(name: &str, broker: &Broker, version: &str) -> Option<Command> {
    let found = Command::new(name)
        .arg("--help")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        eprintln!("SKIP: {name} is not installed (apt-get install mosquitto-clients)");
        return None;
    }
    let mut command = Command::new(name);
    command
        .args(["-h", "127.0.0.1", "-V", version, "-p", &broker.port().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if name == "mosquitto_sub" {
        // It would try to reconnect for ever when a test has failed.
        command.args(["-W", "10"]);
    }
    Some(command)
}

/// Gives the process its input and waits for its end.
async fn finish(mut process: Child, input: String) -> Output {
    let waiting = tokio::task::spawn_blocking(move || {
        process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        process.wait_with_output().unwrap()
    });
    within("the end of a process", waiting).await.unwrap()
}

#[tokio::test]
async fn mosquittos_clients_exchange_messages_in_both_versions() {
    for version in ["mqttv5", "mqttv311"] {
        let broker = broker().await;
        let (Some(mut sub), Some(mut publisher)) = (
            mosquitto("mosquitto_sub", &broker, version),
            mosquitto("mosquitto_pub", &broker, version),
        ) else {
            return;
        };
        broker
            .publish_local("sms/state", "online", QoS::AtLeastOnce, true)
            .await
            .unwrap();
        let sub = sub
            .args([
                "-i", "sub", "-q", "1", "-t", "sms/#", "-C", "301", "-F", "%r %t %p",
            ])
            .spawn()
            .unwrap();
        // The retained message has arrived: the subscription stands.
        until(&broker, "the subscription", |stats| stats.acked == 1).await;

        let publisher = publisher
            .args(["-q", "1", "-t", "sms/received", "-l"])
            .spawn()
            .unwrap();
        let lines: Vec<String> = (0..300).map(|number| format!("Nachricht {number} 👍")).collect();
        let publisher = finish(publisher, lines.join("\n")).await;
        assert!(
            publisher.status.success(),
            "{}",
            String::from_utf8_lossy(&publisher.stderr)
        );

        let output = finish(sub, String::new()).await;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let wanted: Vec<String> = std::iter::once("1 sms/state online".to_owned())
            .chain(lines.iter().map(|line| format!("0 sms/received {line}")))
            .collect();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed.lines().collect::<Vec<_>>(), wanted, "{version}");
        until(&broker, "the end", |stats| stats.connections == 0).await;
        assert_eq!(broker.stats().violations, 0);
        assert_eq!(broker.stats().acked, 301);
    }
}

#[tokio::test]
async fn mosquittos_client_leaves_its_will_when_it_is_killed() {
    let broker = broker().await;
    let Some(mut sub) = mosquitto("mosquitto_sub", &broker, "mqttv5") else {
        return;
    };
    let mut local = broker.subscribe_local("will", 1);
    let mut sub = sub
        .args([
            "-t",
            "a",
            "--will-topic",
            "will",
            "--will-payload",
            "gone",
            "--will-qos",
            "1",
        ])
        .spawn()
        .unwrap();
    until(&broker, "the connection", |stats| stats.connections == 1).await;
    sub.kill().unwrap();
    sub.wait().unwrap();
    assert_eq!(within("the will", local.recv()).await.unwrap().payload, "gone");
}

#[tokio::test]
async fn mosquittos_client_of_version_3_1_is_refused_in_words_it_understands() {
    let broker = broker().await;
    let Some(mut publisher) = mosquitto("mosquitto_pub", &broker, "mqttv31") else {
        return;
    };
    let output = publisher.args(["-t", "a", "-m", "x"]).spawn().unwrap();
    let output = finish(output, String::new()).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("unacceptable protocol version"), "{said}");
}
