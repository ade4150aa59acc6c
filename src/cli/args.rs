//! The command line.

#[cfg(feature = "demo")]
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::contacts::ContactsCommand;

/// Gateway that puts SMS and MQTT messages into Pipedrive's Messaging inbox, and the answers back on the air.
#[derive(Debug, Parser)]
#[command(
    name = "pipepost",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    /// Configuration file [default: /etc/pipepost/pipepost.toml]; drop-ins are read from conf.d/ beside it
    #[arg(long, short, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON instead of text, where a command prints data
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway (systemd does this)
    Run,
    /// Check the configuration and say in words what is wrong with it; exit code 78 means errors
    Check {
        /// Print the configuration that comes of all files and variables, with defaults and without secrets
        #[arg(long)]
        effective: bool,
    },
    /// Show how the gateway is doing: connections, queues, channels
    Status,
    /// Print the running gateway's figures in the Prometheus text format
    Metrics,
    /// Print the manifest JSON to upload to the app in Pipedrive's Developer Hub
    Manifest {
        /// Where Pipedrive reaches this gateway, https://… [default: `pipedrive.public_url`]
        #[arg(long, value_name = "URL")]
        public_url: Option<String>,
    },
    /// Connect to Pipedrive: prints the address where an admin allows the gateway, and waits until that is done
    Connect {
        /// Only these channels, by their ids; may be given again [default: all that belong to nobody]
        #[arg(long = "channel", value_name = "ID")]
        channels: Vec<String>,
        /// How long to wait
        #[arg(long, default_value_t = 15, value_name = "N")]
        minutes: u64,
    },
    /// Leave Pipedrive: ends a connection there and here; what waits is kept
    Disconnect {
        /// Which one, as `pipepost status` shows it [default: the only one]
        #[arg(long, value_name = "ID")]
        installation: Option<String>,
        /// Only forget it here, when Pipedrive cannot be told
        #[arg(long)]
        local: bool,
    },
    /// List channels, register them with Pipedrive or delete them there
    Channels {
        /// What to do
        #[command(subcommand)]
        command: ChannelsCommand,
    },
    /// List, show, close, open or delete stored conversations
    Conversations {
        /// What to do
        #[command(subcommand)]
        command: ConversationsCommand,
    },
    /// Names for numbers: import an address book, list, export or remove
    Contacts {
        /// What to do
        #[command(subcommand)]
        command: ContactsCommand,
    },
    /// Send a message to a number or device; the conversation appears in Pipedrive
    Send {
        /// Id of the channel that it goes out on, as `pipepost channels list` shows it
        #[arg(long, value_name = "CHANNEL")]
        channel: String,
        /// Whom it goes to: a phone number in international form, or the device's own address
        #[arg(long, value_name = "ADDRESS")]
        to: String,
        /// The text, in quotes
        text: String,
    },
    /// Show what waits, on its way to Pipedrive and to the hardware
    Queue {
        /// How many at most
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show packets of devices that no mapping could read
    Unmapped {
        /// How many at most
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Show SMS modems, or ask their network by a code
    Modem {
        /// What to do
        #[command(subcommand)]
        command: ModemCommand,
    },
    /// Try the mapping of an MQTT device
    Mqtt {
        /// What to do
        #[command(subcommand)]
        command: MqttCommand,
    },
    /// Try the whole gateway with simulated devices and a Pipedrive sandbox
    #[cfg(feature = "demo")]
    Demo {
        /// Only print the address of the inbox page
        #[arg(long)]
        no_browser: bool,
        /// Wait until somebody has allowed the gateway on the page, instead of doing it after two seconds
        #[arg(long)]
        manual: bool,
    },
    /// Run one of the simulators alone
    #[cfg(feature = "demo")]
    Sim {
        /// Which one
        #[command(subcommand)]
        command: SimCommand,
    },
}

/// `pipepost channels …`
#[derive(Debug, Subcommand)]
pub enum ChannelsCommand {
    /// List the configured channels and their state
    List,
    /// Register a channel with Pipedrive (an admin's token is needed)
    Register {
        /// Id of the channel in the configuration
        id: String,
    },
    /// Delete a channel at Pipedrive; its messages are kept here
    Delete {
        /// Id of the channel in the configuration
        id: String,
    },
}

/// `pipepost modem …`
#[derive(Debug, Subcommand)]
pub enum ModemCommand {
    /// List the modems with SIM, network, signal and memory
    List,
    /// Send a USSD code, such as *100# for the balance, and print the network's answer
    Ussd {
        /// Name of the modem in the configuration
        name: String,
        /// The code, in quotes
        code: String,
    },
}

/// `pipepost conversations …`
#[derive(Debug, Subcommand)]
pub enum ConversationsCommand {
    /// List conversations, newest first
    List {
        /// Only of this channel, by its id
        #[arg(long)]
        channel: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show one conversation
    Show {
        /// Its id, as `pipepost conversations list` shows it
        id: String,
        /// How many messages at most
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Close a conversation: no answer is taken until the customer writes again
    Close {
        /// Its id, as `pipepost conversations list` shows it
        id: String,
    },
    /// Open a closed conversation
    Open {
        /// Its id, as `pipepost conversations list` shows it
        id: String,
    },
    /// Mark a conversation as seen
    Seen {
        /// Its id, as `pipepost conversations list` shows it
        id: String,
    },
    /// Delete a conversation, at Pipedrive and here
    Delete {
        /// Its id, as `pipepost conversations list` shows it
        id: String,
    },
}

/// `pipepost mqtt …`
#[derive(Debug, Subcommand)]
pub enum MqttCommand {
    /// Show what a device's mapping makes of a payload
    Test {
        /// Name of the device in the configuration
        #[arg(long)]
        device: String,
        /// What to read
        #[command(flatten)]
        captured: Captured,
    },
    /// Show live what arrives on a broker and which mapping takes it, or why none does; the gateway loses nothing by it
    Listen {
        /// Name of the broker in the configuration [default: the only one]
        #[arg(long, value_name = "NAME")]
        broker: Option<String>,
        /// Topics to listen to, e.g. `sms/#`; may be given again [default: all]
        #[arg(long = "filter", value_name = "FILTER")]
        filters: Vec<String>,
        /// End after so many packets [default: Ctrl-C ends]
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// Propose a mapping, as TOML, from a captured payload
    Suggest {
        /// What was captured
        #[command(flatten)]
        captured: Captured,
    },
}

/// A packet on the command line.
#[derive(Debug, Args)]
pub struct Captured {
    /// Topic that the device publishes on, without wildcards
    #[arg(long)]
    pub topic: String,
    /// The payload, as text
    #[arg(
        long,
        conflicts_with = "payload_file",
        required_unless_present = "payload_file"
    )]
    pub payload: Option<String>,
    /// The payload, from a file
    #[arg(long, value_name = "FILE")]
    pub payload_file: Option<PathBuf>,
}

/// `pipepost sim …`
#[cfg(feature = "demo")]
#[derive(Debug, Subcommand)]
pub enum SimCommand {
    /// A strict stand-in for Pipedrive: Channels API, manifest calls, inbox page
    Pipedrive(SimPipedrive),
    /// A GSM modem with its card and network, on a pseudo-terminal; standard input moves the network
    Modem(SimModem),
}

/// `pipepost sim modem`
#[cfg(feature = "demo")]
#[derive(Debug, Args)]
pub struct SimModem {
    /// Make: generic, sim800, sim7600, ec25 or huawei
    #[arg(long, default_value = "generic")]
    pub profile: String,
    /// Make a link to the pseudo-terminal under this name
    #[arg(long, value_name = "FILE")]
    pub link: Option<PathBuf>,
    /// Listen on a socket in the abstract name space instead (ModemManager connects to such ones)
    #[arg(long, value_name = "NAME", conflicts_with = "link")]
    pub listen_abstract: Option<String>,
    /// The card asks for this PIN
    #[arg(long)]
    pub pin: Option<String>,
    /// There is no card
    #[arg(long, conflicts_with = "pin")]
    pub no_sim: bool,
    /// Places for messages on the card
    #[arg(long, default_value_t = 20)]
    pub places: usize,
    /// From a message to the network's answer, in milliseconds
    #[arg(long, default_value_t = 300, value_name = "MS")]
    pub send_time: u64,
    /// From there to the delivery report, in milliseconds
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    pub report_after: u64,
    /// Between two messages that the network hands over, in milliseconds
    #[arg(long, default_value_t = 200, value_name = "MS")]
    pub text_interval: u64,
    /// Begin with a boot and its lines instead of a modem that is ready
    #[arg(long)]
    pub boot: bool,
    /// A command as on standard input, done at once; may be repeated. `--do help` lists them
    #[arg(long = "do", value_name = "COMMAND")]
    pub commands: Vec<String>,
}

/// `pipepost sim pipedrive`
#[cfg(feature = "demo")]
#[derive(Debug, Args)]
pub struct SimPipedrive {
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub bind: SocketAddr,
    /// Serve the Channels API and the page over plain HTTP instead of HTTPS
    #[arg(long)]
    pub plain_http: bool,
    /// Write the certificate to trust (PEM) to this file
    #[arg(long, value_name = "FILE")]
    pub ca_out: Option<PathBuf>,
    /// Access token that the gateway must send
    #[arg(long, default_value = "sandbox-token")]
    pub token: String,
    /// Client id that is sent to the gateway
    #[arg(long, default_value = "sandbox-client")]
    pub client_id: String,
    /// Client secret that is sent to the gateway
    #[arg(long, default_value = "sandbox-secret")]
    pub client_secret: String,
    /// Public URL of the gateway under test, https://…
    #[arg(long, value_name = "URL")]
    pub gateway_url: Option<String>,
    /// Certificates to trust for it (PEM)
    #[arg(long, value_name = "FILE")]
    pub gateway_ca: Option<PathBuf>,
    /// Enforce the limits of a plan: lite, growth, premium or ultimate [default: no limits]
    #[arg(long)]
    pub plan: Option<String>,
    /// Seats of that plan
    #[arg(long, default_value_t = 1)]
    pub seats: u32,
    /// Let users install the app with OAuth 2.0 instead of one access token; `--gateway-url` tells the callback URL
    #[arg(long)]
    pub oauth: bool,
    /// A rule of the OAuth server, as name=value, e.g. `access_seconds=60` or `rotate=false`; GET /sandbox/oauth shows
    /// them, POST changes them later
    #[arg(long = "oauth-rule", value_name = "NAME=VALUE", requires = "oauth")]
    pub oauth_rules: Vec<String>,
    /// A user who is no admin, by id (11 and 21 are admins, 12 is none)
    #[arg(long, value_name = "USER", requires = "oauth")]
    pub no_admin: Vec<i64>,
    /// Put the server's clock forward by this many seconds: it decides on midnight and on the end of tokens
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub clock_ahead: u64,
    /// Seconds of the server's clock in one real second
    #[arg(long, default_value_t = 1, value_name = "FACTOR")]
    pub clock_speed: u32,
    /// Faults from the start, as name=value, e.g. `latency_ms=200`; the page and PUT /sandbox/faults change them later
    #[arg(long = "fault", value_name = "NAME=VALUE")]
    pub faults: Vec<String>,
}
