//! Messages, queues and states.

use super::refused::REFUSED_UPDATES_KEPT;
use super::*;
use crate::domain::{DeliveryState, DeviceStatus, IncomingState, OutgoingState, StatusTarget};

#[tokio::test]
async fn a_restart_keeps_messages_queues_and_ids() {
    let bed = Bed::new();
    let gateway = bed.store.gateway_id().clone();
    let secret = bed.store.media_secret();
    let name = bed.store.persistent_name("broker site").await.unwrap();
    let first = bed.incoming("+4915112345678", "hello").await;
    let second = bed.incoming("+4915187654321", "hi").await;
    let answer = bed
        .store
        .insert_outgoing(outgoing(first.conversation, "good morning"))
        .await
        .unwrap();
    let counts = bed.store.counts();
    let bed = bed.restart().await;
    assert_eq!(*bed.store.gateway_id(), gateway);
    assert_eq!(bed.store.media_secret(), secret);
    assert_eq!(bed.store.persistent_name("broker site").await.unwrap(), name);
    assert_eq!(bed.texts(first.conversation), ["good morning", "hello"]);
    assert_eq!(bed.heads(Queue::ToUplink), [first, second]);
    assert_eq!(bed.heads(Queue::ToHardware), [answer]);
    assert_eq!(bed.store.counts(), counts);
    assert_eq!(counts.queued.uplink_messages, 2);
    let third = bed.incoming("+4915112345678", "again").await;
    assert!(
        third.sequence > answer.sequence,
        "sequences are never given out twice"
    );
}

#[tokio::test]
async fn a_repeat_of_a_device_message_is_recognised_also_after_a_restart() {
    let bed = Bed::new();
    let first = bed
        .store
        .insert_incoming(with_id(received("+491", "ok"), "17"))
        .await
        .unwrap();
    let again = bed
        .store
        .insert_incoming(with_id(received("+491", "ok"), "17"))
        .await
        .unwrap();
    assert_eq!(again, Inserted::Duplicate(first.id()));
    let bed = bed.restart().await;
    let again = bed
        .store
        .insert_incoming(with_id(received("+491", "ok"), "17"))
        .await
        .unwrap();
    assert_eq!(again, Inserted::Duplicate(first.id()));
    assert_eq!(bed.store.counts().messages, 1);
    let mut elsewhere = with_id(received("+491", "ok"), "17");
    elsewhere.channel = "store".parse().unwrap();
    assert!(matches!(
        bed.store.insert_incoming(elsewhere).await.unwrap(),
        Inserted::New(_)
    ));
}

#[tokio::test]
async fn two_equal_texts_without_a_key_stay_two_messages() {
    let bed = Bed::new();
    let first = bed.incoming("+491", "ok").await;
    let second = bed.incoming("+491", "ok").await;
    assert_ne!(first, second);
    assert_eq!(first.conversation, second.conversation);
    assert_eq!(bed.texts(first.conversation), ["ok", "ok"]);
}

#[tokio::test]
async fn a_packet_that_is_no_repeat_is_stored_twice_but_its_redelivery_is_recognised() {
    let bed = Bed::new();
    let packet = |dedup| ReceivedMessage {
        dedup: Some(dedup),
        ..received("+491", "ok")
    };
    let first = bed
        .store
        .insert_incoming(packet(DedupKey::FirstHash([7; 32])))
        .await
        .unwrap();
    let second = bed
        .store
        .insert_incoming(packet(DedupKey::FirstHash([7; 32])))
        .await
        .unwrap();
    assert_ne!(first.id(), second.id());
    let again = bed
        .store
        .insert_incoming(packet(DedupKey::Hash([7; 32])))
        .await
        .unwrap();
    assert_eq!(again, Inserted::Duplicate(second.id()));
}

