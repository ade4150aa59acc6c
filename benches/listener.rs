//! The listener against nginx: 64 TLS connections, first page of a real conversation, no page cache of our own,
//! nginx serving the same bytes from a file with the same certificate. Needs `wrk` and `nginx`.
//!
//! `cargo bench --bench listener`, or quicker to build `cargo bench --profile e2e --bench listener`.
//! Target: at least half of nginx, p99 at most 50 ms. `-- --json FILE` writes the figures to a file.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench is run by a person and may stop with a panic"
)]

use std::hint::black_box;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use pipepost::config::{self, Config};
use pipepost::domain::{
    Address, ChannelKind, ConversationId, ProviderChannelId, ProviderType, ReceivedMessage, Route, Secret,
    Timestamp,
};
use pipepost::manifest::Listener;
use pipepost::protocol::pipedrive::manifest::body::{
    Conversation, ConversationBody, Source, conversation_page,
};
use pipepost::protocol::sms::Home;
use pipepost::store::{Options, Store};
use serde_json::json;
use tokio::sync::watch;

const CONVERSATIONS: usize = 50;
const MESSAGES: usize = 100;
const ROUNDS: usize = 3;
const SECONDS: &str = "5s";

fn config(state: &Path) -> Config {
    let day = Duration::from_secs(24 * 60 * 60);
    Config {
        gateway: config::Gateway {
            id: Some("gw-1".parse().unwrap()),
            state_dir: state.to_owned(),
            control_socket: state.join("control.sock"),
            clock_wait: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
            home: Home::NOWHERE,
            templates_dir: state.join("templates"),
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
            public_url: Some("https://sms.example".to_owned()),
            created_at: config::CreatedAt::default(),
            timeout: Duration::from_secs(30),
            in_flight: 8,
            daily_budget: None,
        },
        listener: config::Listener {
            bind: "127.0.0.1:0".parse().unwrap(),
            certificate_file: None,
            key_file: None,
            max_connections: 64,
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(20),
            max_upload: 20 << 20,
            link_lifetime: day * 7,
        },
        store: config::Store {
            retain_for: day * 365,
            retain_bytes: 2 << 30,
            disk_reserve: 0,
        },
        log: config::Log {
            level: log::LevelFilter::Off,
        },
        brokers: Vec::new(),
        devices: Vec::new(),
        modems: Vec::new(),
        templates: Vec::new(),
        channels: vec![config::Channel {
            id: "desk".parse().unwrap(),
            name: "Front desk".to_owned(),
            kind: ChannelKind::Mqtt,
            device: None,
            modem: None,
            avatar_url: None,
            provider_type: ProviderType::Other,
            template_support: false,
            on_unknown: config::OnUnknown::Fail,
            own_address: None,
        }],
    }
}

async fn fill(store: &Store) -> ConversationId {
    let mut last = None;
    for number in 0..CONVERSATIONS * MESSAGES {
        let message = ReceivedMessage {
            channel: "desk".parse().unwrap(),
            from: Address::new(&format!("+1555{:04}", number % CONVERSATIONS)).unwrap(),
            from_name: None,
            group: None,
            text: format!(
                "Message {number}: could somebody look at the roof tomorrow, please? It leaks again."
            ),
            device_time: None,
            received_at: Timestamp::from_unix_ms(1_769_744_285_000 + i64::try_from(number).unwrap()),
            dedup: None,
            route: Route::new(),
            attachments: Vec::new(),
        };
        last = Some(store.insert_incoming(message).await.unwrap().id().conversation);
    }
    last.unwrap()
}

/// What one page costs on one thread, in microseconds: reading it, and writing its JSON.
fn cost_of_a_page(store: &Store, id: ConversationId) -> (f64, f64) {
    const TIMES: u32 = 2000;
    let reader = store.reader();
    let start = Instant::now();
    for _ in 0..TIMES {
        black_box(reader.conversation(black_box(id), 30, None).unwrap());
    }
    let read = start.elapsed();
    let view = reader.conversation(id, 30, None).unwrap().unwrap();
    let channel = ProviderChannelId::new(store.gateway_id(), &view.channel);
    let start = Instant::now();
    for _ in 0..TIMES {
        let shown = Conversation {
            id: view.id,
            name: &view.name,
            avatar_url: None,
            seen: view.seen,
            status: view.status,
            participants: &view.participants,
            messages: &view.messages,
            next: view.next,
        };
        let source = Source {
            id: &channel,
            name: "Front desk",
            avatar_url: None,
        };
        let shown = ConversationBody::new(black_box(shown), source, &|_| String::new());
        black_box(conversation_page(&shown));
    }
    let each = |total: Duration| total.as_secs_f64() * 1e6 / f64::from(TIMES);
    (each(read), each(start.elapsed()))
}

