//! One connection to the message bus after another, for as long as the gateway runs.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use log::{debug, info, warn};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::bus::{self, Bus, Changes};
use super::calls::{Call, ENABLE, Finished, Order, ask, unlock};
use super::inbox::{Known, Reading};
use super::modem::{self, Modem, Power};
use super::{MODEM, SIM, failure};
use crate::config::ModemPort;
use crate::driver::sms::edge::{NETWORK_AWAY, PREPARED, sim_in_words};
use crate::driver::sms::intake::{Origin, Task};
use crate::driver::sms::outgoing::Outgoing;
use crate::driver::sms::{Edge, ModemStatus, PinState};
use crate::protocol::retry::Backoff;
use crate::protocol::sms::at::{SendOutcome, Sim};

const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    most: Duration::from_secs(15),
};
/// For the message in the modem's hands when the gateway stops.
const STOP_LIMIT: Duration = Duration::from_secs(8);
/// The regular look, for signals that were lost.
const POLL: Duration = Duration::from_secs(20);
/// Pause after it could not be.
const ENABLE_AGAIN: Duration = Duration::from_secs(30);

/// Of a modem with AT commands.
const OVERLOOKS: &str = "ModemManager loses some messages of modems that speak AT commands; with port = instead of \
                         modem_manager = the gateway reads them itself (docs/modems.md)";

/// How a connection ended.
enum End {
    Failed(String),
    Stopped,
}

/// What is done about the PIN.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PinStep {
    None,
    Entering,
    /// It is not tried again.
    Refused,
}

pub(super) struct Connection {
    pub(super) edge: Edge,
    pub(super) which: Option<String>,
    pub(super) address: Option<String>,
    pub(super) outgoing: Outgoing,
    /// A USSD code on its way.
    pub(super) ussd: Option<oneshot::Sender<Result<String, String>>>,
    pub(super) calls: FuturesUnordered<Call>,
    /// The modem, or why there is none.
    pub(super) modem: Result<Modem, String>,
    /// The SIM's subscriber number.
    pub(super) imsi: Option<String>,
    pub(super) known: HashMap<u32, Known>,
    /// Counts the starts of `ModemManager`: after one its numbers mean other messages.
    pub(super) epoch: u32,
    pin: PinStep,
    pub(super) was_ready: bool,
    pub(super) enable_at: Option<Instant>,
    /// Why the modem cannot be switched on.
    pub(super) trouble: Option<String>,
    /// When the modem's memory is to be read again, for messages that `ModemManager` has overlooked.
    pub(super) read_again_at: Option<Instant>,
    pub(super) reading: Reading,
    /// Since when parts were missing before that, oldest first.
    pub(super) receiving_since: Vec<Instant>,
}

impl Connection {
    pub(super) fn new(edge: Edge) -> Self {
        let (which, address) = match &edge.modem.port {
            ModemPort::Manager { which, bus } => (which.clone(), bus.clone()),
            ModemPort::Path(_) | ModemPort::Usb { .. } => (None, None),
        };
        Self {
            edge,
            which,
            address,
            outgoing: Outgoing::new(),
            ussd: None,
            calls: FuturesUnordered::new(),
            modem: Err(PREPARED.to_owned()),
            imsi: None,
            known: HashMap::new(),
            epoch: 0,
            pin: PinStep::None,
            was_ready: false,
            enable_at: Some(Instant::now()),
            trouble: None,
            read_again_at: None,
            reading: Reading::No,
            receiving_since: Vec::new(),
        }
    }

    /// Connects, works and reconnects until the gateway stops.
    pub(super) async fn run(mut self) {
        self.outgoing.sent = self.edge.sent().await;
        let mut failures: u32 = 0;
        loop {
            let end = match Bus::connect(self.address.as_deref()).await {
                Ok(bus) => {
                    failures = 0;
                    self.session(&bus).await
                }
                Err(reason) => End::Failed(reason),
            };
            let End::Failed(reason) = end else { break };
            failures = failures.saturating_add(1);
            let jitter = getrandom::u32().unwrap_or(u32::MAX / 2);
            self.edge.down(reason.clone());
            self.tell();
            if self.edge.wait(BACKOFF.pause(failures, jitter), &reason).await {
                break;
            }
        }
        self.outgoing.give_back("the gateway is stopping");
        self.edge.close().await;
    }

