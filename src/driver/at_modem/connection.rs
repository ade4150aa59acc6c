//! One connection to the modem after another, for as long as the gateway runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use log::{debug, info, warn};
use serial2_tokio::SerialPort;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::intake::{Done, Task};
use super::outgoing::Outgoing;
use super::records::{self, Pin, Records, Sent, hash, put, remove};
use super::{ModemStatus, UssdJob, port};
use crate::config::Modem;
use crate::domain::Attempt;
use crate::driver::{Link, OutgoingJob, now};
use crate::protocol::retry::Backoff;
use crate::protocol::sms::at::{Action, Dialogue, Event, ModemState, Settings, Sim, Source, UssdAnswer};

const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    most: Duration::from_secs(15),
};
/// A connection that lasted this long was a good one: the next failure starts a new row.
const STABLE: Duration = Duration::from_secs(30);
/// For the port to take what is written.
const WRITE: Duration = Duration::from_secs(10);
/// For the message in the modem's hands when the gateway stops.
const STOP_LIMIT: Duration = Duration::from_secs(8);
/// The regular look at the modem.
const POLL: Duration = Duration::from_secs(30);

const PREPARED: &str = "the modem is being prepared";

pub(super) struct Parts {
    pub(super) modem: Modem,
    pub(super) roots: port::Roots,
    pub(super) records: Records,
    pub(super) tasks: mpsc::Sender<Task>,
    pub(super) done: mpsc::Receiver<Done>,
    pub(super) incomplete: watch::Receiver<usize>,
    pub(super) jobs: mpsc::Receiver<OutgoingJob>,
    pub(super) ussd: mpsc::Receiver<UssdJob>,
    pub(super) link: watch::Sender<Link>,
    pub(super) status: watch::Sender<ModemStatus>,
    pub(super) started: Instant,
    pub(super) stop: watch::Receiver<bool>,
}

/// How a connection ended.
enum End {
    Failed(String),
    Stopped,
}

pub(super) struct Connection {
    parts: Parts,
    outgoing: Outgoing,
    /// A USSD code on its way.
    ussd: Option<oneshot::Sender<Result<String, String>>>,
    /// Reports that came while a part was in the modem's hands: its reference is not known yet.
    held: Vec<Vec<u8>>,
    port: Option<PathBuf>,
    ready_since: Option<Instant>,
}

