//! Connecting with OAuth, staying connected and leaving, with the whole daemon and the commands.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pipepost::sim::pipedrive::{App, Decision, Visit};

use crate::support::{Device, Process, SOON, Site, wait_for};
use crate::travel::{answer, conversation_with};

/// Users of the sandbox.
const ADA: i64 = 11;
const RAVI_WHO_IS_NO_ADMIN: i64 = 12;

/// A site without an access token, whose users connect.
fn site(change: impl FnOnce(&mut App)) -> Site {
    let mut app = App::default();
    change(&mut app);
    let site = Site::with_app(Some(app));
    let config = site.config("");
    let kept = config
        .lines()
        .filter(|line| !line.starts_with("access_token_file") && !line.starts_with("api_url"));
    let kept: Vec<_> = kept.collect();
    let oauth = format!("[pipedrive]\noauth_url = \"{}\"", site.sandbox.url());
    site.write("pipepost.toml", &kept.join("\n").replace("[pipedrive]", &oauth));
    site
}

fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// A `pipepost connect` that waits for somebody.
struct Connecting {
    process: Process,
    url: String,
    lines: mpsc::Receiver<String>,
}

impl Connecting {
    fn start(site: &Site) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pipepost"))
            .arg("--config")
            .arg(site.config_file())
            .args(["connect", "--minutes", "2"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (to_test, lines) = mpsc::sync_channel(1000);
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                drop(to_test.send(line));
            }
        });
        let process = Process(child);
        let url = loop {
            let line = lines.recv_timeout(SOON).expect("the address is printed");
            if line.trim().starts_with("https://") {
                break line.trim().to_owned();
            }
        };
        Self { process, url, lines }
    }

    /// Waits for the end: whether it went well, standard output and standard error.
    fn end(mut self) -> (bool, String, String) {
        let process = &mut self.process.0;
        let status = wait_for("the command to end", SOON, || process.try_wait().unwrap());
        let mut errors = String::new();
        if let Some(mut stderr) = process.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut errors).unwrap();
        }
        let mut out = String::new();
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(5)) {
            out.push_str(&line);
            out.push('\n');
        }
        (status.success(), out, errors)
    }
}

fn visit(site: &Site, url: &str, user: i64, decision: Decision) -> Visit {
    now(site.sandbox.decide(url, Some(user), decision)).unwrap()
}

fn connect(site: &Site) -> String {
    let connecting = Connecting::start(site);
    let visit = visit(site, &connecting.url, ADA, Decision::Allow);
    assert_eq!(visit.status, 200, "{}", visit.body);
    assert!(
        visit.body.contains("as Ada Brooks of Acme Heating"),
        "{}",
        visit.body
    );
    let (success, out, errors) = connecting.end();
    assert!(success, "{out}{errors}");
    out
}

fn state(site: &Site) -> String {
    let status = site.status();
    let shown = status["installations"][0]["state"].as_str();
    shown.unwrap_or("nobody").to_owned()
}

/// How often a text is in the inbox.
fn times(site: &Site, text: &str) -> usize {
    site.sandbox.read(|state| {
        let all = state.conversations().flat_map(|c| c.messages.iter());
        all.filter(|message| message.text == text).count()
    })
}

#[test]
fn from_an_empty_store_somebody_connects_and_messages_travel_both_ways() {
    let site = site(|_| {});
    let mut daemon = site.daemon();
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    device.customer_writes("+31612345678", "before anybody connected");
    wait_for("the message to wait", SOON, || {
        site.output(&["queue"])
            .contains("before anybody connected")
            .then_some(())
    });
    assert!(site.output(&["status"]).contains("pipepost connect"));

    let out = connect(&site);
    assert!(out.contains("Connected as Ada Brooks of Acme Heating"), "{out}");
    assert!(out.contains("Office SMS (sms): registered"), "{out}");
    let conversation = conversation_with(&site, "before anybody connected");
    answer(&site, &conversation, "we are here", Vec::new()).unwrap();
    assert!(device.next_answer().1.contains("we are here"));

    let status = site.status();
    let installation = &status["installations"][0];
    assert_eq!(installation["state"], "connected", "{status}");
    assert_eq!(installation["channels"][0], "sms", "{status}");
    assert!(
        installation["ends_at"].is_string() && installation["token_expires_at"].is_string(),
        "{status}"
    );
    assert!(site.output(&["status"]).contains("Ada Brooks of Acme Heating"));
    assert!(
        site.output(&["metrics"])
            .contains("pipepost_installation_connected{name=\"1-11\"} 1")
    );
    let log = daemon.log();
    assert!(!log.contains("code=") && !log.contains("sandbox-secret"), "{log}");
    assert_eq!(daemon.stop(), Some(0));
    // Also without the daemon, and after a restart.
    assert_eq!(state(&site), "connected");
    let _daemon = site.daemon();
    device.customer_writes("+31612345678", "after a restart");
    conversation_with(&site, "after a restart");
    site.assert_contract_kept();
}

