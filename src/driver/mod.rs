//! Hardware edges. A driver has no arrow upwards: it sends [`DriverEvent`]s into a bounded channel and
//! acknowledges the hardware only after `stored` has fired.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::domain::{Attempt, Outgoing, ReceivedMessage, StatusReport, Timestamp, Unmapped};

mod at_modem;
#[cfg(feature = "modem-manager")]
mod mm_modem;
pub mod mqtt;
pub mod sms;

/// The clock on the wall.
fn now() -> Timestamp {
    Timestamp::from_system_time(std::time::SystemTime::now())
}

/// What the store says to a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Synced (or known already): acknowledge the hardware.
    Acknowledge,
    /// Not stored (no space, store stopped): do not acknowledge; the hardware keeps it.
    Refused,
}

/// What comes up from the hardware. Each carries `stored`, answered after the sync.
pub enum DriverEvent {
    /// A customer's message.
    Received {
        /// The message.
        message: Box<ReceivedMessage>,
        /// Fires after the sync.
        stored: oneshot::Sender<Stored>,
    },
    /// Something that could not be read as a message or a status. It becomes a visible record.
    Unmapped {
        /// What came, and why it could not be read.
        record: Box<Unmapped>,
        /// Fires after the sync.
        stored: oneshot::Sender<Stored>,
    },
    /// A device's word on an outgoing message.
    Status {
        /// The report.
        report: Box<StatusReport>,
        /// Fires after the sync.
        stored: oneshot::Sender<Stored>,
    },
}

/// A handed-over [`Outgoing`] with the way back for its outcome.
pub struct OutgoingJob {
    /// What to send.
    pub message: Outgoing,
    /// Fires when the outcome is known. Dropped without an answer means [`Attempt::Unknown`].
    pub outcome: oneshot::Sender<Attempt>,
}

/// Whether a driver can reach its hardware, for status, readiness and doctor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Not tried yet.
    Starting,
    /// Connected since.
    Up(Timestamp),
    /// Connected, over something that can lose what the usual connection keeps; the note is for a person.
    Limited {
        /// Since when.
        since: Timestamp,
        /// What can be lost, and why.
        note: String,
    },
    /// Connected, and a part of it does not work until somebody mends it; the rest does.
    Faulty {
        /// Since when that part does not work.
        since: Timestamp,
        /// Which part, why, and what to do.
        reason: String,
    },
    /// Connected, and what comes in is taken; nothing goes out for a while.
    Paused {
        /// Since when.
        since: Timestamp,
        /// Why, until when, and what to do.
        reason: String,
    },
    /// Not connected; the reason is for a person.
    Down {
        /// Since when.
        since: Timestamp,
        /// Why, and what to do.
        reason: String,
    },
}

/// What the rest of the gateway holds of a running driver.
#[derive(Clone)]
pub struct DriverHandle {
    /// `broker site`, `modem office`: as in the configuration.
    pub name: Arc<str>,
    /// Outgoing messages; bounded.
    pub outgoing: mpsc::Sender<OutgoingJob>,
    /// State of the hardware.
    pub link: tokio::sync::watch::Receiver<Link>,
    /// What a modem offers beside messages; `None` for a broker.
    pub modem: Option<sms::ModemHandle>,
}
