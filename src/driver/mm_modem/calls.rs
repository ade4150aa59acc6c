//! What takes `ModemManager` its time: sending, unlocking, asking the network.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::bus::{self, Bus, CallError, NewMessage, QUICK};
use super::{SIM, SMS, USSD, failure};
use crate::domain::Secret;
use crate::driver::sms::intake::Origin;
use crate::protocol::sms::at::SendOutcome;

/// For a modem to be switched on.
pub(super) const ENABLE: Duration = Duration::from_secs(120);
/// For a part to be sent: `ModemManager` waits 60 s for the network's answer.
const SEND_PART: Duration = Duration::from_secs(70);
/// For the network's answer to a USSD code.
const USSD_LIMIT: Duration = Duration::from_secs(120);

/// A call that took its time.
pub(super) enum Finished {
    Sent {
        tag: u64,
        outcome: SendOutcome,
    },
    Ussd(Result<String, CallError>),
    Enabled(Result<(), CallError>),
    Unlocked(Result<(), CallError>),
    Deleted {
        origin: Origin,
        outcome: Result<(), CallError>,
    },
}

pub(super) type Call = Pin<Box<dyn Future<Output = Finished> + Send>>;

/// The path of a message's object.
pub(super) fn path(number: u32) -> String {
    format!("/org/freedesktop/ModemManager1/SMS/{number}")
}

/// A message on its way out.
pub(super) struct Order {
    pub(super) number: String,
    pub(super) text: String,
    pub(super) report: bool,
    pub(super) validity: Option<Duration>,
    pub(super) parts: usize,
}

impl Order {
    pub(super) async fn send(self, bus: &Bus, modem: &str) -> SendOutcome {
        let minutes = |span: Duration| u32::try_from(span.as_secs().div_ceil(60)).unwrap_or(u32::MAX);
        let message = NewMessage {
            number: &self.number,
            text: &self.text,
            report: self.report,
            validity: self.validity.map(minutes),
        };
        let path = match bus.create(modem, &message).await {
            Ok(path) => path,
            Err(error) => return failure::not_created(&error),
        };
        let parts = u32::try_from(self.parts).unwrap_or(u32::MAX);
        let limit = SEND_PART.saturating_mul(parts.saturating_add(1));
        let outcome = match bus.call(&path, SMS, "Send", &(), limit).await {
            Ok(_) => {
                let sent = bus.properties(&path, SMS).await.unwrap_or_default();
                let reference = bus::number(&sent, "MessageReference");
                SendOutcome::Accepted(reference.and_then(|number| u8::try_from(number).ok()))
            }
            Err(error) => failure::not_sent(&error, self.parts),
        };
        // It is of no use any more; one that stays does no harm.
        drop(bus.delete(modem, &path, QUICK).await);
        outcome
    }
}

pub(super) async fn unlock(bus: Bus, sim: String, pin: Secret) -> Finished {
    let unlocked = bus.call(&sim, SIM, "SendPin", &pin.expose(), ENABLE).await;
    Finished::Unlocked(unlocked.map(drop))
}

/// Sends a USSD code and gives the network's first answer.
pub(super) async fn ask(bus: Bus, modem: String, code: String) -> Finished {
    /// The network asks back (`MMModem3gppUssdSessionState`).
    const ASKS_BACK: u32 = 3;
    let answer = bus.call(&modem, USSD, "Initiate", &code, USSD_LIMIT).await;
    let answer = answer.and_then(|answer| Ok(answer.body().deserialize::<String>()?));
    let state = bus.properties(&modem, USSD).await.unwrap_or_default();
    if bus::number(&state, "State") == Some(ASKS_BACK) {
        drop(bus.call(&modem, USSD, "Cancel", &(), QUICK).await);
    }
    Finished::Ussd(answer)
}
