//! Messages that came in: handed over, deleted, looked for again.

use std::time::Duration;

use log::debug;
use tokio::time::Instant;

use super::bus::{self, Bus};
use super::calls::{ENABLE, Finished, path};
use super::connection::Connection;
use super::message::{self, Look};
use super::modem::Power;
use super::{MODEM, SIM, SMS};
use crate::driver::sms::intake::{Arrival, Origin, Task};
use crate::protocol::sms::at::Sim;

/// Quiet time after a message before the modem's memory is read again.
const READ_AGAIN: Duration = Duration::from_secs(15);
/// For a deletion, which waits until what is being sent has left.
const DELETE: Duration = Duration::from_secs(180);

/// What is done with a message of `ModemManager`.
pub(super) enum Known {
    /// Parts are missing, since.
    Receiving(Instant),
    /// With the intake, or being deleted.
    Handed,
    /// None of ours.
    Other,
}

/// Whether the modem's memory is being read again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    No,
    Running,
    /// The next look finds what that brought.
    Fresh,
}

impl Connection {
    /// Asks the SIM once for what identifies it.
    pub(super) async fn subscriber(&mut self, bus: &Bus) {
        let Ok(modem) = &self.modem else { return };
        let (Sim::Ready, Some(path), None) = (modem.sim, &modem.sim_path, &self.imsi) else {
            return;
        };
        match bus.properties(path, SIM).await {
            Ok(sim) => {
                let identity = bus::text(&sim, "Imsi").or_else(|| bus::text(&sim, "SimIdentifier"));
                self.imsi = Some(identity.unwrap_or_default());
            }
            Err(error) => {
                debug!(modem = self.edge.name(), reason = error.to_string().as_str(); "The SIM does not say who it is");
            }
        }
    }

    /// Hands over what came in.
    pub(super) async fn messages(&mut self, bus: &Bus) {
        let Ok(modem) = &self.modem else { return };
        let Some(imsi) = self.imsi.clone().filter(|_| modem.power >= Power::On) else {
            return;
        };
        let numbers = modem.messages.clone();
        self.known.retain(|number, _| numbers.contains(number));
        let is_sending = self
            .outgoing
            .current
            .as_ref()
            .is_some_and(|sending| sending.tag.is_some());
        for number in numbers {
            let since = match self.known.get(&number) {
                Some(Known::Handed | Known::Other) => continue,
                Some(Known::Receiving(since)) => Some(*since),
                None => None,
            };
            let properties = match bus.properties(&path(number), SMS).await {
                Ok(properties) => properties,
                Err(error) => {
                    // Deleted in the meantime, or read at the next look.
                    debug!(modem = self.edge.name(), reason = error.to_string().as_str(); "A message cannot be read");
                    continue;
                }
            };
            let limit = self.edge.modem.incomplete_after;
            let give_up = since.is_some_and(|since| since.elapsed() >= limit);
            let known = match message::read(&properties, &imsi, give_up) {
                // Its message has no reference before the answer to what is being sent.
                Look::Arrived(Arrival::Report(_)) if is_sending => continue,
                Look::Arrived(what) => {
                    let origin = Origin::Object {
                        epoch: self.epoch,
                        number,
                    };
                    if self.edge.tasks.try_send(Task::Arrived { origin, what }).is_err() {
                        continue;
                    }
                    self.suspect();
                    Known::Handed
                }
                Look::Receiving => Known::Receiving(match since {
                    Some(since) => since,
                    None if self.reading == Reading::Fresh && !self.receiving_since.is_empty() => {
                        self.receiving_since.remove(0)
                    }
                    None => {
                        self.suspect();
                        Instant::now()
                    }
                }),
                // One that is being made by another program may be looked at too early; ours are deleted soon.
                Look::NotIncoming => Known::Other,
            };
            self.known.insert(number, known);
        }
        if self.reading == Reading::Fresh {
            self.reading = Reading::No;
        }
    }

    /// `ModemManager` was busy with a message: it may have overlooked another one.
    pub(super) fn suspect(&mut self) {
        self.read_again_at = Some(Instant::now() + READ_AGAIN);
    }

    /// `ModemManager` (1.20) overlooks a message that is announced while it reads or deletes another one of a modem with
    /// AT commands. It reads the memory when a modem is switched on, and at no other time.
    pub(super) fn read_again(&mut self, bus: &Bus) {
        let Ok(modem) = &self.modem else { return };
        if !modem.speaks_at {
            self.read_again_at = None;
        }
        let is_time = self.read_again_at.is_some_and(|at| at <= Instant::now());
        let is_idle = self.calls.is_empty()
            && self.outgoing.current.is_none()
            && !self.known.values().any(|known| matches!(known, Known::Handed));
        // Data connections would break off.
        if !is_time || !is_idle || modem.power != Power::On {
            return;
        }
        debug!(modem = self.edge.name(); "Reading the modem's memory again");
        self.read_again_at = None;
        self.reading = Reading::Running;
        let receiving = self.known.values().filter_map(|known| match known {
            Known::Receiving(since) => Some(*since),
            Known::Handed | Known::Other => None,
        });
        self.receiving_since = receiving.collect();
        self.receiving_since.sort_unstable();
        let (bus, path) = (bus.clone(), modem.path.clone());
        self.calls.push(Box::pin(async move {
            let off = bus.call(&path, MODEM, "Enable", &false, ENABLE).await;
            let outcome = match off {
                Ok(_) => bus.call(&path, MODEM, "Enable", &true, ENABLE).await.map(drop),
                Err(error) => Err(error),
            };
            Finished::Enabled(outcome)
        }));
    }

    /// The intake is done with a message.
    pub(super) fn done(&mut self, bus: &Bus, origin: Origin, stored: bool) {
        let Origin::Object { epoch, number } = origin else {
            return;
        };
        // Numbers of before a restart belong to other messages now.
        let Ok(modem) = self.modem.as_ref() else { return };
        if epoch != self.epoch {
            return;
        }
        if !stored {
            self.known.remove(&number);
            return;
        }
        let (bus, modem) = (bus.clone(), modem.path.clone());
        self.calls.push(Box::pin(async move {
            let outcome = bus.delete(&modem, &path(number), DELETE).await;
            Finished::Deleted { origin, outcome }
        }));
    }
}
