//! Where an answer goes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The hardware's own name for the other side: a phone number, a device or a group. Unique within one channel.
///
/// Personal data: `Debug` shows only its length, so that it does not reach a log by accident.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    /// Longest address that is accepted, in bytes; a longer one is a mapping gone wrong.
    pub const MAX_LEN: usize = 256;

    /// Takes an address that is not empty, has no control characters and at most [`Self::MAX_LEN`] bytes;
    /// surrounding white space is removed.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let fits = !text.is_empty() && text.len() <= Self::MAX_LEN && !text.chars().any(char::is_control);
        fits.then(|| Self(text.to_owned()))
    }

    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({} bytes)", self.0.len())
    }
}
