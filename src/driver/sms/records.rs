//! What the driver of a modem remembers over a restart.
//!
//! | key | value | why |
//! |---|---|---|
//! | `x` hash of a PDU | [`KeptPart`] | a part whose message is not whole yet; the modem no longer has it |
//! | `j` hash of a PDU | [`Seen`] | a message that was stored and deleted from the modem |
//! | `a` hash of a recipient | [`Reference`] | a part that is being sent, or whose outcome is unknown |
//! | `r` reference, hash of a recipient | [`Reference`] | a part that a status report may name |
//! | `d` message | numbers of its parts that are delivered | |
//! | `n` message | [`Progress`] | the parts of a longer message that have left; they do not leave again |
//! | `c` | [`Sent`] | parts sent today |
//! | `p` | [`Pin`] | the PIN that was tried |
//! | `k` | hash of the SIM's number | the SIM that it was tried on, where the modem says |

use ring::digest::{SHA256, digest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::domain::{ConversationId, MessageId, Sequence};
use crate::store::{Note, Store, StoreError};

pub(in crate::driver) type Hash = [u8; 16];

/// Records that are forgotten at a time.
const PRUNED: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::driver) struct KeptPart {
    /// Unix time in milliseconds.
    pub(in crate::driver) at: i64,
    pub(in crate::driver) pdu: Vec<u8>,
}

/// A PDU that was stored and deleted from the modem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::driver) struct Seen {
    pub(in crate::driver) at: i64,
    /// How many equal PDUs were messages of their own before.
    pub(in crate::driver) serial: u32,
}

/// Which part of which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::driver) struct Reference {
    pub(in crate::driver) at: i64,
    pub(in crate::driver) conversation: u64,
    pub(in crate::driver) sequence: u64,
    pub(in crate::driver) part: u8,
    pub(in crate::driver) total: u8,
}

impl Reference {
    pub(in crate::driver) const fn message(self) -> MessageId {
        MessageId {
            conversation: ConversationId(self.conversation),
            sequence: Sequence(self.sequence),
        }
    }
}

/// How far a message of several parts has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::driver) struct Progress {
    pub(in crate::driver) at: i64,
    /// Parts that the network has taken.
    pub(in crate::driver) left: u8,
    pub(in crate::driver) total: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::driver) struct Sent {
    /// Days since 1970 (UTC).
    pub(in crate::driver) day: i64,
    pub(in crate::driver) parts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::driver) struct Pin {
    /// Of the PIN with the store's secret: the PIN itself is not to be found from it.
    pub(in crate::driver) digest: [u8; 32],
    pub(in crate::driver) refused: bool,
}

pub(in crate::driver) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        all.extend_from_slice(part);
    }
    digest(&SHA256, &all).as_ref().try_into().unwrap_or_default()
}

/// What identifies a PDU: all its octets and the SIM that it came to.
pub(in crate::driver) fn identity(imsi: &str, pdu: &[u8]) -> Hash {
    hash(&[imsi.as_bytes(), pdu])
        .first_chunk()
        .copied()
        .unwrap_or_default()
}

fn recipient_hash(recipient: &str) -> [u8; 8] {
    hash(&[recipient.as_bytes()])
        .first_chunk()
        .copied()
        .unwrap_or_default()
}

