//! The mappings that come with the gateway: `config/devices/*.toml`, built in.

use super::error::MappingError;
use super::spec::DeviceSpec;

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        /// Name and text of each preset, in alphabetical order.
        pub const ALL: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../config/devices/", $name, ".toml")))),*];
    };
}

presets!(
    "android-sms-gateway-mqtt",
    "chirpstack",
    "gsm2mqtt",
    "hilinksms2mqtt",
    "home-assistant-sms",
    "meshcore",
    "meshtastic-json",
    "rutos",
    "sms2mqtt",
    "the-things-stack",
);

/// The preset of that name.
///
/// Fails when there is none: the error names the closest ones.
pub fn get(name: &str) -> Result<DeviceSpec, MappingError> {
    let Some((_, text)) = ALL.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        let closest = known
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b)))
            .filter(|known| strsim::jaro_winkler(name, known) > 0.8);
        let remedy = match closest {
            Some(closest) => format!("did you mean {closest:?}?"),
            None => format!("use one of {}", known.join(", ")),
        };
        return Err(MappingError::wrong(
            "preset",
            name,
            "there is no such preset",
            remedy,
        ));
    };
    toml::from_str(text).map_err(|error| {
        MappingError::wrong(
            "preset",
            name,
            error.message(),
            "this is a fault of the gateway: report it",
        )
    })
}
