//! Bodies of successful answers.

use std::borrow::Cow;

use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

use super::cursor::Cursor;
use crate::domain::{
    AttachmentId, ChannelId, ConversationId, ConversationStatus, Message, MessageId, Participant,
    ParticipantId, ProviderChannelId, Role, Sequence, WireStatus,
};
use crate::protocol::pipedrive::wire::{Attachment, shown_message};

/// The company's side of every conversation of a channel: the channel itself.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The id under which Pipedrive knows the channel.
    pub id: &'a ProviderChannelId,
    /// Its name.
    pub name: &'a str,
    /// Its picture.
    pub avatar_url: Option<&'a str>,
}

/// One conversation with a page of its messages, as data for [`ConversationBody`].
#[derive(Clone, Copy, Debug)]
pub struct Conversation<'a> {
    /// The conversation.
    pub id: ConversationId,
    /// What the one is called whom an answer goes to: the customer's name when nobody has written yet.
    pub name: &'a str,
    /// His picture.
    pub avatar_url: Option<&'a str>,
    /// Whether somebody has read or answered the last message.
    pub seen: bool,
    /// Whether an answer is possible.
    pub status: ConversationStatus,
    /// The customers.
    pub participants: &'a [Participant],
    /// A page of messages, newest first.
    pub messages: &'a [Message],
    /// Where the page of older messages begins.
    pub next: Option<Sequence>,
}

/// A conversation as Pipedrive wants it. `link` is empty, as there is no other place to see it.
#[derive(Serialize)]
pub struct ConversationBody<'a> {
    id: ConversationId,
    link: &'static str,
    status: ConversationStatus,
    seen: bool,
    next_messages_cursor: String,
    messages: Vec<MessageBody<'a>>,
    participants: Participants<'a>,
}

impl<'a> ConversationBody<'a> {
    /// Shows a conversation. `link` makes links to files.
    pub fn new(view: Conversation<'a>, source: Source<'a>, link: &dyn Fn(AttachmentId) -> String) -> Self {
        let cursor = Cursor::Messages(view.id);
        Self {
            id: view.id,
            link: "",
            status: view.status,
            seen: view.seen,
            next_messages_cursor: view.next.map(|place| cursor.encode(place.0)).unwrap_or_default(),
            messages: view
                .messages
                .iter()
                .map(|message| MessageBody::new(message, link))
                .collect(),
            participants: Participants { source, view },
        }
    }
}

/// A message; also the whole body of getMessageById, which has no envelope.
#[derive(Serialize)]
pub struct MessageBody<'a> {
    id: MessageId,
    status: WireStatus,
    created_at: String,
    message: Cow<'a, str>,
    sender_id: &'a ParticipantId,
    attachments: Vec<Attachment<'a>>,
}

impl<'a> MessageBody<'a> {
    /// Shows a message. `link` makes links to files.
    pub fn new(message: &'a Message, link: &dyn Fn(AttachmentId) -> String) -> Self {
        let attachments = message
            .attachments
            .iter()
            .map(|file| Attachment::new(file, link(file.id)));
        Self {
            id: message.id,
            status: message.state.wire_status(),
            created_at: message.created_at.to_iso8601(),
            message: shown_message(message),
            sender_id: &message.sender,
            attachments: attachments.collect(),
        }
    }
}

/// Exactly one `source_user` and at least one `end_user`.
struct Participants<'a> {
    source: Source<'a>,
    view: Conversation<'a>,
}

#[derive(Serialize)]
struct ParticipantBody<'a> {
    id: &'a str,
    name: &'a str,
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<&'a str>,
}

impl Serialize for Participants<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let customers = self
            .view
            .participants
            .iter()
            .filter(|one| one.role == Role::EndUser);
        let mut list = serializer.serialize_seq(None)?;
        list.serialize_element(&ParticipantBody {
            id: self.source.id.as_str(),
            name: self.source.name,
            role: Role::SourceUser,
            avatar_url: self.source.avatar_url,
        })?;
        let mut nobody = true;
        for customer in customers {
            nobody = false;
            list.serialize_element(&ParticipantBody {
                id: &customer.id.to_string(),
                name: &customer.name,
                role: Role::EndUser,
                avatar_url: customer.avatar_url.as_deref(),
            })?;
        }
        if nobody {
            list.serialize_element(&ParticipantBody {
                id: &first_customer(self.view.id).to_string(),
                name: self.view.name,
                role: Role::EndUser,
                avatar_url: self.view.avatar_url,
            })?;
        }
        list.end()
    }
}

