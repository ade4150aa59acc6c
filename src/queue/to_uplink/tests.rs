use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinHandle;

use super::*;
use crate::domain::{
    Address, Attempt, ConversationId, DeliveryState, DeviceStatus, GatewayId, IncomingState, InstallationId,
    MessageId, OutgoingState, ProviderChannelId, ProviderType, ReceivedMessage, StatusReport, StatusTarget,
    WireStatus,
};
use crate::protocol::retry::Backoff;
use crate::store::{self, ChannelLink, Inserted, NewOutgoing};
use crate::uplink::{Delivered, Delivery, Kind, NotConnected, Outcome, Scope};

mod channels;
mod measure;
mod week;

/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(30);

/// What the scripted uplink was asked to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    id: MessageId,
    text: String,
    status: WireStatus,
    kind: Kind,
}

type Script = dyn Fn(usize, &Call, &Delivery<'_>) -> Outcome + Send + Sync;

struct Scripted {
    script: Box<Script>,
    register: Box<dyn Fn(usize) -> Outcome + Send + Sync>,
    /// Channels that belong to nobody, with whether that needs a person; otherwise a channel's own installation.
    lost: Mutex<HashMap<ProviderChannelId, bool>>,
    /// Whether each channel belongs to an installation of its own.
    apart: bool,
    calls: Mutex<Vec<Call>>,
    registrations: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    busy: Mutex<HashSet<ConversationId>>,
}

impl Scripted {
    fn new(script: impl Fn(usize, &Call, &Delivery<'_>) -> Outcome + Send + Sync + 'static) -> Self {
        Self {
            script: Box::new(script),
            register: Box::new(|_| Outcome::Accepted),
            lost: Mutex::default(),
            apart: false,
            calls: Mutex::default(),
            registrations: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            busy: Mutex::default(),
        }
    }

    fn texts(&self) -> Vec<String> {
        self.calls
            .lock()
            .unwrap()
            .iter()
            .map(|call| call.text.clone())
            .collect()
    }

    fn count(&self) -> usize {
        self.calls.lock().unwrap().len()
    }
}

impl Uplink for Scripted {
    fn installation(&self, channel: &ProviderChannelId) -> Result<InstallationId, NotConnected> {
        if let Some(needs_person) = self.lost.lock().unwrap().get(channel) {
            return Err(NotConnected {
                reason: "Not connected to Pipedrive yet.".to_owned(),
                needs_person: *needs_person,
            });
        }
        if self.apart {
            return Ok(channel.as_str().parse().unwrap());
        }
        Ok(InstallationId::of_configured_token())
    }

    fn deliver(&self, delivery: &Delivery<'_>, _: Timestamp) -> Delivered {
        let call = Call {
            id: delivery.message.id,
            text: delivery.message.text.clone(),
            status: delivery.message.state.wire_status(),
            kind: delivery.kind,
        };
        let running = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(running, Ordering::SeqCst);
        assert!(
            self.busy.lock().unwrap().insert(call.id.conversation),
            "two requests of one conversation at a time"
        );
        let number = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(call.clone());
            calls.len() - 1
        };
        let outcome = (self.script)(number, &call, delivery);
        self.busy.lock().unwrap().remove(&call.id.conversation);
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        outcome.into()
    }

    fn register(&self, _: &Registration, _: Timestamp) -> Delivered {
        let number = self.registrations.fetch_add(1, Ordering::SeqCst);
        (self.register)(number).into()
    }
}

fn trouble(scope: Scope) -> Outcome {
    Outcome::Retry {
        reason: "Pipedrive has a fault of its own.".to_owned(),
        after: None,
        scope,
    }
}

fn gone() -> Outcome {
    Outcome::Gone {
        reason: "The Channels API does not answer.".to_owned(),
    }
}

fn channel(name: &str) -> ChannelId {
    name.parse().unwrap()
}

fn open(folder: &std::path::Path) -> Store {
    let options = store::Options {
        disk_reserve: 0,
        gateway_id: Some("gw".parse().unwrap()),
        ..store::Options::new(folder)
    };
    Store::open(options).unwrap()
}

async fn receive(store: &Store, on: &str, from: &str, text: &str) -> MessageId {
    let message = ReceivedMessage {
        channel: channel(on),
        from: Address::new(from).unwrap(),
        from_name: None,
        group: None,
        text: text.to_owned(),
        device_time: None,
        received_at: wall_clock(),
        dedup: None,
        route: crate::domain::Route::new(),
        attachments: Vec::new(),
    };
    match store.insert_incoming(message).await.unwrap() {
        Inserted::New(id) | Inserted::Duplicate(id) => id,
    }
}

fn quick() -> Patience {
    let backoff = Backoff {
        first: Duration::from_millis(4),
        most: Duration::from_millis(20),
    };
    Patience {
        conversation: backoff,
        everything: backoff,
        token: backoff,
        merge: Duration::from_millis(20),
        ..Patience::default()
    }
}

fn settings(store: &Store, names: &[&str], patience: Patience) -> Settings {
    let gateway: GatewayId = store.gateway_id().clone();
    let registration = |name: &&str| {
        let id = ProviderChannelId::new(&gateway, &channel(name));
        let registration = Registration {
            id,
            name: (*name).to_owned(),
            avatar_url: None,
            provider_type: ProviderType::Other,
            template_support: false,
        };
        (channel(name), registration)
    };
    Settings {
        channels: names.iter().map(registration).collect(),
        in_flight: 8,
        links: Links {
            public_url: None,
            secret: [0; 32],
            lifetime: Duration::from_secs(60),
        },
        drain: Duration::from_secs(10),
        patience,
        daily_budget: None,
    }
}

struct Running {
    handle: PumpHandle,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), String>>,
}

