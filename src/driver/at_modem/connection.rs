//! One connection to the modem after another, for as long as the gateway runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use log::{debug, info, warn};
use serial2_tokio::SerialPort;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::port;
use crate::driver::Link;
use crate::driver::sms::edge::{NETWORK_AWAY, PREPARED, sim_in_words};
use crate::driver::sms::intake::{Arrival, Origin, Task};
use crate::driver::sms::outgoing::Outgoing;
use crate::driver::sms::{Edge, ModemStatus, PinState};
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

/// How a connection ended.
enum End {
    Failed(String),
    Stopped,
}

pub(super) struct Connection {
    edge: Edge,
    roots: port::Roots,
    outgoing: Outgoing,
    /// A USSD code on its way.
    ussd: Option<oneshot::Sender<Result<String, String>>>,
    /// Reports that came while a part was in the modem's hands: its reference is not known yet.
    held: Vec<Vec<u8>>,
    port: Option<PathBuf>,
    ready_since: Option<Instant>,
}

impl Connection {
    pub(super) fn new(edge: Edge, roots: port::Roots) -> Self {
        Self {
            edge,
            roots,
            outgoing: Outgoing::new(),
            ussd: None,
            held: Vec::new(),
            port: None,
            ready_since: None,
        }
    }

    /// Connects, works and reconnects until the gateway stops.
    pub(super) async fn run(mut self) {
        self.outgoing.sent = self.edge.sent().await;
        self.work().await;
        self.outgoing.give_back("the gateway is stopping");
        self.edge.close().await;
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
            self.edge.down(reason.clone());
            self.tell(None);
            if self.edge.wait(pause, &reason).await {
                return;
            }
        }
    }

    fn name(&self) -> &str {
        &self.edge.modem.name
    }

    /// Opens the modem's port; of several one after the other.
    fn open(&self, attempt: usize) -> Result<(SerialPort, PathBuf), String> {
        let candidates = port::candidates(&self.edge.modem.port, &self.roots)?;
        let path = candidates
            .get(attempt % candidates.len().max(1))
            .ok_or_else(|| "no port".to_owned())?;
        Ok((port::open(path, self.edge.modem.baud)?, path.clone()))
    }

    fn elapsed(&self) -> Duration {
        self.edge.started.elapsed()
    }

    /// One connection, from the open port to its end.
    async fn connection(&mut self, port: &SerialPort) -> End {
        let settings = Settings {
            profile: self.edge.modem.profile,
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
        let mut stop = self.edge.stop.clone();
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
            let deadline = dialogue.deadline().map_or(far, |at| self.edge.started + at);
            let up = self.edge.is_up();
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
                () = sleep_until(deadline) => dialogue.tick(self.edge.started.elapsed()),
                Some(done) = self.edge.done.recv() => {
                    let elapsed = self.elapsed();
                    match done.origin {
                        Origin::At(Source::Stored(place)) if done.stored => dialogue.delete(place, elapsed),
                        Origin::At(Source::Stored(place)) => dialogue.release(place),
                        Origin::At(Source::Direct) if done.stored => dialogue.confirm(elapsed),
                        // Unconfirmed, the network brings it again.
                        Origin::At(Source::Direct) | Origin::Object { .. } => {}
                    }
                }
                Some(job) = self.edge.jobs.recv(), if self.outgoing.current.is_none() && !stopping => {
                    self.outgoing.take(job, &self.edge.modem, &self.edge.records).await;
                    if !up {
                        self.outgoing.give_back("the modem is not ready");
                    }
                }
                () = sleep_until(part_at.unwrap_or(far)), if part_at.is_some() => {
                    if let Some((tag, submit)) = self.outgoing.next(&self.edge.modem, &self.edge.records).await {
                        let elapsed = self.elapsed();
                        dialogue.submit(tag, submit.pdu, submit.tpdu_length, elapsed);
                    }
                }
                () = sleep_until(obstacle_ends.unwrap_or(far)), if obstacle_ends.is_some() => {}
                Some(job) = self.edge.ussd.recv(), if self.ussd.is_none() && !stopping => {
                    self.ussd = Some(job.answer);
                    let code = if dialogue.profile().packs_ussd() { packed(&job.code) } else { job.code };
                    let elapsed = self.elapsed();
                    dialogue.ussd(0, &code, elapsed);
                }
                Ok(()) = self.edge.incomplete.changed() => self.tell(Some(dialogue.state())),
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
                self.edge.remember_pin(true).await;
            }
            Event::SimReady => self.edge.forget_pin().await,
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
                drop(
                    self.edge
                        .tasks
                        .try_send(Task::Freed(Origin::At(Source::Stored(place)))),
                );
            }
            Event::Deleted { place, freed: false } => {
                warn!(modem = self.name(), index = place.index; "The modem does not delete a message");
            }
            Event::Sent { tag, outcome } => {
                debug!(modem = self.name(); "A part has its outcome");
                let (modem, records) = (&self.edge.modem, &self.edge.records);
                self.outgoing.settled(tag, outcome, modem, records).await;
                for pdu in std::mem::take(&mut self.held) {
                    self.hand_over(dialogue, Source::Direct, pdu);
                }
                self.tell(Some(dialogue.state()));
            }
            Event::LateReference { tag, reference } => {
                self.outgoing.late(tag, reference, &self.edge.records).await;
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
            .edge
            .tasks
            .try_send(Task::Arrived {
                origin: Origin::At(source),
                what: Arrival::Pdu { imsi, pdu },
            })
            .is_err()
            && let Source::Stored(place) = source
        {
            // It stays in the modem and comes again.
            dialogue.release(place);
        }
    }

    async fn pin(&mut self, dialogue: &mut Dialogue) {
        self.edge.card.clone_from(&dialogue.state().iccid);
        match self.edge.pin().await {
            PinState::Enter(pin) => {
                let elapsed = self.elapsed();
                dialogue.enter_pin(pin.expose(), elapsed);
            }
            PinState::Absent => dialogue.without_pin(false),
            PinState::Refused => dialogue.without_pin(true),
        }
    }

    /// Whether messages can go out now, in words.
    fn judge(&mut self, dialogue: &Dialogue) {
        let state = dialogue.state();
        let obstacle = match state.sim {
            Sim::PinNeeded | Sim::PinRefused | Sim::PukNeeded | Sim::Absent | Sim::Unusable => {
                self.edge.sim_obstacle(state.sim)
            }
            Sim::Unknown | Sim::Ready if !dialogue.is_ready() => {
                // Settings that are made again take a second: no reason to call it down.
                if self.edge.is_connected() && state.registered().is_registered() {
                    return;
                }
                Some(PREPARED.to_owned())
            }
            Sim::Unknown | Sim::Ready if !state.registered().is_registered() => Some(format!(
                "the modem is not in a network ({}): {NETWORK_AWAY}",
                state.registered().as_str()
            )),
            Sim::Unknown | Sim::Ready => None,
        };
        match obstacle {
            // Said of a modem that was there before; of a new one "starting" says it.
            Some(reason) if reason == PREPARED && *self.edge.link.borrow() == Link::Starting => {}
            Some(reason) => {
                self.outgoing.give_back(&reason);
                self.edge.down(reason);
            }
            None => match self.outgoing.obstacle() {
                Some(reason) => {
                    self.outgoing.give_back(&reason);
                    self.edge.pause(reason);
                }
                None => self.edge.up(None),
            },
        }
    }

    fn tell(&self, state: Option<&ModemState>) {
        let mut status = ModemStatus {
            daily_cap: self.edge.modem.daily_cap,
            sent_today: self.outgoing.sent_today(),
            incomplete: *self.edge.incomplete.borrow(),
            port: self.port.as_ref().map(|port| port.display().to_string()),
            ..ModemStatus::default()
        };
        if let Some(state) = state {
            let names = [&state.manufacturer, &state.model].into_iter().flatten();
            let names: Vec<&str> = names.map(String::as_str).collect();
            status.model = (!names.is_empty()).then(|| names.join(" "));
            status.imei.clone_from(&state.imei);
            sim_in_words(state.sim).clone_into(&mut status.sim);
            state.registered().as_str().clone_into(&mut status.network);
            status.operator.clone_from(&state.operator);
            status.signal_dbm = state.signal_dbm;
            (status.storage_used, status.storage_total) = state.storage.unzip();
            status.storage_full = state.storage_full;
            status.unreadable = state.unreadable;
        }
        self.edge.tell(status);
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
