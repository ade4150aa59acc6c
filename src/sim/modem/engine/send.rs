//! Sending: the prompt, `+CMGS`, `+CMGW`, `+CMSS`, and what the network does with it (3GPP TS 27.005, 3.5 and 4.3).

use super::super::answer::{INVALID_INDEX, MEMORY_FULL, Refusal};
use super::super::at::Parameters;
use super::super::memory::{Stat, Stored};
use super::super::options::{Place, SendFault, Sent};
use super::super::pdu::{self, PduError, Submit, join, read_submit, unhex};
use super::{Answer, CTRL_Z, ESCAPE, Engine, Later, Reply, State, Timer};

/// Octets of the longest TPDU, and of the shortest one that can be sent.
const TPDU: std::ops::RangeInclusive<u32> = 8..=178;
/// Characters that a prompt takes.
const LONGEST_ENTRY: usize = 1024;
const BAD_PDU: Refusal = Refusal::Cms(304);

/// A prompt that is open.
#[derive(Debug)]
pub(super) struct Prompt {
    purpose: Purpose,
    entry: Vec<u8>,
}

#[derive(Debug)]
enum Purpose {
    Send { length: usize },
    SendText { to: String },
    Store { length: usize, stat: Stat },
    StoreText { to: String, stat: Stat },
    Acknowledge { accepted: bool },
}

impl Purpose {
    fn is_text(&self) -> bool {
        matches!(self, Self::SendText { .. } | Self::StoreText { .. })
    }
}

/// A message between Ctrl-Z and the network's answer.
#[derive(Debug)]
pub(super) struct Outgoing {
    pdu: Vec<u8>,
    submit: Submit,
    answer: &'static str,
    fault: SendFault,
}

impl Engine {
    pub(super) fn open_prompt(&mut self, prompt: Prompt) {
        self.interrupt(Place::BeforePrompt);
        self.state = State::Prompt(prompt);
        if self.air.faults.front() == Some(&SendFault::NoPrompt) {
            self.air.faults.pop_front();
        } else {
            self.write(b"\r\n> ");
        }
    }

    pub(super) fn prompt_byte(&mut self, byte: u8) {
        if self.settings.echo && (0x20..0x7f).contains(&byte) {
            self.write(&[byte]);
        }
        let State::Prompt(prompt) = &mut self.state else {
            return;
        };
        let text = prompt.purpose.is_text();
        match byte {
            ESCAPE => {
                // What was sent so far is forgotten.
                self.state = State::Busy;
                self.pieces.clear();
                self.finish(Ok(()));
            }
            CTRL_Z => {
                if let State::Prompt(prompt) = std::mem::replace(&mut self.state, State::Busy) {
                    self.entered(prompt);
                }
            }
            8 if text => drop(prompt.entry.pop()),
            b'\r' if text => {
                prompt.entry.push(b'\n');
                self.write(b"\r\n> ");
            }
            b'\n' if text => {}
            // The rest of a line that ended with CR and LF.
            b'\r' | b'\n' if prompt.entry.is_empty() => {}
            _ => {
                if prompt.entry.len() < LONGEST_ENTRY {
                    prompt.entry.push(byte);
                }
            }
        }
    }

    fn entered(&mut self, prompt: Prompt) {
        let entry = prompt.entry;
        let result = match prompt.purpose {
            Purpose::Send { length } => self
                .checked(&entry, length)
                .and_then(|(pdu, submit)| self.begin_send(pdu, submit, "+CMGS")),
            Purpose::SendText { to } => self
                .made_from_text(&to, &entry)
                .and_then(|(pdu, submit)| self.begin_send(pdu, submit, "+CMGS")),
            Purpose::Store { length, stat } => self
                .storable(&entry, length, stat)
                .and_then(|pdu| self.store_written(pdu, stat)),
            Purpose::StoreText { to, stat } => self
                .made_from_text(&to, &entry)
                .and_then(|(pdu, _)| self.store_written(pdu, stat)),
            Purpose::Acknowledge { accepted } => self.acknowledged(accepted),
        };
        match result {
            Ok(Reply::Done | Reply::Prompt(_)) => self.finish(Ok(())),
            Ok(Reply::Later(wait, later)) => {
                self.state = State::Busy;
                self.after(wait, Timer::Later(later));
            }
            Err(refusal) => self.finish(Err(refusal)),
        }
    }

