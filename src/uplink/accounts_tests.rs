use std::sync::Barrier;
use std::time::Instant;

use super::*;
use crate::protocol::pipedrive::channels::Scope;
use crate::uplink::fake::{Fake, store};
use crate::uplink::{Outcome, Registration, Uplink};

const NOW: Timestamp = Timestamp::from_unix_ms(1_769_744_285_007);
const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// A gateway that has connected with the channel `desk`.
struct Gateway {
    folder: tempfile::TempDir,
    store: Store,
    fake: Fake,
    accounts: Accounts,
}

fn channel() -> ChannelId {
    "desk".parse().unwrap()
}

fn provider() -> ProviderChannelId {
    ProviderChannelId::new(&"gw-1".parse().unwrap(), &channel())
}

fn id() -> InstallationId {
    InstallationId::of_user(12, 7)
}

fn registration() -> Registration {
    Registration {
        id: provider(),
        name: "Desk".to_owned(),
        avatar_url: None,
        provider_type: crate::domain::ProviderType::Other,
        template_support: false,
    }
}

fn code(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

impl Gateway {
    fn new(key: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        let fake = Fake::new();
        let accounts = fake.accounts(&store, key);
        Self {
            folder,
            store,
            fake,
            accounts,
        }
    }

    fn connected() -> Self {
        let gateway = Self::new(None);
        gateway.connect(NOW);
        gateway
    }

    fn connect(&self, now: Timestamp) {
        let connected = self.accounts.connect(&code("code-1"), now).unwrap();
        assert_eq!(connected.installation, id());
        let link = ChannelLink::Registered(now);
        self.accounts.give(&id(), vec![(channel(), link)]).unwrap();
    }

    fn restart(mut self, key: Option<&str>) -> Self {
        wait_for(self.store.close());
        drop((self.accounts, self.store));
        self.store = store(&self.folder);
        self.accounts = self.fake.accounts(&self.store, key);
        self
    }

    fn token(&self, now: Timestamp) -> Result<String, Blocked> {
        let access = self.accounts.access(&provider(), now)?;
        Ok(access.token.expose().to_owned())
    }

    fn state(&self) -> InstallationState {
        self.stored().state
    }

    fn stored(&self) -> Installation {
        self.store.reader().installations().unwrap().remove(0)
    }

    fn call(&self, now: Timestamp) -> Outcome {
        Fake::uplink(&self.accounts)
            .register(&registration(), now)
            .outcome
    }
}

fn needs_person(blocked: &Blocked) -> bool {
    matches!(
        blocked,
        Blocked::NotConnected(NotConnected {
            needs_person: true,
            ..
        })
    )
}

#[test]
fn whoever_connects_is_stored_and_still_there_after_a_restart() {
    let gateway = Gateway::connected();
    let record = gateway.stored();
    assert_eq!((record.company.as_str(), record.user.as_str()), ("Acme", "Ada"));
    assert_eq!(record.expires_at, NOW.plus_ms(60 * MINUTE));
    assert_eq!(record.channels, [channel()]);
    let gateway = gateway.restart(None);
    assert_eq!(gateway.token(NOW).unwrap(), "access-1");
    assert_eq!(gateway.accounts.installation(&provider()), Ok(id()));
    assert_eq!(gateway.call(NOW), Outcome::Accepted);
    assert_eq!(gateway.fake.refreshes(), 0);
}

#[test]
fn a_channel_waits_until_somebody_has_connected() {
    let gateway = Gateway::new(None);
    let not = gateway.accounts.installation(&provider()).unwrap_err();
    assert!(
        !not.needs_person && not.reason.contains("pipepost connect"),
        "{not:?}"
    );
    assert!(matches!(gateway.call(NOW), Outcome::Retry { .. }));
    assert_eq!(gateway.fake.server.count(), 0);
}

#[test]
fn a_token_is_refreshed_before_it_expires_and_whatever_comes_back_is_kept() {
    for rotates in [true, false] {
        let gateway = Gateway::connected();
        gateway.fake.rules().rotates = rotates;
        assert_eq!(gateway.token(NOW.plus_ms(54 * MINUTE)).unwrap(), "access-1");
        assert_eq!(gateway.token(NOW.plus_ms(56 * MINUTE)).unwrap(), "access-2");
        assert_eq!(gateway.stored().refreshed_at, NOW.plus_ms(56 * MINUTE));
        let gateway = gateway.restart(None);
        assert_eq!(gateway.token(NOW.plus_ms(56 * MINUTE)).unwrap(), "access-2");
        assert_eq!(gateway.token(NOW.plus_ms(200 * MINUTE)).unwrap(), "access-3");
    }
}

#[test]
fn a_configured_token_goes_on_working_for_what_belongs_to_nobody_who_is_connected() {
    let gateway = Gateway::connected();
    let yard = ProviderChannelId::new(&"gw-1".parse().unwrap(), &"yard".parse().unwrap());
    let options = AccountOptions {
        client: Fake::client(),
        app: gateway.accounts.app().cloned(),
        api_url: None,
        fixed: (
            "https://api.example/v1/".to_owned(),
            AccessToken::new(Some(code("configured"))),
        ),
        token_key: None,
    };
    let accounts = Accounts::open(&gateway.store, options).unwrap();
    let fixed = Ok(InstallationId::of_configured_token());
    assert_eq!(accounts.installation(&yard), fixed);
    assert_eq!(accounts.installation(&provider()), Ok(id()));
    let access = accounts.access(&yard, NOW).unwrap();
    assert_eq!(
        (&*access.base, access.token.expose()),
        ("https://api.example/v1", "configured")
    );
    assert!(accounts.another(&access, NOW).is_none());
    accounts
        .disconnect(&id(), "uninstalled in Pipedrive", NOW)
        .unwrap();
    assert_eq!(accounts.installation(&provider()), fixed);
}

#[test]
fn many_threads_with_an_expired_token_make_one_refresh() {
    let gateway = Gateway::connected();
    let later = NOW.plus_ms(2 * 60 * MINUTE);
    let start = Barrier::new(16);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                start.wait();
                assert_eq!(gateway.token(later).unwrap(), "access-2");
            });
        }
    });
    assert_eq!(gateway.fake.refreshes(), 1);
}

