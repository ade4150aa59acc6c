//! How a modem is, and what it is told to do wrong.

use std::time::Duration;

use jiff::Timestamp;

use super::pdu::{Body, Part};
use super::profile::Profile;

/// What the network says of the modem (3GPP TS 27.007, 7.2, `<stat>`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// No network, and it does not look for one.
    None,
    /// In its own network.
    Home,
    /// No network; it looks for one.
    Searching,
    /// The network does not want it.
    Denied,
    /// In a foreign network.
    Roaming,
}

impl Registration {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Home => 1,
            Self::Searching => 2,
            Self::Denied => 3,
            Self::Roaming => 5,
        }
    }

    pub(super) fn is_registered(self) -> bool {
        matches!(self, Self::Home | Self::Roaming)
    }
}

/// A modem and its card.
#[derive(Clone, Debug)]
pub struct Options {
    /// Make.
    pub profile: Profile,
    /// Whether there is a card.
    pub has_sim: bool,
    /// The card's PIN, if it asks for one. Its PUK is `12345678`.
    pub pin: Option<String>,
    /// Serial number.
    pub imei: String,
    /// The card's subscriber.
    pub imsi: String,
    /// The card's number.
    pub iccid: String,
    /// Phone number of the card.
    pub own_number: String,
    /// The network's name and its code.
    pub operator: (String, String),
    /// The service centre's number.
    pub service_centre: String,
    /// Places for messages on the card.
    pub sim_places: usize,
    /// What the network says when the modem looks for it.
    pub registration: Registration,
    /// Signal, 0 to 31 (3GPP TS 27.007, 8.5).
    pub signal: u8,
    /// Wall time when the engine's clock stands at zero.
    pub epoch: Timestamp,
    /// From Ctrl-Z to the network's answer.
    pub send_time: Duration,
    /// From there to the delivery report, and from one report to the next.
    pub report_after: Duration,
    /// What delivery reports say, one status after the other (3GPP TS 23.040, 9.2.3.15).
    pub fate: Vec<u8>,
    /// Between two messages that the network hands over.
    pub text_interval: Duration,
    /// How long the network waits for `AT+CNMA`.
    pub acknowledge_within: Duration,
    /// From a restart to the first line.
    pub boot_time: Duration,
    /// Between two lines at start.
    pub boot_step: Duration,
    /// From the card's readiness to the network.
    pub register_time: Duration,
    /// Starts switched on and ready, as most modems are when a program opens them; else it begins with a boot.
    pub booted: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            profile: Profile::Generic,
            has_sim: true,
            pin: None,
            imei: "356938035643809".to_owned(),
            imsi: "262019012345678".to_owned(),
            iccid: "8949020000001234567".to_owned(),
            own_number: "+491710000001".to_owned(),
            operator: ("Simulated".to_owned(), "26201".to_owned()),
            service_centre: "+491710760000".to_owned(),
            sim_places: 20,
            registration: Registration::Home,
            signal: 21,
            epoch: Timestamp::UNIX_EPOCH,
            send_time: Duration::from_millis(20),
            report_after: Duration::from_millis(200),
            fate: vec![0],
            text_interval: Duration::ZERO,
            acknowledge_within: Duration::from_secs(15),
            boot_time: Duration::from_millis(200),
            boot_step: Duration::from_millis(20),
            register_time: Duration::from_millis(50),
            booted: true,
        }
    }
}

/// What happens to the next message that is sent instead of going well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendFault {
    /// `+CMS ERROR: n`; the network did not take it.
    Cms(u16),
    /// A bare `ERROR`.
    Error,
    /// No prompt comes.
    NoPrompt,
    /// The answer to Ctrl-Z never comes.
    Silence {
        /// Whether the network took the message.
        taken: bool,
    },
    /// The modem restarts instead of answering.
    Restart {
        /// Whether the network took the message.
        taken: bool,
    },
    /// The answer comes later than usual.
    Delay(Duration),
    /// Nothing wrong with this one.
    None,
}

/// A place in an answer at which something can come in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Between the command and the first line of its answer.
    BeforeAnswer,
    /// Between two information texts of one answer.
    InsideAnswer,
    /// Between a line that announces a PDU, and the PDU.
    BeforePdu,
    /// Between `AT+CMGS=` and its prompt.
    BeforePrompt,
    /// Before `OK` or an error.
    BeforeResult,
}

/// What comes in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// A line.
    Line(String),
    /// A message from the network (the service centre's address in front), with the line that indicates it.
    Pdu(Vec<u8>),
}

/// A message that the network took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// When, on the engine's clock.
    pub at: Duration,
    /// TP-MR that the modem gave it.
    pub reference: u8,
    /// Recipient: `+…` for an international number, else digits.
    pub to: String,
    /// What the modem was given, as octets.
    pub pdu: Vec<u8>,
    /// Whether a status report was asked for.
    pub wants_report: bool,
    /// Message class.
    pub class: Option<u8>,
    /// Data coding scheme.
    pub dcs: u8,
    /// Which part of a longer message it is.
    pub part: Option<Part>,
    /// What it carries.
    pub body: Body,
    /// The text of this part alone; `None` for data.
    pub text: Option<String>,
}

/// A whole message as the recipient's phone shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Recipient.
    pub to: String,
    /// Text of all parts that came; `None` for data.
    pub text: Option<String>,
    /// TP-MR of its parts, in their order.
    pub references: Vec<u8>,
    /// Whether no part is missing.
    pub complete: bool,
}

/// What happened so far, to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages and parts that the network took from the modem.
    pub sent: usize,
    /// PDUs that the modem refused.
    pub refused: usize,
    /// Messages and reports that wait in the network.
    pub waiting: usize,
    /// Messages in the memory for incoming ones.
    pub stored: usize,
    /// Messages and reports that the modem took from the network.
    pub taken: usize,
    /// Messages that a command deleted.
    pub deleted: usize,
    /// Acknowledgements by `AT+CNMA`.
    pub acknowledged: usize,
    /// Command lines.
    pub lines: usize,
    /// Starts after the first.
    pub restarts: usize,
    /// Whether it is switched on and ready.
    pub ready: bool,
    /// Whether it is in a network.
    pub registered: bool,
}
