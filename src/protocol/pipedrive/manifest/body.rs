//! Bodies of successful answers.

use serde::Serialize;

use super::cursor::Cursor;
use super::json::Json;
use crate::domain::{
    AttachmentId, ChannelId, ConversationId, ConversationStatus, Message, MessageId, Participant,
    ParticipantId, ProviderChannelId, Role, Sequence,
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
pub struct ConversationBody<'a> {
    view: Conversation<'a>,
    source: Source<'a>,
    link: &'a dyn Fn(AttachmentId) -> String,
    next: String,
}

impl<'a> ConversationBody<'a> {
    /// Shows a conversation. `link` makes links to files.
    pub fn new(view: Conversation<'a>, source: Source<'a>, link: &'a dyn Fn(AttachmentId) -> String) -> Self {
        let cursor = Cursor::Messages(view.id);
        Self {
            view,
            source,
            link,
            next: view.next.map(|place| cursor.encode(place.0)).unwrap_or_default(),
        }
    }

    /// Bytes that it will have, when nothing is unusual.
    fn size(&self) -> usize {
        let texts: usize = self.view.messages.iter().map(|message| message.text.len()).sum();
        512 + texts + 224 * self.view.messages.len() + 160 * self.view.participants.len()
    }

    fn write(&self, json: &mut Json) {
        json.raw("{\"id\":");
        self.view.id.with_text(|id| json.plain(id));
        json.raw(match self.view.status {
            ConversationStatus::Open => ",\"link\":\"\",\"status\":\"open\"",
            ConversationStatus::Closed => ",\"link\":\"\",\"status\":\"closed\"",
        });
        json.raw(if self.view.seen {
            ",\"seen\":true"
        } else {
            ",\"seen\":false"
        });
        json.raw(",\"next_messages_cursor\":");
        json.plain(&self.next);
        json.raw(",\"messages\":[");
        for (index, message) in self.view.messages.iter().enumerate() {
            json.raw(if index == 0 { "" } else { "," });
            MessageBody::new(message, self.link).write(json);
        }
        json.raw("],\"participants\":[");
        self.write_participants(json);
        json.raw("]}");
    }

    /// Exactly one `source_user` and at least one `end_user`.
    fn write_participants(&self, json: &mut Json) {
        let source = self.source;
        participant(
            json,
            source.id.as_str(),
            source.name,
            Role::SourceUser,
            source.avatar_url,
        );
        let mut nobody = true;
        for one in self.view.participants {
            if one.role == Role::EndUser {
                nobody = false;
                json.raw(",");
                let avatar = one.avatar_url.as_deref();
                one.id
                    .with_text(|id| participant(json, id, &one.name, Role::EndUser, avatar));
            }
        }
        if nobody {
            json.raw(",");
            let view = &self.view;
            first_customer(view.id)
                .with_text(|id| participant(json, id, view.name, Role::EndUser, view.avatar_url));
        }
    }
}

fn participant(json: &mut Json, id: &str, name: &str, role: Role, avatar_url: Option<&str>) {
    json.raw("{\"id\":");
    json.plain(id);
    json.raw(",\"name\":");
    json.string(name);
    json.raw(match role {
        Role::EndUser => ",\"role\":\"end_user\"",
        Role::SourceUser => ",\"role\":\"source_user\"",
    });
    if let Some(url) = avatar_url {
        json.raw(",\"avatar_url\":");
        json.string(url);
    }
    json.raw("}");
}

/// A message; also the whole body of getMessageById, which has no envelope.
pub struct MessageBody<'a> {
    message: &'a Message,
    link: &'a dyn Fn(AttachmentId) -> String,
}

impl<'a> MessageBody<'a> {
    /// Shows a message. `link` makes links to files.
    pub fn new(message: &'a Message, link: &'a dyn Fn(AttachmentId) -> String) -> Self {
        Self { message, link }
    }

    fn write(&self, json: &mut Json) {
        let message = self.message;
        json.raw("{\"id\":");
        message.id.with_text(|id| json.plain(id));
        json.raw(",\"status\":");
        json.plain(message.state.wire_status().as_str());
        json.raw(",\"created_at\":");
        message.created_at.with_iso8601(|time| json.plain(time));
        json.raw(",\"message\":");
        json.string(&shown_message(message));
        json.raw(",\"sender_id\":");
        message.sender.with_text(|id| json.plain(id));
        json.raw(",\"attachments\":[");
        for (index, file) in message.attachments.iter().enumerate() {
            json.raw(if index == 0 { "" } else { "," });
            json.value(&Attachment::new(file, (self.link)(file.id)));
        }
        json.raw("]}");
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

fn json<T: Serialize>(body: &T) -> Vec<u8> {
    let mut json = Json::with_capacity(4096);
    json.value(body);
    json.into_bytes()
}

/// Body of getConversations. `next` is the activity of the last conversation when there are more.
#[must_use]
pub fn conversations_page(channel: &ChannelId, page: &[ConversationBody<'_>], next: Option<u64>) -> Vec<u8> {
    let after = next
        .map(|place| Cursor::Conversations(channel).encode(place))
        .unwrap_or_default();
    let mut json = Json::with_capacity(128 + page.iter().map(ConversationBody::size).sum::<usize>());
    json.raw("{\"success\":true,\"data\":[");
    for (index, conversation) in page.iter().enumerate() {
        json.raw(if index == 0 { "" } else { "," });
        conversation.write(&mut json);
    }
    json.raw("]");
    page_end(json, &after)
}

/// Body of getConversationById.
#[must_use]
pub fn conversation_page(conversation: &ConversationBody<'_>) -> Vec<u8> {
    let mut json = Json::with_capacity(128 + conversation.size());
    json.raw("{\"success\":true,\"data\":");
    conversation.write(&mut json);
    page_end(json, &conversation.next)
}

fn page_end(mut json: Json, after: &str) -> Vec<u8> {
    json.raw(",\"additional_data\":{\"after\":");
    json.plain(after);
    json.raw("}}");
    json.into_bytes()
}

/// Body of getMessageById: the message without an envelope.
#[must_use]
pub fn message(message: &MessageBody<'_>) -> Vec<u8> {
    let mut json = Json::with_capacity(512 + message.message.text.len());
    message.write(&mut json);
    json.into_bytes()
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