    /// One connection to the bus, to its end.
    async fn session(&mut self, bus: &Bus) -> End {
        let signals = match bus.listen().await {
            Ok(signals) => signals,
            Err(error) => return End::Failed(failure::in_words(&error)),
        };
        let (counter, changed) = watch::channel(Changes::default());
        let end = tokio::select! {
            end = self.work(bus, changed) => end,
            () = signals.count(&counter) => End::Failed("the message bus is gone".to_owned()),
        };
        let reason = match &end {
            End::Failed(reason) => reason.clone(),
            End::Stopped => "the gateway is stopping".to_owned(),
        };
        self.calls = FuturesUnordered::new();
        self.forget_modem(reason.clone());
        self.epoch = self.epoch.wrapping_add(1);
        if let Some(answer) = self.ussd.take() {
            drop(answer.send(Err(reason.clone())));
        }
        let in_hands = self.outgoing.current.as_ref().and_then(|sending| sending.tag);
        if let Some(tag) = in_hands {
            let outcome = SendOutcome::Unknown(reason.clone());
            let (modem, records) = (&self.edge.modem, &self.edge.records);
            self.outgoing.settled(tag, outcome, modem, records).await;
        }
        self.outgoing.give_back(&reason);
        end
    }

    fn forget_modem(&mut self, reason: String) {
        self.modem = Err(reason);
        self.imsi = None;
        self.known.clear();
        if self.pin == PinStep::Entering {
            self.pin = PinStep::None;
        }
        self.was_ready = false;
        self.enable_at = Some(Instant::now());
        self.trouble = None;
        self.read_again_at = None;
        self.reading = Reading::No;
        self.receiving_since.clear();
    }

    async fn work(&mut self, bus: &Bus, mut changed: watch::Receiver<Changes>) -> End {
        let mut stop = self.edge.stop.clone();
        let mut stop_at: Option<Instant> = None;
        let mut owners = 0;
        let mut look_at = Instant::now();
        loop {
            if changed.has_changed().unwrap_or_default() || look_at <= Instant::now() {
                look_at = Instant::now() + POLL;
                let now = *changed.borrow_and_update();
                if now.owners != owners {
                    owners = now.owners;
                    self.epoch = self.epoch.wrapping_add(1);
                    self.forget_modem(PREPARED.to_owned());
                }
                self.look(bus).await;
                self.switch_on(bus).await;
                self.read_again(bus);
            }
            self.judge();
            self.tell();
            let is_sending = self
                .outgoing
                .current
                .as_ref()
                .is_some_and(|sending| sending.tag.is_some());
            let stopping = stop_at.is_some();
            if stopping && !is_sending {
                return End::Stopped;
            }
            let far = Instant::now() + Duration::from_secs(3600);
            let up = self.edge.is_up();
            let part_at = self
                .outgoing
                .due()
                .filter(|_| up && !stopping && self.reading != Reading::Running);
            let wake_at = self
                .read_again_at
                .filter(|at| *at > Instant::now())
                .unwrap_or(look_at);
            let obstacle_ends = self.outgoing.obstacle.as_ref().map(|(until, _)| *until);
            tokio::select! {
                Ok(()) = changed.changed() => changed.mark_changed(),
                () = sleep_until(look_at.min(wake_at)) => look_at = Instant::now(),
                Some(finished) = self.calls.next(), if !self.calls.is_empty() => {
                    if self.finished(finished).await {
                        look_at = Instant::now();
                    }
                }
                Some(done) = self.edge.done.recv() => self.done(bus, done.origin, done.stored),
                Some(job) = self.edge.jobs.recv(), if self.outgoing.current.is_none() && !stopping => {
                    self.outgoing.take(job, &self.edge.modem, &self.edge.records).await;
                    if !up {
                        self.outgoing.give_back("the modem is not ready");
                    }
                }
                () = sleep_until(part_at.unwrap_or(far)), if part_at.is_some() => self.send(bus).await,
                () = sleep_until(obstacle_ends.unwrap_or(far)), if obstacle_ends.is_some() => {}
                Some(job) = self.edge.ussd.recv(), if self.ussd.is_none() && !stopping => {
                    match &self.modem {
                        Ok(modem) => {
                            self.ussd = Some(job.answer);
                            self.calls.push(Box::pin(ask(bus.clone(), modem.path.clone(), job.code)));
                        }
                        Err(reason) => drop(job.answer.send(Err(reason.clone()))),
                    }
                }
                Ok(()) = self.edge.incomplete.changed() => {}
                () = async { drop(stop.wait_for(|stop| *stop).await) }, if !stopping => {
                    stop_at = Some(Instant::now() + STOP_LIMIT);
                }
                () = sleep_until(stop_at.unwrap_or(far)), if stopping => return End::Stopped,
            }
        }
    }

