//! The whole daemon with an SMS modem: the simulated one, on a pseudo-terminal.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use pipepost::sim::modem::pdu::Text;
use pipepost::sim::modem::{Cable, Modem, Options, Profile};

use crate::support::{SOON, Site, wait_for};
use crate::travel::{answer, conversation_with};

const CHANNEL: &str = "gw-test-sms";
const CUSTOMER: &str = "+31612345678";

/// A modem that runs on a thread of its own, as long as the test.
fn modem(site: &Site) -> Arc<Modem> {
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
fn configure(site: &Site) {
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

fn wait_for_modem(site: &Site) {
    wait_for("the modem to be connected", SOON, || {
        site.output(&["status"])
            .contains("modem office connected")
            .then_some(())
    });
}

fn write(modem: &Modem, from: &str, text: &str, reference: u16) {
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
fn texts_survive_kills_of_the_daemon_once_each() {
    const TEXTS: usize = 120;
    let site = Site::new();
    configure(&site);
    let modem = modem(&site);
    let text = |n: usize| {
        let long = if n.is_multiple_of(3) {
            " and so on".repeat(20)
        } else {
            String::new()
        };
        format!("text {n}{long}")
    };
    let mut daemon = site.ready_daemon();
    wait_for_modem(&site);
    let mut accepted = 0;
    for n in 0..TEXTS {
        let from = format!("+3161234{:04}", n % 10);
        write(&modem, &from, &text(n), u16::try_from(n % 256).unwrap());
        if n % 10 == 9 {
            let first = site.sandbox.read(|state| {
                state
                    .conversations()
                    .next()
                    .map(|conversation| conversation.id.to_string())
            });
            if let Some(conversation) = first {
                accepted +=
                    usize::from(answer(&site, &conversation, &format!("answer {n}"), Vec::new()).is_ok());
            }
        }
        if n % 30 == 29 {
            daemon.kill();
            daemon = site.ready_daemon();
        }
    }
    wait_for("all texts to reach the inbox", SOON * 3, || {
        let count = site
            .sandbox
            .read(|state| state.messages().filter(|message| !message.outgoing).count());
        (count >= TEXTS).then_some(())
    });
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    site.sandbox.read(|state| {
        for message in state.messages().filter(|message| !message.outgoing) {
            *seen.entry(message.text.clone()).or_default() += 1;
        }
    });
    let expected: BTreeMap<String, usize> = (0..TEXTS).map(|n| (text(n), 1)).collect();
    assert_eq!(seen, expected);
    wait_for("the answers to go out", SOON * 2, || {
        site.output(&["queue"])
            .contains("to the hardware: nothing")
            .then_some(())
    });
    let sent: Vec<String> = modem
        .with(|engine| engine.shown())
        .into_iter()
        .filter_map(|shown| shown.text)
        .collect();
    let once: std::collections::BTreeSet<&String> = sent.iter().collect();
    assert_eq!(once.len(), sent.len(), "sent twice: {sent:?}");
    assert!(sent.len() <= accepted);
    wait_for("the modem to be empty", SOON, || {
        (modem.counts().stored == 0).then_some(())
    });
    site.assert_contract_kept();
}
