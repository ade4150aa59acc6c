//! `pipepost connect` and `disconnect`, and who has connected.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::answers::{Done, Failure};
use super::gateway::Gateway;
use crate::domain::{InstallationId, Timestamp};
use crate::protocol::pipedrive::oauth::{Warning, dies_at, warning};
use crate::store::{Installation, InstallationState, Reader};
use crate::uplink::AccountStatus;

/// How long a question after progress waits for it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest time that a connect window stays open, in minutes.
const MAX_MINUTES: u64 = 24 * 60;

/// `POST /connect`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnectRequest {
    /// Channels to connect; empty: all that belong to nobody.
    #[serde(default)]
    pub channels: Vec<String>,
    /// How long the window stays open.
    pub minutes: u64,
}

/// Answer to `POST /connect`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnectOpened {
    /// Number of this window.
    pub window: u64,
    /// Where a person allows the app.
    pub url: String,
    /// The callback's address, as it must be registered.
    pub redirect_uri: String,
    /// How long the window stays open.
    pub minutes: u64,
}

/// How far connecting has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectPhase {
    /// No window is open.
    #[default]
    Closed,
    /// Nobody has come back yet.
    Waiting,
    /// A code is exchanged, channels are registered.
    Working,
    /// Done.
    Connected,
    /// It did not work.
    Failed,
}

/// `GET /connect`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectProgress {
    /// Number of the window.
    pub window: u64,
    /// Counts the changes.
    pub change: u64,
    /// How far it is.
    pub phase: ConnectPhase,
    /// What has happened so far, in sentences.
    pub lines: Vec<String>,
    /// What to do next, or about what went wrong.
    pub hint: Option<String>,
    /// Who has connected.
    pub installation: Option<String>,
}

/// What connecting needs of a running daemon.
pub trait Connecting: Send + Sync {
    /// Opens a window in which one person may connect; an earlier one closes.
    fn open(&self, request: &ConnectRequest) -> Result<ConnectOpened, Failure>;
    /// How far it is.
    fn progress(&self) -> watch::Receiver<ConnectProgress>;
    /// Closes a window, if it is still this one.
    fn close(&self, window: u64);
    /// Who has connected. Does not block.
    fn installations(&self) -> Vec<AccountStatus>;
    /// Ends an installation at Pipedrive and here; with `local` only here. Blocks.
    fn disconnect(&self, id: &InstallationId, local: bool) -> Result<String, Failure>;
}

/// An installation, for people and scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallationStatus {
    /// Company and user, in Pipedrive's numbers.
    pub id: String,
    /// The company.
    pub company: String,
    /// The user.
    pub user: String,
    /// One word for machines: `connected`, `trouble`, `reconnect_needed`, `needs_person`, `disconnected`.
    pub state: String,
    /// Since when it is disconnected or needs to be connected again, ISO 8601.
    pub since: Option<String>,
    /// Why it is not just connected, and what to do.
    pub reason: Option<String>,
    /// When the user connected last, ISO 8601.
    pub connected_at: String,
    /// When tokens came last, ISO 8601.
    pub refreshed_at: String,
    /// When the access token expires, ISO 8601. It is refreshed before.
    pub token_expires_at: Option<String>,
    /// When the connection ends unless the gateway gets through to Pipedrive before, ISO 8601.
    pub ends_at: Option<String>,
    /// A warning that `ends_at` is near.
    pub warning: Option<String>,
    /// Whether the user shares the app with the whole company.
    pub shared: bool,
    /// Its channels, by their ids in the configuration; of a disconnected one those that it had.
    pub channels: Vec<String>,
}

