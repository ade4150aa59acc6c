//! What the tests of the whole daemon share: a broker, a daemon, a device, and waiting for conditions.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use pipepost::sim::pipedrive::{App, Gateway, Options, Sandbox, Trust};
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};

/// Limit for anything that should happen soon; long, because machines are busy.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Polls until `condition` gives something.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A process of this test, killed with it.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A real mosquitto with persistence in a folder of its own.
pub(crate) struct Mosquitto {
    pub(crate) port: u16,
    dir: tempfile::TempDir,
    process: Option<Process>,
}

impl Mosquitto {
    pub(crate) fn start() -> Self {
        let mut broker = Self {
            port: free_port(),
            dir: tempfile::tempdir().unwrap(),
            process: None,
        };
        let config = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\n\
             max_queued_messages 100000\nmax_inflight_messages 0\nuser root\n",
            broker.port,
            broker.dir.path().display()
        );
        std::fs::write(broker.dir.path().join("mosquitto.conf"), config).unwrap();
        broker.resume();
        broker
    }

    /// Starts it (again).
    pub(crate) fn resume(&mut self) {
        let program = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .expect("mosquitto is needed: apt-get install mosquitto");
        let child = Command::new(program)
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(Process(child));
        let port = self.port;
        wait_for("mosquitto to listen", SOON, || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
    }

    /// Stops it as systemd would, so that it saves its state.
    pub(crate) fn pause(&mut self) {
        let mut process = self.process.take().unwrap();
        terminate(&mut process.0, "TERM");
        process.0.wait().unwrap();
    }
}

pub(crate) fn terminate(child: &mut Child, signal: &str) {
    let status = Command::new("kill")
        .arg(format!("-{signal}"))
        .arg(child.id().to_string())
        .status()
        .unwrap();
    assert!(status.success());
}

/// Everything around one gateway.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) mosquitto: Mosquitto,
    pub(crate) sandbox: Sandbox,
    pub(crate) listener: u16,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with_app(None)
    }

    /// With an app, users connect with OAuth; without one there is a fixed token.
    pub(crate) fn with_app(app: Option<App>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = free_port();
        let gateway = Gateway {
            url: format!("https://localhost:{listener}"),
            trust: Trust::CaFile(dir.path().join("state/tls/self-signed.pem")),
        };
        let ca_file = dir.path().join("sandbox-ca.pem");
        let options = Options {
            gateway: Some(gateway),
            ca_file: Some(ca_file),
            app,
            ..Options::default()
        };
        let site = Self {
            mosquitto: Mosquitto::start(),
            sandbox: Sandbox::start(options).unwrap(),
            dir,
            listener,
        };
        site.write("token", "sandbox-token\n");
        site.write("secret", "sandbox-secret\n");
        std::fs::create_dir_all(site.dir.path().join("state")).unwrap();
        site.write("pipepost.toml", &site.config(""));
        site
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.dir.path().join(name);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .unwrap();
        file.write_all(content.as_bytes()).unwrap();
    }

    /// The configuration with one sms2mqtt device on one channel; `more` goes in front of the tables of lists.
    pub(crate) fn config(&self, more: &str) -> String {
        let dir = self.dir.path().display();
        format!(
            r#"
[gateway]
id = "gw-test"
state_dir = "{dir}/state"
control_socket = "{dir}/control.sock"
clock_wait = "1s"
[pipedrive]
api_url = "{api}/api/v1"
ca_file = "{dir}/sandbox-ca.pem"
access_token_file = "{dir}/token"
client_id = "sandbox-client"
client_secret_file = "{dir}/secret"
public_url = "https://localhost:{listener}"
[listener]
bind = "127.0.0.1:{listener}"
{more}
[[broker]]
name = "site"
url = "mqtt://127.0.0.1:{port}"
[[device]]
name = "sms-office"
preset = "sms2mqtt"
[[channel]]
id = "sms"
name = "Office SMS"
kind = "mqtt"
device = "sms-office"
"#,
            api = self.sandbox.url(),
            listener = self.listener,
            port = self.mosquitto.port
        )
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir.path().join("pipepost.toml")
    }

    /// Runs a command of the same program against this site.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pipepost"))
            .arg("--config")
            .arg(self.config_file())
            .args(arguments)
            .output()
            .unwrap()
    }

    /// As [`Self::command`], for commands that must succeed; returns standard output.
    pub(crate) fn output(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?} failed: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// No call in either direction broke Pipedrive's contract.
    pub(crate) fn assert_contract_kept(&self) {
        let violations = self.sandbox.violations();
        assert!(violations.is_empty(), "{violations:#?}");
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.output(&["--json", "status"])).unwrap()
    }

    /// Starts the daemon and waits until it is ready and connected: a broker keeps nothing for a gateway that it
    /// has never seen.
    pub(crate) fn daemon(&self) -> Daemon {
        let daemon = self.ready_daemon();
        self.wait_for_broker();
        daemon
    }

    /// Starts the daemon and waits until it is ready, whoever else is away.
    pub(crate) fn ready_daemon(&self) -> Daemon {
        let daemon = self.spawn_daemon();
        wait_for("the daemon to be ready", SOON, || {
            daemon.log().contains("Gateway ready").then_some(())
        });
        daemon
    }

    /// Waits until the gateway is connected to the broker.
    pub(crate) fn wait_for_broker(&self) {
        wait_for("the broker to be connected", SOON, || {
            self.output(&["status"])
                .contains("broker site connected")
                .then_some(())
        });
    }

    /// Starts the daemon.
    pub(crate) fn spawn_daemon(&self) -> Daemon {
        let log = self.dir.path().join(format!("daemon-{}.log", free_port()));
        let child = Command::new(env!("CARGO_BIN_EXE_pipepost"))
            .arg("--config")
            .arg(self.config_file())
            .arg("run")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Daemon {
            process: Process(child),
            log,
        }
    }
}

