//! What the network hands over: `+CMTI`, `+CMT`, `+CDS`, `+CDSI` and `+CNMA` (3GPP TS 27.005, 3.4).

use std::collections::VecDeque;
use std::time::Duration;

use super::super::Profile;
use super::super::answer::Refusal;
use super::super::memory::{Memory, Stat, Stored};
use super::super::options::{Options, SendFault, Sent};
use super::super::pdu::{head, hex};
use super::{Answer, Engine, Reply, Timer};

/// Indications that are kept while `+CNMI` forbids them.
const BUFFERED: usize = 20;
/// From a change that makes room to the network's next attempt.
const SOON: Duration = Duration::from_millis(10);

/// The network and its service centre.
#[derive(Debug)]
pub(super) struct Air {
    /// What waits for the modem, with the service centre's address in front.
    pub(super) waiting: VecDeque<Vec<u8>>,
    /// What was handed over and is not acknowledged.
    awaiting: Option<(u64, Vec<u8>)>,
    acknowledgements: u64,
    buffered: VecDeque<Vec<u8>>,
    pub(super) sent: Vec<Sent>,
    pub(super) refused: Vec<String>,
    pub(super) faults: VecDeque<SendFault>,
    pub(super) fates: VecDeque<Vec<u8>>,
    /// The next TP-MR.
    pub(super) reference: u8,
    full_said: bool,
    next_at: Duration,
    pump_planned: bool,
    pub(super) text_interval: Duration,
}

impl Air {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            waiting: VecDeque::new(),
            awaiting: None,
            acknowledgements: 0,
            buffered: VecDeque::new(),
            sent: Vec::new(),
            refused: Vec::new(),
            faults: VecDeque::new(),
            fates: VecDeque::new(),
            reference: 0,
            full_said: false,
            next_at: Duration::ZERO,
            pump_planned: false,
            text_interval: options.text_interval,
        }
    }
}

/// What became of a message that the network offers.
enum Routed {
    Taken,
    /// Until `+CNMA`.
    Awaiting,
    NotNow,
}

impl Engine {
    /// A message or report comes to the service centre for this modem.
    pub(super) fn arrives(&mut self, pdu: Vec<u8>) {
        self.air.waiting.push_back(pdu);
        self.pump();
    }

    pub(super) fn report_arrives(&mut self, pdu: Vec<u8>) {
        self.arrives(pdu);
    }

    /// Hands over what can be handed over.
    pub(super) fn pump(&mut self) {
        self.air.pump_planned = false;
        let mut place = 0;
        while let Some(pdu) = self.air.waiting.get(place).cloned() {
            let off = matches!(self.state, super::State::Off);
            if off || !self.radio.registration.is_registered() || self.need_card().is_err() {
                return;
            }
            let wait = self.air.next_at.saturating_sub(self.now);
            if !wait.is_zero() {
                return self.plan_pump(wait);
            }
            match self.route(&pdu) {
                Routed::NotNow => {
                    place += 1;
                    continue;
                }
                Routed::Taken => self.counts.taken += 1,
                Routed::Awaiting => {}
            }
            self.air.waiting.remove(place);
            self.air.next_at = self.now + self.air.text_interval;
        }
    }

    fn plan_pump(&mut self, wait: Duration) {
        if !self.air.pump_planned {
            self.air.pump_planned = true;
            self.after(wait, Timer::Pump);
        }
    }

    /// After a deletion or another memory the network tries again (RP-SMMA).
    pub(super) fn space_or_settings_changed(&mut self) {
        if self.memories.has_room(self.memory_for_incoming()) {
            self.air.full_said = false;
        }
        if !self.air.waiting.is_empty() {
            self.plan_pump(SOON);
        }
    }

    fn route(&mut self, pdu: &[u8]) -> Routed {
        let head = head(pdu);
        if head.is_report {
            return self.route_report(pdu);
        }
        // Taken and shown to nobody (3GPP TS 23.040, 9.2.3.9).
        if head.pid == 0x40 {
            return Routed::Taken;
        }
        let [mode, mt, ..] = self.settings.cnmi;
        let flash = head.class == Some(0) && mt >= 1 && self.traits().flash_is_shown;
        let direct = match mt {
            2 => head.class != Some(2),
            3 => head.class == Some(3),
            _ => false,
        };
        if mode != 0 && (direct || flash) {
            return self.hand_over(pdu, "+CMT");
        }
        let memory = if head.class == Some(2) {
            Memory::Sm
        } else {
            self.memory_for_incoming()
        };
        let Some(index) = self.store_incoming(memory, pdu) else {
            if !std::mem::replace(&mut self.air.full_said, true)
                && let Some(line) = self.traits().full
            {
                self.unasked(line.as_bytes(), None);
            }
            return Routed::NotNow;
        };
        if mt >= 1 {
            let push = if head.is_mms && self.options.profile == Profile::Sim800 {
                ",\"MMS PUSH\",2,1"
            } else {
                ""
            };
            self.indicate(format!("+CMTI: \"{}\",{index}{push}", memory.name()).into_bytes());
        }
        Routed::Taken
    }

