//! One outgoing message at a time: its parts, its attempts, its outcome.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::records::{self, Progress, Records, Reference, Sent, put, remove};
use crate::config::{Modem, ModemPort};
use crate::domain::{Attempt, MessageId};
use crate::driver::{OutgoingJob, now};
use crate::protocol::sms::at::{ModemError, SendOutcome};
use crate::protocol::sms::{self, Submit, SubmitOptions, charset, encode, encode_submit};
use crate::store::{Note, StoreError};

/// Attempts of a part that fails for a reason that passes, before the message is given up.
const ATTEMPTS: u32 = 5;
/// Pause after the first of them; it doubles.
const PAUSE: Duration = Duration::from_secs(5);
/// How long nothing is sent while the modem or the network cannot send anything.
const OBSTACLE: Duration = Duration::from_secs(60);
const DAY: i64 = 86_400_000;

/// A message on its way.
pub(in crate::driver) struct Sending {
    id: MessageId,
    pub(in crate::driver) recipient: String,
    /// As it leaves, for a modem that cuts it into parts itself.
    pub(in crate::driver) text: String,
    parts: Vec<Submit>,
    /// Parts that leave at once: one, or all where the modem cuts them.
    pub(in crate::driver) step: usize,
    /// The part that is next, from 0.
    next: usize,
    attempts: u32,
    /// The part is in the modem's hands; with this tag.
    pub(in crate::driver) tag: Option<u64>,
    outcome: oneshot::Sender<Attempt>,
}

/// What goes out, and what holds it up.
pub(in crate::driver) struct Outgoing {
    pub(in crate::driver) current: Option<Sending>,
    /// Earliest time for the next part.
    pub(in crate::driver) not_before: Instant,
    /// Nothing can be sent until then, and why.
    pub(in crate::driver) obstacle: Option<(Instant, String)>,
    pub(in crate::driver) sent: Sent,
    tag: u64,
    late: Option<(u64, String, Reference)>,
}

impl Outgoing {
    pub(in crate::driver) fn new() -> Self {
        Self {
            current: None,
            not_before: Instant::now(),
            obstacle: None,
            sent: Sent::default(),
            tag: 0,
            late: None,
        }
    }

    /// Takes a message over, or answers at once.
    pub(in crate::driver) async fn take(&mut self, job: OutgoingJob, modem: &Modem, records: &Records) {
        let peer = modem.home.recipient(job.message.to.as_str());
        let Some(address) = peer.as_ref().and_then(sms::Peer::to_pdu) else {
            let reason = "an SMS can be sent to a number only: this sender cannot be answered".to_owned();
            drop(job.outcome.send(Attempt::Rejected(reason)));
            return;
        };
        let id = job.message.id;
        let cuts_itself = matches!(modem.port, ModemPort::Manager { .. });
        let options = SubmitOptions {
            languages: if cuts_itself {
                Vec::new()
            } else {
                modem.languages.clone()
            },
            transliterate: modem.transliterate,
            max_parts: modem.max_parts,
            // The same at each attempt, so that parts of two attempts still make one message.
            reference: sms::Reference::Narrow(u8::try_from(id.sequence.0 & 0xff).unwrap_or_default()),
            validity: modem.validity,
            report: modem.reports,
            flash: false,
        };
        let parts = match encode_submit(&job.message.text, &address, &options) {
            Ok(parts) => parts,
            Err(error) => {
                drop(job.outcome.send(Attempt::Rejected(error.to_string())));
                return;
            }
        };
        let mut text = job.message.text;
        if cuts_itself && encode::plan(&text, &options).transliterated {
            text = charset::transliterate(&text);
        }
        let next = match left_already(id, parts.len(), records).await {
            Ok(next) => next,
            Err(error) => {
                let reason = format!("how far the message has come cannot be read: {error}");
                drop(job.outcome.send(Attempt::NotStarted(reason)));
                return;
            }
        };
        self.current = Some(Sending {
            id,
            recipient: peer.map(|peer| peer.as_str().to_owned()).unwrap_or_default(),
            text,
            step: if cuts_itself { parts.len() } else { 1 },
            parts,
            next,
            attempts: 0,
            tag: None,
            outcome: job.outcome,
        });
    }

