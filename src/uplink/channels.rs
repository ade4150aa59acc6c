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

use super::accounts::{Access, Accounts, Blocked};
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

    pub(super) fn get(&self) -> Option<Secret> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_there(&self) -> bool {
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
    /// The user whose token it is may not do this: mostly he is no admin.
    NotAllowed,
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

/// The Channels API, each channel with the address and the token of its installation. Cheap to clone.
#[derive(Clone)]
pub struct ChannelsUplink {
    client: Client,
    accounts: Accounts,
    form: TimeForm,
}

/// With whose token a call is made.
#[derive(Clone, Copy)]
enum By<'a> {
    /// The channel's installation.
    Owner(&'a ProviderChannelId),
    /// This one, to which the channel does not belong yet.
    Installation(&'a InstallationId),
}

impl ChannelsUplink {
    /// Uses the API below `api_url`, e.g. `https://acme.pipedrive.com/api/v1`, with a configured token.
    #[must_use]
    pub fn new(client: Client, api_url: &str, token: AccessToken, form: TimeForm) -> Self {
        Self::with_accounts(client, Accounts::fixed(api_url, token), form)
    }

    /// Uses the tokens of whoever has connected.
    #[must_use]
    pub const fn with_accounts(client: Client, accounts: Accounts, form: TimeForm) -> Self {
        Self {
            client,
            accounts,
            form,
        }
    }

    /// `POST /channels`. Blocks.
    pub fn register_channel(&self, channel: &Registration, now: Timestamp) -> Result<(), Refusal> {
        self.connected(&channel.id)?;
        done(self.post_channel(By::Owner(&channel.id), channel, now).0)
    }

    /// `POST /channels` with the token of an installation that shall get the channel. Blocks.
    pub fn register_channel_for(
        &self,
        installation: &InstallationId,
        channel: &Registration,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        done(self.post_channel(By::Installation(installation), channel, now).0)
    }

    /// `DELETE /channels/{id}`. Blocks.
    pub fn delete_channel(&self, channel: &ProviderChannelId, now: Timestamp) -> Result<(), Refusal> {
        self.connected(channel)?;
        let path = channel_path(channel);
        let by = By::Owner(channel);
        done(
            self.call(by, || Call::DeleteChannel, Method::Delete, &path, None, now)
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
        self.connected(channel)?;
        let path = conversation_path(channel, conversation);
        let by = By::Owner(channel);
        done(
            self.call(by, || Call::DeleteConversation, Method::Delete, &path, None, now)
                .0,
        )
    }

    fn connected(&self, channel: &ProviderChannelId) -> Result<(), Refusal> {
        match self.accounts.installation(channel) {
            Ok(_) => Ok(()),
            Err(NotConnected { reason, .. }) => Err(Refusal {
                kind: RefusalKind::NotConnected,
                reason,
            }),
        }
    }

    fn post_channel(&self, by: By<'_>, channel: &Registration, now: Timestamp) -> (Answer, Limits) {
        let body = RegisterChannel {
            name: &channel.name,
            provider_channel_id: &channel.id,
            avatar_url: channel.avatar_url.as_deref(),
            provider_type: channel.provider_type,
            template_support: channel.template_support,
        };
        match serde_json::to_vec(&body) {
            Ok(body) => self.call(
                by,
                || Call::Register,
                Method::Post,
                REGISTER_PATH,
                Some(&body),
                now,
            ),
            Err(error) => unwritable(&error),
        }
    }

    /// Makes a call and judges the answer; what the call was is asked after the answer. A token that is refused is
    /// replaced once.
    fn call(
        &self,
        by: By<'_>,
        call: impl FnOnce() -> Call,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
        now: Timestamp,
    ) -> (Answer, Limits) {
        let access = match by {
            By::Owner(channel) => self.accounts.access(channel, now),
            By::Installation(id) => self.accounts.access_for(id, now),
        };
        let access = match access {
            Ok(access) => access,
            Err(blocked) => return (blocked.into(), Limits::default()),
        };
        let send = |access: &Access| {
            self.client.send(&Request {
                method,
                url: &format!("{}{path}", access.base),
                bearer: Some(&access.token),
                basic: None,
                body: body.map(|bytes| (JSON, bytes)),
            })
        };
        let mut response = send(&access);
        if response.as_ref().is_ok_and(|response| response.status == 401) {
            match self.accounts.another(&access, now) {
                Some(Ok(access)) => response = send(&access),
                Some(Err(blocked)) => return (blocked.into(), Limits::default()),
                None => {}
            }
        }
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
    fn installation(&self, channel: &ProviderChannelId) -> Result<InstallationId, NotConnected> {
        self.accounts.installation(channel)
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
            Ok(body) => {
                let by = By::Owner(delivery.channel);
                self.call(by, call, Method::Post, RECEIVE_PATH, Some(&body), now)
            }
            Err(error) => unwritable(&error),
        };
        Delivered {
            outcome: answer.into(),
            limits,
        }
    }

    fn register(&self, channel: &Registration, now: Timestamp) -> Delivered {
        let (answer, limits) = self.post_channel(By::Owner(&channel.id), channel, now);
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

impl From<Blocked> for Answer {
    fn from(blocked: Blocked) -> Self {
        let (reason, after) = match blocked {
            Blocked::NotConnected(not) => (not.reason, None),
            Blocked::Later { reason, after } => (reason, after),
        };
        Self::Retry {
            reason,
            after,
            scope: Scope::Everything,
        }
    }
}

fn done(answer: Answer) -> Result<(), Refusal> {
    let (kind, reason) = match answer {
        Answer::Accepted => return Ok(()),
        // Only a refusal of this user concerns a channel and nothing else.
        Answer::Retry {
            reason,
            scope: Scope::Channel,
            ..
        } => (RefusalKind::NotAllowed, reason),
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
