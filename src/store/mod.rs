//! The embedded store: the only room that names sled.
//!
//! One thread writes (`committer`): it takes what is waiting, applies it as one atomic batch, syncs once and
//! answers everyone. Reads run on any thread. The layout is in `keys`, the values in `records`.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

mod archive;
mod attachments;
mod committer;
mod compaction;
mod contacts;
mod conversations;
mod doubts;
mod ending;
mod error;
mod generations;
mod identity;
mod incoming;
mod installations;
mod keys;
mod maintenance;
mod messages;
mod migration;
mod notes;
mod open;
mod outgoing;
mod packs;
mod reader;
mod records;
mod refused;
mod renewal;
mod repair;
mod report;
mod rescue;
mod retention;
mod salvage;
mod shared;
mod space;
#[cfg(test)]
mod tests;
mod tx;
mod types;
mod watermark;

pub use attachments::{AttachmentWriter, StagedAttachment};
pub use contacts::MAX_CONTACTS;
pub use error::{OpenError, StoreError};
pub use installations::{Installation, InstallationState};
pub use notes::{Kept, Note};
pub use reader::Reader;
pub use rescue::watch_for_damage;
pub use types::{
    Activity, ChannelCounts, ChannelLink, Contact, ContactOutcome, ConversationView, Counts, Head, Inserted,
    Maintenance, NewOutgoing, Options, Queue, Queued, Space, StatusApplied, StoredFile, Updates, UplinkItem,
    UplinkKind, UplinkResult,
};

use committer::{Committer, Durability};
use shared::Shared;
use tx::{Source, Tx};

use crate::domain::{
    Address, Attempt, ChannelId, ConversationId, ConversationStatus, DedupKey, GatewayId, MessageId,
    Outgoing, ReceivedMessage, StatusReport, Timestamp, Unmapped,
};

/// Longest text of a message, in bytes.
pub const MAX_TEXT: usize = 64 * 1024;

/// An open store. Clones share it; it is let go with the last clone after [`Store::close`].
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    committer: Committer,
    shared: Arc<Shared>,
    /// Whether the database was damaged and has just been replaced.
    rescued: bool,
    /// Held, not read: lets a second process say who has the store. Declared last, so that it goes last.
    _lock: File,
}

