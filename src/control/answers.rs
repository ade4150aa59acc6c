//! What the control socket answers: the shapes that the daemon writes and the commands read.

use serde::{Deserialize, Serialize};

use super::connecting::InstallationStatus;
use crate::driver::sms::ModemStatus;
use crate::queue::to_hardware::LaneStatus;

/// Why the daemon refused a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// HTTP status.
    pub status: u16,
    /// What failed, on what, why.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// The request makes no sense.
    #[must_use]
    pub fn invalid(message: &str) -> Self {
        Self {
            status: 400,
            message: message.to_owned(),
            hint: None,
        }
    }

    /// The thing does not exist.
    #[must_use]
    pub fn not_found(message: &str) -> Self {
        Self {
            status: 404,
            message: message.to_owned(),
            hint: None,
        }
    }

    /// The other side (Pipedrive) refused, or the state does not allow it.
    #[must_use]
    pub fn conflict(message: &str) -> Self {
        Self {
            status: 409,
            message: message.to_owned(),
            hint: None,
        }
    }

    /// The gateway itself failed.
    #[must_use]
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        Self {
            status: 500,
            message: error.to_string(),
            hint: None,
        }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn with_hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }
}

/// `GET /status`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Id of this gateway.
    pub gateway_id: String,
    /// Whether a daemon answered; `false` when the command read the store itself.
    pub running: bool,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Whether the clock is synchronised, in words.
    pub clock: String,
    /// The manifest listener.
    pub listener: Option<ListenerStatus>,
    /// The way to Pipedrive.
    pub uplink: Option<UplinkSummary>,
    /// Who has connected.
    #[serde(default)]
    pub installations: Vec<InstallationStatus>,
    /// The store.
    pub store: StoreStatus,
    /// Brokers and modems.
    pub links: Vec<LinkStatus>,
    /// Channels.
    pub channels: Vec<ChannelStatus>,
}

/// The manifest listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Where it listens.
    pub address: String,
    /// Which certificate it shows.
    pub certificate: String,
    /// Whether client id and secret are configured; without them every call is refused.
    pub credentials: bool,
    /// Requests answered since the start.
    pub requests: u64,
    /// Requests refused for their credentials since the start.
    pub unauthorized: u64,
    /// When Pipedrive last called with the right credentials, ISO 8601.
    pub last_call: Option<String>,
}

/// The way to Pipedrive.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UplinkSummary {
    /// One word for machines: `running`, `held`, `budget_empty`, `not_connected`, `not_authorized`,
    /// `reconnect_needed`, `channels_api_gone`.
    pub state: String,
    /// The state in words, with the remedy.
    pub words: String,
    /// Accepted by Pipedrive since the start.
    pub accepted: u64,
    /// Refused by Pipedrive for good since the start.
    pub failed: u64,
    /// Conversations that wait after a failed attempt.
    pub waiting: Vec<Waiting>,
    /// The API tokens of the day, by installation.
    #[serde(default)]
    pub budgets: Vec<BudgetSummary>,
}

/// The API tokens of a company's day.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BudgetSummary {
    /// Which installation; `static` is that of a configured access token.
    pub installation: String,
    /// Whether its messages flow, one word.
    pub state: String,
    /// Spent by this gateway today.
    pub spent: u64,
    /// What the day has, if that is known.
    pub limit: Option<u64>,
    /// What is left of it, if that is known.
    pub left: Option<u64>,
    /// When it ends at the rate of the last quarter of an hour, if that is today; ISO 8601.
    pub ends_at: Option<String>,
    /// The same in seconds since 1970.
    pub ends_at_s: Option<i64>,
    /// A line for a person.
    pub words: String,
}

/// A conversation whose next message waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Waiting {
    /// The conversation.
    pub conversation: String,
    /// Attempts so far.
    pub attempts: u32,
    /// Seconds until the next attempt.
    pub next_attempt_s: u64,
    /// Why the last attempt failed.
    pub reason: String,
}

/// The store.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Messages kept.
    pub messages: u64,
    /// Conversations kept.
    pub conversations: u64,
    /// Bytes of texts and files kept.
    pub logical_bytes: u64,
    /// New messages on their way to Pipedrive.
    pub queued_messages: u64,
    /// Status updates on their way to Pipedrive.
    pub queued_statuses: u64,
    /// Answers on their way to the hardware.
    pub queued_outgoing: u64,
    /// Packets that no mapping could read.
    pub unmapped: u64,
    /// Messages whose last update Pipedrive refused; at most 256 are remembered.
    #[serde(default)]
    pub refused_updates: u64,
    /// The newest of them.
    #[serde(default)]
    pub last_refused: Option<RefusedUpdate>,
    /// An alarm in words: no space left.
    pub alarm: Option<String>,
    /// The folder of a damaged database that was replaced; messages may be missing. Until somebody removes it.
    #[serde(default)]
    pub damaged: Option<String>,
    /// What that has cost at most, in words.
    #[serde(default)]
    pub lost: Option<String>,
    /// Answers that were held back then, because they may have left before.
    #[serde(default)]
    pub held: u64,
}

