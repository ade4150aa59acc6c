//! What the sandbox knows: channels, conversations, messages, calls and violations.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::fields::same_time;

/// Calls kept for the call log.
const CALLS_KEPT: usize = 400;
/// Violations kept in full; more are only counted.
const VIOLATIONS_KEPT: usize = 1_000;

/// How a message first became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Posted by the gateway.
    Post,
    /// Read from the gateway's history.
    History,
    /// Written by an agent here and accepted by the gateway.
    Reply,
}

/// A message in the inbox.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    /// The gateway's id.
    #[serde(serialize_with = "as_text")]
    pub id: Arc<str>,
    /// The gateway's id of who wrote it.
    pub sender_id: String,
    /// The text.
    pub text: String,
    /// `sent`, `delivered`, `read` or `failed`.
    pub status: String,
    /// As the gateway wrote it.
    pub created_at: String,
    /// As the gateway wrote them; for replies the names and types of what was uploaded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Value>,
    /// Written by an agent.
    pub outgoing: bool,
    /// How it first became known.
    pub origin: Origin,
    /// Place in the order in which messages became known, over all channels.
    pub arrival: u64,
    /// Place of the first accepted POST in the order of all accepted POSTs; 0 = never posted.
    pub posted: u64,
    /// Accepted POSTs with this id: the first, repeats and status updates.
    pub posts: u32,
    /// Every status in the order in which they came, repeats left out.
    pub statuses: Vec<String>,
    #[serde(skip)]
    pub(super) posted_created_at: Option<String>,
}

/// Who takes part in a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Participant {
    /// The gateway's id.
    pub id: String,
    /// Shown name.
    pub name: String,
    /// `end_user` or `source_user`.
    pub role: String,
}

/// A conversation in the inbox.
#[derive(Clone, Debug, Serialize)]
pub struct Conversation {
    /// The gateway's id.
    #[serde(serialize_with = "as_text")]
    pub id: Arc<str>,
    /// The provider channel id.
    #[serde(serialize_with = "as_text")]
    pub channel: Arc<str>,
    /// Participants as last served.
    pub participants: Vec<Participant>,
    /// Messages in the order in which they became known.
    pub messages: Vec<Message>,
    /// Incoming messages since an agent looked or answered.
    pub unread: u32,
    /// `open` or `closed`, as last served.
    pub status: String,
    /// Order of the last change; conversations known only from history are below zero.
    #[serde(skip)]
    pub(super) recency: i64,
}

impl Conversation {
    /// The id of the conversation's one source user.
    #[must_use]
    pub fn source_user(&self) -> Option<&str> {
        self.with_role("source_user").next()
    }

    /// Ids of the customers.
    #[must_use]
    pub fn end_users(&self) -> Vec<&str> {
        self.with_role("end_user").collect()
    }

    fn with_role<'a>(&'a self, role: &'a str) -> impl Iterator<Item = &'a str> {
        self.participants
            .iter()
            .filter(move |p| p.role == role)
            .map(|p| p.id.as_str())
    }

    /// Messages in the order of their `created_at`, oldest first, as an inbox shows them.
    #[must_use]
    pub fn in_order(&self) -> Vec<&Message> {
        let mut messages: Vec<&Message> = self.messages.iter().collect();
        messages.sort_by_cached_key(|m| (super::fields::instant(&m.created_at).map(|(at, _)| at), m.arrival));
        messages
    }
}

/// A registered channel.
#[derive(Clone, Debug, Serialize)]
pub struct Channel {
    /// The provider channel id.
    #[serde(serialize_with = "as_text")]
    pub id: Arc<str>,
    /// Pipedrive's own id, of no use to the gateway.
    pub internal_id: String,
    /// Shown name.
    pub name: String,
    /// `facebook`, `whatsapp` or `other`.
    pub provider_type: String,
    /// Whether templates are asked for.
    pub template_support: bool,
    /// Icon.
    pub avatar_url: Option<String>,
    /// ISO 8601.
    pub created_at: String,
    /// The company that it belongs to.
    pub company: i64,
    /// The user whose installation registered it; only this one may delete.
    pub user: i64,
    /// Conversations by id.
    #[serde(skip)]
    pub conversations: HashMap<Arc<str>, Conversation>,
    #[serde(skip)]
    index: HashMap<Arc<str>, (Arc<str>, usize)>,
}

