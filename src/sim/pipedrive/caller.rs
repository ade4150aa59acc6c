//! Pipedrive's calls to the gateway's manifest endpoints; every answer is checked against the contract.

use std::time::Instant;

use data_encoding::BASE64;
use serde_json::Value;

use super::client::{Answer, Request};
use super::core::{Core, Excerpt, Verdict};
use super::served::{self, Served};
use super::state::{Arriving, Call, Origin};
use super::{contract, fields};

/// What came of a call to the gateway.
pub(super) struct Asked {
    /// The answer's body when the status was 200 and the body was JSON.
    pub(super) value: Option<Value>,
    /// Why the call did not give what was wanted; empty when it did.
    pub(super) problems: Vec<String>,
}

impl Asked {
    /// The body, if the contract holds.
    pub(super) fn accepted(self) -> Result<Value, String> {
        match self.value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(self.problems.join("; ")),
        }
    }
}

/// An agent's answer, to be sent to the gateway.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// Provider channel id.
    pub channel: String,
    /// The gateway's conversation id.
    pub conversation: String,
    /// May be empty when there are files.
    pub text: String,
    /// Files.
    pub files: Vec<File>,
}

/// A file that an agent adds to an answer.
#[derive(Clone, Debug)]
pub struct File {
    /// File name.
    pub name: String,
    /// MIME type.
    pub mime: String,
    /// Content.
    pub bytes: Vec<u8>,
}

/// How `recipientIds` is written in the multipart form of postMessage: public code shows all of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecipientsForm {
    /// One `recipientIds[]` field per recipient.
    #[default]
    Brackets,
    /// One `recipientIds` field per recipient.
    Repeated,
    /// `recipientIds[0]`, `recipientIds[1]`, …
    Indexed,
    /// One `recipientIds` field, joined by commas.
    Joined,
}

impl Core {
    /// getConversationById: the newest messages when `after` is empty.
    pub(super) async fn get_conversation(
        &self,
        channel: &str,
        id: &str,
        messages_limit: u32,
        after: &str,
    ) -> Asked {
        let path = format!("channels/{}/conversations/{}", escape(channel), escape(id));
        let query = format!("messages_limit={messages_limit}&after={}", escape(after));
        self.ask("getConversationById", "GET", &format!("{path}?{query}"), |body| {
            contract::one_conversation(body, id)
        })
        .await
    }

    /// getConversations: the first page when `after` is empty.
    pub(super) async fn get_conversations(
        &self,
        channel: &str,
        conversations_limit: u32,
        messages_limit: u32,
        after: &str,
    ) -> Asked {
        let path = format!(
            "channels/{}/conversations?conversations_limit={conversations_limit}&messages_limit={messages_limit}&after={}",
            escape(channel),
            escape(after)
        );
        self.ask("getConversations", "GET", &path, contract::conversation_list)
            .await
    }

    /// getSenderById.
    pub(super) async fn get_sender(&self, channel: &str, id: &str) -> Asked {
        let path = format!("channels/{}/senders/{}", escape(channel), escape(id));
        self.ask("getSenderById", "GET", &path, |body| contract::sender(body, id))
            .await
    }

    /// getTemplates.
    pub(super) async fn get_templates(&self, channel: &str) -> Asked {
        let path = format!("channels/{}/templates", escape(channel));
        self.ask("getTemplates", "GET", &path, contract::templates).await
    }

    /// getMessageById in one of the two documented forms of its path.
    pub(super) async fn get_message(&self, channel: &str, conversation: Option<&str>, id: &str) -> Asked {
        let path = match conversation {
            Some(conversation) => format!(
                "channels/{}/conversations/{}/messages/{}",
                escape(channel),
                escape(conversation),
                escape(id)
            ),
            None => format!("channels/{}/messages/{}", escape(channel), escape(id)),
        };
        self.ask("getMessageById", "GET", &path, |body| {
            contract::one_message(body, id)
        })
        .await
    }

    /// deleteChannelById: a user removes the channel in Pipedrive's settings.
    pub(super) async fn delete_channel(&self, channel: &str) -> Result<(), String> {
        let path = format!("channels/{}", escape(channel));
        self.ask("deleteChannelById", "DELETE", &path, contract::deleted)
            .await
            .accepted()?;
        self.change(|state| state.unregister(channel));
        Ok(())
    }