impl Store {
    /// Opens the store, or makes it. Blocks.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        Self::start(open::open(options, true)?)
    }

    /// Opens an existing store for a command while no daemon runs. Blocks.
    pub fn open_existing(options: Options) -> Result<Self, OpenError> {
        Self::start(open::open(options, false)?)
    }

    fn start(opened: open::Opened) -> Result<Self, OpenError> {
        let open::Opened {
            shared,
            generation,
            lock,
            rescued,
        } = opened;
        let shared = Arc::new(shared);
        let committer =
            Committer::start(Arc::clone(&shared), generation).map_err(|source| OpenError::Io {
                what: "start the thread of",
                path: shared.options.state_dir.clone(),
                source,
            })?;
        Ok(Self {
            inner: Arc::new(Inner {
                committer,
                shared,
                rescued,
                _lock: lock,
            }),
        })
    }

    /// Syncs what is left and ends the committer. Later writes are answered with [`StoreError::Closed`].
    pub async fn close(&self) {
        self.inner.committer.close().await;
    }

    /// Resolves when the committer has taken up an empty operation: it is not stuck. Writes and syncs nothing.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.write(Durability::Lazy, |_, _| Ok(())).await
    }

    async fn write<T: Send + 'static>(
        &self,
        durability: Durability,
        operation: impl FnOnce(&mut Tx<'_>, &Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.inner.shared);
        self.inner
            .committer
            .submit(durability, move |tx| operation(tx, &shared))
            .await
    }

    /// The configured id, else the one that was made once.
    #[must_use]
    pub fn gateway_id(&self) -> &GatewayId {
        &self.inner.shared.gateway
    }

    /// Signs links to files; made once.
    #[must_use]
    pub fn media_secret(&self) -> [u8; 32] {
        self.inner.shared.media_secret
    }

    /// A random name that stays the same for a key, e.g. an MQTT client id. Durable when it returns.
    pub async fn persistent_name(&self, key: &str) -> Result<String, StoreError> {
        let key = keys::name(key);
        let (name, new) = self
            .write(Durability::Synced, move |tx, _| {
                if let Some(name) = tx.load(&key)? {
                    return Ok((name, false));
                }
                let name = open::random_name()?;
                tx.put(key, &name)?;
                Ok((name, true))
            })
            .await?;
        if new {
            self.read(|reader| {
                reader.shared.keep_identity();
                Ok(())
            })
            .await?;
        }
        Ok(name)
    }

    /// Stores a customer's message, or recognises it. Durable when it returns.
    pub async fn insert_incoming(&self, mut m: ReceivedMessage) -> Result<Inserted, StoreError> {
        check_text(&m.text)?;
        let received = std::mem::take(&mut m.attachments);
        let shared = &self.inner.shared;
        let mut files = Vec::new();
        let mut long_text = None;
        if !received.is_empty() || m.text.len() > attachments::INLINE_TEXT {
            if let Some(known) = self.duplicate_of(&m)? {
                // The tree shows the first one before it is synced, and also when its sync has failed.
                self.ping().await?;
                return Ok(Inserted::Duplicate(known));
            }
            if !shared.gauge.check(shared.head().queued_bytes).is_enough() {
                return Err(StoreError::NoSpace);
            }
            files = attachments::stage_received(shared, &received).await?;
            long_text = attachments::stage_long_text(shared, &mut m.text).await?;
        }
        self.recheck_space();
        self.write(Durability::Synced, move |tx, shared| {
            incoming::insert(tx, shared, m, files, long_text)
        })
        .await
    }

    fn duplicate_of(&self, m: &ReceivedMessage) -> Result<Option<MessageId>, StoreError> {
        let (Some(channel), Some(key)) = (self.inner.shared.channel_number(&m.channel), &m.dedup) else {
            return Ok(None);
        };
        if matches!(key, DedupKey::FirstHash(_)) {
            return Ok(None);
        }
        let known: Option<records::Remembered> = self.inner.shared.load(&keys::dedup(channel, key))?;
        Ok(known.map(|known| known.message.message()))
    }

    /// While nothing is taken in, nothing else would notice that there is room again.
    fn recheck_space(&self) {
        let shared = &self.inner.shared;
        if !shared.gauge.space().is_enough() {
            shared.gauge.check(shared.head().queued_bytes);
        }
    }

    /// Keeps what no mapping could read; the newest 1000 are kept. Durable when it returns.
    pub async fn insert_unmapped(&self, u: Unmapped) -> Result<(), StoreError> {
        self.recheck_space();
        self.write(Durability::Synced, move |tx, shared| {
            incoming::insert_unmapped(tx, shared, u)
        })
        .await
    }

    /// Stores an agent's message for the hardware. Durable when it returns.
    pub async fn insert_outgoing(&self, mut o: NewOutgoing) -> Result<MessageId, StoreError> {
        check_text(&o.text)?;
        self.recheck_space();
        let long_text = attachments::stage_long_text(&self.inner.shared, &mut o.text).await?;
        self.write(Durability::Synced, move |tx, shared| {
            outgoing::insert(tx, shared, o, long_text)
        })
        .await
    }

    /// The conversation with an address, made if there is none. Durable when it returns.
    pub async fn find_or_start_conversation(
        &self,
        channel: ChannelId,
        to: Address,
        _now: Timestamp,
    ) -> Result<ConversationId, StoreError> {
        self.write(Durability::Synced, move |tx, shared| {
            let number = conversations::channel_number(tx, shared, &channel)?;
            conversations::find_or_start(tx, number, to).map(|(id, _)| id)
        })
        .await
    }

    /// Records that a message is about to be handed to the hardware. Durable when it returns; `None` when it is
    /// no longer queued.
    pub async fn start_attempt(&self, id: MessageId, now: Timestamp) -> Result<Option<Outgoing>, StoreError> {
        self.write(Durability::Synced, move |tx, shared| {
            outgoing::start_attempt(tx, shared, id, now)
        })
        .await
    }

    /// Records how the attempt ended. [`Attempt::NotStarted`], and [`Attempt::Unknown`] with `resend_unknown`,
    /// leave the message queued. Durable when it returns.
    pub async fn finish_attempt(
        &self,
        id: MessageId,
        outcome: Attempt,
        resend_unknown: bool,
    ) -> Result<(), StoreError> {
        self.write(Durability::Synced, move |tx, _| {
            outgoing::finish_attempt(tx, id, outcome, resend_unknown)
        })
        .await
    }

    /// At the start: messages with an attempt on record whose outcome is not, and those that a damaged database leaves in
    /// doubt, become unknown, or queued again where `resend_unknown` says so. Returns how many there were. Durable when it returns.
    pub async fn recover_attempts(
        &self,
        resend_unknown: &(dyn Fn(&ChannelId) -> bool + Sync),
    ) -> Result<usize, StoreError> {
        let attempted = self.read(Reader::attempted).await?;
        let reason = if self.inner.rescued {
            "the database was damaged: it may have been sent before"
        } else {
            "the gateway stopped while it was being sent"
        };
        for (channel, id) in &attempted {
            let outcome = Attempt::Unknown(reason.to_owned());
            self.finish_attempt(*id, outcome, resend_unknown(channel)).await?;
        }
        Ok(attempted.len())
    }

    /// Applies a device's word on an outgoing message. Durable when it returns.
    pub async fn apply_status(&self, r: StatusReport) -> Result<StatusApplied, StoreError> {
        self.write(Durability::Synced, move |tx, shared| {
            outgoing::apply_status(tx, shared, r)
        })
        .await
    }

    /// Counts up whenever the heads of a queue change.
    #[must_use]
    pub fn queue_changed(&self, queue: Queue) -> watch::Receiver<u64> {
        self.inner.shared.queue_changed(queue)
    }

    /// Conversations with something in a queue, by the age of their next entry. From memory.
    #[must_use]
    pub fn heads(
        &self,
        queue: Queue,
        channel: Option<&ChannelId>,
        exclude: &HashSet<ConversationId>,
        limit: usize,
    ) -> Vec<Head> {
        self.inner.shared.heads(queue, channel, exclude, limit)
    }

    /// What may be delivered to the uplink next, oldest first, of one channel or of all: up to `limit`, one of each
    /// conversation that is not in `exclude`. Also since when the oldest status update that does not yet may has
    /// waited. A new message does not wait for the status updates of its conversation.
    #[must_use]
    pub fn deliverable(
        &self,
        channel: Option<&ChannelId>,
        exclude: &HashSet<ConversationId>,
        limit: usize,
        updates: Updates,
    ) -> (Vec<Head>, Option<Timestamp>) {
        self.inner.shared.deliverable(channel, exclude, limit, updates)
    }

    /// How much there is. From memory.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.shared.counts()
    }

    /// Pipedrive accepted an entry. Removes it, unless its revision has moved on. Durable with the next write that is, or
    /// within half a minute: after a crash it may be delivered again.
    pub async fn uplink_done(&self, id: MessageId, revision: u64) -> Result<(), StoreError> {
        self.write(Durability::WithNext, move |tx, _| {
            incoming::uplink_finished(tx, id, revision, None)
        })
        .await
    }

    /// Pipedrive refused an entry for good. Durable like [`Store::uplink_done`].
    pub async fn uplink_failed(
        &self,
        id: MessageId,
        revision: u64,
        reason: String,
    ) -> Result<(), StoreError> {
        self.write(Durability::WithNext, move |tx, _| {
            incoming::uplink_finished(tx, id, revision, Some(reason))
        })
        .await
    }

    /// The same for several entries, as one write.
    pub async fn uplink_results(&self, results: Vec<UplinkResult>) -> Result<(), StoreError> {
        self.write(Durability::WithNext, move |tx, _| {
            for result in results {
                incoming::uplink_finished(tx, result.message, result.revision, result.refusal)?;
            }
            Ok(())
        })
        .await
    }

    /// Remembers whether Pipedrive has a channel. Durable when it returns.
    pub async fn set_channel_link(&self, channel: &ChannelId, link: ChannelLink) -> Result<(), StoreError> {
        let channel = channel.clone();
        self.write(Durability::Synced, move |tx, shared| {
            conversations::set_link(tx, shared, &channel, link)
        })
        .await
    }

    /// Deletes a conversation with everything in it. Durable when it returns; `false` when there was none.
    pub async fn delete_conversation(&self, id: ConversationId) -> Result<bool, StoreError> {
        self.write(Durability::Synced, move |tx, _| conversations::delete(tx, id))
            .await
    }

    /// Somebody has read the conversation. Durable with the next write that is, or within half a minute; `false` when there is none.
    pub async fn mark_seen(&self, id: ConversationId) -> Result<bool, StoreError> {
        self.write(Durability::WithNext, move |tx, _| {
            conversations::mark_seen(tx, id)
        })
        .await
    }

    /// Closes a conversation, so that no answer is taken, or opens it. It opens again when the customer writes. Durable
    /// when it returns; `false` when there is none.
    pub async fn set_status(
        &self,
        id: ConversationId,
        status: ConversationStatus,
    ) -> Result<bool, StoreError> {
        self.write(Durability::Synced, move |tx, _| {
            conversations::set_status(tx, id, status)
        })
        .await
    }

    /// Pipedrive was answered for a conversation. In memory, bounded.
    pub fn note_served(&self, id: ConversationId) {
        self.inner.shared.note_served(id);
    }

    /// Whether Pipedrive was answered for a conversation since the start.
    #[must_use]
    pub fn was_served(&self, id: ConversationId) -> bool {
        self.inner.shared.was_served(id)
    }

    /// Begins a file of a message that is about to be stored.
    pub async fn stage_attachment(&self, name: &str, mime: &str) -> Result<AttachmentWriter, StoreError> {
        self.recheck_space();
        if !self.inner.shared.gauge.space().is_enough() {
            return Err(StoreError::NoSpace);
        }
        AttachmentWriter::create(&self.inner.shared, name, mime).await
    }

    /// Whether there is room to take messages in.
    #[must_use]
    pub fn space(&self) -> watch::Receiver<Space> {
        self.inner.shared.gauge.watch()
    }

    /// A damaged database that was replaced and is kept until somebody removes it. Blocks for a moment.
    #[must_use]
    pub fn damaged_copy(&self) -> Option<PathBuf> {
        rescue::kept_copy(&self.inner.shared.options.state_dir)
    }

    /// What a [`Store::damaged_copy`] has cost at most, in words: `at most 3 messages, 0 conversations`. Blocks for a
    /// moment.
    #[must_use]
    pub fn lost_with(damaged_copy: &Path) -> Option<String> {
        rescue::lost_with(damaged_copy)
    }

    /// How many answers were held back with a [`Store::damaged_copy`], because they may have left before. Blocks for a
    /// moment.
    #[must_use]
    pub fn held_with(damaged_copy: &Path) -> u64 {
        rescue::held_with(damaged_copy)
    }

    /// Set once when a write or a sync failed: nothing is acknowledged any more, the daemon must stop.
    #[must_use]
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.inner.shared.failed()
    }

    /// One round of packing, retention and cleaning up. Called every minute or so, again soon when
    /// [`Maintenance::more`] says so.
    pub async fn maintain(&self, now: Timestamp) -> Result<Maintenance, StoreError> {
        maintenance::round(self, now).await
    }

    /// Makes the record of a live message unreadable.
    #[cfg(test)]
    pub(crate) async fn damage(&self, id: MessageId) -> Result<(), StoreError> {
        self.write(Durability::Synced, move |tx, _| {
            tx.put_raw(keys::live(id), vec![0xff]);
            Ok(())
        })
        .await
    }

    /// A reader for threads.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader {
            shared: Arc::clone(&self.inner.shared),
        }
    }

    /// Reads on a thread where blocking is allowed.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reader = self.reader();
        tokio::task::spawn_blocking(move || read(&reader))
            .await
            .map_err(|_| StoreError::Closed)?
    }
}

/// Whether a message is written to files before the committer gets it, so that one that is handed over right behind
/// it would be stored before it.
#[must_use]
pub const fn needs_files(m: &ReceivedMessage) -> bool {
    !m.attachments.is_empty() || m.text.len() > attachments::INLINE_TEXT
}

fn check_text(text: &str) -> Result<(), StoreError> {
    if text.len() > MAX_TEXT {
        return Err(StoreError::TextTooLong(text.len()));
    }
    Ok(())
}
