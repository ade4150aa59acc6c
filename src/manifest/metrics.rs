//! What the listener counts.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use crate::domain::Timestamp;

/// Names under which requests are counted: the manifest's keys, and what else there is.
const ENDPOINTS: [&str; 11] = [
    "getConversations",
    "getConversationById",
    "postMessage",
    "getSenderById",
    "getTemplates",
    "getMessageById",
    "deleteChannelById",
    "health",
    "media",
    "oauth",
    "other",
];
const STATUSES: [u16; 16] = [
    200, 206, 400, 401, 403, 404, 405, 408, 413, 414, 415, 416, 429, 431, 500, 503,
];

/// Counters of one listener; they only grow, except for open connections.
#[derive(Default)]
pub struct Metrics {
    requests: [[AtomicU64; STATUSES.len()]; ENDPOINTS.len()],
    accepted: AtomicU64,
    open: AtomicU64,
    turned_away: AtomicU64,
    displaced: AtomicU64,
    broken_handshakes: AtomicU64,
    auth_failures: AtomicU64,
    last_from_pipedrive: AtomicI64,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Requests by endpoint and HTTP status, those that happened.
    pub requests: Vec<(&'static str, u16, u64)>,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections open now.
    pub open: u64,
    /// Connections closed at once because all places were taken.
    pub turned_away: u64,
    /// Connections that had to make room for others, slow and idle ones first.
    pub displaced: u64,
    /// TLS handshakes that failed or took too long.
    pub broken_handshakes: u64,
    /// Requests without the right credentials.
    pub auth_failures: u64,
    /// When the last request with the right credentials came.
    pub last_from_pipedrive: Option<Timestamp>,
}

impl Metrics {
    pub(super) fn request(&self, endpoint: &str, status: u16) {
        let endpoint = ENDPOINTS
            .iter()
            .position(|name| *name == endpoint)
            .unwrap_or(ENDPOINTS.len() - 1);
        let status = STATUSES.iter().position(|known| *known == status);
        let counter = self.requests.get(endpoint).and_then(|row| row.get(status?));
        if let Some(counter) = counter {
            counter.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn connection_opened(&self) {
        self.accepted.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
    }

    pub(super) fn connection_closed(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    pub(super) fn turned_away(&self) {
        self.turned_away.fetch_add(1, Relaxed);
    }

    pub(super) fn displaced(&self) {
        self.displaced.fetch_add(1, Relaxed);
    }

    pub(super) fn broken_handshake(&self) {
        self.broken_handshakes.fetch_add(1, Relaxed);
    }

    pub(super) fn auth_failure(&self) {
        self.auth_failures.fetch_add(1, Relaxed);
    }

    pub(super) fn heard_from_pipedrive(&self, now: Timestamp) {
        self.last_from_pipedrive.store(now.unix_ms(), Relaxed);
    }

    /// Reads all counters.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let last = self.last_from_pipedrive.load(Relaxed);
        Snapshot {
            requests: self.counted().collect(),
            accepted: self.accepted.load(Relaxed),
            open: self.open.load(Relaxed),
            turned_away: self.turned_away.load(Relaxed),
            displaced: self.displaced.load(Relaxed),
            broken_handshakes: self.broken_handshakes.load(Relaxed),
            auth_failures: self.auth_failures.load(Relaxed),
            last_from_pipedrive: (last != 0).then(|| Timestamp::from_unix_ms(last)),
        }
    }

    fn counted(&self) -> impl Iterator<Item = (&'static str, u16, u64)> {
        ENDPOINTS.iter().zip(&self.requests).flat_map(|(endpoint, row)| {
            STATUSES
                .iter()
                .zip(row)
                .map(|(status, count)| (*endpoint, *status, count.load(Relaxed)))
                .filter(|(_, _, count)| *count != 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::pipedrive::manifest::Code;

    #[test]
    fn requests_are_counted_by_endpoint_and_status() {
        let metrics = Metrics::default();
        metrics.request("postMessage", 200);
        metrics.request("postMessage", 200);
        metrics.request("no such endpoint", 404);
        assert_eq!(
            metrics.snapshot().requests,
            [("postMessage", 200, 2), ("other", 404, 1)]
        );
        assert_eq!(metrics.snapshot().last_from_pipedrive, None);
    }

    #[test]
    fn every_failure_has_a_counter() {
        for code in [
            Code::InvalidBody,
            Code::Unauthorized,
            Code::Forbidden,
            Code::NotFound,
            Code::RateLimitExceeded,
            Code::InvalidRequest,
            Code::MethodNotAllowed,
            Code::RequestTimeout,
            Code::PayloadTooLarge,
            Code::UriTooLong,
            Code::UnsupportedMediaType,
            Code::RangeNotSatisfiable,
            Code::RequestHeadersTooLarge,
            Code::InternalError,
            Code::ServiceUnavailable,
        ] {
            assert!(STATUSES.contains(&code.status()), "{code:?}");
        }
    }
}
