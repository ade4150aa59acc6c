//! `pipepost mqtt listen` beside a running gateway, and `pipepost mqtt suggest`.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use pipepost::driver::Stored;

use crate::gateway::{Gateway, broker, text};
use crate::mosquitto_support::{Device, Mosquitto};

fn command(file: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipepost"));
    command.arg("--config").arg(file).arg("mqtt");
    command
}

#[tokio::test]
async fn a_listener_shows_what_arrives_and_takes_nothing_from_the_gateway() {
    let Some(site) = Mosquitto::start() else {
        return;
    };
    for protocol in ["5", "3.1.1"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pipepost.toml");
        let config = format!(
            "[[broker]]\nname = 'site'\nurl = 'mqtt://127.0.0.1:{}'\nprotocol = '{protocol}'\n\
             [[device]]\nname = 'office'\nin = {{ topic = 'desk/{{line}}/received', from = '/from', text = '/text' }}\n\
             [[channel]]\nid = 'desk'\nname = 'Desk'\nkind = 'mqtt'\ndevice = 'office'\n",
            site.port
        );
        fs::write(&file, config).unwrap();
        let mut gateway = Gateway::start(broker(site.port));
        gateway.up().await;
        let mut listener = command(&file)
            .args([
                "listen", "--filter", "desk/#", "--filter", "other/+", "--count", "3",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut words = BufReader::new(listener.stderr.take().unwrap());
        let mut line = String::new();
        // Warnings about the small configuration come first.
        while !line.contains("listening to desk/# other/+ on broker") {
            line.clear();
            assert!(words.read_line(&mut line).unwrap() > 0, "it ended");
        }
        let mut device = Device::connect(site.port, "device", &[]).await;
        let strange = ("other/x".to_owned(), b"what\x1b[2J".to_vec());
        let broken = ("desk/1/received".to_owned(), br#"{"from":"+15550100"}"#.to_vec());
        device.publish_all([text("one"), strange, broken]).await;
        let (message, stored) = gateway.received().await;
        assert_eq!(message.text, "one", "the gateway has it as well");
        stored.send(Stored::Acknowledge).unwrap();
        let mut shown = String::new();
        listener
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut shown)
            .unwrap();
        assert!(listener.wait().unwrap().success());
        for part in [
            "desk/1/received",
            "→ office: message from +15550100: one",
            "→ no device has this topic",
            "→ office: cannot be read: `text` cannot be read: there is no /text in the payload",
            "what\\u{1b}[2J",
        ] {
            assert!(shown.contains(part), "{protocol}: {part:?} is not in\n{shown}");
        }
        gateway.crash().await;
        drop(device);
    }
}

#[test]
fn a_proposal_can_be_put_into_the_configuration_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pipepost.toml");
    let suggested = command(&file)
        .args(["suggest", "--topic", "yard/15550100/in"])
        .args(["--payload", r#"{"body":"open the gate","ts":1769744285}"#])
        .output()
        .unwrap();
    assert!(suggested.status.success());
    let mut config = b"[[broker]]\nname = 'site'\nurl = 'mqtt://localhost'\n\n".to_vec();
    config.extend(suggested.stdout);
    fs::write(&file, &config).unwrap();
    let tested = command(&file)
        .args(["test", "--device", "new-device", "--topic", "yard/15550177/in"])
        .args(["--payload", r#"{"body":"thanks","ts":1769744285}"#])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&tested.stdout);
    assert!(words.contains("15550177") && words.contains("thanks"), "{words}");
}