fn start(store: &Store, uplink: &Arc<Scripted>, settings: Settings) -> Running {
    let (pump, handle) = Pump::new(store.clone(), Arc::clone(uplink) as Arc<dyn Uplink>, settings);
    let (stop, stopped) = watch::channel(false);
    Running {
        handle,
        stop,
        task: tokio::spawn(pump.run(stopped, || {})),
    }
}

impl Running {
    async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(
        tokio::time::timeout(LIMIT, wait).await.is_ok(),
        "waited in vain: {what}"
    );
}

fn is_drained(store: &Store) -> bool {
    let queued = store.counts().queued;
    queued.uplink_messages + queued.uplink_statuses == 0
}

async fn state_of(store: &Store, id: MessageId) -> DeliveryState {
    let found = store.read(move |reader| reader.message(id)).await.unwrap();
    found.unwrap().1.state
}

#[tokio::test]
async fn a_backlog_of_2000_drains_in_order_with_eight_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let inserts: Vec<_> = (0..50)
        .map(|customer| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0..40 {
                    receive(
                        &store,
                        "sms",
                        &format!("c{customer}"),
                        &format!("{customer}:{number:02}"),
                    )
                    .await;
                }
            })
        })
        .collect();
    for insert in inserts {
        insert.await.unwrap();
    }
    let uplink = Arc::new(Scripted::new(|_, _, _| {
        // Long enough for others to begin.
        std::thread::yield_now();
        Outcome::Accepted
    }));
    let running = start(&store, &uplink, settings(&store, &["sms"], quick()));
    until("drained", || is_drained(&store)).await;
    let mut of_customer: HashMap<String, Vec<String>> = HashMap::new();
    for text in uplink.texts() {
        let (customer, _) = text.split_once(':').unwrap();
        of_customer.entry(customer.to_owned()).or_default().push(text);
    }
    assert_eq!(uplink.count(), 2000);
    for (customer, texts) in of_customer {
        let expected: Vec<String> = (0..40).map(|number| format!("{customer}:{number:02}")).collect();
        assert_eq!(texts, expected);
    }
    let most = uplink.most_at_once.load(Ordering::SeqCst);
    assert!((2..=8).contains(&most), "{most} at once");
    assert_eq!(running.handle.status().accepted, 2000);
    running.stop().await;
}