    /// When the next part may leave; `None` when there is none or it has left.
    pub(in crate::driver) fn due(&self) -> Option<Instant> {
        self.current
            .as_ref()
            .filter(|sending| sending.tag.is_none())
            .map(|_| self.not_before)
    }

    /// Records the next part and gives it, with its tag.
    pub(in crate::driver) async fn next(
        &mut self,
        modem: &Modem,
        records: &Records,
    ) -> Option<(u64, Submit)> {
        let at = now().unix_ms();
        if self.sent.day != at.div_euclid(DAY) {
            self.sent = Sent {
                day: at.div_euclid(DAY),
                parts: 0,
            };
        }
        if self.sent.parts >= modem.daily_cap {
            let left = DAY - at.rem_euclid(DAY);
            let left = Duration::from_millis(u64::try_from(left).unwrap_or_default());
            let reason = format!(
                "the daily cap of {} parts is reached: the rest goes out after midnight UTC; daily_cap of the modem \
                 raises it",
                modem.daily_cap
            );
            self.hold(left, reason);
            return None;
        }
        let sending = self.current.as_mut()?;
        let submit = sending
            .parts
            .get(sending.next + sending.step.saturating_sub(1))?
            .clone();
        let step = u32::try_from(sending.step).unwrap_or(1);
        // Of parts that leave at once only the last one's report is asked for.
        let is_whole = sending.step > 1;
        let reference = Reference {
            at,
            conversation: sending.id.conversation.0,
            sequence: sending.id.sequence.0,
            part: if is_whole { 1 } else { submit.number },
            total: if is_whole { 1 } else { submit.total },
        };
        self.sent.parts += step;
        let notes = [
            put(records::attempt(&sending.recipient), &reference),
            put(records::SENT.to_vec(), &self.sent),
        ];
        let written = match notes.into_iter().collect() {
            Ok(notes) => records.write(notes, false).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            self.hold(OBSTACLE, format!("the attempt cannot be recorded: {error}"));
            return None;
        }
        self.tag += 1;
        sending.tag = Some(self.tag);
        self.late = Some((self.tag, sending.recipient.clone(), reference));
        self.not_before = Instant::now() + modem.pacing.saturating_mul(step);
        Some((self.tag, submit))
    }

    /// The outcome of a part.
    pub(in crate::driver) async fn settled(
        &mut self,
        tag: u64,
        outcome: SendOutcome,
        modem: &Modem,
        records: &Records,
    ) {
        let Some(sending) = self.current.as_mut().filter(|sending| sending.tag == Some(tag)) else {
            return;
        };
        sending.tag = None;
        let attempt = records::attempt(&sending.recipient);
        match outcome {
            SendOutcome::Accepted(reference) => {
                let known = self.late.take().map(|(_, _, reference)| reference);
                let mut notes = vec![remove(attempt)];
                if let (Some(number), Some(known)) = (reference, known.filter(|_| modem.reports)) {
                    notes.extend(put(records::reference(number, &sending.recipient), &known));
                }
                sending.next += sending.step;
                sending.attempts = 0;
                notes.extend(sending.progress());
                said(records.write(notes, false).await);
                if sending.next >= sending.parts.len() {
                    self.finish(Attempt::Sent);
                }
            }
            SendOutcome::Unknown(reason) => {
                // Its attempt stays on record: a report may still tell.
                let reason = sending.of_part(&reason);
                self.finish(Attempt::Unknown(reason));
            }
            SendOutcome::NotStarted(reason) => {
                self.taken_back(records).await;
                self.put_off(reason);
            }
            SendOutcome::Refused(error) => {
                self.taken_back(records).await;
                self.refused(error);
            }
        }
    }

    fn refused(&mut self, error: ModemError) {
        let Some(sending) = &mut self.current else { return };
        sending.attempts += 1;
        // Of these nobody knows whether the message or the moment is to blame.
        let is_vague = matches!(
            error,
            ModemError::Plain | ModemError::Cms(17 | 21 | 22 | 500) | ModemError::Cme(_)
        );
        if error.requires_pause() {
            self.hold(OBSTACLE, error.to_string());
        } else if error.is_permanent() || (is_vague && sending.attempts >= ATTEMPTS) {
            let reason = sending.of_part(&error.to_string());
            self.finish(Attempt::Rejected(reason));
        } else if sending.attempts >= ATTEMPTS {
            self.hold(OBSTACLE, error.to_string());
        } else {
            let pause = PAUSE.saturating_mul(1 << sending.attempts.saturating_sub(1).min(4));
            self.not_before = Instant::now() + pause;
        }
    }

