//! What is done while a modem is ready: reads, deletions, messages, USSD codes, the regular look.

use std::collections::VecDeque;
use std::time::Duration;

use super::dialogue::{Dialogue, Purpose, Stage};
use super::error::ModemError;
use super::line::fields;
use super::state::Memory;
use super::{Event, Place, SendOutcome, UssdAnswer};

/// Places that wait to be read. More than any memory has; what does not fit is found by the next list.
const MOST_READS: usize = 1024;
/// For commands that touch the SIM.
const SIM: Duration = Duration::from_secs(20);
/// For a list of a full memory.
const LIST: Duration = Duration::from_secs(60);
/// For the network's answer to a USSD code.
const USSD: Duration = Duration::from_secs(60);
/// How often a place is tried that does not read or does not become free.
const ATTEMPTS: u8 = 3;

/// Least time between two beginnings for settings that are not as they were made: a modem may word them differently.
const RENEW: Duration = Duration::from_secs(600);

/// The regular look: signal, network, memory, and whether the modem still reports news.
const LOOKS: [&str; 6] = [
    "AT+CPMS?",
    "AT+CNMI?",
    "AT+CSQ",
    "AT+CREG?",
    "AT+CEREG?",
    "AT+COPS?",
];

/// A message on its way out.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) tag: u64,
    tpdu_length: usize,
    pdu: Vec<u8>,
}

impl Sending {
    /// The PDU as the modem takes it.
    pub(super) fn digits(&self) -> String {
        data_encoding::HEXUPPER.encode(&self.pdu)
    }
}

/// What waits.
#[derive(Debug)]
pub(super) struct Work {
    reads: VecDeque<(Place, u8)>,
    deletes: VecDeque<(Place, u8)>,
    confirms: u32,
    lists: Vec<Memory>,
    looks: VecDeque<&'static str>,
    look_at: Duration,
    /// Entries of the list that is being read.
    pub(super) listed: u16,
    /// Those of them whose octets could not be read.
    pub(super) garbled: u16,
    pub(super) sending: Option<Sending>,
    ussd_code: Option<(u64, String)>,
    ussd_waiting: Option<(u64, Duration)>,
    end_ussd: bool,
    renewed_at: Option<Duration>,
    /// The last command served what comes in: the next one may serve what goes out.
    turn_out: bool,
}

impl Work {
    pub(super) fn new(look_at: Duration) -> Self {
        Self {
            reads: VecDeque::new(),
            deletes: VecDeque::new(),
            confirms: 0,
            lists: Vec::new(),
            looks: VecDeque::new(),
            look_at,
            listed: 0,
            garbled: 0,
            sending: None,
            ussd_code: None,
            ussd_waiting: None,
            end_ussd: false,
            renewed_at: None,
            turn_out: false,
        }
    }

    pub(super) fn looked(&mut self, next: Duration) {
        self.look_at = next;
    }

    pub(super) fn leave_looks(&mut self) {
        self.looks.clear();
    }

    pub(super) fn ussd_deadline(&self) -> Option<Duration> {
        self.ussd_waiting.map(|(_, until)| until)
    }

    /// When the next regular look is due.
    pub(super) fn look_at(&self) -> Option<Duration> {
        self.looks.is_empty().then_some(self.look_at)
    }

    pub(super) fn read(&mut self, place: Place) {
        let known = self.reads.iter().any(|(waiting, _)| *waiting == place);
        if !known && self.reads.len() < MOST_READS {
            self.reads.push_back((place, 0));
        }
    }

    pub(super) fn forget_read(&mut self, place: Place) {
        self.reads.retain(|(waiting, _)| *waiting != place);
    }

    pub(super) fn forget(&mut self) {
        self.reads.clear();
        self.deletes.clear();
        self.confirms = 0;
        self.lists.clear();
        self.looks.clear();
        self.listed = 0;
        self.end_ussd = false;
    }
}

type Command = (String, Purpose, Duration);

