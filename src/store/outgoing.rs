//! Agent → customer.

use super::attachments::StagedAttachment;
use super::conversations::save_with_activity;
use super::incoming::next_sequence;
use super::messages::{Found, dequeue, enqueue, find, newest_first, replace};
use super::records::{Conversation, Entry, Known, MessageRecord, RecordState};
use super::shared::Shared;
use super::tx::{Source, Tx};
use super::types::{NewOutgoing, Queue, StatusApplied, UplinkKind};
use super::{StoreError, keys};
use crate::domain::{
    Attempt, ConversationId, ConversationStatus, DeviceStatus, MessageId, Outgoing, OutgoingState,
    StatusReport, StatusTarget, Timestamp,
};

/// How many messages of a conversation are looked at for a report that names only the recipient.
const MAX_LOOK_BACK: usize = 2000;

pub(super) fn insert(
    tx: &mut Tx<'_>,
    shared: &Shared,
    mut o: NewOutgoing,
    mut long_text: Option<StagedAttachment>,
) -> Result<MessageId, StoreError> {
    if !shared.gauge.space().is_enough() {
        return Err(StoreError::NoSpace);
    }
    let Some(mut conversation) = tx.load::<Conversation>(&keys::conversation(o.conversation))? else {
        return Err(StoreError::UnknownConversation);
    };
    if shared.channel_number(&o.channel) != Some(conversation.channel) {
        return Err(StoreError::UnknownConversation);
    }
    if conversation.status == ConversationStatus::Closed {
        return Err(StoreError::ConversationClosed);
    }
    let channel = conversation.channel;
    let stored = MessageRecord {
        created_at: o.now,
        stored_at: o.now,
        state: RecordState::Outgoing {
            state: OutgoingState::Queued,
            handed_at: o.now,
        },
        text: o.text,
        long_text: long_text.as_ref().map(StagedAttachment::extent),
        attachments: o.attachments.iter().map(StagedAttachment::attachment).collect(),
    };
    let bytes = stored.logical_bytes();
    let id = MessageId {
        conversation: o.conversation,
        sequence: next_sequence(tx, o.now, bytes)?,
    };
    tx.put(keys::live(id), &stored)?;
    conversation.seen = true;
    save_with_activity(tx, o.conversation, conversation, id.sequence)?;
    for file in o.attachments.iter().chain(&long_text) {
        tx.put(keys::file(file.id()), &Known::from(id))?;
    }
    let entry = Entry {
        channel,
        kind: UplinkKind::New,
        revision: 0,
        bytes,
        since: o.now,
    };
    enqueue(tx, Queue::ToHardware, id, entry.clone())?;
    if o.announce {
        enqueue(tx, Queue::ToUplink, id, entry)?;
    }
    o.attachments
        .iter_mut()
        .chain(&mut long_text)
        .for_each(StagedAttachment::keep);
    Ok(id)
}

pub(super) fn start_attempt(
    tx: &mut Tx<'_>,
    shared: &Shared,
    id: MessageId,
    now: Timestamp,
) -> Result<Option<Outgoing>, StoreError> {
    if tx.get(&keys::entry(Queue::ToHardware, id))?.is_none() {
        return Ok(None);
    }
    let (Some(mut found), Some(conversation)) = (
        find(tx, id)?,
        tx.load::<Conversation>(&keys::conversation(id.conversation))?,
    ) else {
        // Deleted with its conversation.
        dequeue(tx, Queue::ToHardware, id)?;
        return Ok(None);
    };
    let RecordState::Outgoing { state, handed_at } = &mut found.stored.state else {
        return Err(StoreError::Corrupt(format!(
            "message {id} is not outgoing, but waits for the hardware"
        )));
    };
    if *state != OutgoingState::Queued {
        return Ok(None);
    }
    *state = OutgoingState::Attempted;
    *handed_at = now;
    let outgoing = Outgoing {
        id,
        channel: shared.channel_id(conversation.channel)?,
        to: conversation.address,
        text: shared.whole_text(&found.stored),
        route: conversation.route,
    };
    replace(tx, id, found)?;
    Ok(Some(outgoing))
}

pub(super) fn finish_attempt(
    tx: &mut Tx<'_>,
    id: MessageId,
    outcome: Attempt,
    resend_unknown: bool,
) -> Result<(), StoreError> {
    let new = match outcome {
        Attempt::Sent => OutgoingState::Sent,
        Attempt::Rejected(reason) => OutgoingState::Rejected(reason),
        Attempt::Unknown(_) if resend_unknown => OutgoingState::Queued,
        Attempt::Unknown(reason) => OutgoingState::Unknown(reason),
        Attempt::NotStarted(_) => OutgoingState::Queued,
    };
    let Some(mut found) = find(tx, id)? else {
        dequeue(tx, Queue::ToHardware, id)?;
        return Ok(());
    };
    let RecordState::Outgoing { state, .. } = &mut found.stored.state else {
        return Ok(());
    };
    if *state != OutgoingState::Attempted {
        // A report of the device was quicker than the hardware's answer; it knows better.
        if *state != OutgoingState::Queued {
            dequeue(tx, Queue::ToHardware, id)?;
        }
        return Ok(());
    }
    *state = new;
    set_state(tx, id, found)
}

