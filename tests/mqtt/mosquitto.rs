//! The driver against a real mosquitto.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pipepost::config::{Broker, BrokerTls};
use pipepost::domain::*;
use pipepost::driver::{DriverEvent, Link, Stored};

use crate::gateway::{Gateway, MAPPING, broker, text, texts};
use crate::mosquitto_support::{Device, LIMIT, Mosquitto};

macro_rules! mosquitto_or_skip {
    ($start:expr) => {
        match $start {
            Some(broker) => broker,
            None => return,
        }
    };
}

#[tokio::test]
async fn a_message_is_acknowledged_only_after_it_was_stored_and_comes_again_after_a_crash() {
    let site = mosquitto_or_skip!(Mosquitto::start());
    let mut gateway = Gateway::start(broker(site.port));
    gateway.up().await;
    let mut device = Device::connect(site.port, "device", &[]).await;
    device.publish_all([text("one")]).await;
    let (message, _unanswered) = gateway.received().await;
    let Some(DedupKey::FirstHash(first)) = message.dedup else {
        panic!("a first delivery is not a repeat")
    };
    assert_eq!(
        (message.text.as_str(), message.route["line"].as_str()),
        ("one", "1")
    );
    gateway.crash().await;

    let mut gateway = Gateway::start(broker(site.port));
    let (message, stored) = gateway.received().await;
    assert_eq!(
        message.dedup,
        Some(DedupKey::Hash(first)),
        "the repeat is recognised"
    );
    stored.send(Stored::Acknowledge).unwrap();
    device.publish_all([text("two")]).await;
    let (message, stored) = gateway.received().await;
    assert_eq!(message.text, "two");
    stored.send(Stored::Acknowledge).unwrap();
    // A third one is in flight when the gateway stops in order: only it may come again.
    device.publish_all([text("three")]).await;
    let (_, _unanswered) = gateway.received().await;
    gateway.stop().await;

    let mut gateway = Gateway::start(broker(site.port));
    let (message, _stored) = gateway.received().await;
    assert_eq!(message.text, "three");
}

#[tokio::test]
async fn what_is_sent_while_the_gateway_is_away_waits_in_its_session() {
    let site = mosquitto_or_skip!(Mosquitto::start());
    let mut gateway = Gateway::start(broker(site.port));
    gateway.up().await;
    gateway.stop().await;
    let mut device = Device::connect(site.port, "device", &[]).await;
    device.publish_all(texts((0..300).map(|n| n.to_string()))).await;
    let mut gateway = Gateway::start(broker(site.port));
    for n in 0..300 {
        let (message, stored) = gateway.received().await;
        assert_eq!(message.text, n.to_string());
        stored.send(Stored::Acknowledge).unwrap();
    }
}

#[tokio::test]
async fn a_broker_that_is_killed_and_comes_back_loses_nothing() {
    let mut site = mosquitto_or_skip!(Mosquitto::start());
    let mut gateway = Gateway::start(broker(site.port));
    gateway.up().await;
    let mut device = Device::connect(site.port, "device", &[]).await;
    device.publish_all(texts((0..100).map(|n| n.to_string()))).await;
    let (message, stored) = gateway.received().await;
    assert_eq!(message.text, "0");
    // Autosave runs once a second.
    wait_for_database(&site).await;
    site.kill();
    gateway.down("").await;
    // Stored, but the acknowledgement belongs to a connection that is gone.
    stored.send(Stored::Acknowledge).unwrap();
    site.restart();
    let mut seen = BTreeSet::new();
    while seen.len() < 100 {
        let (message, stored) = gateway.received().await;
        seen.insert(message.text.parse::<u32>().unwrap());
        let _stale = stored.send(Stored::Acknowledge);
    }
    gateway.up().await;
    device.publish_all([text("after")]).await;
    loop {
        let (message, stored) = gateway.received().await;
        let _stale = stored.send(Stored::Acknowledge);
        if message.text == "after" {
            break;
        }
    }
}

