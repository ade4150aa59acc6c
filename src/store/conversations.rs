//! Channels, conversations and who takes part in them.

use log::{error, warn};

use super::messages::dequeue;
use super::packs;
use super::records::{Channel, Conversation, MessageRecord, Person, decode};
use super::retention::Removed;
use super::shared::Shared;
use super::tx::{Archived, Source, Tx};
use super::types::{ChannelLink, Queue};
use super::{StoreError, keys, refused};
use crate::domain::{Address, ChannelId, ConversationId, ConversationStatus, MessageId, Sequence};

/// Participants of one group that are told apart; later ones share the last place.
const MAX_PEOPLE: usize = 500;

/// The number of a channel, given out when it is first seen.
pub(super) fn channel_number(tx: &mut Tx<'_>, shared: &Shared, id: &ChannelId) -> Result<u16, StoreError> {
    if let Some(number) = shared.channel_number(id) {
        return Ok(number);
    }
    if let Some(channel) = tx.load::<Channel>(&keys::channel(id))? {
        return Ok(channel.number);
    }
    let number = u16::try_from(tx.head.waiting.len())
        .map_err(|_| StoreError::Corrupt("more than 65536 channels".to_owned()))?;
    tx.count_waiting(number, |_| {});
    save_channel(
        tx,
        id,
        Channel {
            number,
            link: ChannelLink::NotRegistered,
        },
    )?;
    Ok(number)
}

fn save_channel(tx: &mut Tx<'_>, id: &ChannelId, channel: Channel) -> Result<(), StoreError> {
    tx.put(keys::channel(id), &channel)?;
    tx.effects
        .channels
        .push((id.clone(), channel.number, channel.link));
    Ok(())
}

pub(super) fn set_link(
    tx: &mut Tx<'_>,
    shared: &Shared,
    id: &ChannelId,
    link: ChannelLink,
) -> Result<(), StoreError> {
    let number = channel_number(tx, shared, id)?;
    save_channel(tx, id, Channel { number, link })
}

pub(super) fn find_or_start(
    tx: &mut Tx<'_>,
    channel: u16,
    address: Address,
) -> Result<(ConversationId, Conversation), StoreError> {
    let key = keys::address(channel, &address);
    if let Some(id) = tx
        .get(&key)?
        .and_then(|value| keys::tail(&value))
        .map(ConversationId)
    {
        match tx.load(&keys::conversation(id)) {
            Ok(Some(conversation)) => return Ok((id, conversation)),
            // Refusing would keep this customer's messages with the hardware for ever, and everything behind them.
            Ok(None) => error!("The conversation {id} is missing: a new one is begun"),
            Err(StoreError::Corrupt(reason)) => {
                error!("The conversation {id} cannot be read: a new one is begun ({reason})");
            }
            Err(other) => return Err(other),
        }
    }
    let id = ConversationId::generate().map_err(|_| StoreError::NoEntropy)?;
    let conversation = Conversation {
        channel,
        address,
        people: Vec::new(),
        route: std::collections::BTreeMap::new(),
        seen: true,
        status: ConversationStatus::Open,
        known: false,
        last: 0,
    };
    tx.put_raw(key, id.0.to_be_bytes().to_vec());
    tx.put(keys::conversation(id), &conversation)?;
    tx.head.conversations += 1;
    Ok((id, conversation))
}

/// The writer's place among those who wrote. A new name replaces the old one.
pub(super) fn participant_index(
    conversation: &mut Conversation,
    from: &Address,
    from_name: Option<String>,
) -> u16 {
    let address = (*from != conversation.address).then(|| from.clone());
    let index = match conversation
        .people
        .iter()
        .position(|person| person.address == address)
    {
        Some(index) => index,
        None if conversation.people.len() < MAX_PEOPLE => {
            conversation.people.push(Person { address, name: None });
            conversation.people.len() - 1
        }
        None => MAX_PEOPLE - 1,
    };
    if let (Some(person), Some(name)) = (conversation.people.get_mut(index), from_name) {
        person.name = Some(name);
    }
    u16::try_from(index).unwrap_or(u16::MAX)
}

/// Saves a conversation and moves it to the front of its channel.
pub(super) fn save_with_activity(
    tx: &mut Tx<'_>,
    id: ConversationId,
    mut conversation: Conversation,
    last: Sequence,
) -> Result<(), StoreError> {
    if conversation.last != 0 {
        tx.delete(keys::activity(conversation.channel, conversation.last));
    }
    conversation.last = last.0;
    tx.put_raw(
        keys::activity(conversation.channel, last.0),
        id.0.to_be_bytes().to_vec(),
    );
    tx.put(keys::conversation(id), &conversation)
}

pub(super) fn mark_seen(tx: &mut Tx<'_>, id: ConversationId) -> Result<bool, StoreError> {
    let key = keys::conversation(id);
    let Some(mut conversation) = tx.load::<Conversation>(&key)? else {
        return Ok(false);
    };
    if !conversation.seen {
        conversation.seen = true;
        tx.put(key, &conversation)?;
    }
    Ok(true)
}

pub(super) fn set_status(
    tx: &mut Tx<'_>,
    id: ConversationId,
    status: ConversationStatus,
) -> Result<bool, StoreError> {
    let key = keys::conversation(id);
    let Some(mut conversation) = tx.load::<Conversation>(&key)? else {
        return Ok(false);
    };
    if conversation.status != status {
        conversation.status = status;
        tx.put(key, &conversation)?;
    }
    Ok(true)
}

pub(super) fn delete(tx: &mut Tx<'_>, id: ConversationId) -> Result<bool, StoreError> {
    let key = keys::conversation(id);
    let Some(conversation) = tx.load::<Conversation>(&key)? else {
        return Ok(false);
    };
    for queue in [Queue::ToUplink, Queue::ToHardware] {
        let waiting: Vec<MessageId> = tx
            .scan(keys::entries(queue, Some(id)))
            .filter_map(|item| item.map(|(key, _)| keys::message_tail(&key)).transpose())
            .collect::<Result<_, _>>()?;
        for message in waiting {
            dequeue(tx, queue, message)?;
        }
    }
    let mut removed = Removed::default();
    let live: Vec<_> = tx.scan(keys::lives(id, None)).collect::<Result<_, _>>()?;
    for (key, value) in live {
        match decode::<MessageRecord>(&value) {
            Ok(message) => removed.add(&message),
            // What cannot be read goes all the same.
            Err(error) => {
                warn!("A message of conversation {id} is deleted unread: {error}");
                removed.messages += 1;
            }
        }
        tx.delete(key.to_vec());
    }
    let packs: Vec<_> = tx.scan(keys::packs(id, None)).collect::<Result<_, _>>()?;
    for (key, value) in packs {
        removed.add_pack(tx.archive(), &key, &value);
        match packs::forget(tx, &key, &value) {
            Err(StoreError::Corrupt(error)) => warn!("A pack is deleted, its bytes are not counted: {error}"),
            forgotten => forgotten?,
        }
    }
    removed.apply(tx);
    refused::forget_gone(tx, Some(id), u64::MAX)?;
    if conversation.last != 0 {
        tx.delete(keys::activity(conversation.channel, conversation.last));
    }
    tx.delete(keys::address(conversation.channel, &conversation.address));
    tx.delete(key);
    tx.head.conversations = tx.head.conversations.saturating_sub(1);
    Ok(true)
}
