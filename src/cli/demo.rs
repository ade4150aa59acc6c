//! `pipepost demo`: the whole gateway in one process, with simulated devices and the Pipedrive sandbox.

mod connect;

use std::collections::HashSet;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hyper::Method;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::error::{CliError, IO, SOFTWARE, UNAVAILABLE};
use super::{output, run};
use crate::app::{self, Signals};
use crate::config::{self, Config};
use crate::control::Status;
use crate::control::client;
use crate::domain::Secret;
use crate::logging;
use crate::sim::broker::Broker;
use crate::sim::devices::{Devices, Script};
use crate::sim::modem::{self, Cable, Customer, Modem, Profile};
use crate::sim::pipedrive::{App, Counters, Gateway, Options, Sandbox, Trust};

/// The page's port; the next free one is taken when it is in use.
const PAGE_PORT: u16 = 8080;
/// The listener's port, likewise.
const LISTENER_PORT: u16 = 8443;
/// How many ports are tried.
const PORTS: u16 = 50;

/// Runs the demo until Ctrl-C.
pub(super) async fn run(no_browser: bool, manual: bool) -> Result<(), CliError> {
    logging::start(&config::Log {
        level: log::LevelFilter::Warn,
    })
    .map_err(|error| CliError::new(SOFTWARE, format!("cannot log: {error}")))?;
    let Signals { mut stop, .. } = run::signals()?;
    let folder = Folder::make()?;
    let listener = free_port(LISTENER_PORT)?;
    let broker = Broker::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .map_err(|error| CliError::new(IO, format!("cannot start the MQTT broker: {error}")))?;
    let modem = start_modem(&folder.0)?;
    let sandbox = start_sandbox(&folder.0, listener)?;
    let config = write_config(&folder.0, &sandbox, broker.port(), listener)?;
    output::print(&format!(
        "pipepost demo\n\n  inbox page       {}\n  gateway          https://localhost:{listener} (self-signed)\n  \
         MQTT broker      127.0.0.1:{}\n  SMS modem        {}\n  state folder     {} (removed at the end)\n\n\
         Answer a customer on the inbox page and watch it come back as delivered. Ctrl-C ends the demo.\n\n",
        sandbox.page_url(),
        broker.port(),
        modem.path().display(),
        folder.0.display()
    ))?;
    if !no_browser {
        open_browser(&sandbox.page_url());
    }

    let (ending, gateway_stop) = watch::channel(false);
    let (_keep, reload) = watch::channel(0);
    let (ready, is_ready) = oneshot::channel();
    let signals = Signals {
        stop: gateway_stop,
        reload,
    };
    let mut gateway = tokio::spawn(app::run(config, signals, move |_| {
        ready.send(()).unwrap_or_default();
    }));
    if is_ready.await.is_err() {
        return Err(ended(gateway.await));
    }
    let socket = folder.0.join("control.sock");
    wait_for_links(&socket).await?;
    say("the gateway is ready")?;
    let mut customer = Customer::demo(&modem);
    let mut devices = Devices::start(broker.port(), &Script::demo());
    let mut inbox = Inbox::default();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let started = Instant::now();
    let mut connecting = Box::pin(connect::keep(&sandbox, &socket, manual));
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            error = &mut connecting => return Err(error),
            outcome = &mut gateway => return Err(ended(outcome)),
            Some(event) = devices.event() => say(&event.to_string())?,
            event = customer.event() => say(&event)?,
            _ = ticks.tick() => for line in inbox.news(&sandbox) { say(&line)?; },
        }
    }

    drop(connecting);
    say("stopping: the gateway finishes what it has begun")?;
    devices.stop().await;
    ending.send_replace(true);
    let outcome = gateway.await;
    let counters = sandbox.counters();
    let messages = sandbox.read(|state| state.messages().filter(|message| !message.outgoing).count());
    sandbox.stop().await;
    broker.stop().await;
    modem.stop().await;
    match outcome {
        Ok(Ok(())) => output::print(&summary(messages, &counters, started.elapsed())),
        other => Err(ended(other)),
    }
}

/// A broker keeps nothing for a gateway that it has never seen: nobody writes before the gateway is connected. The modem
/// is waited for as well, so that everything is there when the demo says so.
async fn wait_for_links(socket: &Path) -> Result<(), CliError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let status: Status = client::call(socket, Method::GET, "/status", None).await?;
        if status.links.iter().all(|link| link.up) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(CliError::new(
                SOFTWARE,
                "the gateway does not reach the demo's own broker and modem",
            ));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn summary(messages: usize, counters: &Counters, ran: Duration) -> String {
    format!(
        "\nin {}: {messages} messages reached the inbox, {} answers were taken, {} calls in all, {} violations of the \
         contract\n",
        humantime::format_duration(Duration::from_secs(ran.as_secs())),
        counters.replies,
        counters.calls + counters.gateway_calls,
        counters.violations
    )
}

fn say(line: &str) -> Result<(), CliError> {
    output::print(&format!("  {line}\n"))
}

fn ended(outcome: Result<Result<(), app::AppError>, tokio::task::JoinError>) -> CliError {
    match outcome {
        Ok(Ok(())) => CliError::new(SOFTWARE, "the gateway ended by itself"),
        Ok(Err(error)) => error.into(),
        Err(error) => CliError::new(SOFTWARE, format!("the gateway broke off: {error}")),
    }
}

/// What has been said about the inbox.
#[derive(Default)]
struct Inbox {
    /// Message and status.
    said: HashSet<(String, String)>,
}

