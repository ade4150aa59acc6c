//! Delivery through Pipedrive's Channels API.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::domain::{ConversationId, InstallationId, ProviderChannelId, Secret, Timestamp};
use crate::http::{Client, Failure, Method, Request};
use crate::protocol::pipedrive::channels::{
    Answer, Call, RECEIVE_PATH, REGISTER_PATH, ReceiveMessage, RegisterChannel, Reply, Scope, channel_path,
    classify, conversation_path,
};
use crate::protocol::pipedrive::wire::TimeForm;
use crate::protocol::retry::Limits;

use super::{Delivered, Delivery, NotConnected, Outcome, Registration, Uplink};

const JSON: &str = "application/json";

/// The access token, which may come or change while the gateway runs. Cheap to clone; clones share it.
#[derive(Clone, Debug, Default)]
pub struct AccessToken(Arc<RwLock<Option<Secret>>>);

impl AccessToken {
    /// Takes what is configured; an empty one counts as none.
    #[must_use]
    pub fn new(token: Option<Secret>) -> Self {
        let shared = Self::default();
        shared.set(token);
        shared
    }

    /// Replaces the token.
    pub fn set(&self, token: Option<Secret>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = token.filter(|token| !token.is_empty());
    }

    fn get(&self) -> Option<Secret> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_there(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// Why a call of a command did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// No access token yet.
    NotConnected,
    /// The access token is not accepted.
    NotAuthorized,
    /// Pipedrive does not know what was named.
    NotFound,
    /// It may work later.
    Later,
    /// It will not work like this.
    Rejected,
    /// The Channels API is not there any more.
    Gone,
}

/// A call of a command that did not do it, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which kind.
    pub kind: RefusalKind,
    /// A sentence with the remedy.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refusal {}

/// The Channels API of one Pipedrive company. Cheap to clone.
#[derive(Clone)]
pub struct ChannelsUplink {
    client: Client,
    base: Arc<str>,
    receive_url: Arc<str>,
    token: AccessToken,
    form: TimeForm,
}

impl ChannelsUplink {
    /// Uses the API below `api_url`, e.g. `https://acme.pipedrive.com/api/v1`.
    #[must_use]
    pub fn new(client: Client, api_url: &str, token: AccessToken, form: TimeForm) -> Self {
        let base = api_url.trim_end_matches('/');
        Self {
            client,
            base: base.into(),
            receive_url: format!("{base}{RECEIVE_PATH}").into(),
            token,
            form,
        }
    }

    /// `POST /channels`. Blocks.
    pub fn register_channel(&self, channel: &Registration, now: Timestamp) -> Result<(), Refusal> {
        self.connected()?;
        done(self.post_channel(channel, now).0)
    }

    /// `DELETE /channels/{id}`. Blocks.
    pub fn delete_channel(&self, channel: &ProviderChannelId, now: Timestamp) -> Result<(), Refusal> {
        self.connected()?;
        let url = format!("{}{}", self.base, channel_path(channel));
        done(
            self.call(|| Call::DeleteChannel, Method::Delete, &url, None, now)
                .0,
        )
    }

    /// `DELETE /channels/{id}/conversations/{id}`. Blocks.
    pub fn delete_conversation(
        &self,
        channel: &ProviderChannelId,
        conversation: ConversationId,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        self.connected()?;
        let url = format!("{}{}", self.base, conversation_path(channel, conversation));
        done(
            self.call(|| Call::DeleteConversation, Method::Delete, &url, None, now)
                .0,
        )
    }

    fn connected(&self) -> Result<(), Refusal> {
        self.ready().map_err(|reason| Refusal {
            kind: RefusalKind::NotConnected,
            reason,
        })
    }

    fn ready(&self) -> Result<(), String> {
        if self.token.is_there() {
            Ok(())
        } else {
            Err(
                "Not connected to Pipedrive yet: no access token is configured. Messages are kept; set \
                 pipedrive.access_token_file or the credential access-token and restart the gateway."
                    .to_owned(),
            )
        }
    }

