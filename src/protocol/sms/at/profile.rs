//! What modem families need beside the standards.

/// A family of modems.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// The standards alone.
    #[default]
    Generic,
    /// `SIMCom` SIM800 and its relatives: 2G.
    Sim800,
    /// `SIMCom` SIM7600 and its relatives: LTE.
    Sim7600,
    /// Quectel EC25, EC21, EG25 and relatives: LTE.
    Ec25,
    /// Huawei sticks (E-series, ME909).
    Huawei,
}

impl Profile {
    /// All of them, with the names of the configuration.
    pub const ALL: [(&'static str, Self); 5] = [
        ("generic", Self::Generic),
        ("sim800", Self::Sim800),
        ("sim7600", Self::Sim7600),
        ("ec25", Self::Ec25),
        ("huawei", Self::Huawei),
    ];

    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Sim800 => "sim800",
            Self::Sim7600 => "sim7600",
            Self::Ec25 => "ec25",
            Self::Huawei => "huawei",
        }
    }

    /// The family of a modem that says this of itself.
    #[must_use]
    pub fn detect(manufacturer: &str, model: &str) -> Self {
        let (manufacturer, model) = (manufacturer.to_ascii_lowercase(), model.to_ascii_lowercase());
        if manufacturer.contains("huawei") {
            Self::Huawei
        } else if manufacturer.contains("quectel") {
            Self::Ec25
        } else if ["sim7", "sim8200", "a76"].iter().any(|name| model.contains(name)) {
            Self::Sim7600
        } else if manufacturer.contains("simcom") || model.contains("sim8") || model.contains("sim9") {
            Self::Sim800
        } else {
            Self::Generic
        }
    }

    /// Commands behind the identification. A refusal of one does no harm.
    pub(super) const fn commands(self) -> &'static [&'static str] {
        match self {
            Self::Generic | Self::Sim800 | Self::Sim7600 => &[],
            // News go to one port only, and not to this one unless it is told so. What is lost on older firmware
            // that does not know "all" is found by the regular look at the memory.
            Self::Ec25 => &["AT+QURCCFG=\"urcport\",\"all\""],
            // Signal reports every few seconds otherwise.
            Self::Huawei => &["AT^CURC=0"],
        }
    }

    /// How a USSD code is written: Huawei takes packed septets as hexadecimal digits.
    #[must_use]
    pub const fn packs_ussd(self) -> bool {
        matches!(self, Self::Huawei)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_known_by_what_modems_say_of_themselves() {
        for (manufacturer, model, expected) in [
            ("SIMCOM_Ltd", "SIMCOM_SIM800L", Profile::Sim800),
            ("SIMCOM INCORPORATED", "SIMCOM_SIM7600E-H", Profile::Sim7600),
            ("Quectel", "EC25", Profile::Ec25),
            ("huawei", "E3131", Profile::Huawei),
            ("Huawei Technologies Co., Ltd.", "ME909s-120", Profile::Huawei),
            ("Telit", "LE910", Profile::Generic),
        ] {
            assert_eq!(Profile::detect(manufacturer, model), expected, "{model}");
        }
    }

    #[test]
    fn every_profile_has_its_name() {
        for (name, profile) in Profile::ALL {
            assert_eq!(profile.name(), name);
        }
    }
}