/// Numbers that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Counters {
    /// Calls to the Channels API, faults included.
    pub calls: u64,
    /// Accepted POSTs of messages.
    pub posts: u64,
    /// Messages that a POST made known.
    pub created: u64,
    /// Accepted POSTs of messages that were known already.
    pub updates: u64,
    /// Requests that broke the documented rules.
    pub invalid: u64,
    /// Requests refused with 429 because of a limit.
    pub limited: u64,
    /// Requests without the right token.
    pub unauthorized: u64,
    /// Calls that met a fault other than latency.
    pub faulted: u64,
    /// Calls of the app to the OAuth server.
    pub token_calls: u64,
    /// Of these, the ones that were refused.
    pub token_refusals: u64,
    /// Calls to the gateway's manifest endpoints.
    pub gateway_calls: u64,
    /// Of these, the ones that did not succeed.
    pub gateway_failures: u64,
    /// Replies that the gateway accepted.
    pub replies: u64,
    /// Violations of the contract, also those that are no longer kept.
    pub violations: u64,
}

/// One broken rule.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// When, ISO 8601.
    pub at: String,
    /// Which call, e.g. `getConversations` or `POST /channels/messages/receive`.
    pub call: String,
    /// What is wrong.
    pub what: String,
}

/// One call in either direction, for the log.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Counts up.
    pub number: u64,
    /// When, ISO 8601.
    pub at: String,
    /// `to pipedrive` or `to gateway`.
    pub direction: &'static str,
    /// Method and path.
    pub request: String,
    /// 0 when there was no answer.
    pub status: u16,
    /// How long it took.
    pub milliseconds: u64,
    /// `ok`, `refused`, `fault` or `violation`.
    pub verdict: &'static str,
    /// What else there is to say.
    pub detail: String,
    /// The beginning of the request's body.
    pub sent: String,
    /// The beginning of the answer's body.
    pub answered: String,
}

/// A message as it arrives, from whatever side.
pub(super) struct Arriving {
    pub(super) id: String,
    pub(super) sender_id: String,
    pub(super) text: String,
    pub(super) status: String,
    pub(super) created_at: String,
    pub(super) attachments: Vec<Value>,
    pub(super) origin: Origin,
}

/// Everything the sandbox knows.
#[derive(Debug, Default)]
pub struct State {
    /// Registered channels by provider channel id.
    pub channels: BTreeMap<Arc<str>, Channel>,
    /// Numbers that only grow.
    pub counters: Counters,
    /// The first violations.
    pub violations: Vec<Violation>,
    /// The last calls.
    pub calls: VecDeque<Call>,
    recent: BTreeMap<i64, (Arc<str>, Arc<str>)>,
    arrivals: u64,
    posted: u64,
    changes: i64,
    met: i64,
    call_number: u64,
}

impl State {
    /// A channel's conversation.
    #[must_use]
    pub fn conversation(&self, channel: &str, id: &str) -> Option<&Conversation> {
        self.channels.get(channel)?.conversations.get(id)
    }

    /// A channel's message, by the gateway's id.
    #[must_use]
    pub fn message(&self, channel: &str, id: &str) -> Option<&Message> {
        let channel = self.channels.get(channel)?;
        let (conversation, position) = channel.index.get(id)?;
        channel.conversations.get(conversation)?.messages.get(*position)
    }

    /// The conversation that a channel's message belongs to.
    #[must_use]
    pub fn conversation_of(&self, channel: &str, message: &str) -> Option<&Conversation> {
        let channel = self.channels.get(channel)?;
        channel.conversations.get(&channel.index.get(message)?.0)
    }

    /// All conversations, in no particular order.
    pub fn conversations(&self) -> impl Iterator<Item = &Conversation> {
        self.channels.values().flat_map(|c| c.conversations.values())
    }

