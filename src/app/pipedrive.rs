//! The way to Pipedrive: client, uplink, pump, and the calls that commands ask for.

use std::sync::Arc;
use std::time::Duration;

use super::AppError;
use super::connect::{Connector, redirect_uri};
use super::tasks::Tasks;
use crate::config::{Channel, Config, CreatedAt};
use crate::control::{BudgetSummary, ChannelCalls, UplinkSummary, Waiting};
use crate::domain::{ConversationId, ProviderChannelId, Timestamp};
use crate::http;
use crate::protocol::budget;
use crate::protocol::pipedrive::wire::TimeForm;
use crate::queue::to_hardware::Links;
use crate::queue::to_uplink::{Patience, Pump, PumpHandle, Settings};
use crate::store::{ChannelLink, Store};
use crate::uplink::{AccessToken, AccountOptions, Accounts, App, ChannelsUplink, Refusal, Registration};

/// What the rest of the gateway holds of the running uplink.
pub(super) struct RunningUplink {
    /// For status.
    pub(super) summary: Box<dyn Fn() -> UplinkSummary + Send + Sync>,
    /// For commands.
    pub(super) calls: Arc<dyn ChannelCalls>,
}

/// The way to Pipedrive before anything runs on it.
pub(super) struct Prepared {
    pub(super) accounts: Accounts,
    pub(super) uplink: Arc<ChannelsUplink>,
}

/// Longest wait for the sign-in: a browser waits as well.
const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(15);
/// How often is looked whether an installation needs something.
const TENDING: Duration = Duration::from_secs(60);

/// Builds the clients and reads who has connected.
pub(super) fn prepare(config: &Config, store: &Store) -> Result<Prepared, AppError> {
    let options = http::Options {
        ca_file: config.pipedrive.ca_file.clone(),
        timeout: config.pipedrive.timeout,
        keep: config.pipedrive.in_flight,
        ..http::Options::default()
    };
    let client = http::Client::new(&options)
        .map_err(|error| AppError::Config(format!("pipedrive.ca_file: {error}")))?;
    let form = match config.pipedrive.created_at {
        CreatedAt::Iso8601 => TimeForm::Iso8601,
        CreatedAt::Minutes => TimeForm::Minutes,
    };
    let token = AccessToken::new(config.pipedrive.access_token.clone());
    let pipedrive = &config.pipedrive;
    let credentials = pipedrive.client_id.clone().zip(pipedrive.client_secret.clone());
    let sign_in = http::Options {
        timeout: pipedrive.timeout.min(SIGN_IN_TIMEOUT),
        keep: 1,
        ..options
    };
    let accounts = AccountOptions {
        client: http::Client::new(&sign_in)
            .map_err(|error| AppError::Config(format!("pipedrive.ca_file: {error}")))?,
        app: credentials.map(|(client_id, client_secret)| App {
            client_id,
            client_secret,
            oauth_url: pipedrive.oauth_url.clone(),
            redirect_uri: pipedrive.public_url.as_deref().map(redirect_uri),
        }),
        api_url: pipedrive.api_url_given.then(|| pipedrive.api_url.clone()),
        fixed: (pipedrive.api_url.clone(), token),
        token_key: pipedrive.token_key.clone(),
    };
    let accounts = Accounts::open(store, accounts)?;
    let uplink = Arc::new(ChannelsUplink::with_accounts(client, accounts.clone(), form));
    Ok(Prepared { accounts, uplink })
}

/// Starts the pump.
pub(super) fn spawn(
    tasks: &mut Tasks,
    config: &Config,
    store: &Store,
    links: Links,
    prepared: Prepared,
    connector: &Connector,
) -> Result<RunningUplink, AppError> {
    let Prepared { accounts, uplink } = prepared;
    let channels = config
        .channels
        .iter()
        .map(|channel| {
            (
                channel.id.clone(),
                registration(channel, ProviderChannelId::new(store.gateway_id(), &channel.id)),
            )
        })
        .collect();
    let settings = Settings {
        channels,
        in_flight: config.pipedrive.in_flight,
        links,
        // Less than the whole stop may take, so that what is cut off is cut off in order and nobody is named late.
        drain: config.gateway.drain_timeout.mul_f32(0.8),
        patience: Patience::default(),
        daily_budget: config.pipedrive.daily_budget,
    };
    let (pump, handle) = Pump::new(store.clone(), Arc::clone(&uplink) as Arc<_>, settings);
    let pulse = tasks.pulse("uplink");
    let stop = tasks.shutdown().subscribe();
    tasks.spawn("uplink", pump.run(stop, move || pulse.beat()));
    connector.attach(handle.clone())?;
    spawn_tending(tasks, accounts.clone());
    let shown = handle.clone();
    Ok(RunningUplink {
        summary: Box::new(move || summary(&shown)),
        calls: Arc::new(Calls {
            uplink,
            accounts,
            pump: handle,
        }),
    })
}

