//! What a broker can do wrong, switchable while it runs.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Every delivery comes a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Duplicate {
    /// Once, as it should be.
    Off,
    /// The second copy carries DUP and the same packet id, as a 3.1.1 broker that lost patience sends it.
    Marked,
    /// The second copy is a delivery of its own, as two bridges between the same brokers make it.
    Unmarked,
}

/// What happens to a client that connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refuse {
    /// It is served.
    No,
    /// The connection is closed without a word.
    Close,
    /// CONNACK says "server unavailable".
    Unavailable,
    /// CONNACK says "not authorised".
    NotAuthorized,
}

/// Always, in the counter of dropped acknowledgements.
const ALWAYS: u64 = u64::MAX;

/// Switches for the broker's faults. Clones switch the same broker. All are off at the start.
#[derive(Clone, Debug)]
pub struct Faults {
    shared: Arc<Switches>,
}

#[derive(Debug)]
struct Switches {
    drop_pubacks: AtomicU64,
    lose_sessions: AtomicBool,
    duplicate: AtomicU8,
    reorder: AtomicBool,
    ignore_packet_limit: AtomicBool,
    grant_qos_0: AtomicBool,
    refused_filter: Mutex<Option<String>>,
    refuse: AtomicU8,
    frozen: watch::Sender<bool>,
    close_all: watch::Sender<u64>,
}

impl Faults {
    pub(super) fn new() -> Self {
        Self {
            shared: Arc::new(Switches {
                drop_pubacks: AtomicU64::new(0),
                lose_sessions: AtomicBool::new(false),
                duplicate: AtomicU8::new(0),
                reorder: AtomicBool::new(false),
                ignore_packet_limit: AtomicBool::new(false),
                grant_qos_0: AtomicBool::new(false),
                refused_filter: Mutex::new(None),
                refuse: AtomicU8::new(0),
                frozen: watch::Sender::new(false),
                close_all: watch::Sender::new(0),
            }),
        }
    }

    /// The next `count` PUBACKs to publishers are not sent; their messages are delivered all the same.
    pub fn drop_next_pubacks(&self, count: u64) {
        self.shared
            .drop_pubacks
            .store(count.min(ALWAYS - 1), Ordering::SeqCst);
    }

    /// No PUBACK is sent to publishers while this is on.
    pub fn drop_all_pubacks(&self, on: bool) {
        self.shared
            .drop_pubacks
            .store(if on { ALWAYS } else { 0 }, Ordering::SeqCst);
    }

    /// A client that reconnects finds no session: its subscriptions and what waited for it are gone.
    pub fn lose_sessions(&self, on: bool) {
        self.shared.lose_sessions.store(on, Ordering::SeqCst);
    }

    /// Every delivery to a subscriber comes twice.
    pub fn duplicate(&self, how: Duplicate) {
        self.shared.duplicate.store(how as u8, Ordering::SeqCst);
    }

    /// Messages that wait for a subscriber overtake each other where their topics differ. Within one topic the order
    /// stays, as the specification demands.
    pub fn reorder_across_topics(&self, on: bool) {
        self.shared.reorder.store(on, Ordering::SeqCst);
    }

    /// Connections are accepted and kept open, and nothing is read or answered, not even CONNECT.
    pub fn freeze(&self, on: bool) {
        self.shared.frozen.send_replace(on);
    }

    /// Cuts every connection without DISCONNECT; wills are published.
    pub fn close_all_connections(&self) {
        self.shared
            .close_all
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// What happens to clients that connect from now on.
    pub fn refuse(&self, how: Refuse) {
        self.shared.refuse.store(how as u8, Ordering::SeqCst);
    }

    /// Messages larger than the maximum packet size that a subscriber stated are delivered to it nevertheless. Without
    /// this fault they are not delivered, as the specification demands.
    pub fn ignore_packet_limit(&self, on: bool) {
        self.shared.ignore_packet_limit.store(on, Ordering::SeqCst);
    }

    /// Subscriptions are granted QoS 0 only, whatever was asked for.
    pub fn grant_qos_0_only(&self, on: bool) {
        self.shared.grant_qos_0.store(on, Ordering::SeqCst);
    }

    /// Subscriptions to this filter are refused as not authorised; those made before stay.
    pub fn refuse_subscription(&self, filter: Option<&str>) {
        let mut refused = self
            .shared
            .refused_filter
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *refused = filter.map(str::to_owned);
    }

    /// Whether a subscription to this filter is refused.
    pub(super) fn refuses_subscription(&self, filter: &str) -> bool {
        self.shared
            .refused_filter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_deref()
            == Some(filter)
    }

    /// Whether subscriptions get QoS 0 only.
    pub(super) fn grants_qos_0_only(&self) -> bool {
        self.shared.grant_qos_0.load(Ordering::SeqCst)
    }

    /// Whether this PUBACK is to be dropped.
    pub(super) fn takes_puback(&self) -> bool {
        self.shared
            .drop_pubacks
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
                0 => None,
                ALWAYS => Some(ALWAYS),
                left => Some(left - 1),
            })
            .is_ok()
    }

    pub(super) fn loses_sessions(&self) -> bool {
        self.shared.lose_sessions.load(Ordering::SeqCst)
    }

    pub(super) fn duplicates(&self) -> Duplicate {
        match self.shared.duplicate.load(Ordering::SeqCst) {
            1 => Duplicate::Marked,
            2 => Duplicate::Unmarked,
            _ => Duplicate::Off,
        }
    }

    pub(super) fn reorders(&self) -> bool {
        self.shared.reorder.load(Ordering::SeqCst)
    }

    pub(super) fn ignores_packet_limit(&self) -> bool {
        self.shared.ignore_packet_limit.load(Ordering::SeqCst)
    }

    pub(super) fn refusal(&self) -> Refuse {
        match self.shared.refuse.load(Ordering::SeqCst) {
            1 => Refuse::Close,
            2 => Refuse::Unavailable,
            3 => Refuse::NotAuthorized,
            _ => Refuse::No,
        }
    }

    pub(super) fn is_frozen(&self) -> bool {
        *self.shared.frozen.borrow()
    }

    /// Returns at once unless the broker is frozen.
    pub(super) async fn thawed(&self) {
        let mut frozen = self.shared.frozen.subscribe();
        // The sender lives in `self`, so this cannot fail.
        drop(frozen.wait_for(|frozen| !frozen).await);
    }

    pub(super) fn closings(&self) -> watch::Receiver<u64> {
        self.shared.close_all.subscribe()
    }
}
