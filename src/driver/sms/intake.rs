//! What comes in: read, joined, handed to the store; the modem may forget it only then.

use std::collections::HashMap;
use std::time::Duration;

use log::{debug, info, warn};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::records::{self, Hash, KeptPart, Records, Reference, Seen, hash, identity, put, remove};
use crate::domain::{
    Address, ChannelId, DedupKey, DeviceStatus, ReceivedMessage, Route, StatusReport, StatusTarget,
    Timestamp, Unmapped,
};
use crate::driver::{DriverEvent, Stored, now};
use crate::protocol::sms::at::Source;
use crate::protocol::sms::pdu::Kind;
use crate::protocol::sms::{
    self, Assembler, Deliver, Home, Incoming, Peer, Received, ReportOutcome, Step, decode_incoming,
    decode_tpdu,
};
use crate::store::StoreError;

/// An equal PDU that comes later than this is the network's repeat of a message whose acknowledgement it did not get;
/// its timers are longer. What comes sooner with the same second in its stamp is a second message.
const REPEAT_AFTER: Duration = Duration::from_secs(30);
/// Pause before something is offered to the store again.
const REFUSED: Duration = Duration::from_secs(5);
/// How long equal PDUs are recognised, and reports find their message.
const REMEMBER: Duration = Duration::from_secs(31 * 86_400);
/// How often what is too old is forgotten.
const PRUNE: Duration = Duration::from_secs(86_400);

/// Where a message lies until the modem may forget it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::driver) enum Origin {
    /// A modem with AT commands.
    At(Source),
    /// An object of ModemManager; its numbers begin anew with each start of that program.
    Object { epoch: u32, number: u32 },
}

/// What came.
pub(in crate::driver) enum Arrival {
    /// A PDU, with the subscriber that it came to.
    Pdu { imsi: String, pdu: Vec<u8> },
    /// A message that is joined and decoded already, with one token: what identifies it.
    Message(Box<Received<Hash>>),
    /// A report that is decoded already.
    Report(Box<sms::StatusReport>),
}

/// What the connection hands over.
pub(in crate::driver) enum Task {
    /// Something came.
    Arrived { origin: Origin, what: Arrival },
    /// A message is deleted in the modem.
    Freed(Origin),
}

/// What the connection may do now.
pub(in crate::driver) struct Done {
    pub(in crate::driver) origin: Origin,
    /// Whether the message is stored; else the modem keeps it.
    pub(in crate::driver) stored: bool,
}

/// What the assembler knows a part by.
type Token = Hash;

pub(in crate::driver) struct Intake {
    pub(in crate::driver) name: String,
    pub(in crate::driver) channel: ChannelId,
    pub(in crate::driver) home: Home,
    pub(in crate::driver) records: Records,
    pub(in crate::driver) events: mpsc::Sender<DriverEvent>,
    pub(in crate::driver) tasks: mpsc::Receiver<Task>,
    pub(in crate::driver) done: mpsc::Sender<Done>,
    pub(in crate::driver) assembler: Assembler<Token>,
    pub(in crate::driver) started: Instant,
    /// Stored messages whose place is not free yet.
    pub(in crate::driver) freeing: HashMap<Origin, (Hash, u32)>,
    /// How many messages wait for parts, for the status.
    pub(in crate::driver) waiting: tokio::sync::watch::Sender<usize>,
}

/// Why nothing can be handed over any more.
struct Stopped;

impl Intake {
    /// Works until the connection is gone for good.
    pub(in crate::driver) async fn run(mut self) {
        // Ends early when nobody listens any more: the gateway is stopping.
        drop(self.work().await);
    }

    async fn work(&mut self) -> Result<(), Stopped> {
        self.restore().await?;
        let mut prune_at = Instant::now();
        loop {
            self.waiting.send_replace(self.assembler.waiting());
            let expiry = self.assembler.next_expiry().map(|at| self.started + at);
            tokio::select! {
                task = self.tasks.recv() => match task {
                    None => return Ok(()),
                    Some(Task::Freed(origin)) => self.freed(origin).await,
                    Some(Task::Arrived { origin, what }) => {
                        let stored = match what {
                            Arrival::Pdu { imsi, pdu } => self.arrived(origin, &imsi, pdu).await?,
                            Arrival::Message(received) => self.whole(origin, &received).await?,
                            Arrival::Report(report) => self.reported(&report).await?,
                        };
                        self.done.send(Done { origin, stored }).await.map_err(|_| Stopped)?;
                    }
                },
                () = sleep_until(expiry.unwrap_or(self.started)), if expiry.is_some() => {
                    for received in self.assembler.expire(self.started.elapsed()) {
                        info!(modem = self.name.as_str(), missing = received.missing.len(), parts = received.total;
                            "A message stays incomplete");
                        self.joined(received).await?;
                    }
                }
                () = sleep_until(prune_at) => {
                    prune_at = Instant::now() + PRUNE;
                    let before = now().plus_ms(-milliseconds(REMEMBER)).unix_ms();
                    self.said(self.records.prune(before).await);
                }
            }
        }
    }

