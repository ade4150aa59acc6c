//! Simulators that demo and tests run the real edges against.

pub mod broker;
pub mod devices;
pub mod modem;
pub mod pipedrive;
