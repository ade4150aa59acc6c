//! The listener that Pipedrive calls: TLS, limits, Basic authentication, the seven manifest endpoints, links to
//! files and `/healthz`.
//!
//! What a request means and what an answer looks like is decided in
//! [`protocol::pipedrive::manifest`](crate::protocol::pipedrive::manifest), without sockets; this room adds the
//! sockets, the store and the limits:
//!
//! ```text
//! listener (places, TLS, crowd) ─► guard (timers) ─► hyper ─► service (shape, credentials, route) ─► api │ post │ files
//! ```
//!
//! Every failure that reaches `service` has Pipedrive's error shape. Only what hyper cannot read as HTTP at all is
//! answered by hyper itself, with a bare status, and the connection closes.

mod api;
mod auth;
mod avatar;
mod callback;
mod clock;
mod crowd;
mod files;
mod guard;
mod listener;
mod metrics;
mod post;
mod reads;
mod reply;
mod service;
#[cfg(test)]
mod tests;
mod tls;

pub use callback::{Callback, Pending};
pub use listener::{Handle, ListenError, Listener};
pub use metrics::{Metrics, Snapshot};
pub use tls::CertificateError;
