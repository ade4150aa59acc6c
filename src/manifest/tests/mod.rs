//! The listener over real TLS sockets, with the real store.

mod callback;
mod endpoints;
mod files;
mod hostile;
mod people;
mod posting;
mod smuggling;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Handle, Listener};
use crate::config::{self, Config};
use crate::domain::{
    Address, ChannelId, ChannelKind, ConversationId, MessageId, ProviderType, ReceivedAttachment,
    ReceivedMessage, Secret, Timestamp,
};
use crate::store::{Options, Store};

/// Longest wait for anything that must happen.
const LIMIT: Duration = Duration::from_secs(20);
const PUBLIC_URL: &str = "https://sms.example";
const START: Timestamp = Timestamp::from_unix_ms(1_769_744_285_007);

/// A running listener on a store of its own, with the channels `gw-1-desk` and `gw-1-yard`.
struct Gateway {
    store: Store,
    handle: Handle,
    tls: TlsConnector,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    dir: TempDir,
}

fn config(dir: &TempDir) -> Config {
    let channel = |id: &str, name: &str, avatar: Option<&str>| config::Channel {
        id: id.parse().unwrap(),
        name: name.to_owned(),
        kind: ChannelKind::Mqtt,
        device: None,
        modem: None,
        avatar_url: avatar.map(str::to_owned),
        provider_type: ProviderType::Other,
        template_support: false,
        on_unknown: config::OnUnknown::Fail,
        own_address: None,
    };
    Config {
        gateway: config::Gateway {
            id: Some("gw-1".parse().unwrap()),
            state_dir: dir.path().to_owned(),
            control_socket: dir.path().join("control.sock"),
            clock_wait: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
            home: crate::protocol::sms::Home::NOWHERE,
            templates_dir: dir.path().join("templates"),
        },
        pipedrive: config::Pipedrive {
            api_url: "https://pipedrive.example/api/v1".to_owned(),
            ca_file: None,
            api_url_given: false,
            oauth_url: "https://oauth.pipedrive.com".to_owned(),
            token_key: None,
            access_token: None,
            client_id: Some("client".to_owned()),
            client_secret: Some(Secret::new("secret".to_owned())),
            public_url: Some(PUBLIC_URL.to_owned()),
            created_at: config::CreatedAt::default(),
            timeout: Duration::from_secs(30),
            daily_budget: None,
            in_flight: 8,
        },
        listener: config::Listener {
            bind: "127.0.0.1:0".parse().unwrap(),
            certificate_file: None,
            key_file: None,
            max_connections: 64,
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(20),
            max_upload: 1 << 20,
            link_lifetime: Duration::from_secs(7 * 24 * 60 * 60),
        },
        store: config::Store {
            retain_for: Duration::from_secs(365 * 24 * 60 * 60),
            retain_bytes: 2 << 30,
            disk_reserve: 0,
        },
        log: config::Log {
            level: log::LevelFilter::Info,
        },
        brokers: Vec::new(),
        devices: Vec::new(),
        modems: Vec::new(),
        channels: vec![
            channel("desk", "Front desk", Some("https://example.com/desk.png")),
            channel("yard", "Yard", None),
        ],
        templates: Vec::new(),
    }
}

