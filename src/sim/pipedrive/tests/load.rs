//! How much the sandbox takes: it must not be what limits the product's own benches.

use std::sync::Arc;
use std::time::Instant;

use super::fake::*;
use crate::sim::pipedrive::{Gateway, Options, Sandbox, State, Trust};

/// Prints the rate; run with `--ignored --nocapture`, in an optimised profile for a meaningful number.
#[test]
#[ignore = "takes long without optimisation"]
fn a_hundred_thousand_messages_over_tls_are_held_and_the_page_still_answers() {
    const THREADS: usize = 4;
    const EACH: usize = 25_000;
    let gateway = FakeGateway::start(good);
    let sandbox = Sandbox::start(Options {
        gateway: Some(Gateway {
            url: gateway.url.clone(),
            trust: Trust::PublicRoots,
        }),
        ..Options::default()
    })
    .unwrap();
    let pem = ureq::tls::Certificate::from_pem(sandbox.ca_pem().unwrap().as_bytes()).unwrap();
    let tls = ureq::tls::TlsConfig::builder()
        .root_certs(ureq::tls::RootCerts::new_with_certs(&[pem]))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .proxy(None)
        .max_idle_connections_per_host(THREADS)
        .build()
        .new_agent();
    let send = |agent: &ureq::Agent, path: &str, body: String| {
        let url = format!("{}{path}", sandbox.url());
        let request = agent
            .post(url)
            .header("authorization", "Bearer sandbox-token")
            .header("content-type", "application/json");
        request
            .send(body)
            .unwrap()
            .body_mut()
            .read_to_vec()
            .unwrap()
            .len()
    };
    let channel = r#"{"name":"Office","provider_channel_id":"gw-office"}"#;
    send(&agent, "/api/v1/channels", channel.to_owned());
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (agent, send) = (agent.clone(), &send);
            scope.spawn(move || {
                for n in 0..EACH {
                    let body = message(&format!("m{thread}-{n}"), &format!("c{thread}-{}", n % 500));
                    send(&agent, RECEIVE, body.to_string());
                }
            });
        }
    });
    let rate = f64::from(u32::try_from(THREADS * EACH).unwrap()) / started.elapsed().as_secs_f64();
    assert_eq!(sandbox.read(State::message_count), THREADS * EACH);
    let started = Instant::now();
    let body = agent
        .get(format!("{}/sandbox/summary", sandbox.url()))
        .call()
        .unwrap();
    assert_eq!(body.status(), 200);
    println!("{rate:.0} POSTs per second, summary in {:?}", started.elapsed());
    assert_eq!(sandbox.violations().len(), 0, "{:?}", sandbox.violations());
}
