//! Throughput and processor time of a drain over TLS, the server in the same process.

use super::*;
use crate::domain::Secret;
use crate::http::scripted::{Authority, SERVER_THREAD, Server, json};
use crate::http::{Client, Options};
use crate::protocol::pipedrive::wire::TimeForm;
use crate::uplink::{AccessToken, ChannelsUplink};

const CUSTOMERS: u32 = 64;
const EACH: u32 = 300;

/// Processor seconds of this process's threads, by whether they belong to the server.
fn processor_time() -> (f64, f64) {
    let (mut server, mut own) = (0.0, 0.0);
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else {
            continue;
        };
        let (name, fields) = stat.rsplit_once(')').unwrap();
        let ticks: f64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<f64>().unwrap())
            .sum();
        if name.ends_with(SERVER_THREAD) {
            server += ticks / 100.0;
        } else {
            own += ticks / 100.0;
        }
    }
    (own, server)
}

#[tokio::test]
#[ignore = "measures: cargo test --profile e2e --lib drain_over_tls -- --ignored --nocapture"]
async fn a_drain_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let inserts: Vec<_> = (0..CUSTOMERS)
        .map(|customer| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..EACH {
                    receive(&store, "sms", &format!("c{customer}"), &"x".repeat(120)).await;
                }
            })
        })
        .collect();
    for insert in inserts {
        insert.await.unwrap();
    }
    let authority = Authority::new();
    let server = Server::tls(authority.server("localhost", (2000, 2100)), |_, _| {
        json(200, r#"{"success":true}"#)
    });
    let options = Options {
        ca_file: Some(authority.file()),
        ..Options::default()
    };
    let token = AccessToken::new(Some(Secret::new("t".repeat(768))));
    let client = Client::new(&options).unwrap();
    let uplink = ChannelsUplink::new(client, &server.url(), token, TimeForm::Iso8601);
    let (begun, before) = (std::time::Instant::now(), processor_time());
    let (pump, _handle) = Pump::new(
        store.clone(),
        Arc::new(uplink),
        settings(&store, &["sms"], quick()),
    );
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(pump.run(stopped, || {}));
    until("drained", || is_drained(&store)).await;
    let (wall, after) = (begun.elapsed().as_secs_f64(), processor_time());
    let messages = f64::from(CUSTOMERS * EACH);
    println!(
        "{:.0} messages/s; processor seconds per 1,000: gateway {:.3}, server {:.3}; {} connections",
        messages / wall,
        (after.0 - before.0) * 1000.0 / messages,
        (after.1 - before.1) * 1000.0 / messages,
        server.connections.load(Ordering::SeqCst),
    );
    stop.send(true).unwrap();
    task.await.unwrap().unwrap();
}