    /// postMessage: sends an agent's answer; gives the gateway's id of the message.
    pub(super) async fn post_message(&self, reply: Reply) -> Result<String, String> {
        let (source, recipients, started) = self
            .read(|state| {
                let conversation = state.conversation(&reply.channel, &reply.conversation)?;
                let recipients: Vec<String> =
                    conversation.end_users().into_iter().map(str::to_owned).collect();
                Some((
                    conversation.source_user().unwrap_or("pipedrive").to_owned(),
                    recipients,
                    state.next_arrival(),
                ))
            })
            .ok_or_else(|| format!("there is no conversation {} here", reply.conversation))?;
        let (content_type, body) = form(&reply, &source, &recipients, self.recipients_form);
        let request = Request {
            method: "POST",
            url: self.endpoint(&format!("channels/{}/messages", escape(&reply.channel)))?,
            authorization: Some(self.basic.clone()),
            content_type: Some(content_type),
            body,
        };
        let answered = self
            .send("postMessage", request, contract::posted)
            .await
            .accepted()?;
        let id = answered
            .get("data")
            .map(|data| served::text(data, "id"))
            .unwrap_or_default();
        let files = reply.files.iter().map(
            |f| serde_json::json!({"name": f.name, "type": f.mime, "size": f.bytes.len(), "uploaded": true}),
        );
        let message = Arriving {
            id: id.clone(),
            sender_id: source,
            text: reply.text.clone(),
            status: "sent".to_owned(),
            created_at: super::core::now(),
            attachments: files.collect(),
            origin: Origin::Reply,
        };
        let problems = self.change(|state| {
            // A status update may overtake the answer; an id from before the call is another message's.
            let taken = state
                .message(&reply.channel, &id)
                .is_some_and(|known| known.arrival < started);
            if taken {
                return vec![format!("the id {id} of the answer belongs to an older message")];
            }
            state.counters.replies += 1;
            state.look_at(&reply.channel, &reply.conversation);
            state.arrive(&reply.channel, &reply.conversation, message)
        });
        self.violations("postMessage", &problems);
        if problems.is_empty() {
            Ok(id)
        } else {
            Err(problems.join("; "))
        }
    }

    /// Makes a conversation known by getConversationById, as Pipedrive does before it answers the POST of a
    /// message whose conversation it does not know.
    pub(super) async fn meet_conversation(&self, channel: &str, id: &str) -> Result<(), String> {
        let answered = self.get_conversation(channel, id, 30, "").await.accepted()?;
        let conversation = answered.get("data").map(Served::read);
        let Some(conversation) = conversation else {
            return Err("no conversation was served".to_owned());
        };
        self.take_in(channel, conversation, "getConversationById");
        Ok(())
    }

    /// Puts a served conversation into the inbox.
    pub(super) fn take_in(&self, channel: &str, conversation: Served, call: &str) {
        let problems = self.change(|state| {
            state.meet(
                channel,
                &conversation.id,
                &conversation.status,
                conversation.participants,
            );
            let mut problems = Vec::new();
            // Pages are newest first; the inbox wants arrival to follow the conversation.
            for message in conversation.messages.into_iter().rev() {
                problems.extend(state.arrive(channel, &conversation.id, message));
            }
            problems
        });
        self.violations(call, &problems);
    }

    /// Asks for a sender that is no participant as far as known.
    pub(super) async fn meet_sender(&self, channel: &str, conversation: &str, id: &str) {
        let Ok(answered) = self.get_sender(channel, id).await.accepted() else {
            return;
        };
        let name = answered
            .get("data")
            .map(|data| served::text(data, "name"))
            .unwrap_or_default();
        let participant = super::state::Participant {
            id: id.to_owned(),
            name,
            role: "end_user".to_owned(),
        };
        self.change(|state| {
            let status = state
                .conversation(channel, conversation)
                .map(|c| c.status.clone());
            if let Some(status) = status {
                state.meet(channel, conversation, &status, vec![participant]);
            }
        });
    }

