//! Checks of `[[broker]]`, `[[device]]` and `[[channel]]`, and of the names that bind them.

use serde::de::DeserializeOwned;

use super::check::{Check, keys};
use super::de::typed;
use super::effective::Effective;
use super::raw;
use super::source::nearest;
use super::tree::{Node, Step, Value};
use super::url;
use super::{Broker, BrokerTls, Channel, Device, Modem, OnUnknown};
use crate::domain::{Address, ByteSize, ChannelKind};
use crate::protocol::mqtt::{DeviceSpec, Mapping, MappingError};

impl Check<'_> {
    /// The elements of a list with their places in it; those that cannot be used were reported.
    pub(super) fn elements<T: DeserializeOwned>(&mut self, list: &str) -> Vec<(usize, T)> {
        let Some(node) = self.tree.get(list) else {
            return Vec::new();
        };
        let mut elements = Vec::new();
        for (index, item) in node.items().iter().enumerate() {
            if let Some(element) = typed(item, self.findings) {
                elements.push((index, element));
            }
        }
        elements
    }

    /// Complains about a name or id that was given before.
    pub(super) fn twice(&mut self, list: &'static str, key: &'static str, index: usize, name: &str) {
        let earlier = |item: &Node| {
            item.get(key)
                .and_then(Node::text)
                .is_some_and(|other| other == name)
        };
        let items = self.tree.get(list).map(Node::items).unwrap_or_default();
        if items.iter().take(index).any(earlier) {
            let message = format!("there are two [[{list}]] with the {key} {name:?}");
            self.error(
                &keys![list, index, key],
                message,
                Some("give each its own".to_owned()),
            );
        }
    }

    pub(super) fn brokers(&mut self, effective: &mut Effective) -> Vec<Broker> {
        let mut brokers = Vec::new();
        for (index, mut raw) in self.elements::<raw::Broker>("broker") {
            let at = |key: &str| keys!["broker", index, key];
            let name = raw.name.0.clone();
            self.twice("broker", "name", index, &name);
            self.resolve(&at("ca_file"), &mut raw.ca_file);
            self.resolve(&at("certificate_file"), &mut raw.certificate_file);
            self.resolve(&at("key_file"), &mut raw.key_file);
            self.resolve(&at("password_file"), &mut raw.password_file);
            let parsed = url::broker(&raw.url);
            if let Err((message, hint)) = &parsed {
                self.error(
                    &at("url"),
                    format!("\"url\" cannot be used: {message}"),
                    hint.clone(),
                );
            }
            let tls = self.broker_tls(index, &raw, parsed.as_ref().map_or(true, |url| url.tls));
            if let Some(id) = &raw.client_id {
                self.plain_text(&at("client_id"), id, 128);
            }
            if let Some(user) = &raw.username {
                self.plain_text(&at("username"), user, 255);
            }
            let password = self.secret(
                &at("password_file"),
                raw.password_file.as_ref(),
                &format!("broker-{name}-password"),
                format!("broker.{name}.password"),
            );
            if password.is_some() && raw.username.is_none() {
                let hint = Some("add username".to_owned());
                self.error(&keys!["broker", index], "a password without a user name", hint);
            }
            if let (Some(_), Ok(url)) = (&password, &parsed)
                && !url.tls
                && !url::is_loopback(&url.host)
            {
                let hint = Some("use mqtts:// if the broker offers TLS".to_owned());
                self.warning(&at("url"), "the password crosses the network unencrypted", hint);
            }
            let keep_alive = self.span(&at("keep_alive"), raw.keep_alive, 5, 65_535);
            let session_expiry = self.span(&at("session_expiry"), raw.session_expiry, 60, 49_000 * 86_400);
            self.range(&at("receive_maximum"), raw.receive_maximum, 1, u16::MAX);
            let packet = self.size(&at("max_packet_size"), raw.max_packet_size, 1 << 10, 256 << 20);
            effective.broker.push(raw.clone());
            let Ok(url) = parsed else { continue };
            brokers.push(Broker {
                name,
                host: url.host,
                port: url.port,
                tls,
                protocol: raw.protocol,
                announce: raw.announce,
                client_id: raw.client_id,
                username: raw.username,
                password,
                keep_alive,
                session_expiry,
                receive_maximum: raw.receive_maximum,
                max_packet_size: u32::try_from(packet).unwrap_or(u32::MAX),
            });
        }
        brokers
    }

    fn broker_tls(&mut self, index: usize, raw: &raw::Broker, tls: bool) -> Option<BrokerTls> {
        let files = [
            ("ca_file", &raw.ca_file),
            ("certificate_file", &raw.certificate_file),
            ("key_file", &raw.key_file),
        ];
        if !tls {
            // Whoever sets one of these believes the connection to be encrypted.
            if let Some((key, _)) = files.iter().find(|(_, file)| file.is_some()) {
                let hint = Some("write mqtts:// in its url".to_owned());
                let message =
                    format!("{key:?} has no effect: the connection to this broker is not encrypted");
                self.error(&keys!["broker", index, *key], message, hint);
            }
            return None;
        }
        self.pem(
            &keys!["broker", index, "ca_file"],
            raw.ca_file.as_ref(),
            super::files::Pem::Certificates,
        );
        let pair = (raw.certificate_file.as_ref(), raw.key_file.as_ref());
        let client = self.pair(&keys!["broker", index], pair.0, pair.1);
        Some(BrokerTls {
            ca_file: raw.ca_file.clone(),
            client,
        })
    }

    /// The name in the configuration's own list that a reference means.
    pub(super) fn refers_to(&mut self, path: &[Step], list: &str, name: &str) -> bool {
        let items = self.tree.get(list).map(Node::items).unwrap_or_default();
        let known: Vec<&str> = items.iter().filter_map(|item| item.get("name")?.text()).collect();
        if known.contains(&name) {
            return true;
        }
        let hint = match nearest(name, known.iter().copied()) {
            Some(meant) => Some(format!("did you mean {meant:?}?")),
            None if known.is_empty() => Some(format!("there is no [[{list}]] at all")),
            None => Some(format!("there are: {}", known.join(", "))),
        };
        self.error(path, format!("there is no [[{list}]] named {name:?}"), hint);
        false
    }

    pub(super) fn devices(&mut self, brokers: &[Broker], effective: &mut Effective) -> Vec<Device> {
        let mut devices = Vec::new();
        let items = self.tree.get("device").map(Node::items).unwrap_or_default();
        for (index, item) in items.iter().enumerate() {
            let at = |key: &str| keys!["device", index, key];
            // `name` and `broker` belong to the gateway, all else to the mapping.
            let mut own = Node {
                value: Value::Table(Vec::new()),
                at: item.at.clone(),
            };
            let mut mapping = item.clone();
            for key in ["name", "broker"] {
                if let (Some(entry), Value::Table(entries)) = (mapping.remove(key), &mut own.value) {
                    entries.push(entry);
                }
            }
            let raw: Option<raw::Device> = typed(&own, self.findings);
            let spec: Option<DeviceSpec> = typed(&mapping, self.findings);
            let mapping = match spec.as_ref().map(Mapping::compile) {
                Some(Err(error)) => {
                    // A block that is there and missing all the same was left out as unusable, and reported.
                    if error.value.is_some() || item.get(&error.key).is_none() {
                        self.mapping_error(index, &error);
                    }
                    None
                }
                Some(Ok(mapping)) => Some(mapping),
                None => None,
            };
            effective.device.push(item.to_toml());
            let Some(raw) = raw else { continue };
            self.twice("device", "name", index, &raw.name.0);
            let broker = match &raw.broker {
                Some(name) if self.refers_to(&at("broker"), "broker", name) => name.clone(),
                Some(_) => continue,
                None => match self.tree.get("broker").map(Node::items).unwrap_or_default() {
                    [_] => brokers
                        .first()
                        .map(|broker| broker.name.clone())
                        .unwrap_or_default(),
                    [] => {
                        let hint = Some("add a [[broker]] with its url".to_owned());
                        let message = format!("the device {:?} has no broker", raw.name.0);
                        self.error(&keys!["device", index], message, hint);
                        continue;
                    }
                    several => {
                        let names: Vec<&str> = several
                            .iter()
                            .filter_map(|item| item.get("name")?.text())
                            .collect();
                        let hint = Some(format!("add broker = \"…\", one of: {}", names.join(", ")));
                        let message = format!("the device {:?} does not say which broker", raw.name.0);
                        self.error(&keys!["device", index], message, hint);
                        continue;
                    }
                },
            };
            if let (Some(mapping), Some(broker)) =
                (&mapping, brokers.iter().find(|known| known.name == broker))
            {
                self.attachments_fit(index, mapping, broker);
            }
            if let Some(spec) = spec {
                devices.push(Device {
                    name: raw.name.0,
                    broker,
                    spec,
                });
            }
        }
        for (index, broker) in brokers.iter().enumerate() {
            if !self.findings.has_errors() && !devices.iter().any(|device| device.broker == broker.name) {
                let message = format!("no [[device]] is behind the broker {:?}", broker.name);
                self.warning(&keys!["broker", index], message, None);
            }
        }
        devices
    }

    /// A packet above the limit that the gateway announces is not sent to it at all (MQTT 5.0, section 3.1.2.11.4):
    /// the broker drops it without a word.
    fn attachments_fit(&mut self, index: usize, mapping: &Mapping, broker: &Broker) {
        let Some(packet) = mapping.largest_packet() else {
            return;
        };
        if packet <= u64::from(broker.max_packet_size) {
            return;
        }
        let message = format!(
            "the largest files of this device need packets of {}, and the broker {:?} passes on packets up to {} \
             only: larger messages are lost",
            ByteSize(packet).rounded(),
            broker.name,
            ByteSize(broker.max_packet_size.into()).rounded()
        );
        let hint = format!(
            "set max_packet_size = \"{}MiB\" for the broker, or a smaller max_size in `attachments`",
            packet.div_ceil(1 << 20)
        );
        self.warning(&keys!["device", index], message, Some(hint));
    }

    fn mapping_error(&mut self, index: usize, error: &MappingError) {
        let mut steps = vec![Step::from("device"), Step::from(index)];
        // The mapping counts its blocks from 1.
        let step = |part: &str| match part.parse::<usize>() {
            Ok(number) => Step::Index(number.saturating_sub(1)),
            Err(_) => Step::from(part),
        };
        steps.extend(error.key.split('.').map(step));
        let message = match &error.value {
            Some(value) => format!("the mapping's {:?} is {value:?}: {}", error.key, error.problem),
            None => format!("the mapping's {:?} {}", error.key, error.problem),
        };
        self.error(&steps, message, Some(error.remedy.clone()));
    }

    pub(super) fn channels(
        &mut self,
        devices: &[Device],
        modems: &[Modem],
        effective: &mut Effective,
    ) -> Vec<Channel> {
        let mut channels: Vec<Channel> = Vec::new();
        for (index, raw) in self.elements::<raw::Channel>("channel") {
            let at = |key: &str| keys!["channel", index, key];
            self.twice("channel", "id", index, raw.id.as_str());
            self.plain_text(&at("name"), &raw.name, 255);
            let kind = match raw.kind {
                raw::ChannelKind::Mqtt => ChannelKind::Mqtt,
                raw::ChannelKind::Sms => ChannelKind::Sms,
            };
            match kind {
                ChannelKind::Mqtt => self.channel_device(index, &raw, &channels),
                ChannelKind::Sms => self.channel_modem(index, &raw, &channels),
            }
            if let Some(avatar) = &raw.avatar_url
                && let Err((message, hint)) = url::picture(avatar)
            {
                self.error(
                    &at("avatar_url"),
                    format!("\"avatar_url\" cannot be used: {message}"),
                    hint,
                );
            }
            let own_address = raw.own_address.as_deref().and_then(|text| {
                let address = Address::new(text);
                if address.is_none() {
                    let message = format!(
                        "\"own_address\" must have 1 to {} characters and no control characters",
                        Address::MAX_LEN
                    );
                    self.error(&at("own_address"), message, None);
                }
                address
            });
            effective.channel.push(raw.clone());
            channels.push(Channel {
                id: raw.id,
                name: raw.name,
                kind,
                device: raw.device,
                modem: raw.modem,
                avatar_url: raw.avatar_url,
                provider_type: raw.provider_type,
                template_support: raw.template_support.unwrap_or_default(),
                on_unknown: match raw.on_unknown {
                    raw::OnUnknown::Fail => OnUnknown::Fail,
                    raw::OnUnknown::Resend => OnUnknown::Resend,
                },
                own_address,
            });
        }
        self.unused(devices, &channels);
        self.unused_modems(modems, &channels);
        channels
    }

    fn channel_device(&mut self, index: usize, raw: &raw::Channel, earlier: &[Channel]) {
        if raw.modem.is_some() {
            let hint = Some("write kind = \"sms\", or leave modem out".to_owned());
            let message = "\"modem\" has no effect: the kind of this channel is \"mqtt\"";
            self.error(&keys!["channel", index, "modem"], message, hint);
        }
        let Some(device) = &raw.device else {
            let hint = Some("add device = \"…\", the name of a [[device]]".to_owned());
            let message = format!("the channel {:?} has no device", raw.id.as_str());
            self.error(&keys!["channel", index], message, hint);
            return;
        };
        let at = keys!["channel", index, "device"];
        if self.refers_to(&at, "device", device)
            && let Some(other) = earlier.iter().find(|other| other.device.as_ref() == Some(device))
        {
            let hint = Some("a device's messages go to one channel: add a second [[device]]".to_owned());
            let message = format!(
                "the device {device:?} already belongs to the channel {:?}",
                other.id.as_str()
            );
            self.error(&at, message, hint);
        }
    }

    /// Things that are configured and serve nothing.
    fn unused(&mut self, devices: &[Device], channels: &[Channel]) {
        if self.findings.has_errors() {
            return;
        }
        if channels.is_empty() {
            let hint = Some("add a [[channel]] with id, name, kind and device or modem".to_owned());
            self.findings.warning(
                None,
                "no [[channel]] is configured: the gateway has nothing to do",
                hint,
            );
        }
        for (index, device) in devices.iter().enumerate() {
            if !channels
                .iter()
                .any(|channel| channel.device.as_ref() == Some(&device.name))
            {
                let hint = Some(format!("add a [[channel]] with device = {:?}", device.name));
                let message = format!(
                    "the device {:?} belongs to no channel: its messages are not read",
                    device.name
                );
                self.warning(&keys!["device", index], message, hint);
            }
        }
    }
}
