//! pipepost: a gateway that puts SMS and MQTT messages into Pipedrive's Messaging inbox, and the sales team's
//! answers back on the air.
//!
//! ```text
//!  customer ──SMS──► modem ─┐                                                    ┌─► Pipedrive Channels API
//!                           ├─ driver ─► store ─► queue::to_uplink ─► uplink ────┘
//!  customer ─MQTT─► device ─┘   ▲  (durable before
//!                               │   the hardware is acknowledged)
//!                               │
//!  modem/device ◄── driver ◄── queue::to_hardware ◄── store ◄── manifest server (rustls) ◄──tunnel── Pipedrive
//! ```
//!
//! **incoming** is customer → Pipedrive, **outgoing** is agent → customer. A message never skips the store.

pub mod app;
pub mod cli;
pub mod config;
pub mod control;
pub mod domain;
pub mod driver;
pub mod http;
pub mod logging;
pub mod manifest;
pub mod metrics;
pub mod protocol;
pub mod queue;
#[cfg(feature = "demo")]
pub mod sim;
pub mod store;
pub mod systemd;
pub mod uplink;