    /// For attachments whose links expire: `HEAD`, and getMessageById when that fails.
    pub(super) async fn check_links(&self, channel: &str, conversation: &str, message: &str) {
        let attachments = self
            .read(|state| state.message(channel, message).map(|m| m.attachments.clone()))
            .unwrap_or_default();
        if self.links_work(&attachments).await.is_ok() {
            return;
        }
        let asked = self.get_message(channel, Some(conversation), message).await;
        let Ok(answered) = asked.accepted() else { return };
        let fresh = served::message(&answered, Origin::History).attachments;
        let works = self.links_work(&fresh).await;
        self.change(|state| state.refresh_attachments(channel, message, fresh));
        if let Err(why) = works {
            self.violations(
                "HEAD attachment",
                &[format!(
                    "the link of an attachment of message {message} fails right after getMessageById: {why}"
                )],
            );
        }
    }

    async fn links_work(&self, attachments: &[Value]) -> Result<(), String> {
        for attachment in attachments
            .iter()
            .filter(|a| a.get("link_expires") == Some(&Value::Bool(true)))
        {
            let url = served::text(attachment, "url");
            let request = Request {
                method: "HEAD",
                url,
                authorization: None,
                content_type: None,
                body: Vec::new(),
            };
            let started = Instant::now();
            let sent = self.client.send(request.clone()).await;
            let status = sent.as_ref().map_or(0, |answer| answer.status);
            let verdict = if (200..300).contains(&status) {
                Verdict::Ok
            } else {
                Verdict::Refused
            };
            self.log("to gateway", &request, &sent, verdict, String::new(), started);
            let answer = sent?;
            if verdict != Verdict::Ok {
                return Err(format!("HEAD answered {status}"));
            }
            let size = attachment.get("size").and_then(Value::as_u64);
            if let (Some(size), Some(length)) = (size, answer.content_length)
                && size != length
            {
                let what = format!("size says {size}, but HEAD of the link says {length} bytes");
                self.violations("HEAD attachment", &[what]);
            }
        }
        Ok(())
    }

    /// Calls one endpoint under `/api/` and checks the answer.
    async fn ask(
        &self,
        call: &'static str,
        method: &'static str,
        path: &str,
        check: impl Fn(&Value) -> Vec<String>,
    ) -> Asked {
        let url = match self.endpoint(path) {
            Ok(url) => url,
            Err(why) => {
                return Asked {
                    value: None,
                    problems: vec![why],
                };
            }
        };
        let request = Request {
            method,
            url,
            authorization: Some(self.basic.clone()),
            content_type: None,
            body: Vec::new(),
        };
        self.send(call, request, check).await
    }

    async fn send(&self, call: &str, request: Request, check: impl Fn(&Value) -> Vec<String>) -> Asked {
        let started = Instant::now();
        let sent = self.client.send(request.clone()).await;
        let (asked, violated) = match &sent {
            Err(why) => (
                Asked {
                    value: None,
                    problems: vec![format!("{call}: no answer: {why}")],
                },
                Vec::new(),
            ),
            Ok(answer) => judge(call, answer, check),
        };
        self.change(|state| {
            state.counters.gateway_calls += 1;
            state.counters.gateway_failures += u64::from(!asked.problems.is_empty());
        });
        self.violations(call, &violated);
        let verdict = match (violated.is_empty(), asked.problems.is_empty()) {
            (false, _) => Verdict::Violation,
            (true, false) => Verdict::Refused,
            (true, true) => Verdict::Ok,
        };
        self.log(
            "to gateway",
            &request,
            &sent,
            verdict,
            asked.problems.join("; "),
            started,
        );
        asked
    }

    pub(super) fn log(
        &self,
        direction: &'static str,
        request: &Request,
        sent: &Result<Answer, String>,
        verdict: Verdict,
        detail: String,
        started: Instant,
    ) {
        let path = request.url.splitn(4, '/').nth(3).unwrap_or_default();
        let (status, answered) = match sent {
            Ok(answer) => (answer.status, answer.body.excerpt()),
            Err(why) => (0, why.clone()),
        };
        self.change(|state| {
            state.log_call(Call {
                number: 0,
                at: super::core::now(),
                direction,
                request: format!("{} /{path}", request.method),
                status,
                milliseconds: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                verdict: verdict.word(),
                detail,
                sent: request.body.excerpt(),
                answered,
            });
        });
    }
}

