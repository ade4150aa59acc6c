//! Pipedrive's side: what it asks the gateway for, and that a gateway which breaks the contract is found out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::fake::*;
use crate::sim::pipedrive::{File, History, Options, PageSize, RecipientsForm, Reply, Sandbox};

fn words_of(sandbox: &Sandbox) -> String {
    let all: Vec<String> = sandbox
        .violations()
        .into_iter()
        .map(|v| format!("{}: {}", v.call, v.what))
        .collect();
    all.join("\n")
}

#[track_caller]
fn found(sandbox: &Sandbox, words: &str) {
    let seen = sandbox.wait_for_blocking(|s| s.violations.iter().any(|v| v.what.contains(words)), LIMIT);
    assert!(seen, "{words:?} is not among: {}", words_of(sandbox));
}

fn answer(conversation: &str, text: &str) -> Reply {
    Reply {
        channel: "gw-office".to_owned(),
        conversation: conversation.to_owned(),
        text: text.to_owned(),
        files: Vec::new(),
    }
}

#[test]
fn a_conversation_that_breaks_the_contract_is_refused_and_reported() {
    let good_one = one(&conversation("c1", &[served_message("m1")], ""));
    let spoil = |place: &str, value: Value| {
        let mut body = good_one.clone();
        *body.pointer_mut(place).unwrap() = value;
        Scripted::json(&body)
    };
    let plain = |mut scripted: Scripted| {
        scripted.content_type = "text/html";
        scripted
    };
    let cases: Vec<(Scripted, &str)> = vec![
        (
            spoil("/data/next_messages_cursor", json!(null)),
            "next_messages_cursor",
        ),
        (
            spoil("/data/participants/0/role", json!("end_user")),
            "exactly one source_user",
        ),
        (
            spoil("/data/participants/1/role", json!("source_user")),
            "at least one end_user",
        ),
        (spoil("/data/id", json!("c2")), "was asked for"),
        (
            spoil("/data/messages/0/created_at", json!("2026-03-01 09:30")),
            "ISO 8601",
        ),
        (spoil("/data/messages/0/status", json!("new")), "must be one of"),
        (spoil("/additional_data/after", json!("more")), "must equal"),
        (spoil("/success", json!(1)), "\"success\" must be true"),
        (plain(spoil("/success", json!(true))), "content type"),
        (
            Scripted {
                body: b"{\"success\":tr".to_vec(),
                ..Scripted::json(&json!(0))
            },
            "not JSON",
        ),
        (Scripted::not_found(), "must succeed here, but answered 404"),
        (
            Scripted {
                status: 401,
                ..Scripted::not_found()
            },
            "data.code of a 401",
        ),
        (
            Scripted {
                status: 404,
                ..plain(Scripted::json(&json!({})))
            },
            "no JSON body",
        ),
        (
            Scripted {
                status: 302,
                ..Scripted::json(&json!({}))
            },
            "answered 302",
        ),
    ];
    for (scripted, words) in cases {
        let script = move |request: &Seen| {
            if request.path.contains("/conversations/c1") {
                Scripted {
                    body: scripted.body.clone(),
                    ..scripted
                }
            } else {
                good(request)
            }
        };
        let gateway = FakeGateway::start(script);
        let sandbox = sandbox(&gateway);
        register(&sandbox);
        let got = post(&sandbox, RECEIVE, &message("m1", "c1"));
        assert_eq!(
            (got.status, got.code()),
            (400, "INVALID_RECEIVE_MESSAGE_PAYLOAD"),
            "{words}"
        );
        found(&sandbox, words);
        let verdicts = sandbox.read(|s| s.calls.iter().any(|c| c.verdict == "violation"));
        assert!(verdicts, "the call log shows it: {words}");
    }
}

#[test]
fn a_gateway_that_is_away_is_a_failure_but_no_violation() {
    let gateway = FakeGateway::start(|request| {
        if request.path.contains("/conversations/") {
            return Scripted {
                status: 503,
                content_type: "text/html",
                body: b"tunnel is down".to_vec(),
            };
        }
        good(request)
    });
    let sandbox = sandbox(&gateway);
    register(&sandbox);
    assert_eq!(post(&sandbox, RECEIVE, &message("m1", "c1")).status, 400);
    assert_eq!(words_of(&sandbox), "");
    assert_eq!(sandbox.counters().gateway_failures, 1);
}

