//! The whole daemon as its users meet it: a process with a configuration file, a real mosquitto, and the Pipedrive
//! sandbox over TLS.

#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that meets what it did not expect stops there"
)]

mod chaos;
mod commands;
mod connect;
mod demo;
mod files;
mod life;
mod pace;
mod people;
mod sms;
mod sms_chaos;
mod support;
mod travel;