    /// Looks at the modem and its messages.
    async fn look(&mut self, bus: &Bus) {
        let found = match bus.objects().await {
            Ok(objects) => modem::find(&objects, self.which.as_deref()),
            Err(error) => Err(failure::in_words(&error)),
        };
        match found {
            Ok(mut modem) => {
                let is_same = self.modem.as_ref().is_ok_and(|known| known.path == modem.path);
                if !is_same {
                    self.forget_modem(String::new());
                    info!(modem = self.edge.name(), object = modem.path.as_str(); "Modem found");
                }
                // Not measured yet since the modem was switched off and on.
                let known = self.modem.as_ref().ok().and_then(|known| known.signal_dbm);
                modem.signal_dbm = modem.signal_dbm.or(known);
                self.modem = Ok(modem);
            }
            Err(reason) => {
                if self.modem.is_ok() {
                    self.forget_modem(String::new());
                }
                self.modem = Err(reason);
                return;
            }
        }
        self.subscriber(bus).await;
        self.messages(bus).await;
    }

    /// Takes the modem's next step on its way to being usable.
    async fn switch_on(&mut self, bus: &Bus) {
        let Ok(modem) = &self.modem else { return };
        let path = modem.path.clone();
        if modem.sim == Sim::Ready && !self.was_ready {
            self.was_ready = true;
            self.pin = PinStep::None;
            self.edge.forget_pin().await;
        }
        if modem.sim == Sim::PinNeeded
            && self.pin == PinStep::None
            && let Some(sim) = modem.sim_path.clone()
        {
            self.edge.card = match bus.properties(&sim, SIM).await {
                Ok(properties) => bus::text(&properties, "SimIdentifier"),
                Err(_) => None,
            };
            match self.edge.pin().await {
                PinState::Enter(pin) => {
                    self.pin = PinStep::Entering;
                    self.calls.push(Box::pin(unlock(bus.clone(), sim, pin)));
                }
                PinState::Refused => self.pin = PinStep::Refused,
                PinState::Absent => {}
            }
        }
        let Ok(modem) = &self.modem else { return };
        if modem.power == Power::Off
            && self.reading != Reading::Running
            && self.enable_at.is_some_and(|at| at <= Instant::now())
        {
            self.enable_at = None;
            let bus = bus.clone();
            self.calls.push(Box::pin(async move {
                let enabled = bus.call(&path, MODEM, "Enable", &true, ENABLE).await;
                Finished::Enabled(enabled.map(drop))
            }));
        }
    }

    async fn send(&mut self, bus: &Bus) {
        let Ok(modem) = &self.modem else { return };
        let path = modem.path.clone();
        let Some((tag, _)) = self.outgoing.next(&self.edge.modem, &self.edge.records).await else {
            return;
        };
        let Some(sending) = &self.outgoing.current else {
            return;
        };
        let order = Order {
            number: sending.recipient.clone(),
            text: sending.text.clone(),
            report: self.edge.modem.reports,
            validity: self.edge.modem.validity,
            parts: sending.step,
        };
        let bus = bus.clone();
        self.calls.push(Box::pin(async move {
            let outcome = order.send(&bus, &path).await;
            Finished::Sent { tag, outcome }
        }));
    }