impl Dialogue {
    /// Hands over a message: `pdu` begins with the service centre's address, `tpdu_length` counts the octets behind
    /// it. One message at a time; the outcome comes as [`Event::Sent`] with the tag.
    pub fn submit(&mut self, tag: u64, pdu: Vec<u8>, tpdu_length: usize, now: Duration) {
        self.now = self.now.max(now);
        let obstacle = match self.stage {
            Stage::Ready if self.work.sending.is_none() => None,
            Stage::Ready => Some("the modem is sending another message"),
            Stage::Starting => Some("the modem is being prepared"),
            Stage::Lost => Some("the connection to the modem is lost"),
        };
        if let Some(obstacle) = obstacle {
            let outcome = SendOutcome::NotStarted(obstacle.to_owned());
            return self.event(Event::Sent { tag, outcome });
        }
        self.work.sending = Some(Sending {
            tag,
            tpdu_length,
            pdu,
        });
        self.advance();
    }

    /// Frees a place whose message is stored. A place of a time before the modem's last start is left alone: its
    /// index may mean another message now.
    pub fn delete(&mut self, place: Place, now: Duration) {
        self.now = self.now.max(now);
        if place.epoch == self.epoch && self.handed.contains(&(place.memory, place.index)) {
            self.work.deletes.push_back((place, 0));
        }
        self.advance();
    }

    /// Gives back a place whose message could not be stored: it comes again with the next look at the memory.
    pub fn release(&mut self, place: Place) {
        if place.epoch == self.epoch {
            self.handed.remove(&(place.memory, place.index));
        }
    }

    /// Acknowledges a PDU that the modem does not keep.
    pub fn confirm(&mut self, now: Duration) {
        self.now = self.now.max(now);
        // Without phase 2+ the modem has acknowledged it already. One that has just been opened may be in it from before.
        if self.phase2 || self.stage == Stage::Starting {
            self.work.confirms += 1;
        }
        self.advance();
    }

