//! What all parts of the sandbox share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::caller::{RecipientsForm, basic};
use super::client::{Client, Gateway, Trust};
use super::clock::Clock;
use super::faults::{Dice, Faults};
use super::limits::{Limiter, Limits};
use super::oauth::{App, Registry};
use super::state::State;
use crate::domain::Secret;

/// How many bytes of a body the call log keeps.
const EXCERPT: usize = 700;

/// The shared heart of the sandbox.
pub(super) struct Core {
    pub(super) token: Secret,
    pub(super) client_id: String,
    pub(super) client_secret: Secret,
    pub(super) basic: String,
    pub(super) recipients_form: RecipientsForm,
    pub(super) import_history: bool,
    pub(super) client: Client,
    gateway_url: Mutex<Option<String>>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    dice: Mutex<Dice>,
    limiter: Mutex<Limiter>,
    oauth: Mutex<Option<Registry>>,
    clock: Mutex<Clock>,
    url: String,
}

/// How a call is judged in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ok,
    Refused,
    Fault,
    Violation,
}

impl Verdict {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Fault => "fault",
            Self::Violation => "violation",
        }
    }
}

/// What a [`Core`] is made from.
pub(super) struct Parts {
    pub(super) token: Secret,
    pub(super) client_id: String,
    pub(super) client_secret: Secret,
    pub(super) recipients_form: RecipientsForm,
    pub(super) import_history: bool,
    pub(super) gateway: Option<Gateway>,
    pub(super) faults: Faults,
    pub(super) limits: Limits,
    pub(super) app: Option<App>,
    /// The sandbox's own base URL.
    pub(super) url: String,
}

impl Core {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let trust = parts
            .gateway
            .as_ref()
            .map_or(Trust::PublicRoots, |g| g.trust.clone());
        Arc::new(Self {
            basic: basic(&parts.client_id, parts.client_secret.expose()),
            token: parts.token,
            client_id: parts.client_id,
            client_secret: parts.client_secret,
            recipients_form: parts.recipients_form,
            import_history: parts.import_history,
            client: Client::new(trust),
            gateway_url: Mutex::new(parts.gateway.map(|g| base(&g.url))),
            state: Mutex::new(State::default()),
            changed: watch::Sender::new(0),
            dice: Mutex::new(Dice::new(parts.faults)),
            limiter: Mutex::new(Limiter::new(parts.limits)),
            oauth: Mutex::new(parts.app.map(Registry::new)),
            clock: Mutex::new(Clock::new(now_ms())),
            url: parts.url,
        })
    }

    /// Looks at the state.
    pub(super) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&lock(&self.state))
    }

    /// Changes the state and wakes everyone who waits for a change.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut lock(&self.state));
        self.changed.send_modify(|version| *version += 1);
        result
    }

    /// Counts up with every change.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Records broken rules.
    pub(super) fn violations(&self, call: &str, problems: &[String]) {
        if problems.is_empty() {
            return;
        }
        self.change(|state| {
            for problem in problems {
                state.violate(now(), call, problem.clone());
            }
        });
    }

    pub(super) fn dice(&self) -> MutexGuard<'_, Dice> {
        lock(&self.dice)
    }

    pub(super) fn limiter(&self) -> MutexGuard<'_, Limiter> {
        lock(&self.limiter)
    }

    /// Works with the OAuth server; `None` where the sandbox has a fixed token instead.
    pub(super) fn oauth<T>(&self, work: impl FnOnce(&mut Registry) -> T) -> Option<T> {
        lock(&self.oauth).as_mut().map(work)
    }

    pub(super) fn clock(&self) -> MutexGuard<'_, Clock> {
        lock(&self.clock)
    }

    /// The server's time in milliseconds since the epoch.
    pub(super) fn server_ms(&self) -> i64 {
        self.clock().now_ms(now_ms())
    }

    /// Base URL of the Channels API's host.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Points the sandbox at a gateway.
    pub(super) fn set_gateway(&self, gateway: Gateway) {
        *lock(&self.gateway_url) = Some(base(&gateway.url));
        self.client.set_trust(gateway.trust);
    }

    pub(super) fn gateway_url(&self) -> Option<String> {
        lock(&self.gateway_url).clone()
    }

    /// The URL of a manifest endpoint; `path` comes after `/api/`.
    pub(super) fn endpoint(&self, path: &str) -> Result<String, String> {
        match self.gateway_url() {
            Some(url) => Ok(format!("{url}/api/{path}")),
            None => Err("the sandbox was not told where the gateway is".to_owned()),
        }
    }
}

fn base(url: &str) -> String {
    url.trim_end_matches('/').to_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The present time, ISO 8601 UTC with milliseconds.
pub(super) fn now() -> String {
    crate::domain::Timestamp::from_unix_ms(now_ms()).to_iso8601()
}

/// The present time in milliseconds since the epoch.
pub(super) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// The beginning of a body as text.
pub(super) trait Excerpt {
    fn excerpt(&self) -> String;
}

impl<T: AsRef<[u8]>> Excerpt for T {
    fn excerpt(&self) -> String {
        let bytes = self.as_ref();
        let start = bytes.get(..EXCERPT.min(bytes.len())).unwrap_or_default();
        let mut text = String::from_utf8_lossy(start).into_owned();
        if bytes.len() > EXCERPT {
            text.push('…');
        }
        text
    }
}
