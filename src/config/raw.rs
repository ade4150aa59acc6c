//! The shape of the configuration in TOML: strict, defaults filled in.
//!
//! `config/pipepost.toml` documents every key; a test holds it against these structs.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Protocol;
pub(super) use crate::domain::ByteSize as Size;
use crate::domain::{ChannelId, GatewayId, ProviderType};

/// `[gateway]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Gateway {
    pub(super) id: Option<GatewayId>,
    pub(super) state_dir: PathBuf,
    pub(super) control_socket: PathBuf,
    pub(super) clock_wait: Span,
    pub(super) drain_timeout: Span,
    pub(super) country: Option<String>,
    pub(super) templates_dir: PathBuf,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            id: None,
            state_dir: "/var/lib/pipepost".into(),
            control_socket: "/run/pipepost/control.sock".into(),
            clock_wait: Span::seconds(60),
            drain_timeout: Span::seconds(10),
            country: None,
            templates_dir: super::templates::DEFAULT_DIR.into(),
        }
    }
}

/// `[pipedrive]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Pipedrive {
    pub(super) api_url: String,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) access_token_file: Option<PathBuf>,
    pub(super) oauth_url: String,
    pub(super) token_key_file: Option<PathBuf>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret_file: Option<PathBuf>,
    pub(super) public_url: Option<String>,
    pub(super) created_at: CreatedAt,
    pub(super) timeout: Span,
    pub(super) in_flight: usize,
    pub(super) daily_budget: Option<u64>,
}

impl Default for Pipedrive {
    fn default() -> Self {
        Self {
            api_url: "https://api.pipedrive.com/v1".to_owned(),
            ca_file: None,
            access_token_file: None,
            oauth_url: "https://oauth.pipedrive.com".to_owned(),
            token_key_file: None,
            client_id: None,
            client_secret_file: None,
            public_url: None,
            created_at: CreatedAt::Iso8601,
            timeout: Span::seconds(30),
            in_flight: 8,
            daily_budget: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CreatedAt {
    Iso8601,
    Minutes,
}

/// `[listener]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Listener {
    pub(super) bind: String,
    pub(super) certificate_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) max_connections: usize,
    pub(super) header_timeout: Span,
    pub(super) body_timeout: Span,
    pub(super) idle_timeout: Span,
    pub(super) max_upload: Size,
    pub(super) link_lifetime: Span,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            bind: "127.0.0.1:8443".to_owned(),
            certificate_file: None,
            key_file: None,
            max_connections: 64,
            header_timeout: Span::seconds(5),
            body_timeout: Span::seconds(60),
            idle_timeout: Span::seconds(20),
            max_upload: Size(20 << 20),
            link_lifetime: Span::days(7),
        }
    }
}

/// `[store]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Store {
    pub(super) retain_for: Span,
    pub(super) retain_bytes: Size,
    pub(super) disk_reserve: Size,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            retain_for: Span::days(365),
            retain_bytes: Size(2 << 30),
            disk_reserve: Size(64 << 20),
        }
    }
}

/// `[log]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub(super) level: Level,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: Level::Info }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// `[[broker]]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Broker {
    pub(super) name: Name,
    pub(super) url: String,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) certificate_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) protocol: Protocol,
    #[serde(default = "broker_default::announce")]
    pub(super) announce: bool,
    pub(super) client_id: Option<String>,
    pub(super) username: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    #[serde(default = "broker_default::keep_alive")]
    pub(super) keep_alive: Span,
    #[serde(default = "broker_default::session_expiry")]
    pub(super) session_expiry: Span,
    #[serde(default = "broker_default::receive_maximum")]
    pub(super) receive_maximum: u16,
    #[serde(default = "broker_default::max_packet_size")]
    pub(super) max_packet_size: Size,
}

mod broker_default {
    use super::{Size, Span};

    pub(super) const fn announce() -> bool {
        true
    }

    pub(super) fn keep_alive() -> Span {
        Span::seconds(30)
    }

    pub(super) fn session_expiry() -> Span {
        Span::days(7)
    }

