//! `pipepost demo` as a newcomer runs it.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::{Process, SOON, terminate, wait_for};

/// Lines of the demo's output, read as they come.
struct Screen {
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Screen {
    /// Waits for a line that may have come already.
    fn shows(&mut self, what: &str, limit: Duration) {
        if !self.seen.iter().any(|line| line.contains(what)) {
            self.wait_for(what, limit);
        }
    }

    fn wait_for(&mut self, what: &str, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line =
                line.unwrap_or_else(|_| panic!("no {what:?} within {limit:?} in:\n{}", self.seen.join("\n")));
            self.seen.push(line.clone());
            if line.contains(what) {
                return line;
            }
        }
    }
}

fn curl(arguments: &[&str]) -> serde_json::Value {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Head, in small letters, and body of a page.
fn download(url: &str) -> (String, Vec<u8>) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--include", url])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{url}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let end = output
        .stdout
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8_lossy(&output.stdout[..end]).to_ascii_lowercase();
    (head, output.stdout[end + 4..].to_vec())
}

/// The messages of the state of a page.
fn messages(state: &serde_json::Value) -> Vec<&serde_json::Value> {
    let conversations = state["conversations"].as_array().unwrap();
    conversations
        .iter()
        .flat_map(|one| one["messages"].as_array().unwrap())
        .collect()
}

/// An agent answers in the conversation that has these words.
fn reply(page: &str, channel: &str, words: &str, text: &str) {
    let state = curl(&[&format!("{page}sandbox/state?channel={channel}")]);
    let conversation = state["conversations"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one.to_string().contains(words)))
        .unwrap_or_else(|| panic!("{state}"));
    let reply = serde_json::json!({ "channel": channel, "conversation": conversation["id"], "text": text });
    curl(&[
        "--header",
        "Content-Type: application/json",
        "--data",
        &reply.to_string(),
        &format!("{page}sandbox/reply"),
    ]);
}

#[test]
fn the_demo_shows_messages_at_once_and_an_answer_comes_back_as_delivered() {
    // Somebody else has the demo's favourite ports, or has them already: the next free ones are taken.
    let taken: Vec<_> = [8080, 8443]
        .map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)))
        .into();
    let mut demo = Process(
        Command::new(env!("CARGO_BIN_EXE_pipepost"))
            .args(["demo", "--no-browser"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let output = BufReader::new(demo.0.stdout.take().unwrap());
    let (sender, lines) = mpsc::sync_channel(10_000);
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            drop(sender.send(line));
        }
    });
    let mut screen = Screen {
        lines,
        seen: Vec::new(),
    };
    let page = screen
        .wait_for("inbox page", SOON)
        .split_whitespace()
        .last()
        .unwrap()
        .to_owned();
    assert!(!page.contains(":8080/"), "{page}");
    drop(taken);
    screen.wait_for("the gateway is ready", SOON);
    let connect = screen.wait_for("connect: ", SOON);
    assert!(
        connect.contains(&format!("{page}oauth/authorize?client_id=")),
        "{connect}"
    );
    // Jürgen's messages come through GSM2MQTT, which reports delivery.
    screen.wait_for("Jürgen Köhler wrote", Duration::from_secs(5));
    screen.wait_for("in the inbox: \"Grüß Gott", SOON);
    screen.shows("Connected as Ada Brooks of Acme Heating", SOON);

    reply(&page, "demo-field", "Grüß Gott", "Das Angebot ist unterwegs.");
    screen.wait_for("the answer \"Das Angebot ist unterwegs.\" is delivered", SOON);

    // Olivia's texts come through an SMS modem, and so does the answer.
    screen.shows("in the inbox: \"Hello, I'm at your gate", SOON);
    reply(&page, "demo-sms", "at your gate", "Coming, one minute.");
    screen.wait_for("the SIM800 modem sends to Olivia Hart: Coming, one minute.", SOON);
    screen.wait_for("the answer \"Coming, one minute.\" is delivered", SOON);

    // Priya's picture comes through a device with a mapping of its own, and the page shows it as the picture it is.
    screen.shows(
        "in the inbox: \"My details, for the invoice.\"",
        Duration::from_secs(20),
    );
    let state = curl(&[&format!("{page}sandbox/state?channel=demo-pictures")]);
    let mut files = Vec::new();
    for message in messages(&state) {
        for file in message["attachments"].as_array().unwrap() {
            assert_eq!(file["link_expires"], true, "{file}");
            assert!(
                file["url"].as_str().unwrap().starts_with("https://localhost:"),
                "{file}"
            );
            let at = format!(
                "{page}sandbox/file?channel=demo-pictures&message={}&attachment={}",
                message["id"].as_str().unwrap(),
                file["id"].as_str().unwrap()
            );
            let (head, content) = download(&at);
            assert_eq!(file["size"], content.len());
            files.push((file["name"].clone(), file["type"].clone(), head, content));
        }
    }
    files.sort_by_key(|(name, ..)| name.to_string());
    let [(card, vcard, card_head, _), (roof, png, roof_head, picture)] = files.as_slice() else {
        panic!("{state}")
    };
    assert_eq!((card, vcard), (&"Priya Nair.vcf".into(), &"text/vcard".into()));
    assert!(
        card_head.contains("content-disposition: attachment"),
        "{card_head}"
    );
    assert_eq!((roof, png), (&"roof.png".into(), &"image/png".into()));
    assert!(roof_head.contains("content-type: image/png"), "{roof_head}");
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n") && picture.ends_with(b"IEND\xae\x42\x60\x82"));

    terminate(&mut demo.0, "INT");
    let status = wait_for("the demo to end", SOON, || demo.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    let summary = screen.wait_for("violations of the contract", SOON);
    assert!(
        summary.contains("2 answers were taken") && summary.contains(" 0 violations"),
        "{summary}"
    );
}
