//! SIGKILL at random moments under load.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Device, SOON, Site, wait_for};
use crate::travel::answer;

const CUSTOMERS: usize = 40;
const CHANNEL: &str = "gw-test-sms";

/// `PIPEPOST_CHAOS_MESSAGES` and `PIPEPOST_CHAOS_KILLS` make longer runs; the defaults are the promise.
fn figure(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().unwrap())
}

fn number(customer: usize) -> String {
    format!("+3161200{customer:04}")
}

#[test]
fn ten_thousand_messages_survive_twenty_kills_once_each_and_in_order() {
    let messages = figure("PIPEPOST_CHAOS_MESSAGES", 10_000);
    let kills = figure("PIPEPOST_CHAOS_KILLS", 20);
    let site = Site::new();
    let mut daemon = Some(site.daemon());
    wait_for("the broker to be connected", SOON, || {
        site.output(&["status"])
            .contains("broker site connected")
            .then_some(())
    });
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");

    let published = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    let (accepted, killed) = std::thread::scope(|scope| {
        // Customers write all the time; the broker keeps what the gateway is not there for.
        let customers = scope.spawn(|| {
            for n in 0..messages {
                let customer = n % CUSTOMERS;
                device.customer_writes(&number(customer), &format!("{customer}:{}", n / CUSTOMERS));
                published.store(n + 1, Ordering::Relaxed);
                if n % 200 == 199 {
                    // Not faster than the broker acknowledges, and spread over the kills.
                    device.wait_for_acknowledgements(200);
                }
            }
            device.wait_for_acknowledgements(messages % 200);
        });
        // Agents answer; an answer counts when postMessage said 200.
        let agents = scope.spawn(|| {
            let mut accepted: HashMap<String, String> = HashMap::new();
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                let conversations: Vec<String> = site
                    .sandbox
                    .read(|state| state.conversations().map(|c| c.id.to_string()).collect());
                let Some(conversation) = conversations.get(n % conversations.len().max(1)) else {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                };
                let text = format!("answer {n}");
                n += 1;
                if let Ok(id) = answer(&site, conversation, &text, Vec::new()) {
                    accepted.insert(text, id);
                }
                std::thread::sleep(Duration::from_millis(30));
            }
            accepted
        });
        let mut seed = u64::from(std::process::id());
        let mut killed = 0;
        while killed < kills {
            // Between 150 and 1,150 ms of life; the moment is random on purpose.
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_millis(150 + (seed >> 33) % 1000));
            daemon.take().unwrap().kill();
            killed += 1;
            daemon = Some(site.ready_daemon());
        }
        customers.join().unwrap();
        done.store(true, Ordering::Relaxed);
        (agents.join().unwrap(), killed)
    });
    assert_eq!(killed, kills);
    wait_for_inbox(&site, messages);
    assert_each_once_and_in_order(&site, messages);
    assert_answers_accounted_for(&site, &device, &accepted);
    assert!(
        accepted.len() >= 20,
        "only {} answers were accepted: the run proves little",
        accepted.len()
    );
    site.assert_contract_kept();
    println!(
        "{messages} in, {} answers, {kills} kills: 0 lost, 0 twice",
        accepted.len()
    );
}

fn wait_for_inbox(site: &Site, messages: usize) {
    let progress = Instant::now();
    wait_for(
        "all messages to reach the inbox",
        Duration::from_secs(180),
        || {
            let count = site
                .sandbox
                .read(|state| state.messages().filter(|m| !m.outgoing).count());
            (count >= messages || progress.elapsed() > Duration::from_secs(170)).then_some(())
        },
    );
}

/// Each text once, and in each conversation in the order in which the customer wrote.
fn assert_each_once_and_in_order(site: &Site, messages: usize) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    site.sandbox.read(|state| {
        assert_eq!(state.conversations().count(), CUSTOMERS);
        for conversation in state.conversations() {
            let mut incoming: Vec<_> = conversation.messages.iter().filter(|m| !m.outgoing).collect();
            incoming.sort_by_key(|m| if m.posted == 0 { m.arrival } else { m.posted });
            let order: Vec<usize> = incoming
                .iter()
                .map(|m| m.text.split_once(':').unwrap().1.parse().unwrap())
                .collect();
            let stored: Vec<&str> = incoming.iter().map(|m| m.text.as_str()).collect();
            assert!(
                order.windows(2).all(|pair| pair[0] < pair[1]),
                "order in {}: {stored:?}",
                conversation.id
            );
            for message in incoming {
                *seen.entry(message.text.clone()).or_default() += 1;
            }
        }
    });
    let lost: Vec<usize> = (0..messages)
        .filter(|n| !seen.contains_key(&format!("{}:{}", n % CUSTOMERS, n / CUSTOMERS)))
        .collect();
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    assert!(
        lost.is_empty(),
        "{} of {messages} lost, e.g. {:?}",
        lost.len(),
        &lost[..lost.len().min(10)]
    );
    assert!(twice.is_empty(), "stored twice: {twice:?}");
}

/// Each accepted answer went out once, or is shown as failed; none went out twice.
fn assert_answers_accounted_for(site: &Site, device: &Device, accepted: &HashMap<String, String>) {
    wait_for("the answers to go out", SOON, || {
        site.output(&["queue"])
            .contains("to the hardware: nothing")
            .then_some(())
    });
    let mut arrived: HashMap<String, usize> = HashMap::new();
    let missing = |arrived: &HashMap<String, usize>| -> Vec<String> {
        let failed = |id: &String| {
            site.sandbox.read(|state| {
                state
                    .message(CHANNEL, id)
                    .is_some_and(|m| m.statuses.iter().any(|s| s == "failed"))
            })
        };
        accepted
            .iter()
            .filter(|(text, id)| !arrived.contains_key(*text) && !failed(id))
            .map(|(t, _)| t.clone())
            .collect()
    };
    wait_for("every answer to arrive or to be shown as failed", SOON, || {
        while let Some((_, payload)) = device.arrived_answer() {
            let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
            *arrived
                .entry(payload["text"].as_str().unwrap().to_owned())
                .or_default() += 1;
        }
        missing(&arrived).is_empty().then_some(())
    });
    let repeated: Vec<_> = arrived.iter().filter(|(_, count)| **count > 1).collect();
    assert!(repeated.is_empty(), "sent twice: {repeated:?}");
}