#[test]
fn nothing_is_lost_or_doubled_while_tokens_expire_are_revoked_and_the_app_is_uninstalled() {
    let site = site(|app| {
        app.rules.access_seconds = 2;
        app.rules.keep_channels = true;
    });
    let _daemon = site.daemon();
    connect(&site);
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    let mut written = Vec::new();
    let mut write = |more: usize| {
        for _ in 0..more {
            let text = format!("message {}", written.len());
            device.customer_writes(&format!("+316123456{:02}", written.len() % 20), &text);
            written.push(text);
        }
        written.len()
    };
    // Tokens of two seconds, for a while, under load.
    let begun = Instant::now();
    let mut ended = false;
    while begun.elapsed() < Duration::from_secs(10) {
        let last = write(20) - 1;
        conversation_with(&site, &format!("message {last}"));
        if !ended && begun.elapsed() > Duration::from_secs(5) {
            site.sandbox.end_access_tokens();
            ended = true;
        }
    }
    assert_eq!(state(&site), "connected");

    assert_eq!(now(site.sandbox.uninstall(ADA)), Ok(200));
    wait_for("the uninstall to be shown", SOON, || {
        (state(&site) == "disconnected").then_some(())
    });
    assert!(site.output(&["channels", "list"]).contains("uninstalled"));
    let last = write(20) - 1;
    wait_for("the last message to wait", SOON, || {
        let queue = site.output(&["queue", "--limit", "1000"]);
        queue.contains(&format!("message {last}")).then_some(())
    });
    assert_eq!(times(&site, &format!("message {last}")), 0);

    let out = connect(&site);
    assert!(out.contains("Office SMS (sms): registered"), "{out}");
    for text in &written {
        conversation_with(&site, text);
        assert_eq!(times(&site, text), 1, "{text}");
    }
}

#[test]
fn a_refused_refresh_token_is_one_alarm_and_everything_waits_until_somebody_connects_again() {
    let site = site(|app| app.rules.access_seconds = 2);
    let daemon = site.daemon();
    connect(&site);
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    device.customer_writes("+31612345678", "first");
    conversation_with(&site, "first");
    site.sandbox.end_refresh_tokens();
    site.sandbox.end_access_tokens();
    device.customer_writes("+31612345678", "while nobody is connected");
    wait_for("the alarm", SOON, || {
        (state(&site) == "reconnect_needed").then_some(())
    });
    assert!(site.output(&["status"]).contains("RECONNECT NEEDED"));
    assert!(
        site.output(&["metrics"])
            .contains("pipepost_installation_connected{name=\"1-11\"} 0")
    );
    device.customer_writes("+31612345678", "and another one");
    wait_for("both to wait", SOON, || {
        let queue = site.output(&["queue"]);
        (queue.contains("while nobody is connected") && queue.contains("and another one")).then_some(())
    });
    let alarms = daemon.log().matches("Reconnect needed: run").count();
    assert_eq!(alarms, 1, "{}", daemon.log());
    connect(&site);
    conversation_with(&site, "while nobody is connected");
    conversation_with(&site, "and another one");
    assert_eq!(state(&site), "connected");
}

#[test]
fn who_denies_or_is_no_admin_is_not_connected_and_the_operator_reads_why() {
    let site = site(|_| {});
    // Without a daemon.
    let output = site.command(&["connect"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && errors.contains("systemctl start"),
        "{errors}"
    );
    let _daemon = site.daemon();
    let connecting = Connecting::start(&site);
    let denied = visit(&site, &connecting.url, ADA, Decision::Deny);
    assert_eq!(denied.status, 403);
    let (success, _, errors) = connecting.end();
    assert!(!success && errors.contains("choose Allow"), "{errors}");

    let connecting = Connecting::start(&site);
    let refused = visit(&site, &connecting.url, RAVI_WHO_IS_NO_ADMIN, Decision::Allow);
    assert!(refused.body.contains("ADMIN_ONLY"), "{}", refused.body);
    let (success, _, errors) = connecting.end();
    assert!(!success && errors.contains("admin rights"), "{errors}");
    assert_eq!(state(&site), "nobody");
    connect(&site);
}

#[test]
fn disconnecting_tells_pipedrive_and_keeps_what_waits() {
    let site = site(|app| app.rules.keep_channels = true);
    let _daemon = site.daemon();
    assert!(!site.command(&["disconnect"]).status.success());
    connect(&site);
    let out = site.output(&["disconnect"]);
    assert!(
        out.contains("Ada Brooks of Acme Heating is disconnected"),
        "{out}"
    );
    assert!(!site.sandbox.is_connected());
    assert_eq!(state(&site), "disconnected");
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    device.customer_writes("+31612345678", "is anybody there?");
    wait_for("the message to wait", SOON, || {
        site.output(&["queue"])
            .contains("is anybody there?")
            .then_some(())
    });
    connect(&site);
    conversation_with(&site, "is anybody there?");
}

#[test]
fn another_company_gets_a_channel_with_its_history_only_when_the_operator_says_so() {
    const MIA_OF_GLOBEX: i64 = 21;
    let site = site(|_| {});
    let _daemon = site.daemon();
    connect(&site);
    assert!(!site.command(&["channels", "register", "none"]).status.success());
    site.output(&["disconnect"]);
    let connecting = Connecting::start(&site);
    let visit = visit(&site, &connecting.url, MIA_OF_GLOBEX, Decision::Allow);
    assert!(
        visit.body.contains("belonged to Acme Heating before"),
        "{}",
        visit.body
    );
    let (success, out, _) = connecting.end();
    assert!(success && out.contains("No channel was free"), "{out}");
    site.output(&["channels", "register", "sms"]);
    let status = site.status();
    let installations = status["installations"].as_array().unwrap();
    let mia = installations.iter().find(|one| one["id"] == "2-21").unwrap();
    assert_eq!(mia["channels"][0], "sms", "{status}");
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    device.customer_writes("+31612345678", "for the new company");
    conversation_with(&site, "for the new company");
}