#[test]
fn an_unknown_sender_is_asked_for_by_get_sender_by_id() {
    let gateway = FakeGateway::start(good);
    let sandbox = sandbox(&gateway);
    register(&sandbox);
    let mut body = message("m1", "c1");
    body["sender_id"] = json!("newcomer");
    assert_eq!(post(&sandbox, RECEIVE, &body).status, 200);
    assert!(
        gateway
            .seen()
            .iter()
            .any(|s| s.path == "/api/channels/gw-office/senders/newcomer")
    );
    let known = sandbox.read(|s| {
        s.conversation("gw-office", "c1")
            .unwrap()
            .end_users()
            .contains(&"newcomer")
    });
    assert!(known);
    post(&sandbox, RECEIVE, &message("m2", "c1"));
    let asked = gateway
        .seen()
        .iter()
        .filter(|s| s.path.contains("/senders/"))
        .count();
    assert_eq!(asked, 1);
}

#[test]
fn an_answer_goes_out_as_the_documented_form_and_comes_back_as_status() {
    let gateway = FakeGateway::start(good);
    for (form, field) in [
        (RecipientsForm::Brackets, "name=\"recipientIds[]\""),
        (RecipientsForm::Repeated, "name=\"recipientIds\""),
        (RecipientsForm::Indexed, "name=\"recipientIds[0]\""),
        (RecipientsForm::Joined, "name=\"recipientIds\""),
    ] {
        let sandbox = sandbox_with(
            &gateway,
            Options {
                recipients_form: form,
                ..Options::default()
            },
        );
        register(&sandbox);
        post(&sandbox, RECEIVE, &message("m1", "c1"));
        let mut reply = answer("c1", "See you\r\non Tuesday");
        let bytes = vec![0, 13, 10, b'-', b'-', 255];
        reply.files.push(File {
            name: "o\"f.pdf".to_owned(),
            mime: "application/pdf".to_owned(),
            bytes,
        });
        assert_eq!(block_on(sandbox.reply(reply)), Ok("answer-1".to_owned()));
        let sent = gateway.seen().into_iter().rfind(|s| s.method == "POST").unwrap();
        assert!(sent.content_type.starts_with("multipart/form-data; boundary="));
        let body = String::from_utf8_lossy(&sent.body).into_owned();
        for part in [
            field,
            "name=\"message\"\r\n\r\nSee you\r\non Tuesday\r\n",
            "name=\"senderId\"\r\n\r\noffice\r\n",
            "name=\"conversationId\"\r\n\r\nc1\r\n",
            "\r\n\r\ncustomer\r\n",
            "name=\"files\"; filename=\"o%22f.pdf\"\r\nContent-Type: application/pdf\r\n\r\n",
        ] {
            assert!(body.contains(part), "{part:?} is not in {body:?}");
        }
        let mut update = message("answer-1", "c1");
        update["sender_id"] = json!("office");
        update["status"] = json!("delivered");
        assert_eq!(post(&sandbox, RECEIVE, &update).status, 200);
        sandbox.read(|state| {
            let message = state.message("gw-office", "answer-1").unwrap();
            assert!(message.outgoing);
            assert_eq!(message.statuses, ["sent", "delivered"]);
        });
        assert_eq!(words_of(&sandbox), "");
    }
}

#[test]
fn a_status_that_overtakes_the_answer_of_post_message_is_no_violation() {
    let target: Arc<std::sync::OnceLock<String>> = Arc::default();
    let url = Arc::clone(&target);
    let gateway = FakeGateway::start(move |request| {
        if request.method == "POST" {
            let mut update = message("answer-1", "c1");
            update["sender_id"] = json!("office");
            update["status"] = json!("delivered");
            let sent = ureq::post(url.get().unwrap())
                .header("authorization", "Bearer sandbox-token")
                .header("content-type", "application/json")
                .send(update.to_string());
            assert!(sent.is_ok());
        }
        good(request)
    });
    let sandbox = sandbox(&gateway);
    target.set(format!("{}{RECEIVE}", sandbox.url())).unwrap();
    register(&sandbox);
    post(&sandbox, RECEIVE, &message("m1", "c1"));
    assert_eq!(
        block_on(sandbox.reply(answer("c1", "hello"))),
        Ok("answer-1".to_owned())
    );
    assert_eq!(
        sandbox.read(|s| s.message("gw-office", "answer-1").unwrap().status.clone()),
        "delivered"
    );
    assert_eq!(words_of(&sandbox), "");
}

#[test]
fn an_answer_that_gets_the_id_of_an_older_message_is_a_violation() {
    let gateway = FakeGateway::start(good);
    let sandbox = sandbox(&gateway);
    register(&sandbox);
    post(&sandbox, RECEIVE, &message("m1", "c1"));
    assert!(block_on(sandbox.reply(answer("c1", "one"))).is_ok());
    assert!(block_on(sandbox.reply(answer("c1", "two"))).is_err());
    found(&sandbox, "belongs to an older message");
}

