//! The configuration: strict when it is read, typed when it is used.

mod check;
mod check_hardware;
mod check_modem;
mod de;
mod effective;
mod files;
mod load;
mod raw;
#[cfg(test)]
mod reference_tests;
mod source;
mod summary;
mod templates;
mod tree;
mod url;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::{Address, ChannelId, ChannelKind, GatewayId, ProviderType, Secret};
use crate::protocol::mqtt::DeviceSpec;
use crate::protocol::sms::Home;
use crate::protocol::sms::at::Profile;
use crate::protocol::sms::charset::Language;

use effective::Effective;
pub use load::{DEFAULT_FILE, DROP_INS, Loaded, Request, hidden_credentials, load};
pub use source::{Finding, Location, Severity};
pub use summary::summary;
pub use templates::{Template, templates};

/// A public address given on the command line, as `pipedrive.public_url` would be: without a trailing slash.
///
/// # Errors
/// What is wrong with it, and the remedy, in one sentence.
pub fn public_url(text: &str) -> Result<String, String> {
    url::https(text, false).map_err(|(wrong, remedy)| match remedy {
        Some(remedy) => format!("{wrong}; {remedy}"),
        None => wrong,
    })
}

/// Everything that the gateway was told. Every value is checked; defaults are filled in.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[gateway]`
    pub gateway: Gateway,
    /// `[pipedrive]`
    pub pipedrive: Pipedrive,
    /// `[listener]`
    pub listener: Listener,
    /// `[store]`
    pub store: Store,
    /// `[log]`
    pub log: Log,
    /// `[[broker]]`
    pub brokers: Vec<Broker>,
    /// `[[device]]`, presets resolved.
    pub devices: Vec<Device>,
    /// `[[modem]]`
    pub modems: Vec<Modem>,
    /// `[[channel]]`
    pub channels: Vec<Channel>,
    /// The usable files of `gateway.templates_dir`.
    pub templates: Vec<Template>,
}

/// `[gateway]`
#[derive(Clone, Debug)]
pub struct Gateway {
    /// `id`: made once and kept in the store when absent.
    pub id: Option<GatewayId>,
    /// `state_dir`: the store, attachments and the bootstrap certificate. Default `/var/lib/pipepost`.
    pub state_dir: PathBuf,
    /// `control_socket`: where the commands reach the daemon. Default `/run/pipepost/control.sock`.
    pub control_socket: PathBuf,
    /// `clock_wait`: how long the start waits for a synchronised clock. Default 60 s.
    pub clock_wait: Duration,
    /// `drain_timeout`: how long a stop waits for work in progress. Default 10 s.
    pub drain_timeout: Duration,
    /// `country`: how numbers without a country code are meant in the address book and of MQTT devices. Without it the
    /// `home_country` that all modems have in common.
    pub home: Home,
    /// `templates_dir`: message templates, one file each. Default `/etc/pipepost/templates`.
    pub templates_dir: PathBuf,
}

/// `[pipedrive]`
#[derive(Clone, Debug)]
pub struct Pipedrive {
    /// `api_url`: base of the Channels API without a trailing slash, e.g. `https://acme.pipedrive.com/api/v1`.
    pub api_url: String,
    /// Whether `api_url` was written: then it counts for whoever connects as well, instead of his company's address.
    pub api_url_given: bool,
    /// `oauth_url`: base of Pipedrive's sign-in without a trailing slash. Default `https://oauth.pipedrive.com`.
    pub oauth_url: String,
    /// `token_key_file` or the credential `token-key`: encrypts the tokens of those who connected.
    pub token_key: Option<Secret>,
    /// `ca_file`: PEM certificates to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// `access_token_file` or the credential `access-token`; `None` when not configured yet.
    pub access_token: Option<Secret>,
    /// `client_id` of the app: user of the manifest endpoints' Basic authentication.
    pub client_id: Option<String>,
    /// `client_secret_file` or the credential `client-secret`: its password.
    pub client_secret: Option<Secret>,
    /// `public_url`: where Pipedrive reaches the listener, `https://…` without a trailing slash.
    pub public_url: Option<String>,
    /// `created_at`: form of the time in requests.
    pub created_at: CreatedAt,
    /// `timeout` of one request. Default 30 s.
    pub timeout: Duration,
    /// `in_flight`: how many requests at a time, one per conversation. Default 8.
    pub in_flight: usize,
    /// `daily_budget`: the most API tokens that may be spent in a day and company; `None` is what Pipedrive gives.
    pub daily_budget: Option<u64>,
}