fn key(letter: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![letter];
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

pub(in crate::driver) fn part(hash: &Hash) -> Vec<u8> {
    key(b'x', &[hash])
}

pub(in crate::driver) fn seen(hash: &Hash) -> Vec<u8> {
    key(b'j', &[hash])
}

pub(in crate::driver) fn attempt(recipient: &str) -> Vec<u8> {
    key(b'a', &[&recipient_hash(recipient)])
}

pub(in crate::driver) fn reference(reference: u8, recipient: &str) -> Vec<u8> {
    key(b'r', &[&[reference], &recipient_hash(recipient)])
}

fn of_message(letter: u8, message: MessageId) -> Vec<u8> {
    key(
        letter,
        &[
            &message.conversation.0.to_be_bytes(),
            &message.sequence.0.to_be_bytes(),
        ],
    )
}

pub(in crate::driver) fn delivered(message: MessageId) -> Vec<u8> {
    of_message(b'd', message)
}

pub(in crate::driver) fn progress(message: MessageId) -> Vec<u8> {
    of_message(b'n', message)
}

pub(in crate::driver) const SENT: &[u8] = b"c";
pub(in crate::driver) const PIN: &[u8] = b"p";
pub(super) const CARD: &[u8] = b"k";

/// A modem's records in the store.
#[derive(Clone)]
pub(in crate::driver) struct Records {
    pub(in crate::driver) store: Store,
    /// `modem office`
    pub(in crate::driver) owner: String,
}

pub(in crate::driver) fn put<T: Serialize>(key: Vec<u8>, value: &T) -> Result<Note, StoreError> {
    let value = postcard::to_stdvec(value).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    Ok((key, Some(value)))
}

pub(in crate::driver) const fn remove(key: Vec<u8>) -> Note {
    (key, None)
}

impl Records {
    pub(in crate::driver) async fn get<T: DeserializeOwned + Send + 'static>(
        &self,
        key: Vec<u8>,
    ) -> Result<Option<T>, StoreError> {
        let owner = self.owner.clone();
        let found = self.store.read(move |reader| reader.note(&owner, &key)).await?;
        // A record that cannot be read is one that is not there: it only recognises repeats.
        Ok(found.and_then(|bytes| postcard::from_bytes(&bytes).ok()))
    }

    /// All records of a kind with their keys.
    pub(in crate::driver) async fn all<T: DeserializeOwned + Send + 'static>(
        &self,
        letter: u8,
    ) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
        self.some(letter, usize::MAX, |_| true).await
    }

    pub(in crate::driver) async fn write(&self, notes: Vec<Note>, takes_in: bool) -> Result<(), StoreError> {
        self.store.keep_notes(&self.owner, notes, takes_in).await
    }

    /// The first `limit` records of a kind that are `wanted`.
    async fn some<T: DeserializeOwned + Send + 'static>(
        &self,
        letter: u8,
        limit: usize,
        wanted: impl Fn(&T) -> bool + Send + 'static,
    ) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
        let owner = self.owner.clone();
        let wanted = move |bytes: &[u8]| postcard::from_bytes(bytes).is_ok_and(|record| wanted(&record));
        let found = self
            .store
            .read(move |reader| reader.notes(&owner, &[letter], limit, wanted))
            .await?;
        Ok(found
            .into_iter()
            .filter_map(|(key, bytes)| Some((key, postcard::from_bytes(&bytes).ok()?)))
            .collect())
    }

    /// Writes one record.
    pub(in crate::driver) async fn keep<T: Serialize>(
        &self,
        key: Vec<u8>,
        value: &T,
        takes_in: bool,
    ) -> Result<(), StoreError> {
        self.write(vec![put(key, value)?], takes_in).await
    }

    /// Forgets what nobody can ask for any more.
    pub(in crate::driver) async fn prune(&self, before: i64) -> Result<(), StoreError> {
        self.forget(b'j', move |seen: &Seen| seen.at < before, |_| None)
            .await?;
        self.forget(b'n', move |progress: &Progress| progress.at < before, |_| None)
            .await?;
        for letter in [b'a', b'r'] {
            let old = move |reference: &Reference| reference.at < before;
            self.forget(letter, old, |reference| Some(delivered(reference.message())))
                .await?;
        }
        Ok(())
    }

    /// Removes the records of a kind that are `old`, each with what lives only as long as it.
    async fn forget<T: DeserializeOwned + Send + 'static>(
        &self,
        letter: u8,
        old: impl Fn(&T) -> bool + Copy + Send + 'static,
        goes_along: impl Fn(&T) -> Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        loop {
            let found = self.some(letter, PRUNED, old).await?;
            if found.is_empty() {
                return Ok(());
            }
            let keys = found
                .into_iter()
                .flat_map(|(key, record)| goes_along(&record).into_iter().chain([key]));
            self.write(keys.map(remove).collect(), false).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Options;

    #[tokio::test]
    async fn only_what_is_old_is_forgotten_however_much_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(Options {
            disk_reserve: 0,
            ..Options::new(folder.path())
        })
        .unwrap();
        let records = Records {
            store,
            owner: "modem office".to_owned(),
        };
        let seen_at =
            |at, n: u32| put(seen(&identity("imsi", &n.to_be_bytes())), &Seen { at, serial: 0 }).unwrap();
        let notes: Vec<Note> = (0..600).map(|n| seen_at(i64::from(n), n)).collect();
        records.write(notes, false).await.unwrap();
        let open = Reference {
            at: 5,
            conversation: 1,
            sequence: 2,
            part: 1,
            total: 1,
        };
        records
            .write(vec![put(reference(7, "+31612345678"), &open).unwrap()], false)
            .await
            .unwrap();
        records.prune(550).await.unwrap();
        assert_eq!(records.all::<Seen>(b'j').await.unwrap().len(), 50);
        assert!(records.all::<Reference>(b'r').await.unwrap().is_empty());
    }
}