/// A gateway with `count` conversations of `count` messages each, in pages. `spoil` may change a page.
fn paged(count: usize, spoil: impl Fn(&str, &mut Value) + Send + Sync + 'static) -> FakeGateway {
    FakeGateway::start(move |request| {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let number = |name: &str| {
            let pair = query
                .split('&')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            pair.and_then(|value| value.parse::<usize>().ok())
        };
        let size = number("messages_limit").unwrap_or(30);
        let part = |id: usize, from: usize| {
            let end = (from + size).min(count);
            let messages: Vec<Value> = (from..end)
                .map(|n| served_message(&format!("c{id}-m{}", count - n)))
                .collect();
            let cursor = if end < count {
                end.to_string()
            } else {
                String::new()
            };
            conversation(&format!("c{id}"), &messages, &cursor)
        };
        let from = number("after").unwrap_or(0);
        let mut body = match path.rsplit_once("/conversations") {
            Some((_, "")) => {
                let end = (from + number("conversations_limit").unwrap_or(30)).min(count);
                let list: Vec<Value> = (from..end).map(|id| part(id, 0)).collect();
                let after = if end < count {
                    end.to_string()
                } else {
                    String::new()
                };
                json!({"success": true, "data": list, "additional_data": {"after": after}})
            }
            Some((_, id)) => one(&part(id.trim_start_matches("/c").parse().unwrap(), from)),
            None => return good(request),
        };
        spoil(&request.path, &mut body);
        Scripted::json(&body)
    })
}

fn history(sandbox: &Sandbox, conversations: u32, messages: u32) -> History {
    block_on(sandbox.page_history(
        "gw-office",
        PageSize {
            conversations,
            messages,
        },
    ))
    .unwrap()
}

fn quiet(gateway: &FakeGateway) -> Sandbox {
    let sandbox = sandbox_with(
        gateway,
        Options {
            import_history: false,
            ..Options::default()
        },
    );
    register(&sandbox);
    sandbox
}

#[test]
fn the_history_of_a_new_channel_is_read_to_its_end_by_both_cursors() {
    let gateway = paged(65, |_, _| {});
    let sandbox = sandbox(&gateway);
    register(&sandbox);
    assert!(sandbox.wait_for_blocking(|s| s.message_count() == 65 * 65, Duration::from_secs(30)));
    assert_eq!(words_of(&sandbox), "");
    assert_eq!(sandbox.read(|s| s.conversations().count()), 65);
}

#[test]
fn pages_of_any_size_give_the_same_history() {
    let gateway = paged(7, |_, _| {});
    let sandbox = quiet(&gateway);
    for (conversations, messages) in [(1, 1), (2, 3), (7, 7), (100, 100)] {
        let history = history(&sandbox, conversations, messages);
        assert_eq!(
            (history.conversations, history.messages, history.complete),
            (7, 49, true)
        );
        assert_eq!(history.problems, Vec::<String>::new());
    }
}

#[test]
fn mistakes_in_paging_are_found() {
    type Spoil = fn(&str, &mut Value);
    let cases: [(Spoil, &str); 6] = [
        (
            |path, body| {
                if path.contains("conversations?") && path.contains("after=2") {
                    body["data"][0]["id"] = json!("c0");
                }
            },
            "conversation c0 is on two pages",
        ),
        (
            |path, body| {
                if path.contains("/c1?") && path.contains("after=2") {
                    body["data"]["messages"][0]["id"] = json!("c1-m7");
                }
            },
            "message c1-m7 of conversation c1 is on two pages",
        ),
        (
            |path, body| {
                if path.contains("conversations?") && path.contains("after=4") {
                    body["additional_data"]["after"] = json!("2");
                }
            },
            "the cursors of getConversations never end",
        ),
        (
            |path, body| {
                if path.contains("/c1?") && path.contains("after=2") {
                    body["data"]["next_messages_cursor"] = json!("2");
                    body["additional_data"]["after"] = json!("2");
                }
            },
            "cursors of conversation c1 never end",
        ),
        (
            |path, body| {
                if path.contains("conversations?") && path.contains("after=2") {
                    body["data"] = json!([]);
                }
            },
            "an empty page has a cursor",
        ),
        (
            |path, body| {
                if path.contains("conversations?") && !path.contains("after=2") {
                    let more = body["data"][0].clone();
                    body["data"].as_array_mut().unwrap().push(more);
                }
            },
            "although 2 were asked for",
        ),
    ];
    for (spoil, words) in cases {
        let gateway = paged(7, spoil);
        let sandbox = quiet(&gateway);
        history(&sandbox, 2, 2);
        found(&sandbox, words);
    }
}

