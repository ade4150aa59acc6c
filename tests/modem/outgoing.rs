//! From the queue to the network, and what becomes of it.

use std::time::Duration;

use pipepost::domain::*;
use pipepost::sim::modem::SendFault;

use crate::gateway::*;

const TO: &str = "+31612345678";

#[tokio::test]
async fn a_text_is_sent_and_its_report_makes_it_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    let (id, outcome) = gateway.send(TO, "Hello, € and ü").await;
    assert_eq!(outcome, Attempt::Sent);
    gateway
        .state(id, |state| *state == OutgoingState::Delivered)
        .await;
    let shown = modem.with(|engine| engine.shown());
    assert_eq!(shown.len(), 1);
    assert_eq!(
        (shown[0].to.as_str(), shown[0].text.as_deref()),
        (TO, Some("Hello, € and ü"))
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_long_text_is_delivered_only_when_all_its_parts_are() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    let text = "Ünïcode 🙂 ".repeat(20);
    // The report of the first part says "still trying" for long; that of the others comes at once.
    modem.with(|engine| engine.next_fate(vec![0x30]));
    let (id, outcome) = gateway.send(TO, &text).await;
    assert_eq!(outcome, Attempt::Sent);
    let shown = modem.with(|engine| engine.shown());
    assert_eq!(shown[0].text.as_deref(), Some(text.as_str()));
    assert!(shown[0].complete && shown[0].references.len() > 2);
    modem.wait_for(|counts| counts.waiting == 0, LIMIT).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    gateway.state(id, |state| *state == OutgoingState::Sent).await;
    // The same text again, with nothing in the way.
    let (again, _) = gateway.send(TO, &text).await;
    gateway
        .state(again, |state| *state == OutgoingState::Delivered)
        .await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_report_finds_its_message_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    modem.with(|engine| engine.report_after(Duration::from_secs(3)));
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    let (id, outcome) = gateway.send(TO, "late").await;
    assert_eq!(outcome, Attempt::Sent);
    gateway.crash().await;
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    gateway
        .state(id, |state| *state == OutgoingState::Delivered)
        .await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_failed_delivery_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    modem.with(|engine| engine.fate(vec![0x46]));
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    let (id, _) = gateway.send(TO, "never").await;
    let state = gateway
        .state(id, |state| matches!(state, OutgoingState::Rejected(_)))
        .await;
    assert_eq!(
        state,
        OutgoingState::Rejected("validity period expired".to_owned())
    );
    gateway.stop().await;
}

#[tokio::test]
async fn each_error_has_its_outcome_and_one_bad_recipient_does_not_hold_up_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    modem.with(|engine| engine.next_send(SendFault::Cms(28)));
    let (_, outcome) = gateway.send(TO, "nobody").await;
    assert_eq!(
        outcome,
        Attempt::Rejected("the network does not know the recipient (CMS error 28)".to_owned())
    );
    modem.with(|engine| engine.next_send(SendFault::Cms(332)));
    let (_, outcome) = gateway.send(TO, "perhaps").await;
    assert!(matches!(outcome, Attempt::Unknown(_)), "{outcome:?}");
    let (_, outcome) = gateway.send("MyBank", "hello bank").await;
    assert!(matches!(outcome, Attempt::Rejected(_)), "{outcome:?}");
    let (_, outcome) = gateway.send(TO, &"too long ".repeat(300)).await;
    assert_eq!(
        outcome,
        Attempt::Rejected("the text needs 18 parts, 10 are allowed".to_owned())
    );
    let (id, outcome) = gateway.send(TO, "and on").await;
    assert_eq!(outcome, Attempt::Sent);
    gateway
        .state(id, |state| *state == OutgoingState::Delivered)
        .await;
    assert_eq!(modem.counts().sent, 1, "nothing else left");
    gateway.stop().await;
}

#[tokio::test]
async fn a_moment_of_trouble_is_waited_out() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    modem.with(|engine| engine.next_send(SendFault::Cms(42)));
    let (id, outcome) = gateway.send(TO, "congested").await;
    assert_eq!(outcome, Attempt::Sent);
    gateway
        .state(id, |state| *state == OutgoingState::Delivered)
        .await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_restart_of_the_modem_after_ctrl_z_leaves_it_unknown_and_a_report_tells() {
    for taken in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let modem = plug(folder.path(), talkative());
        // Long enough for the modem to be told again that it shall report.
        modem.with(|engine| engine.report_after(Duration::from_secs(4)));
        let mut gateway = Gateway::start(folder.path());
        gateway.up().await;
        modem.with(|engine| engine.next_send(SendFault::Restart { taken }));
        let (id, outcome) = gateway.send(TO, "in the air").await;
        assert!(matches!(outcome, Attempt::Unknown(_)), "{outcome:?}");
        gateway.up().await;
        if taken {
            gateway
                .state(id, |state| *state == OutgoingState::Delivered)
                .await;
        }
        assert_eq!(
            modem.counts().sent,
            usize::from(taken),
            "it is not sent again by itself"
        );
        gateway.stop().await;
    }
}

#[tokio::test]
async fn the_daily_cap_holds_what_is_above_it() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    let mut config = config(&folder.path().join("modem"));
    config.daily_cap = 2;
    let mut gateway = Gateway::start_with(folder.path(), config.clone());
    gateway.up().await;
    assert_eq!(gateway.send(TO, "one").await.1, Attempt::Sent);
    gateway.crash().await;
    let mut gateway = Gateway::start_with(folder.path(), config);
    gateway.up().await;
    assert_eq!(gateway.send(TO, "two").await.1, Attempt::Sent);
    let (_, outcome) = gateway.send(TO, "three").await;
    assert!(matches!(outcome, Attempt::NotStarted(_)), "{outcome:?}");
    gateway.paused("the daily cap of 2 parts is reached").await;
    write(&modem, TO, "meanwhile");
    gateway.incoming_are(1).await;
    assert_eq!(modem.counts().sent, 2);
    assert_eq!(gateway.status(|status| status.sent_today == 2).await.daily_cap, 2);
    gateway.stop().await;
}

#[tokio::test]
async fn a_long_text_that_was_cut_off_goes_on_where_it_was_also_after_a_crash_and_other_messages() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    let text = "Ünïcode 🙂 ".repeat(20);
    modem.with(|engine| {
        engine.next_send(SendFault::None);
        engine.next_send(SendFault::Cms(310));
    });
    let (id, outcome) = gateway.send(TO, &text).await;
    assert!(matches!(outcome, Attempt::NotStarted(_)), "{outcome:?}");
    assert_eq!(modem.counts().sent, 1, "its first part is on the air");
    gateway.crash().await;
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    assert_eq!(gateway.send("+31687654321", "another").await.1, Attempt::Sent);
    let outcome = gateway.attempt(id).await.await.unwrap();
    assert_eq!(outcome, Attempt::Sent);
    let shown = modem.with(|engine| engine.shown());
    let of_it: Vec<_> = shown.iter().filter(|shown| shown.to == TO).collect();
    assert_eq!(of_it.len(), 1, "{of_it:?}");
    assert!(of_it[0].complete);
    assert_eq!(of_it[0].text.as_deref(), Some(text.as_str()));
    gateway.stop().await;
}
