//! The commands, with a daemon and without one.

use crate::support::{Device, SOON, Site, wait_for};
use crate::travel::conversation_with;

#[test]
fn every_state_is_shown_by_the_commands_while_the_daemon_runs() {
    let site = Site::new();
    let _daemon = site.daemon();
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    device.customer_writes("+31612345678", "hello there");
    let conversation = conversation_with(&site, "hello there");
    let status = site.status();
    assert_eq!(status["gateway_id"], "gw-test");
    assert_eq!(status["running"], true);
    assert_eq!(status["channels"][0]["state"], "registered", "{status}");
    assert!(site.output(&["channels", "list"]).contains("gw-test-sms"));
    assert!(site.output(&["conversations", "list"]).contains(&conversation));
    assert!(
        site.output(&["conversations", "show", &conversation])
            .contains("hello there")
    );
    assert!(site.output(&["queue"]).contains("nothing waits"));
    assert!(
        site.output(&["metrics"])
            .contains("pipepost_link_up{name=\"broker site\"} 1")
    );
}

#[test]
fn a_text_that_starts_on_the_gateway_reaches_the_device_and_the_inbox() {
    let site = Site::new();
    let _daemon = site.daemon();
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    site.output(&[
        "send",
        "--channel",
        "sms",
        "--to",
        "+49170123456",
        "your parcel is here",
    ]);
    let (_, payload) = device.next_answer();
    assert!(
        payload.contains("+49170123456") && payload.contains("your parcel is here"),
        "{payload}"
    );
    conversation_with(&site, "your parcel is here");
    site.assert_contract_kept();
}

#[test]
fn a_deleted_channel_keeps_its_messages_until_it_is_registered_again() {
    let site = Site::new();
    let _daemon = site.daemon();
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    device.customer_writes("+31612345678", "first");
    let conversation = conversation_with(&site, "first");
    site.output(&["channels", "delete", "sms"]);
    assert!(site.output(&["channels", "list"]).contains("unlinked"));
    device.customer_writes("+31612345678", "kept meanwhile");
    wait_for("the message to be kept", SOON, || {
        site.output(&["queue"]).contains("kept meanwhile").then_some(())
    });
    site.output(&["channels", "register", "sms"]);
    assert_eq!(conversation_with(&site, "kept meanwhile"), conversation);
    site.output(&["conversations", "delete", &conversation]);
    assert!(
        site.output(&["conversations", "list"])
            .contains("no conversations")
    );
}

#[test]
fn commands_read_the_store_when_no_daemon_runs_and_change_nothing() {
    let site = Site::new();
    let mut daemon = site.daemon();
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    device.customer_writes("+31612345678", "still readable");
    let conversation = conversation_with(&site, "still readable");
    assert_eq!(daemon.stop(), Some(0));
    assert!(
        site.output(&["conversations", "show", &conversation])
            .contains("still readable")
    );
    assert!(site.output(&["status"]).contains("NOT RUNNING"));
    let refused = site.command(&["send", "--channel", "sms", "--to", "+31612345678", "too early"]);
    assert_eq!(refused.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("hint: start it"));
}

#[test]
fn the_manifest_names_every_endpoint_under_the_public_url() {
    let site = Site::new();
    let manifest: serde_json::Value =
        serde_json::from_str(&site.output(&["manifest", "--public-url", "https://gw.example.com/"])).unwrap();
    assert_eq!(manifest["version"], "v202101");
    let endpoints = manifest["endpoints"].as_object().unwrap();
    assert_eq!(endpoints.len(), 7, "{endpoints:?}");
    assert!(
        endpoints
            .values()
            .all(|url| url.as_str().unwrap().starts_with("https://gw.example.com/api/"))
    );
    let wrong = site.command(&["manifest", "--public-url", "http://gw.example.com"]);
    assert_eq!(wrong.status.code(), Some(65));
}

#[test]
fn a_payload_can_be_tried_against_a_mapping() {
    let site = Site::new();
    let payload = r#"{"datetime":"2021-01-23 13:30:00","number":"+31612345678","text":"hi"}"#;
    let shown = site.output(&[
        "mqtt",
        "test",
        "--device",
        "sms-office",
        "--topic",
        "sms2mqtt/received",
        "--payload",
        payload,
    ]);
    assert!(shown.contains("+31612345678") && shown.contains("hi"), "{shown}");
    let unknown = site.command(&[
        "mqtt",
        "test",
        "--device",
        "office",
        "--topic",
        "x",
        "--payload",
        "y",
    ]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("configured devices: sms-office"));
}
