//! What Pipedrive and browsers say on the callback.

use std::sync::Arc;
use std::time::Duration;

use log::{error, info};

use super::{Connector, now, pages};
use crate::domain::InstallationId;
use crate::manifest::{Callback, Pending};
use crate::protocol::pipedrive::manifest::{Code, Failure};
use crate::protocol::pipedrive::oauth::{Authorized, Page, Sharing, Uninstalled};
use crate::store::InstallationState;

/// How long a browser waits for the exchange and the registrations. They go on when it takes longer.
const PAGE_WITHIN: Duration = Duration::from_secs(20);
/// A notice of an uninstall that is older than the connection by so many milliseconds is about an earlier one.
const STALE: i64 = 60_000;

fn busy_store(error: &dyn std::fmt::Display) -> Failure {
    error!(reason = error.to_string().as_str(); "A call of the OAuth callback could not be stored");
    Failure::new(Code::InternalError, "the gateway could not write its store")
}

impl Callback for Connector {
    fn authorized(&self, asked: Authorized) -> Pending<'_, Page> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let admitted = match asked {
                Authorized::Malformed => {
                    inner.strange("neither a code nor a refusal");
                    return pages::malformed();
                }
                Authorized::Refused { error, state } => return inner.refused(&error, state.as_ref()),
                Authorized::Code { code, state } => match inner.admit(code, state.as_ref()) {
                    Ok(admitted) => admitted,
                    Err(page) => return page,
                },
            };
            // Goes on when the browser has gone, or does not wait any more.
            let work = tokio::task::spawn_blocking(move || inner.connect(admitted));
            match tokio::time::timeout(PAGE_WITHIN, work).await {
                Ok(Ok(page)) => page,
                Ok(Err(_)) => pages::broken(),
                Err(_) => pages::slow(),
            }
        })
    }

    fn uninstalled(&self, told: Uninstalled) -> Pending<'_, Result<(), Failure>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            if inner.config.pipedrive.client_id.as_ref() != Some(&told.client_id) {
                return Err(Failure::new(Code::InvalidBody, "client_id is another app's"));
            }
            let id = InstallationId::of_user(told.company_id, told.user_id);
            let work = tokio::task::spawn_blocking(move || {
                let known = inner.accounts.statuses();
                let connected_at = known
                    .iter()
                    .find(|account| account.record.id == id)
                    .map(|account| account.record.connected_at);
                let stale = told
                    .at
                    .zip(connected_at)
                    .is_some_and(|(at, connected)| at.unix_ms() < connected.unix_ms().saturating_sub(STALE));
                if stale {
                    // About an earlier connection, or a clock is wrong: Pipedrive has the last word.
                    info!(installation = id.as_str(); "An uninstall from before the present connection: it is checked");
                    inner.accounts.probe(&id, now());
                    inner.wake();
                    return Ok(());
                }
                let left = inner.accounts.disconnect(&id, "uninstalled in Pipedrive", now());
                inner.wake();
                if left.map_err(|error| busy_store(&error))?.is_none() {
                    info!(installation = id.as_str(); "Somebody uninstalled the app who is not connected here");
                }
                Ok(())
            });
            work.await.unwrap_or_else(|error| Err(busy_store(&error)))
        })
    }

    fn sharing(&self, told: Sharing) -> Pending<'_, Result<(), Failure>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let id = InstallationId::of_user(told.company_id, told.user_id);
            let work = tokio::task::spawn_blocking(move || {
                let known = inner
                    .accounts
                    .share(&id, told.is_shared)
                    .map_err(|error| busy_store(&error))?;
                info!(installation = id.as_str(), shared = told.is_shared, known; "Sharing of the app has changed");
                Ok(())
            });
            work.await.unwrap_or_else(|error| Err(busy_store(&error)))
        })
    }

    fn health(&self) -> &'static str {
        let accounts = self.0.accounts.statuses();
        let held: Vec<_> = accounts
            .iter()
            .filter(|account| account.record.holds_channels())
            .collect();
        if held
            .iter()
            .any(|account| account.record.state != InstallationState::Connected)
        {
            "reconnect needed"
        } else if held.iter().any(|account| account.needs_person) {
            "needs a person"
        } else if !held.is_empty() || self.0.config.pipedrive.access_token.is_some() {
            "connected"
        } else if accounts.is_empty() {
            "not connected"
        } else {
            "disconnected"
        }
    }
}
