//! The way to Pipedrive: client, uplink, pump, and the calls that commands ask for.

use std::sync::Arc;

use super::AppError;
use super::tasks::Tasks;
use crate::config::{Channel, Config, CreatedAt};
use crate::control::{ChannelCalls, UplinkSummary, Waiting};
use crate::domain::{ConversationId, ProviderChannelId, Timestamp};
use crate::http;
use crate::protocol::pipedrive::wire::TimeForm;
use crate::queue::to_hardware::Links;
use crate::queue::to_uplink::{Patience, Pump, PumpHandle, Settings};
use crate::store::Store;
use crate::uplink::{AccessToken, ChannelsUplink, Refusal, Registration};

/// What the rest of the gateway holds of the running uplink.
pub(super) struct RunningUplink {
    /// For status.
    pub(super) summary: Box<dyn Fn() -> UplinkSummary + Send + Sync>,
    /// For commands.
    pub(super) calls: Arc<dyn ChannelCalls>,
}

/// Starts the pump.
pub(super) fn spawn(
    tasks: &mut Tasks,
    config: &Config,
    store: &Store,
    links: Links,
) -> Result<RunningUplink, AppError> {
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
    let uplink = Arc::new(ChannelsUplink::new(
        client,
        &config.pipedrive.api_url,
        token,
        form,
    ));
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
    };
    let (pump, handle) = Pump::new(store.clone(), Arc::clone(&uplink) as Arc<_>, settings);
    let pulse = tasks.pulse("uplink");
    let stop = tasks.shutdown().subscribe();
    tasks.spawn("uplink", pump.run(stop, move || pulse.beat()));
    let shown = handle.clone();
    Ok(RunningUplink {
        summary: Box::new(move || summary(&shown)),
        calls: Arc::new(Calls { uplink, pump: handle }),
    })
}

fn registration(channel: &Channel, id: ProviderChannelId) -> Registration {
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
    }
}

/// The commands' calls go past the queue, and wake it when they have changed something.
struct Calls {
    uplink: Arc<ChannelsUplink>,
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
        self.uplink
            .register_channel(&registration(channel, id.clone()), now())
            .map_err(words)?;
        self.pump.retry_now();
        Ok(())
    }

    fn delete_channel(&self, id: &ProviderChannelId) -> Result<(), String> {
        self.uplink.delete_channel(id, now()).map_err(words)
    }

    fn delete_conversation(&self, channel: &ProviderChannelId, id: ConversationId) -> Result<(), String> {
        self.uplink.delete_conversation(channel, id, now()).map_err(words)
    }
}
