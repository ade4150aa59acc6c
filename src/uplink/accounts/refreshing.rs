//! Tokens stay fresh: before they expire, after a refusal, and while nobody uses them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{error, info, warn};

use super::{
    Access, Account, Accounts, Attempts, Blocked, Granted, Installation, InstallationState, SignIn,
    StoreError, Timestamp, Tokens, api_base, called, lock, ms, read, wait_for, write,
};
use crate::domain::{InstallationId, ProviderChannelId};
use crate::protocol::pipedrive::oauth::{
    Refused, Warning, dies_at, idle_refresh_due, refresh_early, retry_gap, warning,
};
use crate::protocol::retry::Backoff;

/// Pauses between refreshes that find no answer.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    most: Duration::from_secs(5 * 60),
};
/// Pause after a refusal that only a person can end, such as a wrong client secret.
const PERSON_PAUSE: Duration = Duration::from_secs(15 * 60);

fn jitter() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

impl Accounts {
    /// A token for a call. Refreshes it first when it is about to expire.
    pub(in crate::uplink) fn access(
        &self,
        channel: &ProviderChannelId,
        now: Timestamp,
    ) -> Result<Access, Blocked> {
        let id = self.installation(channel).map_err(Blocked::NotConnected)?;
        match self.account(&id) {
            Some(account) => self.access_of(&account, now),
            None => match self.0.fixed.1.get() {
                Some(token) => Ok(Access {
                    base: Arc::clone(&self.0.fixed.0),
                    token,
                    origin: None,
                }),
                None => Err(self.fixed_installation().err().map_or_else(
                    || Blocked::Later {
                        reason: String::new(),
                        after: None,
                    },
                    Blocked::NotConnected,
                )),
            },
        }
    }

    /// The same for an installation that does not have the channel yet.
    pub(in crate::uplink) fn access_for(
        &self,
        id: &InstallationId,
        now: Timestamp,
    ) -> Result<Access, Blocked> {
        match self.account(id) {
            Some(account) => self.access_of(&account, now),
            None => Err(Blocked::Later {
                reason: format!("There is no installation {id}."),
                after: None,
            }),
        }
    }

    fn access_of(&self, account: &Account, now: Timestamp) -> Result<Access, Blocked> {
        let access = {
            let state = read(&account.state);
            let access = state.access(&account.id)?;
            let early = state.tokens.as_ref().map(|tokens| refresh_early(tokens.lifetime));
            let refresh_at = state.record.expires_at.plus_ms(-ms(early.unwrap_or_default()));
            if now < refresh_at {
                return Ok(access);
            }
            access
        };
        let generation = access.origin.map_or(0, |(_, generation)| generation);
        self.refresh(account, generation, false, now)
    }

    /// After a refusal (401) of `used`: another token, if there can be one. `None` for the configured token.
    pub(in crate::uplink) fn another(
        &self,
        used: &Access,
        now: Timestamp,
    ) -> Option<Result<Access, Blocked>> {
        let (id, generation) = used.origin.as_ref()?;
        let account = self.account(id)?;
        Some(self.refresh(&account, *generation, true, now))
    }

    /// One refresh for everybody who has seen this generation. `forced`: the token is refused although it should live.
    pub(super) fn refresh(
        &self,
        account: &Account,
        seen: u64,
        forced: bool,
        now: Timestamp,
    ) -> Result<Access, Blocked> {
        let mut attempts = lock(&account.refreshing);
        let (access, tokens, alive) = {
            let state = read(&account.state);
            let access = state.access(&account.id)?;
            if state.generation != seen {
                // Somebody else did it meanwhile.
                return Ok(access);
            }
            let tokens = state.usable().map_err(Blocked::NotConnected)?.clone();
            (access, tokens, !forced && now < state.record.expires_at)
        };
        let young = attempts
            .refreshed
            .map(|at| retry_gap(tokens.lifetime).saturating_sub(at.elapsed()))
            .filter(|rest| forced && !rest.is_zero());
        if let Some(rest) = young {
            return Err(Blocked::Later {
                reason: "Pipedrive does not accept a token that it gave a moment ago (401).".to_owned(),
                after: Some(rest),
            });
        }
        let Err(blocked) = self.try_refresh(account, &mut attempts, &tokens, now) else {
            return read(&account.state).access(&account.id);
        };
        match blocked {
            // The old one works until it really expires.
            Blocked::Later { .. } if alive => Ok(access),
            other => Err(other),
        }
    }

