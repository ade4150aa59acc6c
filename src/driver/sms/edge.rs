//! What a connection to a modem works with, whatever it speaks.

use std::time::Duration;

use log::{info, warn};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::intake::{Done, Task};
use super::records::{self, Pin, Records, Sent, hash, put, remove};
use super::{ModemStatus, UssdJob};
use crate::config::Modem;
use crate::domain::{Attempt, Secret};
use crate::driver::{Link, OutgoingJob, now};
use crate::protocol::sms::at::Sim;

pub(in crate::driver) const PREPARED: &str = "the modem is being prepared";
/// What to look at when a modem is in no network.
pub(in crate::driver) const NETWORK_AWAY: &str = "is the antenna connected and the SIM active?";

/// The gateway's side of one modem.
pub(in crate::driver) struct Edge {
    pub(in crate::driver) modem: Modem,
    pub(in crate::driver) records: Records,
    /// To the intake.
    pub(in crate::driver) tasks: mpsc::Sender<Task>,
    /// And back.
    pub(in crate::driver) done: mpsc::Receiver<Done>,
    /// Messages that wait for parts.
    pub(in crate::driver) incomplete: watch::Receiver<usize>,
    pub(in crate::driver) jobs: mpsc::Receiver<OutgoingJob>,
    pub(in crate::driver) ussd: mpsc::Receiver<UssdJob>,
    /// The SIM's own number (ICCID), where the modem tells it before the PIN.
    pub(in crate::driver) card: Option<String>,
    pub(in crate::driver) link: watch::Sender<Link>,
    pub(in crate::driver) status: watch::Sender<ModemStatus>,
    pub(in crate::driver) started: Instant,
    pub(in crate::driver) stop: watch::Receiver<bool>,
}

/// What to do about a SIM that wants its PIN.
pub(in crate::driver) enum PinState {
    /// Enter it; that it is tried is on record.
    Enter(Secret),
    /// There is none, or nothing can be recorded.
    Absent,
    /// It was tried before.
    Refused,
}

impl Edge {
    pub(in crate::driver) fn name(&self) -> &str {
        &self.modem.name
    }

    /// What was sent today, from before the start.
    pub(in crate::driver) async fn sent(&self) -> Sent {
        match self.records.get::<Sent>(records::SENT.to_vec()).await {
            Ok(sent) => sent.unwrap_or_default(),
            Err(error) => {
                warn!(modem = self.name(), reason = error.to_string().as_str(); "The count of the day cannot be read");
                Sent::default()
            }
        }
    }

    /// The gateway stops: what still waits for its turn has not left it.
    pub(in crate::driver) async fn close(mut self) {
        self.jobs.close();
        while let Some(job) = self.jobs.recv().await {
            let reason = "the gateway is stopping".to_owned();
            drop(job.outcome.send(Attempt::NotStarted(reason)));
        }
    }

    pub(in crate::driver) fn is_up(&self) -> bool {
        matches!(*self.link.borrow(), Link::Up(_) | Link::Limited { .. })
    }

    #[cfg(feature = "modem-manager")]
    pub(in crate::driver) fn is_starting(&self) -> bool {
        *self.link.borrow() == Link::Starting
    }

    /// `limits`: what can be lost with this modem.
    pub(in crate::driver) fn up(&self, limits: Option<&str>) {
        if !self.is_up() {
            info!(modem = self.name(); "The modem can send");
            let since = now();
            self.link.send_replace(match limits {
                Some(limits) => Link::Limited {
                    since,
                    note: limits.to_owned(),
                },
                None => Link::Up(since),
            });
        }
    }

    /// Whether the modem works, be it that nothing goes out at the moment.
    pub(in crate::driver) fn is_connected(&self) -> bool {
        self.is_up() || matches!(*self.link.borrow(), Link::Paused { .. })
    }

    /// Nothing goes out for a while; what comes in does.
    pub(in crate::driver) fn pause(&self, reason: String) {
        if let Link::Paused { reason: same, .. } = &*self.link.borrow()
            && *same == reason
        {
            return;
        }
        warn!(modem = self.name(), reason = reason.as_str(); "Sending is paused");
        let since = now();
        self.link.send_replace(Link::Paused { since, reason });
    }

    pub(in crate::driver) fn down(&self, reason: String) {
        let mut since = now();
        if let Link::Down {
            since: before,
            reason: same,
        } = &*self.link.borrow()
        {
            since = *before;
            if *same == reason {
                return;
            }
        }
        warn!(modem = self.name(), reason = reason.as_str(); "The modem cannot be used");
        self.link.send_replace(Link::Down { since, reason });
    }

