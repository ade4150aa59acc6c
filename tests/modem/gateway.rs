//! A running driver, the store behind it, and a modem in front of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pipepost::config::{Modem as ModemConfig, ModemPort};
use pipepost::domain::*;
use pipepost::driver::sms::{self, ModemStatus, Setup};
use pipepost::driver::{DriverEvent, DriverHandle, Link, OutgoingJob, Stored};
use pipepost::protocol::sms::Home;
use pipepost::sim::modem::pdu::Text;
use pipepost::sim::modem::{Cable, Modem, Options, Profile};
use pipepost::store::{self, NewOutgoing, Store};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Limit for anything that should happen soon; long, because machines are busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);

pub(crate) fn channel() -> ChannelId {
    "sms".parse().unwrap()
}

pub(crate) fn config(port: &Path) -> ModemConfig {
    ModemConfig {
        name: "office".to_owned(),
        port: ModemPort::Path(port.to_owned()),
        baud: 115_200,
        profile: None,
        pin: None,
        home: Home::new("NL").unwrap(),
        reports: true,
        max_parts: 10,
        languages: Vec::new(),
        transliterate: false,
        validity: None,
        daily_cap: 100_000,
        pacing: Duration::ZERO,
        incomplete_after: Duration::from_secs(600),
    }
}

/// A modem that is quick, so that tests are.
pub(crate) fn options() -> Options {
    Options {
        send_time: Duration::from_millis(5),
        report_after: Duration::from_millis(20),
        text_interval: Duration::from_millis(1),
        boot_time: Duration::from_millis(50),
        boot_step: Duration::from_millis(10),
        register_time: Duration::from_millis(50),
        ..Options::default()
    }
}

/// One that says when it has started.
pub(crate) fn talkative() -> Options {
    Options {
        profile: Profile::Sim800,
        ..options()
    }
}

/// Plugs the modem in at a link that stays the same.
pub(crate) fn plug(folder: &Path, options: Options) -> Modem {
    Modem::start(options, &cable(folder)).unwrap()
}

pub(crate) fn cable(folder: &Path) -> Cable {
    Cable::Pty {
        link: Some(folder.join("modem")),
    }
}

/// A running driver with its store.
pub(crate) struct Gateway {
    pub(crate) handle: DriverHandle,
    pub(crate) store: Store,
    stop: watch::Sender<bool>,
    work: JoinHandle<()>,
    events: JoinHandle<()>,
    mute: Arc<AtomicBool>,
}

