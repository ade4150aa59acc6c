//! What drivers must remember over a restart: small records that mean something to them alone.

use super::committer::Durability;
use super::reader::Reader;
use super::tx::Source as _;
use super::{Store, StoreError, keys};

/// A driver's key and its value; `None` removes it.
pub type Note = (Vec<u8>, Option<Vec<u8>>);

/// A driver's key and its value.
pub type Kept = (Vec<u8>, Vec<u8>);

impl Store {
    /// Writes what may be forgotten in a crash, all or nothing. Durable with the next write that is, or within half a
    /// minute.
    pub async fn keep_notes_in_time(&self, owner: &str, notes: Vec<Note>) -> Result<(), StoreError> {
        self.put_notes(Durability::WithNext, owner, notes).await
    }

    /// Writes what a driver keeps, all or nothing. Durable when it returns.
    ///
    /// `takes_in`: the hardware has the content too and keeps it as long as this fails, so that it is refused
    /// ([`StoreError::NoSpace`]) when there is no room. Everything else is written as long as the disk takes it.
    pub async fn keep_notes(&self, driver: &str, notes: Vec<Note>, takes_in: bool) -> Result<(), StoreError> {
        if takes_in {
            self.recheck_space();
            if !self.inner.shared.gauge.space().is_enough() {
                return Err(StoreError::NoSpace);
            }
        }
        self.put_notes(Durability::Synced, driver, notes).await
    }

    async fn put_notes(
        &self,
        durability: Durability,
        owner: &str,
        notes: Vec<Note>,
    ) -> Result<(), StoreError> {
        let owner = owner.to_owned();
        self.write(durability, move |tx, _| {
            for (own, value) in notes {
                let key = keys::note(&owner, &own);
                match value {
                    Some(value) => tx.put_raw(key, value),
                    None => tx.delete(key),
                }
            }
            Ok(())
        })
        .await
    }
}

impl Reader {
    /// One of a driver's notes.
    pub fn note(&self, driver: &str, own: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.shared.get(&keys::note(driver, own))?;
        Ok(found.map(|value| value.to_vec()))
    }

    /// A driver's notes whose keys begin with `prefix`, in the order of their keys: the first `limit` that `wanted`
    /// says yes to. The others are not kept in memory.
    pub fn notes(
        &self,
        driver: &str,
        prefix: &[u8],
        limit: usize,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<Kept>, StoreError> {
        let own = keys::note(driver, &[]).len();
        let mut found = Vec::new();
        for item in self.shared.scan(keys::prefix(keys::note(driver, prefix))) {
            let (key, value) = item?;
            if found.len() >= limit {
                break;
            }
            if wanted(&value) {
                found.push((key.get(own..).unwrap_or_default().to_vec(), value.to_vec()));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Options;

    #[tokio::test]
    async fn a_drivers_notes_survive_a_restart_and_are_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let options = || Options {
            disk_reserve: 0,
            ..Options::new(folder.path())
        };
        let store = Store::open(options()).unwrap();
        let put = |key: &str, value: &str| (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec()));
        store
            .keep_notes(
                "modem a",
                vec![put("p1", "one"), put("p2", "two"), put("q", "three")],
                true,
            )
            .await
            .unwrap();
        store
            .keep_notes("modem ab", vec![put("p1", "other")], false)
            .await
            .unwrap();
        store
            .keep_notes("modem a", vec![(b"p1".to_vec(), None)], false)
            .await
            .unwrap();
        store.close().await;
        drop(store);
        let reader = Store::open(options()).unwrap().reader();
        assert_eq!(
            reader.notes("modem a", b"p", 10, |_| true).unwrap(),
            [(b"p2".to_vec(), b"two".to_vec())]
        );
        assert_eq!(
            reader
                .notes("modem a", b"", 1, |value| value == b"three")
                .unwrap()
                .len(),
            1
        );
        assert_eq!(reader.note("modem a", b"q").unwrap(), Some(b"three".to_vec()));
        assert_eq!(reader.note("modem a", b"p1").unwrap(), None);
    }
}