/// Writes a message whose state was changed, takes it out of the queue to the hardware unless it has to go out
/// again, and tells Pipedrive what it should know.
fn set_state(tx: &mut Tx<'_>, id: MessageId, found: Found) -> Result<(), StoreError> {
    let RecordState::Outgoing { state, .. } = &found.stored.state else {
        return Ok(());
    };
    let announce = matches!(
        state,
        OutgoingState::Delivered
            | OutgoingState::Read
            | OutgoingState::Rejected(_)
            | OutgoingState::Unknown(_)
    );
    let waits = matches!(state, OutgoingState::Queued | OutgoingState::Attempted);
    let bytes = found.stored.logical_bytes();
    replace(tx, id, found)?;
    if !waits {
        dequeue(tx, Queue::ToHardware, id)?;
    }
    if announce {
        let Some(conversation) = tx.load::<Conversation>(&keys::conversation(id.conversation))? else {
            return Ok(());
        };
        let entry = Entry {
            channel: conversation.channel,
            kind: UplinkKind::Status,
            revision: 0,
            bytes,
            since: Timestamp::from_system_time(std::time::SystemTime::now()),
        };
        enqueue(tx, Queue::ToUplink, id, entry)?;
    }
    Ok(())
}

pub(super) fn apply_status(
    tx: &mut Tx<'_>,
    shared: &Shared,
    r: StatusReport,
) -> Result<StatusApplied, StoreError> {
    let Some(channel) = shared.channel_number(&r.channel) else {
        return Ok(StatusApplied::NoMatch);
    };
    let id = match r.of {
        StatusTarget::Id(id) => {
            let of_channel = tx
                .load::<Conversation>(&keys::conversation(id.conversation))?
                .is_some_and(|conversation| conversation.channel == channel);
            of_channel.then_some(id)
        }
        StatusTarget::Recipient {
            address,
            text,
            not_before,
        } => {
            let conversation = tx
                .get(&keys::address(channel, &address))?
                .and_then(|value| keys::tail(&value));
            match conversation {
                Some(id) => oldest_meant(
                    tx,
                    shared,
                    ConversationId(id),
                    text.as_deref(),
                    not_before,
                    &r.status,
                )?,
                None => None,
            }
        }
    };
    let Some(id) = id else {
        return Ok(StatusApplied::NoMatch);
    };
    let Some(mut found) = find(tx, id)? else {
        return Ok(StatusApplied::NoMatch);
    };
    let RecordState::Outgoing { state, .. } = &mut found.stored.state else {
        return Ok(StatusApplied::NoMatch);
    };
    if !state.accepts(&r.status) {
        return Ok(StatusApplied::Unchanged(id));
    }
    *state = match r.status {
        DeviceStatus::Sent => OutgoingState::Sent,
        DeviceStatus::Delivered => OutgoingState::Delivered,
        DeviceStatus::Read => OutgoingState::Read,
        DeviceStatus::Failed(reason) => OutgoingState::Rejected(reason),
    };
    set_state(tx, id, found)?;
    Ok(StatusApplied::Applied(id))
}

/// The oldest message handed over since a time that a report can still change.
fn oldest_meant(
    tx: &Tx<'_>,
    shared: &Shared,
    conversation: ConversationId,
    text: Option<&str>,
    not_before: Timestamp,
    status: &DeviceStatus,
) -> Result<Option<MessageId>, StoreError> {
    let mut meant = None;
    for item in newest_first(tx, conversation, None).take(MAX_LOOK_BACK) {
        let (sequence, record) = item?;
        let RecordState::Outgoing { state, handed_at } = &record.state else {
            continue;
        };
        if matches!(state, OutgoingState::Queued) {
            continue;
        }
        // Messages of one conversation are handed over in their order.
        if *handed_at < not_before {
            break;
        }
        if state.accepts(status) && text.is_none_or(|text| repeats(text, &record, shared)) {
            meant = Some(MessageId {
                conversation,
                sequence,
            });
        }
    }
    Ok(meant)
}

/// Whether a device that repeats the text means this message. One with files went out with links behind the text, each
/// on a line of its own; the device may have cut them.
fn repeats(reported: &str, record: &MessageRecord, shared: &Shared) -> bool {
    let text = shared.whole_text(record);
    let Some(links) = reported.strip_prefix(text.as_str()) else {
        return false;
    };
    if record.attachments.is_empty() {
        links.is_empty()
    } else if text.is_empty() {
        links.contains("://")
    } else {
        links.starts_with(['\n', '\r'])
    }
}
