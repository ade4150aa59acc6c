//! What is known of a modem, for people and for decisions.

use std::fmt;

/// A message memory: `SM` (the SIM), `ME` (the modem), `MT` (both), `SR` (status reports).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Memory([u8; 2]);

impl Memory {
    pub(super) const SIM: Self = Self(*b"SM");

    /// A name of two capital letters.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let name: [u8; 2] = name.as_bytes().try_into().ok()?;
        name.iter().all(u8::is_ascii_uppercase).then_some(Self(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("SM")
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the SIM can be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sim {
    /// Not asked yet.
    #[default]
    Unknown,
    /// Usable.
    Ready,
    /// It wants its PIN and none was given.
    PinNeeded,
    /// The PIN was refused, here or before a restart. It is not tried again.
    PinRefused,
    /// It wants its PUK.
    PukNeeded,
    /// There is none.
    Absent,
    /// It does not answer, or it wants something that nobody can give.
    Unusable,
}

/// Registration with a network (3GPP TS 27.007, section 7.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Registered {
    /// Not asked yet, or the modem does not know.
    #[default]
    Unknown,
    /// No, and it does not search.
    No,
    /// It searches.
    Searching,
    /// The network refuses the SIM.
    Denied,
    /// With the SIM's own operator.
    Home,
    /// With another operator.
    Roaming,
}

impl Registered {
    /// From the code of `+CREG`.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::No,
            1 | 6 | 9 => Self::Home,
            2 => Self::Searching,
            3 => Self::Denied,
            5 | 7 | 10 => Self::Roaming,
            _ => Self::Unknown,
        }
    }

    /// Whether messages can be sent.
    #[must_use]
    pub const fn is_registered(self) -> bool {
        matches!(self, Self::Home | Self::Roaming)
    }

    /// The word for people and machines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::No => "not registered",
            Self::Searching => "searching",
            Self::Denied => "denied",
            Self::Home => "home",
            Self::Roaming => "roaming",
        }
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::No => 1,
            Self::Searching => 2,
            Self::Denied => 3,
            Self::Roaming => 4,
            Self::Home => 5,
        }
    }
}

/// What is known of a modem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModemState {
    /// `AT+CGMI`
    pub manufacturer: Option<String>,
    /// `AT+CGMM`
    pub model: Option<String>,
    /// `AT+CGMR`: the firmware.
    pub revision: Option<String>,
    /// `AT+CGSN`: the modem's serial number (IMEI).
    pub imei: Option<String>,
    /// The SIM's own number (ICCID, 18 digits of it); asked for only when the SIM wants its PIN.
    pub iccid: Option<String>,
    /// `AT+CIMI`: the SIM's subscriber number (IMSI).
    pub imsi: Option<String>,
    /// The SIM.
    pub sim: Sim,
    /// In the 2G and 3G network.
    pub gsm: Registered,
    /// In the LTE network.
    pub lte: Registered,
    /// The operator's name.
    pub operator: Option<String>,
    /// Signal strength in dBm, −113 to −51.
    pub signal_dbm: Option<i16>,
    /// Used and all places of the message memory.
    pub storage: Option<(u16, u16)>,
    /// The modem said that its memory is full.
    pub storage_full: bool,
    /// Messages in the memory that the modem could not hand over as octets.
    pub unreadable: u16,
}

impl ModemState {
    /// Registration with any network.
    #[must_use]
    pub fn registered(&self) -> Registered {
        if self.gsm.rank() >= self.lte.rank() {
            self.gsm
        } else {
            self.lte
        }
    }

    pub(super) fn signal(&mut self, code: u8) {
        self.signal_dbm = (code <= 31).then(|| i16::from(code) * 2 - 113);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modem_in_one_of_two_networks_is_registered() {
        let state = ModemState {
            gsm: Registered::Denied,
            lte: Registered::Roaming,
            ..ModemState::default()
        };
        assert_eq!(state.registered(), Registered::Roaming);
        assert!(!ModemState::default().registered().is_registered());
    }

    #[test]
    fn signal_strength_is_in_dbm_and_99_means_unknown() {
        let mut state = ModemState::default();
        state.signal(31);
        assert_eq!(state.signal_dbm, Some(-51));
        state.signal(99);
        assert_eq!(state.signal_dbm, None);
    }
}
