//! The Channels API: documented success, documented errors, limits, faults.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fake::*;
use crate::domain::Secret;
use crate::sim::pipedrive::{Faults, Limits, Options, Sandbox, State};

fn ready() -> (FakeGateway, Sandbox) {
    let gateway = FakeGateway::start(good);
    let sandbox = sandbox(&gateway);
    register(&sandbox);
    (gateway, sandbox)
}

#[test]
fn a_message_for_an_unknown_conversation_is_accepted_after_get_conversation_by_id() {
    let (gateway, sandbox) = ready();
    let got = post(&sandbox, RECEIVE, &message("m1", "c1"));
    assert_eq!(got.status, 200, "{}", got.text);
    assert_eq!(got.body.pointer("/data/id"), Some(&json!("m1")));
    let asked = gateway
        .seen()
        .iter()
        .filter(|s| s.path.contains("/conversations/c1?"))
        .count();
    assert_eq!(asked, 1, "asked before the answer");
    let basic = &gateway.seen()[0].authorization;
    assert_eq!(basic, "Basic c2FuZGJveC1jbGllbnQ6c2FuZGJveC1zZWNyZXQ=");

    post(&sandbox, RECEIVE, &message("m2", "c1"));
    let asked = gateway
        .seen()
        .iter()
        .filter(|s| s.path.contains("/conversations/c1?"))
        .count();
    assert_eq!(asked, 1, "a known conversation is not asked for again");
    assert_eq!(sandbox.violations().len(), 0, "{:?}", sandbox.violations());
}

#[test]
fn a_message_whose_conversation_cannot_be_fetched_is_refused_as_pipedrive_does() {
    let gateway = FakeGateway::start(|request| {
        if request.path.contains("/conversations/") {
            Scripted::not_found()
        } else {
            good(request)
        }
    });
    let sandbox = sandbox(&gateway);
    register(&sandbox);
    let got = post(&sandbox, RECEIVE, &message("m1", "c1"));
    assert_eq!((got.status, got.code()), (400, "INVALID_RECEIVE_MESSAGE_PAYLOAD"));
    assert_eq!(sandbox.read(State::message_count), 0);
}

#[test]
fn the_same_message_id_again_is_an_update() {
    let (_gateway, sandbox) = ready();
    let mut update = message("m1", "c1");
    post(&sandbox, RECEIVE, &update);
    update["status"] = json!("delivered");
    post(&sandbox, RECEIVE, &update);
    sandbox.read(|state| {
        assert_eq!(state.message_count(), 1);
        let message = state.message("gw-office", "m1").unwrap();
        assert_eq!(
            (message.posts, message.statuses.join(" ")),
            (2, "sent delivered".to_owned())
        );
    });
    assert_eq!(sandbox.counters().updates, 1);
}

#[test]
fn an_update_that_takes_back_a_status_or_moves_a_message_is_a_violation() {
    let (_gateway, sandbox) = ready();
    let mut update = message("m1", "c1");
    update["status"] = json!("read");
    post(&sandbox, RECEIVE, &update);
    update["status"] = json!("sent");
    post(&sandbox, RECEIVE, &update);
    update["created_at"] = json!("2026-03-02T09:30:00.250Z");
    post(&sandbox, RECEIVE, &update);
    post(&sandbox, RECEIVE, &message("m1", "c2"));
    let found: Vec<String> = sandbox.violations().into_iter().map(|v| v.what).collect();
    for words in [
        "went back from read to sent",
        "changed its created_at",
        "moved from conversation c1",
    ] {
        assert!(
            found.iter().any(|what| what.contains(words)),
            "{words}: {found:?}"
        );
    }
}

#[test]
fn a_call_without_the_right_token_is_401() {
    let (_gateway, sandbox) = ready();
    let got = call(&sandbox, "POST", RECEIVE, "wrong", Some(&message("m1", "c1"))).unwrap();
    assert_eq!(got.status, 401);
    assert_eq!(got.body.get("success"), Some(&json!(false)));
    assert_eq!(got.body.get("error"), Some(&json!("unauthorized access")));
}

#[test]
fn registering_answers_with_pipedrives_own_id_and_twice_is_not_an_error() {
    let (_gateway, sandbox) = ready();
    let body = json!({"name": "Renamed", "provider_channel_id": "gw-office", "provider_type": "whatsapp"});
    let got = post(&sandbox, "/v1/channels", &body);
    let data = &got.body["data"];
    assert_ne!(data["id"], data["provider_channel_id"]);
    assert_eq!(
        (&data["name"], &data["provider_type"]),
        (&json!("Renamed"), &json!("whatsapp"))
    );
    assert_eq!(sandbox.read(|s| s.channels.len()), 1);
}

