//! Which installation a channel belongs to, and its access token: refreshed before it expires, by one thread at a time,
//! and stored before it is used.
//!
//! Everything is looked up in memory; the store has what must survive. Calls block, except where it says otherwise.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use log::error;

use super::NotConnected;
use super::channels::AccessToken;
use super::oauth::{App, SignIn};
use super::seal::{Seal, Tokens};
use crate::domain::{ChannelId, GatewayId, InstallationId, ProviderChannelId, Secret, Timestamp};
use crate::http::Client;
use crate::protocol::pipedrive::oauth::{Granted, Refused, User, Warning, api_base};
use crate::store::{ChannelLink, Installation, InstallationState, Store, StoreError};

mod connecting;
mod refreshing;
mod waiting;

pub use connecting::{ConnectError, Connected};
use waiting::wait_for;

/// What accounts are made of.
pub struct AccountOptions {
    /// For the sign-in.
    pub client: Client,
    /// The app; without it nobody connects and nothing is refreshed.
    pub app: Option<App>,
    /// A configured base of the API, which counts for every installation.
    pub api_url: Option<String>,
    /// Base of the API and token that are configured instead of connecting.
    pub fixed: (String, AccessToken),
    /// Encrypts tokens at rest.
    pub token_key: Option<Secret>,
}

/// What a request needs.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// Base of the API.
    pub(super) base: Arc<str>,
    pub(super) token: Secret,
    /// Which of the installation's tokens it is; `None` for the configured one, which cannot be refreshed.
    origin: Option<(InstallationId, u64)>,
}

/// Why there is no token now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Blocked {
    /// A person has to do something.
    NotConnected(NotConnected),
    /// It may work later.
    Later { reason: String, after: Option<Duration> },
}

/// How an installation is, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountStatus {
    /// As it is stored, without its tokens.
    pub record: Installation,
    /// What keeps its tokens from being used or refreshed, with the remedy.
    pub trouble: Option<String>,
    /// Whether only a person can end that trouble.
    pub needs_person: bool,
}

/// All installations, and the configured token. Cheap to clone.
#[derive(Clone)]
pub struct Accounts(Arc<Inner>);

struct Inner {
    store: Option<(Store, GatewayId)>,
    fixed: (Arc<str>, AccessToken),
    sign_in: Option<SignIn>,
    api_url: Option<String>,
    seal: Seal,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    accounts: Vec<Arc<Account>>,
    owners: HashMap<ProviderChannelId, Arc<Account>>,
}

struct Account {
    id: InstallationId,
    state: RwLock<State>,
    /// Held during a refresh.
    refreshing: Mutex<Attempts>,
}

struct State {
    /// Its `tokens` are not kept here.
    record: Installation,
    base: Arc<str>,
    tokens: Option<Tokens>,
    /// Counts the tokens.
    generation: u64,
    /// Whether the stored tokens are to be sealed anew.
    outdated: bool,
    /// What keeps tokens from being read or refreshed, and whether only a person can end it.
    trouble: Option<(String, bool)>,
}

#[derive(Default)]
struct Attempts {
    failures: u32,
    not_before: Option<Instant>,
    refreshed: Option<Instant>,
    /// Given by Pipedrive and not stored yet: the store refused.
    unsaved: Option<Granted>,
    warned: Option<Warning>,
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// `Ada of Acme`
pub(super) fn called(record: &Installation) -> String {
    format!("{} of {}", record.user, record.company)
}

impl State {
    /// Whether its tokens can be used at all.
    fn usable(&self) -> Result<&Tokens, NotConnected> {
        let not = |reason: String| NotConnected {
            reason,
            needs_person: true,
        };
        match &self.record.state {
            InstallationState::Connected => match (&self.tokens, &self.trouble) {
                (Some(tokens), _) => Ok(tokens),
                (None, Some((reason, _))) => Err(not(reason.clone())),
                (None, None) => Err(not(
                    "There are no tokens: run `pipepost connect` again.".to_owned()
                )),
            },
            InstallationState::ReconnectNeeded { reason, .. } => Err(not(format!(
                "Reconnect needed: {reason} Messages are kept; run `pipepost connect` again as {}.",
                called(&self.record)
            ))),
            InstallationState::Disconnected { reason, .. } => Err(not(format!(
                "Disconnected: {reason}. Messages are kept; run `pipepost connect` to go on."
            ))),
        }
    }

    fn access(&self, id: &InstallationId) -> Result<Access, Blocked> {
        let tokens = self.usable().map_err(Blocked::NotConnected)?;
        Ok(Access {
            base: Arc::clone(&self.base),
            token: tokens.access.clone(),
            origin: Some((id.clone(), self.generation)),
        })
    }
}

impl Accounts {
    /// The configured token alone, without a store: nobody can connect.
    #[must_use]
    pub fn fixed(api_url: &str, token: AccessToken) -> Self {
        Self(Arc::new(Inner {
            store: None,
            fixed: (api_url.trim_end_matches('/').into(), token),
            sign_in: None,
            api_url: None,
            seal: Seal::new(None),
            table: RwLock::default(),
        }))
    }