    fn refuse(&mut self, error: &PduError) -> Refusal {
        self.counts.refused += 1;
        self.air.refused.push(error.to_string());
        BAD_PDU
    }

    fn checked(&mut self, entry: &[u8], length: usize) -> Result<(Vec<u8>, Submit), Refusal> {
        let text = String::from_utf8_lossy(entry);
        let read = unhex(text.trim_end()).and_then(|pdu| {
            let submit = read_submit(&pdu, length)?;
            Ok((pdu, submit))
        });
        let (pdu, submit) = read.map_err(|error| self.refuse(&error))?;
        if submit.smsc.is_none() && self.options.service_centre.is_empty() {
            return Err(Refusal::Cms(330));
        }
        Ok((pdu, submit))
    }

    /// A stored message may also be one that was received.
    fn storable(&mut self, entry: &[u8], length: usize, stat: Stat) -> Result<Vec<u8>, Refusal> {
        if matches!(stat, Stat::Unsent | Stat::Sent) {
            return self.checked(entry, length).map(|(pdu, _)| pdu);
        }
        let text = String::from_utf8_lossy(entry);
        let read = unhex(text.trim_end()).and_then(|pdu| {
            pdu::read_deliver(&pdu)?;
            Ok(pdu)
        });
        read.map_err(|error| self.refuse(&error))
    }

    /// Makes the PDU of a message in text mode.
    fn made_from_text(&mut self, to: &str, entry: &[u8]) -> Result<(Vec<u8>, Submit), Refusal> {
        let pdu = self.submit_of_text(to, entry).ok_or(Refusal::Cms(305))?;
        let length = pdu.len() - 1;
        let submit = read_submit(&pdu, length).map_err(|error| self.refuse(&error))?;
        Ok((pdu, submit))
    }

    /// `+CMGS`.
    pub(super) fn submit(&mut self, given: &Parameters) -> Answer {
        let purpose = if self.settings.text_mode {
            let to = self.recipient(given, 0)?.ok_or(Refusal::Cms(305))?;
            Purpose::SendText { to }
        } else {
            let length = given.required(0).map_err(|_| BAD_PDU)?;
            if given.len() != 1 || !TPDU.contains(&length) {
                return Err(BAD_PDU);
            }
            Purpose::Send {
                length: usize::try_from(length).map_err(|_| BAD_PDU)?,
            }
        };
        Ok(Reply::Prompt(Prompt {
            purpose,
            entry: Vec::new(),
        }))
    }

    /// A number and its type.
    fn recipient(&self, given: &Parameters, index: usize) -> Result<Option<String>, Refusal> {
        let Some(number) = given.text(index)? else {
            return Ok(None);
        };
        let number = self.out_of_charset(number.as_bytes()).ok_or(Refusal::Cms(305))?;
        let digits = number.trim_start_matches('+');
        let known = |c: char| c.is_ascii_digit() || "*#".contains(c);
        if digits.is_empty() || digits.len() > 20 || !digits.chars().all(known) {
            return Err(Refusal::Cms(305));
        }
        Ok(Some(if given.number(index + 1)? == Some(145) {
            format!("+{digits}")
        } else {
            number
        }))
    }

    /// `+CMGW`.
    pub(super) fn write_message(&mut self, given: &Parameters) -> Answer {
        let purpose = if self.settings.text_mode {
            let stat = match given.loose(2) {
                None => Stat::Unsent,
                Some(words) => Stat::ALL
                    .into_iter()
                    .find(|stat| stat.words().eq_ignore_ascii_case(words))
                    .ok_or(Refusal::Cms(305))?,
            };
            let to = self.recipient(given, 0)?.unwrap_or_else(|| "0".to_owned());
            Purpose::StoreText { to, stat }
        } else {
            let length = given.required(0).map_err(|_| BAD_PDU)?;
            let stat = given.number(1)?.unwrap_or(2);
            let stat = Stat::ALL
                .into_iter()
                .find(|known| usize::try_from(stat) == Ok(known.number()))
                .ok_or(BAD_PDU)?;
            Purpose::Store {
                length: usize::try_from(length).map_err(|_| BAD_PDU)?,
                stat,
            }
        };
        Ok(Reply::Prompt(Prompt {
            purpose,
            entry: Vec::new(),
        }))
    }