#[tokio::test]
async fn a_stuck_conversation_does_not_hold_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for number in 0..3 {
        receive(&store, "sms", "stuck", &format!("stuck {number}")).await;
        receive(&store, "sms", "fine", &format!("fine {number}")).await;
    }
    let uplink = Arc::new(Scripted::new(|_, call, _| {
        if call.text.starts_with("stuck") {
            trouble(Scope::Conversation)
        } else {
            Outcome::Accepted
        }
    }));
    let running = start(&store, &uplink, settings(&store, &["sms"], quick()));
    until("the others are through and the stuck one was tried often", || {
        let texts = uplink.texts();
        let tried = |text: &str| texts.iter().filter(|tried| *tried == text).count();
        tried("stuck 0") >= 4 && tried("fine 2") == 1
    })
    .await;
    assert!(!uplink.texts().contains(&"stuck 1".to_owned()));
    assert_eq!(store.counts().queued.uplink_messages, 3);
    assert_eq!(running.handle.status().state, UplinkState::Running);
    running.stop().await;
}

#[tokio::test]
async fn a_waiting_conversation_shows_its_attempts_and_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let id = receive(&store, "sms", "c", "hello").await;
    let uplink = Arc::new(Scripted::new(|_, _, _| trouble(Scope::Conversation)));
    let running = start(&store, &uplink, settings(&store, &["sms"], Patience::default()));
    until("it waits", || running.handle.status().waiting_total == 1).await;
    let status = running.handle.status();
    assert_eq!(status.waiting[0].conversation, id.conversation);
    assert_eq!(status.waiting[0].attempts, 1);
    assert_eq!(status.waiting[0].reason, "Pipedrive has a fault of its own.");
    assert!(status.waiting[0].next <= Duration::from_secs(2));
    running.handle.retry_now();
    until("it is tried at once", || uplink.count() == 2).await;
    running.stop().await;
}

#[tokio::test]
async fn a_refused_message_is_failed_visibly_and_the_next_one_goes_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let bad = receive(&store, "sms", "c", "bad").await;
    let good = receive(&store, "sms", "c", "good").await;
    let uplink = Arc::new(Scripted::new(|_, call, _| {
        if call.text == "good" {
            return Outcome::Accepted;
        }
        Outcome::Rejected {
            reason: "Pipedrive refuses this message for good.".to_owned(),
        }
    }));
    let running = start(&store, &uplink, settings(&store, &["sms"], quick()));
    until("drained", || is_drained(&store)).await;
    assert_eq!(
        state_of(&store, bad).await,
        DeliveryState::Incoming(IncomingState::Failed(
            "Pipedrive refuses this message for good.".to_owned()
        ))
    );
    assert_eq!(
        state_of(&store, good).await,
        DeliveryState::Incoming(IncomingState::Accepted)
    );
    assert_eq!(
        (running.handle.status().accepted, running.handle.status().failed),
        (1, 1)
    );
    running.stop().await;
}

#[tokio::test]
async fn a_withdrawn_api_stops_the_storm_keeps_everything_and_goes_on_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for customer in 0..100 {
        receive(&store, "sms", &format!("c{customer}"), "hello").await;
    }
    let back = Arc::new(AtomicUsize::new(0));
    let answer = Arc::clone(&back);
    let uplink = Arc::new(Scripted::new(move |_, _, _| {
        if answer.load(Ordering::SeqCst) == 1 {
            Outcome::Accepted
        } else {
            gone()
        }
    }));
    let running = start(&store, &uplink, settings(&store, &["sms"], quick()));
    until("it is gone", || {
        matches!(running.handle.status().state, UplinkState::ChannelsApiGone { .. })
    })
    .await;
    until("nothing is on its way", || running.handle.status().in_flight == 0).await;
    let seen = uplink.count();
    assert!(seen <= 8 + 3, "{seen} requests");
    // New messages wake the pump and must not make it ask again.
    for customer in 0..20 {
        receive(&store, "sms", &format!("new{customer}"), "hello").await;
    }
    assert_eq!(uplink.count(), seen);
    assert_eq!(store.counts().queued.uplink_messages, 120);
    let words = running.handle.status().state.words();
    assert!(words.contains("nothing is dropped"), "{words}");
    back.store(1, Ordering::SeqCst);
    running.handle.retry_now();
    until("drained", || is_drained(&store)).await;
    assert_eq!(running.handle.status().state, UplinkState::Running);
    running.stop().await;
}

#[tokio::test]
async fn after_an_outage_one_request_finds_out_before_the_rest_follows() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for customer in 0..50 {
        receive(&store, "sms", &format!("c{customer}"), "hello").await;
    }
    let uplink = Arc::new(Scripted::new(|number, _, _| {
        if number < 20 {
            trouble(Scope::Everything)
        } else {
            Outcome::Accepted
        }
    }));
    let running = start(&store, &uplink, settings(&store, &["sms"], quick()));
    until("drained", || is_drained(&store)).await;
    assert_eq!(uplink.count(), 70);
    assert_eq!(running.handle.status().waiting_total, 0);
    running.stop().await;
}

