//! Connecting and leaving: the operator's window, the browser that comes back, and Pipedrive's word that somebody left.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use log::{debug, error, info, warn};
use subtle::ConstantTimeEq;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::AppError;
use super::pipedrive::registration;
use crate::config::Config;
use crate::control::{
    ConnectOpened, ConnectPhase, ConnectProgress, ConnectRequest, Connecting, Failure as ControlFailure,
};
use crate::domain::{ChannelId, InstallationId, ProviderChannelId, Secret, Timestamp};
use crate::protocol::budget;
use crate::protocol::pipedrive::oauth::{CALLBACK_PATH, Page, authorize_url};
use crate::queue::to_uplink::PumpHandle;
use crate::store::{ChannelLink, InstallationState, Store};
use crate::uplink::{AccountStatus, Accounts, ChannelsUplink, Connected, Refusal, RefusalKind};

mod callback;
mod pages;
#[cfg(test)]
mod tests;

/// Codes without state that are tried in one window: who comes from the Marketplace needs one.
const STRANGERS: u8 = 5;
/// Between two lines of the log about calls that nobody asked for.
const QUIET: Duration = Duration::from_secs(10);

fn now() -> Timestamp {
    Timestamp::from_system_time(std::time::SystemTime::now())
}

/// What connects and disconnects. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connector(Arc<Inner>);

struct Inner {
    config: Arc<Config>,
    store: Store,
    accounts: Accounts,
    uplink: Arc<ChannelsUplink>,
    pump: OnceLock<PumpHandle>,
    window: Mutex<Option<Window>>,
    progress: watch::Sender<ConnectProgress>,
    /// One exchange at a time, whoever asks.
    turn: Arc<Semaphore>,
    said: Mutex<Option<Instant>>,
}

/// Somebody may connect.
struct Window {
    number: u64,
    state: Secret,
    ends: Instant,
    /// Asked for by name; empty: all that are free.
    channels: Vec<ChannelId>,
    strangers: u8,
}

/// A code that may be exchanged.
struct Admitted {
    code: Secret,
    channels: Vec<ChannelId>,
    window: u64,
    /// The state was right: the window is used up.
    invited: bool,
    turn: OwnedSemaphorePermit,
}

/// What became of a channel while connecting.
struct Outcome {
    channel: ChannelId,
    name: String,
    words: String,
    given: Option<ChannelLink>,
    not_allowed: bool,
}

impl Connector {
    pub(super) fn new(
        config: &Arc<Config>,
        store: &Store,
        accounts: Accounts,
        uplink: Arc<ChannelsUplink>,
    ) -> Self {
        Self(Arc::new(Inner {
            config: Arc::clone(config),
            store: store.clone(),
            accounts,
            uplink,
            pump: OnceLock::new(),
            window: Mutex::default(),
            progress: watch::Sender::default(),
            turn: Arc::new(Semaphore::new(1)),
            said: Mutex::default(),
        }))
    }

    /// The pump, once it is there: it goes on at once when somebody has connected.
    pub(super) fn attach(&self, pump: PumpHandle) -> Result<(), AppError> {
        let twice = |_| AppError::Config("the pump was attached twice".to_owned());
        self.0.pump.set(pump).map_err(twice)
    }
}

