//! What travels between the store and the hardware besides received messages.

use super::{Address, ChannelId, DeviceStatus, MessageId, Route, Timestamp};

/// What could not be read.
#[derive(Clone)]
pub struct Unmapped {
    /// Configured device.
    pub device: String,
    /// Where it came from: the MQTT topic.
    pub source: String,
    /// The bytes, cut to [`Unmapped::MAX_PAYLOAD`].
    pub payload: Vec<u8>,
    /// Why it could not be read, for a person.
    pub reason: String,
    /// When it came.
    pub received_at: Timestamp,
}

impl Unmapped {
    /// How much of a payload is kept, in bytes.
    pub const MAX_PAYLOAD: usize = 4096;
}

/// What a device says about an outgoing message.
#[derive(Clone)]
pub struct StatusReport {
    /// The channel that the message went out on.
    pub channel: ChannelId,
    /// Which message is meant.
    pub of: StatusTarget,
    /// What happened to it.
    pub status: DeviceStatus,
}

/// How a device names the message that it reports about.
#[derive(Clone)]
pub enum StatusTarget {
    /// By the id that the gateway sent along.
    Id(MessageId),
    /// By recipient only: the oldest message to it within the time window that can still change.
    Recipient {
        /// Whom the message went to.
        address: Address,
        /// Its text, where the device repeats it.
        text: Option<String>,
        /// Messages handed over before this time are not meant.
        not_before: Timestamp,
    },
}

/// An outgoing message for a driver. The attempt is already recorded in the store.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The message.
    pub id: MessageId,
    /// The channel that it goes out on.
    pub channel: ChannelId,
    /// Whom it goes to.
    pub to: Address,
    /// The text, links to files included.
    pub text: String,
    /// Captures of the topic that the customer's last message came on.
    pub route: Route,
}