#[test]
fn unknown_things_are_answered_with_the_documented_codes() {
    let (_gateway, sandbox) = ready();
    let mut elsewhere = message("m1", "c1");
    elsewhere["channel_id"] = json!("gw-other");
    let got = post(&sandbox, RECEIVE, &elsewhere);
    assert_eq!((got.status, got.code()), (404, "NOT_FOUND"));
    let got = delete(&sandbox, "/api/v1/channels/gw-other");
    assert_eq!((got.status, got.code()), (400, "INVALID_BODY"));
    let got = delete(&sandbox, "/api/v1/channels/gw-office/conversations/c9");
    assert_eq!((got.status, got.code()), (404, "NOT_FOUND"));
    let got = post(&sandbox, "/api/v1/channels", &json!({"name": 5}));
    assert_eq!((got.status, got.code()), (400, "INVALID_BODY"));
    let got = post(&sandbox, RECEIVE, &json!({}));
    assert_eq!((got.status, got.code()), (400, "INVALID_RECEIVE_MESSAGE_PAYLOAD"));
    let got = get(&sandbox, "/api/v1/deals");
    assert_eq!((got.status, got.code()), (404, "NOT_FOUND"));
}

#[test]
fn a_deleted_conversation_is_fetched_again_with_its_next_message() {
    let (gateway, sandbox) = ready();
    post(&sandbox, RECEIVE, &message("m1", "c1"));
    assert_eq!(
        delete(&sandbox, "/api/v1/channels/gw-office/conversations/c1").status,
        200
    );
    assert_eq!(sandbox.read(State::message_count), 0);
    post(&sandbox, RECEIVE, &message("m2", "c1"));
    let asked = gateway
        .seen()
        .iter()
        .filter(|s| s.path.contains("/conversations/c1?"))
        .count();
    assert_eq!(asked, 2);
    assert_eq!(delete(&sandbox, "/api/v1/channels/gw-office").status, 200);
    assert_eq!(sandbox.read(|s| s.conversations().count()), 0);
}

#[test]
fn only_an_admin_may_register_a_channel() {
    let gateway = FakeGateway::start(good);
    let faults = Faults {
        admin_only: true,
        ..Faults::default()
    };
    let sandbox = sandbox_with(
        &gateway,
        Options {
            faults,
            ..Options::default()
        },
    );
    let got = post(
        &sandbox,
        "/api/v1/channels",
        &json!({"name": "a", "provider_channel_id": "b"}),
    );
    assert_eq!((got.status, got.code()), (403, "ADMIN_ONLY"));
}

