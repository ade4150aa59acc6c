//! What a broker grants of the subscriptions, and when it is asked again for what it refused.
//!
//! A refusal holds up nothing else: the other topics and the answers work, and an access list that somebody mends
//! takes effect without a new connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, RetainForwardRule, SubscribeReasonCode as Code};
use tokio::time::Instant;

use crate::protocol::retry::Backoff;

const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(2),
    most: Duration::from_secs(60),
};

/// The subscriptions of one connection.
#[derive(Default)]
pub(super) struct Subscribing {
    /// Not granted, with what the broker said; `None` before its first answer.
    missing: BTreeMap<String, Option<Code>>,
    /// In the SUBSCRIBE that is not answered yet, in its order.
    asked: Vec<String>,
    failures: u32,
    again_at: Option<Instant>,
    without_confirmation: bool,
}

impl Subscribing {
    pub(super) fn new(filters: &BTreeSet<String>) -> Self {
        Self {
            missing: filters.iter().map(|filter| (filter.clone(), None)).collect(),
            ..Self::default()
        }
    }

    /// What is to be asked for now.
    pub(super) fn ask(&mut self) -> Vec<Filter> {
        self.again_at = None;
        self.asked = self.missing.keys().cloned().collect();
        let filter = |path: &String| Filter {
            path: path.clone(),
            qos: QoS::AtLeastOnce,
            // What the gateway publishes is no news to it (devices with one topic for both directions).
            nolocal: true,
            preserve_retain: false,
            // Retained messages come with a new subscription only, not after every reconnect.
            retain_forward_rule: RetainForwardRule::OnNewSubscribe,
        };
        self.asked.iter().map(filter).collect()
    }

    /// The broker's answer, in the order of what was asked. True when it changes what is refused.
    pub(super) fn answered(&mut self, codes: &[Code], now: Instant, jitter: u32) -> bool {
        let before = self.missing.clone();
        // A filter that an answer leaves out is not granted.
        let codes = codes.iter().copied().chain(std::iter::repeat(Code::Unspecified));
        for (filter, code) in std::mem::take(&mut self.asked).into_iter().zip(codes) {
            if let Code::Success(qos) = code {
                self.without_confirmation |= qos == QoS::AtMostOnce;
                self.missing.remove(&filter);
            } else {
                self.missing.insert(filter, Some(code));
            }
        }
        self.later(now, jitter);
        self.missing != before
    }

    /// The question could not be sent, or was not granted: it is asked again.
    pub(super) fn later(&mut self, now: Instant, jitter: u32) {
        self.failures = self.failures.saturating_add(1);
        self.again_at = (!self.missing.is_empty()).then(|| now + BACKOFF.pause(self.failures, jitter));
    }

    /// When to ask again.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.again_at
    }

    /// Whether the broker grants QoS 0 only.
    pub(super) const fn is_without_confirmation(&self) -> bool {
        self.without_confirmation
    }

    /// What is refused, why and what to do, for a person; `None` when everything is granted.
    pub(super) fn fault(&self, username: Option<&str>) -> Option<String> {
        let mut by_reason: BTreeMap<(u8, &'static str), (Vec<String>, String)> = BTreeMap::new();
        for (filter, code) in &self.missing {
            let (number, words, remedy) = reason(code.unwrap_or(Code::Unspecified), username);
            let entry = by_reason.entry((number, words)).or_insert((Vec::new(), remedy));
            entry.0.push(format!("{filter:?}"));
        }
        let sentences: Vec<String> = by_reason
            .into_iter()
            .map(|((number, words), (filters, remedy))| {
                format!(
                    "what devices send to {} is not received, because the broker refuses the subscription ({words}, \
                     reason code {number:#04x}): {remedy}",
                    filters.join(", ")
                )
            })
            .collect();
        (!sentences.is_empty()).then(|| {
            let all = sentences.join("; ");
            format!("{all}. The broker is asked again once a minute; nothing needs a restart")
        })
    }
}

