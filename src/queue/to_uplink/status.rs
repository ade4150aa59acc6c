//! What the pump shows of itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::installation::{Hold, HoldKind};
use super::state::State;
use crate::domain::{ChannelId, ConversationId, InstallationId, Timestamp};
use crate::protocol::budget::{self, Budget, Forecast};
use crate::uplink::NotConnected;

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
    /// A connection that was there is lost until a person connects again. Everything is kept.
    ReconnectNeeded {
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
    /// The tokens of the day are spent. Everything is kept.
    BudgetEmpty {
        /// Whose, and what helps.
        reason: String,
        /// Time until it is tried again.
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
            Self::ReconnectNeeded { .. } => "reconnect_needed",
            Self::Held { .. } => "held",
            Self::BudgetEmpty { .. } => "budget_empty",
            Self::NotAuthorized { .. } => "not_authorized",
            Self::ChannelsApiGone { .. } => "channels_api_gone",
        }
    }

    /// A sentence or two for a person.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Running => "Messages flow to Pipedrive.".to_owned(),
            Self::NotConnected { reason } | Self::ReconnectNeeded { reason } => reason.clone(),
            Self::Held { reason, next }
            | Self::BudgetEmpty { reason, next }
            | Self::NotAuthorized { reason, next } => {
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

impl From<NotConnected> for UplinkState {
    fn from(why: NotConnected) -> Self {
        if why.needs_person {
            Self::ReconnectNeeded { reason: why.reason }
        } else {
            Self::NotConnected { reason: why.reason }
        }
    }
}

impl UplinkState {
    /// How much it calls for a person: of several, the one with the highest is shown first.
    const fn urgency(&self) -> u8 {
        match self {
            Self::Running => 0,
            Self::NotConnected { .. } => 1,
            Self::Held { .. } => 2,
            Self::BudgetEmpty { .. } => 3,
            Self::NotAuthorized { .. } => 4,
            Self::ReconnectNeeded { .. } => 5,
            Self::ChannelsApiGone { .. } => 6,
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

/// The way to one company, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallationStatus {
    /// Which installation.
    pub installation: InstallationId,
    /// Whether its messages flow.
    pub state: UplinkState,
    /// The company's tokens of the day.
    pub budget: BudgetStatus,
}

/// A company's tokens of the day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetStatus {
    /// Spent by this gateway today.
    pub spent: u64,
    /// What the day has, if that is known.
    pub limit: Option<u64>,
    /// What is left of it, if that is known.
    pub left: Option<u64>,
    /// When it ends, if it does before there are new ones.
    pub ends_at: Option<Timestamp>,
    /// All of it in a line for a person.
    pub words: String,
}

impl BudgetStatus {
    fn of(budget: &Budget, now: Timestamp) -> Self {
        Self {
            spent: budget.spent(now),
            limit: budget.limit(),
            left: budget.left(now),
            ends_at: match budget.forecast(now) {
                Forecast::EndsAt(at) => Some(at),
                Forecast::Empty { .. } => Some(now),
                Forecast::Unknown | Forecast::Lasts => None,
            },
            words: budget.words(now),
        }
    }
}

/// The way to Pipedrive, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// Whether messages flow; of several installations, what calls for a person most.
    pub state: UplinkState,
    /// Each installation that was asked for since the start.
    pub installations: Vec<InstallationStatus>,
    /// Conversations that wait on their own account, the next one first; at most 100.
    pub waiting: Vec<WaitingConversation>,
    /// How many wait in all.
    pub waiting_total: usize,
    /// Channels that wait, also for want of an installation unless that is the state of all.
    pub channels: Vec<HeldChannel>,
    /// Requests on their way.
    pub in_flight: usize,
    /// Accepted since the start.
    pub accepted: u64,
    /// Refused for good since the start.
    pub failed: u64,
}

impl UplinkStatus {
    pub(super) fn of(
        state: &State,
        channels: &[(&ChannelId, Result<InstallationId, NotConnected>)],
        now: Duration,
    ) -> Self {
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
        waiting.sort_unstable_by_key(|wait| wait.next);
        waiting.truncate(SHOWN);
        let held = |(channel, wait): (&ChannelId, &super::state::Wait)| HeldChannel {
            channel: channel.clone(),
            next: wait.next.saturating_sub(now),
            reason: wait.reason.clone(),
        };
        let wall = state.wall(now);
        let installations: Vec<InstallationStatus> = state
            .installations()
            .iter()
            .filter_map(|(id, installation)| {
                let budget = state.budget_of(id)?;
                Some(InstallationStatus {
                    installation: id.clone(),
                    state: match installation.current_hold() {
                        None => own_limit(budget, wall).unwrap_or(UplinkState::Running),
                        waits => of_hold(waits, now),
                    },
                    budget: BudgetStatus::of(budget, wall),
                })
            })
            .collect();
        let lost = |(channel, installation): &(&ChannelId, Result<_, NotConnected>)| {
            let why = installation.as_ref().err()?.clone();
            Some(((*channel).clone(), why))
        };
        let unconnected: Vec<(ChannelId, NotConnected)> = channels.iter().filter_map(lost).collect();
        let nobody = unconnected.len() == channels.len();
        let mut held: Vec<HeldChannel> = state.channel_waits().iter().map(held).collect();
        let mut states: Vec<UplinkState> = installations.iter().map(|of| of.state.clone()).collect();
        if nobody {
            states.clear();
        }
        for (channel, why) in unconnected {
            if !nobody {
                held.push(HeldChannel {
                    channel,
                    next: Duration::ZERO,
                    reason: why.reason.clone(),
                });
            }
            // One company that is not connected yet is no trouble of the others.
            if nobody || why.needs_person {
                states.push(why.into());
            }
        }
        Self {
            state: states
                .into_iter()
                .max_by_key(UplinkState::urgency)
                .unwrap_or(UplinkState::Running),
            installations,
            waiting,
            waiting_total,
            channels: held,
            in_flight: state.running(),
            accepted: state.accepted,
            failed: state.failed,
        }
    }
}

/// The configured limit is reached.
fn own_limit(budget: &Budget, now: Timestamp) -> Option<UplinkState> {
    let left = budget::midnight(now).unix_ms().saturating_sub(now.unix_ms());
    budget
        .is_own_limit(now, budget::RECEIVE)
        .then(|| UplinkState::BudgetEmpty {
            reason: "The gateway has spent pipedrive.daily_budget for today. Everything is kept until midnight UTC."
                .to_owned(),
            next: Duration::from_millis(u64::try_from(left).unwrap_or_default()),
        })
}

fn of_hold(hold: Option<&Hold>, now: Duration) -> UplinkState {
    let Some(hold) = hold else {
        return UplinkState::Running;
    };
    let (reason, next) = (hold.reason.clone(), hold.until.saturating_sub(now));
    match hold.kind {
        HoldKind::Trouble => UplinkState::Held { reason, next },
        HoldKind::Day => UplinkState::BudgetEmpty { reason, next },
        HoldKind::Token => UplinkState::NotAuthorized { reason, next },
        HoldKind::Gone => UplinkState::ChannelsApiGone {
            reason,
            since: now.saturating_sub(hold.since),
            next,
        },
    }
}