#[test]
fn a_burst_is_cut_off_with_429_and_the_headers_say_when_to_go_on() {
    let (_gateway, sandbox) = ready();
    sandbox.set_limits(Limits {
        burst: Some(5),
        daily_tokens: Some(1_000),
        ..Limits::default()
    });
    let answers: Vec<Got> = (0..8)
        .map(|n| post(&sandbox, RECEIVE, &message(&format!("m{n}"), "c1")))
        .collect();
    let accepted = answers.iter().filter(|got| got.status == 200).count();
    assert_eq!(accepted, 5);
    let refused = answers.last().unwrap();
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("x-ratelimit-limit"), "5");
    assert_eq!(refused.header("x-ratelimit-remaining"), "0");
    assert_eq!(refused.header("x-token-cost"), "10");
    let reset: u64 = refused.header("x-ratelimit-reset").parse().unwrap();
    let deadline = Instant::now() + LIMIT;
    let resumed = Instant::now() + Duration::from_secs(reset);
    loop {
        if post(&sandbox, RECEIVE, &message("m9", "c1")).status == 200 {
            break;
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(
        Instant::now() <= resumed + Duration::from_millis(500),
        "after the reset it goes on"
    );
}

#[test]
fn an_empty_daily_budget_is_429_until_the_next_day() {
    let (_gateway, sandbox) = ready();
    // Registering cost 10.
    sandbox.set_limits(Limits {
        daily_tokens: Some(25),
        ..Limits::default()
    });
    assert_eq!(post(&sandbox, RECEIVE, &message("m1", "c1")).status, 200);
    let refused = post(&sandbox, RECEIVE, &message("m2", "c1"));
    assert_eq!(
        (
            refused.status,
            refused.header("x-daily-ratelimit-token-remaining")
        ),
        (429, "5")
    );
    sandbox.new_day();
    assert_eq!(post(&sandbox, RECEIVE, &message("m2", "c1")).status, 200);
}

/// Posts a message under a fault; says whether it was stored nevertheless.
fn attempt(sandbox: &Sandbox, id: &str, faults: Faults) -> (Result<Got, String>, bool) {
    sandbox.set_faults(faults).unwrap();
    let got = call(
        sandbox,
        "POST",
        RECEIVE,
        "sandbox-token",
        Some(&message(id, "c1")),
    );
    (got, sandbox.read(|s| s.message("gw-office", id).is_some()))
}

#[test]
fn faults_before_processing_store_nothing() {
    let (_gateway, sandbox) = ready();
    let off = Faults::default;
    for (faults, status, html) in [
        (
            Faults {
                server_error: 1.0,
                ..off()
            },
            502,
            true,
        ),
        (
            Faults {
                html_403: true,
                ..off()
            },
            403,
            true,
        ),
        (
            Faults {
                gone: Some(404),
                ..off()
            },
            404,
            true,
        ),
        (
            Faults {
                gone: Some(410),
                ..off()
            },
            410,
            true,
        ),
        (
            Faults {
                too_many: 1.0,
                ..off()
            },
            429,
            false,
        ),
        (
            Faults {
                budget_empty: true,
                ..off()
            },
            429,
            false,
        ),
        (
            Faults {
                unauthorized: true,
                ..off()
            },
            401,
            false,
        ),
    ] {
        let (got, stored) = attempt(&sandbox, "m1", faults.clone());
        let got = got.unwrap();
        assert_eq!((got.status, stored), (status, false), "{faults:?}");
        assert_eq!(
            got.header("content-type").starts_with("text/html"),
            html,
            "{faults:?}"
        );
    }
    let (got, stored) = attempt(
        &sandbox,
        "m1",
        Faults {
            drop_before: 1.0,
            ..off()
        },
    );
    assert!(got.is_err() && !stored);
    assert_eq!(
        sandbox.violations().len(),
        0,
        "faults are not the gateway's: {:?}",
        sandbox.violations()
    );
}

#[test]
fn faults_after_processing_leave_the_caller_in_doubt() {
    let (_gateway, sandbox) = ready();
    let (got, stored) = attempt(
        &sandbox,
        "m2",
        Faults {
            drop_after: 1.0,
            ..Faults::default()
        },
    );
    assert!(got.is_err() && stored);
    let (got, stored) = attempt(
        &sandbox,
        "m3",
        Faults {
            broken_json: 1.0,
            ..Faults::default()
        },
    );
    let got = got.unwrap();
    assert_eq!((got.status, got.body, stored), (200, Value::Null, true));
}

#[test]
fn latency_holds_up_every_answer() {
    let (_gateway, sandbox) = ready();
    let started = Instant::now();
    let (got, stored) = attempt(
        &sandbox,
        "m4",
        Faults {
            latency_ms: 120,
            ..Faults::default()
        },
    );
    assert_eq!((got.unwrap().status, stored), (200, true));
    assert!(started.elapsed() >= Duration::from_millis(120));
}

#[test]
fn faults_are_switched_over_http_and_nonsense_is_refused() {
    let (_gateway, sandbox) = ready();
    assert_eq!(
        post(&sandbox, "/sandbox/faults", &json!({"gone": 410})).status,
        200
    );
    assert_eq!(sandbox.faults().gone, Some(410));
    assert_eq!(
        post(&sandbox, "/sandbox/faults", &json!({"gone": 200})).status,
        400
    );
    assert_eq!(
        post(&sandbox, "/sandbox/faults", &json!({"gone": null})).status,
        200
    );
    assert_eq!(sandbox.faults(), Faults::default());
}

#[test]
fn the_channels_api_speaks_tls_under_the_authority_it_wrote() {
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    let token = Secret::new("t".to_owned());
    let sandbox = Sandbox::start(Options {
        ca_file: Some(ca_file.clone()),
        token,
        ..Options::default()
    })
    .unwrap();
    assert!(sandbox.url().starts_with("https://127.0.0.1:"));
    let pem = std::fs::read_to_string(&ca_file).unwrap();
    assert_eq!(Some(pem.as_str()), sandbox.ca_pem());
    let client = super::super::client::Client::new(crate::sim::pipedrive::Trust::CaFile(ca_file));
    let request = |url: String| super::super::client::Request {
        method: "POST",
        url,
        authorization: Some("Bearer t".to_owned()),
        content_type: Some("application/json".to_owned()),
        body: br#"{"name":"a","provider_channel_id":"b"}"#.to_vec(),
    };
    let url = format!("{}/api/v1/channels", sandbox.url());
    let answer = block_on(client.send(request(url.clone()))).map(|answer| answer.status);
    assert_eq!(answer, Ok(200));
    let stranger = super::super::client::Client::new(crate::sim::pipedrive::Trust::PublicRoots);
    assert!(
        block_on(stranger.send(request(url))).is_err(),
        "without the authority it is not trusted"
    );
}

#[test]
fn a_stop_ends_the_thread_and_frees_the_port() {
    let (_gateway, sandbox) = ready();
    let address = sandbox.url().trim_start_matches("http://").to_owned();
    post(&sandbox, RECEIVE, &message("m1", "c1"));
    let stopped = block_on(async { tokio::time::timeout(LIMIT, sandbox.stop()).await });
    assert!(stopped.is_ok());
    std::net::TcpListener::bind(address).unwrap();
}

#[test]
fn a_script_of_another_site_cannot_drive_the_sandbox() {
    let (_gateway, sandbox) = ready();
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .new_agent();
    let send = |origin: &str| {
        let url = format!("{}/sandbox/faults", sandbox.url());
        agent
            .post(url)
            .header("origin", origin)
            .send("{}")
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(send("https://example.com"), 403);
    assert_eq!(send(&sandbox.url()), 200);
}
