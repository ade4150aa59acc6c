//! Channels that are closed for one reason or another.

use super::*;

#[tokio::test]
async fn a_channel_that_may_not_be_registered_waits_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let registered = ChannelLink::Registered(wall_clock());
    store
        .set_channel_link(&channel("fine"), registered)
        .await
        .unwrap();
    for number in 0..30 {
        receive(&store, "new", &format!("c{number}"), "waits").await;
    }
    receive(&store, "fine", "c", "goes").await;
    let mut scripted = Scripted::new(|_, _, _| Outcome::Accepted);
    scripted.register = Box::new(|_| Outcome::Retry {
        reason: "Only an admin may register channels.".to_owned(),
        after: Some(Duration::from_secs(900)),
        scope: Scope::Channel,
    });
    let uplink = Arc::new(scripted);
    let running = start(&store, &uplink, settings(&store, &["new", "fine"], quick()));
    until("the other channel is through", || uplink.texts() == ["goes"]).await;
    until("the channel is held", || {
        running.handle.status().channels.len() == 1
    })
    .await;
    let status = running.handle.status();
    assert_eq!(status.channels[0].channel, channel("new"));
    assert_eq!(status.channels[0].reason, "Only an admin may register channels.");
    assert_eq!(uplink.registrations.load(Ordering::SeqCst), 1);
    running.stop().await;
}

#[tokio::test]
async fn an_unlinked_channel_keeps_its_messages_until_it_is_registered_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for number in 0..5 {
        receive(&store, "sms", "c", &number.to_string()).await;
    }
    let uplink = Arc::new(Scripted::new(|number, _, _| {
        if number > 0 {
            return Outcome::Accepted;
        }
        Outcome::ChannelUnlinked {
            reason: "Pipedrive does not know this channel any more.".to_owned(),
        }
    }));
    let running = start(&store, &uplink, settings(&store, &["sms"], quick()));
    let reader = store.reader();
    until("unlinked", || {
        matches!(
            reader.channel_link(&channel("sms")),
            Ok(ChannelLink::Unlinked { .. })
        )
    })
    .await;
    receive(&store, "sms", "c", "5").await;
    assert_eq!(uplink.texts(), ["0"]);
    let registered = ChannelLink::Registered(wall_clock());
    store.set_channel_link(&channel("sms"), registered).await.unwrap();
    running.handle.retry_now();
    until("drained", || is_drained(&store)).await;
    assert_eq!(uplink.texts(), ["0", "0", "1", "2", "3", "4", "5"]);
    running.stop().await;
}

#[tokio::test]
async fn messages_of_a_channel_that_is_configured_no_more_wait_visibly() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    receive(&store, "removed", "c", "waits").await;
    receive(&store, "sms", "c", "goes").await;
    let uplink = Arc::new(Scripted::new(|_, _, _| Outcome::Accepted));
    let running = start(&store, &uplink, settings(&store, &["sms"], quick()));
    until("the other is through", || uplink.texts() == ["goes"]).await;
    until("it waits", || running.handle.status().waiting_total == 1).await;
    let reason = running.handle.status().waiting[0].reason.clone();
    assert_eq!(
        reason,
        "The channel removed is configured no more; its messages are kept."
    );
    running.stop().await;
}

#[tokio::test]
async fn a_long_queue_of_a_channel_that_is_configured_no_more_does_not_hide_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for customer in 0..200 {
        receive(&store, "removed", &format!("c{customer}"), "waits").await;
    }
    receive(&store, "sms", "c", "goes").await;
    let uplink = Arc::new(Scripted::new(|_, _, _| Outcome::Accepted));
    let running = start(&store, &uplink, settings(&store, &["sms"], quick()));
    until("the other is through", || uplink.texts() == ["goes"]).await;
    running.stop().await;
}

#[tokio::test]
async fn an_installation_in_trouble_does_not_stop_another() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for customer in 0..20 {
        receive(&store, "bad", &format!("c{customer}"), "waits").await;
        receive(&store, "good", &format!("c{customer}"), "goes").await;
    }
    let mut scripted = Scripted::new(|_, call, _| match call.text.as_str() {
        "waits" => gone(),
        _ => Outcome::Accepted,
    });
    scripted.apart = true;
    let uplink = Arc::new(scripted);
    let running = start(&store, &uplink, settings(&store, &["bad", "good"], quick()));
    let count = |wanted: &str| uplink.texts().iter().filter(|text| *text == wanted).count();
    until("the other installation is through", || count("goes") == 20).await;
    until("the API is gone for the first", || {
        running.handle.status().state.word() == "channels_api_gone"
    })
    .await;
    let status = running.handle.status();
    let words: Vec<_> = status.installations.iter().map(|of| of.state.word()).collect();
    assert_eq!(words, ["channels_api_gone", "running"]);
    until("nothing is on its way", || running.handle.status().in_flight == 0).await;
    let asked = count("waits");
    receive(&store, "good", "c1", "goes").await;
    // A call is counted before its outcome is on record.
    until("the other goes on", || {
        count("goes") == 21 && store.counts().queued.uplink_messages == 20
    })
    .await;
    assert_eq!(count("waits"), asked);
    running.stop().await;
}

#[tokio::test]
async fn a_channel_without_an_installation_waits_visibly_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for customer in 0..20 {
        receive(&store, "lost", &format!("c{customer}"), "waits").await;
    }
    receive(&store, "fine", "c", "goes").await;
    let uplink = Arc::new(Scripted::new(|_, _, _| Outcome::Accepted));
    let provider = ProviderChannelId::new(store.gateway_id(), &channel("lost"));
    uplink.lost.lock().unwrap().insert(provider.clone(), false);
    let running = start(&store, &uplink, settings(&store, &["lost", "fine"], quick()));
    until("the other is through", || uplink.texts() == ["goes"]).await;
    let status = running.handle.status();
    assert_eq!(status.state, UplinkState::Running);
    assert_eq!(status.channels.len(), 1);
    assert_eq!(status.channels[0].channel, channel("lost"));
    uplink.lost.lock().unwrap().insert(provider.clone(), true);
    assert_eq!(running.handle.status().state.word(), "reconnect_needed");
    uplink.lost.lock().unwrap().clear();
    running.handle.retry_now();
    until("drained", || is_drained(&store)).await;
    running.stop().await;
}
