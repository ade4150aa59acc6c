//! Store → drivers: hands outgoing messages to the hardware, one at a time per conversation, in order.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use log::{debug, error, info, warn};
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::domain::{Attachment, Attempt, ChannelId, ConversationId, MessageId, Timestamp};
use crate::driver::{DriverHandle, Link, OutgoingJob};
use crate::protocol::media;
use crate::store::{Head, Queue, Store, StoreError};

/// How long to wait after the hardware could not take a message although it seemed reachable.
const PAUSE: Duration = Duration::from_secs(2);

/// How often a message of which nobody knows whether it was sent goes out again, where the channel says so: a
/// device that never confirms would write to the customer for ever.
const RESENDS: u32 = 3;

/// One channel's way to its hardware.
pub struct Lane {
    /// The channel.
    pub channel: ChannelId,
    /// Its driver.
    pub driver: DriverHandle,
    /// Messages at a time: an MQTT broker takes several, a modem one.
    pub in_flight: usize,
    /// Whether a message of which nobody knows whether it was sent goes out again.
    pub resend_unknown: bool,
}

/// What links to files need.
#[derive(Clone)]
pub struct Links {
    /// `pipedrive.public_url`; without it no link can be made.
    pub public_url: Option<String>,
    /// The store's secret.
    pub secret: [u8; 32],
    /// How long a link works.
    pub lifetime: Duration,
}

impl Links {
    /// The text as the device carries it: files become links behind it, each on a line of its own.
    fn text_with_links(&self, text: &str, files: &[Attachment], now: Timestamp) -> Result<String, String> {
        if files.is_empty() {
            return Ok(text.to_owned());
        }
        let Some(public_url) = &self.public_url else {
            return Err(
                "the answer has a file and no public address is configured to link to it: \
                        set pipedrive.public_url"
                    .to_owned(),
            );
        };
        let lifetime = i64::try_from(self.lifetime.as_millis()).unwrap_or(i64::MAX);
        let mut whole = text.to_owned();
        for file in files {
            if !whole.is_empty() {
                whole.push('\n');
            }
            whole.push_str(&media::url(
                public_url,
                &self.secret,
                file.id,
                now.plus_ms(lifetime),
            ));
        }
        Ok(whole)
    }
}

/// Why a lane waits, and what it has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStatus {
    /// Why nothing goes out at the moment; `None` when everything flows.
    pub waiting: Option<String>,
    /// Handed over since the start.
    pub sent: u64,
    /// Refused by the hardware since the start.
    pub rejected: u64,
    /// Ended as unknown since the start.
    pub unknown: u64,
}

/// A view of all lanes, for status. Cheap to clone.
#[derive(Clone, Default)]
pub struct LaneStatuses(Arc<Mutex<HashMap<ChannelId, LaneStatus>>>);

impl LaneStatuses {
    /// The state of one channel's lane.
    #[must_use]
    pub fn get(&self, channel: &ChannelId) -> LaneStatus {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(channel)
            .cloned()
            .unwrap_or_default()
    }

    fn update(&self, channel: &ChannelId, change: impl FnOnce(&mut LaneStatus)) {
        change(
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(channel.clone())
                .or_default(),
        );
    }
}

