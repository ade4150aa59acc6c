//! A running driver and the store's side of it.

use std::path::PathBuf;
use std::time::Duration;

use pipepost::config::{Broker, Protocol};
use pipepost::domain::*;
use pipepost::driver::mqtt::{self, Setup};
use pipepost::driver::{DriverEvent, DriverHandle, Link, OutgoingJob, Stored};
use pipepost::protocol::mqtt::Mapping;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::mosquitto_support::LIMIT;

pub(crate) const MAPPING: &str = r#"
    in = { topic = "desk/{line}/received", from = "/from", text = "/text" }
    out = { topic = "desk/{{line}}/send", payload = '{"to":{{to}},"text":{{text}},"id":{{id}}}' }
    [[status]]
    topic = "desk/{line}/report"
    match = { id = "/id" }
    at = "/state"
    map = { ok = "delivered", "*" = "failed" }
"#;

pub(crate) fn broker(port: u16) -> Broker {
    Broker {
        name: "site".to_owned(),
        host: "127.0.0.1".to_owned(),
        port,
        tls: None,
        protocol: Protocol::V5,
        announce: true,
        client_id: None,
        username: None,
        password: None,
        keep_alive: Duration::from_secs(30),
        session_expiry: Duration::from_secs(3600),
        receive_maximum: 64,
        max_packet_size: 1 << 20,
    }
}

/// A running driver and the store's side of it.
pub(crate) struct Gateway {
    pub(crate) handle: DriverHandle,
    events: mpsc::Receiver<DriverEvent>,
    stop: watch::Sender<bool>,
    work: JoinHandle<()>,
}

impl Gateway {
    pub(crate) fn start(broker: Broker) -> Self {
        Self::start_with(broker, MAPPING, None)
    }

    pub(crate) fn start_with(broker: Broker, mapping: &str, subscriptions_file: Option<PathBuf>) -> Self {
        let (event_sender, events) = mpsc::channel(16);
        let (stop, stopped) = watch::channel(false);
        let device = mqtt::Device {
            name: "desk".to_owned(),
            channel: "desk".parse().unwrap(),
            mapping: Mapping::compile(&toml::from_str(mapping).unwrap()).unwrap(),
        };
        let (handle, work) = mqtt::spawn(Setup {
            broker,
            devices: vec![device],
            client_id: "pipepost-test".to_owned(),
            gateway: "gw-1".parse().unwrap(),
            subscriptions_file,
            events: event_sender,
            stop: stopped,
        });
        Self {
            handle,
            events,
            stop,
            work: tokio::spawn(work),
        }
    }

    pub(crate) async fn up(&mut self) {
        let up = self
            .handle
            .link
            .wait_for(|link| matches!(link, Link::Up(_) | Link::Limited { .. }));
        timeout(LIMIT, up)
            .await
            .expect("the driver does not connect")
            .unwrap();
    }

    /// The reason for which the driver is not connected, once it contains a text.
    pub(crate) async fn down(&mut self, part: &str) -> String {
        let mut link = self.handle.link.clone();
        let down = link.wait_for(|link| matches!(link, Link::Down { reason, .. } if reason.contains(part)));
        match timeout(LIMIT, down).await.map(|link| link.unwrap().clone()) {
            Ok(Link::Down { reason, .. }) => reason,
            _ => panic!("not {part:?}: {:?}", self.handle.link.borrow()),
        }
    }

    pub(crate) async fn event(&mut self) -> DriverEvent {
        timeout(LIMIT, self.events.recv())
            .await
            .expect("no event")
            .unwrap()
    }

    pub(crate) async fn received(&mut self) -> (ReceivedMessage, oneshot::Sender<Stored>) {
        match self.event().await {
            DriverEvent::Received { message, stored } => (*message, stored),
            DriverEvent::Unmapped { record, .. } => panic!("unmapped: {}", record.reason),
            DriverEvent::Status { .. } => panic!("a status"),
        }
    }

    pub(crate) async fn send(&self, text: &str, line: &str) -> Attempt {
        let receiver = self.submit(text, line).await;
        timeout(LIMIT, receiver).await.expect("no outcome").unwrap()
    }

    /// Hands an answer over; its outcome comes later.
    pub(crate) async fn submit(&self, text: &str, line: &str) -> oneshot::Receiver<Attempt> {
        let (outcome, receiver) = oneshot::channel();
        let message = Outgoing {
            id: MessageId {
                conversation: ConversationId(1),
                sequence: Sequence(2),
            },
            channel: "desk".parse().unwrap(),
            to: Address::new("+15550100").unwrap(),
            text: text.to_owned(),
            route: Route::from([("line".to_owned(), line.to_owned())]),
        };
        self.handle
            .outgoing
            .send(OutgoingJob { message, outcome })
            .await
            .ok()
            .unwrap();
        receiver
    }

    /// As SIGKILL does: nothing more is sent, the connection breaks.
    pub(crate) async fn crash(self) {
        self.work.abort();
        let _cancelled = self.work.await;
    }

    pub(crate) async fn stop(self) {
        self.stop.send(true).unwrap();
        timeout(LIMIT, self.work)
            .await
            .expect("the driver does not stop")
            .unwrap();
    }
}

pub(crate) fn text(text: &str) -> (String, Vec<u8>) {
    (
        "desk/1/received".to_owned(),
        format!(r#"{{"from":"+15550100","text":"{text}"}}"#).into_bytes(),
    )
}

pub(crate) fn texts(names: impl IntoIterator<Item = String>) -> Vec<(String, Vec<u8>)> {
    names.into_iter().map(|name| text(&name)).collect()
}