    /// Sends a USSD code as the modem takes it (see [`super::Profile::packs_ussd`]). The answer comes as
    /// [`Event::Ussd`] with the tag.
    pub fn ussd(&mut self, tag: u64, code: &str, now: Duration) {
        self.now = self.now.max(now);
        let obstacle = if self.stage != Stage::Ready {
            Some("the modem is not ready")
        } else if self.work.ussd_code.is_some() || self.work.ussd_waiting.is_some() {
            Some("another code waits for its answer")
        } else if code.is_empty()
            || !code
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"*#+".contains(&byte))
        {
            Some("a code consists of digits, * and #")
        } else {
            None
        };
        match obstacle {
            Some(obstacle) => {
                let outcome = Err(obstacle.to_owned());
                self.event(Event::Ussd { tag, outcome });
            }
            None => self.work.ussd_code = Some((tag, code.to_owned())),
        }
        self.advance();
    }

    /// Looks through the memories for messages.
    pub(super) fn drain(&mut self) {
        let memories = if self.stage == Stage::Starting {
            self.to_drain.clone()
        } else {
            vec![self.primary]
        };
        for memory in memories {
            if !self.work.lists.contains(&memory) {
                self.work.lists.push(memory);
            }
        }
    }

    /// The command that a list needs next.
    pub(super) fn next_list(&mut self) -> Option<Command> {
        let memory = *self.work.lists.first()?;
        if let Some(select) = self.select(memory) {
            return Some(select);
        }
        self.work.lists.remove(0);
        self.work.listed = 0;
        Some(("AT+CMGL=4".to_owned(), Purpose::List(memory), LIST))
    }

    fn select(&self, memory: Memory) -> Option<Command> {
        (self.selected != Some(memory))
            .then(|| (format!("AT+CPMS=\"{memory}\""), Purpose::Select(memory), SIM))
    }

    pub(super) fn next_work(&mut self) -> Option<Command> {
        if self.work.look_at <= self.now {
            self.work.look_at = self.now + self.settings.poll;
            self.work.looks = LOOKS.into();
        }
        if self.work.confirms > 0 {
            self.work.confirms -= 1;
            return Some(("AT+CNMA".to_owned(), Purpose::Confirm, SIM));
        }
        if std::mem::take(&mut self.work.turn_out)
            && let Some(command) = self.next_outgoing()
        {
            return Some(command);
        }
        let command = self.next_incoming();
        self.work.turn_out = command.is_some();
        command.or_else(|| self.next_outgoing()).or_else(|| {
            let look = self.work.looks.pop_front()?;
            Some((look.to_owned(), Purpose::Look, SIM))
        })
    }

    fn next_incoming(&mut self) -> Option<Command> {
        if let Some((place, _)) = self.work.deletes.front().copied() {
            let command = (format!("AT+CMGD={}", place.index), Purpose::Delete(place), SIM);
            return self.select(place.memory).or(Some(command));
        }
        while let Some((place, _)) = self.work.reads.front().copied() {
            if place.epoch == self.epoch && !self.handed.contains(&(place.memory, place.index)) {
                let command = (format!("AT+CMGR={}", place.index), Purpose::Read(place), SIM);
                return self.select(place.memory).or(Some(command));
            }
            self.work.reads.pop_front();
        }
        self.next_list()
    }

    fn next_outgoing(&mut self) -> Option<Command> {
        if let Some(sending) = &self.work.sending {
            let text = format!("AT+CMGS={}", sending.tpdu_length);
            return Some((text, Purpose::Send(sending.tag), SIM));
        }
        if std::mem::take(&mut self.work.end_ussd) {
            return Some(("AT+CUSD=2".to_owned(), Purpose::Look, SIM));
        }
        let (tag, code) = self.work.ussd_code.take()?;
        Some((format!("AT+CUSD=1,\"{code}\",15"), Purpose::Ussd(tag), USSD))
    }

    /// A command of the work has its answer.
    pub(super) fn worked(&mut self, purpose: Purpose, result: Result<(), ModemError>, answered: bool) {
        match (purpose, result) {
            (Purpose::Select(memory), Ok(())) => self.selected = Some(memory),
            (Purpose::Select(memory), Err(_)) => {
                // A memory that cannot be used holds nothing that could be read.
                self.selected = None;
                self.work.lists.retain(|waiting| *waiting != memory);
                self.work.reads.retain(|(place, _)| place.memory != memory);
                self.work.deletes.retain(|(place, _)| place.memory != memory);
            }
            (Purpose::List(memory), Err(error)) => {
                // Text mode refuses the number 4.
                self.begin_again |= error == ModemError::Plain && self.stage == Stage::Ready;
                self.work.lists.retain(|waiting| *waiting != memory);
            }
            (Purpose::List(memory), Ok(())) if memory == self.primary => {
                self.state.storage_full &= self.work.listed > 0;
                self.state.unreadable = self.work.garbled;
            }
            (Purpose::Read(place), result) => {
                let attempts = self.work.reads.front().map_or(0, |(_, attempts)| *attempts);
                self.work.forget_read(place);
                let gone = match result {
                    Ok(()) => answered,
                    Err(error) => error.is_gone(),
                };
                if gone || self.handed.contains(&(place.memory, place.index)) {
                    return;
                }
                // An empty answer, a garbled line, a busy SIM.
                if attempts + 1 < ATTEMPTS {
                    self.work.reads.push_back((place, attempts + 1));
                } else if result.is_ok() {
                    self.state.unreadable = self.state.unreadable.saturating_add(1);
                }
            }
            (Purpose::Delete(place), result) => {
                let attempts = self.work.deletes.pop_front().map_or(0, |(_, attempts)| attempts);
                let freed = result.map_or_else(ModemError::is_gone, |()| true);
                if !freed && attempts + 1 < ATTEMPTS {
                    return self.work.deletes.push_front((place, attempts + 1));
                }
                self.handed.remove(&(place.memory, place.index));
                self.state.storage_full &= !freed;
                self.event(Event::Deleted { place, freed });
            }
            (Purpose::Ussd(tag), Ok(())) => self.work.ussd_waiting = Some((tag, self.now + USSD)),
            (Purpose::Ussd(tag), Err(error)) => {
                let outcome = Err(error.to_string());
                self.event(Event::Ussd { tag, outcome });
            }
            _ => {}
        }
    }

    /// `+CUSD: state,"text",dcs`
    pub(super) fn ussd_answered(&mut self, text: &str) {
        let fields = fields(text);
        let state: u8 = fields
            .first()
            .and_then(|field| field.text.parse().ok())
            .unwrap_or(4);
        let answer = fields.get(1).filter(|field| !field.text.is_empty());
        let outcome = match (state, answer) {
            (0..=2, Some(answer)) => Ok(UssdAnswer {
                text: answer.text.clone(),
                dcs: fields
                    .get(2)
                    .and_then(|field| field.text.parse().ok())
                    .unwrap_or(15),
            }),
            (2, None) => Err("the network ended the session without an answer".to_owned()),
            (3, _) => Err("another program answered it".to_owned()),
            (4, _) => Err("the network does not support this code".to_owned()),
            (5, _) => Err("the network did not answer in time".to_owned()),
            _ => Err("the network gave no text".to_owned()),
        };
        // The network waits for a choice that nobody will make.
        self.work.end_ussd |= state == 1;
        let waiting = self.work.ussd_waiting.take().map(|(tag, _)| tag);
        // Some modems give the answer before OK.
        let tag = waiting.or(match &self.in_flight {
            Some(super::dialogue::InFlight {
                purpose: Purpose::Ussd(tag),
                ..
            }) => Some(*tag),
            _ => None,
        });
        if let Some(tag) = tag {
            if let Some(command) = &mut self.in_flight
                && matches!(command.purpose, Purpose::Ussd(_))
            {
                command.purpose = Purpose::Look;
            }
            self.event(Event::Ussd { tag, outcome });
        }
    }

    pub(super) fn ussd_timed_out(&mut self) {
        if self.work.ussd_waiting.is_some_and(|(_, until)| until <= self.now) {
            self.ussd_failed("the network did not answer in time");
        }
    }

    pub(super) fn ussd_failed(&mut self, reason: &str) {
        let code = self.work.ussd_code.take().map(|(tag, _)| tag);
        let waiting = self.work.ussd_waiting.take().map(|(tag, _)| tag);
        for tag in [code, waiting].into_iter().flatten() {
            let outcome = Err(reason.to_owned());
            self.event(Event::Ussd { tag, outcome });
        }
    }

    pub(super) fn storage_is_full(&mut self) {
        self.state.storage_full = true;
        if self.stage == Stage::Ready {
            self.drain();
        }
    }

    /// `+CPMS: "SM",3,20,…` says how full the memory is; `+CPMS: 3,20,…` likewise after a choice.
    pub(super) fn memory_counted(&mut self, rest: &str) {
        let fields = fields(rest);
        let quoted = fields
            .first()
            .is_some_and(|field| field.quoted && !field.text.starts_with('('));
        let number = |index: usize| fields.get(index)?.text.parse::<u16>().ok();
        let (memory, used, total) = if quoted {
            let memory = fields.first().and_then(|field| Memory::new(&field.text));
            (memory, number(1), number(2))
        } else {
            (Some(self.counted_memory()), number(0), number(1))
        };
        let (Some(memory), Some(used), Some(total)) = (memory, used, total) else {
            return;
        };
        if memory != self.primary {
            if quoted && self.selected == Some(self.primary) {
                // Someone else has chosen another memory.
                self.selected = None;
                if self.stage == Stage::Ready {
                    self.renew();
                }
            }
            return;
        }
        self.state.storage = Some((used, total));
        self.state.storage_full = used >= total && total > 0;
        let waiting = usize::from(used) > self.handed.len();
        if self.stage == Stage::Ready && waiting && (quoted || self.state.storage_full) {
            self.drain();
        }
    }

    /// Makes all settings again, now and then.
    pub(super) fn renew(&mut self) {
        if self.work.renewed_at.is_none_or(|at| at + RENEW <= self.now) {
            self.work.renewed_at = Some(self.now);
            self.begin_again = true;
        }
    }

    fn counted_memory(&self) -> Memory {
        match &self.in_flight {
            Some(super::dialogue::InFlight {
                purpose: Purpose::Select(memory),
                ..
            }) => *memory,
            _ => self.primary,
        }
    }

    /// `+COPS: 0,0,"operator",7`
    pub(super) fn operator(&mut self, rest: &str) {
        let fields = fields(rest);
        if fields.len() <= 4 {
            let name = fields.get(2).filter(|field| !field.text.trim().is_empty());
            self.state.operator = name.map(|field| field.text.trim().to_owned());
        }
    }
}
