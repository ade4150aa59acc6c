//! The wall clock, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::domain::Timestamp;

/// Now. A clock before 1970 counts as 1970.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
