//! What the gateway's manifest endpoints served, read out of checked JSON.

use serde_json::Value;

use super::state::{Arriving, Origin, Participant};

/// A conversation as the gateway served it.
pub(super) struct Served {
    pub(super) id: String,
    pub(super) status: String,
    pub(super) cursor: String,
    pub(super) messages: Vec<Arriving>,
    pub(super) participants: Vec<Participant>,
}

impl Served {
    /// Reads what is readable; what is not was reported by the contract check.
    pub(super) fn read(conversation: &Value) -> Self {
        let list = |name: &str| {
            conversation
                .get(name)
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default()
        };
        Self {
            id: text(conversation, "id"),
            status: text(conversation, "status"),
            cursor: text(conversation, "next_messages_cursor"),
            messages: list("messages")
                .iter()
                .map(|m| message(m, Origin::History))
                .collect(),
            participants: list("participants")
                .iter()
                .map(|p| Participant {
                    id: text(p, "id"),
                    name: text(p, "name"),
                    role: text(p, "role"),
                })
                .collect(),
        }
    }
}

/// Reads a message of either direction of call: the field names are the same.
pub(super) fn message(value: &Value, origin: Origin) -> Arriving {
    Arriving {
        id: text(value, "id"),
        sender_id: text(value, "sender_id"),
        text: text(value, "message"),
        status: text(value, "status"),
        created_at: text(value, "created_at"),
        attachments: value
            .get("attachments")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default(),
        origin,
    }
}

/// A string field, `""` when it is not there.
pub(super) fn text(value: &Value, name: &str) -> String {
    value
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
