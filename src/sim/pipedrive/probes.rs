//! Wrong requests to the gateway's manifest endpoints: each has its documented refusal.

use std::time::Instant;

use serde::Serialize;
use serde_json::Value;

use super::caller::{basic, error_problems, escape, is_json};
use super::client::{Answer, Request};
use super::contract;
use super::core::{Core, Verdict};

/// What came of one wrong request.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// What is wrong with the request.
    pub name: &'static str,
    /// The answer's status; 0 = no answer.
    pub status: u16,
    /// What is wrong with the answer.
    pub problems: Vec<String>,
}

/// Who the request says it comes from.
#[derive(Clone, Copy)]
enum Credentials {
    Right,
    Wrong,
    Missing,
}

struct Case {
    name: &'static str,
    method: &'static str,
    /// After `/api/`.
    path: String,
    credentials: Credentials,
    body: Option<(&'static str, String)>,
    statuses: &'static [u16],
}

const FORM: &str = "multipart/form-data; boundary=probe";

impl Core {
    /// Sends every wrong request once; findings are recorded as violations too. The channel must be one that the
    /// gateway knows. Wrong credentials are tried four times, so that a gateway which slows guessing down may
    /// answer later calls with 429.
    pub(super) async fn probe(&self, channel: &str) -> Vec<Probe> {
        let conversation = self.read(|state| {
            let conversations = state.channels.get(channel).map(|c| &c.conversations);
            conversations.and_then(|all| all.keys().next().map(ToString::to_string))
        });
        let mut probes = Vec::new();
        for case in cases(&escape(channel), conversation.as_deref()) {
            probes.push(self.try_case(case).await);
        }
        probes
    }

    async fn try_case(&self, case: Case) -> Probe {
        let url = match self.endpoint(&case.path) {
            Ok(url) => url,
            Err(why) => {
                return Probe {
                    name: case.name,
                    status: 0,
                    problems: vec![why],
                };
            }
        };
        let (content_type, body) = case
            .body
            .map_or((None, String::new()), |(kind, body)| (Some(kind), body));
        let request = Request {
            method: case.method,
            url,
            authorization: match case.credentials {
                Credentials::Right => Some(self.basic.clone()),
                Credentials::Wrong => Some(basic(&self.client_id, "not-the-secret")),
                Credentials::Missing => None,
            },
            content_type: content_type.map(str::to_owned),
            body: body.into_bytes(),
        };
        let started = Instant::now();
        let sent = self.client.send(request.clone()).await;
        let (status, problems) = match &sent {
            Ok(answer) => (answer.status, problems(answer, case.statuses)),
            Err(why) => (0, vec![format!("no answer: {why}")]),
        };
        let verdict = if problems.is_empty() {
            Verdict::Ok
        } else {
            Verdict::Violation
        };
        self.log(
            "to gateway",
            &request,
            &sent,
            verdict,
            format!("probe: {}", case.name),
            started,
        );
        self.violations(&format!("probe: {}", case.name), &problems);
        Probe {
            name: case.name,
            status,
            problems,
        }
    }
}

fn problems(answer: &Answer, statuses: &[u16]) -> Vec<String> {
    if !statuses.contains(&answer.status) {
        return vec![format!("answered {}, not {statuses:?}", answer.status)];
    }
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    if answer.status != 200 {
        return error_problems(answer, body.as_ref());
    }
    match body {
        Some(body) if is_json(&answer.content_type) => contract::conversation_list(&body),
        _ => vec!["the body is not JSON".to_owned()],
    }
}

fn cases(channel: &str, conversation: Option<&str>) -> Vec<Case> {
    let of = |rest: &str| format!("channels/{channel}{rest}");
    let get = |name, path: String, statuses| Case {
        name,
        method: "GET",
        path,
        credentials: Credentials::Right,
        body: None,
        statuses,
    };
    let credentials = |name, path: String, credentials| Case {
        credentials,
        ..get(name, path, &[401, 429])
    };
    let post = |name, kind, body: String, statuses| Case {
        method: "POST",
        body: Some((kind, body)),
        ..get(name, of("/messages"), statuses)
    };
    let mut cases = vec![
        credentials("no credentials", of("/conversations"), Credentials::Missing),
        credentials("wrong credentials", of("/conversations"), Credentials::Wrong),
        credentials(
            "no credentials, unknown channel",
            "channels/nothing".to_owned(),
            Credentials::Missing,
        ),
        credentials(
            "no credentials, unknown route",
            "nothing/here".to_owned(),
            Credentials::Missing,
        ),
        get("unknown route", "nothing/here".to_owned(), &[404]),
        get(
            "unknown channel",
            "channels/nothing/conversations".to_owned(),
            &[404],
        ),
        get("unknown conversation", of("/conversations/nothing"), &[404]),
        get("unknown sender", of("/senders/nothing"), &[404]),
        get("unknown message, short path", of("/messages/nothing"), &[404]),
        get(
            "unreadable cursor",
            of("/conversations?after=%00nonsense"),
            &[404],
        ),
        get(
            "limits of zero",
            of("/conversations?conversations_limit=0&messages_limit=-1"),
            &[200],
        ),
        get(
            "unreadable limits",
            of("/conversations?conversations_limit=x&messages_limit="),
            &[200],
        ),
        get(
            "limits too large",
            of("/conversations?conversations_limit=999999&messages_limit=1000"),
            &[200],
        ),
        Case {
            method: "PUT",
            ..get("wrong method", of("/conversations"), &[405])
        },
        post("wrong content type", "application/json", "{}".to_owned(), &[415]),
        post("no boundary", "multipart/form-data", "x".to_owned(), &[400]),
        post(
            "cut-off form",
            FORM,
            "--probe\r\nContent-Disposition: form-data; name=\"mess".to_owned(),
            &[400],
        ),
        post("empty form", FORM, "--probe--\r\n".to_owned(), &[400]),
        post(
            "unknown conversation in the form",
            FORM,
            form("nothing", "hello"),
            &[404],
        ),
    ];
    if let Some(conversation) = conversation {
        let id = escape(conversation);
        cases.push(get(
            "unknown message",
            of(&format!("/conversations/{id}/messages/nothing")),
            &[404],
        ));
        let cursor = format!("/conversations/{id}?after=%00nonsense");
        cases.push(get("unreadable cursor of a conversation", of(&cursor), &[404]));
        cases.push(post(
            "neither text nor file",
            FORM,
            form(conversation, ""),
            &[400],
        ));
    }
    cases
}

fn form(conversation: &str, text: &str) -> String {
    let field = |name: &str, value: &str| {
        format!("--probe\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let fields = [
        field("message", text),
        field("senderId", "pipedrive"),
        field("conversationId", conversation),
    ];
    format!("{}--probe--\r\n", fields.concat())
}
