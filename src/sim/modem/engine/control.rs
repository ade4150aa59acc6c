//! The other side: the network, the card and the cable, as a test or a demo moves them. What is said here happens at the
//! time of the last call with a time.

use std::time::Duration;

use jiff::Timestamp;

use super::super::memory::{Stat, Stored};
use super::super::options::{Counts, Interruption, Place, Registration, SendFault, Sent, Shown};
use super::super::pdu::{Text, join};
use super::{Engine, State};

impl Engine {
    /// The wall time that timestamps carry.
    #[must_use]
    pub fn wall_time(&self) -> Timestamp {
        self.options.epoch + self.now
    }

    /// The service centre's number.
    #[must_use]
    pub fn service_centre(&self) -> &str {
        &self.options.service_centre
    }

    /// Somebody writes to the modem; long texts come in parts, in order.
    pub fn text(&mut self, text: &Text) {
        for pdu in text.pdus(&self.options.service_centre) {
            self.arrives(pdu);
        }
    }

    /// A PDU comes from the network: SMS-DELIVER or SMS-STATUS-REPORT with the service centre's address in front. It is
    /// not checked: networks pass on nonsense as well.
    pub fn pdu(&mut self, pdu: Vec<u8>) {
        self.arrives(pdu);
    }

    /// What the network took so far, in order.
    #[must_use]
    pub fn sent(&self) -> &[Sent] {
        &self.air.sent
    }

    /// What the recipients' phones show.
    #[must_use]
    pub fn shown(&self) -> Vec<Shown> {
        let mut groups: Vec<Vec<&Sent>> = Vec::new();
        for sent in &self.air.sent {
            let same = |other: &&Sent| match (sent.part, other.part) {
                (Some(one), Some(two)) => {
                    sent.to == other.to
                        && (one.reference, one.wide, one.total) == (two.reference, two.wide, two.total)
                        && one.number != two.number
                }
                _ => false,
            };
            match groups.iter_mut().rev().find(|group| group.iter().all(same)) {
                Some(group) => group.push(sent),
                None => groups.push(vec![sent]),
            }
        }
        groups
            .into_iter()
            .map(|mut parts| {
                parts.sort_by_key(|sent| sent.part.map_or(1, |part| part.number));
                let bodies: Vec<_> = parts.iter().map(|sent| &sent.body).collect();
                let total = parts
                    .first()
                    .and_then(|sent| sent.part)
                    .map_or(1, |part| usize::from(part.total));
                Shown {
                    to: parts.first().map(|sent| sent.to.clone()).unwrap_or_default(),
                    text: join(&bodies),
                    references: parts.iter().map(|sent| sent.reference).collect(),
                    complete: parts.len() == total,
                }
            })
            .collect()
    }

    /// Why PDUs were refused, in order.
    #[must_use]
    pub fn refused(&self) -> &[String] {
        &self.air.refused
    }

    /// The last command lines, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.remembered.iter().map(String::as_str)
    }

    /// How often a wrong PIN was given.
    #[must_use]
    pub fn wrong_pins(&self) -> usize {
        self.card.wrong_pins
    }

    /// The messages in the memory for incoming ones, as octets.
    #[must_use]
    pub fn stored(&self) -> Vec<Vec<u8>> {
        let memory = self.memory_for_incoming();
        let list = self.memories.list(memory);
        list.into_iter().map(|(_, stored)| stored.pdu).collect()
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            sent: self.air.sent.len(),
            waiting: self.air.waiting.len(),
            stored: self.memories.usage(self.memory_for_incoming()).0,
            ready: !matches!(self.state, State::Off) && self.card.ready,
            registered: self.radio.registration.is_registered(),
            ..self.counts
        }
    }

    /// What happens to the next message; further calls are for those after it.
    pub fn next_send(&mut self, fault: SendFault) {
        self.air.faults.push_back(fault);
    }

    /// What the reports of the next part say, one after the other; further calls are for the parts after it. Nothing
    /// means that no report comes.
    pub fn next_fate(&mut self, statuses: Vec<u8>) {
        self.air.fates.push_back(statuses);
    }

    /// What the reports of all others say.
    pub fn fate(&mut self, statuses: Vec<u8>) {
        self.options.fate = statuses;
    }

    /// The TP-MR that the next message gets.
    pub fn next_reference(&mut self, reference: u8) {
        self.air.reference = reference;
    }

    /// From the network's answer to a delivery report.
    pub fn report_after(&mut self, wait: Duration) {
        self.options.report_after = wait;
    }

    /// From Ctrl-Z to the network's answer.
    pub fn send_time(&mut self, wait: Duration) {
        self.options.send_time = wait;
    }

    /// Lets something come in between at the next such place. They come in the order of these calls.
    pub fn interrupt_next(&mut self, place: Place, what: Interruption) {
        self.interruptions.push_back((place, what));
    }

    /// Interruptions that have not come yet.
    #[must_use]
    pub fn interruptions(&self) -> usize {
        self.interruptions.len()
    }

    /// Says a line unasked.
    pub fn say_unasked(&mut self, line: &str) {
        self.unasked(line.as_bytes(), None);
    }

    /// What the network says of the modem from now on.
    pub fn network(&mut self, registration: Registration) {
        self.radio.wanted = registration;
        if self.radio.function == 1 && self.card.ready && self.card.state().is_ok() {
            self.set_registration(registration);
            self.pump();
        }
    }

    /// Signal, 0 to 31.
    pub fn signal(&mut self, signal: u8) {
        self.radio.signal = signal;
    }

    /// What the network answers to a USSD code.
    pub fn ussd_answer(&mut self, code: &str, text: &str) {
        self.radio.ussd.insert(code.to_owned(), text.to_owned());
    }

    /// Delays every answer.
    pub fn slow(&mut self, wait: Duration) {
        self.slow = wait;
    }

    /// Neither hears nor says anything for a while.
    pub fn deaf(&mut self, how_long: Duration) {
        self.deaf_until = self.now + how_long;
    }

    /// Fills the memory for incoming messages with old ones that were read. Returns how many it took.
    pub fn fill(&mut self) -> usize {
        let memory = self.memory_for_incoming();
        let mut filled = 0;
        while self.memories.has_room(memory) {
            let text = Text::new("+4915550000", &format!("old message {filled}"), self.wall_time());
            let pdu = text.pdus(&self.options.service_centre).swap_remove(0);
            let stat = Stat::Read;
            self.memories.put(memory, Stored { stat, pdu });
            filled += 1;
        }
        filled
    }

    /// The modem restarts at once, whatever it is doing.
    pub fn restart_now(&mut self) {
        self.restart();
    }

    /// It loses its power.
    pub fn power_off(&mut self) {
        self.boot();
        // Nothing starts before the power is back; reports come from the network.
        self.timers
            .retain(|_, timer| matches!(timer, super::Timer::Report(_)));
        self.output.clear();
    }

    /// It has power again and starts.
    pub fn power_on(&mut self) {
        if matches!(self.state, State::Off) {
            self.restart();
        }
    }
}