impl Inner {
    fn window(&self) -> MutexGuard<'_, Option<Window>> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.as_ref().is_some_and(|open| Instant::now() >= open.ends) {
            *window = None;
        }
        window
    }

    /// Counts the registrations that were accepted as spent; whose they are is known by now.
    fn count(&self, given: &[(ChannelId, ChannelLink)]) {
        let Some(pump) = self.pump.get() else { return };
        for (channel, link) in given {
            if matches!(link, ChannelLink::Registered(_)) {
                let id = ProviderChannelId::new(self.store.gateway_id(), channel);
                pump.count(&id, budget::REGISTER);
            }
        }
    }

    fn wake(&self) {
        if let Some(pump) = self.pump.get() {
            pump.retry_now();
        }
    }

    /// Tells the waiting command, if its window is still the one.
    fn tell(&self, window: u64, edit: impl FnOnce(&mut ConnectProgress)) {
        self.progress.send_if_modified(|progress| {
            let own = progress.window == window;
            if own {
                edit(progress);
                progress.change += 1;
            }
            own
        });
    }

    /// Whether a line of the log about a stranger is due: strangers must not fill the log.
    fn may_say(&self) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let due = said.is_none_or(|at| at.elapsed() >= QUIET);
        if due {
            *said = Some(Instant::now());
        }
        due
    }

    fn strange(&self, what: &str) {
        if self.may_say() {
            warn!(reason = what; "A call of the OAuth callback that nobody here asked for");
        } else {
            debug!(reason = what; "A call of the OAuth callback that nobody here asked for");
        }
    }

    /// Whether a state is the window's. Takes the same time wherever they differ.
    fn is_invited(window: Option<&Window>, state: Option<&Secret>) -> bool {
        let (Some(window), Some(state)) = (window, state) else {
            return false;
        };
        bool::from(window.state.expose().as_bytes().ct_eq(state.expose().as_bytes()))
    }

    /// Lets a code in, or says why not. Whatever happens, a state is used once.
    fn admit(&self, code: Secret, state: Option<&Secret>) -> Result<Admitted, Page> {
        let mut slot = self.window();
        let invited = Self::is_invited(slot.as_ref(), state);
        let Some(window) = slot.as_mut() else {
            self.strange("no connect window is open");
            return Err(pages::no_window(state.is_some()));
        };
        if !invited && state.is_some() {
            self.strange("the state is not the one of the open connect window");
            return Err(pages::no_window(true));
        }
        let Ok(turn) = Arc::clone(&self.turn).try_acquire_owned() else {
            return Err(pages::busy());
        };
        if !invited {
            let Some(left) = window.strangers.checked_sub(1) else {
                self.strange("too many codes without state in one connect window");
                return Err(pages::busy());
            };
            window.strangers = left;
        }
        let admitted = Admitted {
            code,
            channels: window.channels.clone(),
            window: window.number,
            invited,
            turn,
        };
        if invited {
            *slot = None;
        }
        Ok(admitted)
    }

    fn refused(&self, error: &str, state: Option<&Secret>) -> Page {
        let mut slot = self.window();
        let invited = Self::is_invited(slot.as_ref(), state);
        let number = slot.as_ref().map_or(0, |window| window.number);
        if invited {
            *slot = None;
        }
        drop(slot);
        let (page, reason, remedy) = pages::denied(error);
        if invited {
            warn!(reason = reason.as_str(), remedy; "Nobody was connected");
            self.tell(number, |progress| {
                progress.phase = ConnectPhase::Failed;
                progress.lines.push(reason);
                progress.hint = Some(remedy.to_owned());
            });
        } else {
            self.strange("a refusal without the state of an open connect window");
        }
        page
    }

    /// Exchanges a code and registers channels. Blocks.
    fn connect(&self, admitted: Admitted) -> Page {
        let Admitted {
            code,
            channels: asked,
            window,
            invited,
            turn,
        } = admitted;
        self.tell(window, |progress| {
            progress.phase = ConnectPhase::Working;
            progress
                .lines
                .push("Pipedrive sent a code; it is exchanged for tokens.".to_owned());
        });
        let connected = match self.accounts.connect(&code, now()) {
            Ok(connected) => connected,
            Err(problem) => {
                let redirect_uri = self.accounts.app().and_then(|app| app.redirect_uri.clone());
                let (page, reason, remedy) =
                    pages::failed(&problem, redirect_uri.as_deref().unwrap_or_default());
                error!(reason = reason.as_str(), remedy = remedy.as_str(); "Nobody was connected");
                self.tell(window, |progress| {
                    // A stranger's failure does not end the operator's waiting.
                    progress.phase = if invited {
                        ConnectPhase::Failed
                    } else {
                        ConnectPhase::Waiting
                    };
                    progress.lines.push(reason);
                    progress.hint = Some(remedy);
                });
                return page;
            }
        };
        {
            // Whoever came from the Marketplace has used the window up as well.
            let mut slot = self.window();
            if slot.as_ref().is_some_and(|open| open.number == window) {
                *slot = None;
            }
        }
        let who = format!("{} of {}", connected.user.name, connected.user.company);
        self.tell(window, |progress| {
            progress
                .lines
                .push(format!("Connected as {who}; channels are registered."));
        });
        let outcomes = self.register(&connected, &asked);
        let page = self.settle(&connected, &who, &outcomes, window);
        drop(turn);
        self.wake();
        page
    }

    /// Registers what the installation shall have: what it had, what was asked for, and what belongs to nobody.
    fn register(&self, connected: &Connected, asked: &[ChannelId]) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for channel in &self.config.channels {
            let had = connected.channels.contains(&channel.id);
            let named = asked.contains(&channel.id);
            if !(had || named || asked.is_empty()) {
                continue;
            }
            let mut outcome = Outcome {
                channel: channel.id.clone(),
                name: channel.name.clone(),
                words: String::new(),
                given: None,
                not_allowed: false,
            };
            if let Some(words) = self.keeps_away(connected, &channel.id, named) {
                outcome.words = words;
                outcomes.push(outcome);
                continue;
            }
            let id = ProviderChannelId::new(self.store.gateway_id(), &channel.id);
            let registered =
                self.uplink
                    .register_channel_for(&connected.installation, &registration(channel, id), now());
            match registered {
                Ok(()) => {
                    "registered".clone_into(&mut outcome.words);
                    outcome.given = Some(ChannelLink::Registered(now()));
                }
                Err(Refusal {
                    kind: RefusalKind::NotAllowed,
                    reason,
                }) => {
                    outcome.words = format!("not registered: {reason}");
                    outcome.not_allowed = true;
                }
                Err(Refusal { reason, .. }) => {
                    outcome.words = format!("not registered yet, it is tried again: {reason}");
                    outcome.given = Some(ChannelLink::NotRegistered);
                }
            }
            outcomes.push(outcome);
        }
        outcomes
    }

    /// Why a channel stays where it is, in words; `None` when the installation may have it.
    fn keeps_away(&self, connected: &Connected, channel: &ChannelId, named: bool) -> Option<String> {
        if let Some(holder) = self.accounts.holder(channel) {
            if holder.id == connected.installation {
                return None;
            }
            let works = holder.state == InstallationState::Connected;
            if named && !works {
                return None;
            }
            return Some(format!(
                "belongs to {} of {}; to move it, run `pipepost disconnect --installation {}` before",
                holder.user, holder.company, holder.id
            ));
        }
        // Another company would see the history of the first.
        let last = self.accounts.last_holder(channel)?;
        let foreign = last.company_id != connected.user.company_id;
        (foreign && !named).then(|| {
            format!(
                "belonged to {} before, whose conversations would be shown; to move it all the same, run \
                 `pipepost connect --channel {channel}`",
                last.company
            )
        })
    }

    fn settle(&self, connected: &Connected, who: &str, outcomes: &[Outcome], window: u64) -> Page {
        let id = &connected.installation;
        let given: Vec<_> = outcomes
            .iter()
            .filter_map(|outcome| Some((outcome.channel.clone(), outcome.given.clone()?)))
            .collect();
        let refused: Vec<_> = outcomes
            .iter()
            .filter(|outcome| outcome.not_allowed)
            .map(|outcome| outcome.channel.clone())
            .collect();
        let stored = self
            .accounts
            .give(id, given.clone())
            .and_then(|()| self.accounts.release(id, &refused));
        if let Err(problem) = stored {
            error!(reason = problem.to_string().as_str(); "The channels of an installation cannot be stored");
        }
        self.count(&given);
        let lines: Vec<String> = outcomes
            .iter()
            .map(|outcome| format!("{} ({}): {}", outcome.name, outcome.channel, outcome.words))
            .collect();
        for outcome in outcomes {
            info!(installation = id.as_str(), channel = outcome.channel.as_str(), outcome = outcome.words.as_str();
                "A channel while connecting");
        }
        let nothing_allowed = given.is_empty() && !refused.is_empty();
        let (page, hint) = if nothing_allowed {
            self.send_away(connected);
            let (page, remedy) = pages::admin_only(who, lines.clone());
            error!(installation = id.as_str(), remedy = remedy.as_str();
                "Only an admin of the company may register channels (ADMIN_ONLY): nobody was connected");
            (page, remedy)
        } else {
            pages::connected(who, lines.clone(), connected.again, given.is_empty())
        };
        self.tell(window, |progress| {
            progress.phase = if nothing_allowed {
                ConnectPhase::Failed
            } else {
                ConnectPhase::Connected
            };
            progress.lines.extend(lines);
            progress.hint = Some(hint);
            progress.installation = Some(id.to_string());
        });
        page
    }

    /// Somebody who may have no channel is no use: his tokens are not kept.
    fn send_away(&self, connected: &Connected) {
        let id = &connected.installation;
        if let Err(problem) = self.accounts.revoke(id, now()) {
            debug!(reason = problem.to_string().as_str(); "Tokens without channels could not be revoked");
        }
        let gone = if connected.again {
            let reason = "its user may not register channels (ADMIN_ONLY)";
            self.accounts.disconnect(id, reason, now()).map(|_| ())
        } else {
            self.accounts.forget(id)
        };
        if let Err(problem) = gone {
            error!(reason = problem.to_string().as_str(); "Tokens without channels could not be removed");
        }
    }
}

