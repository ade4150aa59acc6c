use std::sync::mpsc;

use super::*;
use crate::config;
use crate::manifest::Callback as _;
use crate::protocol::pipedrive::oauth::{authorized, sharing, uninstalled};
use crate::store::Installation;
use crate::uplink::fake::{Fake, store};

/// A gateway with the channels `desk` and `yard`, whose callback is called directly.
struct Gateway {
    _folder: tempfile::TempDir,
    store: Store,
    fake: Fake,
    connector: Connector,
}

const CONFIG: &str = r#"
[pipedrive]
client_id = "client"
client_secret_file = "secret"
public_url = "https://gw.example"
[[broker]]
name = "site"
url = "mqtt://localhost"
[[device]]
name = "one"
preset = "sms2mqtt"
[[device]]
name = "two"
preset = "gsm2mqtt"
[[channel]]
id = "desk"
name = "Front desk"
kind = "mqtt"
device = "one"
[[channel]]
id = "yard"
name = "Yard"
kind = "mqtt"
device = "two"
"#;

fn configuration(folder: &tempfile::TempDir, text: &str) -> Config {
    let file = folder.path().join("pipepost.toml");
    std::fs::write(&file, text).unwrap();
    std::fs::write(folder.path().join("secret"), "very-client-secret\n").unwrap();
    let loaded = config::load(&config::Request {
        file: Some(file),
        environment: Vec::new(),
        credentials: None,
        without_files: false,
    });
    loaded.config.expect("a valid configuration")
}

fn gateway() -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    let config = Arc::new(configuration(&folder, CONFIG));
    let store = store(&folder);
    let fake = Fake::new();
    let accounts = fake.accounts(&store, None);
    let uplink = Arc::new(Fake::uplink(&accounts));
    Gateway {
        connector: Connector::new(&config, &store, accounts, uplink),
        _folder: folder,
        store,
        fake,
    }
}

impl Gateway {
    fn open_for(&self, channels: &[&str]) -> ConnectOpened {
        let request = ConnectRequest {
            channels: channels.iter().map(|&id| id.to_owned()).collect(),
            minutes: 15,
        };
        self.connector.open(&request).unwrap()
    }

    /// Opens a window; its state.
    fn open(&self) -> String {
        let url = self.open_for(&[]).url;
        url.split_once("&state=").unwrap().1.to_owned()
    }

    async fn visit(&self, query: &str) -> Page {
        self.connector.authorized(authorized(query)).await
    }

    async fn connect(&self, code: &str) -> Page {
        let state = self.open();
        self.visit(&format!("code={code}&state={state}")).await
    }

    fn exchanges(&self) -> usize {
        let requests = self.fake.server.requests.lock().unwrap();
        let is = |body: &[u8]| body.starts_with(b"grant_type=authorization_code");
        requests.iter().filter(|request| is(&request.body)).count()
    }

    fn progress(&self) -> ConnectProgress {
        self.connector.progress().borrow().clone()
    }

    fn installations(&self) -> Vec<Installation> {
        self.store.reader().installations().unwrap()
    }

    fn link(&self, channel: &str) -> ChannelLink {
        self.store
            .reader()
            .channel_link(&channel.parse().unwrap())
            .unwrap()
    }

    fn registered(&self) -> Vec<String> {
        let channels = self.fake.rules().channels.clone();
        channels.into_iter().map(|(channel, _)| channel).collect()
    }
}

fn names(channels: &[ChannelId]) -> Vec<&str> {
    channels.iter().map(ChannelId::as_str).collect()
}

#[tokio::test]
async fn whoever_comes_back_with_the_state_is_connected_with_every_channel() {
    let gateway = gateway();
    let page = gateway.connect("code-1").await;
    assert_eq!((page.status, page.good), (200, true), "{page:?}");
    assert!(page.text[0].contains("Ada of Acme"), "{page:?}");
    assert_eq!(
        page.list,
        ["Front desk (desk): registered", "Yard (yard): registered"]
    );
    let installation = gateway.installations().remove(0);
    assert_eq!(names(&installation.channels), ["desk", "yard"]);
    assert!(matches!(gateway.link("desk"), ChannelLink::Registered(_)));
    assert_eq!(gateway.registered(), ["gw-1-desk", "gw-1-yard"]);
    let progress = gateway.progress();
    assert_eq!(progress.phase, ConnectPhase::Connected);
    assert!(
        progress.lines.iter().any(|line| line.contains("Ada of Acme")),
        "{progress:?}"
    );
    assert_eq!(gateway.connector.health(), "connected");
}

