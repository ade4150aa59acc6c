//! SIGKILL at random moments, and restarts of the modem, while text messages come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pipepost::domain::{DeliveryState, MessageId, OutgoingState};
use pipepost::sim::modem::{Engine, Modem};
use pipepost::store::{self, Store};

use crate::sms::{configure, modem, wait_for_modem, write};
use crate::support::{SOON, Site, wait_for};
use crate::travel::answer;

const CUSTOMERS: usize = 40;
const LONGEST: Duration = Duration::from_secs(1200);

/// How much happens: in a run with all tests, and with `PIPEPOST_SMS_CHAOS=full`, which is the promise.
#[derive(Clone, Copy, Debug)]
struct Extent {
    texts: usize,
    answers: usize,
    kills: usize,
    restarts: usize,
}

impl Extent {
    fn chosen() -> Self {
        if std::env::var("PIPEPOST_SMS_CHAOS").is_ok_and(|extent| extent == "full") {
            Self {
                texts: 2000,
                answers: 500,
                kills: 20,
                restarts: 10,
            }
        } else {
            Self {
                texts: 200,
                answers: 50,
                kills: 4,
                restarts: 2,
            }
        }
    }
}

fn customer(n: usize) -> String {
    format!("+3161200{:04}", n % CUSTOMERS)
}

/// A third of the texts needs several parts, each of which says whose it is.
fn text(what: &str, n: usize) -> String {
    let times = if n.is_multiple_of(3) { 12 + n % 20 } else { 1 };
    format!("{what} {n}. ").repeat(times).trim_end().to_owned()
}

/// A random number below `limit`: the moments are random on purpose.
fn below(limit: u64) -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes) % limit
}

#[test]
fn texts_both_ways_survive_kills_of_the_daemon_and_restarts_of_the_modem() {
    let extent = Extent::chosen();
    let began = Instant::now();
    let site = Site::new();
    configure(&site);
    let modem = modem(&site);
    let daemon = site.ready_daemon();
    wait_for_modem(&site);
    let round = AtomicUsize::new(0);
    // What may have happened by now, so that it is spread over the kills.
    let so_far = |all: usize| {
        assert!(began.elapsed() < LONGEST, "it does not come to an end");
        all * (round.load(Ordering::Relaxed) + 1) / (extent.kills + 1)
    };
    let (mut daemon, accepted, restarts) = std::thread::scope(|scope| {
        let mut daemon = daemon;
        scope.spawn(|| {
            for n in 0..extent.texts {
                while n >= so_far(extent.texts) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                write(
                    &modem,
                    &customer(n),
                    &text("text", n),
                    u16::try_from(n % 256).unwrap(),
                );
                std::thread::sleep(Duration::from_millis(below(8)));
            }
        });
        let agents = scope.spawn(|| agents(&site, extent.answers, so_far));
        let mut restarts = 0;
        for kill in 0..extent.kills {
            round.store(kill, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(below(700)));
            if kill * extent.restarts / extent.kills >= restarts {
                modem.with(Engine::restart_now);
                restarts += 1;
            }
            std::thread::sleep(Duration::from_millis(100 + below(1500)));
            daemon.kill();
            daemon = site.ready_daemon();
        }
        round.store(extent.kills, Ordering::Relaxed);
        (daemon, agents.join().unwrap(), restarts)
    });
    assert_eq!((accepted.len(), restarts), (extent.answers, extent.restarts));
    all_texts_arrived_once(&site, extent);
    wait_for("the modem to be empty", SOON, || {
        let counts = modem.counts();
        (counts.stored == 0 && counts.waiting == 0).then_some(())
    });
    wait_for("the answers to go out", SOON * 4, || {
        let waits = !site.output(&["queue"]).contains("to the hardware: nothing");
        (!waits).then_some(())
    });
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    let ends = answers_are_accounted_for(&site, &modem, &accepted);
    site.assert_contract_kept();
    println!(
        "{} in (a third in several parts), {} out, {} kills, {} restarts of the modem: 0 lost, 0 stored twice, 0 \
         sent twice; the answers: {ends}; {:.0} s",
        extent.texts,
        accepted.len(),
        extent.kills,
        extent.restarts,
        began.elapsed().as_secs_f64()
    );
}