    /// A store that fails stops the daemon by itself; here it is only said.
    fn said(&self, outcome: Result<(), StoreError>) {
        if let Err(error) = outcome {
            warn!(modem = self.name.as_str(), reason = error.to_string().as_str(); "The modem's records were not written");
        }
    }

    /// Parts from before a restart.
    async fn restore(&mut self) -> Result<(), Stopped> {
        let mut kept = match self.records.all::<KeptPart>(b'x').await {
            Ok(kept) => kept,
            Err(error) => {
                self.said(Err(error));
                Vec::new()
            }
        };
        kept.sort_by_key(|(_, part)| part.at);
        if !kept.is_empty() {
            info!(modem = self.name.as_str(), parts = kept.len(); "Parts of messages from before the start");
        }
        for (key, part) in kept {
            let token: Option<Token> = key.get(1..).and_then(|hash| hash.try_into().ok());
            let (Some(token), Ok(Incoming::Deliver(deliver))) = (token, decode(&part.pdu)) else {
                continue;
            };
            if let Step::Complete(received) = self.assembler.receive(*deliver, token, self.started.elapsed())
            {
                self.joined(received).await?;
            }
        }
        Ok(())
    }

    /// Takes a PDU. True when the modem may forget it.
    async fn arrived(&mut self, origin: Origin, imsi: &str, pdu: Vec<u8>) -> Result<bool, Stopped> {
        let token = identity(imsi, &pdu);
        match decode(&pdu) {
            Ok(Incoming::StatusReport(report)) => self.reported(&report).await,
            Ok(Incoming::Deliver(deliver)) => {
                if let Kind::Silent(_) = deliver.kind {
                    debug!(modem = self.name.as_str(); "A message that is not for people");
                    return Ok(true);
                }
                if deliver.part.is_some() {
                    self.part(*deliver, token, pdu).await
                } else {
                    self.single(origin, *deliver, token).await
                }
            }
            Err(error) => self.unreadable(origin, token, &pdu, &error).await,
        }
    }

    /// A part is ours as soon as it is kept; the modem's places are few.
    async fn part(&mut self, deliver: Deliver, token: Token, pdu: Vec<u8>) -> Result<bool, Stopped> {
        let kept = self.records.get::<KeptPart>(records::part(&token)).await;
        let seen = self.records.get::<Seen>(records::seen(&token)).await;
        match (kept, seen) {
            (Ok(None), Ok(None)) => {}
            (Ok(_), Ok(_)) => return Ok(true),
            _ => return Ok(false),
        }
        let part = KeptPart {
            at: now().unix_ms(),
            pdu,
        };
        if let Err(error) = self.records.keep(records::part(&token), &part, true).await {
            self.said(Err(error));
            return Ok(false);
        }
        match self.assembler.receive(deliver, token, self.started.elapsed()) {
            Step::Complete(received) => self.joined(received).await?,
            Step::Waiting { missing } => debug!(modem = self.name.as_str(), missing; "A part of a message"),
            // The same part in another coat, such as another service centre.
            Step::Repeated(token) => self.said(
                self.records
                    .write(vec![remove(records::part(&token))], false)
                    .await,
            ),
        }
        Ok(true)
    }

    /// Hands over what came of the parts of a message, until the store takes it: the modem no longer has it.
    async fn joined(&mut self, received: Received<Token>) -> Result<(), Stopped> {
        let mut tokens = received.tokens.clone();
        tokens.sort_unstable();
        let tokens: Vec<&[u8]> = tokens.iter().map(<[u8; 16]>::as_slice).collect();
        let dedup = hash(&tokens);
        while self.offer(&received, dedup).await? == Stored::Refused {
            sleep(REFUSED).await;
        }
        let seen = Seen {
            at: now().unix_ms(),
            serial: 0,
        };
        let mut notes = Vec::new();
        for token in &received.tokens {
            notes.push(remove(records::part(token)));
            notes.extend(put(records::seen(token), &seen));
        }
        self.said(self.records.write(notes, false).await);
        Ok(())
    }

