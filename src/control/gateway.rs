//! What the commands can see and do. Works on a running gateway, and read-only on its store alone.

use std::sync::Arc;

use tokio::time::Instant;

use super::answers::{
    BudgetSummary, ChannelStatus, Conversation, ConversationRow, Done, Failure, LinkStatus, ListenerStatus,
    MessageRow, QueueView, RefusedUpdate, SendRequest, Sent, Status, StoreStatus, UnmappedRow, UplinkSummary,
};
use super::connecting::Connecting;
use crate::config::{Channel, Config};
use crate::domain::{
    ByteSize, ChannelId, ConversationId, ConversationStatus, DeliveryState, Direction, IncomingState,
    Message, OutgoingState, ProviderChannelId, Timestamp,
};
use crate::driver::Link;
use crate::metrics;
use crate::queue::to_hardware::LaneStatuses;
use crate::store::{ChannelLink, ConversationView, NewOutgoing, Queue, Queued, Space, Store, StoreError};

/// Calls to Pipedrive that a command can ask for; blocking.
pub trait ChannelCalls: Send + Sync {
    /// Registers a channel. The error is for a person.
    fn register(&self, channel: &Channel, id: &ProviderChannelId) -> Result<(), String>;
    /// Deletes a channel. The error is for a person.
    fn delete_channel(&self, id: &ProviderChannelId) -> Result<(), String>;
    /// Deletes a conversation. The error is for a person.
    fn delete_conversation(&self, channel: &ProviderChannelId, id: ConversationId) -> Result<(), String>;
}

/// What only a running daemon has.
pub struct Live {
    /// When it started.
    pub started: Instant,
    /// Whether the clock is synchronised, in words.
    pub clock: Box<dyn Fn() -> String + Send + Sync>,
    /// The listener's figures.
    pub listener: Box<dyn Fn() -> ListenerStatus + Send + Sync>,
    /// The way to Pipedrive.
    pub uplink: Box<dyn Fn() -> UplinkSummary + Send + Sync>,
    /// Brokers and modems.
    pub links: Vec<crate::driver::DriverHandle>,
    /// The ways to the hardware.
    pub lanes: LaneStatuses,
    /// Calls to Pipedrive.
    pub calls: Arc<dyn ChannelCalls>,
    /// Who has connected, and how others can.
    pub connecting: Arc<dyn Connecting>,
}

/// The gateway as the commands see it.
pub struct Gateway {
    /// The configuration.
    pub config: Arc<Config>,
    /// The store.
    pub store: Store,
    /// The running daemon's parts; `None` when a command reads the store itself.
    pub live: Option<Live>,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::UnknownConversation | StoreError::UnknownMessage => {
                Self::not_found(&error.to_string())
            }
            StoreError::ConversationClosed => {
                Self::conflict(&error.to_string()).with_hint("open it first: pipepost conversations open ID")
            }
            StoreError::NoSpace => Self {
                status: 507,
                message: error.to_string(),
                hint: Some("free disk space".to_owned()),
            },
            other => Self::internal(&other),
        }
    }
}

fn budget_figures(budget: &BudgetSummary) -> metrics::BudgetFigures {
    metrics::BudgetFigures {
        installation: budget.installation.clone(),
        state: budget.state.clone(),
        spent: budget.spent,
        left: budget.left,
        ends_at_s: budget.ends_at_s,
    }
}

fn now() -> Timestamp {
    Timestamp::from_system_time(std::time::SystemTime::now())
}

impl Gateway {
    pub(super) fn live(&self) -> Result<&Live, Failure> {
        self.live.as_ref().ok_or_else(|| {
            Failure::conflict("no pipepost daemon runs here, and this command changes something")
                .with_hint("start it first: systemctl start pipepost, or `pipepost run`")
        })
    }

    pub(super) fn channel(&self, id: &str) -> Result<&Channel, Failure> {
        self.config
            .channels
            .iter()
            .find(|channel| channel.id.as_str() == id)
            .ok_or_else(|| {
                let known: Vec<&str> = self
                    .config
                    .channels
                    .iter()
                    .map(|channel| channel.id.as_str())
                    .collect();
                Failure::not_found(&format!("no channel {id:?} is configured"))
                    .with_hint(&format!("configured channels: {}", known.join(", ")))
            })
    }

