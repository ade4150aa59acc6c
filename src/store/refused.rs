//! Updates of messages that Pipedrive refused: which message, and why, until it accepts one of the same message.
//!
//! They lie beside the messages, as notes: a state of its own would be a new shape of every record, for something
//! that hardly ever happens.

use super::StoreError;
use super::keys;
use super::reader::Reader;
use super::tx::{Source, Tx};
use crate::domain::{ConversationId, MessageId};

/// In the place of a driver's name.
const OWNER: &str = "pipedrive";
/// How many are kept; the oldest messages make room.
pub(super) const REFUSED_UPDATES_KEPT: usize = 256;

fn key(id: MessageId) -> Vec<u8> {
    let own = [id.conversation.0.to_be_bytes(), id.sequence.0.to_be_bytes()].concat();
    keys::note(OWNER, &own)
}

/// Of one conversation or of all, the oldest message first.
fn list(source: &impl Source, of: Option<ConversationId>) -> Result<Vec<(MessageId, String)>, StoreError> {
    let conversation = of.map(|id| id.0.to_be_bytes());
    let own = conversation.as_ref().map_or(&[][..], |bytes| bytes);
    let mut found = Vec::new();
    for item in source.scan(keys::prefix(keys::note(OWNER, own))) {
        let (key, reason) = item?;
        if let Some(id) = keys::message_tail(&key) {
            found.push((id, String::from_utf8_lossy(&reason).into_owned()));
        }
    }
    found.sort_unstable_by_key(|(id, _)| id.sequence);
    Ok(found)
}

pub(super) fn remember(tx: &mut Tx<'_>, id: MessageId, reason: String) -> Result<(), StoreError> {
    tx.put_raw(key(id), reason.into_bytes());
    let kept = list(tx, None)?;
    let surplus = kept.len().saturating_sub(REFUSED_UPDATES_KEPT);
    for (oldest, _) in kept.into_iter().take(surplus) {
        tx.delete(key(oldest));
    }
    Ok(())
}

/// Pipedrive has accepted a later update.
pub(super) fn forget(tx: &mut Tx<'_>, id: MessageId) -> Result<(), StoreError> {
    let key = key(id);
    if tx.get(&key)?.is_some() {
        tx.delete(key);
    }
    Ok(())
}

/// The messages are gone: of a conversation, or all from before a sequence.
pub(super) fn forget_gone(
    tx: &mut Tx<'_>,
    of: Option<ConversationId>,
    before: u64,
) -> Result<(), StoreError> {
    for (id, _) in list(tx, of)? {
        if id.sequence.0 < before {
            tx.delete(key(id));
        }
    }
    Ok(())
}

impl Reader {
    /// Messages of one conversation or of all whose last update Pipedrive refused, with the reason for a person; the
    /// oldest message first, at most 256.
    pub fn refused_updates(
        &self,
        of: Option<ConversationId>,
    ) -> Result<Vec<(MessageId, String)>, StoreError> {
        list(&*self.shared, of)
    }
}