    /// The part did not leave: it counts neither for the cap nor for reports.
    async fn taken_back(&mut self, records: &Records) {
        self.late = None;
        let Some(sending) = &self.current else { return };
        let step = u32::try_from(sending.step).unwrap_or(1);
        self.sent.parts = self.sent.parts.saturating_sub(step);
        let mut notes = vec![remove(records::attempt(&sending.recipient))];
        notes.extend(put(records::SENT.to_vec(), &self.sent));
        said(records.write(notes, false).await);
    }

    /// Gives the message back to the queue and sends nothing for a while.
    fn hold(&mut self, pause: Duration, reason: String) {
        self.obstacle = Some((Instant::now() + pause, reason.clone()));
        self.put_off(reason);
    }

    /// Gives the message back to the queue; what has left of it is not sent again.
    fn put_off(&mut self, reason: String) {
        self.finish(Attempt::NotStarted(reason));
    }

    fn finish(&mut self, attempt: Attempt) {
        if let Some(sending) = self.current.take() {
            // Nobody waits for it when the gateway stops; then the start tells.
            drop(sending.outcome.send(attempt));
        }
    }

    /// A message whose first part has not been given to the modem goes back.
    pub(in crate::driver) fn give_back(&mut self, reason: &str) {
        if self.due().is_some() {
            self.put_off(reason.to_owned());
        }
    }

    /// The reference of a part whose outcome was unknown.
    pub(in crate::driver) async fn late(&mut self, tag: u64, number: u8, records: &Records) {
        if let Some((_, recipient, reference)) = self.late.take_if(|(known, _, _)| *known == tag) {
            let mut notes = vec![remove(records::attempt(&recipient))];
            notes.extend(put(records::reference(number, &recipient), &reference));
            said(records.write(notes, false).await);
        }
    }

    /// Parts sent since midnight (UTC).
    pub(in crate::driver) fn sent_today(&self) -> u32 {
        let is_today = self.sent.day == now().unix_ms().div_euclid(DAY);
        if is_today { self.sent.parts } else { 0 }
    }

    /// Why nothing goes out at the moment.
    pub(in crate::driver) fn obstacle(&mut self) -> Option<String> {
        self.obstacle.take_if(|(until, _)| *until <= Instant::now());
        self.obstacle.as_ref().map(|(_, reason)| reason.clone())
    }
}

impl Sending {
    /// The record of the parts that have left; none of a message that is one part, and none when all have.
    fn progress(&self) -> Option<Note> {
        let (left, total) = (
            u8::try_from(self.next).ok()?,
            u8::try_from(self.parts.len()).ok()?,
        );
        let at = now().unix_ms();
        match total {
            0 | 1 => None,
            _ if left >= total => Some(remove(records::progress(self.id))),
            _ => put(records::progress(self.id), &Progress { at, left, total }).ok(),
        }
    }

    fn of_part(&self, reason: &str) -> String {
        let total = self.parts.len();
        match (self.next, total) {
            (_, 0 | 1) => reason.to_owned(),
            _ if self.step > 1 => format!("one of its {total} parts: {reason}"),
            (0, _) => format!("part 1 of {total}: {reason}"),
            (sent, _) => format!(
                "part {} of {total}: {reason}; the parts before it were sent",
                sent + 1
            ),
        }
    }
}

/// How many parts of a message have left in an earlier attempt, before something came in between or the gateway ended:
/// they do not leave again. Parts that are cut in another way now begin anew.
async fn left_already(id: MessageId, parts: usize, records: &Records) -> Result<usize, StoreError> {
    if parts < 2 {
        return Ok(0);
    }
    let known: Option<Progress> = records.get(records::progress(id)).await?;
    Ok(known.map_or(0, |progress| {
        let fits = usize::from(progress.total) == parts && progress.left < progress.total;
        usize::from(progress.left) * usize::from(fits)
    }))
}

fn said(outcome: Result<(), StoreError>) {
    if let Err(error) = outcome {
        log::warn!(reason = error.to_string().as_str(); "The modem's records were not written");
    }
}
