//! What an error of `ModemManager` means for a message.

use super::bus::CallError;
use crate::protocol::sms::at::{ModemError, SendOutcome};

const MESSAGE: &str = "org.freedesktop.ModemManager1.Error.Message.";
const EQUIPMENT: &str = "org.freedesktop.ModemManager1.Error.MobileEquipment.";
const CORE: &str = "org.freedesktop.ModemManager1.Error.Core.";
const SERIAL: &str = "org.freedesktop.ModemManager1.Error.Serial.";
const BUS: &str = "org.freedesktop.DBus.Error.";

/// What became of a message that could not even be made.
pub(super) fn not_created(error: &CallError) -> SendOutcome {
    match code(error) {
        Some(code) => SendOutcome::Refused(code),
        None => SendOutcome::NotStarted(in_words(error)),
    }
}

/// What became of a message that `ModemManager` was told to send, in `parts`.
pub(super) fn not_sent(error: &CallError, parts: usize) -> SendOutcome {
    let unknown = || SendOutcome::Unknown(in_words(error));
    if let Some(code) = code(error) {
        return if code.may_have_been_sent() {
            unknown()
        } else if code.counts_as_sent() {
            SendOutcome::Accepted(None)
        } else if parts > 1 && !code.is_permanent() {
            // Parts before it may have left, and all would leave again.
            SendOutcome::Unknown(format!("one of its {parts} parts was refused: {code}"))
        } else {
            SendOutcome::Refused(code)
        };
    }
    let is_before = [
        (BUS, "ServiceUnknown"),
        (BUS, "UnknownObject"),
        (BUS, "UnknownMethod"),
        (BUS, "AccessDenied"),
        (CORE, "Unauthorized"),
        (CORE, "WrongState"),
        (CORE, "NotFound"),
        (CORE, "Unsupported"),
        (SERIAL, "OpenFailed"),
        (SERIAL, "NotOpen"),
    ];
    if is_before.iter().any(|(group, name)| is(error, group, name)) && parts <= 1
        || is(error, CORE, "Unauthorized")
        || is(error, BUS, "ServiceUnknown")
        || is(error, BUS, "UnknownObject")
    {
        return SendOutcome::NotStarted(in_words(error));
    }
    // The network took it, and its answer was not understood.
    let was_taken = error.text.contains("message reference");
    if is(error, CORE, "Failed") && parts <= 1 && !was_taken {
        return SendOutcome::Refused(ModemError::Plain);
    }
    // Timeouts, a modem that was pulled out, a ModemManager that ended.
    unknown()
}

/// Whether the SIM itself refused a PIN.
pub(super) fn is_refused_pin(error: &CallError) -> bool {
    error.name.starts_with(EQUIPMENT) || is(error, CORE, "InvalidArgs")
}

/// Why, and what to do.
pub(super) fn in_words(error: &CallError) -> String {
    if is(error, CORE, "Unauthorized") || is(error, BUS, "AccessDenied") {
        return format!(
            "ModemManager does not allow it: install the polkit rule systemd/pipepost.polkit.rules ({error})"
        );
    }
    if is(error, BUS, "ServiceUnknown") || error.name.ends_with(".NameHasNoOwner") {
        return format!("ModemManager does not run: systemctl enable --now ModemManager starts it ({error})");
    }
    error.to_string()
}

fn is(error: &CallError, group: &str, name: &str) -> bool {
    error.name.strip_prefix(group) == Some(name)
}

