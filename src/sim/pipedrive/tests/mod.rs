//! Behaviour of the sandbox over real sockets.

mod api;
mod caller;
mod fake;
mod load;
mod oauth;
mod page;
mod rules;
