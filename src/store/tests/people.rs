//! Names of people.

use super::*;
use crate::protocol::sms::Home;

fn options(folder: &TempDir) -> Options {
    Options {
        disk_reserve: 0,
        home: Home::new("GB").unwrap(),
        ..Options::new(folder.path())
    }
}

fn contact(of: &str, name: &str) -> Contact {
    Contact {
        address: address(of),
        name: name.to_owned(),
    }
}

fn names(store: &Store, id: ConversationId) -> Vec<String> {
    let view = store.reader().conversation(id, 1, None).unwrap().unwrap();
    view.participants.into_iter().map(|one| one.name).collect()
}

#[tokio::test]
async fn the_address_book_comes_before_the_device_and_the_device_before_the_number() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    let message = store
        .insert_incoming(received("+447700900142", "hello"))
        .await
        .unwrap()
        .id();
    let id = message.conversation;
    assert_eq!(names(&store, id), ["+44 7700 900142"]);

    let mut named = received("+447700900142", "again");
    named.from_name = Some("ann (device)".to_owned());
    store.insert_incoming(named).await.unwrap();
    assert_eq!(names(&store, id), ["ann (device)"]);

    let outcomes = store
        .put_contacts(vec![contact("+447700900142", "Ann Smith")])
        .await
        .unwrap();
    assert_eq!(outcomes, [ContactOutcome::Added]);
    assert_eq!(names(&store, id), ["Ann Smith"]);
    let view = store.reader().conversation(id, 1, None).unwrap().unwrap();
    assert_eq!(view.name, "Ann Smith");
    let who = store
        .reader()
        .participant(&view.participants[0].id)
        .unwrap()
        .unwrap()
        .1;
    assert_eq!(who.name, "Ann Smith");

    store
        .remove_contacts(Some(vec![address("+447700900142")]))
        .await
        .unwrap();
    assert_eq!(names(&store, id), ["ann (device)"]);
}

#[tokio::test]
async fn a_number_is_found_however_the_device_writes_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    store
        .put_contacts(vec![contact("+447700900142", "Ann"), contact("!a1b2", "Node")])
        .await
        .unwrap();
    for (from, name) in [
        ("07700900142", "Ann"),
        ("00447700900142", "Ann"),
        ("447700900142", "Ann"),
        ("07700 900 142", "Ann"),
        ("!a1b2", "Node"),
        ("!a1b3", "!a1b3"),
        ("07700900143", "07700900143"),
    ] {
        let message = store.insert_incoming(received(from, "hello")).await.unwrap().id();
        assert_eq!(names(&store, message.conversation), [name], "{from}");
    }
}

#[tokio::test]
async fn a_later_import_changes_names_says_so_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    let id = store
        .insert_incoming(received("+447700900142", "hello"))
        .await
        .unwrap()
        .id()
        .conversation;
    store
        .put_contacts(vec![contact("+447700900142", "Ann Smit")])
        .await
        .unwrap();
    let second = vec![
        contact("+447700900142", "Ann Smith"),
        contact("+447700900143", "Ben"),
    ];
    let expected = [
        ContactOutcome::Changed {
            from: "Ann Smit".to_owned(),
        },
        ContactOutcome::Added,
    ];
    // First without a change.
    assert_eq!(store.reader().try_contacts(&second, 0).unwrap(), expected);
    assert_eq!(store.reader().contact_count().unwrap(), 1);
    assert_eq!(
        store.reader().try_contacts(&second, MAX_CONTACTS - 1).unwrap()[1],
        ContactOutcome::Full
    );
    assert_eq!(store.put_contacts(second.clone()).await.unwrap(), expected);
    assert_eq!(
        store.put_contacts(second.clone()).await.unwrap(),
        [ContactOutcome::Same, ContactOutcome::Same]
    );
    store.close().await;
    drop(store);

    let store = Store::open(options(&folder)).unwrap();
    assert_eq!(names(&store, id), ["Ann Smith"]);
    let reader = store.reader();
    assert_eq!(reader.contacts(None, 10).unwrap(), second);
    assert_eq!(reader.contacts(None, 1).unwrap(), second[..1]);
    assert_eq!(
        reader.contacts(Some(&second[0].address), 10).unwrap(),
        second[1..]
    );
    assert_eq!(store.remove_contacts(None).await.unwrap(), 2);
    assert_eq!(
        (
            store.remove_contacts(None).await.unwrap(),
            reader.contact_count().unwrap()
        ),
        (0, 0)
    );
}

#[tokio::test]
async fn everyone_in_a_group_has_a_name_of_his_own() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(options(&folder)).unwrap();
    let mut id = None;
    for from in ["+447700900142", "+447700900143"] {
        let mut message = received(from, "hello");
        message.group = Some(address("family"));
        id = Some(store.insert_incoming(message).await.unwrap().id().conversation);
    }
    store
        .put_contacts(vec![
            contact("+447700900143", "Ben"),
            contact("family", "The Smiths"),
        ])
        .await
        .unwrap();
    assert_eq!(names(&store, id.unwrap()), ["+44 7700 900142", "Ben"]);
    let view = store
        .reader()
        .conversation(id.unwrap(), 1, None)
        .unwrap()
        .unwrap();
    assert_eq!(view.name, "The Smiths");
}

#[tokio::test]
async fn seen_and_closed_are_kept_and_end_when_the_customer_writes() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(options(&folder)).unwrap();
    let id = store
        .insert_incoming(received("+447700900142", "hello"))
        .await
        .unwrap()
        .id()
        .conversation;
    let state = |store: &Store| {
        let view = store.reader().conversation(id, 1, None).unwrap().unwrap();
        (view.seen, view.status)
    };
    assert_eq!(state(&store), (false, ConversationStatus::Open));
    store.insert_outgoing(outgoing(id, "hello, Ann")).await.unwrap();
    assert_eq!(state(&store), (true, ConversationStatus::Open));
    assert!(store.set_status(id, ConversationStatus::Closed).await.unwrap());
    let refused = store
        .insert_outgoing(outgoing(id, "one more thing"))
        .await
        .unwrap_err();
    assert!(matches!(refused, StoreError::ConversationClosed), "{refused}");
    store.close().await;
    drop(store);

    store = Store::open(options(&folder)).unwrap();
    assert_eq!(state(&store), (true, ConversationStatus::Closed));
    store
        .insert_incoming(received("+447700900142", "are you there?"))
        .await
        .unwrap();
    assert_eq!(state(&store), (false, ConversationStatus::Open));
    store.mark_seen(id).await.unwrap();
    store.close().await;
    drop(store);

    store = Store::open(options(&folder)).unwrap();
    assert_eq!(state(&store), (true, ConversationStatus::Open));
    assert!(
        !store
            .set_status(ConversationId(1), ConversationStatus::Closed)
            .await
            .unwrap()
    );
}
