//! The API for tests, benches and the page: `/sandbox/…`, JSON.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::api::{Incoming, unescape};
use super::caller::{File, Reply};
use super::client::{Gateway, Request, Trust};
use super::core::{Core, now};
use super::limits::Limits;
use super::paging::PageSize;
use super::server::{ReplyBody, reply, stopped};
use super::state::{Conversation, Message};
use super::switches;

/// Least time between two events to a page: a burst of messages is one event.
const EVENT_PAUSE: Duration = Duration::from_millis(150);
/// A comment is sent this often so that both ends notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) type Outcome = Result<Value, (u16, String)>;

/// Answers one call; `path` comes after `/sandbox/`.
pub(super) async fn answer(
    core: &Arc<Core>,
    request: &Incoming,
    path: &str,
    stop: watch::Receiver<bool>,
) -> Response<ReplyBody> {
    let outcome = match (request.method.as_str(), path) {
        ("GET", "events") => return events(core, stop),
        ("GET", "file") => return file(core, request).await,
        ("GET", "state") => Ok(state(core, request)),
        ("GET", "summary") => Ok(summary(core, number(request, "limit", 100))),
        ("GET", "conversation") => conversation(core, request),
        ("GET", "calls") => Ok(calls(core, number(request, "after", 0))),
        ("GET", "counters") => Ok(counters(core)),
        ("GET", "violations") => {
            Ok(core.read(|s| json!({"count": s.counters.violations, "violations": s.violations})))
        }
        ("DELETE", "violations") => {
            core.change(|s| {
                s.violations.clear();
                s.counters.violations = 0;
            });
            Ok(json!({}))
        }
        ("GET", "faults") => Ok(json!(core.dice().faults)),
        ("POST", "faults") => body(request).and_then(|change: Value| {
            let faults = {
                let mut dice = core.dice();
                dice.faults = dice.faults.changed(&change).map_err(|why| (400, why))?;
                dice.faults.clone()
            };
            // Every open page shows the switches.
            core.change(|_| ());
            Ok(json!(faults))
        }),
        ("GET", "limits") => Ok(json!(core.limiter().limits)),
        ("POST", "limits") => body(request).map(|limits: Limits| {
            core.limiter().limits = limits;
            json!(limits)
        }),
        ("POST", "new-day") => {
            core.limiter().new_day();
            Ok(json!({}))
        }
        ("POST", "gateway") => body(request).map(|wanted: WantedGateway| {
            let trust = wanted.ca_pem.map_or(Trust::PublicRoots, Trust::CaPem);
            core.set_gateway(Gateway {
                url: wanted.url,
                trust,
            });
            json!({})
        }),
        ("GET", "config") => Ok(config(core)),
        ("POST", "reply") => post_reply(core, request).await,
        ("POST", "seen") => body(request).map(|wanted: Wanted| {
            core.change(|s| s.look_at(&wanted.channel, &wanted.conversation));
            json!({})
        }),
        ("POST", "history") => match body::<WantedHistory>(request) {
            Ok(wanted) => Ok(json!(core.page_history(&wanted.channel, wanted.page).await)),
            Err(e) => Err(e),
        },
        ("POST", "message") => get_message(core, request).await,
        ("POST", "templates") => match body::<WantedChannel>(request) {
            Ok(wanted) => asked(core.get_templates(&wanted.channel).await.accepted()),
            Err(e) => Err(e),
        },
        ("POST", "check-manifest") => {
            body(request).map(|manifest: Value| json!({"problems": super::contract::manifest(&manifest)}))
        }
        ("POST", "probe") => match body::<WantedChannel>(request) {
            Ok(wanted) => Ok(json!(core.probe(&wanted.channel).await)),
            Err(e) => Err(e),
        },
        ("POST", "delete-channel") => match body::<WantedChannel>(request) {
            Ok(wanted) => asked(core.delete_channel(&wanted.channel).await.map(|()| json!({}))),
            Err(e) => Err(e),
        },
        (_, path) if path.starts_with("oauth") || path == "clock" => {
            switches::answer(core, request, path).await
        }
        _ => Err((404, format!("{} /sandbox/{path} does not exist", request.method))),
    };
    let (status, value) = match outcome {
        Ok(value) => (StatusCode::OK, value),
        Err((status, why)) => (
            StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST),
            json!({"error": why}),
        ),
    };
    reply(status, "application/json", value.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedGateway {
    url: String,
    ca_pem: Option<String>,
}

#[derive(Deserialize)]
struct WantedChannel {
    channel: String,
}

#[derive(Deserialize)]
struct Wanted {
    channel: String,
    conversation: String,
}

#[derive(Deserialize)]
struct WantedHistory {
    channel: String,
    #[serde(default)]
    page: PageSize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedMessage {
    channel: String,
    conversation: Option<String>,
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedReply {
    channel: String,
    conversation: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    files: Vec<WantedFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedFile {
    name: String,
    #[serde(rename = "type")]
    mime: String,
    base64: String,
}

async fn post_reply(core: &Arc<Core>, request: &Incoming) -> Outcome {
    let wanted: WantedReply = body(request)?;
    let mut files = Vec::new();
    for file in wanted.files {
        let bytes = BASE64
            .decode(file.base64.as_bytes())
            .map_err(|e| (400, format!("the file {} is not base64: {e}", file.name)))?;
        files.push(File {
            name: file.name,
            mime: file.mime,
            bytes,
        });
    }
    let reply = Reply {
        channel: wanted.channel,
        conversation: wanted.conversation,
        text: wanted.text,
        files,
    };
    asked(core.post_message(reply).await.map(|id| json!({"id": id})))
}

async fn get_message(core: &Arc<Core>, request: &Incoming) -> Outcome {
    let wanted: WantedMessage = body(request)?;
    asked(
        core.get_message(&wanted.channel, wanted.conversation.as_deref(), &wanted.message)
            .await
            .accepted(),
    )
}

/// The outcome of a call to the gateway; a failure there is a 502 here.
pub(super) fn asked(result: Result<Value, String>) -> Outcome {
    result.map_err(|why| (502, why))
}

/// Everything, or one channel, or one conversation.
fn state(core: &Core, request: &Incoming) -> Value {
    let channel = parameter(request, "channel");
    let id = parameter(request, "conversation");
    core.read(|state| {
        let wanted = |c: &&Conversation| {
            channel.as_deref().is_none_or(|channel| *c.channel == *channel)
                && id.as_deref().is_none_or(|id| *c.id == *id)
        };
        let conversations: Vec<&Conversation> = state.conversations().filter(wanted).collect();
        json!({
            "channels": state.channels.values().collect::<Vec<_>>(),
            "conversations": conversations,
            "counters": state.counters,
        })
    })
}

fn counters(core: &Core) -> Value {
    let (limits, spent) = {
        let limiter = core.limiter();
        (limiter.limits, limiter.spent())
    };
    core.read(|s| {
        json!({
            "counters": s.counters,
            "messages": s.message_count(),
            "conversations": s.conversations().count(),
            "channels": s.channels.len(),
            "limits": limits,
            "tokens_spent": spent,
        })
    })
}

fn config(core: &Core) -> Value {
    json!({
        "gateway": core.gateway_url(),
        "client_id": core.client_id,
        "limits": core.limiter().limits,
        "faults": core.dice().faults,
    })
}

/// What the page's list shows: the conversations that changed last.
fn summary(core: &Core, limit: u64) -> Value {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(500);
    let faults = core.dice().faults.clone();
    let mut summary = counters(core);
    let list = core.read(|state| {
        let rows: Vec<Value> = state
            .recent()
            .take(limit)
            .map(|c| {
                json!({
                    "id": &*c.id,
                    "channel": &*c.channel,
                    "channel_name": state.channels.get(&c.channel).map(|channel| channel.name.as_str()),
                    "provider_type": state.channels.get(&c.channel).map(|channel| channel.provider_type.as_str()),
                    "participants": c.participants,
                    "status": c.status,
                    "unread": c.unread,
                    "messages": c.messages.len(),
                    "last": last(c).map(|m| json!({
                        "text": m.text, "outgoing": m.outgoing, "created_at": m.created_at, "status": m.status,
                    })),
                })
            })
            .collect();
        json!(rows)
    });
    if let Some(summary) = summary.as_object_mut() {
        summary.insert("list".to_owned(), list);
        summary.insert("faults".to_owned(), json!(faults));
        let oauth = core.oauth(|registry| json!({"app": registry.app.name, "offer": registry.offer}));
        summary.insert("oauth".to_owned(), json!(oauth));
    }
    summary
}

/// The message shown in the list: the latest by its time.
fn last(conversation: &Conversation) -> Option<&Message> {
    let tail = conversation.messages.len().saturating_sub(60);
    conversation
        .messages
        .iter()
        .skip(tail)
        .max_by_key(|m| (super::fields::instant(&m.created_at).map(|(at, _)| at), m.arrival))
}

/// One conversation: the newest messages, or those before the `before` newest ones.
fn conversation(core: &Core, request: &Incoming) -> Outcome {
    let channel = parameter(request, "channel").unwrap_or_default();
    let id = parameter(request, "conversation").unwrap_or_default();
    let limit = usize::try_from(number(request, "limit", 50))
        .unwrap_or(50)
        .min(1_000);
    core.read(|state| {
        let found = state.conversation(&channel, &id)?;
        let ordered = found.in_order();
        let start = ordered.len().saturating_sub(limit);
        Some(json!({
            "id": &*found.id,
            "channel": &*found.channel,
            "status": found.status,
            "participants": found.participants,
            "older": start,
            "messages": ordered.get(start..).unwrap_or_default(),
        }))
    })
    .ok_or_else(|| {
        (
            404,
            format!("there is no conversation {id} in the channel {channel}"),
        )
    })
}

fn calls(core: &Core, after: u64) -> Value {
    core.read(|state| {
        let calls: Vec<_> = state.calls.iter().filter(|call| call.number > after).collect();
        json!({"calls": calls, "violations": state.counters.violations})
    })
}

/// Tells a page that something changed; it then asks for what it shows.
fn events(core: &Arc<Core>, mut stop: watch::Receiver<bool>) -> Response<ReplyBody> {
    let (sender, receiver) = mpsc::channel(4);
    let mut changed = core.subscribe();
    tokio::spawn(async move {
        let work = async {
            loop {
                let version = *changed.borrow_and_update();
                let event = Bytes::from(format!("data: {version}\n\n"));
                if sender.send(event).await.is_err() {
                    return;
                }
                tokio::time::sleep(EVENT_PAUSE).await;
                while let Err(_elapsed) = tokio::time::timeout(KEEP_ALIVE, changed.changed()).await {
                    if sender.send(Bytes::from_static(b": alive\n\n")).await.is_err() {
                        return;
                    }
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stopped(&mut stop) => {}
        }
    });
    let mut response = Response::new(ReplyBody::Events(receiver));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An attachment's bytes, fetched from the gateway: the browser does not trust the gateway's certificate.
async fn file(core: &Arc<Core>, request: &Incoming) -> Response<ReplyBody> {
    let channel = parameter(request, "channel").unwrap_or_default();
    let message = parameter(request, "message").unwrap_or_default();
    let id = parameter(request, "attachment").unwrap_or_default();
    let attachment = core.read(|state| {
        let attachments = &state.message(&channel, &message)?.attachments;
        attachments
            .iter()
            .find(|a| a.get("id").and_then(Value::as_str) == Some(id.as_str()))
            .cloned()
    });
    let Some(url) = attachment
        .as_ref()
        .and_then(|a| a.get("url"))
        .and_then(Value::as_str)
    else {
        return reply(
            StatusCode::NOT_FOUND,
            "text/plain",
            "there is no such attachment\n",
        );
    };
    let wanted = Request {
        method: "GET",
        url: url.to_owned(),
        authorization: None,
        content_type: None,
        body: Vec::new(),
    };
    let answer = match core.client.send(wanted).await {
        Ok(answer) if answer.status == 200 => answer,
        Ok(answer) => {
            let text = format!("{}: the link answered {}\n", now(), answer.status);
            return reply(StatusCode::BAD_GATEWAY, "text/plain", text);
        }
        Err(why) => return reply(StatusCode::BAD_GATEWAY, "text/plain", format!("{why}\n")),
    };
    // Only pictures are shown; anything else could be a page that runs scripts in the sandbox's origin.
    let picture = ["image/png", "image/jpeg", "image/gif", "image/webp"]
        .into_iter()
        .find(|kind| {
            answer
                .content_type
                .split(';')
                .next()
                .is_some_and(|t| t.trim().eq_ignore_ascii_case(kind))
        });
    let mut response = reply(
        StatusCode::OK,
        picture.unwrap_or("application/octet-stream"),
        answer.body,
    );
    let headers = response.headers_mut();
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    if picture.is_none() {
        headers.insert("content-disposition", HeaderValue::from_static("attachment"));
    }
    response
}

pub(super) fn body<T: for<'a> Deserialize<'a>>(request: &Incoming) -> Result<T, (u16, String)> {
    serde_json::from_slice(&request.body).map_err(|e| (400, format!("the body does not fit: {e}")))
}

fn parameter(request: &Incoming, name: &str) -> Option<String> {
    let pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.into_iter().find(|(key, _)| *key == name)?.1;
    unescape(&value.replace('+', " "))
}

fn number(request: &Incoming, name: &str, default: u64) -> u64 {
    parameter(request, name)
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}
