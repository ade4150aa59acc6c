//! The listener against nginx: 64 TLS connections, first page of a real conversation, no page cache of our own,
//! nginx serving the same bytes from a file with the same certificate. Needs `wrk` and `nginx`.
//!
//! `cargo bench --bench listener`, or quicker to build `cargo bench --profile e2e --bench listener`.
//! Target: at least half of nginx, p99 at most 50 ms. `-- --json FILE` writes the figures to a file.
//! `-- --program PATH`, also several times, measures the listener of these programs instead of its own, by turns:
//! an older one beside a newer one, or what runs on a device.
//!
//! Beside the page stand what the same listener does without the store: as many bytes that it has in memory
//! (getTemplates), a line of text (getSenderById for the channel: thread, no store), and `/healthz`.

#![allow(
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench is run by a person and may stop with a panic"
)]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

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
        templates: templates(),
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

/// Conversations as they are an hour later: delivered, and what is enough for a pack is packed.
async fn fill(store: &Store) -> ConversationId {
    let mut last = None;
    for number in 0..CONVERSATIONS * MESSAGES {
        let message = ReceivedMessage {
            channel: "desk".parse().unwrap(),
            from: Address::new(&format!("+4477009{:05}", number % CONVERSATIONS)).unwrap(),
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
        let id = store.insert_incoming(message).await.unwrap().id();
        let item = store.reader().uplink_item_of(id).unwrap().unwrap();
        store.uplink_done(id, item.revision).await.unwrap();
        last = Some(id.conversation);
    }
    while store
        .maintain(Timestamp::from_unix_ms(1_769_744_385_000))
        .await
        .unwrap()
        .more
    {}
    last.unwrap()
}

/// Seconds of processor time that this thread has used.
fn thread_time() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds: f64 = text.split_ascii_whitespace().next().unwrap().parse().unwrap();
    nanoseconds / 1e9
}

/// What one page costs on one thread, in microseconds of its processor time: reading it, and writing its JSON.
fn cost_of_a_page(store: &Store, id: ConversationId) -> (f64, f64) {
    const TIMES: u32 = 2000;
    let reader = store.reader();
    let start = thread_time();
    for _ in 0..TIMES {
        black_box(reader.conversation(black_box(id), 30, None).unwrap());
    }
    let read = thread_time() - start;
    let view = reader.conversation(id, 30, None).unwrap().unwrap();
    let channel = ProviderChannelId::new(store.gateway_id(), &view.channel);
    let start = thread_time();
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
    let each = |total: f64| total * 1e6 / f64::from(TIMES);
    (each(read), each(thread_time() - start))
}

/// Requests per second, p99 in milliseconds, and the server's processor time for each in microseconds.
fn wrk(url: &str, server: &[u32], seconds: &str) -> (f64, f64, f64) {
    let header = format!("Authorization: Basic {}", BASE64.encode(b"client:secret"));
    let args = ["-t2", "-c64", "--latency", "-d", seconds, "-H", &header, url];
    let before = processor_time(server);
    let output = Command::new("wrk").args(args).output().unwrap();
    let spent = processor_time(server) - before;
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
    let requests = text.lines().find_map(|line| line.split_once(" requests in "));
    let requests: f64 = requests.unwrap().0.trim().parse().unwrap();
    (
        value("Requests/sec:").parse().unwrap(),
        p99,
        spent * 1e6 / requests,
    )
}

/// Seconds of processor time that processes have used, with all their threads.
fn processor_time(processes: &[u32]) -> f64 {
    let of_one = |process: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1;
        let ticks = fields.split_ascii_whitespace().skip(11).take(2);
        ticks.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>()
    };
    // The unit of these fields on every Linux: 100 a second.
    processes.iter().map(of_one).sum::<f64>() / 100.0
}

struct Server(Child);

impl Server {
    /// nginx with a page of these bytes.
    fn nginx(dir: &Path, tls: &Path, port: u16, body: &[u8]) -> Self {
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
        let arguments = ["-p", dir.to_str().unwrap(), "-c", file.to_str().unwrap()];
        Self::start(Command::new("nginx").args(arguments), port)
    }