impl Connection {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            parts,
            outgoing: Outgoing::new(),
            ussd: None,
            held: Vec::new(),
            port: None,
            ready_since: None,
        }
    }

    /// Connects, works and reconnects until the gateway stops.
    pub(super) async fn run(mut self) {
        match self.parts.records.get::<Sent>(records::SENT.to_vec()).await {
            Ok(sent) => self.outgoing.sent = sent.unwrap_or_default(),
            Err(error) => {
                warn!(modem = self.name(), reason = error.to_string().as_str(); "The count of the day cannot be read");
            }
        }
        self.work().await;
        self.outgoing.give_back("the gateway is stopping");
        // What still waits for its turn has not left the gateway.
        self.parts.jobs.close();
        while let Some(job) = self.parts.jobs.recv().await {
            let reason = "the gateway is stopping".to_owned();
            drop(job.outcome.send(Attempt::NotStarted(reason)));
        }
    }

    async fn work(&mut self) {
        let mut failures: u32 = 0;
        loop {
            self.ready_since = None;
            let attempt = usize::try_from(failures).unwrap_or_default();
            let reason = match self.open(attempt) {
                Err(reason) => reason,
                Ok((port, path)) => {
                    info!(modem = self.name(), port = path.display().to_string().as_str(); "Port open");
                    self.port = Some(path);
                    let end = self.connection(&port).await;
                    if self.ready_since.is_some_and(|since| since.elapsed() >= STABLE) {
                        failures = 0;
                    }
                    match end {
                        End::Stopped => return,
                        End::Failed(reason) => reason,
                    }
                }
            };
            self.port = None;
            self.held.clear();
            if let Some(answer) = self.ussd.take() {
                drop(answer.send(Err(reason.clone())));
            }
            self.outgoing.give_back(&reason);
            failures = failures.saturating_add(1);
            let jitter = getrandom::u32().unwrap_or(u32::MAX / 2);
            let pause = BACKOFF.pause(failures, jitter);
            self.down(reason.clone());
            self.tell(None);
            if self.wait(pause, &reason).await {
                return;
            }
        }
    }

    fn name(&self) -> &str {
        &self.parts.modem.name
    }

    /// Opens the modem's port; of several one after the other.
    fn open(&self, attempt: usize) -> Result<(SerialPort, PathBuf), String> {
        let candidates = port::candidates(&self.parts.modem.port, &self.parts.roots)?;
        let path = candidates
            .get(attempt % candidates.len().max(1))
            .ok_or_else(|| "no port".to_owned())?;
        Ok((port::open(path, self.parts.modem.baud)?, path.clone()))
    }

    fn down(&self, reason: String) {
        let mut since = now();
        match &*self.parts.link.borrow() {
            Link::Down {
                since: before,
                reason: same,
            } => {
                since = *before;
                if *same == reason {
                    return;
                }
            }
            Link::Starting | Link::Up(_) | Link::Limited { .. } | Link::Faulty { .. } => {}
        }
        warn!(modem = self.name(), reason = reason.as_str(); "The modem cannot be used");
        self.parts.link.send_replace(Link::Down { since, reason });
    }

    /// Waits before the next attempt; meanwhile answers come back at once. True when the gateway stops.
    async fn wait(&mut self, pause: Duration, reason: &str) -> bool {
        let end = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(end) => return false,
                stopped = self.parts.stop.wait_for(|stop| *stop) => { drop(stopped); return true; }
                // Of a connection that is gone.
                Some(_) = self.parts.done.recv() => {}
                Some(job) = self.parts.jobs.recv() => {
                    drop(job.outcome.send(Attempt::NotStarted(reason.to_owned())));
                }
                Some(job) = self.parts.ussd.recv() => {
                    drop(job.answer.send(Err(reason.to_owned())));
                }
            }
        }
    }

    fn elapsed(&self) -> Duration {
        self.parts.started.elapsed()
    }

    /// One connection, from the open port to its end.
    async fn connection(&mut self, port: &SerialPort) -> End {
        let settings = Settings {
            profile: self.parts.modem.profile,
            poll: POLL,
        };
        let mut dialogue = Dialogue::new(settings, self.elapsed());
        let end = self.talk(port, &mut dialogue).await;
        let reason = match &end {
            End::Failed(reason) => reason.as_str(),
            End::Stopped => "the gateway is stopping",
        };
        dialogue.close(reason);
        // The outcome of what was in the modem's hands. Nothing is written any more.
        while let Some(action) = dialogue.next_action() {
            if let Action::Event(event @ (Event::Sent { .. } | Event::Ussd { .. })) = action {
                drop(self.event(&mut dialogue, event).await);
            }
        }
        end
    }

    async fn talk(&mut self, port: &SerialPort, dialogue: &mut Dialogue) -> End {
        let mut buffer = [0; 1024];
        let mut stop = self.parts.stop.clone();
        let mut stop_at: Option<Instant> = None;
        loop {
            while let Some(action) = dialogue.next_action() {
                let done = match action {
                    Action::Write(bytes) => self.write(port, &bytes).await,
                    Action::Event(event) => self.event(dialogue, event).await,
                };
                if let Err(reason) = done {
                    return End::Failed(reason);
                }
            }
            self.judge(dialogue);
            let stopping = stop_at.is_some();
            if stopping
                && self
                    .outgoing
                    .current
                    .as_ref()
                    .is_none_or(|sending| sending.tag.is_none())
            {
                return End::Stopped;
            }
            let far = Instant::now() + Duration::from_secs(3600);
            let deadline = dialogue.deadline().map_or(far, |at| self.parts.started + at);
            let up = matches!(*self.parts.link.borrow(), Link::Up(_));
            let part_at = self.outgoing.due().filter(|_| up && !stopping);
            let obstacle_ends = self.outgoing.obstacle.as_ref().map(|(until, _)| *until);
            tokio::select! {
                read = port.read(&mut buffer) => match read {
                    Ok(0) => return End::Failed("the port is closed: was the modem unplugged?".to_owned()),
                    Ok(count) => {
                        let elapsed = self.elapsed();
                        dialogue.receive(buffer.get(..count).unwrap_or_default(), elapsed);
                    }
                    Err(error) => {
                        let path = self.port.clone().unwrap_or_default();
                        return End::Failed(port::in_words(&path, &error));
                    }
                },
                () = sleep_until(deadline) => dialogue.tick(self.parts.started.elapsed()),
                Some(done) = self.parts.done.recv() => {
                    let elapsed = self.elapsed();
                    match done.source {
                        Source::Stored(place) if done.stored => dialogue.delete(place, elapsed),
                        Source::Stored(place) => dialogue.release(place),
                        Source::Direct if done.stored => dialogue.confirm(elapsed),
                        // Unconfirmed, the network brings it again.
                        Source::Direct => {}
                    }
                }
                Some(job) = self.parts.jobs.recv(), if self.outgoing.current.is_none() && !stopping => {
                    self.outgoing.take(job, &self.parts.modem, &self.parts.records).await;
                    if !up {
                        self.outgoing.give_back("the modem is not ready");
                    }
                }
                () = sleep_until(part_at.unwrap_or(far)), if part_at.is_some() => {
                    if let Some((tag, submit)) = self.outgoing.next(&self.parts.modem, &self.parts.records).await {
                        let elapsed = self.elapsed();
                        dialogue.submit(tag, submit.pdu, submit.tpdu_length, elapsed);
                    }
                }
                () = sleep_until(obstacle_ends.unwrap_or(far)), if obstacle_ends.is_some() => {}
                Some(job) = self.parts.ussd.recv(), if self.ussd.is_none() && !stopping => {
                    self.ussd = Some(job.answer);
                    let code = if dialogue.profile().packs_ussd() { packed(&job.code) } else { job.code };
                    let elapsed = self.elapsed();
                    dialogue.ussd(0, &code, elapsed);
                }
                Ok(()) = self.parts.incomplete.changed() => self.tell(Some(dialogue.state())),
                () = async { drop(stop.wait_for(|stop| *stop).await) }, if !stopping => {
                    stop_at = Some(Instant::now() + STOP_LIMIT);
                }
                () = sleep_until(stop_at.unwrap_or(far)), if stopping => return End::Stopped,
            }
        }
    }

    async fn write(&self, port: &SerialPort, bytes: &[u8]) -> Result<(), String> {
        match timeout(WRITE, port.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(port::in_words(
                self.port.as_deref().unwrap_or(Path::new("")),
                &error,
            )),
            Err(_) => Err("the port takes nothing any more".to_owned()),
        }
    }

    async fn event(&mut self, dialogue: &mut Dialogue, event: Event) -> Result<(), String> {
        match event {
            Event::Ready => {
                self.ready_since.get_or_insert_with(Instant::now);
                let model = dialogue.state().model.clone().unwrap_or_default();
                info!(modem = self.name(), model = model.as_str(), profile = dialogue.profile().name(); "Modem ready");
            }
            Event::Restarted => {
                self.held.clear();
                warn!(modem = self.name(); "The modem has started anew");
            }
            Event::PinNeeded => self.pin(dialogue).await,
            Event::PinRefused(reason) => {
                warn!(modem = self.name(), reason = reason.as_str(); "The SIM refused the PIN: it is not tried again");
                self.remember_pin(true).await;
            }
            Event::SimReady => self.forget_pin().await,
            Event::StateChanged => self.tell(Some(dialogue.state())),
            Event::Received {
                source: Source::Direct,
                pdu,
            } if self
                .outgoing
                .current
                .as_ref()
                .is_some_and(|sending| sending.tag.is_some())
                && self.held.len() < 64 =>
            {
                self.held.push(pdu);
            }
            Event::Received { source, pdu } => self.hand_over(dialogue, source, pdu),
            Event::Deleted { place, freed: true } => {
                // Lost, it costs the recognition of a repeat and nothing else.
                drop(self.parts.tasks.try_send(Task::Freed(place)));
            }
            Event::Deleted { place, freed: false } => {
                warn!(modem = self.name(), index = place.index; "The modem does not delete a message");
            }
            Event::Sent { tag, outcome } => {
                debug!(modem = self.name(); "A part has its outcome");
                let (modem, records) = (&self.parts.modem, &self.parts.records);
                self.outgoing.settled(tag, outcome, modem, records).await;
                for pdu in std::mem::take(&mut self.held) {
                    self.hand_over(dialogue, Source::Direct, pdu);
                }
                self.tell(Some(dialogue.state()));
            }
            Event::LateReference { tag, reference } => {
                self.outgoing.late(tag, reference, &self.parts.records).await;
            }
            Event::Ussd { outcome, .. } => {
                if let Some(answer) = self.ussd.take() {
                    drop(answer.send(outcome.map(|answer| readable(&answer))));
                }
            }
            Event::Lost(reason) => return Err(reason),
        }
        Ok(())
    }

    fn hand_over(&self, dialogue: &mut Dialogue, source: Source, pdu: Vec<u8>) {
        let imsi = dialogue.state().imsi.clone().unwrap_or_default();
        if self
            .parts
            .tasks
            .try_send(Task::Arrived { source, imsi, pdu })
            .is_err()
            && let Source::Stored(place) = source
        {
            // It stays in the modem and comes again.
            dialogue.release(place);
        }
    }

    fn pin_digest(&self) -> Option<[u8; 32]> {
        let pin = self.parts.modem.pin.as_ref()?;
        Some(hash(&[
            &self.parts.records.store.media_secret(),
            pin.expose().as_bytes(),
        ]))
    }

    /// Enters the PIN, once. That it was tried is on record before it is: a SIM takes three wrong ones.
    async fn pin(&mut self, dialogue: &mut Dialogue) {
        let (Some(pin), Some(digest)) = (self.parts.modem.pin.clone(), self.pin_digest()) else {
            dialogue.without_pin(false);
            return;
        };
        match self.parts.records.get::<Pin>(records::PIN.to_vec()).await {
            Ok(Some(tried)) if tried.digest == digest => dialogue.without_pin(true),
            Ok(_) => {
                if self.remember_pin(false).await {
                    let elapsed = self.elapsed();
                    dialogue.enter_pin(pin.expose(), elapsed);
                } else {
                    dialogue.without_pin(false);
                }
            }
            Err(_) => dialogue.without_pin(false),
        }
    }

    async fn remember_pin(&self, refused: bool) -> bool {
        let Some(digest) = self.pin_digest() else {
            return false;
        };
        let written = match put(records::PIN.to_vec(), &Pin { digest, refused }) {
            Ok(note) => self.parts.records.write(vec![note], false).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &written {
            warn!(modem = self.name(), reason = error.to_string().as_str(); "The PIN is not tried: that cannot be recorded");
        }
        written.is_ok()
    }

    /// The SIM is open: a PIN that was tried, and not refused, was right.
    async fn forget_pin(&self) {
        let tried = self.parts.records.get::<Pin>(records::PIN.to_vec()).await;
        if let Ok(Some(Pin { refused: false, .. })) = tried {
            drop(
                self.parts
                    .records
                    .write(vec![remove(records::PIN.to_vec())], false)
                    .await,
            );
        }
    }

    /// Whether messages can go out now, in words.
    fn judge(&mut self, dialogue: &Dialogue) {
        let state = dialogue.state();
        let obstacle = match state.sim {
            Sim::PinNeeded => Some(format!(
                "the SIM wants its PIN: write it to a file and name that with pin_file of the modem, or pass the \
                 credential modem-{}-pin",
                self.name()
            )),
            Sim::PinRefused => Some(
                "the SIM's PIN was refused and is not tried again: correct it, or unlock the SIM in a phone, and start \
                 the service again"
                    .to_owned(),
            ),
            Sim::PukNeeded => Some("the SIM wants its PUK: unlock it in a phone".to_owned()),
            Sim::Absent => Some("there is no SIM in the modem".to_owned()),
            Sim::Unusable => Some("the modem cannot use its SIM".to_owned()),
            Sim::Unknown | Sim::Ready if !dialogue.is_ready() => {
                // Settings that are made again take a second: no reason to call it down.
                if matches!(*self.parts.link.borrow(), Link::Up(_)) && state.registered().is_registered() {
                    return;
                }
                Some(PREPARED.to_owned())
            }
            Sim::Unknown | Sim::Ready if !state.registered().is_registered() => Some(format!(
                "the modem is not in a network ({}): is the antenna connected and the SIM active?",
                state.registered().as_str()
            )),
            Sim::Unknown | Sim::Ready => self.outgoing.obstacle(),
        };
        match obstacle {
            // Said of a modem that was there before; of a new one "starting" says it.
            Some(reason) if reason == PREPARED && *self.parts.link.borrow() == Link::Starting => {}
            Some(reason) => {
                self.outgoing.give_back(&reason);
                self.down(reason);
            }
            None => {
                if !matches!(*self.parts.link.borrow(), Link::Up(_)) {
                    info!(modem = self.name(); "The modem can send");
                    self.parts.link.send_replace(Link::Up(now()));
                }
            }
        }
    }

    fn tell(&self, state: Option<&ModemState>) {
        let mut status = ModemStatus {
            daily_cap: self.parts.modem.daily_cap,
            sent_today: self.outgoing.sent_today(),
            incomplete: *self.parts.incomplete.borrow(),
            port: self.port.as_ref().map(|port| port.display().to_string()),
            ..ModemStatus::default()
        };
        if let Some(state) = state {
            let names = [&state.manufacturer, &state.model].into_iter().flatten();
            let names: Vec<&str> = names.map(String::as_str).collect();
            let sim = match state.sim {
                Sim::Unknown => "unknown",
                Sim::Ready => "ready",
                Sim::PinNeeded => "pin needed",
                Sim::PinRefused => "pin refused",
                Sim::PukNeeded => "puk needed",
                Sim::Absent => "absent",
                Sim::Unusable => "unusable",
            };
            status.model = (!names.is_empty()).then(|| names.join(" "));
            status.imei.clone_from(&state.imei);
            sim.clone_into(&mut status.sim);
            state.registered().as_str().clone_into(&mut status.network);
            status.operator.clone_from(&state.operator);
            status.signal_dbm = state.signal_dbm;
            (status.storage_used, status.storage_total) = state.storage.unzip();
            status.storage_full = state.storage_full;
            status.unreadable = state.unreadable;
        }
        self.parts.status.send_if_modified(|known| {
            let changed = *known != status;
            *known = status;
            changed
        });
    }
}

