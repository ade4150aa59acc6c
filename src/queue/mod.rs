//! Moves stored messages on: store → uplink and store → drivers.

pub mod to_hardware;
pub mod to_uplink;
