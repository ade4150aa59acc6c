//! Bytes and time in, commands out: no tokio, no sockets, no clock.

pub mod avatar;
pub mod budget;
pub mod contacts;
pub mod file;
pub mod media;
pub mod mqtt;
pub mod pipedrive;
pub mod retry;
pub mod sms;