#[tokio::test]
async fn a_state_works_once_and_only_while_its_window_is_open() {
    let gateway = gateway();
    let state = gateway.open();
    let query = format!("code=code-1&state={state}");
    assert!(gateway.visit(&query).await.good);
    assert_eq!(gateway.visit(&query).await.status, 403);
    // A newer window ends an older one.
    let old = gateway.open();
    let new = gateway.open();
    assert_eq!(
        gateway.visit(&format!("code=code-2&state={old}")).await.status,
        403
    );
    // Time ends it.
    gateway.connector.0.window.lock().unwrap().as_mut().unwrap().ends = Instant::now();
    assert_eq!(
        gateway.visit(&format!("code=code-2&state={new}")).await.status,
        403
    );
    // And the operator.
    let opened = gateway.open_for(&[]);
    gateway.connector.close(opened.window);
    let state = opened.url.split_once("&state=").unwrap().1.to_owned();
    assert_eq!(
        gateway.visit(&format!("code=code-2&state={state}")).await.status,
        403
    );
    assert_eq!(gateway.exchanges(), 1);
}

#[tokio::test]
async fn strangers_cannot_make_the_gateway_ask_pipedrive() {
    let gateway = gateway();
    for query in [
        "code=x&state=y",
        "code=x",
        "",
        "error=user_denied",
        "code=a&code=b",
    ] {
        assert!(gateway.visit(query).await.status >= 400, "{query}");
    }
    gateway.open();
    assert_eq!(gateway.visit("code=x&state=y").await.status, 403);
    assert_eq!(gateway.exchanges(), 0);
    for _ in 0..20 {
        assert!(!gateway.visit("code=guessed").await.good);
    }
    assert_eq!(gateway.exchanges(), usize::from(STRANGERS));
    // The operator still waits, and can still be connected.
    assert_eq!(gateway.progress().phase, ConnectPhase::Waiting);
    assert!(gateway.connect("code-1").await.good);
}

#[tokio::test]
async fn an_installation_from_the_marketplace_is_accepted_while_the_window_is_open() {
    let gateway = gateway();
    let page = gateway.visit("code=code-1").await;
    assert_eq!(page.status, 403);
    assert!(page.next[0].contains("pipepost connect"), "{page:?}");
    gateway.open();
    assert!(gateway.visit("code=code-1").await.good);
    assert_eq!(gateway.progress().phase, ConnectPhase::Connected);
    // It has used the window up.
    assert_eq!(gateway.visit("code=code-2").await.status, 403);
}

#[tokio::test]
async fn one_code_is_exchanged_at_a_time() {
    let gateway = gateway();
    gateway.open();
    let (entered, wait_entered) = mpsc::sync_channel(1);
    let (leave, wait_leave) = mpsc::sync_channel::<()>(1);
    gateway.fake.rules().meanwhile = Some(Box::new(move || {
        entered.send(()).unwrap();
        wait_leave.recv().unwrap();
    }));
    let connector = gateway.connector.clone();
    let first = tokio::spawn(async move { connector.authorized(authorized("code=code-1")).await });
    tokio::task::spawn_blocking(move || wait_entered.recv().unwrap())
        .await
        .unwrap();
    assert_eq!(gateway.visit("code=code-2").await.status, 429);
    leave.send(()).unwrap();
    assert!(first.await.unwrap().good);
    assert_eq!(gateway.exchanges(), 1);
}