/// The code that the modem gave.
fn code(error: &CallError) -> Option<ModemError> {
    if let Some(name) = error.name.strip_prefix(MESSAGE) {
        return Some(ModemError::Cms(match name {
            "MeFailure" => 300,
            "SmsServiceReserved" => 301,
            "NotAllowed" => 302,
            "NotSupported" => 303,
            "InvalidPduParameter" => 304,
            "InvalidTextParameter" => 305,
            "SimNotInserted" => 310,
            "SimPin" => 311,
            "PhSimPin" => 312,
            "SimFailure" => 313,
            "SimBusy" => 314,
            "SimWrong" => 315,
            "SimPuk" => 316,
            "SimPin2" => 317,
            "SimPuk2" => 318,
            "MemoryFailure" => 320,
            "InvalidIndex" => 321,
            "MemoryFull" => 322,
            "SmscAddressUnknown" => 330,
            "NoNetwork" => 331,
            "NetworkTimeout" => 332,
            // It names 300 and above only, and puts the number of others at the end of the text.
            _ => error
                .text
                .rsplit(' ')
                .next()
                .and_then(|word| word.parse().ok())
                .unwrap_or(500),
        }));
    }
    let name = error.name.strip_prefix(EQUIPMENT)?;
    Some(ModemError::Cme(match name {
        "NotAllowed" => 3,
        "NotSupported" => 4,
        "PhSimPin" => 5,
        "SimNotInserted" => 10,
        "SimPin" => 11,
        "SimPuk" => 12,
        "SimFailure" => 13,
        "SimBusy" => 14,
        "SimWrong" => 15,
        "IncorrectPassword" => 16,
        "SimPin2" => 17,
        "SimPuk2" => 18,
        "MemoryFull" => 20,
        "NoNetwork" => 30,
        "NetworkTimeout" => 31,
        "NetworkNotAllowed" => 32,
        _ => 100,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(name: &str, text: &str) -> CallError {
        CallError {
            name: name.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn codes_that_modem_manager_has_no_name_for_are_read_from_its_text() {
        let refused = |name: &str, text| not_sent(&error(&format!("{MESSAGE}{name}"), text), 1);
        assert_eq!(
            refused("Unknown", "Unknown message error: 28"),
            SendOutcome::Refused(ModemError::Cms(28))
        );
        assert_eq!(
            refused("NoNetwork", "No network"),
            SendOutcome::Refused(ModemError::Cms(331))
        );
        assert_eq!(
            refused("Unknown", "Unknown"),
            SendOutcome::Refused(ModemError::Cms(500))
        );
        assert!(matches!(
            refused("NetworkTimeout", "timeout"),
            SendOutcome::Unknown(_)
        ));
    }

    #[test]
    fn what_may_have_left_is_unknown_and_what_cannot_have_left_goes_back() {
        let of = |name: &str, parts| not_sent(&error(name, ""), parts);
        for name in [
            "",
            "org.freedesktop.DBus.Error.NoReply",
            "org.freedesktop.ModemManager1.Error.Serial.ResponseTimeout",
            "org.freedesktop.ModemManager1.Error.Core.Aborted",
        ] {
            assert!(matches!(of(name, 1), SendOutcome::Unknown(_)), "{name}");
        }
        for name in [
            "org.freedesktop.DBus.Error.ServiceUnknown",
            "org.freedesktop.ModemManager1.Error.Core.Unauthorized",
            "org.freedesktop.ModemManager1.Error.Core.WrongState",
        ] {
            assert!(matches!(of(name, 1), SendOutcome::NotStarted(_)), "{name}");
        }
        let failed = "org.freedesktop.ModemManager1.Error.Core.Failed";
        assert_eq!(of(failed, 1), SendOutcome::Refused(ModemError::Plain));
        let taken = error(
            failed,
            "Couldn't read message reference: 0 fields parsed from response 'OK'",
        );
        assert!(matches!(not_sent(&taken, 1), SendOutcome::Unknown(_)));
    }

    #[test]
    fn of_several_parts_some_may_have_left_before_a_temporary_error() {
        let congested = error(&format!("{MESSAGE}Unknown"), "Unknown message error: 42");
        assert!(matches!(not_sent(&congested, 1), SendOutcome::Refused(_)));
        assert!(matches!(not_sent(&congested, 3), SendOutcome::Unknown(_)));
        let nobody = error(&format!("{MESSAGE}Unknown"), "Unknown message error: 28");
        assert!(matches!(not_sent(&nobody, 3), SendOutcome::Refused(_)));
    }
}