/// What an answer to a call that should succeed means, and which rules it breaks.
fn judge(call: &str, answer: &Answer, check: impl Fn(&Value) -> Vec<String>) -> (Asked, Vec<String>) {
    let json = is_json(&answer.content_type);
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let status = answer.status;
    if status == 200 {
        let mut violated = Vec::new();
        if !json {
            violated.push(format!(
                "content type must be application/json, not {:?}",
                answer.content_type
            ));
        }
        match &body {
            Some(body) => violated.extend(check(body)),
            None => violated.push("the body is not JSON".to_owned()),
        }
        return (
            Asked {
                value: body,
                problems: violated.clone(),
            },
            violated,
        );
    }
    let mut violated = error_problems(answer, body.as_ref());
    if (200..500).contains(&status) && status != 429 {
        violated.push(format!("{call} must succeed here, but answered {status}"));
    }
    let mut problems = violated.clone();
    if problems.is_empty() {
        problems.push(format!("{call} answered {status}"));
    }
    (
        Asked {
            value: None,
            problems,
        },
        violated,
    )
}

/// Findings about an answer that is an error. A tunnel in front of the gateway may answer 5xx in any shape.
pub(super) fn error_problems(answer: &Answer, body: Option<&Value>) -> Vec<String> {
    let json = is_json(&answer.content_type);
    match (answer.status, json, body) {
        (500.., false, _) => Vec::new(),
        (_, true, Some(body)) => contract::error(answer.status, body),
        (status, _, _) => vec![format!(
            "the {status} answer has no JSON body of the documented shape"
        )],
    }
}

pub(super) fn is_json(content_type: &str) -> bool {
    content_type
        .split(';')
        .next()
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// The `Authorization` value for Basic auth.
pub(super) fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{id}:{secret}").as_bytes()))
}

/// Percent-encodes everything but unreserved characters.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            let digit = |nibble: u8| {
                char::from_digit(u32::from(nibble), 16)
                    .unwrap_or('0')
                    .to_ascii_uppercase()
            };
            escaped.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    escaped
}

/// The multipart form of postMessage.
fn form(reply: &Reply, sender: &str, recipients: &[String], form: RecipientsForm) -> (String, Vec<u8>) {
    let mut fields: Vec<(String, String)> = vec![
        ("message".to_owned(), reply.text.clone()),
        ("senderId".to_owned(), sender.to_owned()),
        ("conversationId".to_owned(), reply.conversation.clone()),
    ];
    match form {
        RecipientsForm::Joined => fields.push(("recipientIds".to_owned(), recipients.join(","))),
        _ => {
            for (index, recipient) in recipients.iter().enumerate() {
                let name = match form {
                    RecipientsForm::Brackets => "recipientIds[]".to_owned(),
                    RecipientsForm::Indexed => format!("recipientIds[{index}]"),
                    RecipientsForm::Repeated | RecipientsForm::Joined => "recipientIds".to_owned(),
                };
                fields.push((name, recipient.clone()));
            }
        }
    }
    let boundary = boundary(reply);
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend_from_slice(
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
                .as_bytes(),
        );
    }
    for file in &reply.files {
        let name = file.name.replace('"', "%22").replace(['\r', '\n'], " ");
        let mime = file.mime.replace(['\r', '\n'], " ");
        body.extend_from_slice(
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"files\"; filename=\"{name}\"\r\n\
                 Content-Type: {mime}\r\n\r\n"
            )
            .as_bytes(),
        );
        body.extend_from_slice(&file.bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

/// A boundary that does not occur in the content.
fn boundary(reply: &Reply) -> String {
    let mut number: u64 = 0x7069_7065;
    loop {
        let boundary = format!("----sandbox{number:016x}");
        let inside = |bytes: &[u8]| bytes.windows(boundary.len()).any(|w| w == boundary.as_bytes());
        if !inside(reply.text.as_bytes()) && !reply.files.iter().any(|f| inside(&f.bytes)) {
            return boundary;
        }
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
}

/// Whether a message has links that expire.
pub(super) fn has_expiring_links(attachments: &[Value]) -> bool {
    attachments.iter().any(|a| {
        a.get("link_expires") == Some(&Value::Bool(true))
            && a.get("url").and_then(Value::as_str).is_some_and(fields::is_url)
    })
}