#[tokio::test]
async fn each_failure_has_its_page_and_its_remedy_for_the_operator() {
    let gateway = gateway();
    let mut seen = std::collections::BTreeSet::new();
    let mut check = |page: Page, words: &str| {
        let progress = gateway.progress();
        assert_eq!(progress.phase, ConnectPhase::Failed, "{words}");
        assert!(progress.hint.unwrap().contains(words), "{words}");
        assert!(!page.good && seen.insert(page.title.clone()), "{page:?}");
        let html = page.to_html();
        assert!(
            !html.contains("very-client-secret") && !html.contains("code-1"),
            "{html}"
        );
    };
    let state = gateway.open();
    let page = gateway.visit(&format!("error=user_denied&state={state}")).await;
    check(page, "choose Allow");
    check(gateway.connect("expired").await, "five minutes");
    let refuse = |status, words| gateway.fake.rules().refuse_tokens = Some((status, words));
    refuse(401, "Invalid client: client is invalid");
    check(gateway.connect("code-1").await, "client secret");
    refuse(400, "Invalid request: `redirect_uri` is invalid");
    check(
        gateway.connect("code-1").await,
        "https://gw.example/oauth/callback",
    );
    refuse(503, "down");
    check(gateway.connect("code-1").await, "reaches Pipedrive");
    gateway.fake.rules().refuse_tokens = None;
    gateway.fake.rules().scope = "base";
    check(gateway.connect("code-1").await, "messengers-integration");
    gateway.fake.rules().scope = "messengers-integration";
    gateway.fake.rules().admin = false;
    check(gateway.connect("code-2").await, "admin rights");
    assert!(gateway.installations().is_empty());
    assert_eq!(gateway.fake.rules().revoked.len(), 1);
}

#[tokio::test]
async fn only_the_channels_that_were_named_are_connected() {
    let gateway = gateway();
    let url = gateway.open_for(&["yard"]).url;
    let state = url.split_once("&state=").unwrap().1.to_owned();
    assert!(gateway.visit(&format!("code=code-1&state={state}")).await.good);
    assert_eq!(names(&gateway.installations()[0].channels), ["yard"]);
    assert_eq!(gateway.link("desk"), ChannelLink::NotRegistered);
    // The next one gets what is left, and hears whose the other is.
    gateway.fake.rules().user = (12, 8);
    let page = gateway.connect("code-2").await;
    assert!(page.list[1].contains("belongs to Ada of Acme"), "{page:?}");
    assert_eq!(names(&gateway.installations()[1].channels), ["desk"]);
    assert_eq!(names(&gateway.installations()[0].channels), ["yard"]);
}

#[tokio::test]
async fn an_uninstall_keeps_the_channels_unlinked_until_the_same_user_connects_again() {
    let gateway = gateway();
    assert!(gateway.connect("code-1").await.good);
    let body = br#"{"client_id":"client","company_id":12,"user_id":7}"#;
    gateway
        .connector
        .uninstalled(uninstalled(body).unwrap())
        .await
        .unwrap();
    // Told twice does no harm, and neither does a stranger's.
    gateway
        .connector
        .uninstalled(uninstalled(body).unwrap())
        .await
        .unwrap();
    let stranger = br#"{"client_id":"client","company_id":1,"user_id":1}"#;
    gateway
        .connector
        .uninstalled(uninstalled(stranger).unwrap())
        .await
        .unwrap();
    assert!(
        matches!(gateway.link("desk"), ChannelLink::Unlinked { reason, .. } if reason.contains("uninstalled"))
    );
    assert!(gateway.installations()[0].tokens.is_empty());
    assert_eq!(gateway.connector.health(), "disconnected");
    let page = gateway.connect("code-2").await;
    assert_eq!(page.title, "Connected again");
    assert!(matches!(gateway.link("desk"), ChannelLink::Registered(_)));
    assert_eq!(names(&gateway.installations()[0].channels), ["desk", "yard"]);
    assert_eq!(gateway.registered().len(), 4);
}

#[tokio::test]
async fn another_company_does_not_get_a_channel_with_its_history_by_itself() {
    let gateway = gateway();
    assert!(gateway.connect("code-1").await.good);
    gateway
        .connector
        .disconnect(&InstallationId::of_user(12, 7), false)
        .unwrap();
    gateway.fake.rules().user = (99, 1);
    let page = gateway.connect("code-2").await;
    assert!(page.list[0].contains("belonged to Acme before"), "{page:?}");
    let url = gateway.open_for(&["desk"]).url;
    let state = url.split_once("&state=").unwrap().1.to_owned();
    assert!(gateway.visit(&format!("code=code-3&state={state}")).await.good);
    let new = gateway
        .installations()
        .into_iter()
        .find(|one| one.company_id == 99);
    assert_eq!(names(&new.unwrap().channels), ["desk"]);
}

