//! How far a message has come.

use serde::{Deserialize, Serialize};

/// The status that Pipedrive knows for a message (Channels API, `status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WireStatus {
    /// On its way, or arrived from a customer.
    Sent,
    /// The device of the other side has it.
    Delivered,
    /// The other side has read it.
    Read,
    /// It did not arrive, or nobody can know.
    Failed,
}

impl WireStatus {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Failed => "failed",
        }
    }
}

/// State of a message from a customer on its way to Pipedrive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IncomingState {
    /// In the queue to the uplink.
    Queued,
    /// Pipedrive accepted it.
    Accepted,
    /// Pipedrive refused it for good; the reason is for a person.
    Failed(String),
}

/// State of an agent's message on its way to the hardware.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutgoingState {
    /// In the queue to the hardware.
    Queued,
    /// An attempt was recorded; its outcome is not known yet.
    Attempted,
    /// The hardware has it.
    Sent,
    /// The device reported delivery.
    Delivered,
    /// The device reported that it was read.
    Read,
    /// Refused for good; the reason is for a person.
    Rejected(String),
    /// It may or may not have been sent; the reason is for a person.
    Unknown(String),
}

impl OutgoingState {
    /// Whether a further report of the device could still change the state for the better.
    #[must_use]
    pub const fn accepts(&self, report: &DeviceStatus) -> bool {
        match report {
            DeviceStatus::Sent => matches!(self, Self::Attempted | Self::Unknown(_)),
            DeviceStatus::Delivered => {
                matches!(
                    self,
                    Self::Attempted | Self::Sent | Self::Unknown(_) | Self::Rejected(_)
                )
            }
            DeviceStatus::Read => !matches!(self, Self::Queued | Self::Read),
            DeviceStatus::Failed(_) => matches!(self, Self::Attempted | Self::Sent | Self::Unknown(_)),
        }
    }

    /// Whether nothing more can happen to the message.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Read | Self::Rejected(_))
    }
}

/// State of a message, by its direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryState {
    /// Customer → Pipedrive.
    Incoming(IncomingState),
    /// Agent → customer.
    Outgoing(OutgoingState),
}

impl DeliveryState {
    /// What Pipedrive is told. Incoming messages are `sent`; outgoing ones stay `sent` until the device knows
    /// better; `Rejected` and `Unknown` are `failed`.
    #[must_use]
    pub const fn wire_status(&self) -> WireStatus {
        match self {
            Self::Outgoing(OutgoingState::Delivered) => WireStatus::Delivered,
            Self::Outgoing(OutgoingState::Read) => WireStatus::Read,
            Self::Outgoing(OutgoingState::Rejected(_) | OutgoingState::Unknown(_)) => WireStatus::Failed,
            Self::Incoming(_) | Self::Outgoing(_) => WireStatus::Sent,
        }
    }
}

/// Outcome of handing one outgoing message to the hardware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The hardware has it (MQTT PUBACK, +CMGS).
    Sent,
    /// It cannot be sent; the reason is for a person.
    Rejected(String),
    /// It went out and no answer came: it may have been sent. The reason is for a person.
    Unknown(String),
    /// Nothing left the gateway (no connection): try again. The reason is for a person.
    NotStarted(String),
}

/// What a device reports about an outgoing message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceStatus {
    /// The device passed it on.
    Sent,
    /// It arrived.
    Delivered,
    /// It was read.
    Read,
    /// It did not arrive; the reason is for a person.
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_sent_report_does_not_undo_delivered() {
        assert!(!OutgoingState::Delivered.accepts(&DeviceStatus::Sent));
        assert!(!OutgoingState::Delivered.accepts(&DeviceStatus::Failed("late".to_owned())));
        assert!(!OutgoingState::Read.accepts(&DeviceStatus::Delivered));
        assert!(OutgoingState::Sent.accepts(&DeviceStatus::Delivered));
    }

    #[test]
    fn unknown_is_reported_as_failed_until_the_device_knows_better() {
        let unknown = OutgoingState::Unknown("no answer".to_owned());
        assert!(unknown.accepts(&DeviceStatus::Delivered));
        assert_eq!(DeliveryState::Outgoing(unknown).wire_status(), WireStatus::Failed);
    }
}
