//! What went through the broker.

/// Counts since the broker's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Clients that were served (CONNACK with success).
    pub connected: u64,
    /// Clients connected now.
    pub connections: u64,
    /// PUBLISH packets that came from clients.
    pub received: u64,
    /// Of these, with DUP.
    pub received_again: u64,
    /// PUBACKs sent to publishers.
    pub pubacks_sent: u64,
    /// PUBACKs that the fault kept back.
    pub pubacks_dropped: u64,
    /// PUBLISH packets written to subscribers, with repetitions.
    pub delivered: u64,
    /// Of these, repeated with DUP after a reconnect.
    pub redelivered: u64,
    /// Of these, made by the duplicate fault.
    pub duplicated: u64,
    /// PUBACKs from subscribers that confirmed a delivery.
    pub acked: u64,
    /// PUBACKs from subscribers for a packet id that was not on the way.
    pub unknown_acks: u64,
    /// Messages kept from a subscriber because it said it takes no packet as large.
    pub too_large: u64,
    /// Messages that went with a session: expired, clean start, or the fault that loses sessions.
    pub lost_with_session: u64,
    /// Wills published.
    pub wills: u64,
    /// Sessions taken over by a second client with the same id.
    pub takeovers: u64,
    /// Clients thrown out because they broke the protocol.
    pub violations: u64,
}
