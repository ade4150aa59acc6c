//! What a modem's error codes mean for the message and for the modem (3GPP TS 27.005, section 3.2.5;
//! 3GPP TS 27.007, section 9.2; 3GPP TS 24.011, annex E).

use std::fmt;

/// Why a modem refused a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModemError {
    /// `+CMS ERROR: n`
    Cms(u16),
    /// `+CME ERROR: n`
    Cme(u16),
    /// `ERROR` without a reason.
    Plain,
}

impl ModemError {
    /// Whether this message will never be taken: another attempt would cost time and fail again.
    #[must_use]
    pub const fn is_permanent(self) -> bool {
        matches!(
            self,
            Self::Cms(1 | 8 | 10 | 27 | 28 | 30 | 50 | 69 | 195 | 196 | 304 | 305)
        )
    }

    /// Whether the modem or its SIM cannot send anything at the moment: the queue is kept until it can.
    #[must_use]
    pub const fn requires_pause(self) -> bool {
        match self {
            Self::Cms(code) => matches!(code, 29 | 310..=313 | 315..=318 | 330),
            // SIM absent, locked, broken or of the wrong operator; no network; emergency calls only.
            Self::Cme(code) => matches!(code, 5 | 6 | 7 | 10..=13 | 15..=18 | 30 | 32 | 40..=47),
            Self::Plain => false,
        }
    }

    /// Whether it may have been sent although the modem reports an error.
    #[must_use]
    pub const fn may_have_been_sent(self) -> bool {
        // No network timeout: the network's answer is missing, not its refusal.
        matches!(self, Self::Cms(332) | Self::Cme(31))
    }

    /// Whether the service centre has the message already and will send it.
    #[must_use]
    pub const fn counts_as_sent(self) -> bool {
        matches!(self, Self::Cms(197))
    }

    /// Whether the place in the memory is empty.
    #[must_use]
    pub const fn is_gone(self) -> bool {
        matches!(self, Self::Cms(321) | Self::Cme(21 | 22))
    }

    /// Whether the modem only says that it waited for no acknowledgement.
    #[must_use]
    pub const fn is_ignorable(self) -> bool {
        matches!(self, Self::Cms(340))
    }

    /// Whether the SIM has no room left.
    #[must_use]
    pub const fn is_storage_full(self) -> bool {
        matches!(self, Self::Cms(322) | Self::Cme(20))
    }

    /// Whether the SIM is not ready yet and will be in a moment.
    #[must_use]
    pub const fn is_busy(self) -> bool {
        matches!(self, Self::Cms(314) | Self::Cme(14))
    }

    /// Whether another attempt after a while makes sense, a limited number of times.
    #[must_use]
    pub const fn is_temporary(self) -> bool {
        !self.is_permanent()
            && !self.requires_pause()
            && !self.may_have_been_sent()
            && !self.counts_as_sent()
            && !self.is_gone()
    }

    /// The code's meaning for a person; `None` for a code that the specifications do not name.
    #[must_use]
    pub const fn meaning(self) -> Option<&'static str> {
        match self {
            Self::Cms(code) => cms(code),
            Self::Cme(code) => cme(code),
            Self::Plain => None,
        }
    }
}

impl fmt::Display for ModemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, code) = match self {
            Self::Cms(code) => ("CMS", code),
            Self::Cme(code) => ("CME", code),
            Self::Plain => return f.write_str("the modem answered ERROR without a reason"),
        };
        match self.meaning() {
            Some(meaning) => write!(f, "{meaning} ({name} error {code})"),
            None => write!(f, "{name} error {code}"),
        }
    }
}

