//! `pipepost mqtt …`: what an installer needs to write a mapping.

use std::path::Path;
use std::time::SystemTime;

use serde_json::json;
use tokio::sync::mpsc;

use super::args::{Captured, MqttCommand};
use super::error::{CONFIG, DATA, IO, UNAVAILABLE};
use super::{CliError, Session, output};
use crate::config::{Broker, Config, Device};
use crate::domain::Timestamp;
use crate::driver::mqtt::listen::{Heard, listen};
use crate::protocol::mqtt::{Listening, Mapping, Packet, describe_test, describe_verdict, suggest, visible};

/// Bytes of a payload that are shown.
const SHOWN: usize = 2000;

/// Runs one of them.
pub(super) async fn run(session: &Session, command: MqttCommand) -> Result<(), CliError> {
    match command {
        MqttCommand::Test { device, captured } => test(&session.config()?, &device, &captured),
        MqttCommand::Suggest { captured } => propose(&captured),
        MqttCommand::Listen {
            broker,
            filters,
            count,
        } => listen_to(session, broker.as_deref(), filters, count).await,
    }
}

fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

fn payload_of(captured: &Captured) -> Result<Vec<u8>, CliError> {
    match (&captured.payload, &captured.payload_file) {
        (Some(text), _) => Ok(text.clone().into_bytes()),
        (None, Some(path)) => read(path),
        (None, None) => Ok(Vec::new()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|error| CliError::new(IO, format!("cannot read {}: {error}", path.display())))
}

fn compile(device: &Device) -> Result<Mapping, CliError> {
    Mapping::compile(&device.spec)
        .map_err(|error| CliError::new(CONFIG, format!("device {:?}: {error}", device.name)))
}

fn test(config: &Config, device: &str, captured: &Captured) -> Result<(), CliError> {
    let Some(found) = config.devices.iter().find(|found| found.name == device) else {
        let names: Vec<&str> = config.devices.iter().map(|found| found.name.as_str()).collect();
        return Err(CliError::new(DATA, format!("no device {device:?} is configured"))
            .hint(format!("configured devices: {}", names.join(", "))));
    };
    let payload = payload_of(captured)?;
    output::print(&describe_test(
        device,
        &compile(found)?,
        &captured.topic,
        &payload,
        now(),
    ))
}

fn propose(captured: &Captured) -> Result<(), CliError> {
    let payload = payload_of(captured)?;
    let proposal = suggest(&captured.topic, &payload, now()).map_err(|reason| CliError::new(DATA, reason))?;
    output::print(&format!(
        "{proposal}\n[[channel]]\nid = \"new-channel\"\nname = \"New channel\"\nkind = \"mqtt\"\ndevice = \"new-device\"\n"
    ))
}

fn broker_of<'c>(config: &'c Config, name: Option<&str>) -> Result<&'c Broker, CliError> {
    let names: Vec<&str> = config.brokers.iter().map(|broker| broker.name.as_str()).collect();
    let hint = format!("configured brokers: {}", names.join(", "));
    match (name, config.brokers.as_slice()) {
        (None, [only]) => Ok(only),
        (None, []) => Err(CliError::new(CONFIG, "no broker is configured").hint("add a [[broker]]")),
        (None, _) => Err(CliError::new(DATA, "there are several brokers: give --broker").hint(hint)),
        (Some(name), brokers) => brokers
            .iter()
            .find(|broker| broker.name == name)
            .ok_or_else(|| CliError::new(DATA, format!("no broker {name:?} is configured")).hint(hint)),
    }
}

async fn listen_to(
    session: &Session,
    broker: Option<&str>,
    mut filters: Vec<String>,
    count: Option<u64>,
) -> Result<(), CliError> {
    let config = session.config()?;
    let broker = broker_of(&config, broker)?;
    if filters.is_empty() {
        filters.push("#".to_owned());
    }
    let devices: Vec<(&str, Mapping)> = config
        .devices
        .iter()
        .filter(|device| device.broker == broker.name)
        .map(|device| Ok((device.name.as_str(), compile(device)?)))
        .collect::<Result<_, CliError>>()?;
    let known: Vec<Listening<'_>> = devices
        .iter()
        .map(|(name, mapping)| Listening { name, mapping })
        .collect();
    let (sender, mut heard) = mpsc::channel(64);
    let listening = listen(broker, &filters, sender);
    tokio::pin!(listening);
    let mut left = count;
    let mut connected = false;
    while left != Some(0) {
        let news = tokio::select! {
            news = heard.recv() => news,
            ended = &mut listening, if !connected || heard.is_empty() => {
                return ended.map_err(|reason| CliError::new(UNAVAILABLE, format!("broker {:?}: {reason}", broker.name)));
            }
            pressed = tokio::signal::ctrl_c() => {
                return pressed.map_err(|error| CliError::new(IO, format!("cannot wait for Ctrl-C: {error}")));
            }
        };
        match news {
            None => return Ok(()),
            Some(Heard::Listening) => {
                connected = true;
                output::note(&format!(
                    "listening to {} on broker {:?}; Ctrl-C ends",
                    filters.join(" "),
                    broker.name
                ));
            }
            Some(Heard::Packet {
                topic,
                payload,
                retained,
            }) => {
                show(session, &known, &topic, &payload, retained)?;
                left = left.map(|left| left.saturating_sub(1));
            }
        }
    }
    Ok(())
}

fn show(
    session: &Session,
    devices: &[Listening<'_>],
    topic: &str,
    payload: &[u8],
    retained: bool,
) -> Result<(), CliError> {
    let now = now();
    let packet = Packet {
        topic,
        payload,
        packet_id: None,
        retained,
        dup: false,
    };
    let verdict = describe_verdict(devices, &packet, now);
    let text = String::from_utf8_lossy(payload.get(..SHOWN).unwrap_or(payload));
    if session.json {
        // One object a line, so that programs can read along.
        let line = json!({
            "time": now.to_iso8601(), "topic": topic, "payload": text, "bytes": payload.len(),
            "retained": retained, "verdict": verdict,
        });
        return output::print(&format!("{line}\n"));
    }
    output::print(&format!(
        "{}  {}  {} bytes{}\n  {}\n  → {verdict}\n\n",
        now.to_iso8601(),
        visible(topic),
        payload.len(),
        if retained { ", retained" } else { "" },
        visible(&text),
    ))
}