#[tokio::test]
async fn each_conversation_has_one_head_and_the_oldest_comes_first() {
    let bed = Bed::new();
    let a1 = bed.incoming("+491", "a1").await;
    let b1 = bed.incoming("+492", "b1").await;
    let a2 = bed.incoming("+491", "a2").await;
    assert_eq!(bed.heads(Queue::ToUplink), [a1, b1]);
    let exclude = HashSet::from([a1.conversation]);
    let heads = bed.store.heads(Queue::ToUplink, Some(&channel()), &exclude, 10);
    assert_eq!(heads.iter().map(Head::message).collect::<Vec<_>>(), [b1]);
    let mut changed = bed.store.queue_changed(Queue::ToUplink);
    changed.mark_unchanged();
    let item = bed.store.reader().uplink_item(a1.conversation).unwrap().unwrap();
    assert_eq!((item.message.id, item.known_to_pipedrive), (a1, false));
    bed.store.uplink_done(a1, item.revision).await.unwrap();
    assert!(changed.has_changed().unwrap());
    assert_eq!(bed.heads(Queue::ToUplink), [b1, a2]);
    assert_eq!(
        bed.message(a1).state,
        DeliveryState::Incoming(IncomingState::Accepted)
    );
    let item = bed.store.reader().uplink_item(a1.conversation).unwrap().unwrap();
    assert!(item.known_to_pipedrive);
    bed.store
        .uplink_failed(a2, item.revision, "too long".to_owned())
        .await
        .unwrap();
    assert_eq!(
        bed.message(a2).state,
        DeliveryState::Incoming(IncomingState::Failed("too long".to_owned()))
    );
    assert_eq!(bed.heads(Queue::ToUplink), [b1]);
    assert_eq!(bed.store.counts().queued.uplink_messages, 1);
}

/// An answer that the hardware rejected, with the update that says so at the head of the queue.
async fn rejected_answer(bed: &Bed, question: MessageId) -> (MessageId, u64) {
    let answer = bed
        .store
        .insert_outgoing(outgoing(question.conversation, "yes"))
        .await
        .unwrap();
    bed.store.start_attempt(answer, at(1)).await.unwrap().unwrap();
    bed.store
        .finish_attempt(answer, Attempt::Rejected("no credit".to_owned()), false)
        .await
        .unwrap();
    let item = bed
        .store
        .reader()
        .uplink_item(question.conversation)
        .unwrap()
        .unwrap();
    assert_eq!((item.message.id, item.kind), (answer, UplinkKind::Status));
    (answer, item.revision)
}

#[tokio::test]
async fn an_update_that_pipedrive_refuses_is_kept_with_its_reason_until_one_is_accepted() {
    let bed = Bed::new();
    let question = bed.incoming("+491", "are you open?").await;
    bed.drain_uplink().await;
    let (answer, revision) = rejected_answer(&bed, question).await;
    let refused = |store: &Store| store.reader().refused_updates(None).unwrap();
    bed.store
        .uplink_failed(answer, revision, "status is unknown".to_owned())
        .await
        .unwrap();
    let bed = bed.restart().await;
    assert_eq!(refused(&bed.store), [(answer, "status is unknown".to_owned())]);
    let of = |id| bed.store.reader().refused_updates(Some(id)).unwrap().len();
    assert_eq!((of(question.conversation), of(ConversationId(7))), (1, 0));
    assert!(bed.heads(Queue::ToUplink).is_empty(), "it is not sent again");

    bed.store
        .apply_status(StatusReport {
            channel: channel(),
            of: StatusTarget::Id(answer),
            status: DeviceStatus::Delivered,
        })
        .await
        .unwrap();
    assert_eq!(bed.drain_uplink().await, [(answer, UplinkKind::Status)]);
    assert!(refused(&bed.store).is_empty(), "Pipedrive knows better now");
}

#[tokio::test]
async fn a_refused_update_goes_with_its_conversation_and_the_oldest_make_room() {
    let bed = Bed::new();
    let question = bed.incoming("+491", "are you open?").await;
    bed.drain_uplink().await;
    let mut answers = Vec::new();
    for number in 0..=REFUSED_UPDATES_KEPT {
        let (answer, revision) = rejected_answer(&bed, question).await;
        bed.store
            .uplink_failed(answer, revision, number.to_string())
            .await
            .unwrap();
        answers.push(answer);
    }
    let kept: Vec<MessageId> = bed
        .store
        .reader()
        .refused_updates(None)
        .unwrap()
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(kept, answers.split_off(1), "without the oldest, in their order");
    assert!(
        bed.store
            .delete_conversation(question.conversation)
            .await
            .unwrap()
    );
    assert!(bed.store.reader().refused_updates(None).unwrap().is_empty());
}

