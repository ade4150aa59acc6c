//! What a mapping makes of a payload, in words: `pipepost mqtt test`.

use std::fmt::Write;

use super::mapping::{Mapping, Packet, Read};
use crate::domain::{
    ByteSize, ChannelId, ConversationId, DedupKey, DeviceStatus, MessageId, Outgoing, ReceivedAttachment,
    ReceivedMessage, Sequence, StatusReport, StatusTarget, Timestamp,
};

/// Says what the mapping of `device` makes of a payload on a topic, and how an answer would look.
#[must_use]
pub fn describe_test(device: &str, mapping: &Mapping, topic: &str, payload: &[u8], now: Timestamp) -> String {
    let Ok(channel) = "test".parse::<ChannelId>() else {
        return String::new();
    };
    let packet = Packet {
        topic,
        payload,
        packet_id: Some(1),
        retained: false,
        dup: false,
    };
    let mut out = format!("device    {device}\ntopic     {topic}\n");
    let written = match mapping.read(&channel, &packet, now) {
        Read::Message(message) => describe_message(&mut out, mapping, &message),
        Read::Status(report) => describe_status(&mut out, &report),
        Read::Ignored(reason) => {
            let filters: Vec<String> = mapping.filters().into_iter().collect();
            writeln!(out, "ignored   {reason}\ntopics    {}", filters.join(", "))
        }
        Read::Unmapped(reason) => {
            writeln!(
                out,
                "unmapped  {reason}\n          The running gateway keeps such a payload with this reason."
            )
        }
    };
    if written.is_err() {
        out.push_str("(not all could be shown)\n");
    }
    out
}

fn describe_message(out: &mut String, mapping: &Mapping, message: &ReceivedMessage) -> std::fmt::Result {
    writeln!(out, "message   incoming")?;
    writeln!(out, "from      {}", message.from.as_str())?;
    if let Some(name) = &message.from_name {
        writeln!(out, "name      {name}")?;
    }
    if let Some(group) = &message.group {
        writeln!(out, "group     {}", group.as_str())?;
    }
    writeln!(
        out,
        "text      {}",
        if message.text.is_empty() {
            "(empty message)".to_owned()
        } else {
            message.text.replace('\n', "\n          ")
        }
    )?;
    for file in &message.attachments {
        writeln!(out, "file      {}", describe_file(file))?;
    }
    match message.device_time {
        None => writeln!(out, "time      none in the payload: the time of receipt counts")?,
        Some(time) if Timestamp::trusted(Some(time), message.received_at) == time => {
            writeln!(out, "time      {time}")?;
        }
        Some(time) => writeln!(
            out,
            "time      {time}, too far from now: the time of receipt counts (is `zone` right?)"
        )?,
    }
    for (name, value) in &message.route {
        writeln!(out, "{name:<9} {value}")?;
    }
    let repeat = match &message.dedup {
        Some(DedupKey::DeviceId(_)) => "by the device's own id",
        Some(DedupKey::Hash(_)) => "by its content",
        Some(DedupKey::FirstHash(_)) => "by the broker's mark on a redelivery",
        None => "not at all",
    };
    writeln!(out, "repeat    recognised {repeat}")?;
    if !mapping.can_send() {
        return writeln!(out, "answer    none: the mapping has no `out`");
    }
    let answer = Outgoing {
        id: MessageId {
            conversation: ConversationId(0),
            sequence: Sequence(0),
        },
        channel: message.channel.clone(),
        to: message.group.clone().unwrap_or_else(|| message.from.clone()),
        text: "Hello".to_owned(),
        route: message.route.clone(),
    };
    match mapping.write(&answer) {
        Ok(publish) => writeln!(
            out,
            "answer    \"Hello\" would go to {} with QoS {}:\n          {}",
            publish.topic,
            publish.qos,
            String::from_utf8_lossy(&publish.payload)
        ),
        Err(error) => writeln!(out, "answer    cannot be sent: {error}"),
    }
}

/// Name, type by content and size.
fn describe_file(file: &ReceivedAttachment) -> String {
    let size = u64::try_from(file.bytes.len()).unwrap_or(u64::MAX);
    format!("{}, {}, {}", file.name, file.mime, ByteSize(size).rounded())
}

fn describe_status(out: &mut String, report: &StatusReport) -> std::fmt::Result {
    match &report.status {
        DeviceStatus::Sent => writeln!(out, "status    sent")?,
        DeviceStatus::Delivered => writeln!(out, "status    delivered")?,
        DeviceStatus::Read => writeln!(out, "status    read")?,
        DeviceStatus::Failed(reason) => writeln!(out, "status    failed: {reason}")?,
    }
    match &report.of {
        StatusTarget::Id(id) => writeln!(out, "message   {id}"),
        StatusTarget::Recipient {
            address,
            text,
            not_before,
        } => {
            writeln!(
                out,
                "message   the oldest one to {}{} handed over after {not_before}",
                address.as_str(),
                if text.is_some() { " with the same text" } else { "" }
            )
        }
    }
}

/// One device as a listener knows it.
pub struct Listening<'a> {
    /// As in the configuration.
    pub name: &'a str,
    /// How it speaks.
    pub mapping: &'a Mapping,
}

/// Which of the devices takes a packet, and what it makes of it; or why none does. One line.
#[must_use]
pub fn describe_verdict(devices: &[Listening<'_>], packet: &Packet<'_>, now: Timestamp) -> String {
    let Ok(channel) = "listen".parse::<ChannelId>() else {
        return String::new();
    };
    let mut unreadable = None;
    let mut ignored = None;
    for device in devices.iter().filter(|device| device.mapping.takes(packet.topic)) {
        let name = device.name;
        match device.mapping.read(&channel, packet, now) {
            Read::Message(message) => {
                let group = message
                    .group
                    .as_ref()
                    .map(|group| format!(" in {}", group.as_str()));
                let files: Vec<String> = message.attachments.iter().map(describe_file).collect();
                return visible(&format!(
                    "{name}: message from {}{}{}: {}",
                    message.from.as_str(),
                    group.unwrap_or_default(),
                    if files.is_empty() {
                        String::new()
                    } else {
                        format!(" with {}", files.join("; "))
                    },
                    message.text
                ));
            }
            Read::Status(report) => {
                let mut words = String::new();
                let _always = describe_status(&mut words, &report);
                let words: Vec<&str> = words.split_whitespace().collect();
                return visible(&format!("{name}: {}", words.join(" ")));
            }
            Read::Unmapped(reason) => {
                unreadable = unreadable.or_else(|| Some(format!("{name}: cannot be read: {reason}")));
            }
            Read::Ignored(reason) => ignored = ignored.or_else(|| Some(format!("{name}: ignored: {reason}"))),
        }
    }
    visible(
        &unreadable
            .or(ignored)
            .unwrap_or_else(|| "no device has this topic".to_owned()),
    )
}

/// A text from outside that may not drive the terminal.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
