//! The MQTT driver against real mosquitto and against a broker with faults.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "these are tests")]

#[cfg(feature = "demo")]
mod faults;
mod gateway;
mod listening;
mod mosquitto;
#[path = "../support/mosquitto.rs"]
mod mosquitto_support;
mod older;
#[cfg(feature = "demo")]
mod refused;
