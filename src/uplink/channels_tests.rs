use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::domain::{
    ChannelId, DeliveryState, GatewayId, IncomingState, Message, MessageId, ParticipantId, ProviderType,
    Sequence,
};
use crate::http::Options;
use crate::http::scripted::{Act, Authority, Server, answer, json};
use crate::uplink::Kind;

const TOKEN: &str = "a-very-secret-token";
const TEXT: &str = "my very private text";
const NOW: Timestamp = Timestamp::from_unix_ms(1_769_744_285_007);

fn provider_id() -> ProviderChannelId {
    let (gateway, channel): (GatewayId, ChannelId) = ("gw".parse().unwrap(), "sms".parse().unwrap());
    ProviderChannelId::new(&gateway, &channel)
}

fn message() -> Message {
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
        text: TEXT.to_owned(),
        created_at: NOW,
        stored_at: NOW,
        attachments: Vec::new(),
        state: DeliveryState::Incoming(IncomingState::Queued),
    }
}

fn uplink(server: &Server, options: &Options) -> ChannelsUplink {
    let token = AccessToken::new(Some(Secret::new(TOKEN.to_owned())));
    let client = Client::new(options).unwrap();
    ChannelsUplink::new(
        client,
        &format!("{}/api/v1/", server.url()),
        token,
        TimeForm::Iso8601,
    )
}

fn quick() -> Options {
    Options {
        timeout: Duration::from_millis(1500),
        ..Options::default()
    }
}

fn deliver_to(uplink: &ChannelsUplink, known: bool, served: &(dyn Fn() -> bool + Sync)) -> Delivered {
    let (channel, message) = (provider_id(), message());
    uplink.deliver(
        &Delivery {
            channel: &channel,
            message: &message,
            kind: Kind::New,
            links: &[],
            known_to_pipedrive: known,
            served,
        },
        NOW,
    )
}

fn deliver(server: &Server) -> Delivered {
    deliver_to(&uplink(server, &quick()), true, &|| false)
}

#[test]
fn a_message_is_posted_over_tls_with_the_token() {
    let authority = Authority::new();
    let server = Server::tls(authority.server("localhost", (2000, 2100)), |_, _| {
        answer(
            200,
            "application/json",
            "x-ratelimit-limit: 80\r\nx-ratelimit-remaining: 79\r\nx-ratelimit-reset: 2\r\n",
            r#"{"success":true,"data":{}}"#,
        )
    });
    let options = Options {
        ca_file: Some(authority.file()),
        ..Options::default()
    };
    let delivered = deliver_to(&uplink(&server, &options), true, &|| false);
    assert_eq!(delivered.outcome, Outcome::Accepted);
    assert_eq!(
        (delivered.limits.limit, delivered.limits.remaining),
        (Some(80), Some(79))
    );
    let arrived = server.requests.lock().unwrap()[0].clone();
    assert_eq!(arrived.line, "POST /api/v1/channels/messages/receive HTTP/1.1");
    assert_eq!(
        arrived.header("authorization"),
        Some(format!("Bearer {TOKEN}").as_str())
    );
    assert_eq!(arrived.json()["message"], TEXT);
    assert_eq!(arrived.json()["attachments"], serde_json::json!([]));
}

fn gist(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted => "accepted".to_owned(),
        Outcome::Retry { scope, after, .. } => {
            let after = after.map(|pause| format!(" after {} s", pause.as_secs()));
            format!("retry {scope:?}{}", after.unwrap_or_default())
        }
        Outcome::Rejected { .. } => "rejected".to_owned(),
        Outcome::ChannelUnlinked { .. } => "unlinked".to_owned(),
        Outcome::NotAuthorized { .. } => "not authorized".to_owned(),
        Outcome::Gone { .. } => "gone".to_owned(),
    }
}