/// A running daemon; killed when dropped.
pub(crate) struct Daemon {
    pub(crate) process: Process,
    log: PathBuf,
}

impl Daemon {
    pub(crate) fn log(&self) -> String {
        let mut text = String::new();
        std::fs::File::open(&self.log)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        text
    }

    /// SIGKILL, the end of a crash.
    pub(crate) fn kill(mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }

    /// SIGTERM, as systemd stops it; returns the exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        terminate(&mut self.process.0, "TERM");
        let process = &mut self.process.0;
        wait_for("the daemon to end", SOON, || process.try_wait().unwrap()).code()
    }
}

/// A device on the broker: publishes what customers write, receives the answers.
pub(crate) struct Device {
    client: Client,
    received: Mutex<mpsc::Receiver<(String, String)>>,
    acknowledged: Mutex<mpsc::Receiver<()>>,
    closing: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Device {
    /// Connects and subscribes to `answers`.
    pub(crate) fn connect(port: u16, name: &str, answers: &str) -> Self {
        let mut options = MqttOptions::new(name, "127.0.0.1", port);
        options
            .set_keep_alive(Duration::from_secs(5))
            .set_clean_session(false)
            .set_max_packet_size(16 << 20, 16 << 20)
            .set_inflight(50);
        let (client, mut connection) = Client::new(options, 64);
        client.subscribe(answers, QoS::AtLeastOnce).unwrap();
        let (to_test, received) = mpsc::sync_channel(100_000);
        let (acks, acknowledged) = mpsc::sync_channel(100_000);
        let (ready, subscribed) = mpsc::sync_channel(1);
        let closing = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let closed = closing.clone();
        std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let text = String::from_utf8_lossy(&publish.payload).into_owned();
                        drop(to_test.send((publish.topic, text)));
                    }
                    Ok(Event::Incoming(Packet::PubAck(_))) => drop(acks.send(())),
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(ready.try_send(())),
                    Err(_) if closed.load(std::sync::atomic::Ordering::Relaxed) => return,
                    Err(_) => std::thread::sleep(Duration::from_millis(50)),
                    Ok(_) => {}
                }
            }
        });
        subscribed
            .recv_timeout(SOON)
            .expect("the device's subscription was not answered");
        Self {
            client,
            received: Mutex::new(received),
            acknowledged: Mutex::new(acknowledged),
            closing,
        }
    }

    /// A customer writes. QoS 1; does not wait for the broker.
    pub(crate) fn customer_writes(&self, number: &str, text: &str) {
        let payload = serde_json::json!({"datetime": "2021-01-23 13:30:00", "number": number, "text": text});
        self.client
            .publish("sms2mqtt/received", QoS::AtLeastOnce, false, payload.to_string())
            .unwrap();
    }

    /// The next answer of an agent, with its topic.
    pub(crate) fn next_answer(&self) -> (String, String) {
        self.received
            .lock()
            .unwrap()
            .recv_timeout(SOON)
            .expect("no answer reached the device")
    }

    /// An answer that has come already.
    pub(crate) fn arrived_answer(&self) -> Option<(String, String)> {
        self.received.lock().unwrap().try_recv().ok()
    }

    /// Waits until the broker has taken `count` messages of this device.
    pub(crate) fn wait_for_acknowledgements(&self, count: usize) {
        for _ in 0..count {
            self.acknowledged
                .lock()
                .unwrap()
                .recv_timeout(SOON)
                .expect("the broker did not acknowledge");
        }
    }

    pub(crate) fn publish(&self, topic: &str, payload: &str) {
        self.client
            .publish(topic, QoS::AtLeastOnce, false, payload)
            .unwrap();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.closing.store(true, std::sync::atomic::Ordering::Relaxed);
        drop(self.client.disconnect());
    }
}
