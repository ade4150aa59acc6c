//! What a channel is.

use serde::{Deserialize, Serialize};

/// Which hardware carries a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelKind {
    /// A device behind an MQTT broker.
    Mqtt,
    /// An SMS modem.
    Sms,
}

/// `provider_type` of `POST /channels`: which logo Pipedrive shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderType {
    /// Facebook Messenger.
    Facebook,
    /// `WhatsApp`.
    Whatsapp,
    /// Anything else; Pipedrive's default.
    #[default]
    Other,
}