/// Agents answer until so many answers are accepted; returns their ids and texts. One whose call failed may have been
/// stored all the same, and is never written again.
fn agents(site: &Site, answers: usize, so_far: impl Fn(usize) -> usize) -> BTreeMap<String, String> {
    let mut accepted = BTreeMap::new();
    for n in 0.. {
        if accepted.len() >= answers {
            break;
        }
        if accepted.len() >= so_far(answers) {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let conversation = site.sandbox.read(|state| {
            let all: Vec<String> = state.conversations().map(|c| c.id.to_string()).collect();
            (!all.is_empty()).then(|| all[n % all.len()].clone())
        });
        let Some(conversation) = conversation else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        let text = text("answer", n);
        match answer(site, &conversation, &text, Vec::new()) {
            Ok(id) => drop(accepted.insert(id, text)),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    accepted
}

fn all_texts_arrived_once(site: &Site, extent: Extent) {
    wait_for("all texts to reach the inbox", SOON * 6, || {
        let count = site
            .sandbox
            .read(|state| state.messages().filter(|message| !message.outgoing).count());
        (count >= extent.texts).then_some(())
    });
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    site.sandbox.read(|state| {
        for message in state.messages().filter(|message| !message.outgoing) {
            *seen.entry(message.text.clone()).or_default() += 1;
        }
    });
    let expected: BTreeMap<String, usize> = (0..extent.texts).map(|n| (text("text", n), 1)).collect();
    let wrong: Vec<_> = seen
        .iter()
        .filter(|(text, count)| expected.get(*text) != Some(count))
        .collect();
    let lost: Vec<_> = expected.keys().filter(|text| !seen.contains_key(*text)).collect();
    assert!(
        lost.is_empty() && wrong.is_empty(),
        "lost: {lost:?}, wrong: {wrong:?}"
    );
}

/// No part went out twice; every answer has an end, and one that is told as sent or delivered went out whole.
fn answers_are_accounted_for(site: &Site, modem: &Modem, accepted: &BTreeMap<String, String>) -> String {
    let sent = modem.with(|engine| engine.sent().to_vec());
    let mut parts = BTreeSet::new();
    for sent in &sent {
        let key = (
            sent.to.clone(),
            sent.text.clone(),
            sent.part.map(|part| part.number),
        );
        assert!(parts.insert(key.clone()), "sent twice: {key:?}");
    }
    let whole: BTreeSet<String> = modem
        .with(|engine| engine.shown())
        .into_iter()
        .filter(|shown| shown.complete)
        .filter_map(|shown| shown.text)
        .collect();
    let states = states(site, accepted.keys().map(|id| id.parse().unwrap()).collect());
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, text) in accepted {
        let end = match &states[id] {
            OutgoingState::Sent => "sent",
            OutgoingState::Delivered => "delivered",
            OutgoingState::Rejected(_) => "failed",
            OutgoingState::Unknown(_) => "unknown",
            other => panic!("{id} has no end: {other:?}"),
        };
        if matches!(end, "sent" | "delivered") {
            assert!(whole.contains(text), "{id} is {end} and did not go out: {text}");
        }
        *ends.entry(end).or_default() += 1;
    }
    let ends: Vec<String> = ends.iter().map(|(end, count)| format!("{count} {end}")).collect();
    ends.join(", ")
}

/// The states of messages in the store of a gateway that has stopped.
fn states(site: &Site, ids: Vec<MessageId>) -> BTreeMap<String, OutgoingState> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Store::open(store::Options::new(site.dir.path().join("state"))).unwrap();
        let states = store
            .read(move |reader| {
                let mut states = BTreeMap::new();
                for id in ids {
                    if let Some((_, message)) = reader.message(id)?
                        && let DeliveryState::Outgoing(state) = message.state
                    {
                        states.insert(id.to_string(), state);
                    }
                }
                Ok(states)
            })
            .await
            .unwrap();
        store.close().await;
        states
    })
}