#[tokio::test]
async fn without_a_token_nothing_is_asked_and_the_state_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    receive(&store, "sms", "c", "hello").await;
    let uplink = Arc::new(Scripted::new(|_, _, _| Outcome::Accepted));
    let provider = ProviderChannelId::new(store.gateway_id(), &channel("sms"));
    uplink.lost.lock().unwrap().insert(provider, false);
    let running = start(&store, &uplink, settings(&store, &["sms"], quick()));
    receive(&store, "sms", "c", "again").await;
    assert_eq!(running.handle.status().state.word(), "not_connected");
    uplink.lost.lock().unwrap().clear();
    assert_eq!(
        (uplink.count(), uplink.registrations.load(Ordering::SeqCst)),
        (0, 0)
    );
    running.handle.retry_now();
    until("drained", || is_drained(&store)).await;
    assert_eq!(uplink.registrations.load(Ordering::SeqCst), 1);
    running.stop().await;
}

#[tokio::test]
async fn status_updates_that_overtake_each_other_become_one_call() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let first = receive(&store, "sms", "c", "hello").await;
    let now = wall_clock();
    let answer = NewOutgoing {
        channel: channel("sms"),
        conversation: first.conversation,
        text: "answer".to_owned(),
        attachments: Vec::new(),
        now,
        announce: false,
    };
    let id = store.insert_outgoing(answer).await.unwrap();
    store.start_attempt(id, now).await.unwrap();
    store.finish_attempt(id, Attempt::Sent, false).await.unwrap();
    for status in [DeviceStatus::Delivered, DeviceStatus::Read] {
        let report = StatusReport {
            channel: channel("sms"),
            of: StatusTarget::Id(id),
            status,
        };
        store.apply_status(report).await.unwrap();
    }
    let uplink = Arc::new(Scripted::new(|_, _, _| Outcome::Accepted));
    let running = start(&store, &uplink, settings(&store, &["sms"], quick()));
    until("drained", || is_drained(&store)).await;
    let calls = uplink.calls.lock().unwrap().clone();
    let updates: Vec<_> = calls.iter().filter(|call| call.id == id).collect();
    assert_eq!(updates.len(), 1, "{calls:?}");
    assert_eq!(
        (updates[0].status, updates[0].kind),
        (WireStatus::Read, Kind::Status)
    );
    assert_eq!(
        state_of(&store, id).await,
        DeliveryState::Outgoing(OutgoingState::Read)
    );
    running.stop().await;
}

#[tokio::test]
async fn a_message_whose_answer_was_cut_off_by_a_stop_is_delivered_again_with_the_same_id() {
    let folder = tempfile::tempdir().unwrap();
    let id;
    {
        let store = open(folder.path());
        id = receive(&store, "sms", "c", "hello").await;
        let (release, hang) = std::sync::mpsc::sync_channel::<()>(0);
        let hang = Mutex::new(hang);
        let uplink = Arc::new(Scripted::new(move |_, _, _| {
            hang.lock().unwrap().recv().ok();
            Outcome::Accepted
        }));
        let mut settings = settings(&store, &["sms"], quick());
        settings.drain = Duration::from_millis(5);
        let running = start(&store, &uplink, settings);
        until("it is on its way", || uplink.count() == 1).await;
        running.stop().await;
        drop(release);
        until("the thread has ended", || {
            uplink.at_once.load(Ordering::SeqCst) == 0
        })
        .await;
        until("nothing else holds the store", || Arc::strong_count(&uplink) == 1).await;
        store.close().await;
    }
    let store = open(folder.path());
    let uplink = Arc::new(Scripted::new(|_, _, _| Outcome::Accepted));
    let running = start(&store, &uplink, settings(&store, &["sms"], quick()));
    until("drained", || is_drained(&store)).await;
    assert_eq!(uplink.calls.lock().unwrap()[0].id, id);
    assert_eq!(uplink.registrations.load(Ordering::SeqCst), 0);
    running.stop().await;
}