    fn provider_id(&self, channel: &ChannelId) -> ProviderChannelId {
        ProviderChannelId::new(self.store.gateway_id(), channel)
    }

    /// Everything at a glance.
    pub async fn status(&self) -> Result<Status, Failure> {
        let live = self.live.as_ref();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            gateway_id: self.store.gateway_id().to_string(),
            running: live.is_some(),
            uptime_s: live.map_or(0, |live| live.started.elapsed().as_secs()),
            clock: live.map(|live| (live.clock)()).unwrap_or_default(),
            listener: live.map(|live| (live.listener)()),
            uplink: live.map(|live| (live.uplink)()),
            installations: self.installations().await?,
            store: self.store_status().await?,
            links: live
                .map(|live| live.links.iter().map(link_status).collect())
                .unwrap_or_default(),
            channels: self.channels().await?,
        })
    }

    async fn store_status(&self) -> Result<StoreStatus, Failure> {
        let counts = self.store.counts();
        let size = |bytes| ByteSize(bytes).rounded();
        let alarm = match *self.store.space().borrow() {
            Space::Enough => None,
            Space::Low { free, needed } => Some(format!(
                "the disk is nearly full: {} are free and {} must be; \
                 no new message is taken until there is room",
                size(free),
                size(needed)
            )),
            Space::TooMuchQueued { queued, allowed } => Some(format!(
                "{} of messages wait and {} may be kept; \
                 no new message is taken until Pipedrive or the hardware has taken some",
                size(queued),
                size(allowed)
            )),
        };
        let refused = self.store.read(|reader| reader.refused_updates(None)).await?;
        let damaged = self.store.damaged_copy();
        Ok(StoreStatus {
            messages: counts.messages,
            conversations: counts.conversations,
            logical_bytes: counts.logical_bytes,
            queued_messages: counts.queued.uplink_messages,
            queued_statuses: counts.queued.uplink_statuses,
            queued_outgoing: counts.queued.hardware,
            unmapped: counts.unmapped,
            refused_updates: u64::try_from(refused.len()).unwrap_or(u64::MAX),
            last_refused: refused.into_iter().last().map(|(id, reason)| RefusedUpdate {
                message: id.to_string(),
                conversation: id.conversation.to_string(),
                reason,
            }),
            alarm,
            lost: damaged.as_deref().and_then(Store::lost_with),
            held: damaged.as_deref().map_or(0, Store::held_with),
            damaged: damaged.map(|folder| folder.display().to_string()),
        })
    }

    /// Prometheus text.
    pub async fn metrics(&self) -> Result<String, Failure> {
        let status = self.status().await?;
        let store = &status.store;
        let uplink = status.uplink.as_ref();
        let listener = status.listener.as_ref();
        let snapshot = metrics::Snapshot {
            uptime_s: status.uptime_s,
            messages: store.messages,
            conversations: store.conversations,
            logical_bytes: store.logical_bytes,
            queued: vec![
                ("to_uplink_messages", store.queued_messages),
                ("to_uplink_statuses", store.queued_statuses),
                ("to_hardware", store.queued_outgoing),
            ],
            unmapped: store.unmapped,
            store_full: store.alarm.is_some(),
            store_damaged: store.damaged.is_some(),
            store_held: store.held,
            store_lost: store
                .lost
                .as_deref()
                .and_then(|words| words.split(' ').find_map(|word| word.parse().ok()))
                .unwrap_or(0),
            uplink_state: uplink.map(|uplink| uplink.state.clone()).unwrap_or_default(),
            budgets: uplink
                .map(|uplink| uplink.budgets.iter().map(budget_figures).collect())
                .unwrap_or_default(),
            accepted: uplink.map_or(0, |uplink| uplink.accepted),
            failed: uplink.map_or(0, |uplink| uplink.failed),
            installations: status
                .installations
                .iter()
                .map(|one| {
                    let connected = matches!(one.state.as_str(), "connected" | "trouble");
                    (one.id.clone(), connected)
                })
                .collect(),
            requests: listener.map_or(0, |listener| listener.requests),
            unauthorized: listener.map_or(0, |listener| listener.unauthorized),
            links: status
                .links
                .iter()
                .map(|link| (link.name.clone(), link.up))
                .collect(),
            modems: status
                .links
                .iter()
                .filter_map(|link| {
                    let modem = link.modem.as_ref()?;
                    let figures = metrics::ModemFigures {
                        signal_dbm: modem.signal_dbm,
                        storage_used: modem.storage_used,
                        storage_total: modem.storage_total,
                        sent_today: modem.sent_today,
                        incomplete: u64::try_from(modem.incomplete).unwrap_or(u64::MAX),
                    };
                    Some((link.name.clone(), figures))
                })
                .collect(),
            lanes: status
                .channels
                .iter()
                .map(|c| (c.id.clone(), c.lane.sent, c.lane.rejected, c.lane.unknown))
                .collect(),
        };
        metrics::render(&snapshot).map_err(|error| Failure::internal(&error))
    }

    /// All configured channels.
    pub async fn channels(&self) -> Result<Vec<ChannelStatus>, Failure> {
        let ids: Vec<ChannelId> = self
            .config
            .channels
            .iter()
            .map(|channel| channel.id.clone())
            .collect();
        let links = self
            .store
            .read(move |reader| {
                ids.iter()
                    .map(|id| reader.channel_link(id))
                    .collect::<Result<Vec<_>, _>>()
            })
            .await?;
        Ok(self
            .config
            .channels
            .iter()
            .zip(links)
            .map(|(channel, link)| self.channel_status(channel, link))
            .collect())
    }

    fn channel_status(&self, channel: &Channel, link: ChannelLink) -> ChannelStatus {
        let (state, since, reason) = match link {
            ChannelLink::NotRegistered => ("not registered", None, None),
            ChannelLink::Registered(since) => ("registered", Some(since.to_iso8601()), None),
            ChannelLink::Unlinked { since, reason } => ("unlinked", Some(since.to_iso8601()), Some(reason)),
        };
        ChannelStatus {
            id: channel.id.to_string(),
            name: channel.name.clone(),
            provider_channel_id: self.provider_id(&channel.id).to_string(),
            state: state.to_owned(),
            since,
            reason,
            lane: self
                .live
                .as_ref()
                .map(|live| live.lanes.get(&channel.id))
                .unwrap_or_default(),
        }
    }

    /// Registers a channel with Pipedrive.
    pub async fn register_channel(&self, id: &str) -> Result<Done, Failure> {
        let channel = self.channel(id)?.clone();
        let provider_id = self.provider_id(&channel.id);
        let calls = Arc::clone(&self.live()?.calls);
        let (asked, named) = (channel.clone(), provider_id.clone());
        call(move || calls.register(&asked, &named)).await?;
        self.store
            .set_channel_link(&channel.id, ChannelLink::Registered(now()))
            .await?;
        Ok(Done {
            message: format!("channel {id:?} is registered with Pipedrive as {provider_id}"),
        })
    }

    /// Deletes a channel at Pipedrive. The gateway keeps its data.
    pub async fn delete_channel(&self, id: &str) -> Result<Done, Failure> {
        let channel = self.channel(id)?.id.clone();
        let provider_id = self.provider_id(&channel);
        let calls = Arc::clone(&self.live()?.calls);
        call(move || calls.delete_channel(&provider_id)).await?;
        let reason = "deleted by the command `pipepost channels delete`".to_owned();
        self.store
            .set_channel_link(&channel, ChannelLink::Unlinked { since: now(), reason })
            .await?;
        Ok(Done {
            message: format!(
                "channel {id:?} is deleted at Pipedrive; its messages are kept here and nothing is pushed until \
                 `pipepost channels register {id}`"
            ),
        })
    }

    /// Conversations of one channel, or of all, newest first.
    pub async fn conversations(
        &self,
        channel: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ConversationRow>, Failure> {
        let channels: Vec<ChannelId> = match channel {
            Some(id) => vec![self.channel(id)?.id.clone()],
            None => self
                .config
                .channels
                .iter()
                .map(|channel| channel.id.clone())
                .collect(),
        };
        let mut views = self
            .store
            .read(move |reader| {
                let mut views = Vec::new();
                for channel in &channels {
                    views.extend(reader.conversations(channel, limit, None, 1)?.0);
                }
                Ok(views)
            })
            .await?;
        views.sort_unstable_by_key(|view| std::cmp::Reverse(view.activity));
        views.truncate(limit);
        Ok(views.iter().map(conversation_row).collect())
    }

    async fn view(&self, id: &str, limit: usize) -> Result<ConversationView, Failure> {
        let unknown = || Failure::not_found(&format!("there is no conversation {id:?}"));
        let parsed: ConversationId = id.parse().map_err(|_| unknown())?;
        let found = self
            .store
            .read(move |reader| reader.conversation(parsed, limit, None))
            .await?;
        found.ok_or_else(unknown)
    }

    /// One conversation with its newest messages.
    pub async fn conversation(&self, id: &str, limit: usize) -> Result<Conversation, Failure> {
        let view = self.view(id, limit).await?;
        let of = view.id;
        let refused = self
            .store
            .read(move |reader| reader.refused_updates(Some(of)))
            .await?;
        let row = |message: &Message| {
            let mut row = message_row(message);
            if let Some((_, reason)) = refused.iter().find(|(id, _)| *id == message.id) {
                row.state = format!("{}; this state did not reach Pipedrive: {reason}", row.state);
            }
            row
        };
        Ok(Conversation {
            row: conversation_row(&view),
            participants: view
                .participants
                .iter()
                .map(|participant| participant.name.clone())
                .collect(),
            messages: view.messages.iter().map(row).collect(),
        })
    }

    /// Closes or opens a conversation, or marks it as seen. Pipedrive reads that with the conversation: nothing tells it.
    pub async fn mark_conversation(&self, id: &str, mark: &str) -> Result<Done, Failure> {
        self.live()?;
        let view = self.view(id, 1).await?;
        let what = match mark {
            "close" => {
                self.store.set_status(view.id, ConversationStatus::Closed).await?;
                "is closed: no answer is taken until the customer writes again, or `pipepost conversations open`"
            }
            "open" => {
                self.store.set_status(view.id, ConversationStatus::Open).await?;
                "is open"
            }
            "seen" => {
                self.store.mark_seen(view.id).await?;
                "is marked as seen"
            }
            _ => {
                return Err(Failure::not_found(
                    "a conversation can be closed, opened, or seen",
                ));
            }
        };
        Ok(Done {
            message: format!("conversation {id} {what}"),
        })
    }

    /// Deletes a conversation at Pipedrive and here.
    pub async fn delete_conversation(&self, id: &str) -> Result<Done, Failure> {
        let view = self.view(id, 1).await?;
        let provider_id = self.provider_id(&view.channel);
        let calls = Arc::clone(&self.live()?.calls);
        call(move || calls.delete_conversation(&provider_id, view.id)).await?;
        self.store.delete_conversation(view.id).await?;
        Ok(Done {
            message: format!("conversation {id} is deleted, at Pipedrive and here"),
        })
    }

    /// What waits.
    pub async fn queue(&self, limit: usize) -> Result<QueueView, Failure> {
        let (to_uplink, to_hardware) = self
            .store
            .read(move |reader| {
                let rows = |queue| -> Result<Vec<MessageRow>, StoreError> {
                    let mut rows = Vec::new();
                    for Queued { message, .. } in reader.queued(queue, limit)? {
                        rows.extend(reader.message(message)?.map(|(_, message)| message_row(&message)));
                    }
                    Ok(rows)
                };
                Ok((rows(Queue::ToUplink)?, rows(Queue::ToHardware)?))
            })
            .await?;
        Ok(QueueView {
            to_uplink,
            to_hardware,
        })
    }

    /// What no mapping could read, newest first.
    pub async fn unmapped(&self, limit: usize) -> Result<Vec<UnmappedRow>, Failure> {
        let records = self.store.read(move |reader| reader.unmapped(limit)).await?;
        let row = |record: crate::domain::Unmapped| UnmappedRow {
            payload: String::from_utf8_lossy(&record.payload).into_owned(),
            received_at: record.received_at.to_iso8601(),
            device: record.device,
            source: record.source,
            reason: record.reason,
        };
        Ok(records.into_iter().map(row).collect())
    }

    /// Queues a message that starts on the gateway.
    pub async fn send(&self, request: SendRequest) -> Result<Sent, Failure> {
        self.live()?;
        let configured = self.channel(&request.channel)?;
        let channel = configured.id.clone();
        if request.text.trim().is_empty() {
            return Err(Failure::invalid("the text is empty").with_hint("give the text after the recipient"));
        }
        let to = self.recipient(configured, &request.to).ok_or_else(|| {
            Failure::invalid("the recipient is no number, empty, too long, or has control characters")
                .with_hint("give a phone number in international form, or the device's own address")
        })?;
        let conversation = self
            .store
            .find_or_start_conversation(channel.clone(), to, now())
            .await?;
        let outgoing = NewOutgoing {
            channel,
            conversation,
            text: request.text,
            attachments: Vec::new(),
            now: now(),
            announce: true,
        };
        let message = self.store.insert_outgoing(outgoing).await?;
        Ok(Sent {
            message: message.to_string(),
            conversation: conversation.to_string(),
        })
    }
}

