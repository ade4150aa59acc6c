//! Topic + payload ↔ message, by declarative mappings.

mod error;
pub mod presets;
pub mod spec;

pub use error::MappingError;
pub use spec::DeviceSpec;

/// A mapping that was checked and is ready to use.
#[derive(Clone, Debug)]
pub struct Mapping {}

impl Mapping {
    /// Checks a mapping, with its preset filled in, and makes it ready.
    pub fn compile(spec: &DeviceSpec) -> Result<Self, MappingError> {
        let _spec = resolve(spec)?;
        Ok(Self {})
    }
}

/// The mapping with its preset filled in; without a preset, the mapping itself.
pub fn resolve(spec: &DeviceSpec) -> Result<DeviceSpec, MappingError> {
    match &spec.preset {
        Some(name) => Ok(spec.clone().over(presets::get(name)?)),
        None => Ok(spec.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_readable() {
        assert!(!presets::ALL.is_empty());
        for (name, _) in presets::ALL {
            let spec = DeviceSpec {
                preset: Some((*name).to_owned()),
                ..DeviceSpec::default()
            };
            Mapping::compile(&spec).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn a_wrong_preset_name_gets_the_closest_one_as_a_remedy() {
        let error = presets::get("sms2mqt").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`preset` is \"sms2mqt\": there is no such preset; did you mean \"sms2mqtt\"?"
        );
    }
}