    fn store_incoming(&mut self, memory: Memory, pdu: &[u8]) -> Option<u32> {
        self.memories.put(
            memory,
            Stored {
                stat: Stat::Unread,
                pdu: pdu.to_vec(),
            },
        )
    }

    fn route_report(&mut self, pdu: &[u8]) -> Routed {
        let [mode, _, _, ds, _] = self.settings.cnmi;
        match ds {
            1 if mode != 0 => self.hand_over(pdu, "+CDS"),
            2 => {
                let memory = if self.memories.by_name("SR").is_some() {
                    Memory::Sr
                } else {
                    self.memory_for_incoming()
                };
                match self.store_incoming(memory, pdu) {
                    Some(index) => {
                        self.indicate(format!("+CDSI: \"{}\",{index}", memory.name()).into_bytes());
                        Routed::Taken
                    }
                    None => Routed::NotNow,
                }
            }
            // Nobody asked for it.
            _ => Routed::Taken,
        }
    }

    /// Shows a message itself. Under `+CSMS=1` the next one waits for the acknowledgement.
    fn hand_over(&mut self, pdu: &[u8], name: &str) -> Routed {
        if self.air.awaiting.is_some() {
            return Routed::NotNow;
        }
        let smsc = pdu.first().map_or(0, |length| usize::from(*length) + 1);
        let length = pdu.len().saturating_sub(smsc);
        if self.settings.text_mode {
            let (line, body) = self.handed_over_as_text(name, pdu);
            self.unasked(&line, body.as_deref());
        } else {
            let line = if name == "+CMT" {
                format!("{name}: {},{length}", self.alpha())
            } else {
                format!("{name}: {length}")
            };
            self.unasked(line.as_bytes(), Some(hex(pdu).as_bytes()));
        }
        if !self.settings.phase_2_plus {
            return Routed::Taken;
        }
        self.air.acknowledgements += 1;
        let id = self.air.acknowledgements;
        self.air.awaiting = Some((id, pdu.to_vec()));
        self.after(self.options.acknowledge_within, Timer::Unacknowledged(id));
        Routed::Awaiting
    }

    pub(super) fn acknowledged(&mut self, accepted: bool) -> Answer {
        if self.air.awaiting.take().is_none() {
            return Err(Refusal::Cms(340));
        }
        if accepted {
            self.counts.acknowledged += 1;
        }
        // A refused message is the network's to give up.
        self.counts.taken += 1;
        self.space_or_settings_changed();
        Ok(Reply::Done)
    }

    /// Nobody acknowledged: the modem hands over nothing any more, the network keeps the message and tries again (3.4.4).
    pub(super) fn unacknowledged(&mut self, id: u64) {
        if let Some((_, pdu)) = self.air.awaiting.take_if(|(waiting, _)| *waiting == id) {
            let [_, mt, _, ds, _] = &mut self.settings.cnmi;
            (*mt, *ds) = (0, 0);
            self.air.waiting.push_front(pdu);
            self.pump();
        }
    }

    /// A restart forgets what was shown; the network does not.
    pub(super) fn take_back_unacknowledged(&mut self) {
        if let Some((_, pdu)) = self.air.awaiting.take() {
            self.air.waiting.push_front(pdu);
        }
        self.air.buffered.clear();
        self.air.pump_planned = false;
    }

    /// Shows an indication, or keeps it until `+CNMI` allows it.
    fn indicate(&mut self, line: Vec<u8>) {
        let [mode, ..] = self.settings.cnmi;
        if mode != 0 {
            return self.unasked(&line, None);
        }
        if self.air.buffered.len() == BUFFERED {
            self.air.buffered.pop_front();
        }
        self.air.buffered.push_back(line);
    }

    /// After a change of `+CNMI`.
    pub(super) fn release_buffered(&mut self) {
        let [mode, _, _, _, clear] = self.settings.cnmi;
        if mode == 0 {
            return;
        }
        for line in std::mem::take(&mut self.air.buffered) {
            if clear == 0 {
                self.unasked(&line, None);
            }
        }
    }
}