    /// Waits before the next attempt; meanwhile answers come back at once. True when the gateway stops.
    pub(in crate::driver) async fn wait(&mut self, pause: Duration, reason: &str) -> bool {
        let end = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(end) => return false,
                stopped = self.stop.wait_for(|stop| *stop) => { drop(stopped); return true; }
                // Of a connection that is gone.
                Some(_) = self.done.recv() => {}
                Some(job) = self.jobs.recv() => {
                    drop(job.outcome.send(Attempt::NotStarted(reason.to_owned())));
                }
                Some(job) = self.ussd.recv() => {
                    drop(job.answer.send(Err(reason.to_owned())));
                }
            }
        }
    }

    pub(in crate::driver) fn tell(&self, status: ModemStatus) {
        self.status.send_if_modified(|known| {
            let changed = *known != status;
            *known = status;
            changed
        });
    }

    /// Why nothing can be sent with a SIM in this state.
    pub(in crate::driver) fn sim_obstacle(&self, sim: Sim) -> Option<String> {
        Some(match sim {
            Sim::Unknown | Sim::Ready => return None,
            Sim::PinNeeded if self.modem.pin.is_some() => "the SIM's PIN is being entered".to_owned(),
            Sim::PinNeeded => format!(
                "the SIM wants its PIN: write it to a file and name that with pin_file of the modem, or pass the \
                 credential modem-{}-pin; then start the service again",
                self.name()
            ),
            Sim::PinRefused => {
                "the SIM's PIN was refused and is not tried again: correct it, or unlock the SIM in a phone, and start \
                 the service again"
                    .to_owned()
            }
            Sim::PukNeeded => "the SIM wants its PUK: unlock it in a phone".to_owned(),
            Sim::Absent => "there is no SIM in the modem".to_owned(),
            Sim::Unusable => "the modem cannot use its SIM".to_owned(),
        })
    }

    fn pin_digest(&self) -> Option<[u8; 32]> {
        let pin = self.modem.pin.as_ref()?;
        Some(hash(&[
            &self.records.store.media_secret(),
            pin.expose().as_bytes(),
        ]))
    }

    /// Whether the PIN may be entered, once. That it was tried is on record before it is: a SIM takes three wrong ones.
    pub(in crate::driver) async fn pin(&self) -> PinState {
        let (Some(pin), Some(digest)) = (self.modem.pin.clone(), self.pin_digest()) else {
            return PinState::Absent;
        };
        match self.records.get::<Pin>(records::PIN.to_vec()).await {
            Ok(Some(tried)) if tried.digest == digest && !self.is_another_card().await => PinState::Refused,
            Ok(_) if self.remember_pin(false).await => PinState::Enter(pin),
            Ok(_) | Err(_) => PinState::Absent,
        }
    }

    fn card_hash(&self) -> Option<[u8; 32]> {
        let card = self.card.as_ref()?;
        Some(hash(&[&self.records.store.media_secret(), card.as_bytes()]))
    }

    /// Whether the PIN was tried on another SIM than the one that is in the modem. Only where both are known.
    async fn is_another_card(&self) -> bool {
        let tried = self.records.get::<[u8; 32]>(records::CARD.to_vec()).await;
        matches!((tried, self.card_hash()), (Ok(Some(tried)), Some(present)) if tried != present)
    }

    pub(in crate::driver) async fn remember_pin(&self, refused: bool) -> bool {
        let Some(digest) = self.pin_digest() else {
            return false;
        };
        let notes: Result<Vec<_>, _> = [
            put(records::PIN.to_vec(), &Pin { digest, refused }),
            self.card_hash().map_or_else(
                || Ok(remove(records::CARD.to_vec())),
                |card| put(records::CARD.to_vec(), &card),
            ),
        ]
        .into_iter()
        .collect();
        let written = match notes {
            Ok(notes) => self.records.write(notes, false).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &written {
            warn!(modem = self.name(), reason = error.to_string().as_str(); "The PIN is not tried: that cannot be recorded");
        }
        written.is_ok()
    }

    /// The SIM is open: a PIN that was tried, and not refused, was right.
    pub(in crate::driver) async fn forget_pin(&self) {
        let tried = self.records.get::<Pin>(records::PIN.to_vec()).await;
        if let Ok(Some(Pin { refused: false, .. })) = tried {
            drop(
                self.records
                    .write(vec![remove(records::PIN.to_vec())], false)
                    .await,
            );
        }
    }
}

/// A SIM's state in a word or two.
pub(in crate::driver) const fn sim_in_words(sim: Sim) -> &'static str {
    match sim {
        Sim::Unknown => "unknown",
        Sim::Ready => "ready",
        Sim::PinNeeded => "pin needed",
        Sim::PinRefused => "pin refused",
        Sim::PukNeeded => "puk needed",
        Sim::Absent => "absent",
        Sim::Unusable => "unusable",
    }
}