    /// True when it is time for a look.
    async fn finished(&mut self, finished: Finished) -> bool {
        match finished {
            Finished::Sent { tag, outcome } => {
                debug!(modem = self.edge.name(); "A message has its outcome");
                let (modem, records) = (&self.edge.modem, &self.edge.records);
                self.outgoing.settled(tag, outcome, modem, records).await;
                // For its report, which may be there already.
                true
            }
            Finished::Ussd(answer) => {
                if let Some(job) = self.ussd.take() {
                    drop(job.send(answer.map_err(|error| failure::in_words(&error))));
                }
                false
            }
            Finished::Enabled(outcome) => {
                self.reading = match self.reading {
                    Reading::Running => Reading::Fresh,
                    Reading::No | Reading::Fresh => Reading::No,
                };
                self.enable_at = Some(Instant::now() + ENABLE_AGAIN);
                self.trouble = outcome
                    .err()
                    .map(|error| format!("the modem cannot be switched on: {}", failure::in_words(&error)));
                true
            }
            Finished::Unlocked(outcome) => {
                self.pin = PinStep::None;
                if let Err(error) = outcome {
                    // Whatever it was, it counts as the one attempt.
                    self.pin = PinStep::Refused;
                    let reason = failure::in_words(&error);
                    warn!(modem = self.edge.name(), reason = reason.as_str(); "The PIN was not taken: it is not tried again");
                    if failure::is_refused_pin(&error) {
                        self.edge.remember_pin(true).await;
                    }
                }
                true
            }
            Finished::Deleted { origin, outcome } => {
                self.suspect();
                match outcome {
                    // Lost, it costs the recognition of a repeat and nothing else.
                    Ok(()) => drop(self.edge.tasks.try_send(Task::Freed(origin))),
                    Err(error) => {
                        let reason = failure::in_words(&error);
                        warn!(modem = self.edge.name(), reason = reason.as_str(); "ModemManager does not delete a message");
                    }
                }
                // One that is still there is known to the store, and deleted after the next look.
                if let Origin::Object { epoch, number } = origin
                    && epoch == self.epoch
                {
                    self.known.remove(&number);
                }
                false
            }
        }
    }

    fn sim(&self) -> Sim {
        match &self.modem {
            Ok(modem) if modem.sim == Sim::PinNeeded && self.pin == PinStep::Refused => Sim::PinRefused,
            Ok(modem) => modem.sim,
            Err(_) => Sim::Unknown,
        }
    }

    /// Why the modem cannot be used now, in words.
    fn obstacle(&self) -> Option<String> {
        let modem = match &self.modem {
            Ok(modem) => modem,
            Err(reason) => return Some(reason.clone()),
        };
        if self.pin == PinStep::Entering {
            return Some(PREPARED.to_owned());
        }
        if let Some(reason) = self.edge.sim_obstacle(self.sim()) {
            return Some(reason);
        }
        if modem.power < Power::On {
            return Some(self.trouble.clone().unwrap_or_else(|| PREPARED.to_owned()));
        }
        if !modem.has_messages {
            return Some("ModemManager cannot carry messages with this modem".to_owned());
        }
        if !modem.registered.is_registered() {
            return Some(format!(
                "the modem is not in a network ({}): {NETWORK_AWAY}",
                modem.registered.as_str()
            ));
        }
        None
    }

    fn judge(&mut self) {
        // That takes a few seconds: no reason to call it down.
        if self.reading == Reading::Running && self.modem.is_ok() && self.edge.is_connected() {
            return;
        }
        match self.obstacle() {
            Some(reason) if reason == PREPARED && self.edge.is_starting() => {}
            Some(reason) => {
                self.outgoing.give_back(&reason);
                self.edge.down(reason);
            }
            None => {
                if let Some(reason) = self.outgoing.obstacle() {
                    self.outgoing.give_back(&reason);
                    return self.edge.pause(reason);
                }
                let speaks_at = self.modem.as_ref().is_ok_and(|modem| modem.speaks_at);
                self.edge.up(speaks_at.then_some(OVERLOOKS));
            }
        }
    }

    fn tell(&self) {
        let receiving = self
            .known
            .values()
            .filter(|known| matches!(known, Known::Receiving(_)));
        let mut status = ModemStatus {
            daily_cap: self.edge.modem.daily_cap,
            sent_today: self.outgoing.sent_today(),
            incomplete: *self.edge.incomplete.borrow() + receiving.count(),
            ..ModemStatus::default()
        };
        if let Ok(modem) = &self.modem {
            status.port = modem.port.as_ref().map(|port| format!("{port} (ModemManager)"));
            status.model.clone_from(&modem.model);
            status.imei.clone_from(&modem.imei);
            sim_in_words(self.sim()).clone_into(&mut status.sim);
            modem.registered.as_str().clone_into(&mut status.network);
            status.operator.clone_from(&modem.operator);
            status.signal_dbm = modem.signal_dbm;
        }
        self.edge.tell(status);
    }
}