#[test]
fn many_threads_with_a_refused_token_make_one_refresh_and_all_succeed() {
    let gateway = Gateway::connected();
    gateway.fake.rules().access.clear();
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                assert_eq!(gateway.call(NOW), Outcome::Accepted);
            });
        }
    });
    assert_eq!(gateway.fake.refreshes(), 1);
}

#[test]
fn new_tokens_are_stored_before_they_are_used() {
    let gateway = Gateway::connected();
    // The store is closed: what Pipedrive gives cannot be kept.
    wait_for(gateway.store.close());
    let later = NOW.plus_ms(61 * MINUTE);
    let blocked = gateway.token(later).unwrap_err();
    assert!(
        matches!(&blocked, Blocked::Later { reason, .. } if reason.contains("stored")),
        "{blocked:?}"
    );
    let access = Accounts::access(&gateway.accounts, &provider(), NOW).unwrap();
    assert_eq!(access.token.expose(), "access-1");
}

#[test]
fn weeks_offline_end_with_one_refresh() {
    let gateway = Gateway::connected().restart(None);
    assert_eq!(gateway.token(NOW.plus_ms(59 * DAY)).unwrap(), "access-2");
    assert_eq!(gateway.state(), InstallationState::Connected);
}

#[test]
fn a_rejected_refresh_token_is_asked_with_once_and_the_channel_needs_a_person() {
    let gateway = Gateway::connected();
    gateway.fake.rules().refresh.clear();
    let later = NOW.plus_ms(61 * DAY);
    for _ in 0..3 {
        assert!(needs_person(&gateway.token(later).unwrap_err()));
    }
    assert_eq!(gateway.fake.refreshes(), 1);
    assert!(matches!(gateway.state(), InstallationState::ReconnectNeeded { since, .. } if since == later));
    let not = gateway.accounts.installation(&provider()).unwrap_err();
    assert!(
        not.needs_person && not.reason.contains("Reconnect needed"),
        "{not:?}"
    );
    assert!(matches!(gateway.call(later), Outcome::Retry { .. }));

    let gateway = gateway.restart(None);
    assert!(needs_person(&gateway.token(later).unwrap_err()));
    assert!(!gateway.accounts.needs_tending(later.plus_ms(10 * DAY)));
    assert_eq!(gateway.fake.refreshes(), 1);

    let connected = gateway.accounts.connect(&code("code-2"), later).unwrap();
    assert!(connected.again);
    assert_eq!(connected.channels, [channel()]);
    assert_eq!(gateway.call(later), Outcome::Accepted);
}