/// Runs a blocking call to Pipedrive off the async thread.
async fn call(f: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<(), Failure> {
    match tokio::task::spawn_blocking(f).await {
        Ok(outcome) => outcome.map_err(|reason| Failure::conflict(&reason)),
        Err(error) => Err(Failure::internal(&error)),
    }
}

fn link_status(driver: &crate::driver::DriverHandle) -> LinkStatus {
    let link = driver.link.borrow();
    let (up, since, reason) = match &*link {
        Link::Starting => (false, None, Some("connecting".to_owned())),
        Link::Up(since) => (true, Some(since.to_iso8601()), None),
        Link::Limited { since, note } => (true, Some(since.to_iso8601()), Some(note.clone())),
        Link::Faulty { since, reason } | Link::Paused { since, reason } => {
            (true, Some(since.to_iso8601()), Some(reason.clone()))
        }
        Link::Down { since, reason } => (false, Some(since.to_iso8601()), Some(reason.clone())),
    };
    LinkStatus {
        name: driver.name.to_string(),
        up,
        faulty: matches!(*link, Link::Faulty { .. }),
        paused: matches!(*link, Link::Paused { .. }),
        since,
        reason,
        modem: driver.modem.as_ref().map(|modem| modem.status.borrow().clone()),
    }
}

fn conversation_row(view: &ConversationView) -> ConversationRow {
    ConversationRow {
        id: view.id.to_string(),
        channel: view.channel.to_string(),
        address: view.address.as_str().to_owned(),
        name: view.name.clone(),
        last: view
            .messages
            .first()
            .map(|message| message.created_at.to_iso8601()),
        seen: view.seen,
        closed: view.status == ConversationStatus::Closed,
    }
}

fn message_row(message: &Message) -> MessageRow {
    let direction = match message.direction() {
        Direction::Incoming => "incoming",
        Direction::Outgoing => "outgoing",
    };
    MessageRow {
        id: message.id.to_string(),
        conversation: message.id.conversation.to_string(),
        direction: direction.to_owned(),
        created_at: message.created_at.to_iso8601(),
        text: message.text.clone(),
        files: message.attachments.iter().map(|file| file.name.clone()).collect(),
        state: state_in_words(&message.state),
    }
}

fn state_in_words(state: &DeliveryState) -> String {
    match state {
        DeliveryState::Incoming(IncomingState::Queued) => "waiting for Pipedrive".to_owned(),
        DeliveryState::Incoming(IncomingState::Accepted) => "in Pipedrive".to_owned(),
        DeliveryState::Incoming(IncomingState::Failed(reason)) => format!("refused by Pipedrive: {reason}"),
        DeliveryState::Outgoing(OutgoingState::Queued) => "waiting for the hardware".to_owned(),
        DeliveryState::Outgoing(OutgoingState::Attempted) => "being handed over".to_owned(),
        DeliveryState::Outgoing(OutgoingState::Sent) => "sent".to_owned(),
        DeliveryState::Outgoing(OutgoingState::Delivered) => "delivered".to_owned(),
        DeliveryState::Outgoing(OutgoingState::Read) => "read".to_owned(),
        DeliveryState::Outgoing(OutgoingState::Rejected(reason)) => format!("failed: {reason}"),
        DeliveryState::Outgoing(OutgoingState::Unknown(reason)) => format!("unknown whether sent: {reason}"),
    }
}