    /// Reads who has connected. An installation whose tokens cannot be read keeps them and says so.
    pub fn open(store: &Store, options: AccountOptions) -> Result<Self, StoreError> {
        let AccountOptions {
            client,
            app,
            api_url,
            fixed: (fixed_url, fixed_token),
            token_key,
        } = options;
        let inner = Inner {
            store: Some((store.clone(), store.gateway_id().clone())),
            fixed: (fixed_url.trim_end_matches('/').into(), fixed_token),
            sign_in: app.map(|app| SignIn::new(client, app)),
            api_url: api_url.map(|url| url.trim_end_matches('/').to_owned()),
            seal: Seal::new(token_key.as_ref()),
            table: RwLock::default(),
        };
        let accounts = Self(Arc::new(inner));
        for record in store.reader().installations()? {
            accounts.take_up(record);
        }
        Ok(accounts)
    }

    /// An installation as it was stored.
    fn take_up(&self, mut record: Installation) {
        let sealed = std::mem::take(&mut record.tokens);
        let mut state = State {
            base: self.base_of(&record.api_domain).into(),
            tokens: None,
            generation: 0,
            outdated: self.0.seal.is_outdated(&sealed),
            trouble: None,
            record,
        };
        if !sealed.is_empty() {
            match self.0.seal.open(&state.record.id, &sealed) {
                Ok(tokens) => state.tokens = Some(tokens),
                Err(problem) => {
                    let words = format!(
                        "The installation of {} cannot be used: {problem}. Put the key back (the credential \
                         token-key or pipedrive.token_key_file) and restart, or run `pipepost connect` again; nothing \
                         is lost meanwhile.",
                        called(&state.record)
                    );
                    error!(installation = state.record.id.as_str(), reason = words.as_str(); "Tokens cannot be read");
                    state.trouble = Some((words, true));
                }
            }
        }
        self.insert(state);
    }

    fn insert(&self, state: State) {
        let account = Arc::new(Account {
            id: state.record.id.clone(),
            state: RwLock::new(state),
            refreshing: Mutex::default(),
        });
        let mut table = write(&self.0.table);
        table.accounts.retain(|other| other.id != account.id);
        table.accounts.push(account);
        self.assign(&mut table);
    }

    /// Looks up again whose the channels are.
    fn assign(&self, table: &mut Table) {
        let Some((_, gateway)) = &self.0.store else { return };
        table.owners.clear();
        for account in &table.accounts {
            let state = read(&account.state);
            for channel in &state.record.channels {
                let id = ProviderChannelId::new(gateway, channel);
                let held = state.record.holds_channels();
                // Of a disconnected installation the channel is remembered, until another one has it.
                if held || !table.owners.contains_key(&id) {
                    table.owners.insert(id, Arc::clone(account));
                }
            }
        }
    }

    fn base_of(&self, api_domain: &str) -> String {
        if let Some(url) = &self.0.api_url {
            return url.clone();
        }
        let local = self.0.sign_in.as_ref().is_some_and(SignIn::is_local);
        api_base(api_domain, local).unwrap_or_else(|| self.0.fixed.0.to_string())
    }

    fn account(&self, id: &InstallationId) -> Option<Arc<Account>> {
        let table = read(&self.0.table);
        table.accounts.iter().find(|account| account.id == *id).cloned()
    }

    fn owner(&self, channel: &ProviderChannelId) -> Option<Arc<Account>> {
        read(&self.0.table).owners.get(channel).cloned()
    }

    /// Whose limits and tokens a call for this channel uses. From memory; does not block.
    pub fn installation(&self, channel: &ProviderChannelId) -> Result<InstallationId, NotConnected> {
        let Some(account) = self.owner(channel) else {
            return self.fixed_installation();
        };
        let state = read(&account.state);
        let (usable, held) = (state.usable().map(|_| ()), state.record.holds_channels());
        drop(state);
        match usable {
            Ok(()) => Ok(account.id.clone()),
            // A disconnected installation does not keep a channel from the configured token.
            Err(_) if !held && self.0.fixed.1.is_there() => self.fixed_installation(),
            Err(not) => Err(not),
        }
    }

    fn fixed_installation(&self) -> Result<InstallationId, NotConnected> {
        if self.0.fixed.1.is_there() {
            return Ok(InstallationId::of_configured_token());
        }
        let table = read(&self.0.table);
        let connected = table
            .accounts
            .iter()
            .any(|account| read(&account.state).usable().is_ok());
        let reason = if connected {
            "This channel belongs to no installation yet. Messages are kept; run `pipepost channels register` or \
             `pipepost connect` with it."
        } else {
            "Not connected to Pipedrive yet. Messages are kept; run `pipepost connect`, or set \
             pipedrive.access_token_file or the credential access-token and restart the gateway."
        };
        Err(NotConnected {
            reason: reason.to_owned(),
            needs_person: false,
        })
    }

    /// All installations, also disconnected ones. From memory; does not block.
    #[must_use]
    pub fn statuses(&self) -> Vec<AccountStatus> {
        let table = read(&self.0.table);
        let status = |account: &Arc<Account>| {
            let state = read(&account.state);
            let (trouble, needs_person) = match &state.trouble {
                Some((words, needs_person)) => (Some(words.clone()), *needs_person),
                None => (None, false),
            };
            AccountStatus {
                record: state.record.clone(),
                trouble,
                needs_person,
            }
        };
        table.accounts.iter().map(status).collect()
    }
}

#[cfg(test)]
#[path = "accounts_tests.rs"]
mod tests;