    fn post_channel(&self, channel: &Registration, now: Timestamp) -> (Answer, Limits) {
        let body = RegisterChannel {
            name: &channel.name,
            provider_channel_id: &channel.id,
            avatar_url: channel.avatar_url.as_deref(),
            provider_type: channel.provider_type,
            template_support: channel.template_support,
        };
        let url = format!("{}{REGISTER_PATH}", self.base);
        match serde_json::to_vec(&body) {
            Ok(body) => self.call(|| Call::Register, Method::Post, &url, Some(&body), now),
            Err(error) => unwritable(&error),
        }
    }

    /// Makes a call and judges the answer; what the call was is asked after the answer.
    fn call(
        &self,
        call: impl FnOnce() -> Call,
        method: Method,
        url: &str,
        body: Option<&[u8]>,
        now: Timestamp,
    ) -> (Answer, Limits) {
        let token = self.token.get();
        let response = self.client.send(&Request {
            method,
            url,
            bearer: token.as_ref(),
            basic: None,
            body: body.map(|bytes| (JSON, bytes)),
        });
        match response {
            Ok(response) => {
                let limits = Limits::read(|name| response.header(name), now);
                let reply = Reply {
                    status: response.status,
                    content_type: response.header("content-type"),
                    location: response.header("location"),
                    limits,
                    body: &response.body,
                    complete: response.complete,
                };
                (classify(call(), &reply), limits)
            }
            Err(failure) => (unanswered(&failure), Limits::default()),
        }
    }
}

impl Uplink for ChannelsUplink {
    fn installation(&self, _: &ProviderChannelId) -> Result<InstallationId, NotConnected> {
        self.ready().map_err(|reason| NotConnected {
            reason,
            needs_person: false,
        })?;
        Ok(InstallationId::of_configured_token())
    }

    fn deliver(&self, delivery: &Delivery<'_>, now: Timestamp) -> Delivered {
        let link = |id| {
            let found = delivery.links.iter().find(|link| link.attachment == id);
            found.map(|link| link.url.as_str())
        };
        let message = ReceiveMessage::new(delivery.channel, delivery.message, self.form, link);
        let call = || Call::Receive {
            known: delivery.known_to_pipedrive,
            served: (delivery.served)(),
        };
        let (answer, limits) = match serde_json::to_vec(&message) {
            Ok(body) => self.call(call, Method::Post, &self.receive_url, Some(&body), now),
            Err(error) => unwritable(&error),
        };
        Delivered {
            outcome: answer.into(),
            limits,
        }
    }

    fn register(&self, channel: &Registration, now: Timestamp) -> Delivered {
        let (answer, limits) = self.post_channel(channel, now);
        Delivered {
            outcome: answer.into(),
            limits,
        }
    }
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Accepted => Self::Accepted,
            Answer::Retry { reason, after, scope } => Self::Retry { reason, after, scope },
            Answer::Rejected { reason } => Self::Rejected { reason },
            Answer::NotFound { reason } => Self::ChannelUnlinked { reason },
            Answer::NotAuthorized { reason } => Self::NotAuthorized { reason },
            Answer::Gone { reason } => Self::Gone { reason },
        }
    }
}

fn done(answer: Answer) -> Result<(), Refusal> {
    let (kind, reason) = match answer {
        Answer::Accepted => return Ok(()),
        Answer::Retry { reason, .. } => (RefusalKind::Later, reason),
        Answer::Rejected { reason } => (RefusalKind::Rejected, reason),
        Answer::NotFound { reason } => (RefusalKind::NotFound, reason),
        Answer::NotAuthorized { reason } => (RefusalKind::NotAuthorized, reason),
        Answer::Gone { reason } => (RefusalKind::Gone, reason),
    };
    Err(Refusal { kind, reason })
}

fn unanswered(failure: &Failure) -> Answer {
    let scope = if failure.kind.concerns_every_request() {
        Scope::Everything
    } else {
        Scope::Unclear
    };
    Answer::Retry {
        reason: failure.to_string(),
        after: None,
        scope,
    }
}

fn unwritable(error: &serde_json::Error) -> (Answer, Limits) {
    let reason = format!("The message cannot be written as JSON: {error}.");
    (Answer::Rejected { reason }, Limits::default())
}

#[cfg(test)]
#[path = "channels_tests.rs"]
mod tests;