impl Inbox {
    fn news(&mut self, sandbox: &Sandbox) -> Vec<String> {
        sandbox.read(|state| {
            let mut lines = Vec::new();
            for conversation in state.conversations() {
                for message in &conversation.messages {
                    if !self.said.insert((message.id.to_string(), message.status.clone())) {
                        continue;
                    }
                    lines.push(if message.outgoing {
                        format!(
                            "in the inbox: the answer {:?} is {}",
                            message.text, message.status
                        )
                    } else {
                        format!("in the inbox: {:?}", message.text)
                    });
                }
            }
            lines
        })
    }
}

/// A folder of this run's own, removed with everything in it.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self, CliError> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("pipepost-demo-{}", std::process::id()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| {
                CliError::new(IO, format!("cannot make the folder {}: {error}", path.display()))
            })?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            output::note(&format!("warning: cannot remove {}: {error}", self.0.display()));
        }
    }
}

/// The first free port from `first` on.
fn free_port(first: u16) -> Result<u16, CliError> {
    (first..first.saturating_add(PORTS))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| {
            CliError::new(
                UNAVAILABLE,
                format!(
                    "no port from {first} to {} is free",
                    first.saturating_add(PORTS - 1)
                ),
            )
            .hint("stop what uses them; `ss -ltnp` shows it")
        })
}

fn start_modem(folder: &Path) -> Result<Modem, CliError> {
    let options = modem::Options {
        profile: Profile::Sim800,
        send_time: Duration::from_millis(600),
        report_after: Duration::from_secs(2),
        text_interval: Duration::from_millis(300),
        ..modem::Options::default()
    };
    let cable = Cable::Pty {
        link: Some(folder.join("modem")),
    };
    Modem::start(options, &cable)
        .map_err(|error| CliError::new(IO, format!("cannot make the SMS modem: {error}")))
}

fn start_sandbox(folder: &Path, listener: u16) -> Result<Sandbox, CliError> {
    let mut app = App::default();
    // A person's browser does not trust the gateway's own certificate.
    app.rules.carry = true;
    let options = Options {
        page_address: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(PAGE_PORT)?))),
        ca_file: Some(folder.join("sandbox-ca.pem")),
        app: Some(app),
        client_id: "demo-client".to_owned(),
        client_secret: Secret::new("demo-secret".to_owned()),
        gateway: Some(Gateway {
            url: format!("https://localhost:{listener}"),
            trust: Trust::CaFile(folder.join("state/tls/self-signed.pem")),
        }),
        ..Options::default()
    };
    Sandbox::start(options).map_err(|error| CliError::new(IO, format!("the sandbox does not start: {error}")))
}

/// Writes the configuration an installer would write, and loads it the way `run` does.
fn write_config(folder: &Path, sandbox: &Sandbox, broker: u16, listener: u16) -> Result<Config, CliError> {
    let here = folder.display();
    let text = format!(
        r#"[gateway]
id = "demo"
state_dir = "{here}/state"
control_socket = "{here}/control.sock"
clock_wait = "1s"

[pipedrive]
oauth_url = "{pipedrive}"
ca_file = "{here}/sandbox-ca.pem"
client_id = "demo-client"
client_secret_file = "{here}/client-secret"
public_url = "https://localhost:{listener}"

[listener]
bind = "127.0.0.1:{listener}"

[[broker]]
name = "site"
url = "mqtt://127.0.0.1:{broker}"

[[device]]
name = "sms2mqtt"
preset = "sms2mqtt"

[[device]]
name = "gsm2mqtt"
preset = "gsm2mqtt"

# A device of one's own: what its payloads look like is all that has to be said.
[[device]]
name = "mms"

[device.in]
topic = "mms/received"
from = "/from"
text = "/text"
time = "/time"
attachments = {{ each = "/media", at = "/data", name = "/name", type = "/type", max_size = "700KiB" }}

[device.out]
topic = "mms/send"
payload = '{{"to":{{{{to}}}},"text":{{{{text}}}}}}'

[[device.status]]
topic = "mms/report"
match = {{ recipient = "/to" }}
at = "/state"
map = {{ delivered = "delivered" }}

[[modem]]
name = "sim800"
port = "{here}/modem"
home_country = "GB"

[[channel]]
id = "sms"
name = "SMS (SIM800 modem)"
kind = "sms"
modem = "sim800"

[[channel]]
id = "office"
name = "Office SMS (sms2mqtt)"
kind = "mqtt"
device = "sms2mqtt"

[[channel]]
id = "field"
name = "Field SMS (GSM2MQTT)"
kind = "mqtt"
device = "gsm2mqtt"

[[channel]]
id = "pictures"
name = "Picture messages (own mapping)"
kind = "mqtt"
device = "mms"
"#,
        pipedrive = sandbox.url()
    );
    let file = folder.join("pipepost.toml");
    for (name, content) in [
        ("pipepost.toml", text.as_str()),
        ("client-secret", "demo-secret\n"),
    ] {
        write_private(&folder.join(name), content)?;
    }
    // This process's environment is not for the demo: a variable meant for a real gateway must not reach it.
    let loaded = config::load(&config::Request {
        file: Some(file),
        ..config::Request::default()
    });
    let findings: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
    loaded.config.ok_or_else(|| {
        CliError::new(
            SOFTWARE,
            format!("the demo's configuration: {}", findings.join("\n")),
        )
    })
}

fn write_private(path: &Path, content: &str) -> Result<(), CliError> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .map_err(|error| CliError::new(IO, format!("cannot write {}: {error}", path.display())))
}

/// Opens the page where there is a desktop. That it does not open is no failure: the address is printed.
fn open_browser(url: &str) {
    if std::env::var_os("DISPLAY").is_none() && std::env::var_os("WAYLAND_DISPLAY").is_none() {
        return;
    }
    let opened = Command::new("xdg-open")
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Err(error) = opened {
        log::debug!("no browser: {error}");
    }
}