impl Gateway {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_with_callback(change, None).await
    }

    async fn start_with_callback(
        change: impl FnOnce(&mut Config),
        callback: Option<Arc<dyn super::Callback>>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir);
        change(&mut config);
        let mut options = Options::new(dir.path());
        options.gateway_id.clone_from(&config.gateway.id);
        options.disk_reserve = config.store.disk_reserve;
        let store = tokio::task::spawn_blocking(move || Store::open(options))
            .await
            .unwrap()
            .unwrap();
        let listener = Listener::bind_with(&config, store.clone(), callback)
            .await
            .unwrap();
        let handle = listener.handle();

        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(handle.certificate_file()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(listener.serve(stopped));
        Self {
            store,
            handle,
            tls: TlsConnector::from(Arc::new(client)),
            stop,
            task,
            dir,
        }
    }

    async fn connect(&self) -> Client {
        let socket = TcpStream::connect(self.handle.address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = self.tls.connect(name, socket).await.unwrap();
        Client {
            stream,
            buffer: Vec::new(),
        }
    }

    /// One request with the right credentials on a connection of its own.
    async fn call(&self, method: &str, path: &str) -> Answer {
        self.raw(request(method, path, &[("Authorization", &credentials())], b"").as_slice())
            .await
    }

    async fn raw(&self, bytes: &[u8]) -> Answer {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client
            .answer(!bytes.starts_with(b"HEAD "))
            .await
            .expect("an answer")
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path).await;
        assert_eq!(
            answer.status,
            200,
            "{path}: {}",
            String::from_utf8_lossy(&answer.body)
        );
        answer.json()
    }

    /// A customer's message; the conversation follows from the number.
    async fn receive(&self, channel: &str, from: &str, text: &str) -> MessageId {
        self.receive_with(channel, from, text, Vec::new()).await
    }

    async fn receive_with(
        &self,
        channel: &str,
        from: &str,
        text: &str,
        attachments: Vec<ReceivedAttachment>,
    ) -> MessageId {
        let message = ReceivedMessage {
            channel: channel.parse().unwrap(),
            from: Address::new(from).unwrap(),
            from_name: None,
            group: None,
            text: text.to_owned(),
            device_time: None,
            received_at: START,
            dedup: None,
            route: crate::domain::Route::new(),
            attachments,
        };
        self.store.insert_incoming(message).await.unwrap().id()
    }

    async fn end(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(LIMIT, self.task)
            .await
            .expect("the listener drains")
            .unwrap();
        self.store.close().await;
    }
}

fn credentials() -> String {
    format!("Basic {}", BASE64.encode(b"client:secret"))
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: sms.example\r\n").into_bytes();
    let mut has_length = body.is_empty();
    for (name, value) in headers {
        has_length |= ["content-length", "transfer-encoding"].contains(&name.to_ascii_lowercase().as_str());
        bytes.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    if !has_length {
        bytes.extend(format!("Content-Length: {}\r\n", body.len()).into_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

struct Client {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    async fn send(&mut self, bytes: &[u8]) {
        // The gateway may have answered and closed before it read everything.
        let _sent = self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok();
    }

    /// The next answer, or `None` when the connection is closed without one.
    async fn answer(&mut self, has_body: bool) -> Option<Answer> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8(self.buffer.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: HashMap<String, String> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers
            .get("content-length")
            .map_or(0, |length| length.parse().unwrap());
        let mut body = Vec::new();
        if has_body {
            while self.buffer.len() < length {
                assert!(self.more().await, "the body broke off");
            }
            body = self.buffer.drain(..length).collect();
        }
        Some(Answer {
            status,
            headers,
            body,
        })
    }

    /// Waits for more bytes; false when the other side has closed.
    async fn more(&mut self) -> bool {
        let mut chunk = vec![0; 16 * 1024];
        let read = tokio::time::timeout(LIMIT, self.stream.read(&mut chunk))
            .await
            .expect("bytes or an end");
        let read = read.unwrap_or(0);
        self.buffer.extend_from_slice(&chunk[..read]);
        read > 0
    }

    /// Waits until the other side closes; true when nothing came before.
    async fn closes_silently(&mut self) -> bool {
        while self.more().await {}
        self.buffer.is_empty()
    }
}

struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Checks that the answer is a failure in Pipedrive's shape.
    fn assert_failure(&self, status: u16, code: &str, what: &str) {
        assert_eq!(
            self.status,
            status,
            "{what}: {}",
            String::from_utf8_lossy(&self.body)
        );
        let json = self.json();
        assert_eq!(json["success"], false, "{what}");
        assert_eq!(json["data"]["code"], code, "{what}");
        assert!(
            json["data"]["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty()),
            "{what}"
        );
        assert_eq!(
            self.header("content-type"),
            "application/json; charset=utf-8",
            "{what}"
        );
        assert_eq!(self.header("cache-control"), "no-store", "{what}");
        assert_eq!(self.header("x-content-type-options"), "nosniff", "{what}");
    }
}

fn conversations_path(channel: &str) -> String {
    format!("/api/channels/gw-1-{channel}/conversations")
}

fn conversation_path(channel: &str, id: ConversationId) -> String {
    format!("{}/{id}", conversations_path(channel))
}

fn channel_id(id: &str) -> ChannelId {
    id.parse().unwrap()
}

/// Waits for a condition, with a limit.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = tokio::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