    async fn single(&mut self, origin: Origin, deliver: Deliver, token: Token) -> Result<bool, Stopped> {
        match self.assembler.receive(deliver, token, self.started.elapsed()) {
            Step::Complete(received) => self.whole(origin, &received).await,
            Step::Waiting { .. } | Step::Repeated(_) => Ok(true),
        }
    }

    /// A message that came in one piece.
    async fn whole(&mut self, origin: Origin, received: &Received<Token>) -> Result<bool, Stopped> {
        let Some(token) = received.tokens.first().copied() else {
            return Ok(true);
        };
        let Some(serial) = self.serial(token, received.sent_at.is_some()).await else {
            return Ok(true);
        };
        let dedup = hash(&[&token, &serial.to_be_bytes()]);
        let stored = self.offer(received, dedup).await? == Stored::Acknowledge;
        if stored {
            self.stored(origin, token, serial).await;
        }
        Ok(stored)
    }

    /// How many equal PDUs were messages of their own before this one; `None` when it is none.
    async fn serial(&self, token: Token, has_time: bool) -> Option<u32> {
        let seen = self
            .records
            .get::<Seen>(records::seen(&token))
            .await
            .ok()
            .flatten();
        let Some(seen) = seen else { return Some(0) };
        let age = now().unix_ms().saturating_sub(seen.at);
        if has_time && age > milliseconds(REPEAT_AFTER) {
            info!(modem = self.name.as_str(); "The network has sent a message again that is stored");
            return None;
        }
        Some(seen.serial.saturating_add(1))
    }

    /// Remembers a stored message: now, or when its place is free.
    async fn stored(&mut self, origin: Origin, token: Token, serial: u32) {
        match origin {
            Origin::At(Source::Direct) => self.remember(token, serial).await,
            // Until it is deleted the same octets are the same message: the store knows them.
            Origin::At(Source::Stored(_)) | Origin::Object { .. } => {
                self.freeing.insert(origin, (token, serial));
                if self.freeing.len() > 4096 {
                    self.freeing.clear();
                }
            }
        }
    }

    async fn freed(&mut self, origin: Origin) {
        if let Some((token, serial)) = self.freeing.remove(&origin) {
            self.remember(token, serial).await;
        }
    }

    async fn remember(&self, token: Token, serial: u32) {
        let seen = Seen {
            at: now().unix_ms(),
            serial,
        };
        self.said(self.records.keep(records::seen(&token), &seen, false).await);
    }

    fn address(&self, from: Option<&sms::PduAddress>) -> Option<Address> {
        let peer = from.map_or(Peer::Unknown, |from| self.home.peer(from));
        Address::new(peer.as_str()).or_else(|| Address::new("unknown"))
    }

    async fn offer(&self, received: &Received<Token>, dedup: [u8; 32]) -> Result<Stored, Stopped> {
        self.message(Some(&received.from), received.text(), received.sent_at, dedup)
            .await
    }

    async fn message(
        &self,
        from: Option<&sms::PduAddress>,
        text: String,
        sent_at: Option<Timestamp>,
        dedup: [u8; 32],
    ) -> Result<Stored, Stopped> {
        let Some(from) = self.address(from) else {
            return Ok(Stored::Acknowledge);
        };
        let message = ReceivedMessage {
            channel: self.channel.clone(),
            from,
            from_name: None,
            group: None,
            text,
            device_time: sent_at,
            received_at: now(),
            dedup: Some(DedupKey::Hash(dedup)),
            route: Route::new(),
            attachments: Vec::new(),
        };
        let message = Box::new(message);
        self.send(|stored| DriverEvent::Received { message, stored })
            .await
    }

