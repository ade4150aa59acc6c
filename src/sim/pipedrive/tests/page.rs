//! What the sandbox serves for the inbox page; `tests/inbox.sh` looks at it in a browser.

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::fake::*;
use crate::sim::pipedrive::Sandbox;

/// A drawing of a roof, PNG.
const PICTURE: &str = "iVBORw0KGgoAAAANSUhEUgAAAGAAAABACAMAAADS6oI8AAAADFBMVEWoVTzo3s2WvuFQX27+GBk0AAAAhUlEQVR42u3USQqAQBQD\
    0VLvf2cREafutoefhZBaB94uzOIwYMCAAQMGDEgAtHu2dABHGoBr8QDPYgFSxQHkigEoNQ7w1RhATf0AtfUBtNQO0FobQE/1AL3V\
    AYz0DTBaGSCiPEBUaYDI3gDR3QEUnQCqdgBlM5M4A38HliMDBgwY8JtqWwFL6SB3Fr0NEAAAAABJRU5ErkJggg==";

const NAMES: &[(&str, &str)] = &[
    ("c-main", "Kerttu Tamm"),
    ("c-1", "Ülo Õunapuu"),
    ("c-3", "Pump station 4"),
    ("c-4", "Zoë van den Berg-Ødegård of a very long name"),
    ("c-6", "مريم"),
];

const HOSTILE: &str = "<img src=x onerror=\"document.title='broken'\"> & <b>not bold</b>";

/// An inbox with something of everything.
fn filled() -> (FakeGateway, Sandbox) {
    let picture = BASE64.decode(PICTURE.as_bytes()).unwrap();
    let size = picture.len();
    let gateway = FakeGateway::start(move |request| {
        if request.path.starts_with("/media/") {
            return Scripted {
                status: 200,
                content_type: "image/png",
                body: picture.clone(),
            };
        }
        let mut answer = good(request);
        let id = request.path.split(['/', '?']).nth(5).unwrap_or_default();
        if let Some(name) = NAMES.iter().find_map(|(of, name)| (*of == id).then_some(*name)) {
            let mut body: Value = serde_json::from_slice(&answer.body).unwrap();
            body["data"]["participants"][1]["name"] = json!(name);
            answer.body = body.to_string().into_bytes();
        }
        answer
    });
    let sandbox = sandbox(&gateway);
    register(&sandbox);
    let send = |id: &str, conversation: &str, sender: &str, text: &str, status: &str, minute: u32| {
        let mut body = message(id, conversation);
        body["sender_id"] = json!(sender);
        body["message"] = json!(text);
        body["status"] = json!(status);
        body["created_at"] = json!(format!("2026-03-01T09:{minute:02}:00.000Z"));
        assert_eq!(post(&sandbox, RECEIVE, &body).status, 200);
    };
    for n in 0..8 {
        let (id, conversation) = (format!("x{n}"), format!("c-{n}"));
        send(
            &id,
            &conversation,
            "customer",
            "Is the offer from Monday still good?",
            "sent",
            n,
        );
    }
    send(
        "a1",
        "c-main",
        "customer",
        "Hello, can you come on Tuesday instead?",
        "sent",
        30,
    );
    send("a2", "c-main", "customer", HOSTILE, "sent", 31);
    send(
        "b1",
        "c-main",
        "office",
        "Yes, Tuesday at nine works for us.",
        "read",
        33,
    );
    send(
        "b2",
        "c-main",
        "office",
        "The offer: https://gw.example/media/abc/offer.pdf",
        "delivered",
        34,
    );
    send("b3", "c-main", "office", "And the parking permit.", "failed", 35);
    let mut picture = message("a3", "c-main");
    picture["message"] = json!("The roof from the north side");
    picture["created_at"] = json!("2026-03-01T09:36:00.000Z");
    picture["attachments"] = json!([{
        "id": "f1", "type": "image/png", "url": format!("{}/media/f1", gateway.url), "name": "roof.png",
        "size": size, "preview_url": "", "link_expires": true,
    }]);
    assert_eq!(post(&sandbox, RECEIVE, &picture).status, 200);
    send(
        "b4",
        "c-main",
        "office",
        "Thank you, that helps a lot.",
        "sent",
        38,
    );
    (gateway, sandbox)
}

#[test]
fn the_page_and_its_files_are_served_with_a_policy_that_forbids_foreign_scripts() {
    let gateway = FakeGateway::start(good);
    let sandbox = sandbox(&gateway);
    for (path, kind) in [
        ("/", "text/html"),
        ("/style.css", "text/css"),
        ("/inbox.js", "text/javascript"),
        ("/app.js", "text/javascript"),
    ] {
        let got = get(&sandbox, path);
        assert_eq!(got.status, 200, "{path}");
        assert!(got.header("content-type").starts_with(kind), "{path}");
        assert!(
            got.header("content-security-policy")
                .contains("script-src 'self'")
        );
        assert_eq!(got.header("x-content-type-options"), "nosniff");
    }
    assert_eq!(get(&sandbox, "/other").status, 404);
}

#[test]
fn the_page_never_makes_markup_of_text() {
    let script = concat!(include_str!("../page/inbox.js"), include_str!("../page/app.js"));
    for forbidden in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
    ] {
        assert!(!script.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn an_attachment_is_fetched_from_the_gateway_and_only_pictures_are_shown() {
    let (_gateway, sandbox) = filled();
    let got = get(
        &sandbox,
        "/sandbox/file?channel=gw-office&message=a3&attachment=f1",
    );
    assert_eq!((got.status, got.header("content-type")), (200, "image/png"));
    assert_eq!(
        get(
            &sandbox,
            "/sandbox/file?channel=gw-office&message=a3&attachment=f2"
        )
        .status,
        404
    );
}

#[test]
fn a_change_is_told_to_an_open_page() {
    use std::io::{BufRead, BufReader};
    let gateway = FakeGateway::start(good);
    let sandbox = sandbox(&gateway);
    let url = format!("{}/sandbox/events", sandbox.url());
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(LIMIT))
        .proxy(None)
        .build()
        .new_agent();
    let response = agent.get(url).call().unwrap();
    assert_eq!(
        response.headers().get("content-type").unwrap(),
        "text/event-stream"
    );
    let mut lines = BufReader::new(response.into_body().into_reader()).lines();
    let mut next = || {
        let line = lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.starts_with("data: "));
        line.unwrap().trim_start_matches("data: ").parse::<u64>().unwrap()
    };
    let first = next();
    register(&sandbox);
    assert!(next() > first);
}
