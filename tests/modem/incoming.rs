//! From the modem to the store.

use crate::gateway::*;

const LONG: &str = "A text that is longer than one message: Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do \
                    eiusmod tempor incididunt ut labore et dolore magna aliqua. Ut enim ad minim veniam, quis nostrud \
                    exercitation ullamco laboris nisi ut aliquip ex ea commodo consequat.";

#[tokio::test]
async fn a_text_is_stored_and_only_then_deleted_from_the_modem() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    write(&modem, "+31612345678", "came before the gateway did");
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    write(&modem, "0612345678", "the same customer, €");
    write(&modem, "MyBank", "a name");
    write(&modem, "+31612345678", LONG);
    let mut all = gateway.incoming_are(4).await;
    all.sort();
    let customer = |text: &str| ("+31612345678".to_owned(), text.to_owned());
    let mut expected = vec![
        customer("came before the gateway did"),
        customer("the same customer, €"),
        customer(LONG),
        ("MyBank".to_owned(), "a name".to_owned()),
    ];
    expected.sort();
    assert_eq!(all, expected);
    deleted(&modem, 5).await;
    gateway.stop().await;
}

#[tokio::test]
async fn parts_survive_a_restart_and_come_in_any_order_and_twice() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    let first = parts(&modem, "+31612345678", LONG, 7);
    let other = parts(&modem, "+31687654321", LONG, 7);
    assert!(first.len() >= 2);
    bring(&modem, &first[1]);
    bring(&modem, &other[0]);
    deleted(&modem, 2).await;
    gateway.crash().await;
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    bring(&modem, &first[1]);
    bring(&modem, &first[0]);
    bring(&modem, &other[1]);
    let mut all = gateway.incoming_are(2).await;
    all.sort();
    assert_eq!(
        all,
        [
            ("+31612345678".to_owned(), LONG.to_owned()),
            ("+31687654321".to_owned(), LONG.to_owned())
        ]
    );
    deleted(&modem, 5).await;
    // A part that the network repeats after the message is whole makes no second message.
    bring(&modem, &first[0]);
    deleted(&modem, 6).await;
    write(&modem, "+31600000001", "the end");
    gateway.incoming_are(3).await;
    gateway.stop().await;
}

#[tokio::test]
async fn two_equal_texts_in_one_second_stay_two_and_a_crash_before_the_deletion_makes_none_of_them_two() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    let pdu = parts(&modem, "+31612345678", "ok", 1).remove(0);
    bring(&modem, &pdu);
    deleted(&modem, 1).await;
    bring(&modem, &pdu);
    gateway.incoming_are(2).await;
    deleted(&modem, 2).await;
    // The modem deletes nothing while it is slow: the gateway is killed between the store and the deletion.
    bring(&modem, &pdu);
    gateway.incoming_are(3).await;
    gateway.crash().await;
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    write(&modem, "+31612345678", "the next");
    let all = gateway.incoming_are(4).await;
    assert_eq!(all.iter().filter(|(_, text)| text == "ok").count(), 3);
    deleted(&modem, 4).await;
    gateway.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_kept_and_delivered_as_a_message_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    let mut gateway = Gateway::start(folder.path());
    gateway.up().await;
    let mut pdu = parts(&modem, "+31612345678", "cut off", 1).remove(0);
    pdu.truncate(22);
    bring(&modem, &pdu);
    let all = gateway.incoming_are(1).await;
    assert!(
        all[0].1.starts_with("(a text message came that cannot be read"),
        "{all:?}"
    );
    assert_eq!(all[0].0, "+31612345678");
    assert_eq!(gateway.store.counts().unmapped, 1);
    deleted(&modem, 1).await;
    gateway.stop().await;
}

#[tokio::test]
async fn an_incomplete_message_is_delivered_as_what_came() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(folder.path(), options());
    let mut config = config(&folder.path().join("modem"));
    config.incomplete_after = std::time::Duration::from_millis(300);
    let mut gateway = Gateway::start_with(folder.path(), config);
    gateway.up().await;
    let parts = parts(&modem, "+31612345678", LONG, 9);
    bring(&modem, &parts[0]);
    let all = gateway.incoming_are(1).await;
    assert!(all[0].1.contains("incomplete: part 2 of 2 is missing"), "{all:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn more_texts_than_the_sim_holds_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let modem = plug(
        folder.path(),
        pipepost::sim::modem::Options {
            sim_places: 5,
            ..options()
        },
    );
    for number in 0..40 {
        write(&modem, "+31612345678", &format!("text {number}"));
    }
    let gateway = Gateway::start(folder.path());
    let all = gateway.incoming_are(40).await;
    let texts: Vec<String> = all.into_iter().map(|(_, text)| text).collect();
    let expected: Vec<String> = (0..40).map(|number| format!("text {number}")).collect();
    assert_eq!(texts, expected, "in their order");
    deleted(&modem, 40).await;
    gateway.stop().await;
}
