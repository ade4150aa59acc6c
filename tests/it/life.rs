//! Starting, stopping, and the others being away.

use std::time::Duration;

use pipepost::sim::pipedrive::Faults;

use crate::support::{Device, SOON, Site, terminate, wait_for};
use crate::travel::{answer, conversation_with};

#[test]
fn the_gateway_starts_while_the_broker_is_away_and_recovers_when_it_comes() {
    let mut site = Site::new();
    site.mosquitto.pause();
    let _daemon = site.ready_daemon();
    let status = wait_for("the broker to be shown as away", SOON, || {
        let status = site.output(&["status"]);
        status.contains("broker site NOT CONNECTED").then_some(status)
    });
    assert!(
        status.contains("running") || status.contains("pipedrive"),
        "{status}"
    );
    site.mosquitto.resume();
    wait_for("the broker to be connected", SOON, || {
        site.output(&["status"])
            .contains("broker site connected")
            .then_some(())
    });
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    device.customer_writes("+31612345678", "back again");
    conversation_with(&site, "back again");
}

#[test]
fn what_comes_while_pipedrive_is_down_is_kept_shown_and_delivered_later() {
    let site = Site::new();
    let _daemon = site.daemon();
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    device.customer_writes("+31612345678", "before");
    conversation_with(&site, "before");
    site.sandbox
        .set_faults(Faults {
            server_error: 1.0,
            ..Faults::default()
        })
        .unwrap();
    device.customer_writes("+31612345678", "while it is down");
    let queue = wait_for("the message to wait visibly", SOON, || {
        let queue = site.output(&["queue"]);
        queue.contains("while it is down").then_some(queue)
    });
    assert!(queue.contains("waiting for Pipedrive"), "{queue}");
    site.sandbox.set_faults(Faults::default()).unwrap();
    conversation_with(&site, "while it is down");
}

#[test]
fn nothing_is_lost_when_the_daemon_is_killed_and_the_broker_restarts_meanwhile() {
    let mut site = Site::new();
    let daemon = site.daemon();
    wait_for("the broker to be connected", SOON, || {
        site.output(&["status"])
            .contains("broker site connected")
            .then_some(())
    });
    {
        let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
        device.customer_writes("+31612345678", "one");
        conversation_with(&site, "one");
        daemon.kill();
        device.customer_writes("+31612345678", "two, while nobody listened");
        device.wait_for_acknowledgements(2);
    }
    site.mosquitto.pause();
    site.mosquitto.resume();
    let _daemon = site.daemon();
    let conversation = conversation_with(&site, "two, while nobody listened");
    let texts = site.sandbox.read(|state| {
        state
            .conversations()
            .map(|c| c.messages.iter().map(|m| m.text.clone()).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    });
    assert_eq!(
        texts,
        [["one", "two, while nobody listened"]],
        "in {conversation}"
    );
}

#[test]
fn an_answer_given_while_the_device_is_unreachable_goes_out_later() {
    let mut site = Site::new();
    let _daemon = site.daemon();
    let conversation = {
        let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
        device.customer_writes("+31612345678", "are you there?");
        conversation_with(&site, "are you there?")
    };
    site.mosquitto.pause();
    wait_for("the broker to be shown as away", SOON, || {
        site.output(&["status"]).contains("NOT CONNECTED").then_some(())
    });
    answer(&site, &conversation, "yes, in a moment", Vec::new()).unwrap();
    assert!(site.output(&["queue"]).contains("yes, in a moment"));
    site.mosquitto.resume();
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    let (_, payload) = device.next_answer();
    assert!(payload.contains("yes, in a moment"), "{payload}");
}

#[test]
fn a_stop_drains_and_a_reload_reads_the_certificate_again() {
    let site = Site::new();
    let mut daemon = site.daemon();
    terminate(&mut daemon.process.0, "HUP");
    wait_for("the reload", SOON, || {
        daemon.log().contains("Certificates read again").then_some(())
    });
    let begun = std::time::Instant::now();
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(daemon.log().contains("Stopped"), "{}", daemon.log());
    assert!(!site.dir.path().join("control.sock").exists());
}

#[test]
fn a_wrong_configuration_ends_with_78_and_names_line_key_and_remedy() {
    let site = Site::new();
    site.write("pipepost.toml", &site.config("max_conections = 3"));
    for arguments in [["run"], ["check"]] {
        let output = site.command(&arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{errors}");
        assert!(
            errors.contains("max_conections") && errors.contains("max_connections"),
            "{errors}"
        );
        assert!(errors.contains("pipepost.toml:"), "{errors}");
    }
}

#[test]
fn a_second_daemon_is_refused_in_words() {
    let site = Site::new();
    let _first = site.daemon();
    let second = site.command(&["run"]);
    let errors = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success());
    assert!(errors.contains("in use by another pipepost"), "{errors}");
    assert!(errors.contains("hint: "), "{errors}");
}

#[test]
fn a_start_waits_while_a_command_has_the_store_for_a_moment() {
    let site = Site::new();
    assert_eq!(site.daemon().stop(), Some(0));
    let lock = std::fs::File::open(site.dir.path().join("state/lock")).unwrap();
    lock.lock().unwrap();
    let mut daemon = site.spawn_daemon();
    wait_for("the daemon to wait", SOON, || {
        daemon.log().contains("in use by another pipepost").then_some(())
    });
    lock.unlock().unwrap();
    wait_for("the daemon to be ready", SOON, || {
        daemon.log().contains("Gateway ready").then_some(())
    });
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn no_secret_number_or_text_reaches_the_log() {
    let site = Site::new();
    let mut daemon = site.daemon();
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    device.customer_writes("+31612345678", "my secret wish");
    let conversation = conversation_with(&site, "my secret wish");
    answer(&site, &conversation, "granted quietly", Vec::new()).unwrap();
    device.next_answer();
    daemon.stop();
    let log = daemon.log();
    assert!(log.contains("Stored incoming message"), "{log}");
    for secret in [
        "31612345678",
        "secret wish",
        "granted quietly",
        "sandbox-token",
        "sandbox-secret",
    ] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}