/// Number, words and remedy of a reason code: MQTT 5.0, section 3.9.3; MQTT 3.1.1 knows 0x80 only.
fn reason(code: Code, username: Option<&str>) -> (u8, &'static str, String) {
    let access = || {
        let who = username.map_or_else(
            || "the gateway, which has no user name,".to_owned(),
            |name| format!("the user {name:?}"),
        );
        format!("allow {who} to read these topics in the broker's access list")
    };
    let log = || "see the broker's log".to_owned();
    match code {
        Code::NotAuthorized => (0x87, "not authorised", access()),
        Code::TopicFilterInvalid => (
            0x8F,
            "topic not accepted",
            "correct the `topic` of the device's mapping".to_owned(),
        ),
        Code::QuotaExceeded => (
            0x97,
            "too many subscriptions",
            "raise the broker's limit of subscriptions for a client".to_owned(),
        ),
        Code::WildcardSubscriptionsNotSupported => (
            0xA2,
            "no wildcards",
            "write the mapping's `topic` without {…}, + and #, one device for each topic".to_owned(),
        ),
        Code::SharedSubscriptionsNotSupported => (
            0x9E,
            "no shared subscriptions",
            "write the mapping's `topic` without $share".to_owned(),
        ),
        Code::PkidInUse => (0x91, "packet identifier in use", log()),
        Code::SubscriptionIdNotSupported => (0xA1, "no subscription identifiers", log()),
        Code::ImplementationSpecific => (0x83, "refused by a rule of the broker's own", log()),
        Code::Failure | Code::Unspecified | Code::Success(_) => {
            (0x80, "without a reason", format!("{}, or {}", access(), log()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn paths(asked: Vec<Filter>) -> Vec<String> {
        asked.into_iter().map(|filter| filter.path).collect()
    }

    #[test]
    fn only_what_was_refused_is_asked_for_again_and_later_each_time() {
        let now = Instant::now();
        let mut subscribing = Subscribing::new(&filters(&["a", "b", "c"]));
        assert_eq!(paths(subscribing.ask()), ["a", "b", "c"]);
        let granted = Code::Success(QoS::AtLeastOnce);
        assert!(subscribing.answered(&[granted, Code::NotAuthorized, granted], now, u32::MAX));
        assert_eq!(subscribing.due(), Some(now + Duration::from_secs(2)));
        assert_eq!(paths(subscribing.ask()), ["b"]);
        assert_eq!(subscribing.due(), None, "one question at a time");
        assert!(!subscribing.answered(&[Code::NotAuthorized], now, u32::MAX));
        assert_eq!(subscribing.due(), Some(now + Duration::from_secs(4)));
        subscribing.ask();
        assert!(subscribing.answered(&[granted], now, u32::MAX));
        assert_eq!(
            (subscribing.due(), subscribing.fault(None)),
            (None, None),
            "everything is granted"
        );
    }

    #[test]
    fn each_refusal_names_its_topics_its_code_and_what_to_do() {
        let mut subscribing = Subscribing::new(&filters(&["a", "b", "c"]));
        subscribing.ask();
        let codes = [Code::NotAuthorized, Code::QuotaExceeded, Code::NotAuthorized];
        subscribing.answered(&codes, Instant::now(), 0);
        let fault = subscribing.fault(Some("gate")).unwrap();
        for part in [
            "\"a\", \"c\" is not received, because the broker refuses the subscription (not authorised, reason code \
             0x87): allow the user \"gate\" to read",
            "\"b\" is not received",
            "0x97): raise the broker's limit",
        ] {
            assert!(fault.contains(part), "{part} is not in {fault}");
        }
    }

    #[test]
    fn a_filter_that_the_answer_leaves_out_is_not_taken_for_granted() {
        let mut subscribing = Subscribing::new(&filters(&["a", "b"]));
        subscribing.ask();
        subscribing.answered(&[Code::Success(QoS::AtLeastOnce)], Instant::now(), 0);
        assert_eq!(paths(subscribing.ask()), ["b"]);
    }
}
