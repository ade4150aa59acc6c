//! The Channels API: request bodies, and what each answer means.