/// Stands for the customer of a conversation in which no customer has written yet: the id that the first one
/// who writes will have.
#[must_use]
pub const fn first_customer(conversation: ConversationId) -> ParticipantId {
    ParticipantId::EndUser {
        conversation,
        index: 0,
    }
}

#[derive(Serialize)]
struct Envelope<T> {
    success: bool,
    data: T,
}

#[derive(Serialize)]
struct Page<'a, T> {
    success: bool,
    data: T,
    additional_data: After<'a>,
}

#[derive(Serialize)]
struct After<'a> {
    after: &'a str,
}

fn json<T: Serialize>(body: &T) -> Vec<u8> {
    // A page of messages has several kB; growing there from nothing copies each byte about once more.
    let mut text = Vec::with_capacity(4096);
    // Only a map with keys that are no strings could fail, and there is none.
    if serde_json::to_writer(&mut text, body).is_err() {
        text.clear();
    }
    text
}

/// Body of getConversations. `next` is the activity of the last conversation when there are more.
#[must_use]
pub fn conversations_page(channel: &ChannelId, page: &[ConversationBody<'_>], next: Option<u64>) -> Vec<u8> {
    let after = next
        .map(|place| Cursor::Conversations(channel).encode(place))
        .unwrap_or_default();
    json(&Page {
        success: true,
        data: page,
        additional_data: After { after: &after },
    })
}

/// Body of getConversationById.
#[must_use]
pub fn conversation_page(conversation: &ConversationBody<'_>) -> Vec<u8> {
    let after = After {
        after: &conversation.next_messages_cursor,
    };
    json(&Page {
        success: true,
        data: conversation,
        additional_data: after,
    })
}

/// Body of getMessageById: the message without an envelope.
#[must_use]
pub fn message(message: &MessageBody<'_>) -> Vec<u8> {
    json(message)
}

/// Body of getSenderById. `avatar_url` is absent when there is no picture.
#[must_use]
pub fn sender(id: &ParticipantId, name: &str, avatar_url: Option<&str>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Sender<'a> {
        id: &'a ParticipantId,
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        avatar_url: Option<&'a str>,
    }
    json(&Envelope {
        success: true,
        data: Sender { id, name, avatar_url },
    })
}

/// A text that agents can start from.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Template<'a> {
    /// Unique within the gateway.
    pub id: &'a str,
    /// Shown to the agent.
    pub name: &'a str,
    /// The text.
    pub content: &'a str,
    /// A language tag.
    pub language: &'a str,
}

/// Body of getTemplates.
#[must_use]
pub fn templates(templates: &[Template<'_>]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Templates<'a> {
        templates: &'a [Template<'a>],
    }
    json(&Envelope {
        success: true,
        data: Templates { templates },
    })
}

/// Body of postMessage.
#[must_use]
pub fn posted(id: MessageId) -> Vec<u8> {
    #[derive(Serialize)]
    struct Posted {
        id: MessageId,
    }
    json(&Envelope {
        success: true,
        data: Posted { id },
    })
}

