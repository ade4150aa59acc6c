//! Conversations and those who take part in them.

use serde::{Deserialize, Serialize};

use super::{Address, ParticipantId};

/// `status` of a conversation in the manifest's answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConversationStatus {
    /// An agent can answer.
    #[default]
    Open,
    /// No answer is possible.
    Closed,
}

/// Which side a participant is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A customer.
    EndUser,
    /// The company's side: the channel itself. Each conversation has exactly one.
    SourceUser,
}

/// Someone who takes part in a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    /// Unique within one gateway.
    pub id: ParticipantId,
    /// Shown in the inbox: the name in the address book, else the one that the device gave, else the address.
    pub name: String,
    /// Customer or company.
    pub role: Role,
    /// The hardware's name for the participant; `None` for the company's side.
    pub address: Option<Address>,
    /// A picture, if one is known.
    pub avatar_url: Option<String>,
}