    fn try_refresh(
        &self,
        account: &Account,
        attempts: &mut Attempts,
        tokens: &Tokens,
        now: Timestamp,
    ) -> Result<(), Blocked> {
        if let Some(rest) = attempts
            .not_before
            .and_then(|at| at.checked_duration_since(Instant::now()))
        {
            let trouble = read(&account.state).trouble.clone();
            return Err(Blocked::Later {
                reason: trouble.map(|(words, _)| words).unwrap_or_default(),
                after: Some(rest),
            });
        }
        let Some(sign_in) = &self.0.sign_in else {
            return Err(Self::postpone(
                account,
                attempts,
                "The access token cannot be refreshed without the app's client id and secret: set \
                 pipedrive.client_id and the client secret, and restart."
                    .to_owned(),
                None,
                true,
            ));
        };
        let granted = match attempts.unsaved.take() {
            Some(granted) => granted,
            None => match sign_in.refresh(&tokens.refresh, now) {
                Ok(granted) => granted,
                Err(refused) => return Err(self.refused(account, attempts, refused, now)),
            },
        };
        if let Err(problem) = self.keep(account, tokens, &granted, now) {
            attempts.unsaved = Some(granted);
            let words =
                format!("The new tokens cannot be stored: {problem}. They are not used before they are.");
            return Err(Self::postpone(account, attempts, words, None, false));
        }
        if attempts.failures > 0 {
            info!(installation = account.id.as_str(); "The access token is refreshed again");
        }
        *attempts = Attempts {
            refreshed: Some(Instant::now()),
            ..Attempts::default()
        };
        Ok(())
    }

    /// Stores tokens, then uses them. What has been connected or disconnected meanwhile wins.
    fn keep(
        &self,
        account: &Account,
        old: &Tokens,
        granted: &Granted,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some((store, _)) = &self.0.store else {
            return Err(StoreError::Closed);
        };
        let tokens = Tokens {
            access: granted.access.clone(),
            refresh: granted.refresh.clone().unwrap_or_else(|| old.refresh.clone()),
            lifetime: granted.lifetime,
        };
        let sealed = self
            .0
            .seal
            .seal(&account.id, &tokens)
            .ok_or(StoreError::NoEntropy)?;
        let connected_at = read(&account.state).record.connected_at;
        let domain = granted.api_domain.clone().filter(|domain| {
            let local = self.0.sign_in.as_ref().is_some_and(SignIn::is_local);
            api_base(domain, local).is_some()
        });
        let expires_at = now.plus_ms(ms(tokens.lifetime));
        let update = move |record: &mut Installation| {
            if record.connected_at != connected_at || !record.holds_channels() {
                return false;
            }
            record.refreshed_at = now;
            record.expires_at = expires_at;
            if let Some(domain) = domain {
                record.api_domain = domain;
            }
            true
        };
        let stored = update.clone();
        wait_for(store.change_installation(&account.id, move |slot| {
            if let Some(record) = slot
                && stored(record)
            {
                record.tokens = sealed;
            }
        }))?;
        let mut state = write(&account.state);
        if update(&mut state.record) {
            state.base = self.base_of(&state.record.api_domain).into();
            state.tokens = Some(tokens);
            state.outdated = false;
            state.trouble = None;
            state.generation += 1;
        }
        Ok(())
    }

    fn refused(
        &self,
        account: &Account,
        attempts: &mut Attempts,
        refused: Refused,
        now: Timestamp,
    ) -> Blocked {
        match refused {
            Refused::Grant(words) => self.reconnect_needed(account, &words, now),
            Refused::Later { reason, after } => {
                let words = format!("The access token cannot be refreshed now: {reason}");
                Self::postpone(account, attempts, words, after, false)
            }
            other => {
                let remedy = match &other {
                    Refused::Client(_) => {
                        "Compare pipedrive.client_id and the client secret with the app in Pipedrive's Developer Hub, \
                         and restart."
                    }
                    _ => {
                        "Look at the app in Pipedrive's Developer Hub; if it stays, run `pipepost connect` again."
                    }
                };
                let words = format!("The access token cannot be refreshed: {other}. {remedy}");
                Self::postpone(account, attempts, words, Some(PERSON_PAUSE), true)
            }
        }
    }

    fn postpone(
        account: &Account,
        attempts: &mut Attempts,
        words: String,
        after: Option<Duration>,
        needs_person: bool,
    ) -> Blocked {
        attempts.failures = attempts.failures.saturating_add(1);
        let own = if needs_person {
            PERSON_PAUSE
        } else {
            BACKOFF.pause(attempts.failures, jitter())
        };
        let pause = after.unwrap_or(own).max(own.min(BACKOFF.first));
        attempts.not_before = Instant::now().checked_add(pause);
        let installation = account.id.as_str();
        let before = write(&account.state)
            .trouble
            .replace((words.clone(), needs_person));
        if before.as_ref().is_none_or(|(_, person)| *person != needs_person) {
            if needs_person {
                error!(installation, reason = words.as_str(); "Messages to Pipedrive wait until a person helps");
            } else {
                warn!(installation, reason = words.as_str(); "A refresh of the access token is tried again");
            }
        }
        Blocked::Later {
            reason: words,
            after: Some(pause),
        }
    }

