//! The Channels API: request bodies, and what each answer means.
//!
//! Pipedrive deprecated these calls in November 2025 and may withdraw them: an answer that does not come from them
//! any more is [`Answer::Gone`], in which nothing is dropped.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::wire::{Attachment, TimeForm, shown_message};
use crate::domain::{
    ConversationId, Message, MessageId, ParticipantId, ProviderChannelId, ProviderType, WireStatus,
};
use crate::protocol::budget;
use crate::protocol::retry::Limits;

/// Pause after a refusal by the edge in front of Pipedrive: it bans those who insist.
const EDGE_PAUSE: Duration = Duration::from_secs(15 * 60);
/// Pause after a refusal that only a person can end.
const PERSON_PAUSE: Duration = Duration::from_secs(15 * 60);

/// Body of `POST /channels/messages/receive`. The same `id` again is an update of the message.
///
/// `attachments` is always present, `conversation_link` and `reply_by` are left out: Pipedrive's validation takes
/// neither null nor an empty link.
#[derive(Debug, Serialize)]
pub struct ReceiveMessage<'a> {
    id: MessageId,
    channel_id: &'a ProviderChannelId,
    sender_id: &'a ParticipantId,
    conversation_id: ConversationId,
    message: Cow<'a, str>,
    status: WireStatus,
    created_at: String,
    attachments: Vec<Attachment<'a>>,
}

impl<'a> ReceiveMessage<'a> {
    /// Shows a stored message. `url` gives the link to an attachment; of one without a link the text says that it
    /// is at the gateway.
    pub fn new(
        channel: &'a ProviderChannelId,
        message: &'a Message,
        form: TimeForm,
        url: impl Fn(crate::domain::AttachmentId) -> Option<&'a str>,
    ) -> Self {
        let mut text = shown_message(message);
        for file in message.attachments.iter().filter(|file| url(file.id).is_none()) {
            let line = format!(
                "\n[{} is at the gateway, which has no public address for a link]",
                file.name
            );
            text.to_mut().push_str(&line);
        }
        Self {
            id: message.id,
            channel_id: channel,
            sender_id: &message.sender,
            conversation_id: message.id.conversation,
            message: text,
            status: message.state.wire_status(),
            created_at: form.write(message.created_at),
            attachments: message
                .attachments
                .iter()
                .filter_map(|file| Some(Attachment::new(file, url(file.id)?)))
                .collect(),
        }
    }
}

/// Body of `POST /channels`.
#[derive(Clone, Debug, Serialize)]
pub struct RegisterChannel<'a> {
    /// Shown in Pipedrive.
    pub name: &'a str,
    /// Our id of the channel, which every later call uses.
    pub provider_channel_id: &'a ProviderChannelId,
    /// A picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<&'a str>,
    /// Which logo Pipedrive shows.
    pub provider_type: ProviderType,
    /// Whether `getTemplates` is asked.
    pub template_support: bool,
}

/// Path of `POST /channels/messages/receive`, below the API's base.
pub const RECEIVE_PATH: &str = "/channels/messages/receive";
/// Path of `POST /channels`.
pub const REGISTER_PATH: &str = "/channels";

/// Path of `DELETE /channels/{id}`. Ids are URL-safe.
#[must_use]
pub fn channel_path(channel: &ProviderChannelId) -> String {
    format!("/channels/{channel}")
}

/// Path of `DELETE /channels/{id}/conversations/{id}`.
#[must_use]
pub fn conversation_path(channel: &ProviderChannelId, conversation: ConversationId) -> String {
    format!("/channels/{channel}/conversations/{conversation}")
}

/// Which call an answer belongs to, with what is needed to judge it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `POST /channels/messages/receive`.
    Receive {
        /// Pipedrive has accepted a message of this conversation before.
        known: bool,
        /// Pipedrive has fetched this conversation from the listener since the start.
        served: bool,
    },
    /// `POST /channels`.
    Register,
    /// `DELETE /channels/{id}`.
    DeleteChannel,
    /// `DELETE /channels/{id}/conversations/{id}`.
    DeleteConversation,
}

