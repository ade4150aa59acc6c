//! What the gateway would do with a configuration, in a few lines for a person.

use std::path::PathBuf;

use super::{Config, ModemPort, Protocol};

/// The summary that `pipepost check` prints: files, where it listens, brokers, devices and channels.
/// Ends with a line break.
#[must_use]
pub fn summary(config: &Config, files: &[PathBuf]) -> String {
    let mut lines = Vec::new();
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    lines.push(format!("The configuration is usable: {}", names.join(", ")));
    let certificate = match &config.listener.certificate_file {
        Some(file) => format!("certificate from {}", file.display()),
        None => "self-signed certificate".to_owned(),
    };
    lines.push(format!("  listens on {} ({certificate})", config.listener.bind));
    if let Some(url) = &config.pipedrive.public_url {
        lines.push(format!("  is reached by Pipedrive at {url}"));
    }
    lines.push(format!("  delivers to {}", config.pipedrive.api_url));
    lines.push(format!("  stores in {}", config.gateway.state_dir.display()));
    for broker in &config.brokers {
        let tls = if broker.tls.is_some() { "TLS" } else { "no TLS" };
        lines.push(format!(
            "  broker {:?} at {}:{} ({tls}, MQTT {})",
            broker.name,
            broker.host,
            broker.port,
            broker.protocol.name()
        ));
        if broker.protocol == Protocol::V4 {
            lines.push(
                "    with 3.1.1 the broker decides how long it keeps messages for an absent gateway; with QoS 0 only, \
                 it keeps none"
                    .to_owned(),
            );
        }
    }
    for device in &config.devices {
        let preset = device
            .spec
            .preset
            .as_ref()
            .map_or_else(String::new, |name| format!(", preset {name:?}"));
        lines.push(format!(
            "  device {:?} behind broker {:?}{preset}",
            device.name, device.broker
        ));
    }
    for modem in &config.modems {
        let place = match &modem.port {
            ModemPort::Path(path) => path.display().to_string(),
            ModemPort::Usb { vendor, product, .. } => format!("USB {vendor:04x}:{product:04x}"),
            ModemPort::Manager { which, .. } => {
                format!("ModemManager ({})", which.as_deref().unwrap_or("any"))
            }
        };
        lines.push(format!("  modem {:?} at {place}", modem.name));
    }
    for channel in &config.channels {
        let (what, device) = match (&channel.modem, &channel.device) {
            (Some(modem), _) => ("modem", modem.as_str()),
            (None, device) => ("device", device.as_deref().unwrap_or("none")),
        };
        lines.push(format!(
            "  channel {:?} ({:?}) on {what} {device:?}",
            channel.id.as_str(),
            channel.name
        ));
    }
    if !config.templates.is_empty() {
        let ids: Vec<&str> = config
            .templates
            .iter()
            .map(|template| template.id.as_str())
            .collect();
        lines.push(format!("  templates: {}", ids.join(", ")));
    }
    let mut text = String::new();
    for line in lines {
        // A control character could drive the terminal.
        text.extend(line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
        text.push('\n');
    }
    text
}