/// `pipedrive.created_at`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CreatedAt {
    /// `"iso8601"`: UTC with milliseconds and `Z`; keeps the order within a minute.
    #[default]
    Iso8601,
    /// `"minutes"`: UTC `YYYY-MM-DD HH:MM`.
    Minutes,
}

/// `[listener]`
#[derive(Clone, Debug)]
pub struct Listener {
    /// `bind`. Default `127.0.0.1:8443`.
    pub bind: SocketAddr,
    /// `certificate_file`, PEM chain. Without it a self-signed certificate is made in the state folder.
    pub certificate_file: Option<PathBuf>,
    /// `key_file`, PEM.
    pub key_file: Option<PathBuf>,
    /// `max_connections`. Default 64.
    pub max_connections: usize,
    /// `header_timeout`: from the first byte to the end of the request's head (TLS handshake likewise). Default 5 s.
    pub header_timeout: Duration,
    /// `body_timeout`: for a whole body. Default 60 s.
    pub body_timeout: Duration,
    /// `idle_timeout` of a kept connection. Default 20 s.
    pub idle_timeout: Duration,
    /// `max_upload`: bytes of one postMessage with its files. Default 20 MiB.
    pub max_upload: u64,
    /// `link_lifetime`: how long links to files work. Default 7 days.
    pub link_lifetime: Duration,
}

/// `[store]`
#[derive(Clone, Debug)]
pub struct Store {
    /// `retain_for`: age after which finished messages are removed. Default 365 days.
    pub retain_for: Duration,
    /// `retain_bytes`: logical bytes of messages and attachments that are kept. Default 2 GiB.
    pub retain_bytes: u64,
    /// `disk_reserve`: free bytes below which no hardware is acknowledged. Default 64 MiB.
    pub disk_reserve: u64,
}

/// `[log]`
#[derive(Clone, Copy, Debug)]
pub struct Log {
    /// `level`: `error`, `warn`, `info` (default) or `debug`.
    pub level: log::LevelFilter,
}

/// `[[broker]]`
#[derive(Clone, Debug)]
pub struct Broker {
    /// `name`. Unique within the configuration.
    pub name: String,
    /// Host from `url` (`mqtt://host:1883` or `mqtts://host:8883`).
    pub host: String,
    /// Port from `url`.
    pub port: u16,
    /// TLS settings when `url` says `mqtts`.
    pub tls: Option<BrokerTls>,
    /// `protocol`. Default MQTT 5.
    pub protocol: Protocol,
    /// `announce`: whether the gateway says on `pipepost/<gateway>/status` that it is there. Default true.
    pub announce: bool,
    /// `client_id`: made once and kept in the store when absent.
    pub client_id: Option<String>,
    /// `username`
    pub username: Option<String>,
    /// `password_file` or the credential `broker-<name>-password`.
    pub password: Option<Secret>,
    /// `keep_alive`. Default 30 s.
    pub keep_alive: Duration,
    /// `session_expiry`: how long the broker keeps the session of an absent gateway. Default 7 days.
    pub session_expiry: Duration,
    /// `receive_maximum`: QoS 1 messages in flight towards the gateway. Default 64.
    pub receive_maximum: u16,
    /// `max_packet_size` in bytes. Default 1 MiB.
    pub max_packet_size: u32,
}

/// `broker.protocol`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// `"5"`
    #[default]
    #[serde(rename = "5")]
    V5,
    /// `"3.1.1"`: for brokers that know nothing newer. It has no flow control towards the gateway, no word about how
    /// long a session is kept, and no reason for a refusal.
    #[serde(rename = "3.1.1")]
    V4,
}