/// Requests per second and p99 in milliseconds.
fn wrk(url: &str) -> (f64, f64) {
    let header = format!("Authorization: Basic {}", BASE64.encode(b"client:secret"));
    let args = ["-t2", "-c64", "--latency", "-d", SECONDS, "-H", &header, url];
    let output = Command::new("wrk").args(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let value = |key: &str| {
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(key))
            .unwrap_or_default();
        line.trim().to_owned()
    };
    assert!(!text.contains("Non-2xx"), "{text}");
    let p99 = value("99%");
    let number: f64 = p99.trim_end_matches(|c: char| c.is_alphabetic()).parse().unwrap();
    let p99 = if p99.ends_with("us") {
        number / 1000.0
    } else if p99.ends_with("ms") {
        number
    } else {
        number * 1000.0
    };
    (value("Requests/sec:").parse().unwrap(), p99)
}

struct Nginx(Child);

impl Nginx {
    fn start(dir: &Path, tls: &Path, port: u16, body: &[u8]) -> Self {
        let root = dir.join("www");
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(root.join("page.json"), body).unwrap();
        let text = format!(
            "daemon off; worker_processes 2; pid {dir}/nginx.pid; error_log {dir}/error.log;
             events {{ worker_connections 256; }}
             http {{
               access_log off; keepalive_requests 100000000; default_type application/json;
               client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c;
               uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;
               server {{
                 listen 127.0.0.1:{port} ssl; ssl_certificate {tls}/self-signed.pem;
                 ssl_certificate_key {tls}/self-signed.key; root {dir}/www;
               }}
             }}",
            dir = dir.display(),
            tls = tls.display(),
        );
        let file = dir.join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        let child = Command::new("nginx")
            .args(["-p", dir.to_str().unwrap(), "-c", file.to_str().unwrap()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self(child);
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        for _ in 0..200 {
            if listens() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(listens(), "nginx does not listen");
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let stopped =
            Command::new("kill").arg(self.0.id().to_string()).status().is_ok() && self.0.wait().is_ok();
        assert!(stopped, "nginx does not stop");
    }
}

fn main() {
    let installed = |tool: &str| Command::new(tool).arg("-v").output().is_ok();
    if !installed("wrk") || !installed("nginx") {
        println!("SKIP: wrk and nginx are needed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut options = Options::new(dir.path());
    options.gateway_id.clone_from(&config.gateway.id);
    options.disk_reserve = 0;
    let store = Store::open(options).unwrap();
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    let (stop, stopped) = watch::channel(false);
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let id = fill(&store).await;
            let (read, json) = cost_of_a_page(&store, id);
            println!("one page: {read:.0} µs to read, {json:.0} µs to write as JSON");
            let path = format!("/api/channels/gw-1-desk/conversations/{id}");
            let listener = Listener::bind(&config, store.clone()).await.unwrap();
            send.send((listener.handle().address(), path)).unwrap();
            listener.serve(stopped).await;
            store.close().await;
        });
    });
    let (address, path) = receive.recv().unwrap();
    let url = format!("https://{address}{path}");
    let auth = format!("Authorization: Basic {}", BASE64.encode(b"client:secret"));
    let page = Command::new("curl")
        .args(["-sk", "-H", &auth, &url])
        .output()
        .unwrap()
        .stdout;
    println!("page: {} bytes, 30 messages", page.len());

    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let nginx = Nginx::start(dir.path(), &dir.path().join("tls"), port, &page);
    let (mut ratios, mut rounds, mut worst) = (Vec::new(), Vec::new(), 0.0_f64);
    for round in 1..=ROUNDS {
        let (ours, p99) = wrk(&url);
        let (theirs, their_p99) = wrk(&format!("https://127.0.0.1:{port}/page.json"));
        println!(
            "round {round}: pipepost {ours:.0}/s p99 {p99:.1} ms, nginx {theirs:.0}/s p99 {their_p99:.1} ms, {:.2}",
            ours / theirs
        );
        rounds.push(json!({"per_s": ours, "p99_ms": p99, "nginx_per_s": theirs, "nginx_p99_ms": their_p99}));
        ratios.push(ours / theirs);
        worst = worst.max(p99);
    }
    drop(nginx);
    ratios.sort_by(f64::total_cmp);
    println!(
        "median {:.2} of nginx (target 0.5), worst p99 {worst:.1} ms (target 50)",
        ratios[ROUNDS / 2]
    );
    if let Some(file) = std::env::args().skip_while(|one| one != "--json").nth(1) {
        let figures = json!({"rounds": rounds, "of_nginx": ratios[ROUNDS / 2], "p99_ms": worst});
        std::fs::write(file, figures.to_string()).unwrap();
    }
    stop.send_replace(true);
    server.join().unwrap();
}
