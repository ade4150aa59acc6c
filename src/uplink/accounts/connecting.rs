//! Installations come and go.

use log::{info, warn};

use super::{
    Account, Accounts, App, ChannelId, ChannelLink, Installation, InstallationId, InstallationState, Refused,
    Secret, SignIn, State, StoreError, Timestamp, Tokens, User, api_base, called, ms, read, wait_for, write,
};

/// Why somebody could not connect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Client id, secret or public address are missing.
    #[error("the gateway lacks client id, client secret or public address")]
    NotConfigured,
    /// Pipedrive did not give tokens, or not say whose they are.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The app lacks the scope.
    #[error("the app lacks the scope messengers-integration")]
    NoScope,
    /// The answer lacks a refresh token or a usable address of the API.
    #[error("Pipedrive's answer lacks {0}")]
    Incomplete(&'static str),
    /// The store did not take the tokens: they were not used.
    #[error("the tokens cannot be stored: {0}")]
    Store(#[from] StoreError),
}

/// Somebody has connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Who.
    pub installation: InstallationId,
    /// As Pipedrive says it.
    pub user: User,
    /// Whether he was connected before.
    pub again: bool,
    /// The channels that he has, or had when he left.
    pub channels: Vec<ChannelId>,
}

impl Accounts {
    /// The app as it is configured.
    #[must_use]
    pub fn app(&self) -> Option<&App> {
        self.0.sign_in.as_ref().map(SignIn::app)
    }

    /// A code becomes an installation: tokens, whose they are, and both stored durably before anything uses them.
    pub fn connect(&self, code: &Secret, now: Timestamp) -> Result<Connected, ConnectError> {
        let sign_in = self.0.sign_in.as_ref().ok_or(ConnectError::NotConfigured)?;
        if sign_in.app().redirect_uri.is_none() {
            return Err(ConnectError::NotConfigured);
        }
        let granted = sign_in.exchange(code, now)?;
        if !granted.has_scope() {
            return Err(ConnectError::NoScope);
        }
        let refresh = granted
            .refresh
            .clone()
            .ok_or(ConnectError::Incomplete("a refresh token"))?;
        let domain = granted
            .api_domain
            .clone()
            .filter(|domain| self.0.api_url.is_some() || api_base(domain, sign_in.is_local()).is_some())
            .ok_or(ConnectError::Incomplete("the address of the company's API"))?;
        let base = self.base_of(&domain);
        let user = sign_in.user(&base, &granted.access, now)?;
        let tokens = Tokens {
            access: granted.access.clone(),
            refresh,
            lifetime: granted.lifetime,
        };
        let (again, channels) = self.adopt(&user, domain, tokens, now)?;
        let installation = InstallationId::of_user(user.company_id, user.id);
        info!(installation = installation.as_str(), company = user.company.as_str(); "Connected to Pipedrive");
        Ok(Connected {
            installation,
            user,
            again,
            channels,
        })
    }

    fn adopt(
        &self,
        user: &User,
        api_domain: String,
        tokens: Tokens,
        now: Timestamp,
    ) -> Result<(bool, Vec<ChannelId>), StoreError> {
        let (store, _) = self.0.store.as_ref().ok_or(StoreError::Closed)?;
        let id = InstallationId::of_user(user.company_id, user.id);
        let sealed = self.0.seal.seal(&id, &tokens).ok_or(StoreError::NoEntropy)?;
        let before = self
            .account(&id)
            .map(|account| read(&account.state).record.clone());
        let again = before.is_some();
        // Unlike every other time of connecting, also when the clock stands still or was set back: by it a refresh
        // that began before is told from one that began after.
        let connected_at = before
            .as_ref()
            .filter(|record| record.connected_at == now)
            .map_or(now, |_| now.plus_ms(1));
        let (channels, shared) =
            before.map_or((Vec::new(), false), |record| (record.channels, record.shared));
        let mut record = Installation {
            id: id.clone(),
            company_id: user.company_id,
            company: user.company.clone(),
            user_id: user.id,
            user: user.name.clone(),
            api_domain,
            tokens: sealed,
            connected_at,
            refreshed_at: now,
            expires_at: now.plus_ms(ms(tokens.lifetime)),
            state: InstallationState::Connected,
            shared,
            // What it had before it was disconnected is given back once it is registered.
            channels: channels.clone(),
        };
        let stored = record.clone();
        wait_for(store.change_installation(&id, move |slot| *slot = Some(stored)))?;
        record.tokens = Vec::new();
        self.insert(State {
            base: self.base_of(&record.api_domain).into(),
            tokens: Some(tokens),
            generation: 0,
            outdated: false,
            trouble: None,
            record,
        });
        Ok((again, channels))
    }

    /// Gives channels to an installation, away from any other.
    pub fn give(
        &self,
        id: &InstallationId,
        channels: Vec<(ChannelId, ChannelLink)>,
    ) -> Result<(), StoreError> {
        let (store, _) = self.0.store.as_ref().ok_or(StoreError::Closed)?;
        let given: Vec<ChannelId> = channels.iter().map(|(channel, _)| channel.clone()).collect();
        wait_for(store.give_channels(id, channels))?;
        let mut table = write(&self.0.table);
        for account in &table.accounts {
            let mut state = write(&account.state);
            let mine = account.id == *id;
            let own = &mut state.record.channels;
            own.retain(|channel| !given.contains(channel));
            if mine {
                own.extend(given.iter().cloned());
            }
        }
        self.assign(&mut table);
        Ok(())
    }