#[tokio::test]
async fn an_uninstall_from_before_the_present_connection_is_checked_instead_of_believed() {
    let gateway = gateway();
    assert!(gateway.connect("code-1").await.good);
    let old = br#"{"client_id":"client","company_id":12,"user_id":7,"timestamp":"2020-01-01T00:00:00Z"}"#;
    gateway
        .connector
        .uninstalled(uninstalled(old).unwrap())
        .await
        .unwrap();
    assert_eq!(gateway.fake.refreshes(), 1);
    assert_eq!(gateway.installations()[0].state, InstallationState::Connected);
    assert!(matches!(gateway.link("desk"), ChannelLink::Registered(_)));
}

#[tokio::test]
async fn a_notice_about_another_app_is_refused_and_sharing_is_remembered() {
    let gateway = gateway();
    assert!(gateway.connect("code-1").await.good);
    let other = br#"{"client_id":"another","company_id":12,"user_id":7}"#;
    let refused = gateway.connector.uninstalled(uninstalled(other).unwrap()).await;
    assert_eq!(
        refused.unwrap_err().code,
        crate::protocol::pipedrive::manifest::Code::InvalidBody
    );
    let shared = br#"{"company_id":12,"user_id":7,"isShared":true}"#;
    gateway.connector.sharing(sharing(shared).unwrap()).await.unwrap();
    assert!(gateway.installations()[0].shared);
}

#[tokio::test]
async fn disconnecting_revokes_first_and_changes_nothing_when_pipedrive_cannot_be_told() {
    let gateway = gateway();
    assert!(gateway.connect("code-1").await.good);
    let id = InstallationId::of_user(12, 7);
    let words = gateway.connector.disconnect(&id, false).unwrap();
    assert!(words.contains("Ada of Acme"), "{words}");
    assert_eq!(gateway.fake.rules().revoked, ["refresh-1"]);
    assert!(matches!(gateway.link("yard"), ChannelLink::Unlinked { .. }));
}

#[tokio::test]
async fn what_is_missing_in_the_configuration_is_named_with_its_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    let fake = Fake::new();
    for (gone, words) in [
        ("client_id = \"client\"\n", "pipedrive.client_id"),
        ("client_secret_file = \"secret\"\n", "client secret"),
    ] {
        let config = Arc::new(configuration(&folder, &CONFIG.replace(gone, "")));
        let accounts = fake.accounts(&store, None);
        let uplink = Arc::new(Fake::uplink(&accounts));
        let connector = Connector::new(&config, &store, accounts, uplink);
        let request = ConnectRequest {
            channels: Vec::new(),
            minutes: 1,
        };
        let failure = connector.open(&request).unwrap_err();
        assert!(
            failure.message.contains(words) && failure.hint.is_some(),
            "{failure:?}"
        );
    }
}

#[test]
fn the_callbacks_address_follows_from_the_public_one() {
    assert_eq!(
        redirect_uri("https://gw.example"),
        "https://gw.example/oauth/callback"
    );
}

#[tokio::test]
async fn registrations_while_connecting_count_as_spent() {
    use crate::queue::to_hardware::Links;
    use crate::queue::to_uplink::{Patience, Pump, Settings};

    let gateway = gateway();
    let links = Links {
        public_url: None,
        secret: [0; 32],
        lifetime: Duration::from_secs(60),
    };
    let settings = Settings {
        channels: Vec::new(),
        in_flight: 1,
        links,
        drain: Duration::ZERO,
        patience: Patience::default(),
        daily_budget: None,
    };
    let uplink = Arc::clone(&gateway.connector.0.uplink);
    let (_pump, handle) = Pump::new(gateway.store.clone(), uplink, settings);
    gateway.connector.attach(handle.clone()).unwrap();
    gateway.connect("code-1").await;
    assert_eq!(gateway.registered().len(), 2);
    let status = handle.status();
    assert_eq!(status.installations.len(), 1);
    assert_eq!(status.installations[0].budget.spent, 2 * budget::REGISTER);
}
