//! Blocking reads. What is read may be newer than the beginning of the read: messages never disappear from a
//! page because they were packed meanwhile.

use std::sync::Arc;

use log::warn;

use super::contacts::Name;
use super::messages::{find, newest_first, present};
use super::records::{Conversation, Entry, Known, MessageRecord, Person, UnmappedRecord, decode};
use super::shared::Shared;
use super::tx::Source;
use super::types::{Activity, ChannelLink, ConversationView, Queue, Queued, StoredFile, UplinkItem};
use super::{StoreError, keys};
use crate::domain::{
    AttachmentId, ChannelId, ConversationId, Message, MessageId, Participant, ParticipantId, Role, Sequence,
    Unmapped,
};

/// Reads the store. Its methods block: call them through [`super::Store::read`] or on a thread of your own.
#[derive(Clone)]
pub struct Reader {
    pub(super) shared: Arc<Shared>,
}

impl Reader {
    /// Conversations of a channel, newest activity first, each with up to `messages` messages, and the cursor of
    /// the next page (`None` at the end).
    pub fn conversations(
        &self,
        channel: &ChannelId,
        limit: usize,
        before: Option<Activity>,
        messages: usize,
    ) -> Result<(Vec<ConversationView>, Option<Activity>), StoreError> {
        let Some(number) = self.shared.channel_number(channel) else {
            return Ok((Vec::new(), None));
        };
        let mut views = Vec::new();
        let mut last = None;
        for item in self.shared.scan(keys::activities(number, before.map(|a| a.0))) {
            let (key, value) = item?;
            let (Some(activity), Some(id)) = (keys::inverted_tail(&key), keys::tail(&value)) else {
                return Err(StoreError::Corrupt(
                    "an entry of the order of activity".to_owned(),
                ));
            };
            if views.len() >= limit {
                return Ok((views, last));
            }
            let id = ConversationId(id);
            let view = match self.conversation(id, messages, None) {
                Err(error @ StoreError::Corrupt(_)) => {
                    // One conversation is no reason to show none.
                    warn!("The conversation {id} cannot be shown: {error}");
                    continue;
                }
                view => view?,
            };
            // None: deleted since.
            if let Some(mut view) = view {
                view.activity = Activity(activity);
                last = Some(view.activity);
                views.push(view);
            }
        }
        Ok((views, None))
    }

    /// A conversation with up to `messages` messages from before a sequence.
    pub fn conversation(
        &self,
        id: ConversationId,
        messages: usize,
        before: Option<Sequence>,
    ) -> Result<Option<ConversationView>, StoreError> {
        let mut stored = newest_first(&*self.shared, id, before);
        // One more than the page has says whether there is another one.
        let Some(conversation) = stored.conversation(messages.saturating_add(1))? else {
            return Ok(None);
        };
        let channel = self.shared.channel_id(conversation.channel)?;
        let mut page = Vec::new();
        let mut next = None;
        for item in stored {
            let (sequence, stored) = item?;
            if page.len() >= messages {
                next = page.last().map(|(oldest, _)| *oldest);
                // A page of no messages continues with the newest one.
                if page.is_empty() {
                    next = Some(Sequence(sequence.0.saturating_add(1)));
                }
                break;
            }
            page.push((sequence, stored));
        }
        let messages = present(&self.shared, &channel, id, page)?;
        let name = Name::of(&self.shared, &conversation.address);
        Ok(Some(ConversationView {
            id,
            channel,
            participants: self.participants(id, &conversation, &name),
            name: name.shown(None),
            address: conversation.address,
            seen: conversation.seen,
            status: conversation.status,
            messages,
            next,
            activity: Activity(conversation.last),
        }))
    }

    fn load(&self, id: ConversationId) -> Result<Option<Conversation>, StoreError> {
        self.shared.load(&keys::conversation(id))
    }

    /// One message, with its channel.
    pub fn message(&self, id: MessageId) -> Result<Option<(ChannelId, Message)>, StoreError> {
        let (Some(conversation), Some(found)) = (self.load(id.conversation)?, find(&*self.shared, id)?)
        else {
            return Ok(None);
        };
        let channel = self.shared.channel_id(conversation.channel)?;
        let message = self.present(&channel, id, found.stored)?;
        Ok(message.map(|message| (channel, message)))
    }

    fn present(
        &self,
        channel: &ChannelId,
        id: MessageId,
        stored: MessageRecord,
    ) -> Result<Option<Message>, StoreError> {
        let page = vec![(id.sequence, stored)];
        Ok(present(&self.shared, channel, id.conversation, page)?.pop())
    }

    /// A customer, with the channel. The company's side is not in the store.
    pub fn participant(&self, id: &ParticipantId) -> Result<Option<(ChannelId, Participant)>, StoreError> {
        let ParticipantId::EndUser {
            conversation: of,
            index,
        } = id
        else {
            return Ok(None);
        };
        let Some(conversation) = self.load(*of)? else {
            return Ok(None);
        };
        let channel = self.shared.channel_id(conversation.channel)?;
        let person = conversation.people.get(usize::from(*index));
        Ok(person.map(|person| {
            let name = Name::of(&self.shared, &conversation.address);
            let participant = self.present_person(id.clone(), person, &conversation, &name);
            (channel, participant)
        }))
    }