impl InstallationStatus {
    fn new(record: &Installation, trouble: Option<(&str, bool)>, now: Timestamp) -> Self {
        let alive = record.holds_channels();
        let (state, since, reason) = match (&record.state, trouble) {
            (InstallationState::Connected, None) => ("connected", None, None),
            (InstallationState::Connected, Some((words, needs_person))) => {
                let state = if needs_person { "needs_person" } else { "trouble" };
                (state, None, Some(words.to_owned()))
            }
            (InstallationState::ReconnectNeeded { since, reason }, _) => {
                let words = format!("{reason} Run `pipepost connect` again; messages are kept.");
                ("reconnect_needed", Some(*since), Some(words))
            }
            (InstallationState::Disconnected { since, reason }, _) => {
                let words = format!("{reason}; what waits is kept, `pipepost connect` goes on");
                ("disconnected", Some(*since), Some(words))
            }
        };
        let warned = warning(record.refreshed_at, now).filter(|_| alive);
        Self {
            id: record.id.to_string(),
            company: record.company.clone(),
            user: record.user.clone(),
            state: state.to_owned(),
            since: since.map(Timestamp::to_iso8601),
            reason,
            connected_at: record.connected_at.to_iso8601(),
            refreshed_at: record.refreshed_at.to_iso8601(),
            token_expires_at: alive.then(|| record.expires_at.to_iso8601()),
            ends_at: alive.then(|| dies_at(record.refreshed_at).to_iso8601()),
            warning: warned.map(|warned: Warning| {
                format!(
                    "the connection ends {} unless the gateway gets through to Pipedrive before",
                    warned.words()
                )
            }),
            shared: record.shared,
            channels: record.channels.iter().map(ToString::to_string).collect(),
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_system_time(std::time::SystemTime::now())
}

impl Gateway {
    /// Who has connected.
    pub async fn installations(&self) -> Result<Vec<InstallationStatus>, Failure> {
        let now = now();
        if let Some(live) = &self.live {
            let shown = live.connecting.installations();
            let shown = shown.iter().map(|account| {
                let trouble = account
                    .trouble
                    .as_deref()
                    .map(|words| (words, account.needs_person));
                InstallationStatus::new(&account.record, trouble, now)
            });
            return Ok(shown.collect());
        }
        let records = self.store.read(Reader::installations).await?;
        Ok(records
            .iter()
            .map(|record| InstallationStatus::new(record, None, now))
            .collect())
    }

    /// Opens a connect window.
    pub(super) fn open_connect(&self, request: &ConnectRequest) -> Result<ConnectOpened, Failure> {
        if request.minutes == 0 || request.minutes > MAX_MINUTES {
            return Err(Failure::invalid(&format!(
                "--minutes must be from 1 to {MAX_MINUTES}"
            )));
        }
        for channel in &request.channels {
            self.channel(channel)?;
        }
        self.live()?.connecting.open(request)
    }

    /// How far connecting is, as soon as it is further than `seen`.
    pub(super) async fn connect_progress(&self, seen: u64) -> Result<ConnectProgress, Failure> {
        let mut progress = self.live()?.connecting.progress();
        let changed = tokio::time::timeout(PATIENCE, progress.wait_for(|now| now.change > seen));
        if let Ok(Ok(now)) = changed.await {
            return Ok(now.clone());
        }
        Ok(progress.borrow().clone())
    }

    /// Closes a connect window.
    pub(super) fn close_connect(&self, window: u64) -> Result<Done, Failure> {
        self.live()?.connecting.close(window);
        Ok(Done {
            message: "the connect window is closed".to_owned(),
        })
    }

    /// Ends an installation; without a name the only one.
    pub(super) async fn disconnect(&self, id: Option<&str>, local: bool) -> Result<Done, Failure> {
        let live = self.live()?;
        let held: Vec<_> = live
            .connecting
            .installations()
            .into_iter()
            .filter(|account| account.record.holds_channels())
            .collect();
        let listed = || {
            let named = held.iter().map(|account| {
                let record = &account.record;
                format!("{} ({} of {})", record.id, record.user, record.company)
            });
            named.collect::<Vec<_>>().join(", ")
        };
        let found = match (id, held.as_slice()) {
            (_, []) => {
                return Err(Failure::not_found("nobody is connected"));
            }
            (None, [only]) => only,
            (None, _) => {
                return Err(Failure::invalid("several installations are connected")
                    .with_hint(&format!("name one with --installation: {}", listed())));
            }
            (Some(id), all) => all
                .iter()
                .find(|account| account.record.id.as_str() == id)
                .ok_or_else(|| {
                    Failure::not_found(&format!("no installation {id:?} is connected"))
                        .with_hint(&format!("connected: {}", listed()))
                })?,
        };
        let (id, connecting) = (found.record.id.clone(), std::sync::Arc::clone(&live.connecting));
        let done = tokio::task::spawn_blocking(move || connecting.disconnect(&id, local)).await;
        let message = done.map_err(|error| Failure::internal(&error))??;
        Ok(Done { message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_769_744_285_007);

    fn record(state: InstallationState) -> Installation {
        Installation {
            id: InstallationId::of_user(12, 7),
            company_id: 12,
            company: "Acme".to_owned(),
            user_id: 7,
            user: "Ada".to_owned(),
            api_domain: "https://acme.pipedrive.com".to_owned(),
            tokens: b"secret tokens".to_vec(),
            connected_at: NOW,
            refreshed_at: NOW,
            expires_at: NOW.plus_ms(3_600_000),
            state,
            shared: false,
            channels: vec!["desk".parse().unwrap()],
        }
    }

    fn shown(state: InstallationState, trouble: Option<(&str, bool)>, days: i64) -> InstallationStatus {
        InstallationStatus::new(&record(state), trouble, NOW.plus_ms(days * 86_400_000))
    }

    #[test]
    fn the_end_of_a_connection_is_warned_of_at_30_7_and_1_days() {
        let warned = |days| {
            shown(InstallationState::Connected, None, days)
                .warning
                .unwrap_or_default()
        };
        assert_eq!(warned(29), "");
        assert!(warned(30).contains("30 days"));
        assert!(warned(53).contains("7 days"));
        assert!(warned(59).contains("a day"));
        assert_eq!(
            shown(InstallationState::Connected, None, 0).ends_at.unwrap(),
            NOW.plus_ms(60 * 86_400_000).to_iso8601()
        );
    }

    #[test]
    fn each_state_has_its_word_and_its_remedy_and_no_token() {
        let (since, reason) = (NOW, "because".to_owned());
        let gone = InstallationState::Disconnected {
            since,
            reason: reason.clone(),
        };
        let refused = InstallationState::ReconnectNeeded { since, reason };
        for (state, trouble, word) in [
            (InstallationState::Connected, None, "connected"),
            (InstallationState::Connected, Some(("later", false)), "trouble"),
            (
                InstallationState::Connected,
                Some(("the key", true)),
                "needs_person",
            ),
            (refused, None, "reconnect_needed"),
            (gone, None, "disconnected"),
        ] {
            let shown = shown(state, trouble, 0);
            assert_eq!(shown.state, word);
            assert_eq!(shown.reason.is_none(), word == "connected");
            assert_eq!(shown.ends_at.is_none(), word == "disconnected");
            assert!(!serde_json::to_string(&shown).unwrap().contains("secret"));
        }
    }
}
