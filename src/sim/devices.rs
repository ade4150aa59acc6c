//! Simulated devices with customers who write and answer, for the demo. They connect over TCP with MQTT 3.1.1, as
//! real ones do; two use the topics and payloads of real ones:
//!
//! - an sms2mqtt gateway (<https://github.com/Domochip/sms2mqtt>): it says that the network took an SMS;
//! - a GSM2MQTT modem (<https://github.com/legoser/GSM2MQTT>): it also reports the delivery to the phone;
//! - a bridge for picture messages, as somebody might have built it: for that, a mapping of one's own is written.

mod formats;
mod picture;
mod script;
#[cfg(test)]
mod tests;
mod worker;

use std::fmt;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use script::{Customer, File, Script, Text};

/// How long [`Devices::stop`] waits for the devices' goodbye.
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// Events that wait for a reader before the devices pause.
const EVENTS: usize = 256;

/// Which of the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// sms2mqtt with the topic prefix `sms2mqtt`.
    Sms2mqtt,
    /// GSM2MQTT with the prefix `gsm2mqtt` and one modem, `office`.
    Gsm2mqtt,
    /// The bridge for picture messages.
    Mms,
}

impl Device {
    /// All of them.
    pub const ALL: [Device; 3] = [Device::Sms2mqtt, Device::Gsm2mqtt, Device::Mms];

    /// Whether its confirmation means that the phone has the message.
    const fn reports_delivery(self) -> bool {
        !matches!(self, Device::Sms2mqtt)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Device::Sms2mqtt => "sms2mqtt",
            Device::Gsm2mqtt => "GSM2MQTT",
            Device::Mms => "the MMS bridge",
        })
    }
}

/// Something that happened at a device, in the order in which it happened there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where.
    pub device: Device,
    /// What.
    pub what: What,
}

/// What happened at a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It is connected to the broker and has its subscription.
    Connected,
    /// It lost the broker; it tries again by itself.
    Disconnected {
        /// What the client library says.
        reason: String,
    },
    /// A customer's message was published.
    Received {
        /// The customer's name.
        from: String,
        /// The customer's number.
        number: String,
        /// The text.
        text: String,
        /// Names of the files.
        files: Vec<String>,
    },
    /// An agent's message arrived at the device.
    Sending {
        /// The customer's name; the number for somebody the script does not know.
        to: String,
        /// The number.
        number: String,
        /// The text.
        text: String,
    },
    /// The network took the message (sms2mqtt) or the phone got it (the others), and the device said so.
    Confirmed {
        /// The number.
        number: String,
        /// Whether the confirmation means delivery.
        delivered: bool,
    },
    /// A command that the device cannot read.
    Unreadable {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device;
        match &self.what {
            What::Connected => write!(f, "{device} is connected to the broker"),
            What::Disconnected { reason } => write!(f, "{device} lost the broker: {reason}"),
            What::Received {
                from, text, files, ..
            } => {
                write!(f, "{from} wrote to {device}: {text}")?;
                if files.is_empty() {
                    return Ok(());
                }
                write!(f, " [{}]", files.join(", "))
            }
            What::Sending { to, text, .. } => write!(f, "{device} sends to {to}: {text}"),
            What::Confirmed {
                number,
                delivered: true,
            } => write!(f, "{device}: delivered to {number}"),
            What::Confirmed {
                number,
                delivered: false,
            } => write!(f, "{device}: the network took it for {number}"),
            What::Unreadable { reason } => write!(f, "{device} cannot read a command: {reason}"),
        }
    }
}

/// The running devices. They stop when this is dropped; [`Devices::stop`] also waits for the end.
#[derive(Debug)]
pub struct Devices {
    events: mpsc::Receiver<Event>,
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Devices {
    /// Connects the devices to the broker on this loopback port. The customers start to write as soon as their device
    /// is connected, so start the gateway first: a broker keeps nothing for a gateway it has never seen.
    #[must_use]
    pub fn start(broker_port: u16, script: &Script) -> Self {
        let (to, events) = mpsc::channel(EVENTS);
        let stopping = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        for device in Device::ALL {
            let customers = script
                .customers
                .iter()
                .filter(|customer| customer.device == device)
                .cloned()
                .collect();
            let script = Script {
                customers,
                ..script.clone()
            };
            tasks.spawn(worker::run(
                device,
                broker_port,
                script,
                to.clone(),
                stopping.subscribe(),
            ));
        }
        Self {
            events,
            stopping,
            tasks,
        }
    }

    /// The next event. Read them: a device whose events nobody takes pauses in the end.
    pub async fn event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The devices say goodbye to the broker. Returns after a few seconds at most.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        self.events.close();
        let ended = timeout(STOP_WITHIN, async {
            while self.tasks.join_next().await.is_some() {}
        })
        .await;
        if ended.is_err() {
            log::warn!("the simulated devices did not stop in time");
            self.tasks.abort_all();
        }
    }
}
