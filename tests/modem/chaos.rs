//! Many texts while the driver is killed and the modem restarts: none lost, none stored twice, none sent twice
//! silently.

use std::collections::BTreeMap;
use std::time::Duration;

use pipepost::domain::*;
use pipepost::sim::modem::{Engine, Modem, Options};

use crate::gateway::*;

/// The run as it is with all tests; `PIPEPOST_CHAOS_TEXTS`, `_ANSWERS` and `_kills` make longer ones.
fn figure(name: &str, default: usize) -> usize {
    std::env::var(format!("PIPEPOST_CHAOS_{name}")).map_or(default, |text| text.parse().unwrap())
}

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
    // Texts from customers, a third in several parts; texts of agents; how often the driver is killed.
    let (incoming, outgoing, kills) = (figure("TEXTS", 150), figure("ANSWERS", 40), figure("KILLS", 6));
    for round in 0..=kills {
        let mut gateway = Gateway::start(folder.path());
        gateway.up().await;
        let until = incoming * (round + 1) / (kills + 1);
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
        let until = outgoing * (round + 1) / (kills + 1);
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
        if round < kills {
            gateway.crash().await;
            continue;
        }
        let all_stored = async {
            while gateway.store.counts().messages < u64::try_from(incoming + outgoing).unwrap() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(tokio::time::timeout(LIMIT * 8, all_stored).await.is_ok());
        let mut all = gateway.incoming_are(incoming).await;
        all.sort();
        expected.sort();
        assert_eq!(all, expected);
        modem
            .wait_for(|counts| counts.stored == 0 && counts.waiting == 0, LIMIT)
            .await
            .unwrap();
        let delivered = accounted(&gateway, &modem, &outcomes).await;
        println!("{incoming} in, {outgoing} out ({delivered} reported), {kills} kills: 0 lost, 0 twice");
        assert!(delivered > 0);
        gateway.stop().await;
        return;
    }
}

/// What was sent went out once, what was not started not at all, what nobody knows at most once. Returns how many are
/// reported as delivered: a report that the modem had taken is lost with it, and with what was in the cable.
async fn accounted(
    gateway: &Gateway,
    modem: &Modem,
    outcomes: &BTreeMap<MessageId, (String, Option<Attempt>)>,
) -> usize {
    let mut on_air: BTreeMap<String, usize> = BTreeMap::new();
    for sent in modem.with(|engine| engine.sent().to_vec()) {
        *on_air.entry(sent.to).or_default() += 1;
    }
    let mut delivered = 0;
    for (id, (to, outcome)) in outcomes {
        let times = on_air.get(to).copied().unwrap_or_default();
        match outcome {
            Some(Attempt::Sent) => {
                assert_eq!(times, 1, "{to}");
                let state = gateway
                    .state(*id, |state| {
                        matches!(state, OutgoingState::Sent | OutgoingState::Delivered)
                    })
                    .await;
                delivered += usize::from(state == OutgoingState::Delivered);
            }
            Some(Attempt::NotStarted(_)) => assert_eq!(times, 0, "{to}"),
            other => assert!(times <= 1, "{to}: {times} times, {other:?}"),
        }
    }
    delivered
}
