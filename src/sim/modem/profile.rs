//! What makes of modems do differently.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A make of modem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// By the book, no vendor's own lines.
    #[default]
    Generic,
    /// SIM800 family: `RDY`, `Call Ready`, `SMS Ready`; reading an empty place is answered with `OK`.
    Sim800,
    /// SIM7600 family: `SMS DONE`, `PB DONE`, memory `SR` for reports.
    Sim7600,
    /// Quectel EC25: `RDY`, `+QIND`, places counted from 0.
    Ec25,
    /// Huawei E-series sticks: lines with `^` unasked (until `AT^CURC=0`), places counted from 0, packed USSD.
    Huawei,
}

/// A line at start.
#[derive(Clone, Copy, Debug)]
pub(super) enum Boot {
    Line(&'static str),
    /// `+CPIN: …` as the card is.
    Pin,
    /// The same as Huawei says it.
    SimState,
    /// From here on messages can be read and sent.
    Ready,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each says one thing that makes differ in"
)]
pub(super) struct Traits {
    pub(super) manufacturer: &'static str,
    pub(super) model: &'static str,
    pub(super) revision: &'static str,
    pub(super) capabilities: &'static str,
    /// Index of the first place in a memory.
    pub(super) first_index: u32,
    pub(super) me_places: usize,
    /// Whether reports have a memory of their own.
    pub(super) report_memory: bool,
    /// The memory in use at start.
    pub(super) memory: &'static str,
    pub(super) cnmi: [u32; 5],
    pub(super) cnmi_ranges: [&'static [u32]; 5],
    pub(super) boot: &'static [Boot],
    /// A flash message is shown at once even when others are stored.
    pub(super) flash_is_shown: bool,
    /// `AT+CMGR` and `AT+CMGD` of an empty place: `OK` instead of error 321.
    pub(super) empty_is_ok: bool,
    /// Said when a message found no place.
    pub(super) full: Option<&'static str>,
    /// USSD in packed septets, as hexadecimal digits.
    pub(super) ussd_packed: bool,
    /// Unasked status lines and how often.
    pub(super) chatter: Option<(Duration, &'static [&'static str])>,
}

const TO_1: &[u32] = &[0, 1];
const TO_2: &[u32] = &[0, 1, 2];
const TO_3: &[u32] = &[0, 1, 2, 3];
const OR_2: &[u32] = &[0, 2];

static GENERIC: Traits = Traits {
    manufacturer: "pipepost",
    model: "SIMULATED",
    revision: "1.0",
    capabilities: "+CGSM,+DS,+ES",
    first_index: 1,
    me_places: 50,
    report_memory: true,
    memory: "SM",
    cnmi: [0; 5],
    cnmi_ranges: [TO_3, TO_3, TO_3, TO_2, TO_1],
    boot: &[Boot::Ready],
    flash_is_shown: false,
    empty_is_ok: false,
    full: None,
    ussd_packed: false,
    chatter: None,
};

static SIM800: Traits = Traits {
    manufacturer: "SIMCOM_Ltd",
    model: "SIMCOM_SIM800L",
    revision: "Revision:1418B05SIM800L24",
    capabilities: "+CGSM",
    first_index: 1,
    me_places: 50,
    report_memory: false,
    memory: "SM",
    cnmi: [2, 1, 0, 0, 0],
    cnmi_ranges: [TO_3, TO_3, OR_2, TO_2, TO_1],
    boot: &[
        Boot::Line("RDY"),
        Boot::Line("+CFUN: 1"),
        Boot::Pin,
        Boot::Line("Call Ready"),
        Boot::Ready,
        Boot::Line("SMS Ready"),
    ],
    flash_is_shown: true,
    empty_is_ok: true,
    full: None,
    ussd_packed: false,
    chatter: None,
};

static SIM7600: Traits = Traits {
    manufacturer: "SIMCOM INCORPORATED",
    model: "SIMCOM_SIM7600E-H",
    revision: "+CGMR: LE20B03SIM7600M22",
    capabilities: "+CGSM,+FCLASS,+DS",
    first_index: 0,
    me_places: 23,
    report_memory: true,
    memory: "SM",
    cnmi: [2, 1, 0, 0, 0],
    cnmi_ranges: [TO_2, TO_3, OR_2, TO_2, TO_1],
    boot: &[
        Boot::Line("RDY"),
        Boot::Pin,
        Boot::Ready,
        Boot::Line("SMS DONE"),
        Boot::Line("PB DONE"),
    ],
    flash_is_shown: false,
    empty_is_ok: false,
    full: Some("+SMS FULL"),
    ussd_packed: false,
    chatter: None,
};

static EC25: Traits = Traits {
    manufacturer: "Quectel",
    model: "EC25",
    revision: "EC25EFAR06A06M4G",
    capabilities: "+CGSM",
    first_index: 0,
    me_places: 23,
    report_memory: false,
    memory: "ME",
    cnmi: [2, 1, 0, 0, 0],
    cnmi_ranges: [TO_2, TO_3, OR_2, TO_2, TO_1],
    boot: &[
        Boot::Line("RDY"),
        Boot::Pin,
        Boot::Line("+QUSIM: 1"),
        Boot::Line("+CFUN: 1"),
        Boot::Ready,
        Boot::Line("+QIND: SMS DONE"),
        Boot::Line("+QIND: PB DONE"),
    ],
    flash_is_shown: false,
    empty_is_ok: true,
    full: Some("+QIND: \"smsfull\",\"ME\""),
    ussd_packed: false,
    chatter: None,
};

static HUAWEI: Traits = Traits {
    manufacturer: "huawei",
    model: "E3372",
    revision: "21.180.01.00.00",
    capabilities: "+CGSM,+DS,+ES",
    first_index: 0,
    me_places: 50,
    report_memory: false,
    memory: "SM",
    cnmi: [1, 1, 0, 0, 0],
    cnmi_ranges: [TO_2, TO_3, TO_3, TO_2, TO_1],
    boot: &[
        Boot::Line("^SYSSTART"),
        Boot::SimState,
        Boot::Line("^SRVST:2"),
        Boot::Ready,
        Boot::Line("^BOOT:36983092,0,0,0,75"),
    ],
    flash_is_shown: false,
    empty_is_ok: false,
    full: Some("^SMMEMFULL: \"SM\""),
    ussd_packed: true,
    chatter: Some((
        Duration::from_secs(10),
        &["^RSSI:21", "^HCSQ:\"LTE\",55,53,161,26", "^MODE:17,17"],
    )),
};

impl Profile {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Generic,
        Self::Sim800,
        Self::Sim7600,
        Self::Ec25,
        Self::Huawei,
    ];

    pub(super) fn traits(self) -> &'static Traits {
        match self {
            Self::Generic => &GENERIC,
            Self::Sim800 => &SIM800,
            Self::Sim7600 => &SIM7600,
            Self::Ec25 => &EC25,
            Self::Huawei => &HUAWEI,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Generic => "generic",
            Self::Sim800 => "sim800",
            Self::Sim7600 => "sim7600",
            Self::Ec25 => "ec25",
            Self::Huawei => "huawei",
        })
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.to_string() == name)
            .ok_or_else(|| {
                let known: Vec<String> = Self::ALL.iter().map(ToString::to_string).collect();
                format!("use {}", known.join(", "))
            })
    }
}