    /// The refresh token is refused for good. Said once: afterwards nobody asks with it any more.
    fn reconnect_needed(&self, account: &Account, words: &str, now: Timestamp) -> Blocked {
        let reason = format!(
            "Pipedrive does not accept the refresh token any more ({words}): it was not used for 60 days, or the app \
             was uninstalled or its secret changed."
        );
        let connected_at = read(&account.state).record.connected_at;
        let update = move |record: &mut Installation, reason: String| {
            if record.connected_at != connected_at || record.state != InstallationState::Connected {
                return false;
            }
            record.state = InstallationState::ReconnectNeeded { since: now, reason };
            true
        };
        if let Some((store, _)) = &self.0.store {
            let stored = reason.clone();
            let written = wait_for(store.change_installation(&account.id, move |slot| {
                if let Some(record) = slot {
                    update(record, stored);
                }
            }));
            if let Err(problem) = written {
                warn!(reason = problem.to_string().as_str(); "The state of an installation cannot be stored");
            }
        }
        let mut state = write(&account.state);
        if update(&mut state.record, reason.clone()) {
            error!(installation = account.id.as_str(), who = called(&state.record).as_str(), reason = reason.as_str();
                "Reconnect needed: run `pipepost connect`; messages are kept until then");
        }
        match state.usable() {
            Err(not) => Blocked::NotConnected(not),
            // Connected anew in this very moment.
            Ok(_) => Blocked::Later {
                reason: "Connected anew.".to_owned(),
                after: None,
            },
        }
    }

    /// Whether [`Self::tend`] has something to do. From memory; does not block.
    #[must_use]
    pub fn needs_tending(&self, now: Timestamp) -> bool {
        let table = read(&self.0.table);
        table.accounts.iter().any(|account| {
            let state = read(&account.state);
            state.usable().is_ok() && (state.outdated || idle_refresh_due(state.record.refreshed_at, now))
        })
    }

    /// Keeps alive what nobody uses: refreshes daily, seals plain tokens when there is a key, and warns when the end of a
    /// refresh token comes near.
    pub fn tend(&self, now: Timestamp) {
        let accounts = read(&self.0.table).accounts.clone();
        for account in accounts {
            let (generation, outdated, due) = {
                let state = read(&account.state);
                if state.usable().is_err() {
                    continue;
                }
                let due = idle_refresh_due(state.record.refreshed_at, now);
                (state.generation, state.outdated, due)
            };
            if outdated {
                self.seal_anew(&account);
            }
            if due {
                drop(self.refresh(&account, generation, false, now));
            }
            Self::warn_of_the_end(&account, now);
        }
    }

    fn seal_anew(&self, account: &Account) {
        let Some((store, _)) = &self.0.store else { return };
        let _one_at_a_time = lock(&account.refreshing);
        let (sealed, connected_at) = {
            let state = read(&account.state);
            let Some(tokens) = state.tokens.as_ref().filter(|_| state.outdated) else {
                return;
            };
            (self.0.seal.seal(&account.id, tokens), state.record.connected_at)
        };
        let Some(sealed) = sealed else { return };
        let written = wait_for(store.change_installation(&account.id, move |slot| {
            if let Some(record) = slot
                && record.connected_at == connected_at
                && record.holds_channels()
            {
                record.tokens = sealed;
            }
        }));
        match written {
            Ok(()) => {
                write(&account.state).outdated = false;
                info!(installation = account.id.as_str(); "The stored tokens are encrypted now");
            }
            Err(problem) => {
                warn!(reason = problem.to_string().as_str(); "The stored tokens cannot be encrypted yet");
            }
        }
    }

    fn warn_of_the_end(account: &Account, now: Timestamp) {
        let record = read(&account.state).record.clone();
        let level = warning(record.refreshed_at, now);
        let mut attempts = lock(&account.refreshing);
        if level > attempts.warned {
            let ends = dies_at(record.refreshed_at).to_iso8601();
            let when = level.map(Warning::words).unwrap_or_default();
            let trouble = read(&account.state).trouble.clone();
            let reason = trouble.map(|(words, _)| words).unwrap_or_default();
            warn!(installation = account.id.as_str(), who = called(&record).as_str(), ends = ends.as_str(),
                reason = reason.as_str();
                "The connection to Pipedrive ends {when} unless the gateway gets through to it");
        }
        attempts.warned = level;
    }
}