    /// All messages, in no particular order.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.conversations().flat_map(|c| c.messages.iter())
    }

    /// How many messages there are.
    #[must_use]
    pub fn message_count(&self) -> usize {
        self.channels.values().map(|c| c.index.len()).sum()
    }

    /// Conversations, the last changed first.
    pub fn recent(&self) -> impl Iterator<Item = &Conversation> {
        self.recent
            .values()
            .rev()
            .filter_map(|(channel, id)| self.conversation(channel, id))
    }

    pub(super) fn register(&mut self, channel: Channel) -> bool {
        let new = !self.channels.contains_key(&channel.id);
        match self.channels.get_mut(&channel.id) {
            Some(known) => {
                known.name = channel.name;
                known.provider_type = channel.provider_type;
                known.template_support = channel.template_support;
                known.avatar_url = channel.avatar_url;
            }
            None => {
                self.channels.insert(Arc::clone(&channel.id), channel);
            }
        }
        new
    }

    pub(super) fn unregister(&mut self, channel: &str) -> bool {
        let Some(channel) = self.channels.remove(channel) else {
            return false;
        };
        for conversation in channel.conversations.values() {
            self.recent.remove(&conversation.recency);
        }
        true
    }

    pub(super) fn forget_conversation(&mut self, channel: &str, id: &str) -> bool {
        let Some(channel) = self.channels.get_mut(channel) else {
            return false;
        };
        let Some(conversation) = channel.conversations.remove(id) else {
            return false;
        };
        self.recent.remove(&conversation.recency);
        for message in &conversation.messages {
            channel.index.remove(&message.id);
        }
        true
    }

    /// Makes a conversation known, or renews what is known about its participants.
    pub(super) fn meet(&mut self, channel: &str, id: &str, status: &str, participants: Vec<Participant>) {
        let Some(channel) = self.channels.get_mut(channel) else {
            return;
        };
        if let Some(known) = channel.conversations.get_mut(id) {
            for participant in participants {
                match known.participants.iter_mut().find(|p| p.id == participant.id) {
                    Some(known) => *known = participant,
                    None => known.participants.push(participant),
                }
            }
            status.clone_into(&mut known.status);
            return;
        }
        // History comes newest first: each conversation that is met goes below the ones before.
        self.met -= 1;
        let id: Arc<str> = Arc::from(id);
        let conversation = Conversation {
            id: Arc::clone(&id),
            channel: Arc::clone(&channel.id),
            participants,
            messages: Vec::new(),
            unread: 0,
            status: status.to_owned(),
            recency: self.met,
        };
        self.recent
            .insert(self.met, (Arc::clone(&channel.id), Arc::clone(&id)));
        channel.conversations.insert(id, conversation);
    }

    /// Adds a message to a known conversation, or updates it; says what is wrong with it.
    pub(super) fn arrive(&mut self, channel: &str, conversation: &str, message: Arriving) -> Vec<String> {
        let mut problems = Vec::new();
        let Some(channel) = self.channels.get_mut(channel) else {
            return problems;
        };
        let post = message.origin == Origin::Post;
        let moves_up = message.origin != Origin::History;
        if let Some((home, position)) = channel.index.get(message.id.as_str()).cloned() {
            if *home != *conversation {
                problems.push(format!(
                    "message {} moved from conversation {home} to {conversation}",
                    message.id
                ));
                return problems;
            }
            if let Some(home) = channel.conversations.get_mut(&home)
                && let Some(known) = home.messages.get_mut(position)
            {
                // The first message of a new conversation is known already: it was read with the conversation.
                home.unread += u32::from(post && known.posts == 0 && !known.outgoing);
                update(known, message, &mut self.posted, &mut problems);
                self.counters.updates += u64::from(post);
            }
        } else {
            let Some(home) = channel.conversations.get_mut(conversation) else {
                return problems;
            };
            self.arrivals += 1;
            self.posted += u64::from(post);
            let outgoing =
                message.origin == Origin::Reply || home.source_user() == Some(message.sender_id.as_str());
            let id: Arc<str> = Arc::from(message.id);
            channel
                .index
                .insert(Arc::clone(&id), (Arc::clone(&home.id), home.messages.len()));
            home.unread += u32::from(!outgoing && message.origin == Origin::Post);
            home.messages.push(Message {
                id,
                sender_id: message.sender_id,
                text: message.text,
                statuses: vec![message.status.clone()],
                status: message.status,
                posted_created_at: post.then(|| message.created_at.clone()),
                created_at: message.created_at,
                attachments: message.attachments,
                outgoing,
                origin: message.origin,
                arrival: self.arrivals,
                posted: if post { self.posted } else { 0 },
                posts: u32::from(post),
            });
            self.counters.created += u64::from(post);
        }
        self.counters.posts += u64::from(post);
        if moves_up && let Some(home) = channel.conversations.get_mut(conversation) {
            self.changes += 1;
            self.recent.remove(&home.recency);
            home.recency = self.changes;
            self.recent
                .insert(self.changes, (Arc::clone(&home.channel), Arc::clone(&home.id)));
        }
        problems
    }

    /// Replaces the attachments of a message by fresh ones.
    pub(super) fn refresh_attachments(&mut self, channel: &str, message: &str, attachments: Vec<Value>) {
        let Some(channel) = self.channels.get_mut(channel) else {
            return;
        };
        let Some((home, position)) = channel.index.get(message) else {
            return;
        };
        if let Some(known) = channel
            .conversations
            .get_mut(home)
            .and_then(|c| c.messages.get_mut(*position))
        {
            known.attachments = attachments;
        }
    }

    /// An agent has looked at a conversation.
    pub(super) fn look_at(&mut self, channel: &str, id: &str) {
        if let Some(c) = self
            .channels
            .get_mut(channel)
            .and_then(|c| c.conversations.get_mut(id))
        {
            c.unread = 0;
        }
    }

    pub(super) fn violate(&mut self, at: String, call: &str, what: String) {
        self.counters.violations += 1;
        log::warn!(call; "Contract violated: {what}");
        if self.violations.len() < VIOLATIONS_KEPT {
            self.violations.push(Violation {
                at,
                call: call.to_owned(),
                what,
            });
        }
    }

    pub(super) fn log_call(&mut self, mut call: Call) {
        self.call_number += 1;
        call.number = self.call_number;
        if self.calls.len() >= CALLS_KEPT {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }

    /// Place of the next arrival: what arrives from now on is not below it.
    pub(super) const fn next_arrival(&self) -> u64 {
        self.arrivals + 1
    }
}