#[test]
fn what_was_posted_must_be_in_the_history_in_its_order() {
    // The gateway serves c0-m7 … c0-m1, newest first.
    let gateway = paged(7, |path, body| {
        if path.contains("/c1?") {
            body["data"]["messages"] = json!([]);
            body["data"]["next_messages_cursor"] = json!("");
            body["additional_data"]["after"] = json!("");
        }
    });
    let sandbox = quiet(&gateway);
    for id in ["c0-m2", "c0-m1"] {
        post(&sandbox, RECEIVE, &message(id, "c0"));
    }
    post(&sandbox, RECEIVE, &message("never-served", "c1"));
    let elsewhere = sandbox.read(|s| s.message("gw-office", "never-served").is_some());
    assert!(elsewhere);
    history(&sandbox, 30, 30);
    found(
        &sandbox,
        "message c0-m1 was posted after c0-m2, but is served as older",
    );
    found(&sandbox, "message never-served of conversation c1 is on no page");
}

#[test]
fn an_expired_link_is_renewed_through_get_message_by_id() {
    let heads = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&heads);
    let gateway = FakeGateway::start(
        move |request| match (request.method.as_str(), request.path.as_str()) {
            ("HEAD", "/media/fresh") => {
                count.fetch_add(1, Ordering::Relaxed);
                Scripted {
                    status: 200,
                    content_type: "image/png",
                    body: Vec::new(),
                }
            }
            ("HEAD", _) => Scripted {
                status: 404,
                content_type: "application/json",
                body: Vec::new(),
            },
            ("GET", "/api/channels/gw-office/conversations/c1/messages/m1") => {
                let mut served = served_message("m1");
                let url = format!("http://{}/media/fresh", request.host);
                served["attachments"] =
                    json!([{"id": "f1", "type": "image/png", "url": url, "link_expires": true}]);
                Scripted::json(&served)
            }
            _ => good(request),
        },
    );
    let sandbox = sandbox(&gateway);
    register(&sandbox);
    let mut body = message("m1", "c1");
    body["attachments"] = json!([{
        "id": "f1", "type": "image/png", "url": format!("{}/media/stale", gateway.url), "name": "a.png",
        "size": 0, "preview_url": "", "link_expires": true,
    }]);
    assert_eq!(post(&sandbox, RECEIVE, &body).status, 200);
    let renewed = sandbox.wait_for_blocking(
        |s| {
            let url = s
                .message("gw-office", "m1")
                .and_then(|m| m.attachments[0]["url"].as_str());
            url.is_some_and(|url| url.ends_with("/media/fresh"))
        },
        LIMIT,
    );
    assert!(renewed);
    assert_eq!(heads.load(Ordering::Relaxed), 1, "the fresh link was tried");
    assert_eq!(words_of(&sandbox), "");
}

#[test]
fn a_link_that_fails_even_when_fresh_is_a_violation() {
    let gateway = FakeGateway::start(|request| {
        if request.path.ends_with("/messages/m1") {
            let mut served = served_message("m1");
            let url = format!("http://{}/media/stale", request.host);
            served["attachments"] =
                json!([{"id": "f1", "type": "image/png", "url": url, "link_expires": true}]);
            return Scripted::json(&served);
        }
        good(request)
    });
    let sandbox = sandbox(&gateway);
    register(&sandbox);
    let mut body = message("m1", "c1");
    body["attachments"] = json!([{
        "id": "f1", "type": "image/png", "url": format!("{}/media/stale", gateway.url), "name": "a.png",
        "size": 0, "preview_url": "", "link_expires": true,
    }]);
    post(&sandbox, RECEIVE, &body);
    found(&sandbox, "fails right after getMessageById");
}

#[test]
fn a_user_who_removes_the_channel_makes_pipedrive_call_delete_channel_by_id() {
    let gateway = FakeGateway::start(good);
    let sandbox = sandbox(&gateway);
    register(&sandbox);
    assert_eq!(block_on(sandbox.delete_channel("gw-office")), Ok(()));
    assert!(
        gateway
            .seen()
            .iter()
            .any(|s| s.method == "DELETE" && s.path == "/api/channels/gw-office")
    );
    assert_eq!(post(&sandbox, RECEIVE, &message("m1", "c1")).status, 404);
}

#[test]
fn a_gateway_that_lets_wrong_requests_through_is_found_out() {
    // It checks nothing: no credentials, no ids, no form.
    let gateway = FakeGateway::start(good);
    let sandbox = sandbox(&gateway);
    register(&sandbox);
    let probes = block_on(sandbox.probe("gw-office")).unwrap();
    let of = |name: &str| {
        probes
            .iter()
            .find(|p| p.name == name)
            .map(|p| (p.status, p.problems.is_empty()))
    };
    assert_eq!(of("no credentials"), Some((200, false)));
    assert_eq!(of("wrong credentials"), Some((200, false)));
    assert_eq!(of("unknown route"), Some((404, true)));
    assert_eq!(of("unknown sender"), Some((200, false)));
    assert_eq!(of("limits of zero"), Some((200, true)));
    assert_eq!(of("wrong content type"), Some((200, false)));
    found(&sandbox, "answered 200, not [401, 429]");
}