#[test]
fn faults_on_the_way_are_not_a_reconnect_and_are_not_asked_again_at_once() {
    for (status, words) in [(503, "down"), (429, "slow down"), (302, "elsewhere")] {
        let gateway = Gateway::connected();
        gateway.fake.rules().refuse_tokens = Some((status, words));
        // The old one works until it expires.
        assert_eq!(gateway.token(NOW.plus_ms(57 * MINUTE)).unwrap(), "access-1");
        let expired = NOW.plus_ms(61 * MINUTE);
        for _ in 0..5 {
            let blocked = gateway.token(expired).unwrap_err();
            assert!(
                matches!(blocked, Blocked::Later { after: Some(_), .. }),
                "{blocked:?}"
            );
        }
        assert_eq!(gateway.fake.refreshes(), 1, "{status}");
        assert_eq!(gateway.state(), InstallationState::Connected);
        let status = gateway.accounts.statuses().remove(0);
        assert!(status.trouble.is_some() && !status.needs_person, "{status:?}");
    }
}

#[test]
fn without_a_network_tokens_stay_what_they_are() {
    let gateway = Gateway::connected();
    let options = AccountOptions {
        client: Fake::client(),
        app: Some(App {
            // Nobody listens on port 1.
            oauth_url: "http://127.0.0.1:1".to_owned(),
            ..gateway.accounts.app().unwrap().clone()
        }),
        api_url: None,
        fixed: (String::new(), AccessToken::new(None)),
        token_key: None,
    };
    let accounts = Accounts::open(&gateway.store, options).unwrap();
    let access = accounts.access(&provider(), NOW.plus_ms(61 * MINUTE));
    assert!(matches!(access, Err(Blocked::Later { .. })), "{access:?}");
    accounts.tend(NOW.plus_ms(59 * DAY));
    assert_eq!(gateway.state(), InstallationState::Connected);
}

#[test]
fn a_pause_ends_and_the_refresh_goes_on() {
    let gateway = Gateway::connected();
    gateway.fake.rules().refuse_tokens = Some((503, "down"));
    let expired = NOW.plus_ms(61 * MINUTE);
    assert!(gateway.token(expired).is_err());
    gateway.fake.rules().refuse_tokens = None;
    let limit = Instant::now() + Duration::from_secs(10);
    while gateway.token(expired).is_err() {
        assert!(Instant::now() < limit);
        std::thread::yield_now();
    }
    assert!(gateway.accounts.statuses().remove(0).trouble.is_none());
}

#[test]
fn a_wrong_client_secret_keeps_the_tokens_and_asks_for_a_person() {
    let gateway = Gateway::connected();
    gateway.fake.rules().refuse_tokens = Some((401, "Invalid client: client is invalid"));
    assert!(gateway.token(NOW.plus_ms(61 * MINUTE)).is_err());
    let status = gateway.accounts.statuses().remove(0);
    assert!(status.needs_person);
    assert!(status.trouble.unwrap().contains("client secret"));
    assert_eq!(gateway.state(), InstallationState::Connected);
    assert!(!gateway.stored().tokens.is_empty());
}