/// Runs one channel's lane until `stop` turns true; attempts in progress are waited for.
///
/// `beat` is called at least every few seconds while the lane is not stuck.
pub async fn run(
    store: Store,
    lane: Lane,
    links: Links,
    statuses: LaneStatuses,
    mut stop: watch::Receiver<bool>,
    beat: impl Fn(),
) -> Result<(), String> {
    let mut changed = store.queue_changed(Queue::ToHardware);
    let mut link = lane.driver.link.clone();
    let mut busy: HashSet<ConversationId> = HashSet::new();
    // Whose turn comes when everyone else has had theirs.
    let mut put_off: HashSet<ConversationId> = HashSet::new();
    let mut attempts: JoinSet<(MessageId, Result<Option<Attempt>, StoreError>)> = JoinSet::new();
    let mut resends: HashMap<MessageId, u32> = HashMap::new();
    let mut unreadable: Option<String> = None;
    let mut driver_gone = false;
    let mut ticks = tokio::time::interval(Duration::from_secs(5));
    let mut paused_until = tokio::time::Instant::now();
    let lane = Arc::new(lane);
    let links = Arc::new(links);
    loop {
        changed.mark_unchanged();
        let stopping = *stop.borrow();
        if stopping && attempts.is_empty() {
            return Ok(());
        }
        if driver_gone && !stopping {
            return Err("its driver has ended".to_owned());
        }
        let obstacle = obstacle(&link.borrow_and_update());
        let paused = tokio::time::Instant::now() < paused_until;
        if !stopping && obstacle.is_none() && !paused {
            let free = lane.in_flight.saturating_sub(attempts.len());
            for head in next_heads(&store, &lane.channel, &busy, &mut put_off, free) {
                let id = MessageId {
                    conversation: head.conversation,
                    sequence: head.sequence,
                };
                busy.insert(head.conversation);
                let (store, lane, links) = (store.clone(), Arc::clone(&lane), Arc::clone(&links));
                let resend = lane.resend_unknown && resends.get(&id).is_none_or(|count| *count < RESENDS);
                attempts.spawn(async move { (id, attempt(&store, &lane, &links, id, resend).await) });
            }
        }
        if !paused {
            let waiting = obstacle.as_ref().or(unreadable.as_ref());
            statuses.update(&lane.channel, |status| status.waiting = waiting.cloned());
        }
        tokio::select! {
            Some(joined) = attempts.join_next() => {
                let (id, outcome) = joined.map_err(|error| format!("an attempt broke off: {error}"))?;
                if let Err(reason @ StoreError::Corrupt(_)) = &outcome {
                    // Its conversation stays busy until the next start; the others go on.
                    error!(message_id = id.to_string().as_str(), channel = lane.channel.as_str(),
                        reason = reason.to_string().as_str(); "An outgoing message cannot be read");
                    unreadable = Some(format!("the message {id} cannot be read and holds its conversation: {reason}"));
                    continue;
                }
                busy.remove(&id.conversation);
                let outcome =
                    outcome.map_err(|error| format!("the outcome of an attempt could not be stored: {error}"))?;
                let earlier = resends.remove(&id).unwrap_or(0);
                let Some(outcome) = outcome else {
                    // Deleted meanwhile. Should it be offered again, then not without end.
                    paused_until = tokio::time::Instant::now() + PAUSE;
                    continue;
                };
                match outcome {
                    Attempt::Sent => statuses.update(&lane.channel, |status| status.sent += 1),
                    Attempt::Rejected(_) => statuses.update(&lane.channel, |status| status.rejected += 1),
                    Attempt::Unknown(_) => {
                        if lane.resend_unknown && earlier < RESENDS {
                            resends.insert(id, earlier + 1);
                            paused_until = tokio::time::Instant::now() + PAUSE;
                        }
                        statuses.update(&lane.channel, |status| status.unknown += 1);
                    }
                    Attempt::NotStarted(reason) => {
                        put_off.insert(id.conversation);
                        if earlier > 0 {
                            resends.insert(id, earlier);
                        }
                        paused_until = tokio::time::Instant::now() + PAUSE;
                        statuses.update(&lane.channel, |status| status.waiting = Some(reason));
                    }
                }
            }
            gone = changed.changed() => if gone.is_err() { return Ok(()) },
            // A driver ends when it hears of the stop, which may be before this lane does.
            gone = link.changed(), if !driver_gone => driver_gone = gone.is_err(),
            gone = stop.changed(), if !stopping => if gone.is_err() { return Ok(()) },
            () = tokio::time::sleep_until(paused_until), if paused => {}
            _ = ticks.tick() => beat(),
        }
    }
}

/// What goes out next, oldest first: one message that cannot leave must not hold up the others.
fn next_heads(
    store: &Store,
    channel: &ChannelId,
    busy: &HashSet<ConversationId>,
    put_off: &mut HashSet<ConversationId>,
    limit: usize,
) -> Vec<Head> {
    let heads = |exclude: &HashSet<_>| store.heads(Queue::ToHardware, Some(channel), exclude, limit);
    if limit > 0 && !put_off.is_empty() {
        let others = heads(&busy.union(put_off).copied().collect());
        if !others.is_empty() {
            return others;
        }
        put_off.clear();
    }
    heads(busy)
}

/// Why the hardware cannot be reached, in words.
fn obstacle(link: &Link) -> Option<String> {
    match link {
        Link::Up(_) | Link::Limited { .. } | Link::Faulty { .. } => None,
        Link::Starting => Some("the connection to the hardware is being made".to_owned()),
        Link::Paused { reason, .. } | Link::Down { reason, .. } => Some(reason.clone()),
    }
}

/// Records the attempt, hands the message over and records the outcome; `None` when the message waits no longer.
async fn attempt(
    store: &Store,
    lane: &Lane,
    links: &Links,
    id: MessageId,
    resend_unknown: bool,
) -> Result<Option<Attempt>, StoreError> {
    let now = Timestamp::from_system_time(std::time::SystemTime::now());
    let channel = lane.channel.as_str();
    let message_id = id.to_string();
    let found = store.read(move |reader| reader.message(id)).await?;
    let files = found.map(|(_, message)| message.attachments).unwrap_or_default();
    let Some(mut message) = store.start_attempt(id, now).await? else {
        return Ok(None);
    };
    let outcome = match links.text_with_links(&message.text, &files, now) {
        Err(reason) => Attempt::Rejected(reason),
        Ok(text) => {
            message.text = text;
            let (sender, receiver) = oneshot::channel();
            match lane
                .driver
                .outgoing
                .send(OutgoingJob {
                    message,
                    outcome: sender,
                })
                .await
            {
                Err(_) => Attempt::NotStarted("the driver has stopped".to_owned()),
                Ok(()) => receiver.await.unwrap_or_else(|_| {
                    Attempt::Unknown("the driver stopped while it was sending the message".to_owned())
                }),
            }
        }
    };
    match &outcome {
        Attempt::Sent => info!(message_id = message_id.as_str(), channel; "Outgoing message handed over"),
        Attempt::Rejected(reason) => {
            warn!(message_id = message_id.as_str(), channel, reason = reason.as_str(); "Outgoing message refused");
        }
        Attempt::Unknown(reason) => {
            warn!(message_id = message_id.as_str(), channel, reason = reason.as_str(); "Outgoing message has an unknown outcome");
        }
        Attempt::NotStarted(reason) => {
            debug!(message_id = message_id.as_str(), channel, reason = reason.as_str(); "Outgoing message waits");
        }
    }
    store.finish_attempt(id, outcome.clone(), resend_unknown).await?;
    Ok(Some(outcome))
}

#[cfg(test)]
#[path = "to_hardware_tests.rs"]
mod tests;