    /// A gateway of its own upon a copy of the store.
    fn gateway(program: &Path, dir: &Path, state: &Path, port: u16) -> Self {
        std::fs::create_dir_all(dir.join("templates")).unwrap();
        let copied = Command::new("cp")
            .arg("-r")
            .arg(state)
            .arg(dir.join("state"))
            .status();
        assert!(copied.unwrap().success());
        std::fs::write(dir.join("secret"), "secret").unwrap();
        for template in templates() {
            let text = format!(
                "name = \"{}\"\nlanguage = \"{}\"\ncontent = \"{}\"\n",
                template.name, template.language, template.content
            );
            std::fs::write(dir.join(format!("templates/{}.toml", template.id)), text).unwrap();
        }
        let text = format!(
            r#"
            [gateway]
            id = "gw-1"
            state_dir = "{dir}/state"
            control_socket = "{dir}/control.sock"
            templates_dir = "{dir}/templates"
            clock_wait = "0s"
            [pipedrive]
            client_id = "client"
            client_secret_file = "{dir}/secret"
            public_url = "https://sms.example"
            [listener]
            bind = "127.0.0.1:{port}"
            [log]
            level = "error"
            [[broker]]
            name = "none"
            url = "mqtt://127.0.0.1:9"
            [[device]]
            name = "modem"
            preset = "sms2mqtt"
            [[channel]]
            id = "desk"
            name = "Front desk"
            kind = "mqtt"
            device = "modem"
            "#,
            dir = dir.display(),
        );
        std::fs::write(dir.join("pipepost.toml"), text).unwrap();
        let mut command = Command::new(program);
        command.arg("--config").arg(dir.join("pipepost.toml")).arg("run");
        // As its unit has it.
        command.env("MALLOC_ARENA_MAX", "1").stderr(Stdio::null());
        Self::start(&mut command, port)
    }

