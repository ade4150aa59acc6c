//! Topic + payload ↔ message, by declarative mappings.

/// The mapping of one device, as in `[[device]]` and in the presets.
#[derive(Clone, Debug)]
pub struct DeviceSpec {}