    /// A file of a message, and where it lies.
    pub fn attachment(&self, id: AttachmentId) -> Result<Option<StoredFile>, StoreError> {
        let Some(known) = self.shared.load::<Known>(&keys::file(id))? else {
            return Ok(None);
        };
        let Some(found) = find(&*self.shared, known.message())? else {
            return Ok(None);
        };
        let attachment = found.stored.attachments.into_iter().find(|a| a.id == id);
        Ok(attachment.map(|attachment| (attachment, self.shared.attachment_path(id))))
    }

    /// Whether Pipedrive has a channel.
    pub fn channel_link(&self, channel: &ChannelId) -> Result<ChannelLink, StoreError> {
        let number = self.shared.channel_number(channel);
        Ok(number
            .and_then(|number| self.shared.channel(number))
            .map_or_else(ChannelLink::default, |(_, link)| link))
    }

    /// The next entry of a conversation in the queue to the uplink.
    pub fn uplink_item(&self, id: ConversationId) -> Result<Option<UplinkItem>, StoreError> {
        let entries = keys::entries(Queue::ToUplink, Some(id));
        let Some(item) = self.shared.scan(entries).next() else {
            return Ok(None);
        };
        match keys::message_tail(&item?.0) {
            Some(message) => self.uplink_item_of(message),
            None => Ok(None),
        }
    }

    /// A message's entry in the queue to the uplink.
    pub fn uplink_item_of(&self, message: MessageId) -> Result<Option<UplinkItem>, StoreError> {
        let key = keys::entry(Queue::ToUplink, message);
        loop {
            let Some(value) = Source::get(&*self.shared, &key)? else {
                return Ok(None);
            };
            let entry: Entry = decode(&value)?;
            let Some(conversation) = self.load(message.conversation)? else {
                return Ok(None);
            };
            let channel = self.shared.channel_id(conversation.channel)?;
            let found = find(&*self.shared, message)?;
            // The message may have changed after its entry was read: then the revision must be the later one's
            // or an earlier one's, never a later one's with an earlier content.
            let unchanged = self.shared.get(&key)?.as_ref() == Some(&value);
            if unchanged {
                let Some(found) = found else {
                    return Err(StoreError::Corrupt(format!(
                        "message {message} waits, but is missing"
                    )));
                };
                let message = self.present(&channel, message, found.stored)?;
                return Ok(message.map(|message| UplinkItem {
                    message,
                    channel,
                    revision: entry.revision,
                    kind: entry.kind,
                    known_to_pipedrive: conversation.known,
                }));
            }
        }
    }

    /// What waits in a queue, by conversation and in order within each.
    pub fn queued(&self, queue: Queue, limit: usize) -> Result<Vec<Queued>, StoreError> {
        let mut queued = Vec::new();
        for item in self.shared.scan(keys::entries(queue, None)).take(limit) {
            let (key, value) = item?;
            let entry: Entry = decode(&value)?;
            if let Some(message) = keys::message_tail(&key) {
                let channel = self.shared.channel_id(entry.channel)?;
                queued.push(Queued {
                    channel,
                    message,
                    kind: entry.kind,
                    since: entry.since,
                });
            }
        }
        Ok(queued)
    }

    /// What no mapping could read, newest first.
    pub fn unmapped(&self, limit: usize) -> Result<Vec<Unmapped>, StoreError> {
        let mut records = Vec::new();
        for item in self.shared.scan(keys::all(b'U')).take(limit) {
            let record: UnmappedRecord = decode(&item?.1)?;
            records.push(Unmapped {
                device: record.device,
                source: record.source,
                payload: record.payload,
                reason: record.reason,
                received_at: record.received_at,
            });
        }
        Ok(records)
    }

    /// Every message of a channel that waits for the hardware with an attempt on record.
    pub(super) fn attempted(&self) -> Result<Vec<(ChannelId, MessageId)>, StoreError> {
        let mut attempted = Vec::new();
        for waiting in self.queued(Queue::ToHardware, usize::MAX)? {
            let found = match find(&*self.shared, waiting.message) {
                Err(error @ StoreError::Corrupt(_)) => {
                    // One message is no reason not to start.
                    warn!(
                        "The message {} waits and cannot be read: {error}",
                        waiting.message
                    );
                    continue;
                }
                found => found?,
            };
            if found.is_some_and(|found| found.stored.is_attempted()) {
                attempted.push((waiting.channel, waiting.message));
            }
        }
        Ok(attempted)
    }

    fn participants(&self, id: ConversationId, conversation: &Conversation, name: &Name) -> Vec<Participant> {
        (0_u16..)
            .zip(&conversation.people)
            .map(|(index, person)| {
                let id = ParticipantId::EndUser {
                    conversation: id,
                    index,
                };
                self.present_person(id, person, conversation, name)
            })
            .collect()
    }

    /// `name`: of the conversation's address, which is nearly always the person's.
    fn present_person(
        &self,
        id: ParticipantId,
        person: &Person,
        conversation: &Conversation,
        name: &Name,
    ) -> Participant {
        let given = person.name.as_deref();
        let (address, name) = match &person.address {
            Some(own) => (own, Name::of(&self.shared, own).shown(given)),
            None => (&conversation.address, name.shown(given)),
        };
        Participant {
            id,
            name,
            role: Role::EndUser,
            address: Some(address.clone()),
            avatar_url: None,
        }
    }
}