/// A message whose state at Pipedrive is older than here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RefusedUpdate {
    /// The message.
    pub message: String,
    /// Its conversation.
    pub conversation: String,
    /// What Pipedrive said.
    pub reason: String,
}

/// A broker or a modem.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkStatus {
    /// `broker site`
    pub name: String,
    /// Whether it is connected.
    pub up: bool,
    /// Connected, and a part of it does not work until somebody mends it.
    #[serde(default)]
    pub faulty: bool,
    /// Connected, and nothing goes out for a while.
    #[serde(default)]
    pub paused: bool,
    /// Since when it is so, ISO 8601.
    pub since: Option<String>,
    /// Why it is not connected, faulty or paused, and what to do; of a connection that works, what it can lose.
    pub reason: Option<String>,
    /// What is known of a modem; `None` for a broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modem: Option<ModemStatus>,
}

/// A channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChannelStatus {
    /// Id in the configuration.
    pub id: String,
    /// Name shown in Pipedrive.
    pub name: String,
    /// `provider_channel_id`
    pub provider_channel_id: String,
    /// `not registered`, `registered`, `unlinked`.
    pub state: String,
    /// Since when, ISO 8601.
    pub since: Option<String>,
    /// Why it is unlinked or held, and what to do.
    pub reason: Option<String>,
    /// The way to its hardware.
    pub lane: LaneStatus,
}

/// One row of `GET /conversations`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConversationRow {
    /// Its id.
    pub id: String,
    /// Its channel.
    pub channel: String,
    /// The other side's address.
    pub address: String,
    /// What the other side is called.
    #[serde(default)]
    pub name: String,
    /// Time of the last message, ISO 8601.
    pub last: Option<String>,
    /// Whether an agent has seen it.
    pub seen: bool,
    /// Whether no answer is taken until the customer writes again.
    #[serde(default)]
    pub closed: bool,
}

/// `GET /conversations/{id}`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Conversation {
    /// The row.
    #[serde(flatten)]
    pub row: ConversationRow,
    /// Who takes part.
    pub participants: Vec<String>,
    /// Newest first.
    pub messages: Vec<MessageRow>,
}

/// An entry of the address book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactRow {
    /// A number in the form of E.164, or a device's address.
    pub address: String,
    /// The name to show.
    pub name: String,
}

/// `GET /contacts`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContactsPage {
    /// In the order of their addresses.
    pub contacts: Vec<ContactRow>,
    /// How many there are in all.
    pub total: u64,
    /// `after` of the next page; `None` at the end.
    pub next: Option<String>,
}

/// `POST /contacts`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SaveContacts {
    /// No two with the same address.
    pub contacts: Vec<ContactRow>,
    /// Say what would become of them, and change nothing.
    pub dry_run: bool,
    /// With `dry_run`: how many entries earlier requests would have added.
    pub added: u64,
}

/// `POST /contacts`: one outcome for each, in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedContacts {
    /// What became of them.
    pub outcomes: Vec<SavedContact>,
}

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SavedContact {
    /// It is new.
    Added,
    /// The name was this one.
    Changed(String),
    /// It was there.
    Same,
    /// It is not in the book, for this reason.
    Refused(String),
}

/// A message in words.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessageRow {
    /// Its id.
    pub id: String,
    /// Its conversation.
    pub conversation: String,
    /// `incoming` or `outgoing`.
    pub direction: String,
    /// Time shown to people, ISO 8601.
    pub created_at: String,
    /// The text.
    pub text: String,
    /// Names of files.
    pub files: Vec<String>,
    /// How far it has come, in words.
    pub state: String,
}

/// `GET /queue`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueView {
    /// On their way to Pipedrive, oldest first.
    pub to_uplink: Vec<MessageRow>,
    /// On their way to the hardware, oldest first.
    pub to_hardware: Vec<MessageRow>,
}

/// One row of `GET /unmapped`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnmappedRow {
    /// The configured device.
    pub device: String,
    /// MQTT topic.
    pub source: String,
    /// Payload, as text as far as it is text.
    pub payload: String,
    /// Why it could not be read.
    pub reason: String,
    /// ISO 8601.
    pub received_at: String,
}

/// `POST /modems/{name}/ussd`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UssdRequest {
    /// Such as `*100#`.
    pub code: String,
}

/// `POST /send`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SendRequest {
    /// Id of the channel in the configuration.
    pub channel: String,
    /// Whom it goes to.
    pub to: String,
    /// The text.
    pub text: String,
}

/// `POST /send`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    /// Id of the queued message.
    pub message: String,
    /// Its conversation.
    pub conversation: String,
}

/// A change that was made, in words.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// What was done.
    pub message: String,
}
