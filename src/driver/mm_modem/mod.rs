//! SMS modems through `ModemManager`'s D-Bus API: LTE modems that speak QMI or MBIM, and others that it has taken.
//!
//! ```text
//!                         D-Bus      ┌──── connection ────┐ messages ┌── intake ──┐
//!  modem ◄─► ModemManager ◄─────────►│ looks at modem and ├─────────►│ (driver/   │
//!                                    │ messages, sends,   │◄─────────┤  sms)      │
//!                                    │ deletes            │   done   └────────────┘
//!                                    └────────────────────┘
//! ```
//!
//! A signal is a reason to look and nothing else: what is there is read anew each time, so that a lost signal, a
//! restart of `ModemManager` and a replugged modem need no code of their own. A message is deleted only after the store
//! has synced it; what comes again after a crash in between is recognised by number, time, text and SIM.
//!
//! `ModemManager` joins and decodes messages itself, and keeps some from us: docs/modems.md.

mod bus;
mod calls;
mod connection;
mod failure;
mod inbox;
mod message;
mod modem;

use super::sms::Edge;

const MODEM: &str = "org.freedesktop.ModemManager1.Modem";
const MESSAGING: &str = "org.freedesktop.ModemManager1.Modem.Messaging";
const NETWORK: &str = "org.freedesktop.ModemManager1.Modem.Modem3gpp";
const USSD: &str = "org.freedesktop.ModemManager1.Modem.Modem3gpp.Ussd";
const SIM: &str = "org.freedesktop.ModemManager1.Sim";
const SMS: &str = "org.freedesktop.ModemManager1.Sms";

/// Works until the gateway stops.
pub(super) async fn run(edge: Edge) {
    connection::Connection::new(edge).run().await;
}
