//! Unguessable, expiring links to files.
