//! Shapes that the Channels API and the manifest endpoints share.