/// A USSD answer as a person reads it.
fn readable(answer: &UssdAnswer) -> String {
    let octets = data_encoding::HEXUPPER_PERMISSIVE.decode(answer.text.as_bytes());
    let Ok(octets) = octets else {
        return answer.text.clone();
    };
    // 3GPP TS 23.038, section 5: UCS-2 or the GSM alphabet, as hexadecimal digits of octets.
    if matches!(answer.dcs, 17 | 72) {
        let units: Vec<u16> = octets
            .chunks_exact(2)
            .map(|pair| pair.iter().fold(0, |unit, octet| unit << 8 | u16::from(*octet)))
            .collect();
        return String::from_utf16_lossy(&units);
    }
    answer.text.clone()
}

/// A code as packed septets in hexadecimal digits (3GPP TS 23.038, section 6.1.2.3); digits, `*` and `#` have the same
/// number there as in ASCII.
fn packed(code: &str) -> String {
    let (mut bits, mut count, mut octets) = (0_u32, 0_u32, Vec::new());
    for septet in code.bytes() {
        bits |= u32::from(septet & 0x7f) << count;
        count += 7;
        while count >= 8 {
            octets.push(u8::try_from(bits & 0xff).unwrap_or_default());
            bits >>= 8;
            count -= 8;
        }
    }
    if count > 0 {
        // One that would read as `@` is filled with a carriage return.
        let fill = if count == 1 { 0x0d << 1 } else { 0 };
        octets.push(u8::try_from((bits | fill) & 0xff).unwrap_or_default());
    }
    data_encoding::HEXUPPER.encode(&octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huawei_gets_its_codes_packed_and_answers_become_text() {
        assert_eq!(packed("*100#"), "AA180C3602");
        let answer = |text: &str, dcs| {
            readable(&UssdAnswer {
                text: text.to_owned(),
                dcs,
            })
        };
        assert_eq!(answer("00480069", 72), "Hi");
        assert_eq!(answer("EUR 9,50", 15), "EUR 9,50");
    }
}