impl Channel {
    /// A channel without conversations.
    pub(super) fn new(id: &str, internal_id: String, name: &str, created_at: String) -> Self {
        Self {
            id: Arc::from(id),
            internal_id,
            name: name.to_owned(),
            provider_type: "other".to_owned(),
            template_support: false,
            avatar_url: None,
            created_at,
            company: 1,
            user: 1,
            conversations: HashMap::new(),
            index: HashMap::new(),
        }
    }
}

fn update(known: &mut Message, message: Arriving, posted: &mut u64, problems: &mut Vec<String>) {
    if message.origin == Origin::Reply {
        // A status update overtook the answer of postMessage: its status is newer than this "sent".
        known.origin = Origin::Reply;
        known.outgoing = true;
        return;
    }
    if message.sender_id != known.sender_id && known.origin != Origin::Reply {
        problems.push(format!(
            "message {} changed its sender from {} to {}",
            message.id, known.sender_id, message.sender_id
        ));
    }
    if goes_back(&known.status, &message.status) {
        problems.push(format!(
            "message {} went back from {} to {}",
            message.id, known.status, message.status
        ));
    }
    if message.origin == Origin::Post {
        if let Some(before) = &known.posted_created_at
            && !same_time(before, &message.created_at)
        {
            problems.push(format!(
                "message {} changed its created_at from {before} to {}",
                message.id, message.created_at
            ));
        }
        known.posted_created_at = Some(message.created_at.clone());
        known.posts += 1;
        if known.posted == 0 {
            *posted += 1;
            known.posted = *posted;
        }
    }
    if known.status != message.status {
        known.statuses.push(message.status.clone());
        known.status = message.status;
    }
    known.sender_id = message.sender_id;
    known.text = message.text;
    known.created_at = message.created_at;
    if !(known.origin == Origin::Reply && message.attachments.is_empty()) {
        known.attachments = message.attachments;
    }
}

/// Whether a status takes back what was known: a delivered message cannot become merely sent.
fn goes_back(before: &str, now: &str) -> bool {
    matches!(
        (before, now),
        ("delivered" | "read" | "failed", "sent") | ("read", "delivered" | "failed")
    )
}

fn as_text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}
