//! Which publish is how far: handed to the library, written, acknowledged.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{PubAck, PubAckReason};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::domain::Attempt;

/// How long a broker may take to acknowledge.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Whose publish it is.
pub(super) enum Origin {
    /// An agent's answer.
    Job(oneshot::Sender<Attempt>),
    /// The gateway's own state.
    Own,
}

impl Origin {
    fn settle(self, outcome: Attempt) {
        if let Self::Job(sender) = self {
            // The queue may have gone; the store knows the message as attempted then.
            drop(sender.send(outcome));
        }
    }
}

/// The publishes of one connection.
#[derive(Default)]
pub(super) struct Ledger {
    /// Handed to the library, in this order.
    submitted: VecDeque<Origin>,
    /// Written, by packet identifier.
    written: HashMap<u16, (Origin, Instant)>,
}

impl Ledger {
    pub(super) fn submit(&mut self, origin: Origin) {
        self.submitted.push_back(origin);
    }

    /// How many are not settled.
    pub(super) fn open(&self) -> usize {
        self.submitted.len() + self.written.len()
    }

    /// The library has written the next one. QoS 0 (identifier 0) is settled with that.
    pub(super) fn written(&mut self, packet_id: u16, now: Instant) {
        let Some(origin) = self.submitted.pop_front() else {
            return;
        };
        if packet_id == 0 {
            origin.settle(Attempt::Sent);
        } else if let Some((stuck, _)) = self.written.insert(packet_id, (origin, now)) {
            stuck.settle(unanswered());
        }
    }

    pub(super) fn acknowledged(&mut self, ack: &PubAck) {
        if let Some((origin, _)) = self.written.remove(&ack.pkid) {
            origin.settle(outcome(ack.reason));
        }
    }

    /// When the broker's time for the oldest one is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.written.values().map(|(_, since)| *since + PATIENCE).min()
    }

    /// The connection is gone. What was written may have reached the broker or not. It is not sent again silently:
    /// for a QoS 1 publish the broker could not tell that from a second message, and the customer would get two.
    pub(super) fn connection_lost(&mut self) {
        for (_, (origin, _)) in self.written.drain() {
            origin.settle(unanswered());
        }
        for origin in self.submitted.drain(..) {
            origin.settle(Attempt::NotStarted(
                "the connection to the broker was lost before it went out".to_owned(),
            ));
        }
    }
}

fn unanswered() -> Attempt {
    Attempt::Unknown(
        "it was sent to the broker, and the connection was lost before the broker confirmed it".to_owned(),
    )
}

fn outcome(reason: PubAckReason) -> Attempt {
    let rejected = |words: &str| Attempt::Rejected(words.to_owned());
    match reason {
        PubAckReason::Success => Attempt::Sent,
        PubAckReason::NoMatchingSubscribers => rejected(
            "no device is subscribed to its topic: is the device switched on and connected to the broker?",
        ),
        PubAckReason::NotAuthorized => rejected(
            "the broker does not allow the gateway to publish on the device's topic: check its access list",
        ),
        PubAckReason::QuotaExceeded => rejected("the broker has no room for the message (quota exceeded)"),
        PubAckReason::TopicNameInvalid => rejected("the broker does not accept the topic of `out`"),
        PubAckReason::PayloadFormatInvalid => rejected("the broker does not accept the payload of `out`"),
        PubAckReason::UnspecifiedError
        | PubAckReason::ImplementationSpecificError
        | PubAckReason::PacketIdentifierInUse => rejected("the broker refused it without a reason"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(ledger: &mut Ledger) -> oneshot::Receiver<Attempt> {
        let (sender, receiver) = oneshot::channel();
        ledger.submit(Origin::Job(sender));
        receiver
    }

    #[test]
    fn an_acknowledgement_finds_its_publish_also_out_of_order() {
        let mut ledger = Ledger::default();
        let (mut first, mut second, mut third) = (job(&mut ledger), job(&mut ledger), job(&mut ledger));
        for packet_id in [1, 2, 0] {
            ledger.written(packet_id, Instant::now());
        }
        assert_eq!(
            third.try_recv(),
            Ok(Attempt::Sent),
            "QoS 0 is settled when it is written"
        );
        let mut ack = PubAck::new(2, None);
        ack.reason = PubAckReason::NotAuthorized;
        ledger.acknowledged(&ack);
        assert!(matches!(second.try_recv(), Ok(Attempt::Rejected(_))));
        assert!(first.try_recv().is_err());
        ledger.acknowledged(&PubAck::new(1, None));
        assert_eq!(first.try_recv(), Ok(Attempt::Sent));
        assert_eq!(ledger.open(), 0);
    }

    #[test]
    fn a_lost_connection_leaves_only_written_publishes_unknown() {
        let mut ledger = Ledger::default();
        let (mut first, mut second) = (job(&mut ledger), job(&mut ledger));
        ledger.written(1, Instant::now());
        ledger.connection_lost();
        assert!(matches!(first.try_recv(), Ok(Attempt::Unknown(_))));
        assert!(matches!(second.try_recv(), Ok(Attempt::NotStarted(_))));
    }
}
