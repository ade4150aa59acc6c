//! What `ModemManager` says of a modem.

use super::bus::{self, Interfaces, Objects, Properties};
use super::{MESSAGING, MODEM, NETWORK};
use crate::protocol::sms::at::{Registered, Sim};

/// States of a modem (`MMModemState`).
mod state {
    pub(super) const FAILED: i32 = -1;
    pub(super) const LOCKED: i32 = 2;
    pub(super) const DISABLED: i32 = 3;
    pub(super) const ENABLED: i32 = 6;
    pub(super) const REGISTERED: i32 = 8;
    pub(super) const DISCONNECTING: i32 = 9;
}

/// What the SIM wants first (`MMModemLock`).
mod lock {
    pub(super) const PIN: u32 = 2;
    pub(super) const PUK: u32 = 4;
}

/// Why a modem has failed (`MMModemStateFailedReason`).
mod failed {
    pub(super) const SIM_MISSING: u32 = 2;
    pub(super) const SIM_ERROR: u32 = 3;
}

/// How far a modem is switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Power {
    /// `ModemManager` does not use it until it is told to.
    Off,
    /// On its way, or broken.
    #[default]
    Between,
    /// It can be used.
    On,
    /// It carries data too, or is about to.
    Connected,
}

/// A modem at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Modem {
    /// Its object.
    pub(super) path: String,
    /// Manufacturer and model.
    pub(super) model: Option<String>,
    /// Serial number (IMEI).
    pub(super) imei: Option<String>,
    /// The port that `ModemManager` talks to it on.
    pub(super) port: Option<String>,
    /// The SIM's object.
    pub(super) sim_path: Option<String>,
    /// Whether the SIM can be used.
    pub(super) sim: Sim,
    /// With a network.
    pub(super) registered: Registered,
    /// The operator's name.
    pub(super) operator: Option<String>,
    /// In dBm.
    pub(super) signal_dbm: Option<i16>,
    /// How far it is switched on.
    pub(super) power: Power,
    /// `ModemManager` talks to it in AT commands.
    pub(super) speaks_at: bool,
    /// It can carry messages.
    pub(super) has_messages: bool,
    /// The numbers of its messages' objects.
    pub(super) messages: Vec<u32>,
}

impl Modem {
    fn read(path: &str, interfaces: &Interfaces) -> Option<Self> {
        let modem = interfaces.get(MODEM)?;
        let none = Properties::new();
        let network = interfaces.get(NETWORK);
        let messaging = interfaces.get(MESSAGING);
        let state = bus::signed(modem, "State").unwrap_or_default();
        let names = ["Manufacturer", "Model"].map(|key| bus::text(modem, key));
        let names: Vec<String> = names.into_iter().flatten().collect();
        let registered = match network {
            Some(network) => bus::number(network, "RegistrationState")
                .and_then(|code| u8::try_from(code).ok())
                .map_or(Registered::Unknown, Registered::from_code),
            None if state >= state::REGISTERED => Registered::Home,
            None => Registered::Unknown,
        };
        Some(Self {
            path: path.to_owned(),
            model: (!names.is_empty()).then(|| names.join(" ")),
            imei: bus::text(modem, "EquipmentIdentifier"),
            port: bus::text(modem, "PrimaryPort"),
            sim_path: bus::object(modem, "Sim"),
            sim: sim(modem, state),
            registered,
            operator: bus::text(network.unwrap_or(&none), "OperatorName"),
            // Percent of the way from -113 to -51 dBm, for all kinds of modems.
            signal_dbm: bus::first_number(modem, "SignalQuality")
                .filter(|percent| *percent > 0 && state >= state::ENABLED)
                .and_then(|percent| i16::try_from(percent.min(100) * 62 / 100).ok())
                .map(|above| above - 113),
            power: match state {
                state::DISABLED => Power::Off,
                state if state >= state::DISCONNECTING => Power::Connected,
                state if state >= state::ENABLED => Power::On,
                _ => Power::Between,
            },
            speaks_at: bus::text(modem, "PrimaryPort")
                .is_some_and(|port| port.starts_with("tty") || port.starts_with("abstract:")),
            has_messages: messaging.is_some(),
            messages: bus::objects(messaging.unwrap_or(&none), "Messages")
                .iter()
                .filter_map(|path| number(path))
                .collect(),
        })
    }
}

fn sim(modem: &Properties, state: i32) -> Sim {
    match state {
        state::FAILED => match bus::number(modem, "StateFailedReason") {
            Some(failed::SIM_MISSING) => Sim::Absent,
            Some(failed::SIM_ERROR) => Sim::Unusable,
            _ => Sim::Unknown,
        },
        state::LOCKED => match bus::number(modem, "UnlockRequired") {
            Some(lock::PIN) => Sim::PinNeeded,
            Some(lock::PUK) => Sim::PukNeeded,
            _ => Sim::Unusable,
        },
        state if state >= state::DISABLED => Sim::Ready,
        _ => Sim::Unknown,
    }
}

/// The number at the end of an object's path.
fn number(path: &str) -> Option<u32> {
    path.rsplit('/').next()?.parse().ok()
}

/// The modem that is meant; the error is for a person.
pub(super) fn find(objects: &Objects, which: Option<&str>) -> Result<Modem, String> {
    let mut all: Vec<(Modem, &Interfaces)> = objects
        .iter()
        .filter_map(|(path, interfaces)| Some((Modem::read(path.as_str(), interfaces)?, interfaces)))
        .collect();
    // The one that was there first.
    all.sort_unstable_by_key(|(modem, _)| number(&modem.path));
    let known: Vec<String> = all
        .iter()
        .map(|(modem, _)| {
            let model = modem.model.as_deref().unwrap_or("modem");
            let port = modem.port.as_deref().unwrap_or("?");
            let imei = modem.imei.as_deref().unwrap_or("unknown");
            format!("{model} at {port}, serial number {imei}")
        })
        .collect();
    let is_meant = |(modem, interfaces): &(Modem, &Interfaces)| {
        let Some(which) = which else { return true };
        let name = which.strip_prefix("/dev/").unwrap_or(which);
        let Some(properties) = interfaces.get(MODEM) else {
            return false;
        };
        let of_modem = ["EquipmentIdentifier", "DeviceIdentifier", "Device", "PrimaryPort"];
        modem.path == which
            || of_modem
                .iter()
                .any(|key| bus::text(properties, key).as_deref() == Some(name))
            || bus::names(properties, "Ports").iter().any(|port| port == name)
            || interfaces
                .get(NETWORK)
                .and_then(|network| bus::text(network, "Imei"))
                .as_deref()
                == Some(name)
    };
    if let Some((modem, _)) = all.into_iter().find(is_meant) {
        return Ok(modem);
    }
    Err(match (which, known.as_slice()) {
        (_, []) => {
            "ModemManager knows no modem: is it plugged in, and does mmcli -L show it? A udev rule with \
                    ID_MM_DEVICE_IGNORE hides it"
                .to_owned()
        }
        (which, known) => format!(
            "ModemManager knows no modem {:?}, but: {}",
            which.unwrap_or("any"),
            known.join("; ")
        ),
    })
}