#[test]
fn a_server_that_refuses_every_token_is_not_asked_for_one_after_the_other() {
    let gateway = Gateway::connected();
    gateway.fake.rules().refuse_access = true;
    assert!(matches!(gateway.call(NOW), Outcome::NotAuthorized { .. }));
    for _ in 0..5 {
        let outcome = gateway.call(NOW);
        let later = matches!(
            &outcome,
            Outcome::Retry {
                scope: Scope::Everything,
                after: Some(_),
                ..
            }
        );
        assert!(later, "{outcome:?}");
    }
    assert_eq!(gateway.fake.refreshes(), 1);
}

#[test]
fn an_idle_gateway_refreshes_daily() {
    let gateway = Gateway::connected();
    assert!(!gateway.accounts.needs_tending(NOW.plus_ms(DAY - 1)));
    let mut now = NOW;
    for day in 1..=70 {
        now = NOW.plus_ms(day * DAY);
        assert!(gateway.accounts.needs_tending(now));
        gateway.accounts.tend(now);
        assert!(!gateway.accounts.needs_tending(now));
    }
    assert_eq!(gateway.fake.refreshes(), 70);
    assert_eq!(gateway.stored().refreshed_at, now);
}

#[test]
fn an_uninstall_during_a_refresh_is_not_undone_by_it() {
    let gateway = Gateway::connected();
    let accounts = gateway.accounts.clone();
    gateway.fake.rules().meanwhile = Some(Box::new(move || {
        accounts
            .disconnect(&id(), "uninstalled in Pipedrive", NOW)
            .unwrap();
    }));
    let later = NOW.plus_ms(61 * MINUTE);
    assert!(needs_person(&gateway.token(later).unwrap_err()));
    assert!(gateway.stored().tokens.is_empty());
    assert!(matches!(gateway.state(), InstallationState::Disconnected { .. }));
}

#[test]
fn whoever_connects_during_a_refused_refresh_stays_connected() {
    let gateway = Gateway::connected();
    gateway.fake.rules().refresh.clear();
    let accounts = gateway.accounts.clone();
    let later = NOW.plus_ms(61 * DAY);
    gateway.fake.rules().meanwhile = Some(Box::new(move || {
        accounts.connect(&code("code-2"), later).unwrap();
    }));
    drop(gateway.token(later));
    assert_eq!(gateway.state(), InstallationState::Connected);
    assert_eq!(gateway.call(later), Outcome::Accepted);
}

#[test]
fn leaving_forgets_the_tokens_and_unlinks_the_channels_which_are_free_then() {
    let gateway = Gateway::connected();
    gateway.accounts.revoke(&id(), NOW).unwrap();
    assert_eq!(gateway.fake.rules().revoked, ["refresh-1"]);
    let left = gateway
        .accounts
        .disconnect(&id(), "uninstalled in Pipedrive", NOW)
        .unwrap();
    assert_eq!(left.unwrap().channels, [channel()]);
    assert_eq!(gateway.accounts.disconnect(&id(), "again", NOW).unwrap(), None);
    let link = gateway.store.reader().channel_link(&channel()).unwrap();
    assert!(
        matches!(&link, ChannelLink::Unlinked { reason, .. } if reason.contains("uninstalled")),
        "{link:?}"
    );
    assert!(needs_person(&gateway.token(NOW).unwrap_err()));
    assert_eq!(gateway.accounts.holder(&channel()), None);
    let gateway = gateway.restart(None);
    assert!(needs_person(&gateway.token(NOW).unwrap_err()));
}

#[test]
fn two_installations_keep_their_channels_and_tokens_apart() {
    let gateway = Gateway::connected();
    gateway.fake.rules().user = (99, 1);
    let other = gateway
        .accounts
        .connect(&code("code-2"), NOW)
        .unwrap()
        .installation;
    let yard: ChannelId = "yard".parse().unwrap();
    let yard_id = ProviderChannelId::new(&"gw-1".parse().unwrap(), &yard);
    gateway
        .accounts
        .give(&other, vec![(yard, ChannelLink::Registered(NOW))])
        .unwrap();
    assert_eq!(gateway.token(NOW).unwrap(), "access-1");
    assert_eq!(gateway.accounts.installation(&yard_id), Ok(other.clone()));
    gateway
        .accounts
        .disconnect(&other, "uninstalled in Pipedrive", NOW)
        .unwrap();
    assert!(gateway.accounts.installation(&yard_id).is_err());
    assert_eq!(gateway.call(NOW), Outcome::Accepted);
}