/// Waits until the broker has written its database after the last message.
async fn wait_for_database(site: &Mosquitto) {
    let written = |site: &Mosquitto| {
        std::fs::metadata(site.folder().join("mosquitto.db"))
            .ok()
            .filter(|data| data.len() > 4000)?
            .modified()
            .ok()
    };
    let before = std::time::SystemTime::now();
    let end = Instant::now() + LIMIT;
    while written(site).is_none_or(|time| time < before) {
        if written(site).is_some() && before.elapsed().unwrap() > Duration::from_secs(2) {
            return;
        }
        assert!(Instant::now() < end, "no database");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_thousand_messages_pass_a_slow_store_in_order_with_many_in_flight() {
    let site = mosquitto_or_skip!(Mosquitto::start());
    let mut gateway = Gateway::start(broker(site.port));
    gateway.up().await;
    let port = site.port;
    let publishing = tokio::spawn(async move {
        let mut device = Device::connect(port, "device", &[]).await;
        device.publish_all(texts((0..1000).map(|n| n.to_string()))).await;
    });
    let started = Instant::now();
    let mut next = 0;
    let mut most = 0;
    while next < 1000 {
        // One sync of 10 ms for all that is waiting.
        let mut batch = vec![gateway.received().await];
        let sync = tokio::time::sleep(Duration::from_millis(10));
        tokio::pin!(sync);
        loop {
            tokio::select! {
                () = &mut sync => break,
                event = gateway.received() => batch.push(event),
            }
        }
        most = most.max(batch.len());
        for (message, stored) in batch {
            assert_eq!(message.text, next.to_string(), "order, and none twice");
            next += 1;
            stored.send(Stored::Acknowledge).unwrap();
        }
    }
    publishing.await.unwrap();
    assert!(most >= 32, "at most {most} waited for one sync");
    println!("1,000 messages in {:?}, up to {most} per sync", started.elapsed());
}

#[tokio::test]
async fn a_store_without_space_gets_every_message_later_in_order() {
    let site = mosquitto_or_skip!(Mosquitto::start());
    let mut gateway = Gateway::start(broker(site.port));
    gateway.up().await;
    let mut device = Device::connect(site.port, "device", &[]).await;
    device.publish_all(texts((0..200).map(|n| n.to_string()))).await;
    let mut window = Vec::new();
    while window.len() < 64 {
        window.push(gateway.received().await.1);
    }
    for stored in window {
        stored.send(Stored::Refused).unwrap();
    }
    // Only the oldest is tried again, and nothing newer passes it.
    let (message, stored) = gateway.received().await;
    assert_eq!(message.text, "0");
    stored.send(Stored::Refused).unwrap();
    for next in 0..200 {
        let (message, stored) = gateway.received().await;
        assert_eq!(message.text, next.to_string());
        stored.send(Stored::Acknowledge).unwrap();
    }
    assert!(
        matches!(*gateway.handle.link.borrow(), Link::Up(_)),
        "no reconnect was needed"
    );
}

#[tokio::test]
async fn an_answer_is_sent_when_the_broker_has_confirmed_it() {
    let site = mosquitto_or_skip!(Mosquitto::start());
    let mut gateway = Gateway::start(broker(site.port));
    gateway.up().await;
    let mut device = Device::connect(site.port, "device", &["desk/1/send"]).await;
    assert_eq!(gateway.send("Hello \"you\"", "1").await, Attempt::Sent);
    let heard = device.hear().await;
    assert!(!heard.retained);
    let payload: serde_json::Value = serde_json::from_slice(&heard.payload).unwrap();
    assert_eq!(
        (payload["to"].as_str(), payload["text"].as_str()),
        (Some("+15550100"), Some("Hello \"you\""))
    );
    device
        .publish(
            "desk/1/report",
            serde_json::json!({"id": payload["id"], "state": "ok"}).to_string(),
        )
        .await;
    match gateway.event().await {
        DriverEvent::Status { report, stored } => {
            assert_eq!(report.status, DeviceStatus::Delivered);
            assert!(matches!(report.of, StatusTarget::Id(id) if id.sequence == Sequence(2)));
            stored.send(Stored::Acknowledge).unwrap();
        }
        _ => panic!("not a status"),
    }
    // More than may be in flight, also more than the library has packet identifiers.
    for n in 0..50 {
        assert_eq!(gateway.send(&n.to_string(), "1").await, Attempt::Sent);
    }
    match gateway.send("x", "2").await {
        Attempt::Rejected(reason) => assert!(reason.contains("no device is subscribed"), "{reason}"),
        other => panic!("{other:?}"),
    }
    match gateway.send("x", "1/../admin").await {
        Attempt::Rejected(reason) => assert!(reason.contains("out.topic"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_larger_than_the_broker_takes_is_refused_without_a_reconnect() {
    let site = mosquitto_or_skip!(Mosquitto::start_with(
        "allow_anonymous true\nmax_packet_size 2000\n",
        |_| {}
    ));
    let mut gateway = Gateway::start(broker(site.port));
    gateway.up().await;
    let _device = Device::connect(site.port, "device", &["desk/1/send"]).await;
    match gateway.send(&"x".repeat(3000), "1").await {
        Attempt::Rejected(reason) => assert!(reason.contains("the broker accepts 2000"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(gateway.send("short", "1").await, Attempt::Sent);
}

#[tokio::test]
async fn nothing_is_started_while_the_broker_is_away() {
    let mut site = mosquitto_or_skip!(Mosquitto::start());
    let mut gateway = Gateway::start(broker(site.port));
    gateway.up().await;
    site.kill();
    gateway.down("127.0.0.1").await;
    assert!(matches!(gateway.send("x", "1").await, Attempt::NotStarted(_)));
}

#[tokio::test]
async fn what_cannot_be_read_becomes_a_record_and_the_next_message_passes() {
    let site = mosquitto_or_skip!(Mosquitto::start());
    let mut gateway = Gateway::start(broker(site.port));
    gateway.up().await;
    let mut device = Device::connect(site.port, "device", &[]).await;
    device
        .publish("desk/1/received", b"\xff\xfe not json".to_vec())
        .await;
    device.publish_all([text("fine")]).await;
    match gateway.event().await {
        DriverEvent::Unmapped { record, stored } => {
            assert_eq!(
                (record.device.as_str(), record.source.as_str()),
                ("desk", "desk/1/received")
            );
            assert!(record.reason.contains("binary"), "{}", record.reason);
            stored.send(Stored::Acknowledge).unwrap();
        }
        _ => panic!("binary data became a message"),
    }
    assert_eq!(gateway.received().await.0.text, "fine");
}

#[tokio::test]
async fn the_gateways_state_on_the_broker_follows_crash_return_and_stop() {
    let site = mosquitto_or_skip!(Mosquitto::start());
    let mut watcher = Device::connect(site.port, "watcher", &["pipepost/gw-1/status"]).await;
    let mut gateway = Gateway::start(broker(site.port));
    gateway.up().await;
    assert_eq!(watcher.hear().await.payload, b"online");
    gateway.crash().await;
    assert_eq!(watcher.hear().await.payload, b"offline", "the last will");
    let mut gateway = Gateway::start(broker(site.port));
    gateway.up().await;
    assert_eq!(watcher.hear().await.payload, b"online");
    gateway.stop().await;
    assert_eq!(watcher.hear().await.payload, b"offline");
    let mut late = Device::connect(site.port, "late", &["pipepost/gw-1/status"]).await;
    let heard = late.hear().await;
    assert_eq!(
        (heard.payload.as_slice(), heard.retained),
        (&b"offline"[..], true)
    );
}

#[tokio::test]
async fn a_retained_message_does_not_come_again_after_each_start() {
    let site = mosquitto_or_skip!(Mosquitto::start());
    let mut device = Device::connect(site.port, "device", &[]).await;
    device
        .publish_retained("desk/1/received", r#"{"from":"1","text":"old"}"#)
        .await;
    for round in ["first", "second"] {
        let mut gateway = Gateway::start(broker(site.port));
        gateway.up().await;
        device.publish_all([text(round)]).await;
        let (message, stored) = gateway.received().await;
        assert_eq!(message.text, round);
        stored.send(Stored::Acknowledge).unwrap();
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_subscription_that_left_the_configuration_is_ended() {
    let site = mosquitto_or_skip!(Mosquitto::start());
    let file = site.folder().join("subscriptions");
    let mut gateway = Gateway::start_with(broker(site.port), MAPPING, Some(file.clone()));
    gateway.up().await;
    gateway.stop().await;
    let other = r#"in = { topic = "other", from = "/from", text = "/text" }"#;
    let mut gateway = Gateway::start_with(broker(site.port), other, Some(file.clone()));
    gateway.up().await;
    let end = Instant::now() + LIMIT;
    while std::fs::read_to_string(&file).unwrap() != "other" {
        assert!(Instant::now() < end, "the broker did not end it");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut device = Device::connect(site.port, "device", &[]).await;
    // The broker knows no subscriber any more, which it says in its answer; nothing of it reaches the gateway.
    device.publish_all([text("gone")]).await;
    device.publish("other", r#"{"from":"1","text":"here"}"#).await;
    assert_eq!(gateway.received().await.0.text, "here");
}

#[tokio::test]
async fn a_second_client_with_the_same_id_is_named_as_the_cause() {
    let site = mosquitto_or_skip!(Mosquitto::start());
    let mut gateway = Gateway::start(broker(site.port));
    gateway.up().await;
    let _twin = Device::connect(site.port, "pipepost-test", &[]).await;
    let reason = gateway.down("another client").await;
    assert!(reason.contains("\"pipepost-test\""), "{reason}");
}

#[tokio::test]
async fn failures_to_connect_are_told_apart_in_words() {
    let passwords = |folder: &std::path::Path| {
        let made = std::process::Command::new("mosquitto_passwd")
            .args(["-b", "-c"])
            .arg(folder.join("passwords"))
            .args(["gateway", "right"])
            .status();
        assert!(made.unwrap().success());
    };
    let settings = "allow_anonymous false\npassword_file {folder}/passwords\n";
    let site = mosquitto_or_skip!(Mosquitto::start_with(settings, passwords));
    let with = |username: Option<&str>, password: &str| Broker {
        username: username.map(str::to_owned),
        password: Some(Secret::new(password.to_owned())),
        ..broker(site.port)
    };
    let mut gateway = Gateway::start(with(Some("gateway"), "right"));
    gateway.up().await;
    gateway.stop().await;
    let mut gateway = Gateway::start(with(Some("gateway"), "wrong"));
    let reason = gateway.down("refused the user \"gateway\"").await;
    assert!(
        reason.contains("`password_file`") && !reason.contains("wrong"),
        "{reason}"
    );
    let mut gateway = Gateway::start(with(None, ""));
    gateway.down("wants a user name").await;

    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut gateway = Gateway::start(broker(closed));
    gateway.down("nothing listens at 127.0.0.1").await;

    let mut unknown = broker(1883);
    "broker.invalid".clone_into(&mut unknown.host);
    let mut gateway = Gateway::start(unknown);
    gateway.down("the name in broker.invalid:1883 is not known").await;

    let tls = BrokerTls {
        ca_file: None,
        client: None,
    };
    let mut gateway = Gateway::start(Broker {
        tls: Some(tls),
        ..with(Some("gateway"), "right")
    });
    gateway.down("TLS").await;
}

/// Certificates for a broker and a client from one authority.
fn make_certificates(folder: &std::path::Path) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, "test authority");
    let certificate = authority.self_signed(&authority_key).unwrap();
    std::fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    for (name, san) in [
        ("server", "127.0.0.1"),
        ("client", "gateway"),
        ("elsewhere", "elsewhere.example"),
    ] {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![san.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

#[tokio::test]
async fn tls_with_a_private_authority_and_client_certificates_works_and_its_failures_have_words() {
    let settings = "allow_anonymous true\ncafile {folder}/ca.pem\ncertfile {folder}/server.pem\n\
                    keyfile {folder}/server.key\nrequire_certificate true\n";
    let site = mosquitto_or_skip!(Mosquitto::start_with(settings, make_certificates));
    let file = |name: &str| site.folder().join(name);
    let with = |ca_file, client| Broker {
        tls: Some(BrokerTls { ca_file, client }),
        ..broker(site.port)
    };
    let client = || Some((file("client.pem"), file("client.key")));
    let mut gateway = Gateway::start(with(Some(file("ca.pem")), client()));
    gateway.up().await;
    gateway.stop().await;
    let mut gateway = Gateway::start(with(Some(file("ca.pem")), None));
    gateway.down("client certificate").await;
    let mut gateway = Gateway::start(with(None, client()));
    gateway.down("authority that is not trusted: set `ca_file`").await;
    let mut gateway = Gateway::start(with(Some(file("missing.pem")), client()));
    gateway.down("missing.pem cannot be read").await;
    let mut gateway = Gateway::start(Broker {
        host: "localhost".to_owned(),
        ..with(Some(file("ca.pem")), client())
    });
    gateway.down("is for another name").await;
    let mut gateway = Gateway::start(broker(site.port));
    gateway.down("closed the connection").await;
}

#[tokio::test]
async fn the_shipped_settings_are_taken_by_mosquitto_and_let_the_gateway_in() {
    let shipped = include_str!("../../config/mosquitto/pipepost.conf");
    let site = mosquitto_or_skip!(Mosquitto::start_exactly(
        |place, port| {
            // What Debian's own file sets beside it.
            let debian = format!("user root\npersistence true\npersistence_location {place}/\n");
            assert!(shipped.contains("listener 1883 127.0.0.1"));
            debian + &shipped.replace("listener 1883", &format!("listener {port}"))
        },
        |_| {}
    ));
    let mut gateway = Gateway::start(broker(site.port));
    gateway.up().await;
}

#[tokio::test]
async fn equal_texts_without_id_or_time_are_counted_exactly_over_twenty_crashes() {
    let site = mosquitto_or_skip!(Mosquitto::start());
    let mut gateway = Gateway::start(broker(site.port));
    gateway.up().await;
    let port = site.port;
    let publishing = tokio::spawn(async move {
        let mut device = Device::connect(port, "device", &[]).await;
        for _ in 0..40 {
            device
                .publish_all(texts((0..50).map(|n| (n % 10).to_string())))
                .await;
        }
    });
    // What a store does with keys: FirstHash is recorded, Hash is also compared.
    let mut keys = std::collections::HashSet::new();
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    let (mut stored_now, mut repeats, mut crashes) = (0_usize, 0, 0);
    while counts.values().sum::<u32>() < 2000 {
        let (message, stored) = gateway.received().await;
        let new = match message.dedup.unwrap() {
            DedupKey::Hash(hash) => keys.insert(hash),
            DedupKey::FirstHash(hash) => {
                keys.insert(hash);
                true
            }
            DedupKey::DeviceId(_) => panic!("there is no id"),
        };
        if new {
            *counts.entry(message.text).or_default() += 1;
        } else {
            repeats += 1;
        }
        stored_now += 1;
        // Stored; now and then the gateway dies before the acknowledgement, or with several under way.
        if crashes < 20 && stored_now == 37 + crashes * 3 {
            (stored_now, crashes) = (0, crashes + 1);
            if crashes % 2 == 0 {
                stored.send(Stored::Acknowledge).unwrap();
            }
            gateway.crash().await;
            gateway = Gateway::start(broker(site.port));
        } else {
            let _gone = stored.send(Stored::Acknowledge);
        }
    }
    publishing.await.unwrap();
    gateway.stop().await;
    assert_eq!((counts.len(), crashes), (10, 20));
    assert!(counts.values().all(|count| *count == 200), "{counts:?}");
    println!("{repeats} repeats were recognised over {crashes} crashes");
}
