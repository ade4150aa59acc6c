//! The whole daemon with an SMS modem: the simulated one, on a pseudo-terminal.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use pipepost::sim::modem::pdu::Text;
use pipepost::sim::modem::{Cable, Modem, Options, Profile};

use crate::support::{SOON, Site, wait_for};
use crate::travel::{answer, conversation_with};

const CHANNEL: &str = "gw-test-sms";
const CUSTOMER: &str = "+31612345678";

/// A modem that runs on a thread of its own, as long as the test.
pub(crate) fn modem(site: &Site) -> Arc<Modem> {
    let link = site.dir.path().join("modem");
    let (sender, started) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let options = Options {
                profile: Profile::Sim7600,
                send_time: Duration::from_millis(10),
                report_after: Duration::from_millis(50),
                text_interval: Duration::from_millis(1),
                ..Options::default()
            };
            let modem = Modem::start(options, &Cable::Pty { link: Some(link) }).unwrap();
            sender.send(Arc::new(modem)).unwrap();
            std::future::pending::<()>().await;
        });
    });
    started.recv_timeout(SOON).unwrap()
}

/// The site's configuration with the modem in place of broker and device.
pub(crate) fn configure(site: &Site) {
    let config = site.config("");
    let (head, _) = config.split_once("[[broker]]").unwrap();
    let port = site.dir.path().join("modem");
    let modem = format!(
        "[[modem]]\nname = \"office\"\nport = \"{}\"\nhome_country = \"NL\"\npacing = \"0s\"\n\
         [[channel]]\nid = \"sms\"\nname = \"Office SMS\"\nkind = \"sms\"\nmodem = \"office\"\n",
        port.display()
    );
    site.write("pipepost.toml", &format!("{head}{modem}"));
}

pub(crate) fn wait_for_modem(site: &Site) {
    wait_for("the modem to be connected", SOON, || {
        site.output(&["status"])
            .contains("modem office connected")
            .then_some(())
    });
}

pub(crate) fn write(modem: &Modem, from: &str, text: &str, reference: u16) {
    modem.with(|engine| {
        let at = engine.wall_time();
        engine.text(&Text {
            reference,
            ..Text::new(from, text, at)
        });
    });
}

#[test]
fn a_text_message_reaches_the_inbox_and_the_answer_comes_back_as_delivered() {
    let site = Site::new();
    configure(&site);
    let modem = modem(&site);
    modem.with(|engine| engine.ussd_answer("*100#", "Your balance: 9.50"));
    let mut daemon = site.ready_daemon();
    wait_for_modem(&site);
    let text = "Is the van still for sale? 🚐";
    write(&modem, CUSTOMER, text, 1);
    let conversation = conversation_with(&site, text);
    let message = answer(&site, &conversation, "It is! € 900", Vec::new()).unwrap();
    wait_for("the answer to be delivered", SOON, || {
        site.sandbox.read(|state| {
            let message = state.message(CHANNEL, &message)?;
            message
                .statuses
                .iter()
                .any(|status| status == "delivered")
                .then_some(())
        })
    });
    let shown = modem.with(|engine| engine.shown());
    assert_eq!(shown.len(), 1);
    assert_eq!(
        (shown[0].to.as_str(), shown[0].text.as_deref()),
        (CUSTOMER, Some("It is! € 900"))
    );
    // A number in the national form is the same conversation.
    site.output(&[
        "send",
        "--channel",
        "sms",
        "--to",
        "06 1234 5678",
        "One more thing",
    ]);
    wait_for("the second message", SOON, || {
        (modem.counts().sent == 2).then_some(())
    });
    assert_eq!(
        site.output(&["conversations", "list"]).matches(CUSTOMER).count(),
        1
    );
    let listed = site.output(&["modem", "list"]);
    assert!(
        listed.contains("SIM ready") && listed.contains("(home)"),
        "{listed}"
    );
    assert_eq!(
        site.output(&["modem", "ussd", "office", "*100#"]),
        "Your balance: 9.50\n"
    );
    assert!(
        !site
            .command(&["modem", "ussd", "nobody", "*100#"])
            .status
            .success()
    );
    assert!(
        site.output(&["metrics"])
            .contains("pipepost_modem_signal_dbm{name=\"modem office\"}")
    );
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    site.assert_contract_kept();
}

#[test]
fn a_text_that_needs_too_many_parts_fails_in_pipedrive_with_the_reason_and_costs_nothing() {
    let site = Site::new();
    configure(&site);
    let modem = modem(&site);
    let mut daemon = site.ready_daemon();
    wait_for_modem(&site);
    write(&modem, CUSTOMER, "Send me everything", 1);
    let conversation = conversation_with(&site, "Send me everything");
    let long = "too long ".repeat(300);
    let message = answer(&site, &conversation, &long, Vec::new()).unwrap();
    let shown = wait_for("the answer to fail", SOON, || {
        site.sandbox.read(|state| {
            let message = state.message(CHANNEL, &message)?;
            let failed = message.statuses.iter().any(|status| status == "failed");
            failed.then(|| message.text.clone())
        })
    });
    let reason = "[not delivered: the text needs 18 parts, 10 are allowed]";
    assert!(shown.ends_with(reason), "{shown}");
    assert_eq!(modem.counts().sent, 0);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    site.assert_contract_kept();
}