const fn cms(code: u16) -> Option<&'static str> {
    Some(match code {
        1 => "the number is not assigned to anybody",
        8 => "the operator bars this number or service",
        10 => "the operator bars outgoing calls and messages of this SIM",
        17 => "the network failed",
        21 => "the network refused the message: often no credit is left",
        22 => "the memory of the receiving phone is full",
        27 => "the recipient's phone is switched off or its number is out of service",
        28 => "the network does not know the recipient",
        29 => "the network refused the service",
        30 => "the network does not know this SIM: is it active?",
        38 => "the network is out of order",
        41 => "the network failed for a moment",
        42 => "the network is congested",
        47 => "the network has no resources free",
        50 => "text messages are not booked for this SIM",
        69 => "the network does not offer this",
        192 => "the service centre is busy",
        194 => "the service centre's system failed",
        195 => "the service centre's address is wrong",
        196 => "the recipient's number has an invalid form",
        197 => "the service centre has this message already",
        300 => "the modem failed",
        301 => "the modem has reserved its message service",
        302 => "the modem does not allow this",
        303 => "the modem does not support this",
        304 => "the modem finds the message's octets invalid",
        305 => "the modem finds a parameter of the message invalid",
        310 => "no SIM is inserted",
        311 => "the SIM wants its PIN",
        312 => "the phone wants its own PIN",
        313 => "the SIM failed",
        314 => "the SIM is busy",
        315 => "the SIM is of the wrong kind",
        316 => "the SIM wants its PUK",
        317 => "the SIM wants its second PIN",
        318 => "the SIM wants its second PUK",
        320 => "the modem's message memory failed",
        321 => "there is no message in this place of the memory",
        322 => "the message memory is full",
        330 => "the address of the service centre is not known: set it on the SIM",
        331 => "there is no network",
        332 => "the network did not answer in time",
        340 => "no acknowledgement was expected",
        500 => "the modem does not know why",
        _ => return None,
    })
}

const fn cme(code: u16) -> Option<&'static str> {
    Some(match code {
        3 => "the modem does not allow this now",
        4 => "the modem does not support this",
        5 => "the phone is locked to its SIM",
        10 => "no SIM is inserted",
        11 => "the SIM wants its PIN",
        12 => "the SIM wants its PUK",
        13 => "the SIM failed",
        14 => "the SIM is busy",
        15 => "the SIM is of the wrong kind",
        16 => "the PIN is wrong",
        17 => "the SIM wants its second PIN",
        18 => "the SIM wants its second PUK",
        20 => "the memory is full",
        21 | 22 => "there is nothing in this place",
        30 => "there is no network",
        31 => "the network did not answer in time",
        32 => "the network allows emergency calls only",
        40..=47 => "the modem is locked to another network or operator",
        50 => "a parameter is wrong",
        100 => "the modem does not know why",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_of_the_network_leads_to_the_decision_that_keeps_messages_and_money() {
        for code in [1, 8, 10, 27, 28, 30, 50, 69, 195, 196, 304, 305] {
            assert!(ModemError::Cms(code).is_permanent(), "{code}");
        }
        for code in [29, 310, 311, 312, 313, 315, 316, 317, 318, 330] {
            assert!(ModemError::Cms(code).requires_pause(), "{code}");
        }
        for code in [38, 41, 42, 47, 192, 194, 314, 331, 500] {
            assert!(ModemError::Cms(code).is_temporary(), "{code}");
        }
        assert!(ModemError::Cms(332).may_have_been_sent());
        assert!(ModemError::Cms(197).counts_as_sent());
        assert!(ModemError::Cms(321).is_gone());
        assert!(ModemError::Cms(340).is_ignorable());
        assert!(ModemError::Cms(322).is_storage_full());
    }

    #[test]
    fn no_code_belongs_to_two_decisions() {
        for code in 0..=600 {
            for error in [ModemError::Cms(code), ModemError::Cme(code)] {
                let decisions = [
                    error.is_permanent(),
                    error.requires_pause(),
                    error.may_have_been_sent(),
                    error.counts_as_sent(),
                    error.is_gone(),
                    error.is_temporary(),
                ];
                assert_eq!(decisions.iter().filter(|yes| **yes).count(), 1, "{error:?}");
            }
        }
    }

    #[test]
    fn a_code_without_a_name_is_still_shown() {
        assert_eq!(ModemError::Cms(517).to_string(), "CMS error 517");
        assert_eq!(
            ModemError::Cms(28).to_string(),
            "the network does not know the recipient (CMS error 28)"
        );
    }
}