fn act(name: &str) -> Act {
    let html = "<html>no</html>";
    let coded =
        |code: &str| format!(r#"{{"success":false,"error":"{TEXT}","additional_data":{{"code":"{code}"}}}}"#);
    match name {
        "reset" => Act::Reset,
        "close" => Act::WriteAndClose(Vec::new()),
        "garbage" => Act::WriteAndClose(b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n".to_vec()),
        "silence" => Act::Silence,
        "truncated" => {
            Act::WriteAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"success\":true".to_vec())
        }
        "portal" => answer(200, "text/html", "", html),
        "broken json" => json(200, "{\"success\":"),
        "refused" => json(400, &coded("INVALID_RECEIVE_MESSAGE_PAYLOAD")),
        "token" => json(401, &coded("UNAUTHORIZED")),
        "edge" => answer(403, "text/html", "", html),
        "unknown" => json(404, &coded("NOT_FOUND")),
        "withdrawn" => answer(404, "text/html", "", html),
        "gone" => answer(410, "text/plain", "", "gone"),
        "slow down" => answer(429, "application/json", "Retry-After: 7\r\n", "{}"),
        "slow down, window" => answer(429, "application/json", "x-ratelimit-reset: 2\r\n", "{}"),
        "fault" => json(500, &coded("INTERNAL")),
        "maintenance" => answer(503, "text/html", "Retry-After: 30\r\n", html),
        other => panic!("{other}"),
    }
}

#[test]
fn everything_that_can_go_wrong_on_a_real_socket_has_its_outcome() {
    for (name, expected) in [
        ("reset", "retry Unclear"),
        ("close", "retry Unclear"),
        ("garbage", "retry Everything"),
        ("silence", "retry Unclear"),
        ("truncated", "retry Unclear"),
        ("portal", "retry Everything"),
        ("broken json", "retry Unclear"),
        ("refused", "rejected"),
        ("token", "not authorized"),
        ("edge", "retry Everything after 900 s"),
        ("unknown", "unlinked"),
        ("withdrawn", "gone"),
        ("gone", "gone"),
        ("slow down", "retry Everything after 7 s"),
        ("slow down, window", "retry Everything after 2 s"),
        ("fault", "retry Unclear"),
        ("maintenance", "retry Everything after 30 s"),
    ] {
        let server = Server::plain(move |_, _| act(name));
        let outcome = deliver(&server).outcome;
        assert_eq!(gist(&outcome), expected, "{name}: {outcome:?}");
        let words = format!("{outcome:?}");
        assert!(!words.contains(TOKEN) && !words.contains(TEXT), "{words}");
    }
}

#[test]
fn whether_the_conversation_was_fetched_is_asked_after_the_answer() {
    static SERVED: AtomicBool = AtomicBool::new(false);
    let server = Server::plain(|_, _| {
        SERVED.store(true, Ordering::SeqCst);
        act("refused")
    });
    let outcome = deliver_to(&uplink(&server, &quick()), false, &|| {
        SERVED.load(Ordering::SeqCst)
    })
    .outcome;
    assert_eq!(gist(&outcome), "rejected");
    let server = Server::plain(|_, _| act("refused"));
    let outcome = deliver_to(&uplink(&server, &quick()), false, &|| false).outcome;
    assert_eq!(gist(&outcome), "retry Conversation");
}

#[test]
fn without_a_token_nothing_is_sent_and_the_words_say_what_to_do() {
    let server = Server::plain(|_, _| json(200, r#"{"success":true}"#));
    let token = AccessToken::new(Some(Secret::new(String::new())));
    let client = Client::new(&quick()).unwrap();
    let uplink = ChannelsUplink::new(client, &server.url(), token.clone(), TimeForm::Iso8601);
    let not_connected = uplink.installation(&provider_id()).unwrap_err();
    assert!(not_connected.reason.contains("access_token_file"));
    let refusal = uplink.delete_channel(&provider_id(), NOW).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::NotConnected);
    assert_eq!(server.count(), 0);
    token.set(Some(Secret::new(TOKEN.to_owned())));
    assert_eq!(
        uplink.installation(&provider_id()),
        Ok(InstallationId::of_configured_token())
    );
}

#[test]
fn the_calls_of_the_commands_use_our_ids_and_say_what_happened() {
    let server = Server::plain(|number, _| match number {
        0 | 1 => json(200, r#"{"success":true,"data":{}}"#),
        2 => act("unknown"),
        3 => json(
            403,
            r#"{"success":false,"additional_data":{"code":"ADMIN_ONLY"}}"#,
        ),
        _ => act("gone"),
    });
    let uplink = uplink(&server, &quick());
    let channel = Registration {
        id: provider_id(),
        name: "Front desk".to_owned(),
        avatar_url: None,
        provider_type: ProviderType::Other,
        template_support: false,
    };
    assert_eq!(uplink.register_channel(&channel, NOW), Ok(()));
    assert_eq!(uplink.delete_channel(&channel.id, NOW), Ok(()));
    let kind = |result: Result<(), Refusal>| result.unwrap_err().kind;
    let conversation = ConversationId(5);
    assert_eq!(
        kind(uplink.delete_conversation(&channel.id, conversation, NOW)),
        RefusalKind::NotFound
    );
    let refusal = uplink.register_channel(&channel, NOW).unwrap_err();
    assert!(refusal.to_string().contains("admin"), "{refusal}");
    assert_eq!(kind(uplink.register_channel(&channel, NOW)), RefusalKind::Gone);
    let lines: Vec<String> = server
        .requests
        .lock()
        .unwrap()
        .iter()
        .map(|r| r.line.clone())
        .collect();
    assert_eq!(lines[0], "POST /api/v1/channels HTTP/1.1");
    assert_eq!(lines[1], "DELETE /api/v1/channels/gw-sms HTTP/1.1");
    assert_eq!(
        lines[2],
        format!("DELETE /api/v1/channels/gw-sms/conversations/{conversation} HTTP/1.1")
    );
}