    fn start(command: &mut Command, port: u16) -> Self {
        let server = Self(command.stdout(Stdio::null()).spawn().unwrap());
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        for _ in 0..1000 {
            if listens() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(listens(), "{command:?} does not listen");
        server
    }

    /// The process and those that it has started.
    fn processes(&self) -> Vec<u32> {
        let own = self.0.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap();
        let children = children.split_ascii_whitespace().map(|one| one.parse().unwrap());
        std::iter::once(own).chain(children).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped =
            Command::new("kill").arg(self.0.id().to_string()).status().is_ok() && self.0.wait().is_ok();
        assert!(stopped, "a server does not stop");
    }
}

/// Together as large as a page.
fn templates() -> Vec<config::Template> {
    let template = |id: &str| config::Template {
        id: id.to_owned(),
        name: id.to_owned(),
        language: "en".to_owned(),
        content: "We will look at the roof tomorrow. ".repeat(100),
        channels: Vec::new(),
    };
    vec![template("one"), template("two")]
}

fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

fn curl(url: &str) -> Vec<u8> {
    let auth = format!("Authorization: Basic {}", BASE64.encode(b"client:secret"));
    Command::new("curl")
        .args(["-sk", "-H", &auth, url])
        .output()
        .unwrap()
        .stdout
}

/// A listener of ours that is measured.
struct Ours {
    name: String,
    url: String,
    processes: Vec<u32>,
    ratios: Vec<f64>,
    costs: Vec<f64>,
}

impl Ours {
    fn new(name: &str, url: String, processes: Vec<u32>) -> Self {
        Self {
            name: name.to_owned(),
            url,
            processes,
            ratios: Vec::new(),
            costs: Vec::new(),
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let installed = |tool: &str| Command::new(tool).arg("-v").output().is_ok();
    if !installed("wrk") || !installed("nginx") {
        println!("SKIP: wrk and nginx are needed");
        return;
    }
    let arguments = Arguments::read();
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let config = config(&state);
    let mut options = Options::new(&state);
    options.gateway_id.clone_from(&config.gateway.id);
    options.disk_reserve = 0;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let store = Store::open(options).unwrap();
    let id = runtime.block_on(fill(&store));
    let (read, json) = cost_of_a_page(&store, id);
    println!("one page: {read:.0} µs to read, {json:.0} µs to write as JSON");
    let page = format!("conversations/{id}");

    let (mut ours, mut servers, mut serving) = (Vec::new(), Vec::new(), None);
    let (stop, stopped) = watch::channel(false);
    if arguments.programs.is_empty() {
        let listener = runtime.block_on(Listener::bind(&config, store.clone())).unwrap();
        let address = listener.handle().address();
        ours.push(Ours::new(
            "pipepost",
            format!("https://{address}"),
            vec![std::process::id()],
        ));
        serving = Some(std::thread::spawn(move || {
            runtime.block_on(async {
                listener.serve(stopped).await;
                store.close().await;
            });
        }));
    } else {
        runtime.block_on(store.close());
        drop(store);
        for (number, program) in arguments.programs.iter().enumerate() {
            let port = free_port();
            let of_program = dir.path().join(number.to_string());
            let server = Server::gateway(program, &of_program, &state, port);
            let name = program.display().to_string();
            ours.push(Ours::new(
                &name,
                format!("https://127.0.0.1:{port}"),
                server.processes(),
            ));
            servers.push((server, of_program));
        }
    }
    let channel = "/api/channels/gw-1-desk";
    let body = curl(&format!("{}{channel}/{page}", ours[0].url));
    println!("page: {} bytes, 30 messages", body.len());
    let tls = servers
        .first()
        .map_or(state.clone(), |(_, dir)| dir.join("state"));
    let port = free_port();
    let nginx = Server::nginx(dir.path(), &tls.join("tls"), port, &body);
    let nginx_url = format!("https://127.0.0.1:{port}/page.json");

    let (mut rounds, mut worst) = (Vec::new(), 0.0_f64);
    for round in 1..=arguments.rounds {
        let (theirs, their_p99, their_cost) = wrk(&nginx_url, &nginx.processes(), SECONDS);
        println!("round {round}: nginx {theirs:.0}/s p99 {their_p99:.1} ms, {their_cost:.1} µs each");
        for one in &mut ours {
            let url = format!("{}{channel}/{page}", one.url);
            let (per_s, p99, cost) = wrk(&url, &one.processes, SECONDS);
            println!(
                "  {}: {per_s:.0}/s p99 {p99:.1} ms, {cost:.1} µs each, {:.3} of nginx",
                one.name,
                per_s / theirs
            );
            rounds.push(
                json!({"program": one.name, "per_s": per_s, "p99_ms": p99, "cpu_us": cost,
                               "nginx_per_s": theirs, "nginx_p99_ms": their_p99, "nginx_cpu_us": their_cost}),
            );
            one.ratios.push(per_s / theirs);
            one.costs.push(cost);
            worst = worst.max(p99);
        }
    }
    let mut parts = Vec::new();
    for one in &ours {
        println!(
            "{}: median {:.3} of nginx (target 0.5), {:.1} µs of processor time",
            one.name,
            median(one.ratios.clone()),
            median(one.costs.clone())
        );
        for (what, path) in [
            (
                "10 conversations with 10 messages",
                format!("{channel}/conversations?conversations_limit=10&messages_limit=10"),
            ),
            ("as many bytes without the store", format!("{channel}/templates")),
            ("a thread and no store", format!("{channel}/senders/gw-1-desk")),
            ("/healthz", "/healthz".to_owned()),
        ] {
            let (per_s, _, cost) = wrk(&format!("{}{path}", one.url), &one.processes, "2s");
            println!("  {what}: {per_s:.0}/s, {cost:.1} µs each");
            parts.push(json!({"program": one.name, "what": what, "per_s": per_s, "cpu_us": cost}));
        }
    }
    drop(nginx);
    println!("worst p99 {worst:.1} ms (target 50)");
    if let Some(file) = &arguments.json {
        let of_nginx = median(ours[ours.len() - 1].ratios.clone());
        let figures = json!({"rounds": rounds, "parts": parts, "of_nginx": of_nginx, "p99_ms": worst});
        std::fs::write(file, figures.to_string()).unwrap();
    }
    stop.send_replace(true);
    if let Some(serving) = serving {
        serving.join().unwrap();
    }
}

struct Arguments {
    programs: Vec<PathBuf>,
    rounds: usize,
    json: Option<PathBuf>,
}

impl Arguments {
    fn read() -> Self {
        let mut read = Self {
            programs: Vec::new(),
            rounds: 3,
            json: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--program" => read.programs.push(arguments.next().unwrap().into()),
                "--rounds" => read.rounds = arguments.next().unwrap().parse().unwrap(),
                "--json" => read.json = arguments.next().map(PathBuf::from),
                // Cargo's own.
                "--bench" => {}
                other => panic!("unknown argument {other}"),
            }
        }
        read
    }
}
