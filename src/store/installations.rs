//! Who has connected, with which tokens, and whose the channels are.
//!
//! One record for each user of a company who has installed the app. What stands in `tokens` means nothing here: it is
//! sealed by whoever uses it.

use serde::{Deserialize, Serialize};

use super::committer::Durability;
use super::conversations;
use super::reader::Reader;
use super::records::decode;
use super::shared::Shared;
use super::tx::{Source, Tx};
use super::types::ChannelLink;
use super::{Store, StoreError, keys};
use crate::domain::{ChannelId, InstallationId, Timestamp};

/// How an installation is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstallationState {
    /// Its tokens work, as far as is known.
    Connected,
    /// Pipedrive has refused the refresh token: somebody has to connect again.
    ReconnectNeeded {
        /// When that was noticed.
        since: Timestamp,
        /// Why, for a person.
        reason: String,
    },
    /// Uninstalled at Pipedrive, or disconnected here. There are no tokens any more.
    Disconnected {
        /// When.
        since: Timestamp,
        /// Why, for a person.
        reason: String,
    },
}

/// One user of one company who has installed the app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// Company and user.
    pub id: InstallationId,
    /// Pipedrive's number of the company.
    pub company_id: u64,
    /// The company's name.
    pub company: String,
    /// Pipedrive's number of the user.
    pub user_id: u64,
    /// The user's name.
    pub user: String,
    /// Where the company's API is.
    pub api_domain: String,
    /// Sealed tokens; empty when there are none.
    pub tokens: Vec<u8>,
    /// When the user connected last.
    pub connected_at: Timestamp,
    /// When tokens came last.
    pub refreshed_at: Timestamp,
    /// When the access token expires.
    pub expires_at: Timestamp,
    /// How it is.
    pub state: InstallationState,
    /// Whether the user shares the app with his whole company.
    pub shared: bool,
    /// The channels that belong to it. A disconnected installation keeps them as what it had.
    pub channels: Vec<ChannelId>,
}

impl Installation {
    /// Whether its channels are its own: those of a disconnected one are free.
    #[must_use]
    pub const fn holds_channels(&self) -> bool {
        !matches!(self.state, InstallationState::Disconnected { .. })
    }
}

fn list(source: &impl Source) -> Result<Vec<Installation>, StoreError> {
    let records = source.scan(keys::all(b'I'));
    records.map(|item| decode(&item?.1)).collect()
}

fn change(
    tx: &mut Tx<'_>,
    id: &InstallationId,
    change: impl FnOnce(&mut Option<Installation>),
) -> Result<(), StoreError> {
    let key = keys::installation(id);
    let before = tx.load::<Installation>(&key)?;
    let mut after = before.clone();
    change(&mut after);
    match after {
        same if same == before => {}
        Some(installation) => tx.put(key, &installation)?,
        None => tx.delete(key),
    }
    Ok(())
}

fn give(
    tx: &mut Tx<'_>,
    shared: &Shared,
    id: &InstallationId,
    channels: Vec<(ChannelId, ChannelLink)>,
) -> Result<(), StoreError> {
    for mut other in list(tx)? {
        let before = other.channels.len();
        other
            .channels
            .retain(|mine| other.id == *id || !channels.iter().any(|(given, _)| given == mine));
        if other.channels.len() != before {
            tx.put(keys::installation(&other.id), &other)?;
        }
    }
    change(tx, id, |installation| {
        let Some(installation) = installation else { return };
        for (channel, _) in &channels {
            if !installation.channels.contains(channel) {
                installation.channels.push(channel.clone());
            }
        }
    })?;
    for (channel, link) in channels {
        conversations::set_link(tx, shared, &channel, link)?;
    }
    Ok(())
}

fn disconnect(
    tx: &mut Tx<'_>,
    shared: &Shared,
    id: &InstallationId,
    since: Timestamp,
    reason: &str,
) -> Result<Option<Installation>, StoreError> {
    let Some(mut installation) = tx.load::<Installation>(&keys::installation(id))? else {
        return Ok(None);
    };
    if !installation.holds_channels() {
        return Ok(Some(installation));
    }
    installation.tokens.clear();
    installation.state = InstallationState::Disconnected {
        since,
        reason: reason.to_owned(),
    };
    tx.put(keys::installation(id), &installation)?;
    for channel in &installation.channels {
        let unlinked = ChannelLink::Unlinked {
            since,
            reason: reason.to_owned(),
        };
        conversations::set_link(tx, shared, channel, unlinked)?;
    }
    Ok(Some(installation))
}

impl Store {
    /// Changes, makes or removes one installation in one step. Durable when it returns.
    pub async fn change_installation(
        &self,
        id: &InstallationId,
        edit: impl FnOnce(&mut Option<Installation>) + Send + 'static,
    ) -> Result<(), StoreError> {
        let id = id.clone();
        self.write(Durability::Synced, move |tx, _| change(tx, &id, edit))
            .await
    }

