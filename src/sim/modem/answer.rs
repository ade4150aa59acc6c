//! Result codes: 3GPP TS 27.007, 9.2 and TS 27.005, 3.2.5.

use super::at::Wrong;

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// `ERROR`.
    Error,
    /// `+CME ERROR: n`.
    Cme(u16),
    /// `+CMS ERROR: n`.
    Cms(u16),
    /// `NO CARRIER`.
    NoCarrier,
}

impl From<Wrong> for Refusal {
    fn from(_: Wrong) -> Self {
        Self::Error
    }
}

pub(super) const NOT_ALLOWED: Refusal = Refusal::Cme(3);
pub(super) const NOT_SUPPORTED: Refusal = Refusal::Cme(4);
pub(super) const INVALID_INDEX: Refusal = Refusal::Cms(321);
pub(super) const MEMORY_FULL: Refusal = Refusal::Cms(322);

/// The words that `AT+CMEE=2` shows.
pub(super) fn words(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Error => "ERROR",
        Refusal::NoCarrier => "NO CARRIER",
        Refusal::Cme(code) => match code {
            3 => "operation not allowed",
            4 => "operation not supported",
            10 => "SIM not inserted",
            11 => "SIM PIN required",
            12 => "SIM PUK required",
            13 => "SIM failure",
            14 => "SIM busy",
            16 => "incorrect password",
            30 => "no network service",
            50 => "Incorrect parameters",
            _ => "unknown error",
        },
        Refusal::Cms(code) => match code {
            1 => "Unassigned (unallocated) number",
            8 => "Operator determined barring",
            10 => "Call barred",
            21 => "Short message transfer rejected",
            27 => "Destination out of service",
            28 => "Unidentified subscriber",
            29 => "Facility rejected",
            30 => "Unknown subscriber",
            38 => "Network out of order",
            41 => "Temporary failure",
            42 => "Congestion",
            47 => "Resources unavailable, unspecified",
            50 => "Requested facility not subscribed",
            69 => "Requested facility not implemented",
            301 => "SMS service of ME reserved",
            302 => "operation not allowed",
            303 => "operation not supported",
            304 => "invalid PDU mode parameter",
            305 => "invalid text mode parameter",
            310 => "SIM not inserted",
            311 => "SIM PIN required",
            313 => "SIM failure",
            314 => "SIM busy",
            316 => "SIM PUK required",
            320 => "memory failure",
            321 => "invalid memory index",
            322 => "memory full",
            330 => "SMSC address unknown",
            331 => "no network service",
            332 => "network timeout",
            340 => "no +CNMA acknowledgement expected",
            _ => "unknown error",
        },
    }
}
