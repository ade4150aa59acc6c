//! The Pipedrive contract: Channels API and manifest endpoints.

pub mod channels;
pub mod manifest;
pub mod wire;