#[tokio::test]
async fn an_answer_travels_from_queued_to_delivered_and_pipedrive_is_told_once() {
    let bed = Bed::new();
    let question = bed.incoming("+491", "are you open?").await;
    bed.drain_uplink().await;
    let answer = bed
        .store
        .insert_outgoing(outgoing(question.conversation, "yes"))
        .await
        .unwrap();
    let job = bed.store.start_attempt(answer, at(1)).await.unwrap().unwrap();
    assert_eq!((job.to, job.text.as_str()), (address("+491"), "yes"));
    assert_eq!(
        bed.store
            .start_attempt(answer, at(1))
            .await
            .unwrap()
            .map(|o| o.id),
        None
    );
    bed.store
        .finish_attempt(answer, Attempt::Sent, false)
        .await
        .unwrap();
    assert_eq!(bed.heads(Queue::ToHardware), []);
    assert_eq!(bed.heads(Queue::ToUplink), [], "sent says nothing new");
    let report = |status| StatusReport {
        channel: channel(),
        of: StatusTarget::Id(answer),
        status,
    };
    assert_eq!(
        bed.store
            .apply_status(report(DeviceStatus::Delivered))
            .await
            .unwrap(),
        StatusApplied::Applied(answer)
    );
    assert_eq!(
        bed.store.apply_status(report(DeviceStatus::Sent)).await.unwrap(),
        StatusApplied::Unchanged(answer)
    );
    assert_eq!(bed.drain_uplink().await, [(answer, UplinkKind::Status)]);
}

