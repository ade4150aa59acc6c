//! Modems that go, come back, are locked, or are not there.

use std::time::Duration;

use pipepost::domain::{Attempt, Secret};
use pipepost::sim::modem::{Engine, Interruption, Options, Place, Registration};

use crate::gateway::*;

#[tokio::test]
async fn a_modem_that_is_unplugged_and_comes_back_elsewhere_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    modem.unplug().await;
    gateway.down("").await;
    write(&modem, "+31612345678", "while it was away");
    modem.plug(cable(folder.path())).await.unwrap();
    gateway.up().await;
    gateway.incoming_are(1).await;
    assert_eq!(gateway.send("+31612345678", "here again").await.1, Attempt::Sent);
    gateway.stop().await;
}

#[tokio::test]
async fn a_missing_port_is_said_and_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(folder.path());
    let reason = gateway.down("is the modem plugged in").await;
    assert!(reason.contains("modem"), "{reason}");
    let modem = plug(folder.path(), options());
    gateway.up().await;
    drop(modem);
    gateway.stop().await;
}

#[tokio::test]
async fn a_right_pin_opens_the_sim_and_a_wrong_one_is_tried_once_also_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let locked = Options {
        pin: Some("4321".to_owned()),
        ..talkative()
    };
    let modem = plug(folder.path(), locked);
    let mut wrong = config(&folder.path().join("modem"));
    let mut gateway = Gateway::start_with(folder.path(), wrong.clone());
    gateway.down("write it to a file").await;
    gateway.crash().await;
    wrong.pin = Some(Secret::new("1111".to_owned()));
    let mut gateway = Gateway::start_with(folder.path(), wrong.clone());
    gateway.down("the SIM's PIN was refused").await;
    assert_eq!(modem.with(|engine| engine.wrong_pins()), 1);
    gateway.crash().await;
    let mut gateway = Gateway::start_with(folder.path(), wrong.clone());
    gateway.down("the SIM's PIN was refused").await;
    gateway.crash().await;
    assert_eq!(modem.with(|engine| engine.wrong_pins()), 1, "not tried again");
    let mut right = wrong;
    right.pin = Some(Secret::new("4321".to_owned()));
    let mut gateway = Gateway::start_with(folder.path(), right.clone());
    gateway.up().await;
    // The right PIN is used again after a power cut.
    modem.with(Engine::restart_now);
    gateway.down("").await;
    gateway.up().await;
    assert_eq!(modem.with(|engine| engine.wrong_pins()), 1);
    gateway.stop().await;
}

#[tokio::test]
async fn a_refused_pin_is_tried_once_more_on_another_sim() {
    let folder = tempfile::tempdir().unwrap();
    let card = |iccid: &str, pin: &str| Options {
        pin: Some(pin.to_owned()),
        iccid: iccid.to_owned(),
        ..talkative()
    };
    let mut config = config(&folder.path().join("modem"));
    config.pin = Some(Secret::new("1111".to_owned()));
    let modem = plug(folder.path(), card("8949020000001234567", "4321"));
    let mut gateway = Gateway::start_with(folder.path(), config.clone());
    gateway.down("the SIM's PIN was refused").await;
    gateway.crash().await;
    modem.stop().await;
    for pin in ["2222", "1111"] {
        let modem = plug(folder.path(), card(&format!("893100000000{pin}999"), pin));
        let mut gateway = Gateway::start_with(folder.path(), config.clone());
        if pin == "1111" {
            gateway.up().await;
        } else {
            gateway.down("the SIM's PIN was refused").await;
        }
        gateway.crash().await;
        let mut gateway = Gateway::start_with(folder.path(), config.clone());
        if pin == "1111" {
            gateway.up().await;
        } else {
            gateway.down("the SIM's PIN was refused").await;
            assert_eq!(modem.with(|engine| engine.wrong_pins()), 1);
        }
        gateway.crash().await;
        modem.stop().await;
    }
}

#[tokio::test]
async fn without_a_network_nothing_is_sent_and_texts_still_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(
        folder.path(),
        Options {
            registration: Registration::Denied,
            ..options()
        },
    );
    let mut gateway = Gateway::start(folder.path());
    gateway.down("denied").await;
    let (_, outcome) = gateway.send("+31612345678", "waits").await;
    assert!(matches!(outcome, Attempt::NotStarted(_)), "{outcome:?}");
    modem.with(|engine| engine.network(Registration::Roaming));
    gateway.up().await;
    let status = gateway.status(|status| status.network == "roaming").await;
    assert_eq!(status.sim, "ready");
    assert!(status.model.is_some() && status.signal_dbm.is_some() && status.imei.is_some());
    gateway.stop().await;
}

#[tokio::test]
async fn a_ussd_code_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    modem.with(|engine| engine.ussd_answer("*100#", "Your balance: 9.50"));
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    let (answer, received) = tokio::sync::oneshot::channel();
    let job = pipepost::driver::sms::UssdJob {
        code: "*100#".to_owned(),
        answer,
    };
    let ussd = gateway.handle.modem.clone().unwrap().ussd;
    ussd.send(job).await.ok().unwrap();
    let answer = tokio::time::timeout(LIMIT, received).await.unwrap().unwrap();
    assert_eq!(answer, Ok("Your balance: 9.50".to_owned()));
    gateway.stop().await;
}

#[tokio::test]
async fn a_modem_that_restarts_without_a_word_is_noticed_at_the_next_look() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    modem.with(Engine::restart_now);
    // It has forgotten to announce messages: this one lies in its memory until the gateway looks.
    modem.wait_for(|counts| counts.registered, LIMIT).await.unwrap();
    write(&modem, "+31612345678", "unannounced");
    gateway.incoming_are(1).await;
    write(&modem, "+31612345678", "announced again");
    gateway.incoming_are(2).await;
    gateway.stop().await;
}

#[tokio::test]
async fn texts_that_come_in_the_middle_of_answers_and_before_prompts_are_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    let places = [
        Place::BeforePdu,
        Place::BeforeAnswer,
        Place::BeforePrompt,
        Place::BeforeResult,
    ];
    for (round, place) in places.into_iter().enumerate() {
        let between = parts(&modem, "+31687654321", &format!("between {round}"), 1).remove(0);
        modem.with(|engine| engine.interrupt_next(place, Interruption::Pdu(between)));
        write(&modem, "+31612345678", &format!("text {round}"));
        let (_, outcome) = gateway.send("+31612345678", &format!("answer {round}")).await;
        assert_eq!(outcome, Attempt::Sent);
        gateway.incoming_are(2 * (round + 1)).await;
    }
    let texts: Vec<String> = gateway
        .incoming()
        .await
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    for round in 0..places.len() {
        assert!(texts.contains(&format!("between {round}")) && texts.contains(&format!("text {round}")));
    }
    assert_eq!(modem.counts().sent, places.len());
    deleted(&modem, 2 * places.len()).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_modem_that_stops_answering_is_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), talkative());
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    modem.with(Engine::restart_now);
    gateway.down("being prepared").await;
    gateway.up().await;
    modem.with(|engine| engine.deaf(Duration::from_secs(2)));
    write(&modem, "+31612345678", "through");
    gateway.incoming_are(1).await;
    gateway.stop().await;
}
