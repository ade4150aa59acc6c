//! What drivers of SMS modems have in common, however they speak to the modem.
//!
//! ```text
//!            ┌──────── connection ────────┐          ┌──── intake ────┐ DriverEvent
//!  modem ◄───┤ AT commands over a serial  ├─────────►│ decodes, joins ├────────────► store
//!            │ line                       │◄─────────┤ parts, matches │◄──────────── stored
//!            │                            │   done   │ reports        │
//!            └────────────▲───────────────┘          └────────────────┘
//!                         └─ OutgoingJob
//! ```
//!
//! The modem's memory is the durable queue: a message is deleted there only after the store has synced it, and what
//! comes again after a crash in between is recognised. What must survive a restart lies in the store as notes.

pub(in crate::driver) mod edge;
pub(in crate::driver) mod intake;
pub(in crate::driver) mod outgoing;
pub(in crate::driver) mod records;

pub(in crate::driver) use edge::{Edge, PinState};

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::{DriverEvent, DriverHandle, Link, at_modem};
use crate::config;
use crate::domain::ChannelId;
use crate::protocol::sms::Assembler;
use crate::store::Store;

/// Messages that wait for the intake. What does not fit stays in the modem and comes again.
const WAITING: usize = 512;

/// What the driver of one modem needs.
pub struct Setup {
    /// The modem.
    pub modem: config::Modem,
    /// The channel that it carries.
    pub channel: ChannelId,
    /// For parts, references and what else must survive a restart.
    pub store: Store,
    /// Where messages and reports go.
    pub events: mpsc::Sender<DriverEvent>,
    /// Becomes `true` when the gateway stops.
    pub stop: watch::Receiver<bool>,
}

/// What is known of a modem, for status and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModemStatus {
    /// The port that is in use.
    pub port: Option<String>,
    /// Manufacturer and model.
    pub model: Option<String>,
    /// Serial number (IMEI).
    pub imei: Option<String>,
    /// The SIM in one word: `ready`, `pin needed`, `pin refused`, …
    pub sim: String,
    /// Registration: `home`, `roaming`, `searching`, …
    pub network: String,
    /// The operator's name.
    pub operator: Option<String>,
    /// Signal strength in dBm.
    pub signal_dbm: Option<i16>,
    /// Messages in the modem's memory.
    pub storage_used: Option<u16>,
    /// Its places.
    pub storage_total: Option<u16>,
    /// Whether it is full.
    pub storage_full: bool,
    /// Messages in it that the modem does not hand over.
    pub unreadable: u16,
    /// Messages that wait for parts.
    pub incomplete: usize,
    /// Parts sent today (UTC).
    pub sent_today: u32,
    /// Most parts in a day.
    pub daily_cap: u32,
}

/// A USSD code and the way back for the network's answer; the error is for a person.
pub struct UssdJob {
    /// Such as `*100#`.
    pub code: String,
    /// Fires with the answer.
    pub answer: oneshot::Sender<Result<String, String>>,
}

/// What a modem offers beside messages.
#[derive(Clone)]
pub struct ModemHandle {
    /// Its state.
    pub status: watch::Receiver<ModemStatus>,
    /// USSD codes; bounded.
    pub ussd: mpsc::Sender<UssdJob>,
}

/// Makes the driver of one modem. The future is its work; it ends after `stop`.
#[must_use = "the driver works only while its future is polled"]
pub fn spawn(setup: Setup) -> (DriverHandle, impl Future<Output = ()> + Send) {
    let name = format!("modem {}", setup.modem.name);
    let (outgoing, jobs) = mpsc::channel(4);
    let (ussd, ussd_jobs) = mpsc::channel(2);
    let (link, link_state) = watch::channel(Link::Starting);
    let (status, status_state) = watch::channel(ModemStatus::default());
    let (tasks, waiting_tasks) = mpsc::channel(WAITING);
    let (done, is_done) = mpsc::channel(16);
    let (waiting, incomplete) = watch::channel(0);
    let handle = DriverHandle {
        name: Arc::from(name.as_str()),
        outgoing,
        link: link_state,
        modem: Some(ModemHandle {
            status: status_state,
            ussd,
        }),
    };
    let started = Instant::now();
    let records = records::Records {
        store: setup.store,
        owner: name,
    };
    let intake = intake::Intake {
        name: setup.modem.name.clone(),
        channel: setup.channel,
        home: setup.modem.home,
        records: records.clone(),
        events: setup.events,
        tasks: waiting_tasks,
        done,
        assembler: Assembler::new(setup.modem.incomplete_after),
        started,
        freeing: HashMap::new(),
        waiting,
    };
    let edge = Edge {
        modem: setup.modem,
        records,
        tasks,
        done: is_done,
        incomplete,
        jobs,
        ussd: ussd_jobs,
        card: None,
        link,
        status,
        started,
        stop: setup.stop,
    };
    let work = async move {
        tokio::select! {
            () = run(edge) => {}
            // It ends when the store no longer answers: the gateway is stopping.
            () = async { intake.run().await; std::future::pending::<()>().await } => {}
        }
    };
    (handle, work)
}

/// Works with the modem until the gateway stops.
async fn run(edge: Edge) {
    #[cfg(feature = "modem-manager")]
    if matches!(edge.modem.port, config::ModemPort::Manager { .. }) {
        return super::mm_modem::run(edge).await;
    }
    at_modem::run(edge).await;
}