    /// Takes channels away from an installation: Pipedrive does not let its user have them.
    pub fn release(&self, id: &InstallationId, channels: &[ChannelId]) -> Result<(), StoreError> {
        let (store, _) = self.0.store.as_ref().ok_or(StoreError::Closed)?;
        let gone = channels.to_vec();
        wait_for(store.change_installation(id, move |slot| {
            if let Some(record) = slot {
                record.channels.retain(|channel| !gone.contains(channel));
            }
        }))?;
        let mut table = write(&self.0.table);
        if let Some(account) = table.accounts.iter().find(|account| account.id == *id) {
            write(&account.state)
                .record
                .channels
                .retain(|channel| !channels.contains(channel));
        }
        self.assign(&mut table);
        Ok(())
    }

    /// Whose a channel is, among those that have tokens or need new ones.
    #[must_use]
    pub fn holder(&self, channel: &ChannelId) -> Option<Installation> {
        read(&self.0.table).accounts.iter().find_map(|account| {
            let state = read(&account.state);
            let holds = state.record.holds_channels() && state.record.channels.contains(channel);
            holds.then(|| state.record.clone())
        })
    }

    /// The disconnected installation that had a channel last.
    #[must_use]
    pub fn last_holder(&self, channel: &ChannelId) -> Option<Installation> {
        read(&self.0.table).accounts.iter().find_map(|account| {
            let state = read(&account.state);
            state
                .record
                .channels
                .contains(channel)
                .then(|| state.record.clone())
        })
    }

    /// Installations whose tokens can be used.
    #[must_use]
    pub fn connected(&self) -> Vec<Installation> {
        let table = read(&self.0.table);
        table
            .accounts
            .iter()
            .filter_map(|account| {
                let state = read(&account.state);
                state.usable().ok().map(|_| state.record.clone())
            })
            .collect()
    }

    /// Ends an installation at Pipedrive. It stays here until [`Self::disconnect`].
    pub fn revoke(&self, id: &InstallationId, now: Timestamp) -> Result<(), ConnectError> {
        let sign_in = self.0.sign_in.as_ref().ok_or(ConnectError::NotConfigured)?;
        let tokens = self
            .account(id)
            .and_then(|account| read(&account.state).tokens.clone());
        match tokens {
            Some(tokens) => match sign_in.revoke(&tokens.refresh, now) {
                // Not valid any more: what was wanted.
                Err(Refused::Grant(_)) => Ok(()),
                other => Ok(other?),
            },
            // Nothing that could be revoked.
            None => Ok(()),
        }
    }

    /// Forgets the tokens of an installation and unlinks its channels; their queues stay. `None` when there is no such
    /// installation, or no longer.
    pub fn disconnect(
        &self,
        id: &InstallationId,
        reason: &str,
        now: Timestamp,
    ) -> Result<Option<Installation>, StoreError> {
        let (store, _) = self.0.store.as_ref().ok_or(StoreError::Closed)?;
        let Some(account) = self.account(id).filter(|account| is_held(account)) else {
            return Ok(None);
        };
        let left = wait_for(store.disconnect_installation(id, now, reason.to_owned()))?;
        let Some(left) = left else { return Ok(None) };
        {
            let mut state = write(&account.state);
            state.record.state = left.state.clone();
            state.tokens = None;
            state.trouble = None;
            state.generation += 1;
        }
        self.assign(&mut write(&self.0.table));
        warn!(installation = id.as_str(), who = called(&left).as_str(), reason;
            "Disconnected from Pipedrive; messages are kept, run `pipepost connect` to go on");
        Ok(Some(left))
    }

    /// Removes an installation that never had a channel.
    pub fn forget(&self, id: &InstallationId) -> Result<(), StoreError> {
        let (store, _) = self.0.store.as_ref().ok_or(StoreError::Closed)?;
        wait_for(store.change_installation(id, |slot| *slot = None))?;
        let mut table = write(&self.0.table);
        table.accounts.retain(|account| account.id != *id);
        self.assign(&mut table);
        Ok(())
    }

    /// A user shares the app with his company, or does not any more. `false` when he has not connected here.
    pub fn share(&self, id: &InstallationId, shared: bool) -> Result<bool, StoreError> {
        let (store, _) = self.0.store.as_ref().ok_or(StoreError::Closed)?;
        let Some(account) = self.account(id) else {
            return Ok(false);
        };
        wait_for(store.change_installation(id, move |slot| {
            if let Some(record) = slot {
                record.shared = shared;
            }
        }))?;
        write(&account.state).record.shared = shared;
        Ok(true)
    }

    /// Asks Pipedrive for new tokens now: the answer shows whether the installation still stands.
    pub fn probe(&self, id: &InstallationId, now: Timestamp) {
        if let Some(account) = self.account(id) {
            let generation = read(&account.state).generation;
            drop(self.refresh(&account, generation, true, now));
        }
    }
}

fn is_held(account: &Account) -> bool {
    read(&account.state).record.holds_channels()
}