    fn store_written(&mut self, pdu: Vec<u8>, stat: Stat) -> Answer {
        let [_, memory, _] = self.settings.memories;
        let index = self
            .memories
            .put(memory, Stored { stat, pdu })
            .ok_or(MEMORY_FULL)?;
        self.say(&format!("+CMGW: {index}"))
    }

    /// `+CMSS`.
    pub(super) fn send_stored(&mut self, given: &Parameters) -> Answer {
        let [_, memory, _] = self.settings.memories;
        let index = given.required(0)?;
        let Some(stored) = self.memories.get(memory, index) else {
            return Err(INVALID_INDEX);
        };
        let (pdu, length) = (stored.pdu.clone(), stored.length());
        // Another recipient than the stored one: simulated nowhere, refused rather than ignored.
        if given.len() > 1 {
            return Err(Refusal::Cms(303));
        }
        let submit = read_submit(&pdu, length).map_err(|error| self.refuse(&error))?;
        if let Some(stored) = self.memories.get_mut(memory, index) {
            stored.stat = Stat::Sent;
        }
        self.begin_send(pdu, submit, "+CMSS")
    }

    fn begin_send(&mut self, pdu: Vec<u8>, submit: Submit, answer: &'static str) -> Answer {
        if !self.radio.registration.is_registered() {
            return Err(Refusal::Cms(331));
        }
        let fault = match self.air.faults.front() {
            None | Some(SendFault::NoPrompt) => SendFault::None,
            Some(_) => self.air.faults.pop_front().unwrap_or(SendFault::None),
        };
        let mut wait = self.options.send_time;
        if let SendFault::Delay(longer) = fault {
            wait += longer;
        }
        Ok(Reply::Later(
            wait,
            Later::Send(Box::new(Outgoing {
                pdu,
                submit,
                answer,
                fault,
            })),
        ))
    }

    pub(super) fn send_ends(&mut self, outgoing: Outgoing) {
        match outgoing.fault {
            SendFault::Cms(code) => self.finish(Err(Refusal::Cms(code))),
            SendFault::Error => self.finish(Err(Refusal::Error)),
            SendFault::Silence { taken } => {
                if taken {
                    self.network_takes(outgoing);
                }
                self.back_to_commands();
            }
            SendFault::Restart { taken } => {
                if taken {
                    self.network_takes(outgoing);
                }
                self.restart();
            }
            SendFault::None | SendFault::NoPrompt | SendFault::Delay(_) => {
                let answer = outgoing.answer;
                let reference = self.network_takes(outgoing);
                self.info(&format!("{answer}: {reference}"));
                self.finish(Ok(()));
            }
        }
    }

    /// Returns the TP-MR.
    fn network_takes(&mut self, outgoing: Outgoing) -> u8 {
        let Outgoing { pdu, submit, .. } = outgoing;
        let reference = self.air.reference;
        self.air.reference = reference.wrapping_add(1);
        let text = join(&[&submit.body]);
        let fate = self
            .air
            .fates
            .pop_front()
            .unwrap_or_else(|| self.options.fate.clone());
        if submit.wants_report {
            let accepted = self.wall_time();
            let mut wait = std::time::Duration::ZERO;
            for status in fate {
                wait += self.options.report_after;
                let report = pdu::Report {
                    reference,
                    to: submit.to.clone(),
                    at: (accepted, accepted + wait),
                    status,
                };
                let pdu = report.pdu(&self.options.service_centre);
                self.after(wait, Timer::Report(pdu));
            }
        }
        self.air.sent.push(Sent {
            at: self.now,
            reference,
            to: submit.to,
            pdu,
            wants_report: submit.wants_report,
            class: submit.class,
            dcs: submit.dcs,
            part: submit.part,
            body: submit.body,
            text,
        });
        reference
    }

    /// `+CNMA`.
    pub(super) fn acknowledge(&mut self, given: &Parameters) -> Answer {
        let how = given.number(0)?.unwrap_or(0);
        if how > 2 {
            return Err(Refusal::Cms(303));
        }
        let accepted = how != 2;
        if given.number(1)?.is_some_and(|length| length > 0) {
            return Ok(Reply::Prompt(Prompt {
                purpose: Purpose::Acknowledge { accepted },
                entry: Vec::new(),
            }));
        }
        self.acknowledged(accepted)
    }
}
