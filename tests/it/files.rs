//! Files that customers send.

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::support::{Daemon, Device, SOON, Site, wait_for};

const CHANNEL: &str = "gw-test-pictures";
const TOPIC: &str = "mms/received";

/// A site with a device that brings files, a few large packets at a time.
fn site() -> Site {
    let site = Site::new();
    let broker = format!("url = \"mqtt://127.0.0.1:{}\"\n", site.mosquitto.port);
    let config = site.config("").replace(
        &broker,
        &format!("{broker}max_packet_size = \"8MiB\"\nreceive_maximum = 4\n"),
    ) + r#"
[[device]]
name = "mms"
[device.in]
topic = "mms/received"
from = "/from"
text = "/text"
id = "/id"
attachments = { each = "/media", at = "/data", url = "/url", name = "/name", type = "/type" }
[[channel]]
id = "pictures"
name = "Pictures"
kind = "mqtt"
device = "mms"
"#;
    site.write("pipepost.toml", &config);
    site
}

/// Something with the first bytes of a JPEG, different for each number.
fn picture(number: usize, bytes: usize) -> Vec<u8> {
    let mut content = b"\xff\xd8\xff\xe0".to_vec();
    content.extend((0..bytes - 4).map(|at| u8::try_from((at * 31 + number * 7 + at / 251) % 256).unwrap()));
    content
}

fn message(number: usize, media: &Value) -> String {
    let text = format!("picture {number}");
    json!({"id": number, "from": "+447700900288", "text": text, "media": media}).to_string()
}

/// Texts and files of the channel's messages in the inbox.
fn inbox(site: &Site) -> Vec<(String, Vec<Value>)> {
    site.sandbox.read(|state| {
        let mut found = Vec::new();
        for conversation in state.conversations() {
            for message in &conversation.messages {
                found.push((message.text.clone(), message.attachments.clone()));
            }
        }
        found
    })
}

fn open_link(site: &Site, url: &str) -> Vec<u8> {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--cacert"])
        .arg(site.dir.path().join("state/tls/self-signed.pem"))
        .arg(url)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{url}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Highest resident memory of a daemon so far, in KiB.
fn peak_memory(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.process.0.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn pictures_survive_kills_once_each_and_open_from_the_inbox() {
    const PICTURES: usize = 20;
    const BYTES: usize = 2 << 20;
    let site = site();
    let mut daemon = site.daemon();
    let device = Device::connect(site.mosquitto.port, "mms", "mms/send");
    for number in 0..PICTURES {
        let media =
            json!([{"name": format!("{number}.jpg"), "data": BASE64.encode(&picture(number, BYTES))}]);
        device.publish(TOPIC, &message(number, &media));
    }
    for seen in [3, 9, 15] {
        wait_for(&format!("{seen} pictures"), SOON, || {
            (inbox(&site).len() >= seen).then_some(())
        });
        daemon.kill();
        daemon = site.daemon();
    }
    wait_for("every picture", Duration::from_secs(60), || {
        (inbox(&site).len() >= PICTURES).then_some(())
    });
    let peak = peak_memory(&daemon);
    println!("highest memory of the last daemon: {peak} KiB");

    let arrived = inbox(&site);
    let texts: HashSet<&str> = arrived.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!((arrived.len(), texts.len()), (PICTURES, PICTURES));
    for (text, files) in &arrived {
        let number: usize = text.strip_prefix("picture ").unwrap().parse().unwrap();
        let [file] = files.as_slice() else {
            panic!("{text}: {files:?}")
        };
        assert_eq!(file["type"], "image/jpeg");
        assert_eq!(file["size"], BYTES);
        assert!(
            open_link(&site, file["url"].as_str().unwrap()) == picture(number, BYTES),
            "{text}"
        );
    }
    // Half-written files of the kills are gone after a while; nothing that a message names is.
    wait_for("no file without a message", Duration::from_secs(90), || {
        let files = std::fs::read_dir(site.dir.path().join("state/attachments")).unwrap();
        (files.count() == PICTURES).then_some(())
    });
    assert_eq!(daemon.stop(), Some(0));
    site.assert_contract_kept();
}

#[test]
fn a_file_that_cannot_be_used_does_not_cost_the_text_and_a_link_stays_a_link() {
    let site = site();
    let _daemon = site.daemon();
    let device = Device::connect(site.mosquitto.port, "mms", "mms/send");
    let page = BASE64.encode(b"<html><script>alert(1)</script></html>");
    let media = json!([
        {"name": "broken.jpg", "data": "!!!"},
        {"name": "page.jpg", "type": "image/jpeg", "data": page},
        {"name": "film.mp4", "url": "https://cdn.example/film.mp4"},
        {"name": "huge.jpg", "data": BASE64.encode(&picture(0, (5 << 20) + 1))},
    ]);
    device.publish(TOPIC, &message(1, &media));
    let (text, files) = wait_for("the message", SOON, || inbox(&site).pop());
    assert_eq!(
        text,
        "picture 1\n[a file \"broken.jpg\" was left out: it is not base64]\nfilm.mp4: https://cdn.example/film.mp4\n\
         [a file \"huge.jpg\" was left out: it has 5242881 bytes, and 5242880 are the limit]"
    );
    let [page] = files.as_slice() else {
        panic!("{files:?}")
    };
    assert_eq!(page["type"], "application/octet-stream");
    let id = site.sandbox.read(|state| {
        let conversation = state.conversations().next().unwrap();
        assert_eq!(&*conversation.channel, CHANNEL);
        conversation.id.to_string()
    });
    assert!(site.output(&["conversations", "show", &id]).contains("page.jpg"));
    site.assert_contract_kept();
}