    async fn send(
        &self,
        event: impl FnOnce(oneshot::Sender<Stored>) -> DriverEvent,
    ) -> Result<Stored, Stopped> {
        let (stored, answer) = oneshot::channel();
        self.events.send(event(stored)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Kept raw, shown, and delivered as a message that says so.
    async fn unreadable(
        &mut self,
        origin: Origin,
        token: Token,
        pdu: &[u8],
        error: &sms::PduError,
    ) -> Result<bool, Stopped> {
        let Some(serial) = self.serial(token, true).await else {
            return Ok(true);
        };
        let digits = data_encoding::HEXUPPER.encode(pdu);
        let record = Box::new(Unmapped {
            device: self.name.clone(),
            source: "SMS".to_owned(),
            payload: digits.clone().into_bytes(),
            reason: error.to_string(),
            received_at: now(),
        });
        if self
            .send(|stored| DriverEvent::Unmapped { record, stored })
            .await?
            == Stored::Refused
        {
            return Ok(false);
        }
        let text = format!("(a text message came that cannot be read: {error}; its octets: {digits})");
        let dedup = hash(&[&token, &serial.to_be_bytes()]);
        let stored = self.message(error.from.as_deref(), text, None, dedup).await? == Stored::Acknowledge;
        if stored {
            self.stored(origin, token, serial).await;
        }
        Ok(stored)
    }

    /// What became of a part that was sent.
    async fn reported(&mut self, report: &sms::StatusReport) -> Result<bool, Stopped> {
        let recipient = self.home.peer(&report.recipient);
        let (by_reference, by_attempt) = (
            records::reference(report.reference, recipient.as_str()),
            records::attempt(recipient.as_str()),
        );
        let found = match self.records.get::<Reference>(by_reference.clone()).await {
            // The answer with the reference was lost: a part of one message to this recipient is known to be open.
            Ok(None) => match self.records.get::<Reference>(by_attempt.clone()).await {
                Ok(Some(open)) if open.total == 1 => Ok(Some((open, by_attempt))),
                Ok(_) => Ok(None),
                Err(error) => Err(error),
            },
            Ok(Some(known)) => Ok(Some((known, by_reference))),
            Err(error) => Err(error),
        };
        let (reference, key) = match found {
            Ok(Some(found)) => found,
            Ok(None) => {
                info!(modem = self.name.as_str(), reference = report.reference; "A report on a message that nobody knows");
                return Ok(true);
            }
            Err(_) => return Ok(false),
        };
        let age = now().unix_ms().saturating_sub(reference.at);
        if age > milliseconds(REMEMBER) || age < -milliseconds(Duration::from_secs(3600)) {
            return Ok(true);
        }
        let message = reference.message();
        let mut notes = Vec::new();
        let status = match report.outcome {
            ReportOutcome::Pending(_) => return Ok(true),
            // It says neither that it arrived nor that it did not.
            ReportOutcome::Unconfirmed(_) => None,
            ReportOutcome::Failed(_) => Some(DeviceStatus::Failed(if reference.total > 1 {
                format!(
                    "part {} of {}: {}",
                    reference.part,
                    reference.total,
                    report.outcome.as_str()
                )
            } else {
                report.outcome.as_str().to_owned()
            })),
            ReportOutcome::Delivered if reference.total <= 1 => Some(DeviceStatus::Delivered),
            ReportOutcome::Delivered => {
                let key = records::delivered(message);
                let Ok(known) = self.records.get::<Vec<u8>>(key.clone()).await else {
                    return Ok(false);
                };
                let mut parts = known.unwrap_or_default();
                if !parts.contains(&reference.part) {
                    parts.push(reference.part);
                }
                let all = parts.len() >= usize::from(reference.total);
                notes.extend(if all { Ok(remove(key)) } else { put(key, &parts) });
                all.then_some(DeviceStatus::Delivered)
            }
        };
        if let Some(status) = status {
            let report = Box::new(StatusReport {
                channel: self.channel.clone(),
                of: StatusTarget::Id(message),
                status,
            });
            if self.send(|stored| DriverEvent::Status { report, stored }).await? == Stored::Refused {
                return Ok(false);
            }
        }
        notes.push(remove(key));
        self.said(self.records.write(notes, false).await);
        Ok(true)
    }
}

/// A PDU as most modems hand it over, or without the service centre's address as some do with status reports.
fn decode(pdu: &[u8]) -> Result<Incoming, sms::PduError> {
    decode_incoming(pdu).or_else(|error| match decode_tpdu(pdu) {
        Ok(report @ Incoming::StatusReport(_)) => Ok(report),
        _ => Err(error),
    })
}

pub(in crate::driver) fn milliseconds(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