impl Gateway {
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_with(folder, config(&folder.join("modem")))
    }

    pub(crate) fn start_with(folder: &Path, modem: ModemConfig) -> Self {
        let store = Store::open(store::Options {
            disk_reserve: 0,
            ..store::Options::new(folder.join("state"))
        })
        .unwrap();
        let (sender, events) = mpsc::channel(16);
        let (stop, stopped) = watch::channel(false);
        let (handle, work) = sms::spawn(Setup {
            modem,
            channel: channel(),
            store: store.clone(),
            events: sender,
            stop: stopped,
        });
        let mute = Arc::new(AtomicBool::new(false));
        Self {
            handle,
            events: tokio::spawn(keep(store.clone(), events, mute.clone())),
            mute,
            store,
            stop,
            work: tokio::spawn(work),
        }
    }

    /// From now on events are stored and the driver does not hear of it, as when the end comes just then.
    pub(crate) fn say_nothing_of_what_is_stored(&self) {
        self.mute.store(true, Ordering::Relaxed);
    }

    pub(crate) async fn up(&mut self) {
        let up = self
            .handle
            .link
            .wait_for(|link| matches!(link, Link::Up(_) | Link::Limited { .. }));
        let up = timeout(LIMIT, up).await.map(drop);
        assert!(up.is_ok(), "not up: {:?}", self.handle.link.borrow());
    }

    /// The reason for which nothing goes out, once it contains a text.
    pub(crate) async fn down(&mut self, part: &str) -> String {
        let mut link = self.handle.link.clone();
        let down = link.wait_for(|link| matches!(link, Link::Down { reason, .. } if reason.contains(part)));
        match timeout(LIMIT, down).await.map(|link| link.unwrap().clone()) {
            Ok(Link::Down { reason, .. }) => reason,
            _ => panic!("not {part:?}: {:?}", self.handle.link.borrow()),
        }
    }

    /// The reason for which sending is paused, once it contains a text.
    pub(crate) async fn paused(&self, part: &str) {
        let mut link = self.handle.link.clone();
        let paused =
            link.wait_for(|link| matches!(link, Link::Paused { reason, .. } if reason.contains(part)));
        let paused = timeout(LIMIT, paused).await.map(drop);
        assert!(paused.is_ok(), "not {part:?}: {:?}", self.handle.link.borrow());
    }

    pub(crate) async fn status(&self, wanted: impl Fn(&ModemStatus) -> bool) -> ModemStatus {
        let mut status = self.handle.modem.clone().unwrap().status;
        let found = timeout(LIMIT, status.wait_for(|status| wanted(status)))
            .await
            .map(|s| s.unwrap().clone());
        found.unwrap_or_else(|_| {
            panic!(
                "not so: {:?}",
                self.handle.modem.as_ref().unwrap().status.borrow()
            )
        })
    }

    /// Sends a text as an agent would, and waits for the outcome of the attempt.
    pub(crate) async fn send(&self, to: &str, text: &str) -> (MessageId, Attempt) {
        let (id, outcome) = self.submit(to, text).await;
        let outcome = timeout(LIMIT, outcome).await.expect("no outcome").unwrap();
        self.store
            .finish_attempt(id, outcome.clone(), false)
            .await
            .unwrap();
        (id, outcome)
    }

    pub(crate) async fn submit(&self, to: &str, text: &str) -> (MessageId, oneshot::Receiver<Attempt>) {
        let now = Timestamp::from_system_time(std::time::SystemTime::now());
        let address = Address::new(to).unwrap();
        let conversation = self
            .store
            .find_or_start_conversation(channel(), address, now)
            .await
            .unwrap();
        let id = self
            .store
            .insert_outgoing(NewOutgoing {
                channel: channel(),
                conversation,
                text: text.to_owned(),
                attachments: Vec::new(),
                now,
                announce: false,
            })
            .await
            .unwrap();
        (id, self.attempt(id).await)
    }

    /// Hands a queued message to the driver.
    pub(crate) async fn attempt(&self, id: MessageId) -> oneshot::Receiver<Attempt> {
        let now = Timestamp::from_system_time(std::time::SystemTime::now());
        let message = self.store.start_attempt(id, now).await.unwrap().unwrap();
        let (sender, outcome) = oneshot::channel();
        let job = OutgoingJob {
            message,
            outcome: sender,
        };
        self.handle.outgoing.send(job).await.ok().unwrap();
        outcome
    }

    /// Waits until a message is in a state.
    pub(crate) async fn state(
        &self,
        id: MessageId,
        wanted: impl Fn(&OutgoingState) -> bool,
    ) -> OutgoingState {
        let mut last = None;
        let found = timeout(LIMIT, async {
            loop {
                let found = self.store.read(move |reader| reader.message(id)).await.unwrap();
                if let Some((_, message)) = found
                    && let DeliveryState::Outgoing(state) = message.state
                {
                    if wanted(&state) {
                        return state;
                    }
                    last = Some(state);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        found.unwrap_or_else(|_| panic!("it is {last:?}"))
    }

    /// Everything that came in: sender and text, in the order of each conversation.
    pub(crate) async fn incoming(&self) -> Vec<(String, String)> {
        self.store
            .read(|reader| {
                let mut all = Vec::new();
                for view in reader.conversations(&channel(), 10_000, None, 10_000)?.0 {
                    let address = view.address.as_str().to_owned();
                    for message in view.messages.into_iter().rev() {
                        if message.direction() == Direction::Incoming {
                            all.push((address.clone(), message.text));
                        }
                    }
                }
                Ok(all)
            })
            .await
            .unwrap()
    }

    /// Waits for this many incoming messages.
    pub(crate) async fn incoming_are(&self, count: usize) -> Vec<(String, String)> {
        let mut last = Vec::new();
        let enough = timeout(LIMIT, async {
            loop {
                last = self.incoming().await;
                if last.len() >= count {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert!(enough.is_ok(), "{} of {count}: {last:?}", last.len());
        assert_eq!(last.len(), count, "{last:?}");
        last
    }

    /// As SIGKILL does: nothing more is done.
    pub(crate) async fn crash(self) {
        self.work.abort();
        self.events.abort();
        drop(self.work.await);
        drop(self.events.await);
        self.store.close().await;
    }

    pub(crate) async fn stop(self) {
        self.stop.send(true).unwrap();
        timeout(LIMIT, self.work)
            .await
            .expect("the driver does not stop")
            .unwrap();
        self.events.abort();
        drop(self.events.await);
        self.store.close().await;
    }
}

/// What the gateway does with events.
async fn keep(store: Store, mut events: mpsc::Receiver<DriverEvent>, mute: Arc<AtomicBool>) {
    let mut unheard = Vec::new();
    while let Some(event) = events.recv().await {
        match event {
            DriverEvent::Received { message, stored } if mute.load(Ordering::Relaxed) => {
                store.insert_incoming(*message).await.unwrap();
                unheard.push(stored);
            }
            DriverEvent::Received { message, stored } => {
                store.insert_incoming(*message).await.unwrap();
                let _gone = stored.send(Stored::Acknowledge);
            }
            DriverEvent::Unmapped { record, stored } => {
                store.insert_unmapped(*record).await.unwrap();
                let _gone = stored.send(Stored::Acknowledge);
            }
            DriverEvent::Status { report, stored } => {
                store.apply_status(*report).await.unwrap();
                let _gone = stored.send(Stored::Acknowledge);
            }
        }
    }
}

/// A text that a customer sends now.
pub(crate) fn write(modem: &Modem, from: &str, text: &str) {
    modem.with(|engine| {
        let at = engine.wall_time();
        engine.text(&Text::new(from, text, at));
    });
}

/// All parts of a text, as PDUs.
pub(crate) fn parts(modem: &Modem, from: &str, text: &str, reference: u16) -> Vec<Vec<u8>> {
    modem.with(|engine| {
        let at = engine.wall_time();
        let text = Text {
            reference,
            ..Text::new(from, text, at)
        };
        text.pdus(engine.service_centre())
    })
}

/// The same as a PDU, to be sent as often as wanted.
pub(crate) fn bring(modem: &Modem, pdu: &[u8]) {
    modem.with(|engine| engine.pdu(pdu.to_vec()));
}

pub(crate) async fn deleted(modem: &Modem, count: usize) {
    modem
        .wait_for(|counts| counts.deleted >= count && counts.stored == 0, LIMIT)
        .await
        .unwrap_or_else(|counts| panic!("{counts:?}"));
}