    /// Gives channels to an installation, away from any other, and remembers whether Pipedrive has them. Durable when
    /// it returns.
    pub async fn give_channels(
        &self,
        id: &InstallationId,
        channels: Vec<(ChannelId, ChannelLink)>,
    ) -> Result<(), StoreError> {
        let id = id.clone();
        self.write(Durability::Synced, move |tx, shared| {
            give(tx, shared, &id, channels)
        })
        .await
    }

    /// Forgets the tokens of an installation and unlinks its channels, in one step. Their queues stay. Durable when it
    /// returns; `None` when there is no such installation.
    pub async fn disconnect_installation(
        &self,
        id: &InstallationId,
        since: Timestamp,
        reason: String,
    ) -> Result<Option<Installation>, StoreError> {
        let id = id.clone();
        self.write(Durability::Synced, move |tx, shared| {
            disconnect(tx, shared, &id, since, &reason)
        })
        .await
    }
}

impl Reader {
    /// All installations, also disconnected ones.
    pub fn installations(&self) -> Result<Vec<Installation>, StoreError> {
        list(&*self.shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Options;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_769_744_285_007);

    fn id(text: &str) -> InstallationId {
        text.parse().unwrap()
    }

    fn channel(text: &str) -> ChannelId {
        text.parse().unwrap()
    }

    fn installation(name: &str) -> Installation {
        Installation {
            id: id(name),
            company_id: 12,
            company: "Acme".to_owned(),
            user_id: 7,
            user: "Ada".to_owned(),
            api_domain: "https://acme.pipedrive.com".to_owned(),
            tokens: b"sealed".to_vec(),
            connected_at: NOW,
            refreshed_at: NOW,
            expires_at: NOW.plus_ms(3_600_000),
            state: InstallationState::Connected,
            shared: false,
            channels: Vec::new(),
        }
    }

    fn open(folder: &tempfile::TempDir) -> Store {
        Store::open(Options {
            disk_reserve: 0,
            ..Options::new(folder.path())
        })
        .unwrap()
    }

    async fn add(store: &Store, one: Installation) {
        let id = one.id.clone();
        store
            .change_installation(&id, move |slot| *slot = Some(one))
            .await
            .unwrap();
    }

    fn registered(name: &str) -> (ChannelId, ChannelLink) {
        (channel(name), ChannelLink::Registered(NOW))
    }

    #[tokio::test]
    async fn an_installation_survives_a_restart_with_its_channels() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        add(&store, installation("12-7")).await;
        store
            .give_channels(&id("12-7"), vec![registered("office")])
            .await
            .unwrap();
        store.close().await;
        drop(store);
        let reader = open(&folder).reader();
        let mut expected = installation("12-7");
        expected.channels = vec![channel("office")];
        assert_eq!(reader.installations().unwrap(), [expected]);
        assert_eq!(
            reader.channel_link(&channel("office")).unwrap(),
            ChannelLink::Registered(NOW)
        );
    }

    #[tokio::test]
    async fn a_channel_belongs_to_one_installation_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        add(&store, installation("12-7")).await;
        add(&store, installation("12-8")).await;
        let (first, second) = (id("12-7"), id("12-8"));
        store
            .give_channels(&first, vec![registered("a"), registered("b")])
            .await
            .unwrap();
        store.give_channels(&second, vec![registered("b")]).await.unwrap();
        store.give_channels(&second, vec![registered("b")]).await.unwrap();
        let of = |wanted: &InstallationId| {
            let all = store.reader().installations().unwrap();
            all.into_iter().find(|one| one.id == *wanted).unwrap().channels
        };
        assert_eq!(of(&first), [channel("a")]);
        assert_eq!(of(&second), [channel("b")]);
    }

    #[tokio::test]
    async fn disconnecting_forgets_the_tokens_and_unlinks_the_channels_in_one_step() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        add(&store, installation("12-7")).await;
        store
            .give_channels(&id("12-7"), vec![registered("a")])
            .await
            .unwrap();
        let (one, other) = (id("12-7"), id("1-1"));
        let gone = |reason: &str| store.disconnect_installation(&one, NOW, reason.to_owned());
        let left = gone("uninstalled").await.unwrap().unwrap();
        assert!(left.tokens.is_empty());
        assert!(!left.holds_channels());
        assert_eq!(left.channels, [channel("a")]);
        // The first reason counts.
        assert_eq!(gone("again").await.unwrap().unwrap(), left);
        let link = store.reader().channel_link(&channel("a")).unwrap();
        assert!(
            matches!(&link, ChannelLink::Unlinked { reason, .. } if reason == "uninstalled"),
            "{link:?}"
        );
        let none = store.disconnect_installation(&other, NOW, String::new());
        assert_eq!(none.await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_change_that_changes_nothing_writes_nothing_and_none_removes() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        add(&store, installation("12-7")).await;
        store.change_installation(&id("12-7"), |_| ()).await.unwrap();
        assert_eq!(store.reader().installations().unwrap().len(), 1);
        store
            .change_installation(&id("12-7"), |slot| *slot = None)
            .await
            .unwrap();
        assert!(store.reader().installations().unwrap().is_empty());
    }
}