/// What came back.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// `Location`.
    pub location: Option<&'a str>,
    /// Rate limits and `Retry-After`.
    pub limits: Limits,
    /// The body, or as much of it as came.
    pub body: &'a [u8],
    /// Whether the whole body came.
    pub complete: bool,
}

/// How far a difficulty reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This conversation.
    Conversation,
    /// This conversation, or everything: nobody can tell from one case. Several in a row mean everything.
    Unclear,
    /// This channel.
    Channel,
    /// Every call.
    Everything,
    /// Every call, until the company has tokens again.
    Day,
}

/// What an answer means. Each reason is a sentence for a person, with the remedy, and repeats neither a secret nor a
/// message's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Accepted,
    /// Not now.
    Retry {
        /// Why.
        reason: String,
        /// The pause that the server asks for or that the case demands; otherwise the caller's backoff.
        after: Option<Duration>,
        /// Who has to wait.
        scope: Scope,
    },
    /// Never.
    Rejected {
        /// Why.
        reason: String,
    },
    /// Pipedrive does not know the channel (or the conversation that is to be deleted).
    NotFound {
        /// What is unknown.
        reason: String,
    },
    /// The access token is not accepted.
    NotAuthorized {
        /// What to do.
        reason: String,
    },
    /// A sign that the Channels API is not there any more. One sign alone proves nothing.
    Gone {
        /// What was seen.
        reason: String,
    },
}

/// Pipedrive's error body; every key is optional because it is only observed.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    success: Option<bool>,
    error: Option<serde_json::Value>,
    error_info: Option<serde_json::Value>,
    code: Option<serde_json::Value>,
    additional_data: Option<Additional>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Additional {
    code: Option<serde_json::Value>,
}

impl Body {
    fn code(&self) -> Option<&str> {
        let nested = self.additional_data.as_ref().and_then(|data| data.code.as_ref());
        nested
            .or(self.code.as_ref())
            .and_then(|code| code.as_str())
            .filter(|code| is_code(code))
    }

    /// Whether it is a refusal in Pipedrive's form; a proxy may answer in JSON too.
    fn is_pipedrives(&self) -> bool {
        self.success == Some(false) || self.code().is_some()
    }

    fn says(&self, word: &str) -> bool {
        [&self.error, &self.error_info].into_iter().flatten().any(|text| {
            text.as_str()
                .is_some_and(|text| text.to_ascii_lowercase().contains(word))
        })
    }

    /// The code, and which fields Pipedrive complains about. Its own sentence is not repeated: it may quote values.
    fn complaint(&self) -> String {
        let code = self.code().unwrap_or("no error code");
        let fields: Vec<&str> = FIELDS
            .into_iter()
            .filter(|field| {
                let quoted = [format!("\"{field}\""), format!("'{field}'"), format!("`{field}`")];
                quoted.iter().any(|text| self.says(text))
            })
            .collect();
        if fields.is_empty() {
            code.to_owned()
        } else {
            format!("{code}, about {}", fields.join(", "))
        }
    }
}

/// Keys of our requests that may be named to a person.
const FIELDS: [&str; 13] = [
    "id",
    "channel_id",
    "sender_id",
    "conversation_id",
    "message",
    "status",
    "created_at",
    "attachments",
    "preview_url",
    "name",
    "provider_channel_id",
    "provider_type",
    "avatar_url",
];

/// Whether a text is shaped like an error code, so that it may be shown.
fn is_code(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text
            .bytes()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_')
}

/// Judges an answer.
#[must_use]
pub fn classify(call: Call, reply: &Reply<'_>) -> Answer {
    let body: Option<Body> = serde_json::from_slice(reply.body).ok();
    match reply.status {
        200..=299 => success(call, reply, body.as_ref()),
        300..=399 => redirect(reply),
        400 => bad_request(call, body.as_ref()),
        401 => Answer::NotAuthorized {
            reason: "Pipedrive does not accept the access token (401): it has expired or was revoked. Run \
                     `pipepost connect` again; a configured token needs a new one and a restart of the gateway."
                .to_owned(),
        },
        402 => later(
            "Pipedrive answers 402: the company's account is not open (trial over or payment missing). An admin has \
             to look at the billing page in Pipedrive.",
            Some(PERSON_PAUSE),
            Scope::Everything,
        ),
        403 => forbidden(call, reply, body.as_ref()),
        404 | 405 | 410 => missing(call, reply, body.as_ref()),
        408 => later(
            "Pipedrive did not receive the request in time (408). It is sent again.",
            reply.limits.retry_after,
            Scope::Unclear,
        ),
        413 => too_large(call),
        429 => too_many(reply, body.as_ref()),
        500..=599 => server_trouble(reply),
        status => later(
            format!("Pipedrive gave an answer that its documentation does not know (status {status})."),
            reply.limits.retry_after,
            Scope::Unclear,
        ),
    }
}