    pub(super) fn receive_maximum() -> u16 {
        64
    }

    pub(super) fn max_packet_size() -> Size {
        Size(1 << 20)
    }
}

/// `[[device]]` without its mapping, which is a [`DeviceSpec`](crate::protocol::mqtt::DeviceSpec).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Device {
    pub(super) name: Name,
    pub(super) broker: Option<String>,
}

/// `[[modem]]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Modem {
    pub(super) name: Name,
    pub(super) port: Option<PathBuf>,
    pub(super) usb: Option<String>,
    pub(super) usb_interface: Option<u8>,
    #[serde(rename = "modem_manager")]
    pub(super) manager: Option<String>,
    pub(super) bus: Option<String>,
    #[serde(default = "modem_default::baud")]
    pub(super) baud: u32,
    #[serde(default)]
    pub(super) profile: ModemProfile,
    pub(super) pin_file: Option<PathBuf>,
    pub(super) home_country: Option<String>,
    #[serde(default = "modem_default::reports")]
    pub(super) reports: bool,
    #[serde(default = "modem_default::max_parts")]
    pub(super) max_parts: u8,
    #[serde(default)]
    pub(super) languages: Vec<String>,
    #[serde(default)]
    pub(super) transliterate: bool,
    pub(super) validity: Option<Span>,
    #[serde(default = "modem_default::daily_cap")]
    pub(super) daily_cap: u32,
    #[serde(default = "modem_default::pacing")]
    pub(super) pacing: Span,
    #[serde(default = "modem_default::incomplete_after")]
    pub(super) incomplete_after: Span,
}

mod modem_default {
    use super::Span;

    pub(super) const fn baud() -> u32 {
        115_200
    }

    pub(super) const fn reports() -> bool {
        true
    }

    pub(super) const fn max_parts() -> u8 {
        10
    }

    pub(super) const fn daily_cap() -> u32 {
        1000
    }

    pub(super) const fn pacing() -> Span {
        Span::seconds(1)
    }

    pub(super) const fn incomplete_after() -> Span {
        Span::seconds(3600)
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ModemProfile {
    #[default]
    Auto,
    Generic,
    Sim800,
    Sim7600,
    Ec25,
    Huawei,
}

/// `[[channel]]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Channel {
    pub(super) id: ChannelId,
    pub(super) name: String,
    pub(super) kind: ChannelKind,
    pub(super) device: Option<String>,
    pub(super) modem: Option<String>,
    pub(super) avatar_url: Option<String>,
    #[serde(default)]
    pub(super) provider_type: ProviderType,
    pub(super) template_support: Option<bool>,
    #[serde(default)]
    pub(super) on_unknown: OnUnknown,
    pub(super) own_address: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ChannelKind {
    Mqtt,
    Sms,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OnUnknown {
    #[default]
    Fail,
    Resend,
}

/// Name of a broker, device or modem: it appears in commands, log fields and names of credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Name(pub(super) String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = ChannelId::deserialize(deserializer)?;
        Ok(Self(id.as_str().to_owned()))
    }
}

/// A duration as people write it: `"30s"`, `"10m"`, `"7 days"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl Span {
    const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    const fn days(days: u64) -> Self {
        Self(Duration::from_secs(days * 24 * 60 * 60))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        // humantime counts in months and years of fractional days; nobody writes retention like that.
        if self.0.subsec_nanos() == 0 && seconds > 0 && seconds.is_multiple_of(86_400) {
            let days = seconds / 86_400;
            return write!(f, "{days} day{}", if days == 1 { "" } else { "s" });
        }
        humantime::format_duration(self.0).fmt(f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration in quotes such as \"30s\", \"10m\" or \"7 days\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                let parsed = humantime::parse_duration(text).map(Span);
                parsed.map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn durations_survive_being_printed(seconds in 0_u64..10_000_000_000) {
            let span = Span::seconds(seconds);
            prop_assert_eq!(humantime::parse_duration(&span.to_string()).ok(), Some(span.0));
        }
    }
}
