//! What a line means at this place of the dialogue.

use super::dialogue::{Dialogue, InFlight, Purpose, Stage};
use super::line::{self, HeaderKind, Line};
use super::startup::Step;
use super::{Event, Place, Source};
use std::time::Duration;

/// Headers that wait for their PDU; more are a broken stream.
const MOST_HEADERS: usize = 4;
/// Longest answer in several lines, in bytes.
const LONGEST_TEXT: usize = 1024;
/// For `OK` behind the SIM's state, which some modems leave out.
const REST_OF_ANSWER: Duration = Duration::from_secs(3);
/// For the rest of an answer in several lines.
const REST_OF_TEXT: Duration = Duration::from_secs(2);

impl Dialogue {
    pub(super) fn line(&mut self, text: &str) {
        if let Some((open, _)) = &mut self.ussd_text {
            open.push('\n');
            open.push_str(text);
            if text.matches('"').count() % 2 == 1 || open.len() > LONGEST_TEXT {
                let (text, _) = self.ussd_text.take().unwrap_or_default();
                self.ussd_answered(&text);
            }
            return;
        }
        if let Some(command) = &mut self.in_flight {
            let is_payload = command.written.as_deref() == Some(text);
            if is_payload || command.text == text {
                command.echoed = true;
                // A modem that had learned not to echo has started anew and forgotten everything.
                self.begin_again |= self.echo_is_off && self.stage == Stage::Ready;
                return;
            }
        }
        if !self.headers.is_empty()
            && let Some(octets) = line::octets(text)
        {
            return self.pdu(octets);
        }
        match line::read(text) {
            Line::Ok => self.finish(Ok(())),
            Line::Error(error) => self.finish(Err(error)),
            Line::Started => self.restarted(),
            Line::PartReady => {
                if self.stage == Stage::Starting {
                    // What was refused a moment ago may work now.
                    self.wait_until = self.wait_until.map(|_| self.now);
                } else {
                    self.begin_again = true;
                }
            }
            Line::SimChanged | Line::TextMode => self.begin_again = true,
            Line::Stored { memory, index } => {
                let place = Place {
                    memory,
                    index,
                    epoch: self.epoch,
                };
                self.work.read(place);
            }
            Line::Header(header) => {
                if self.headers.len() < MOST_HEADERS {
                    self.headers.push(header);
                }
            }
            Line::Registration {
                lte: false,
                registered,
            } => self.state.gsm = registered,
            Line::Registration {
                lte: true,
                registered,
            } => self.state.lte = registered,
            Line::Signal(code) => self.state.signal(code),
            Line::StorageFull => self.storage_is_full(),
            Line::Reference(reference) => match &mut self.in_flight {
                Some(InFlight {
                    written: Some(_),
                    reference: known,
                    ..
                }) => *known = Some(reference),
                _ => {
                    if let Some(tag) = self.late.take() {
                        self.event(Event::LateReference { tag, reference });
                    }
                }
            },
            Line::Ussd(text) => {
                if text.matches('"').count() % 2 == 1 {
                    self.ussd_text = Some((text, self.now + REST_OF_TEXT));
                } else {
                    self.ussd_answered(&text);
                }
            }
            Line::Named { name, rest } => self.named(&name, rest, text),
            Line::Text(text) => {
                if let Some(command) = &mut self.in_flight
                    && matches!(
                        command.purpose,
                        Purpose::Step(
                            Step::Manufacturer
                                | Step::Model
                                | Step::Revision
                                | Step::Imei
                                | Step::Imsi
                                | Step::Card
                        )
                    )
                {
                    command.answer.get_or_insert(text);
                }
            }
        }
    }

    fn named(&mut self, name: &str, rest: String, whole: &str) {
        match name {
            "+CPMS" => self.memory_counted(&rest),
            "+COPS" => self.operator(&rest),
            "+CNMI" if self.stage == Stage::Ready => {
                // Some modems word the rest of it in their own way.
                let kinds = |text: &str| {
                    let fields = line::fields(text);
                    let field = |place: usize| fields.get(place).map(|field| field.text.clone());
                    (field(0).is_some_and(|mode| mode != "0"), field(1), field(3))
                };
                if self.news.is_some_and(|news| kinds(news) != kinds(&rest)) {
                    self.renew();
                }
            }
            _ => {}
        }
        let soon = self.now + REST_OF_ANSWER;
        let Some(InFlight {
            purpose: Purpose::Step(step),
            answer,
            until,
            ..
        }) = &mut self.in_flight
        else {
            return;
        };
        let is_answer = match step {
            Step::Sim => name == "+CPIN",
            Step::CardFile => name == "+CRSM",
            Step::Card => name == "+CCID",
            Step::Functionality => name == "+CFUN",
            Step::Memories => name == "+CPMS",
            Step::Imei => name == "+CGSN",
            Step::Imsi => name == "+CIMI",
            Step::Manufacturer => name == "+CGMI",
            Step::Model => name == "+CGMM",
            Step::Revision => {
                if !name.starts_with(['+', '^', '*']) {
                    answer.get_or_insert(whole.to_owned());
                }
                name == "+CGMR"
            }
            _ => false,
        };
        if is_answer {
            if *step == Step::Sim {
                *until = soon.min(*until);
            }
            answer.get_or_insert(rest);
        }
    }

    /// A line of octets belongs to the header whose length it has, else to the last one.
    fn pdu(&mut self, octets: Vec<u8>) {
        let tpdu = octets
            .first()
            .map(|smsc| octets.len().saturating_sub(1 + usize::from(*smsc)));
        let fitting = self
            .headers
            .iter()
            .rposition(|header| header.length.is_some() && header.length == tpdu);
        let place = fitting.unwrap_or(self.headers.len().saturating_sub(1));
        if place >= self.headers.len() {
            return;
        }
        let header = self.headers.remove(place);
        match header.kind {
            HeaderKind::Message | HeaderKind::Report => {
                self.event(Event::Received {
                    source: Source::Direct,
                    pdu: octets,
                });
            }
            HeaderKind::Read { incoming } => {
                if let Some(InFlight {
                    purpose: Purpose::Read(place),
                    answer,
                    ..
                }) = &mut self.in_flight
                {
                    let place = *place;
                    answer.get_or_insert_with(String::new);
                    if incoming {
                        self.hand_over(place, octets);
                    }
                }
            }
            HeaderKind::Listed { index, incoming } => {
                if let Some(InFlight {
                    purpose: Purpose::List(memory),
                    ..
                }) = &self.in_flight
                {
                    let place = Place {
                        memory: *memory,
                        index,
                        epoch: self.epoch,
                    };
                    self.work.listed = self.work.listed.saturating_add(1);
                    if incoming {
                        self.hand_over(place, octets);
                    }
                }
            }
        }
    }

    fn hand_over(&mut self, place: Place, pdu: Vec<u8>) {
        self.work.forget_read(place);
        if self.handed.insert((place.memory, place.index)) {
            self.event(Event::Received {
                source: Source::Stored(place),
                pdu,
            });
        }
    }
}
