use serde_json::json;

use super::*;
use crate::domain::{
    self, AttachmentId, ChannelId, DeliveryState, GatewayId, IncomingState, OutgoingState, Sequence,
    Timestamp,
};

const RECEIVE: Call = Call::Receive {
    known: true,
    served: false,
};
const FIRST: Call = Call::Receive {
    known: false,
    served: false,
};

fn reply(status: u16, body: &str) -> Reply<'_> {
    Reply {
        status,
        content_type: Some("application/json; charset=utf-8"),
        location: None,
        limits: Limits::default(),
        body: body.as_bytes(),
        complete: true,
    }
}

fn error(code: &str) -> String {
    json!({"success": false, "error": "Something", "error_info": "Please check",
           "additional_data": {"code": code}})
    .to_string()
}

fn channel() -> ProviderChannelId {
    let (gateway, channel): (GatewayId, ChannelId) = ("gw".parse().unwrap(), "sms".parse().unwrap());
    ProviderChannelId::new(&gateway, &channel)
}

/// What an answer means, without its words.
fn gist(answer: &Answer) -> String {
    match answer {
        Answer::Accepted => "accepted".to_owned(),
        Answer::Retry { after, scope, .. } => match after {
            None => format!("retry {scope:?}"),
            Some(pause) => format!("retry {scope:?} after {} s", pause.as_secs()),
        },
        Answer::Rejected { .. } => "rejected".to_owned(),
        Answer::NotFound { .. } => "not found".to_owned(),
        Answer::NotAuthorized { .. } => "not authorized".to_owned(),
        Answer::Gone { .. } => "gone".to_owned(),
    }
}

fn reason(answer: &Answer) -> &str {
    match answer {
        Answer::Accepted => "",
        Answer::Retry { reason, .. }
        | Answer::Rejected { reason }
        | Answer::NotFound { reason }
        | Answer::NotAuthorized { reason }
        | Answer::Gone { reason } => reason,
    }
}

const HTML: &str = "<!DOCTYPE html><html><title>Attention</title></html>";