impl Protocol {
    /// As people say it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V5 => "5",
            Self::V4 => "3.1.1",
        }
    }
}

/// TLS towards a broker.
#[derive(Clone, Debug)]
pub struct BrokerTls {
    /// `ca_file`: PEM certificates to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// `certificate_file` and `key_file`: client certificate, PEM.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// `[[device]]`: something behind a broker that carries messages.
#[derive(Clone, Debug)]
pub struct Device {
    /// `name`. Unique within the configuration.
    pub name: String,
    /// `broker`: name of the broker; may be absent in the file when there is only one.
    pub broker: String,
    /// The mapping, with `preset` resolved.
    pub spec: DeviceSpec,
}

/// `[[modem]]`: an SMS modem at this machine.
#[derive(Clone, Debug)]
pub struct Modem {
    /// `name`. Unique within the configuration.
    pub name: String,
    /// `port`, `usb` or `modem_manager`: where it is.
    pub port: ModemPort,
    /// `baud`: speed of a real serial line; USB modems take any. Default 115200.
    pub baud: u32,
    /// `profile`; `None` for `"auto"`.
    pub profile: Option<Profile>,
    /// `pin_file` or the credential `modem-<name>-pin`.
    pub pin: Option<Secret>,
    /// `home_country`: how numbers without a country code are meant.
    pub home: Home,
    /// `reports`: whether delivery reports are asked for. Default true.
    pub reports: bool,
    /// `max_parts` of one text. Default 10.
    pub max_parts: u8,
    /// `languages` whose tables may be used to save parts.
    pub languages: Vec<Language>,
    /// `transliterate`: whether characters may be replaced to save parts. Default false.
    pub transliterate: bool,
    /// `validity`: how long the network tries; `None` leaves it to the network.
    pub validity: Option<Duration>,
    /// `daily_cap`: most parts sent in a day (UTC). Default 1000.
    pub daily_cap: u32,
    /// `pacing`: least time between two parts. Default 1 s.
    pub pacing: Duration,
    /// `incomplete_after`: how long the missing parts of a message are waited for. Default 1 h.
    pub incomplete_after: Duration,
}

/// Where a modem is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModemPort {
    /// A device file, best a link below `/dev/serial/by-id`, which stays the same wherever the modem is plugged in.
    Path(PathBuf),
    /// Found by its identity on the bus.
    Usb {
        /// Vendor, as `lsusb` shows it.
        vendor: u16,
        /// Product.
        product: u16,
        /// Interface number of the port for AT commands; `None`: the first that answers.
        interface: Option<u8>,
    },
    /// `ModemManager` has it.
    Manager {
        /// Serial number (IMEI), port, or path of the device below `/sys`; `None`: the only one, or the first.
        which: Option<String>,
        /// `bus`: D-Bus address; `None`: the system's bus.
        bus: Option<String>,
    },
}

/// `[[channel]]`: what Pipedrive sees.
#[derive(Clone, Debug)]
pub struct Channel {
    /// `id`. Unique within the configuration, URL-safe.
    pub id: ChannelId,
    /// `name`, shown in Pipedrive.
    pub name: String,
    /// `kind`
    pub kind: ChannelKind,
    /// `device` of an MQTT channel.
    pub device: Option<String>,
    /// `modem` of an SMS channel.
    pub modem: Option<String>,
    /// `avatar_url`
    pub avatar_url: Option<String>,
    /// `provider_type`
    pub provider_type: ProviderType,
    /// `template_support`: whether Pipedrive offers templates. By default, whether there are some for the channel.
    pub template_support: bool,
    /// `on_unknown`
    pub on_unknown: OnUnknown,
    /// `own_address`: the channel's own number or name, if it has one.
    pub own_address: Option<Address>,
}

/// `channel.on_unknown`: what happens to an outgoing message of which nobody knows whether it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnknown {
    /// It is shown as failed; a person decides.
    #[default]
    Fail,
    /// It is sent again; the customer may get it twice.
    Resend,
}
