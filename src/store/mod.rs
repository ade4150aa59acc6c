//! The embedded store: the only room that names sled.