/// Keeps installations alive that nobody uses. A thread is taken only when there is something to do.
fn spawn_tending(tasks: &mut Tasks, accounts: Accounts) {
    let mut shutdown = tasks.shutdown();
    tasks.spawn("installations", async move {
        let mut ticks = tokio::time::interval(TENDING);
        loop {
            tokio::select! {
                () = shutdown.wait() => return Ok(()),
                _ = ticks.tick() => {}
            }
            if accounts.needs_tending(now()) {
                let accounts = accounts.clone();
                // Its failure is said by the next call that needs a token.
                drop(tokio::task::spawn_blocking(move || accounts.tend(now())).await);
            }
        }
    });
}

pub(super) fn registration(channel: &Channel, id: ProviderChannelId) -> Registration {
    Registration {
        id,
        name: channel.name.clone(),
        avatar_url: channel.avatar_url.clone(),
        provider_type: channel.provider_type,
        template_support: channel.template_support,
    }
}

fn summary(pump: &PumpHandle) -> UplinkSummary {
    let status = pump.status();
    let waiting = status.waiting.iter().map(|waiting| Waiting {
        conversation: waiting.conversation.to_string(),
        attempts: waiting.attempts,
        next_attempt_s: waiting.next.as_secs(),
        reason: waiting.reason.clone(),
    });
    let held = status.channels.iter().map(|held| Waiting {
        conversation: format!("channel {}", held.channel),
        attempts: 1,
        next_attempt_s: held.next.as_secs(),
        reason: held.reason.clone(),
    });
    UplinkSummary {
        state: status.state.word().to_owned(),
        words: status.state.words(),
        accepted: status.accepted,
        failed: status.failed,
        waiting: held.chain(waiting).collect(),
        budgets: status
            .installations
            .iter()
            .map(|of| BudgetSummary {
                installation: of.installation.to_string(),
                state: of.state.word().to_owned(),
                spent: of.budget.spent,
                limit: of.budget.limit,
                left: of.budget.left,
                ends_at: of.budget.ends_at.map(Timestamp::to_iso8601),
                ends_at_s: of.budget.ends_at.map(|at| at.unix_ms() / 1000),
                words: of.budget.words.clone(),
            })
            .collect(),
    }
}

/// The commands' calls go past the queue, and wake it when they have changed something.
struct Calls {
    uplink: Arc<ChannelsUplink>,
    accounts: Accounts,
    pump: PumpHandle,
}

fn now() -> Timestamp {
    Timestamp::from_system_time(std::time::SystemTime::now())
}

fn words(refusal: Refusal) -> String {
    refusal.reason
}

impl ChannelCalls for Calls {
    fn register(&self, channel: &Channel, id: &ProviderChannelId) -> Result<(), String> {
        let registration = registration(channel, id.clone());
        let unowned = self.accounts.holder(&channel.id).is_none() && self.accounts.installation(id).is_err();
        match self.accounts.connected().as_slice() {
            [only] if unowned => {
                let registered = self.uplink.register_channel_for(&only.id, &registration, now());
                registered.map_err(words)?;
                let link = ChannelLink::Registered(now());
                let given = self.accounts.give(&only.id, vec![(channel.id.clone(), link)]);
                given.map_err(|error| error.to_string())?;
            }
            [_, _, ..] if unowned => {
                return Err(format!(
                    "several users are connected: run `pipepost connect --channel {}` as the one who shall have it",
                    channel.id
                ));
            }
            _ => self
                .uplink
                .register_channel(&registration, now())
                .map_err(words)?,
        }
        self.pump.count(id, budget::REGISTER);
        self.pump.retry_now();
        Ok(())
    }

    fn delete_channel(&self, id: &ProviderChannelId) -> Result<(), String> {
        self.uplink.delete_channel(id, now()).map_err(words)?;
        self.pump.count(id, budget::DELETE);
        Ok(())
    }

    fn delete_conversation(&self, channel: &ProviderChannelId, id: ConversationId) -> Result<(), String> {
        self.uplink
            .delete_conversation(channel, id, now())
            .map_err(words)?;
        self.pump.count(channel, budget::DELETE);
        Ok(())
    }
}
