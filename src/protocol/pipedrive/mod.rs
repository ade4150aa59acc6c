//! The Pipedrive contract: Channels API, manifest endpoints and OAuth.

pub mod channels;
pub mod manifest;
pub mod oauth;
pub mod wire;