#[test]
fn plain_tokens_are_encrypted_at_the_next_start_with_a_key() {
    const KEY: &str = "a key of more than 22 characters";
    let shows = |gateway: &Gateway| {
        let tokens = gateway.stored().tokens;
        tokens.windows(9).any(|part| part == b"refresh-1")
    };
    let gateway = Gateway::connected();
    assert!(shows(&gateway));
    let gateway = gateway.restart(Some(KEY));
    assert!(gateway.accounts.needs_tending(NOW));
    gateway.accounts.tend(NOW);
    assert!(!gateway.accounts.needs_tending(NOW));
    assert!(!shows(&gateway));
    let gateway = gateway.restart(Some(KEY));
    assert_eq!(gateway.token(NOW).unwrap(), "access-1");
    assert_eq!(gateway.token(NOW.plus_ms(61 * MINUTE)).unwrap(), "access-2");
    assert!(!shows(&gateway));
}

#[test]
fn a_wrong_or_missing_key_loses_nothing_and_says_what_to_do() {
    const KEY: &str = "a key of more than 22 characters";
    let gateway = Gateway::new(Some(KEY));
    gateway.connect(NOW);
    let sealed = gateway.stored().tokens;
    let gateway = gateway.restart(Some("another key, which is the wrong one"));
    let gateway = {
        let blocked = gateway.token(NOW).unwrap_err();
        assert!(needs_person(&blocked), "{blocked:?}");
        gateway.accounts.tend(NOW.plus_ms(70 * DAY));
        gateway.restart(None)
    };
    let not = gateway.accounts.installation(&provider()).unwrap_err();
    assert!(not.needs_person && not.reason.contains("token-key"), "{not:?}");
    assert_eq!(gateway.stored().tokens, sealed);
    assert_eq!(gateway.fake.refreshes(), 0);
    let gateway = gateway.restart(Some(KEY));
    assert_eq!(gateway.token(NOW).unwrap(), "access-1");
    // Or somebody connects again, and the new key counts.
    let gateway = gateway.restart(None);
    gateway.accounts.connect(&code("code-2"), NOW).unwrap();
    assert_eq!(gateway.token(NOW).unwrap(), "access-2");
}

#[test]
fn what_is_printed_of_tokens_shows_none_of_them() {
    let gateway = Gateway::connected();
    let access = gateway.accounts.access(&provider(), NOW).unwrap();
    let app = gateway.accounts.app().unwrap();
    let shown = format!("{access:?} {app:?} {:?}", gateway.accounts.statuses());
    for secret in ["access-1", "refresh-1", "very-client-secret"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn the_files_of_the_store_are_for_their_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let gateway = Gateway::connected();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = gateway.folder.path().join("store");
    assert_eq!(mode(&folder), 0o700);
    for name in ["db", "conf"] {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
    }
}

#[test]
fn each_failure_of_connecting_is_told_apart_and_leaves_nothing() {
    let gateway = Gateway::new(None);
    let connect = |text: &str| gateway.accounts.connect(&code(text), NOW).unwrap_err();
    assert!(matches!(
        connect("no such code"),
        ConnectError::Refused(Refused::Grant(_))
    ));
    gateway.fake.rules().scope = "base";
    assert_eq!(connect("code-1"), ConnectError::NoScope);
    gateway.fake.rules().refuse_tokens = Some((401, "Invalid client: client is invalid"));
    assert!(matches!(
        connect("code-2"),
        ConnectError::Refused(Refused::Client(_))
    ));
    gateway.fake.rules().refuse_tokens = Some((503, "down"));
    assert!(matches!(
        connect("code-2"),
        ConnectError::Refused(Refused::Later { .. })
    ));
    assert!(gateway.store.reader().installations().unwrap().is_empty());
}