fn later(reason: impl Into<String>, after: Option<Duration>, scope: Scope) -> Answer {
    Answer::Retry {
        reason: reason.into(),
        after,
        scope,
    }
}

fn success(call: Call, reply: &Reply<'_>, body: Option<&Body>) -> Answer {
    match body {
        Some(body) if body.success == Some(true) => Answer::Accepted,
        Some(body) if body.success == Some(false) => later(
            format!(
                "Pipedrive answers {} but says that it failed ({}). It is sent again.",
                reply.status,
                body.complaint()
            ),
            reply.limits.retry_after,
            Scope::Conversation,
        ),
        Some(_) => later(
            "Pipedrive's answer does not say whether it took the message. It is sent again; a repeat does no harm.",
            None,
            Scope::Unclear,
        ),
        // A deletion needs no body to be understood.
        None if matches!(call, Call::DeleteChannel | Call::DeleteConversation) && reply.body.is_empty() => {
            Answer::Accepted
        }
        None if !reply.complete => later(
            "Pipedrive's answer broke off. It is sent again; a repeat does no harm.",
            None,
            Scope::Unclear,
        ),
        None if is_html(reply) => later(
            "The answer is a web page instead of Pipedrive's: a log-in page of the network or a proxy is in between. \
             Check the network and pipedrive.api_url.",
            None,
            Scope::Everything,
        ),
        None => later(
            "Pipedrive's answer cannot be read as JSON. It is sent again; a repeat does no harm.",
            None,
            Scope::Unclear,
        ),
    }
}

fn redirect(reply: &Reply<'_>) -> Answer {
    // Only the host: a path or query could carry anything.
    let host = reply
        .location
        .and_then(|location| location.split("://").nth(1))
        .and_then(|rest| rest.split(['/', '?', '#', '@']).next())
        .filter(|host| {
            host.len() < 100
                && host
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || b".-:[]".contains(&c))
        })
        .unwrap_or("another place");
    later(
        format!(
            "The API's address redirects to {host} (status {}). Check pipedrive.api_url.",
            reply.status
        ),
        None,
        Scope::Everything,
    )
}

fn bad_request(call: Call, body: Option<&Body>) -> Answer {
    let Some(body) = body.filter(|body| body.is_pipedrives()) else {
        return later(
            "Something between the gateway and Pipedrive refuses the request (400, not in Pipedrive's form). It is \
             sent again.",
            None,
            Scope::Unclear,
        );
    };
    let complaint = body.complaint();
    match call {
        Call::Receive {
            known: false,
            served: false,
        } => later(
            format!(
                "Pipedrive refuses the first message of this conversation ({complaint}) and has not asked the gateway \
                 for the conversation: it probably cannot reach the public address. Check the tunnel and \
                 pipedrive.public_url; it is sent again."
            ),
            None,
            Scope::Conversation,
        ),
        Call::Receive { .. } => Answer::Rejected {
            reason: format!("Pipedrive refuses this message for good ({complaint})."),
        },
        Call::Register => Answer::Rejected {
            reason: format!(
                "Pipedrive refuses to register the channel ({complaint}). Check name, avatar_url and provider_type of \
                 the channel."
            ),
        },
        Call::DeleteChannel | Call::DeleteConversation => Answer::Rejected {
            reason: format!("Pipedrive refuses the deletion ({complaint})."),
        },
    }
}

