//! Messages in both directions.

use pipepost::sim::pipedrive::{File, Reply};

use crate::support::{Device, SOON, Site, wait_for};

const CHANNEL: &str = "gw-test-sms";

/// The conversation that holds a text, once the sandbox has it.
pub(crate) fn conversation_with(site: &Site, text: &str) -> String {
    wait_for(&format!("{text:?} to reach the inbox"), SOON, || {
        site.sandbox.read(|state| {
            state
                .conversations()
                .find(|c| c.messages.iter().any(|m| m.text == text))
                .map(|c| c.id.to_string())
        })
    })
}

pub(crate) fn answer(
    site: &Site,
    conversation: &str,
    text: &str,
    files: Vec<File>,
) -> Result<String, String> {
    let reply = Reply {
        channel: CHANNEL.to_owned(),
        conversation: conversation.to_owned(),
        text: text.to_owned(),
        files,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(site.sandbox.reply(reply))
}

fn statuses_of(site: &Site, message: &str) -> Vec<String> {
    site.sandbox.read(|state| {
        state
            .message(CHANNEL, message)
            .map(|m| m.statuses.clone())
            .unwrap_or_default()
    })
}

#[test]
fn a_customers_text_reaches_the_inbox_and_the_answer_reaches_the_device() {
    let site = Site::new();
    let mut daemon = site.daemon();
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    device.customer_writes("+31612345678", "Is the van still for sale? 🚐");

    let conversation = conversation_with(&site, "Is the van still for sale? 🚐");
    let message = answer(&site, &conversation, "It is!", Vec::new()).unwrap();
    let (topic, payload) = device.next_answer();
    let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
    assert_eq!(topic, "sms2mqtt/send");
    assert_eq!(
        payload,
        serde_json::json!({"number": "+31612345678", "text": "It is!"})
    );

    // The number is nowhere in what Pipedrive was told but as the participant's name.
    let shown = site.sandbox.read(|state| {
        let found = state.conversations().next().unwrap();
        assert!(!found.id.contains("31612345678"));
        found
            .participants
            .iter()
            .map(|p| p.name.clone())
            .collect::<Vec<_>>()
    });
    assert!(shown.contains(&"+31 6 12345678".to_owned()), "{shown:?}");
    assert!(
        site.output(&["conversations", "show", &conversation])
            .contains(&message)
    );
    assert_eq!(daemon.stop(), Some(0));
    site.assert_contract_kept();
}

#[test]
fn a_failure_that_the_device_reports_is_shown_in_the_inbox() {
    let site = Site::new();
    let _daemon = site.daemon();
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    device.customer_writes("+31612345678", "hello");
    let conversation = conversation_with(&site, "hello");
    let message = answer(&site, &conversation, "good morning", Vec::new()).unwrap();
    device.next_answer();
    let report =
        serde_json::json!({"result": "error : no network", "number": "+31612345678", "text": "good morning"});
    device.publish("sms2mqtt/sent", &report.to_string());
    wait_for("the inbox to show the failure", SOON, || {
        statuses_of(&site, &message)
            .contains(&"failed".to_owned())
            .then_some(())
    });
    site.assert_contract_kept();
}

#[test]
fn a_file_in_an_answer_becomes_a_link_that_serves_it() {
    let site = Site::new();
    let _daemon = site.daemon();
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    device.customer_writes("+31612345678", "the brochure please");
    let conversation = conversation_with(&site, "the brochure please");
    let pdf = File {
        name: "brochure.pdf".to_owned(),
        mime: "application/pdf".to_owned(),
        bytes: b"%PDF-1.4 tiny".to_vec(),
    };
    answer(&site, &conversation, "Here it is:", vec![pdf]).unwrap();
    let (_, payload) = device.next_answer();
    let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
    let text = payload["text"].as_str().unwrap();
    let link = text
        .strip_prefix("Here it is:\n")
        .unwrap_or_else(|| panic!("{text}"));
    assert!(
        link.starts_with(&format!("https://localhost:{}/media/", site.listener)),
        "{link}"
    );
    let certificate = site.dir.path().join("state/tls/self-signed.pem");
    let fetched = std::process::Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--include", "--cacert"])
        .arg(certificate)
        .arg(link)
        .output()
        .unwrap();
    let response = String::from_utf8_lossy(&fetched.stdout).to_lowercase();
    assert!(response.contains("content-type: application/pdf"), "{response}");
    assert!(response.ends_with("%pdf-1.4 tiny"), "{response}");
}

#[test]
fn what_no_mapping_can_read_becomes_a_visible_record_and_the_next_message_travels() {
    let site = Site::new();
    let _daemon = site.daemon();
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    device.publish("sms2mqtt/received", "this is not JSON \u{1b}[31m");
    device.customer_writes("+31612345678", "after the broken one");
    conversation_with(&site, "after the broken one");
    let records = site.output(&["unmapped"]);
    assert!(records.contains("this is not JSON"), "{records}");
    assert!(records.contains("why: "), "{records}");
    assert!(!records.contains('\u{1b}'), "{records}");
}
