//! What the pump shows of itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::state::{Hold, HoldKind, State};
use crate::domain::{ChannelId, ConversationId};
use crate::protocol::retry::Limits;

/// Longest list of waiting conversations that is shown.
const SHOWN: usize = 100;

/// Whether messages flow to Pipedrive. Each reason is a sentence for a person, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum UplinkState {
    /// They do.
    Running,
    /// Nobody has connected the gateway yet.
    NotConnected {
        /// What to do.
        reason: String,
    },
    /// Everything waits.
    Held {
        /// Why.
        reason: String,
        /// Time until the next attempt; zero means with the next message.
        next: Duration,
    },
    /// The access token is not accepted.
    NotAuthorized {
        /// What to do.
        reason: String,
        /// Time until it is tried again.
        next: Duration,
    },
    /// Pipedrive's Channels API does not answer any more. Everything is kept.
    ChannelsApiGone {
        /// What was seen.
        reason: String,
        /// For how long.
        since: Duration,
        /// Time until it is tried again.
        next: Duration,
    },
}

impl UplinkState {
    /// One word for machines.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::NotConnected { .. } => "not_connected",
            Self::Held { .. } => "held",
            Self::NotAuthorized { .. } => "not_authorized",
            Self::ChannelsApiGone { .. } => "channels_api_gone",
        }
    }

    /// A sentence or two for a person.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Running => "Messages flow to Pipedrive.".to_owned(),
            Self::NotConnected { reason } => reason.clone(),
            Self::Held { reason, next } | Self::NotAuthorized { reason, next } => {
                format!("{reason} Next attempt {}.", time_until(*next))
            }
            Self::ChannelsApiGone { reason, since, next } => format!(
                "{reason} Pipedrive has probably withdrawn it; nothing is dropped. Seen for {}; asked again {}.",
                humantime::format_duration(Duration::from_secs(since.as_secs())),
                time_until(*next)
            ),
        }
    }
}

fn time_until(next: Duration) -> String {
    if next.is_zero() {
        return "with the next message".to_owned();
    }
    let seconds = Duration::from_secs(next.as_secs().max(1));
    format!("in {}", humantime::format_duration(seconds))
}

/// A conversation whose next message waits after a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingConversation {
    /// The conversation.
    pub conversation: ConversationId,
    /// Its channel.
    pub channel: ChannelId,
    /// Attempts so far.
    pub attempts: u32,
    /// Time until the next one.
    pub next: Duration,
    /// Why the last one failed.
    pub reason: String,
}

/// A channel that nothing is delivered for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldChannel {
    /// The channel.
    pub channel: ChannelId,
    /// Time until the next attempt.
    pub next: Duration,
    /// Why.
    pub reason: String,
}

/// The way to Pipedrive, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// Whether messages flow.
    pub state: UplinkState,
    /// Conversations that wait on their own account, the next one first; at most 100.
    pub waiting: Vec<WaitingConversation>,
    /// How many wait in all.
    pub waiting_total: usize,
    /// Channels that wait.
    pub channels: Vec<HeldChannel>,
    /// Requests on their way.
    pub in_flight: usize,
    /// Accepted since the start.
    pub accepted: u64,
    /// Refused for good since the start.
    pub failed: u64,
    /// Tokens left today, if Pipedrive says so.
    pub daily_remaining: Option<u64>,
}

impl UplinkStatus {
    pub(super) fn of(state: &State, not_connected: Option<String>, now: Duration) -> Self {
        let mut waiting: Vec<WaitingConversation> = state
            .waits()
            .iter()
            .filter(|(_, wait)| wait.next > now)
            .map(|(conversation, wait)| WaitingConversation {
                conversation: *conversation,
                channel: wait.channel.clone(),
                attempts: wait.attempts,
                next: wait.next.saturating_sub(now),
                reason: wait.reason.clone(),
            })
            .collect();
        let waiting_total = waiting.len();
        waiting.sort_by_key(|wait| wait.next);
        waiting.truncate(SHOWN);
        let held = |(channel, wait): (&ChannelId, &super::state::Wait)| HeldChannel {
            channel: channel.clone(),
            next: wait.next.saturating_sub(now),
            reason: wait.reason.clone(),
        };
        let Limits { daily_remaining, .. } = state.limits;
        Self {
            state: not_connected.map_or_else(
                || of_hold(state.current_hold(), now),
                |reason| UplinkState::NotConnected { reason },
            ),
            waiting,
            waiting_total,
            channels: state.channel_waits().iter().map(held).collect(),
            in_flight: state.running(),
            accepted: state.accepted,
            failed: state.failed,
            daily_remaining,
        }
    }
}

fn of_hold(hold: Option<&Hold>, now: Duration) -> UplinkState {
    let Some(hold) = hold else {
        return UplinkState::Running;
    };
    let (reason, next) = (hold.reason.clone(), hold.until.saturating_sub(now));
    match hold.kind {
        HoldKind::Trouble => UplinkState::Held { reason, next },
        HoldKind::Token => UplinkState::NotAuthorized { reason, next },
        HoldKind::Gone => UplinkState::ChannelsApiGone {
            reason,
            since: now.saturating_sub(hold.since),
            next,
        },
    }
}