fn forbidden(call: Call, reply: &Reply<'_>, body: Option<&Body>) -> Answer {
    let Some(body) = body else {
        return later(
            "The protection in front of Pipedrive refuses this address (403 with a web page). The gateway waits \
             longer now; if it stays, ask Pipedrive's support about the public address of this network.",
            Some(reply.limits.retry_after.unwrap_or_default().max(EDGE_PAUSE)),
            Scope::Everything,
        );
    };
    let code = body.code().unwrap_or("no error code");
    if code == "ADMIN_ONLY" {
        return later(
            "Only an admin of the Pipedrive company may register channels (ADMIN_ONLY): someone with admin rights \
             has to run `pipepost connect`, or to give the access token.",
            Some(PERSON_PAUSE),
            Scope::Channel,
        );
    }
    if body.says("scope") {
        return later(
            "The access token does not allow messaging (403): give the app the scope messengers-integration in \
             Pipedrive's Developer Hub, then run `pipepost connect` again or make a new token.",
            Some(PERSON_PAUSE),
            Scope::Everything,
        );
    }
    match call {
        Call::DeleteChannel | Call::DeleteConversation => Answer::Rejected {
            reason: format!(
                "Pipedrive does not allow this token to delete it ({code}): only the user who installed the app may."
            ),
        },
        Call::Receive { .. } | Call::Register => later(
            format!(
                "Pipedrive does not allow this token to use the channel ({code}): the user who registered it has to \
                 connect or to give the access token."
            ),
            Some(PERSON_PAUSE),
            Scope::Channel,
        ),
    }
}

fn missing(call: Call, reply: &Reply<'_>, body: Option<&Body>) -> Answer {
    let not_found = reply.status == 404 && body.and_then(Body::code) == Some("NOT_FOUND");
    if not_found {
        match call {
            Call::Receive { .. } => {
                return Answer::NotFound {
                    reason:
                        "Pipedrive does not know this channel any more (NOT_FOUND): it was removed there. \
                             Everything is kept; register it again with `pipepost channels register`."
                            .to_owned(),
                };
            }
            Call::DeleteChannel => {
                return Answer::NotFound {
                    reason: "Pipedrive does not know this channel (NOT_FOUND): nothing to delete there."
                        .to_owned(),
                };
            }
            Call::DeleteConversation => {
                return Answer::NotFound {
                    reason: "Pipedrive does not know this conversation (NOT_FOUND): nothing to delete there."
                        .to_owned(),
                };
            }
            // Registering needs nothing that could be unknown: the call itself is missing.
            Call::Register => {}
        }
    }
    Answer::Gone {
        reason: format!(
            "The Channels API does not answer at its address any more (status {}).",
            reply.status
        ),
    }
}

fn too_large(call: Call) -> Answer {
    let what = if matches!(call, Call::Receive { .. }) {
        "this message"
    } else {
        "the request"
    };
    Answer::Rejected {
        reason: format!("Pipedrive refuses {what} because it is too large (413)."),
    }
}

fn too_many(reply: &Reply<'_>, body: Option<&Body>) -> Answer {
    let limits = &reply.limits;
    let few = limits.cost.unwrap_or(budget::RECEIVE);
    let spent = limits.daily_remaining.is_some_and(|left| left < few);
    // The headers of the day are optional.
    let said = body.is_some_and(|body| body.complaint().to_ascii_lowercase().contains("daily"));
    let long = budget::long_pause(limits);
    if spent || said || long.is_some() {
        return later(
            "The API tokens of the company are used up for today (429). Everything is kept. They come back at \
             midnight of Pipedrive's server; a larger plan or fewer other integrations give more.",
            limits.retry_after.or(long),
            Scope::Day,
        );
    }
    later(
        "Pipedrive asks to slow down (429).",
        limits.retry_after.or(limits.reset),
        Scope::Everything,
    )
}

fn server_trouble(reply: &Reply<'_>) -> Answer {
    // 500 may be about this one message; the others speak of the whole server.
    let scope = if reply.status == 500 {
        Scope::Unclear
    } else {
        Scope::Everything
    };
    later(
        format!(
            "Pipedrive has a fault of its own (status {}). It is sent again.",
            reply.status
        ),
        reply.limits.retry_after,
        scope,
    )
}

fn is_html(reply: &Reply<'_>) -> bool {
    let declared = reply
        .content_type
        .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"));
    declared || reply.body.trim_ascii_start().starts_with(b"<")
}

#[cfg(test)]
#[path = "channels_tests.rs"]
mod tests;
