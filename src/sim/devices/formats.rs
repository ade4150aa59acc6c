//! Topics and payloads of the real devices.

use data_encoding::BASE64;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{Device, Text};

/// Name of GSM2MQTT's modem in its topics.
const MODEM: &str = "office";
/// Characters of a single SMS, in GSM's own alphabet and beyond it.
const SINGLE: (usize, usize) = (160, 70);

/// A message to publish.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Publication {
    pub(super) topic: String,
    pub(super) payload: String,
    pub(super) retain: bool,
}

impl Publication {
    fn new(topic: impl Into<String>, payload: impl Into<String>, retain: bool) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            retain,
        }
    }
}

/// Where the device takes commands.
pub(super) fn command_topic(device: Device) -> String {
    match device {
        Device::Sms2mqtt => "sms2mqtt/send".to_owned(),
        Device::Gsm2mqtt => format!("gsm2mqtt/modem/{MODEM}/sms/send"),
        Device::Mms => "mms/send".to_owned(),
    }
}

/// What the device says when it has connected.
pub(super) fn hello(device: Device) -> Publication {
    match device {
        Device::Sms2mqtt => Publication::new("sms2mqtt/connected", "1", true),
        Device::Gsm2mqtt => Publication::new("gsm2mqtt/bridge/state", "online", true),
        Device::Mms => Publication::new("mms/state", "online", true),
    }
}

/// What the broker says for it when it has gone.
pub(super) fn will(device: Device) -> Publication {
    match device {
        Device::Sms2mqtt => Publication::new("sms2mqtt/connected", "0", true),
        Device::Gsm2mqtt => Publication::new("gsm2mqtt/bridge/state", "offline", true),
        Device::Mms => Publication::new("mms/state", "offline", true),
    }
}

/// A message came in. Only the bridge for picture messages has a place for files.
pub(super) fn received(device: Device, number: &str, message: &Text, now: Timestamp) -> Publication {
    let text = message.text.as_str();
    match device {
        Device::Sms2mqtt => {
            let payload = json!({ "datetime": local_time(now), "number": number, "text": text });
            Publication::new("sms2mqtt/received", payload.to_string(), false)
        }
        Device::Gsm2mqtt => {
            let payload = json!({
                "from": number,
                "text": text,
                "timestamp": rfc3339(now),
                "modem_id": MODEM,
                "multipart": is_multipart(text),
            });
            Publication::new(
                format!("gsm2mqtt/modem/{MODEM}/sms/received"),
                payload.to_string(),
                false,
            )
        }
        Device::Mms => {
            let media: Vec<_> = message
                .files
                .iter()
                .map(|file| json!({ "name": file.name, "type": file.mime, "data": BASE64.encode(&file.bytes) }))
                .collect();
            let payload = json!({ "from": number, "text": text, "time": rfc3339(now), "media": media });
            Publication::new("mms/received", payload.to_string(), false)
        }
    }
}

/// The command to send an SMS.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub(super) struct Command {
    #[serde(alias = "to")]
    pub(super) number: String,
    pub(super) text: String,
}

/// Reads a command. The error is the device's, in its own format where it has one.
pub(super) fn command(device: Device, payload: &[u8]) -> Result<Command, (String, Option<Publication>)> {
    let named = match device {
        Device::Sms2mqtt => ("number", "no number to send to"),
        Device::Gsm2mqtt | Device::Mms => ("to", "no recipient"),
    };
    let read = || -> Result<Command, String> {
        let value: serde_json::Value =
            serde_json::from_slice(payload).map_err(|error| format!("failed to decode JSON ({error})"))?;
        if value
            .get(named.0)
            .and_then(serde_json::Value::as_str)
            .is_none_or(str::is_empty)
        {
            return Err(named.1.to_owned());
        }
        serde_json::from_value(value).map_err(|_| "no text body to send".to_owned())
    };
    read().map_err(|reason| {
        let answer = (device == Device::Sms2mqtt).then(|| {
            let body = json!({
                "result": format!("error : {reason}"),
                "payload": String::from_utf8_lossy(payload),
            });
            Publication::new("sms2mqtt/sent", body.to_string(), false)
        });
        (reason, answer)
    })
}

/// The device's word on a sent SMS. `reference` counts GSM2MQTT's messages from 0 to 255, as the network does.
pub(super) fn confirmed(device: Device, command: &Command, reference: u8, now: Timestamp) -> Publication {
    match device {
        Device::Sms2mqtt => {
            let payload = json!({
                "result": "success",
                "datetime": local_time(now),
                "number": command.number,
                "text": command.text,
            });
            Publication::new("sms2mqtt/sent", payload.to_string(), false)
        }
        Device::Gsm2mqtt => {
            let payload = json!({
                "message_ref": reference,
                "recipient": command.number,
                "status": "delivered",
                "discharge_time": rfc3339(now),
            });
            Publication::new(
                format!("gsm2mqtt/modem/{MODEM}/sms/delivery_report"),
                payload.to_string(),
                false,
            )
        }
        Device::Mms => {
            let payload = json!({ "to": command.number, "state": "delivered" });
            Publication::new("mms/report", payload.to_string(), false)
        }
    }
}

/// sms2mqtt prints its container's local time, which is UTC, without a zone.
fn local_time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn rfc3339(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Whether a text needs more than one SMS. Close enough: letters of GSM's alphabet beyond ASCII count as outside it.
fn is_multipart(text: &str) -> bool {
    if text.is_ascii() {
        text.len() > SINGLE.0
    } else {
        text.encode_utf16().count() > SINGLE.1
    }
}