#[tokio::test]
async fn a_status_that_changes_while_its_update_travels_is_told_again() {
    let bed = Bed::new();
    let question = bed.incoming("+491", "?").await;
    bed.drain_uplink().await;
    let answer = bed
        .store
        .insert_outgoing(outgoing(question.conversation, "yes"))
        .await
        .unwrap();
    bed.store.start_attempt(answer, at(1)).await.unwrap();
    bed.store
        .finish_attempt(answer, Attempt::Sent, false)
        .await
        .unwrap();
    let report = |status| StatusReport {
        channel: channel(),
        of: StatusTarget::Id(answer),
        status,
    };
    bed.store
        .apply_status(report(DeviceStatus::Delivered))
        .await
        .unwrap();
    let item = bed
        .store
        .reader()
        .uplink_item(answer.conversation)
        .unwrap()
        .unwrap();
    bed.store.apply_status(report(DeviceStatus::Read)).await.unwrap();
    assert_eq!(
        bed.store.counts().queued.uplink_statuses,
        1,
        "two updates of one message share an entry"
    );
    bed.store.uplink_done(answer, item.revision).await.unwrap();
    let item = bed
        .store
        .reader()
        .uplink_item(answer.conversation)
        .unwrap()
        .unwrap();
    assert_eq!(item.message.state, DeliveryState::Outgoing(OutgoingState::Read));
    bed.store.uplink_done(answer, item.revision).await.unwrap();
    assert!(
        bed.store
            .reader()
            .uplink_item(answer.conversation)
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn an_announced_answer_that_fails_is_still_told_as_new() {
    let bed = Bed::new();
    let question = bed.incoming("+491", "?").await;
    bed.drain_uplink().await;
    let mut order = outgoing(question.conversation, "from the command line");
    order.announce = true;
    let answer = bed.store.insert_outgoing(order).await.unwrap();
    let item = bed
        .store
        .reader()
        .uplink_item(answer.conversation)
        .unwrap()
        .unwrap();
    bed.store.start_attempt(answer, at(1)).await.unwrap();
    bed.store
        .finish_attempt(answer, Attempt::Rejected("no credit".to_owned()), false)
        .await
        .unwrap();
    // The new message had left with "sent"; what is left to tell is the failure.
    bed.store.uplink_done(answer, item.revision).await.unwrap();
    assert_eq!(bed.drain_uplink().await, [(answer, UplinkKind::Status)]);
}

#[tokio::test]
async fn an_attempt_cut_off_by_a_restart_is_unknown_or_sent_again_as_the_channel_says() {
    let bed = Bed::new();
    let question = bed.incoming("+491", "?").await;
    bed.drain_uplink().await;
    let first = bed
        .store
        .insert_outgoing(outgoing(question.conversation, "one"))
        .await
        .unwrap();
    bed.store.start_attempt(first, at(1)).await.unwrap();
    let bed = bed.restart().await;
    assert_eq!(bed.store.recover_attempts(&|_| true).await.unwrap(), 1);
    assert_eq!(
        bed.message(first).state,
        DeliveryState::Outgoing(OutgoingState::Queued)
    );
    bed.store.start_attempt(first, at(2)).await.unwrap().unwrap();
    let bed = bed.restart().await;
    assert_eq!(bed.store.recover_attempts(&|_| false).await.unwrap(), 1);
    assert!(matches!(
        bed.message(first).state,
        DeliveryState::Outgoing(OutgoingState::Unknown(_))
    ));
    assert_eq!(bed.heads(Queue::ToHardware), []);
    assert_eq!(bed.drain_uplink().await, [(first, UplinkKind::Status)]);
}

#[tokio::test]
async fn a_report_by_recipient_means_the_oldest_message_that_it_can_change() {
    let bed = Bed::new();
    let question = bed.incoming("+491", "?").await;
    let mut ids = Vec::new();
    for (seconds, text) in [(0, "old"), (100, "one"), (110, "two"), (120, "three")] {
        let id = bed
            .store
            .insert_outgoing(outgoing(question.conversation, text))
            .await
            .unwrap();
        bed.store.start_attempt(id, at(seconds)).await.unwrap();
        bed.store.finish_attempt(id, Attempt::Sent, false).await.unwrap();
        ids.push(id);
    }
    let report = |text: Option<&str>| StatusReport {
        channel: channel(),
        of: StatusTarget::Recipient {
            address: address("+491"),
            text: text.map(str::to_owned),
            not_before: at(50),
        },
        status: DeviceStatus::Delivered,
    };
    assert_eq!(
        bed.store.apply_status(report(Some("two"))).await.unwrap(),
        StatusApplied::Applied(ids[2])
    );
    assert_eq!(
        bed.store.apply_status(report(None)).await.unwrap(),
        StatusApplied::Applied(ids[1])
    );
    assert_eq!(
        bed.store.apply_status(report(None)).await.unwrap(),
        StatusApplied::Applied(ids[3])
    );
    assert_eq!(
        bed.store.apply_status(report(None)).await.unwrap(),
        StatusApplied::NoMatch
    );
}

#[tokio::test]
async fn a_report_that_repeats_the_text_with_its_links_is_understood() {
    let bed = Bed::new();
    let question = bed.incoming("+491", "?").await;
    let mut ids = Vec::new();
    for (text, files) in [("see this", 0), ("see this", 2), ("", 1)] {
        let mut order = outgoing(question.conversation, text);
        for _ in 0..files {
            let writer = bed
                .store
                .stage_attachment("a.pdf", "application/pdf")
                .await
                .unwrap();
            order.attachments.push(writer.finish().await.unwrap());
        }
        let id = bed.store.insert_outgoing(order).await.unwrap();
        bed.store.start_attempt(id, at(1)).await.unwrap();
        bed.store.finish_attempt(id, Attempt::Sent, false).await.unwrap();
        ids.push(id);
    }
    let report = |text: &str| StatusReport {
        channel: channel(),
        of: StatusTarget::Recipient {
            address: address("+491"),
            text: Some(text.to_owned()),
            not_before: at(0),
        },
        status: DeviceStatus::Delivered,
    };
    let link = "https://pipepost.example/media/AAAA";
    for (text, expected) in [
        (
            format!("see this\n{link}\nhttps://"),
            StatusApplied::Applied(ids[1]),
        ),
        (link.to_owned(), StatusApplied::Applied(ids[2])),
        ("see".to_owned(), StatusApplied::NoMatch),
        ("see this".to_owned(), StatusApplied::Applied(ids[0])),
    ] {
        assert_eq!(
            bed.store.apply_status(report(&text)).await.unwrap(),
            expected,
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_channel_that_is_registered_wakes_the_queue_to_pipedrive() {
    let bed = Bed::new();
    bed.incoming("+491", "hello").await;
    let mut changed = bed.store.queue_changed(Queue::ToUplink);
    changed.mark_unchanged();
    bed.store
        .set_channel_link(&channel(), ChannelLink::Registered(at(1)))
        .await
        .unwrap();
    assert!(changed.has_changed().unwrap());
}

#[tokio::test]
async fn a_conversation_that_is_deleted_while_it_is_read_is_no_damage() {
    let bed = Bed::new();
    for _ in 0..300 {
        let id = bed.incoming("+491", "hello").await.conversation;
        let reader = bed.store.reader();
        let reads = std::thread::spawn(move || while reader.uplink_item(id).unwrap().is_some() {});
        bed.store.delete_conversation(id).await.unwrap();
        reads.join().unwrap();
    }
}