impl Connecting for Connector {
    fn open(&self, request: &ConnectRequest) -> Result<ConnectOpened, ControlFailure> {
        let inner = &self.0;
        let pipedrive = &inner.config.pipedrive;
        let lacks = |what: &str, hint: &str| ControlFailure::conflict(what).with_hint(hint);
        if pipedrive.client_id.is_none() {
            return Err(lacks(
                "the gateway does not know the app: pipedrive.client_id is not set",
                "copy client id and client secret from the app's page in Pipedrive's Developer Hub, then restart",
            ));
        }
        if pipedrive.client_secret.is_none() {
            return Err(lacks(
                "the gateway does not have the app's client secret",
                "write it to /etc/pipepost/credentials/client-secret, or name a file with \
                 pipedrive.client_secret_file, then restart",
            ));
        }
        let app = inner.accounts.app();
        let (Some(app), Some(redirect_uri)) = (app, app.and_then(|app| app.redirect_uri.clone())) else {
            return Err(lacks(
                "the gateway does not know where Pipedrive reaches it: pipedrive.public_url is not set",
                "set it to the tunnel's address, such as https://gateway.example.com, then restart",
            ));
        };
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| ControlFailure::internal(&error))?;
        let state = Secret::new(BASE64URL_NOPAD.encode(&random));
        let url = authorize_url(&app.oauth_url, &app.client_id, &redirect_uri, state.expose());
        let mut channels = Vec::new();
        for text in &request.channels {
            channels.push(text.parse().map_err(|error| ControlFailure::internal(&error))?);
        }
        let mut number = 0;
        inner.progress.send_modify(|progress| {
            number = progress.window + 1;
            *progress = ConnectProgress {
                window: number,
                change: progress.change + 1,
                phase: ConnectPhase::Waiting,
                ..ConnectProgress::default()
            };
        });
        *inner.window() = Some(Window {
            number,
            state,
            ends: Instant::now() + Duration::from_secs(request.minutes * 60),
            channels,
            strangers: STRANGERS,
        });
        info!(minutes = request.minutes; "A connect window is open");
        Ok(ConnectOpened {
            window: number,
            url,
            redirect_uri,
            minutes: request.minutes,
        })
    }

    fn progress(&self) -> watch::Receiver<ConnectProgress> {
        self.0.progress.subscribe()
    }

    fn close(&self, window: u64) {
        let mut slot = self.0.window();
        if slot.as_ref().is_some_and(|open| open.number == window) {
            *slot = None;
            info!("The connect window is closed");
        }
    }

    fn installations(&self) -> Vec<AccountStatus> {
        self.0.accounts.statuses()
    }

    fn disconnect(&self, id: &InstallationId, local: bool) -> Result<String, ControlFailure> {
        let accounts = &self.0.accounts;
        if !local && let Err(problem) = accounts.revoke(id, now()) {
            return Err(ControlFailure::conflict(&format!(
                "Pipedrive was not told, and nothing was changed: {problem}"
            ))
            .with_hint(
                "try again later; or forget the tokens here alone with --local, and remove the app in Pipedrive",
            ));
        }
        let reason = "disconnected by the command `pipepost disconnect`";
        let left = accounts
            .disconnect(id, reason, now())
            .map_err(|error| ControlFailure::internal(&error))?;
        self.0.wake();
        let Some(left) = left else {
            return Ok(format!("{id} was not connected any more"));
        };
        Ok(format!(
            "{} of {} is disconnected; what waits for Pipedrive is kept, `pipepost connect` goes on",
            left.user, left.company
        ))
    }
}

/// The callback's address, as it must be registered with the app.
pub(super) fn redirect_uri(public_url: &str) -> String {
    format!("{public_url}{CALLBACK_PATH}")
}
