//! Moves stored messages on: store → uplink and store → drivers.
