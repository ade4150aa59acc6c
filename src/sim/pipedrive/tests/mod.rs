//! Behaviour of the sandbox over real sockets.

mod api;
mod fake;
mod page;
