//! A real mosquitto on a free port of the loopback interface, for tests. Include it with
//! `#[path = "support/mosquitto.rs"] mod mosquitto;`.
#![allow(dead_code, reason = "each test binary uses another part")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "these are tests; a skip must be seen"
)]

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long anything may take before a test fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Where mosquitto is, if it is installed (Debian package `mosquitto`).
pub(crate) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|folder| folder.join("mosquitto"))
        .find(|file| file.is_file())
}

/// A running broker; killed when it is dropped.
pub(crate) struct Mosquitto {
    child: Option<Child>,
    pub(crate) port: u16,
    folder: TempDir,
}

impl Mosquitto {
    /// A broker with persistence that lets everybody in; `None`, with a word why, when mosquitto is not installed.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("allow_anonymous true\n", |_| {})
    }

    /// A broker with further settings. `{folder}` stands for its folder, which `prepare` may fill.
    pub(crate) fn start_with(settings: &str, prepare: impl FnOnce(&Path)) -> Option<Self> {
        Self::start_exactly(
            |place, port| {
                let settings = settings.replace("{folder}", place);
                // "user root" matters only to root, for whom mosquitto would give up the right to write to the folder.
                format!(
                    "user root\npersistence true\npersistence_location {place}/\nautosave_interval 1\n\
                 max_queued_messages 100000\nmax_inflight_messages 64\n\
                 listener {port} 127.0.0.1\n{settings}"
                )
            },
            prepare,
        )
    }

    /// A broker with the settings that are made from its folder and port, and no others.
    pub(crate) fn start_exactly(
        settings: impl FnOnce(&str, u16) -> String,
        prepare: impl FnOnce(&Path),
    ) -> Option<Self> {
        if find().is_none() {
            println!("SKIP: mosquitto is not installed (Debian package mosquitto)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let place = folder.path().display().to_string();
        let text = settings(&place, port);
        std::fs::write(folder.path().join("mosquitto.conf"), text).unwrap();
        let mut broker = Self {
            child: None,
            port,
            folder,
        };
        broker.restart();
        Some(broker)
    }

    /// Its folder: configuration, database and what a test put there.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it again on the same port with what it has written to disk.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let child = Command::new(find().unwrap())
            .arg("-c")
            .arg(self.folder.path().join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let end = Instant::now() + LIMIT;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < end, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a device hears.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) retained: bool,
}

/// A device: publishes with QoS 1 and hears what it subscribed to.
pub(crate) struct Device {
    client: AsyncClient,
    acknowledged: mpsc::Receiver<PubAckReason>,
    heard: mpsc::Receiver<Heard>,
    work: JoinHandle<()>,
}

impl Device {
    /// Connects and subscribes.
    pub(crate) async fn connect(port: u16, name: &str, filters: &[&str]) -> Self {
        Self::connect_with(MqttOptions::new(name, "127.0.0.1", port), filters).await
    }

    pub(crate) async fn connect_with(mut options: MqttOptions, filters: &[&str]) -> Self {
        options
            .set_keep_alive(Duration::from_secs(30))
            .set_max_packet_size(Some(4 << 20));
        let (client, mut library) = AsyncClient::new(options, 256);
        let (ack_sender, acknowledged) = mpsc::channel(100_000);
        let (heard_sender, heard) = mpsc::channel(100_000);
        let (ready_sender, mut ready) = mpsc::channel(1);
        let subscriptions: Vec<Filter> = filters
            .iter()
            .map(|filter| Filter::new(*filter, QoS::AtLeastOnce))
            .collect();
        if !subscriptions.is_empty() {
            client.try_subscribe_many(subscriptions).unwrap();
        }
        let wants_subscriptions = !filters.is_empty();
        let work = tokio::spawn(async move {
            loop {
                match library.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) if !wants_subscriptions => {
                        let _full = ready_sender.try_send(());
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        let _full = ready_sender.try_send(());
                    }
                    Ok(Event::Incoming(Packet::PubAck(ack))) => {
                        let _gone = ack_sender.try_send(ack.reason);
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let _gone = heard_sender.try_send(Heard {
                            topic: String::from_utf8(publish.topic.to_vec()).unwrap(),
                            payload: publish.payload.to_vec(),
                            retained: publish.retain,
                        });
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        tokio::time::timeout(LIMIT, ready.recv())
            .await
            .expect("the device cannot connect");
        Self {
            client,
            acknowledged,
            heard,
            work,
        }
    }

    /// Publishes and waits until the broker has it.
    pub(crate) async fn publish(&mut self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.publish_all([(topic.to_owned(), payload.into())]).await;
    }

    /// Publishes many and waits until the broker has them.
    pub(crate) async fn publish_all(&mut self, messages: impl IntoIterator<Item = (String, Vec<u8>)>) {
        let mut open = 0_usize;
        for (topic, payload) in messages {
            self.client
                .publish(topic, QoS::AtLeastOnce, false, payload)
                .await
                .unwrap();
            open += 1;
        }
        while open > 0 {
            tokio::time::timeout(LIMIT, self.acknowledged.recv())
                .await
                .expect("no PUBACK")
                .unwrap();
            open -= 1;
        }
    }

    pub(crate) async fn publish_retained(&mut self, topic: &str, payload: &str) {
        self.client
            .publish(topic, QoS::AtLeastOnce, true, payload.to_owned())
            .await
            .unwrap();
        tokio::time::timeout(LIMIT, self.acknowledged.recv())
            .await
            .expect("no PUBACK")
            .unwrap();
    }

    /// What it hears next.
    pub(crate) async fn hear(&mut self) -> Heard {
        tokio::time::timeout(LIMIT, self.heard.recv())
            .await
            .expect("the device hears nothing")
            .unwrap()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.work.abort();
    }
}
