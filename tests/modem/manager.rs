//! The driver above a real ModemManager, which has the simulated modem, on a message bus of their own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pipepost::config::{Modem as ModemConfig, ModemPort};
use pipepost::domain::{Attempt, OutgoingState, Secret};
use pipepost::sim::modem::{Cable, Modem, Options, Profile, SendFault};
use tokio::time::{sleep, timeout};

use crate::gateway::*;

const TO: &str = "+31612345678";

/// A message bus with ModemManager on it, and the name of the modem's socket.
struct Manager {
    address: String,
    socket: String,
    bus: Child,
    program: Child,
    profiles: usize,
}

impl Drop for Manager {
    fn drop(&mut self) {
        for child in [&mut self.program, &mut self.bus] {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn has(tool: &str) -> bool {
    let folders = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
    folders
        .split(':')
        .any(|folder| Path::new(folder).join(tool).exists())
}

fn quiet(program: &str, log: &Path) -> Command {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(log)
        .unwrap();
    let mut command = Command::new(program);
    command
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    command
}

impl Manager {
    /// `None` where the programs are missing.
    async fn start(folder: &Path) -> Option<Self> {
        for tool in ["dbus-daemon", "dbus-send", "ModemManager"] {
            if !has(tool) {
                println!("SKIP: {tool} is not installed (Debian packages dbus, dbus-bin, modemmanager)");
                return None;
            }
        }
        let socket = folder.join("bus");
        let address = format!("unix:path={}", socket.display());
        let config = folder.join("bus.conf");
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\"
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">
             <busconfig><type>system</type><listen>{address}</listen><auth>EXTERNAL</auth>
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>
             <allow eavesdrop=\"true\"/><allow own=\"*\"/><allow user=\"*\"/></policy></busconfig>"
        );
        std::fs::write(&config, text).unwrap();
        let own = folder.file_name().unwrap().display();
        let name = format!("pipepost-{}-{own}", std::process::id());
        let bus = quiet("dbus-daemon", &folder.join("bus.log"))
            .arg(format!("--config-file={}", config.display()))
            .arg("--nofork")
            .spawn()
            .unwrap();
        until("the message bus", || socket.exists()).await;
        Some(Self {
            program: Self::program(folder, &address),
            address,
            socket: name,
            bus,
            profiles: 0,
        })
    }

    fn program(folder: &Path, address: &str) -> Child {
        quiet("ModemManager", &folder.join("manager.log"))
            .args([
                "--test-session",
                "--test-enable",
                "--test-no-udev",
                "--no-auto-scan",
            ])
            .args(["--test-no-suspend-resume", "--test-no-qrtr", "--debug"])
            .env("DBUS_SESSION_BUS_ADDRESS", address)
            .spawn()
            .unwrap()
    }

    fn cable(&self) -> Cable {
        Cable::Abstract(format!("abstract:{}", self.socket))
    }

    /// Says that a modem is at the socket, as udev does.
    async fn plugged(&mut self) {
        self.profiles += 1;
        let profile = format!("string:r{}", self.profiles);
        let port = format!("array:string:abstract:{}", self.socket);
        until("ModemManager", || {
            Command::new("dbus-send")
                .env("DBUS_SESSION_BUS_ADDRESS", &self.address)
                .args([
                    "--session",
                    "--print-reply",
                    "--dest=org.freedesktop.ModemManager1",
                ])
                .arg("/org/freedesktop/ModemManager1")
                .arg("org.freedesktop.ModemManager1.Test.SetProfile")
                .args([&profile, "string:generic", &port])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        })
        .await;
    }

    /// Begins anew, with no modem.
    fn restart(&mut self, folder: &Path) {
        self.program.kill().unwrap();
        self.program.wait().unwrap();
        self.program = Self::program(folder, &self.address);
    }

    fn config(&self) -> ModemConfig {
        ModemConfig {
            port: ModemPort::Manager {
                which: Some("356938035643809".to_owned()),
                bus: Some(self.address.clone()),
            },
            ..config(Path::new(""))
        }
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = timeout(LIMIT, async {
        while !is_so() {
            sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what} does not come");
}

fn options() -> Options {
    Options {
        profile: Profile::Generic,
        send_time: Duration::from_millis(50),
        report_after: Duration::from_millis(200),
        // ModemManager 1.20 overlooks a message that is indicated while it reads another one.
        text_interval: Duration::from_secs(2),
        ..Options::default()
    }
}

/// What ModemManager and the bus wrote, for a failure.
struct Logs<'a>(&'a Path);

impl Drop for Logs<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = std::fs::read_to_string(self.0.join("manager.log")).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            println!("{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

#[tokio::test]
async fn texts_go_in_and_out_through_modem_manager() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut manager) = Manager::start(folder.path()).await else {
        return;
    };
    let _logs = Logs(folder.path());
    let modem = Modem::start(options(), &manager.cable()).unwrap();
    modem.with(|engine| engine.ussd_answer("*100#", "Your balance: 9.50"));
    write(&modem, TO, "came before the gateway did");
    manager.plugged().await;
    let mut gateway = Gateway::start_with(folder.path(), manager.config());
    gateway.up().await;
    gateway.incoming_are(1).await;
    deleted(&modem, 1).await;
    write(&modem, "0612345678", "the same customer, €");
    gateway.incoming_are(2).await;
    write(&modem, "MyBank", "a name");
    gateway.incoming_are(3).await;
    let long = "Ein längerer Text mit Ümläuten. ".repeat(12);
    write(&modem, TO, long.trim());
    let all = gateway.incoming_are(4).await;
    let count = |from: &str, text: &str| all.iter().filter(|(f, t)| f == from && t == text).count();
    assert_eq!(count(TO, "came before the gateway did"), 1);
    assert_eq!(count(TO, "the same customer, €"), 1);
    assert_eq!(count(TO, long.trim()), 1);
    assert_eq!(count("MyBank", "a name"), 1);
    until("the deletion of all", || modem.counts().stored == 0).await;

    let status = gateway.status(|status| status.network == "home").await;
    assert_eq!(status.sim, "ready");
    assert_eq!(status.imei.as_deref(), Some("356938035643809"));
    assert!(status.model.is_some());

    for text in [
        "Hello {€}",
        "Жук 🙂",
        &"A long answer, in three parts. ".repeat(12),
    ] {
        let (id, outcome) = gateway.send(TO, text).await;
        assert_eq!(outcome, Attempt::Sent, "{text}");
        gateway
            .state(id, |state| *state == OutgoingState::Delivered)
            .await;
    }
    let shown = modem.with(|engine| engine.shown());
    let texts: Vec<Option<String>> = shown.iter().map(|shown| shown.text.clone()).collect();
    assert_eq!(texts[0].as_deref(), Some("Hello {€}"));
    assert_eq!(texts[1].as_deref(), Some("Жук 🙂"));
    assert_eq!(texts[2], Some("A long answer, in three parts. ".repeat(12)));
    assert!(gateway.status(|status| status.sent_today == 5).await.sent_today == 5);

    modem.with(|engine| engine.next_send(SendFault::Cms(28)));
    let (_, outcome) = gateway.send(TO, "nobody").await;
    assert_eq!(
        outcome,
        Attempt::Rejected("the network does not know the recipient (CMS error 28)".to_owned())
    );
    modem.with(|engine| engine.next_send(SendFault::Cms(332)));
    let (_, outcome) = gateway.send(TO, "perhaps").await;
    assert!(matches!(outcome, Attempt::Unknown(_)), "{outcome:?}");
    modem.with(|engine| engine.next_send(SendFault::Cms(42)));
    let (_, outcome) = gateway.send(TO, "congested").await;
    assert_eq!(outcome, Attempt::Sent);

    let (answer, received) = tokio::sync::oneshot::channel();
    let job = pipepost::driver::sms::UssdJob {
        code: "*100#".to_owned(),
        answer,
    };
    let ussd = gateway.handle.modem.clone().unwrap().ussd;
    ussd.send(job).await.ok().unwrap();
    let answer = timeout(LIMIT, received).await.unwrap().unwrap();
    assert_eq!(answer, Ok("Your balance: 9.50".to_owned()));
    gateway.stop().await;
}

#[tokio::test]
async fn a_restart_of_the_gateway_of_modem_manager_and_of_the_modem_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut manager) = Manager::start(folder.path()).await else {
        return;
    };
    let _logs = Logs(folder.path());
    let modem = Modem::start(options(), &manager.cable()).unwrap();
    manager.plugged().await;
    let mut gateway = Gateway::start_with(folder.path(), manager.config());
    gateway.up().await;
    // Killed about when the message is stored and not deleted yet.
    write(&modem, TO, "one");
    gateway.incoming_are(1).await;
    gateway.crash().await;
    let mut gateway = Gateway::start_with(folder.path(), manager.config());
    gateway.up().await;
    write(&modem, TO, "two");
    gateway.incoming_are(2).await;

    manager.restart(folder.path());
    manager.plugged().await;
    gateway.up().await;
    write(&modem, TO, "three");
    gateway.incoming_are(3).await;

    // ModemManager ends while it waits for the network's answer: nobody knows.
    modem.with(|engine| engine.next_send(SendFault::Silence { taken: true }));
    let (id, mut outcome) = gateway.submit(TO, "in the air").await;
    // The gateway may notice only now that ModemManager was away: then it is its turn again, as from the queue.
    let taken = || modem.counts().sent == 1;
    while let Ok(given_back) = tokio::select! {
        () = until("the message in the network", taken) => Err(()),
        attempt = &mut outcome => Ok(attempt.unwrap()),
    } {
        assert!(matches!(given_back, Attempt::NotStarted(_)), "{given_back:?}");
        gateway.store.finish_attempt(id, given_back, false).await.unwrap();
        gateway.up().await;
        outcome = gateway.attempt(id).await;
    }
    manager.restart(folder.path());
    manager.plugged().await;
    let outcome = timeout(LIMIT, outcome).await.unwrap().unwrap();
    assert!(matches!(outcome, Attempt::Unknown(_)), "{outcome:?}");
    gateway.up().await;
    assert_eq!(modem.counts().sent, 1, "it is not sent again by itself");

    // A modem of this kind is only gone for ModemManager when udev says so, and there is none here.
    modem.unplug().await;
    manager.restart(folder.path());
    gateway.down("knows no modem").await;
    write(&modem, TO, "while it was away");
    modem.plug(manager.cable()).await.unwrap();
    manager.plugged().await;
    gateway.up().await;
    let all = gateway.incoming_are(4).await;
    for text in ["one", "two", "three", "while it was away"] {
        assert_eq!(
            all.iter().filter(|(_, known)| known == text).count(),
            1,
            "{text}: {all:?}"
        );
    }
    until("the deletion of all", || modem.counts().stored == 0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn texts_that_modem_manager_overlooks_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut manager) = Manager::start(folder.path()).await else {
        return;
    };
    let _logs = Logs(folder.path());
    let hasty = Options {
        text_interval: Duration::from_millis(1),
        ..options()
    };
    let modem = Modem::start(hasty, &manager.cable()).unwrap();
    manager.plugged().await;
    let mut gateway = Gateway::start_with(folder.path(), manager.config());
    gateway.up().await;
    for number in 0..5 {
        write(&modem, TO, &format!("number {number}"));
    }
    write(
        &modem,
        "+31600000001",
        "Ein längerer Text mit Ümläuten. ".repeat(12).trim(),
    );
    gateway.incoming_are(6).await;
    until("the deletion of all", || modem.counts().stored == 0).await;
    assert_eq!(gateway.send(TO, "and out").await.1, Attempt::Sent);
    gateway.stop().await;
}

#[tokio::test]
async fn modem_manager_gets_the_right_pin_and_a_wrong_one_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut manager) = Manager::start(folder.path()).await else {
        return;
    };
    let _logs = Logs(folder.path());
    let locked = Options {
        pin: Some("4321".to_owned()),
        ..options()
    };
    let modem = Modem::start(locked, &manager.cable()).unwrap();
    manager.plugged().await;
    let mut wrong = manager.config();
    wrong.pin = Some(Secret::new("1111".to_owned()));
    for _ in 0..2 {
        let mut gateway = Gateway::start_with(folder.path(), wrong.clone());
        gateway.down("the SIM's PIN was refused").await;
        gateway.crash().await;
    }
    assert_eq!(modem.with(|engine| engine.wrong_pins()), 1, "not tried again");
    let mut right = wrong;
    right.pin = Some(Secret::new("4321".to_owned()));
    let mut gateway = Gateway::start_with(folder.path(), right);
    gateway.up().await;
    assert_eq!(modem.with(|engine| engine.wrong_pins()), 1);
    gateway.stop().await;
}
