//! Topic + payload ↔ message, by declarative mappings.

mod describe;
mod error;
mod extract;
mod files;
mod mapping;
pub mod presets;
pub mod spec;
mod suggest;
mod time;
mod topic;
mod write;

pub use describe::{Listening, describe_test, describe_verdict, visible};
pub use error::MappingError;
pub use mapping::{Mapping, Packet, Read};
pub use spec::DeviceSpec;
pub use suggest::suggest;
pub use write::{Publish, WriteError};

/// The mapping with its preset filled in; without a preset, the mapping itself.
pub fn resolve(spec: &DeviceSpec) -> Result<DeviceSpec, MappingError> {
    match &spec.preset {
        Some(name) => Ok(spec.clone().over(presets::get(name)?)),
        None => Ok(spec.clone()),
    }
}

#[cfg(test)]
mod preset_tests;
#[cfg(test)]
mod tests;
