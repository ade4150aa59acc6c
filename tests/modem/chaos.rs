//! Many texts while the driver is killed and the modem restarts: none lost, none stored twice, none sent twice
//! silently.

use std::collections::BTreeMap;
use std::time::Duration;

use pipepost::domain::*;
use pipepost::sim::modem::{Engine, Options};

use crate::gateway::*;

/// Texts from customers; a third has several parts.
const INCOMING: usize = 150;
const OUTGOING: usize = 40;
/// How often the driver is killed.
const KILLS: usize = 6;

#[tokio::test]
async fn kills_and_restarts_lose_nothing_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(
        folder.path(),
        Options {
            sim_places: 20,
            ..talkative()
        },
    );
    let text = |number: usize| {
        let long = if number.is_multiple_of(3) {
            "and on it goes. ".repeat(15)
        } else {
            String::new()
        };
        format!("text {number} {long}")
    };
    let mut expected: Vec<(String, String)> = Vec::new();
    let mut outcomes: BTreeMap<MessageId, (String, Option<Attempt>)> = BTreeMap::new();
    let (mut written, mut sent) = (0, 0);
    for round in 0..=KILLS {
        let mut gateway = Gateway::start(folder.path());
        gateway.up().await;
        let until = INCOMING * (round + 1) / (KILLS + 1);
        while written < until {
            let from = format!("+3161234{:04}", written % 7);
            modem.with(|engine| {
                let at = engine.wall_time();
                engine.text(&pipepost::sim::modem::pdu::Text {
                    reference: u16::try_from(written % 256).unwrap(),
                    ..pipepost::sim::modem::pdu::Text::new(&from, &text(written), at)
                });
            });
            expected.push((from, text(written)));
            written += 1;
        }
        let until = OUTGOING * (round + 1) / (KILLS + 1);
        while sent < until {
            let to = format!("+3168765{sent:04}");
            let (id, outcome) = gateway.submit(&to, &format!("answer {sent}")).await;
            sent += 1;
            // The last one of a round may be cut off by the kill.
            let limit = if sent == until {
                Duration::from_millis(30)
            } else {
                LIMIT
            };
            let outcome = tokio::time::timeout(limit, outcome)
                .await
                .ok()
                .map(Result::unwrap);
            if let Some(outcome) = &outcome {
                gateway
                    .store
                    .finish_attempt(id, outcome.clone(), false)
                    .await
                    .unwrap();
            }
            outcomes.insert(id, (to, outcome));
        }
        if round % 2 == 1 {
            modem.with(Engine::restart_now);
        }
        if round < KILLS {
            gateway.crash().await;
            continue;
        }
        let mut all = gateway.incoming_are(INCOMING).await;
        all.sort();
        expected.sort();
        assert_eq!(all, expected);
        modem
            .wait_for(|counts| counts.stored == 0 && counts.waiting == 0, LIMIT)
            .await
            .unwrap();
        let mut reported = 0;
        let mut on_air: BTreeMap<String, usize> = BTreeMap::new();
        for sent in modem.with(|engine| engine.sent().to_vec()) {
            *on_air.entry(sent.to).or_default() += 1;
        }
        for (id, (to, outcome)) in &outcomes {
            let times = on_air.get(to).copied().unwrap_or_default();
            match outcome {
                Some(Attempt::Sent) => {
                    assert_eq!(times, 1, "{to}");
                    // A report that the modem had taken is lost with it, and with what was in the cable.
                    let state = gateway
                        .state(*id, |state| {
                            matches!(state, OutgoingState::Sent | OutgoingState::Delivered)
                        })
                        .await;
                    reported += usize::from(state == OutgoingState::Delivered);
                }
                Some(Attempt::NotStarted(_)) => assert_eq!(times, 0, "{to}"),
                other => assert!(times <= 1, "{to}: {times} times, {other:?}"),
            }
        }
        assert!(reported > 0);
        gateway.stop().await;
        return;
    }
}