#[test]
fn each_answer_to_a_message_has_its_meaning() {
    let refused = error("INVALID_RECEIVE_MESSAGE_PAYLOAD");
    for (status, body, expected) in [
        (200, r#"{"success":true,"data":{}}"#, "accepted"),
        (201, r#"{"success":true}"#, "accepted"),
        (200, r#"{"success":false,"error":"x"}"#, "retry Conversation"),
        (200, r#"{"data":{}}"#, "retry Unclear"),
        (200, r#"{"success":tr"#, "retry Unclear"),
        (200, "", "retry Unclear"),
        (200, "[]", "retry Unclear"),
        (200, HTML, "retry Everything"),
        (302, "", "retry Everything"),
        (400, &refused, "rejected"),
        (400, "Bad Request", "retry Unclear"),
        (400, r#"{"message":"blocked by policy"}"#, "retry Unclear"),
        (400, "[]", "retry Unclear"),
        (401, &error("UNAUTHORIZED"), "not authorized"),
        (401, HTML, "not authorized"),
        (402, "{}", "retry Everything after 900 s"),
        (403, &error("ADMIN_ONLY"), "retry Channel after 900 s"),
        (403, &error("FORBIDDEN_USER_REQUEST"), "retry Channel after 900 s"),
        (
            403,
            r#"{"success":false,"error":"Scope and URL mismatch"}"#,
            "retry Everything after 900 s",
        ),
        (403, HTML, "retry Everything after 900 s"),
        (404, &error("NOT_FOUND"), "not found"),
        (404, r#"{"success":false,"error":"Unknown method ."}"#, "gone"),
        (404, HTML, "gone"),
        (405, "", "gone"),
        (408, "", "retry Unclear"),
        (410, &error("NOT_FOUND"), "gone"),
        (410, "", "gone"),
        (413, HTML, "rejected"),
        (418, "teapot", "retry Unclear"),
        (429, &error("RATE_LIMIT_EXCEEDED"), "retry Everything"),
        (429, HTML, "retry Everything"),
        (500, &error("INTERNAL"), "retry Unclear"),
        (502, HTML, "retry Everything"),
        (503, "", "retry Everything"),
        (599, "\u{1f}\u{8b}", "retry Everything"),
        (700, "", "retry Unclear"),
    ] {
        let answer = classify(RECEIVE, &reply(status, body));
        assert_eq!(gist(&answer), expected, "{status} {body}");
        assert!(
            answer == Answer::Accepted || reason(&answer).ends_with('.'),
            "not a sentence: {}",
            reason(&answer)
        );
    }
}

#[test]
fn the_first_message_of_a_conversation_is_tried_again_while_the_tunnel_may_be_down() {
    let refused = error("INVALID_RECEIVE_MESSAGE_PAYLOAD");
    let judge = |known, served| classify(Call::Receive { known, served }, &reply(400, &refused));
    let first = judge(false, false);
    assert_eq!(gist(&first), "retry Conversation");
    assert!(
        reason(&first).contains("Check the tunnel and pipedrive.public_url"),
        "{}",
        reason(&first)
    );
    assert_eq!(gist(&judge(false, true)), "rejected");
    assert_eq!(gist(&judge(true, false)), "rejected");
    assert_eq!(gist(&judge(true, true)), "rejected");
}

#[test]
fn each_answer_to_the_other_calls_has_its_meaning() {
    let (invalid, unknown, forbidden) = (
        error("INVALID_BODY"),
        error("NOT_FOUND"),
        error("FORBIDDEN_USER_REQUEST"),
    );
    for (call, status, body, expected) in [
        (
            Call::Register,
            200,
            r#"{"success":true,"data":{"id":"x"}}"#,
            "accepted",
        ),
        (Call::Register, 200, "", "retry Unclear"),
        (Call::Register, 400, &invalid, "rejected"),
        (Call::Register, 404, &unknown, "gone"),
        (Call::Register, 413, "", "rejected"),
        (Call::DeleteChannel, 200, r#"{"success":true}"#, "accepted"),
        (Call::DeleteChannel, 204, "", "accepted"),
        (Call::DeleteChannel, 400, &invalid, "rejected"),
        (Call::DeleteChannel, 404, &unknown, "not found"),
        (Call::DeleteChannel, 404, HTML, "gone"),
        (Call::DeleteConversation, 403, &forbidden, "rejected"),
        (
            Call::DeleteConversation,
            403,
            HTML,
            "retry Everything after 900 s",
        ),
        (Call::DeleteConversation, 404, &unknown, "not found"),
    ] {
        assert_eq!(
            gist(&classify(call, &reply(status, body))),
            expected,
            "{call:?} {status} {body}"
        );
    }
}

#[test]
fn a_429_waits_as_long_as_the_headers_say() {
    let seconds = Duration::from_secs;
    for (limits, expected, of) in [
        (Limits::default(), None, Scope::Everything),
        (
            Limits {
                reset: Some(seconds(2)),
                ..Limits::default()
            },
            Some(seconds(2)),
            Scope::Everything,
        ),
        (
            Limits {
                reset: Some(seconds(2)),
                retry_after: Some(seconds(7)),
                ..Limits::default()
            },
            Some(seconds(7)),
            Scope::Everything,
        ),
        (
            Limits {
                reset: Some(seconds(2)),
                daily_remaining: Some(6),
                ..Limits::default()
            },
            None,
            Scope::Day,
        ),
        (
            Limits {
                reset: Some(seconds(5000)),
                ..Limits::default()
            },
            Some(seconds(5000)),
            Scope::Day,
        ),
    ] {
        let answer = classify(
            RECEIVE,
            &Reply {
                limits,
                ..reply(429, "")
            },
        );
        let Answer::Retry { after, scope, .. } = answer else {
            panic!("{answer:?}");
        };
        assert_eq!((after, scope), (expected, of), "{limits:?}");
    }
}

#[test]
fn a_broken_off_answer_is_told_from_garbage() {
    let broken = Reply {
        complete: false,
        ..reply(200, r#"{"success":true,"da"#)
    };
    assert!(reason(&classify(RECEIVE, &broken)).contains("broke off"));
    assert!(reason(&classify(RECEIVE, &reply(200, "garbage"))).contains("cannot be read"));
}

#[test]
fn reasons_name_the_refused_field_but_repeat_neither_values_nor_links() {
    let body = json!({
        "success": false,
        "error": "\"attachments\" is required, got message 'call me on 0170' ",
        "error_info": "token SECRET",
        "additional_data": {"code": "INVALID_RECEIVE_MESSAGE_PAYLOAD"},
    })
    .to_string();
    let answer = classify(RECEIVE, &reply(400, &body));
    assert_eq!(
        reason(&answer),
        "Pipedrive refuses this message for good (INVALID_RECEIVE_MESSAGE_PAYLOAD, about attachments)."
    );
    let odd = error("call 0170 <b>");
    assert_eq!(
        reason(&classify(RECEIVE, &reply(400, &odd))),
        "Pipedrive refuses this message for good (no error code)."
    );
    let redirect = Reply {
        location: Some("https://login.example/?token=SECRET"),
        ..reply(302, "")
    };
    assert_eq!(
        reason(&classify(FIRST, &redirect)),
        "The API's address redirects to login.example (status 302). Check pipedrive.api_url."
    );
}

proptest::proptest! {
    #[test]
    fn no_answer_makes_the_judge_panic_and_only_a_clear_success_is_one(status: u16, body in ".{0,60}", complete: bool) {
        let answer = classify(RECEIVE, &Reply { complete, ..reply(status, &body) });
        if answer == Answer::Accepted {
            proptest::prop_assert!((200..300).contains(&status) && body.contains("true"));
        }
    }
}

fn message(text: &str, state: DeliveryState, attachments: Vec<domain::Attachment>) -> Message {
    let conversation = ConversationId(5);
    Message {
        id: MessageId {
            conversation,
            sequence: Sequence(9),
        },
        sender: ParticipantId::EndUser {
            conversation,
            index: 0,
        },
        text: text.to_owned(),
        created_at: Timestamp::from_unix_ms(1_769_744_285_007),
        stored_at: Timestamp::from_unix_ms(1_769_744_285_100),
        attachments,
        state,
    }
}

#[test]
fn a_message_is_written_with_exactly_the_documented_keys() {
    let message = message(
        "hello",
        DeliveryState::Incoming(IncomingState::Queued),
        Vec::new(),
    );
    let channel = channel();
    let body = ReceiveMessage::new(&channel, &message, TimeForm::Iso8601, |_| None);
    assert_eq!(
        serde_json::to_value(body).unwrap(),
        json!({
            "id": message.id.to_string(),
            "channel_id": "gw-sms",
            "sender_id": message.sender.to_string(),
            "conversation_id": message.id.conversation.to_string(),
            "message": "hello",
            "status": "sent",
            "created_at": "2026-01-30T03:38:05.007Z",
            "attachments": [],
        })
    );
}

#[test]
fn a_file_without_text_shows_its_name_and_its_link() {
    let file = domain::Attachment {
        id: AttachmentId(3),
        name: "roof.jpg".to_owned(),
        mime: "image/jpeg".to_owned(),
        size: 10,
    };
    let message = message("", DeliveryState::Outgoing(OutgoingState::Delivered), vec![file]);
    let channel = channel();
    let body = ReceiveMessage::new(&channel, &message, TimeForm::Minutes, |_| {
        Some("https://gw/media/x")
    });
    let json = serde_json::to_value(body).unwrap();
    assert_eq!(json["message"], "roof.jpg");
    assert_eq!(json["status"], "delivered");
    assert_eq!(json["created_at"], "2026-01-30 03:38");
    assert_eq!(json["attachments"][0]["url"], "https://gw/media/x");
    assert_eq!(json["attachments"][0]["preview_url"], "https://gw/media/x");
}

#[test]
fn a_file_without_a_link_is_named_in_the_text() {
    let file = |id, name: &str| domain::Attachment {
        id: AttachmentId(id),
        name: name.to_owned(),
        mime: "image/jpeg".to_owned(),
        size: 10,
    };
    let channel = channel();
    let said = |text: &str| {
        let files = vec![file(3, "roof.jpg"), file(4, "wall.jpg")];
        let message = message(text, DeliveryState::Incoming(IncomingState::Queued), files);
        let url = |id| (id == AttachmentId(4)).then_some("https://gw/media/x");
        let body = ReceiveMessage::new(&channel, &message, TimeForm::Iso8601, url);
        let json = serde_json::to_value(body).unwrap();
        assert_eq!(json["attachments"].as_array().unwrap().len(), 1);
        json["message"].as_str().unwrap().to_owned()
    };
    let line = "[roof.jpg is at the gateway, which has no public address for a link]";
    assert_eq!(said("look"), format!("look\n{line}"));
    assert_eq!(said(""), format!("roof.jpg, wall.jpg\n{line}"));
}

#[test]
fn a_channel_without_an_avatar_is_registered_without_the_key() {
    let channel = channel();
    let body = RegisterChannel {
        name: "Front desk",
        provider_channel_id: &channel,
        avatar_url: None,
        provider_type: ProviderType::Other,
        template_support: false,
    };
    assert_eq!(
        serde_json::to_value(&body).unwrap(),
        json!({"name": "Front desk", "provider_channel_id": "gw-sms", "provider_type": "other",
               "template_support": false})
    );
}

#[test]
fn paths_carry_our_ids() {
    let conversation = ConversationId(5);
    assert_eq!(channel_path(&channel()), "/channels/gw-sms");
    assert_eq!(
        conversation_path(&channel(), conversation),
        format!("/channels/gw-sms/conversations/{conversation}")
    );
}

#[test]
fn why_an_answer_was_not_sent_stands_under_it() {
    let shown = |state| {
        let message = message("hello", DeliveryState::Outgoing(state), Vec::new());
        crate::protocol::pipedrive::wire::shown_message(&message).into_owned()
    };
    assert_eq!(shown(OutgoingState::Delivered), "hello");
    assert_eq!(
        shown(OutgoingState::Rejected("it needs 18 parts".to_owned())),
        "hello\n[not delivered: it needs 18 parts]"
    );
    assert_eq!(
        shown(OutgoingState::Unknown("no answer".to_owned())),
        "hello\n[unknown whether it was sent: no answer]"
    );
}
