//! The driver of SMS modems on the simulated modem's pseudo-terminal, with a real store behind it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that meets what it did not expect stops there"
)]

mod chaos;
mod gateway;
mod incoming;
#[cfg(feature = "modem-manager")]
mod manager;
mod nasty;
mod outgoing;
mod trouble;