/// Body of deleteChannelById.
#[must_use]
pub fn done() -> Vec<u8> {
    br#"{"success":true}"#.to_vec()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{DeliveryState, IncomingState, Timestamp};

    const ID: ConversationId = ConversationId(7);

    fn a_message() -> Message {
        Message {
            id: MessageId {
                conversation: ID,
                sequence: Sequence(3),
            },
            sender: first_customer(ID),
            text: String::new(),
            created_at: Timestamp::from_unix_ms(1_769_744_285_007),
            stored_at: Timestamp::from_unix_ms(1_769_744_285_100),
            attachments: vec![crate::domain::Attachment {
                id: AttachmentId(1),
                name: "roof.jpg".to_owned(),
                mime: "image/jpeg".to_owned(),
                size: 9,
            }],
            state: DeliveryState::Incoming(IncomingState::Queued),
        }
    }

    fn shown(next: Option<Sequence>, participants: &[Participant]) -> Value {
        let channel: ProviderChannelId = "gw-1-desk".parse().unwrap();
        let messages = [a_message()];
        let view = Conversation {
            id: ID,
            name: "+15550001",
            avatar_url: None,
            seen: false,
            status: ConversationStatus::Open,
            participants,
            messages: &messages,
            next,
        };
        let source = Source {
            id: &channel,
            name: "Front desk",
            avatar_url: None,
        };
        let body = ConversationBody::new(view, source, &|id| format!("https://gw.example/{id}"));
        serde_json::from_slice(&conversation_page(&body)).unwrap()
    }

    #[test]
    fn a_conversation_has_exactly_the_documented_keys() {
        let message = a_message();
        assert_eq!(
            shown(Some(Sequence(3)), &[]),
            json!({
                "success": true,
                "data": {
                    "id": ID.to_string(), "link": "", "status": "open", "seen": false,
                    "next_messages_cursor": Cursor::Messages(ID).encode(3),
                    "messages": [{
                        "id": message.id.to_string(), "status": "sent", "created_at": "2026-01-30T03:38:05.007Z",
                        "message": "roof.jpg", "sender_id": first_customer(ID).to_string(),
                        "attachments": [{
                            "id": AttachmentId(1).to_string(), "type": "image/jpeg", "name": "roof.jpg", "size": 9,
                            "url": format!("https://gw.example/{}", AttachmentId(1)),
                            "preview_url": format!("https://gw.example/{}", AttachmentId(1)),
                            "link_expires": true,
                        }],
                    }],
                    "participants": [
                        {"id": "gw-1-desk", "name": "Front desk", "role": "source_user"},
                        {"id": first_customer(ID).to_string(), "name": "+15550001", "role": "end_user"},
                    ],
                },
                "additional_data": {"after": Cursor::Messages(ID).encode(3)},
            })
        );
    }

    #[test]
    fn the_end_of_the_history_is_an_empty_cursor_and_never_null() {
        let page = shown(None, &[]);
        assert_eq!(page["data"]["next_messages_cursor"], "");
        assert_eq!(page["additional_data"]["after"], "");
    }

    #[test]
    fn there_is_one_source_user_and_every_customer() {
        let customer = |index| Participant {
            id: ParticipantId::EndUser {
                conversation: ID,
                index,
            },
            name: format!("customer {index}"),
            role: Role::EndUser,
            address: None,
            avatar_url: Some("https://example.com/a.png".to_owned()),
        };
        let page = shown(None, &[customer(0), customer(1)]);
        let roles: Vec<_> = page["data"]["participants"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["role"].as_str().unwrap())
            .collect();
        assert_eq!(roles, ["source_user", "end_user", "end_user"]);
        assert_eq!(
            page["data"]["participants"][1]["avatar_url"],
            "https://example.com/a.png"
        );
    }

    #[test]
    fn the_small_bodies_have_their_shapes() {
        let of = |body: Vec<u8>| serde_json::from_slice::<Value>(&body).unwrap();
        let desk: ChannelId = "desk".parse().unwrap();
        assert_eq!(of(done()), json!({"success": true}));
        assert_eq!(
            of(templates(&[])),
            json!({"success": true, "data": {"templates": []}})
        );
        let one = Template {
            id: "thanks",
            name: "Thanks",
            content: "Thank you.",
            language: "en",
        };
        assert_eq!(
            of(templates(&[one])),
            json!({"success": true, "data": {"templates": [
                {"id": "thanks", "name": "Thanks", "content": "Thank you.", "language": "en"}
            ]}})
        );
        assert_eq!(
            of(posted(a_message().id)),
            json!({"success": true, "data": {"id": a_message().id.to_string()}})
        );
        assert_eq!(
            of(sender(&first_customer(ID), "Ann", None)),
            json!({"success": true, "data": {"id": first_customer(ID).to_string(), "name": "Ann"}})
        );
        assert_eq!(
            of(conversations_page(&desk, &[], None)),
            json!({"success": true, "data": [], "additional_data": {"after": ""}})
        );
    }
}
