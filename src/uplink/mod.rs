//! Where stored messages and statuses are delivered.
