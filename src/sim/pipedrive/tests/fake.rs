//! A gateway of a few lines that answers what a test tells it to, and a client for the sandbox.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::sim::pipedrive::{Gateway, Options, Sandbox, Trust};

pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// A request as the fake gateway saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: String,
    /// Path and query.
    pub(super) path: String,
    pub(super) host: String,
    pub(super) authorization: String,
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
}

pub(super) struct Scripted {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
}

impl Scripted {
    pub(super) fn json(value: &Value) -> Self {
        Self {
            status: 200,
            content_type: "application/json",
            body: value.to_string().into_bytes(),
        }
    }

    pub(super) fn not_found() -> Self {
        let body = json!({"success": false, "data": {"message": "unknown", "code": "NOT_FOUND"}});
        Self {
            status: 404,
            ..Self::json(&body)
        }
    }
}

type Script = dyn Fn(&Seen) -> Scripted + Send + Sync;

/// Answers by a script, on a thread of its own, until dropped.
pub(super) struct FakeGateway {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: watch::Sender<bool>,
}

impl FakeGateway {
    pub(super) fn start(script: impl Fn(&Seen) -> Scripted + Send + Sync + 'static) -> Self {
        let script: Arc<Script> = Arc::new(script);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stop, mut stopped) = watch::channel(false);
        let record = Arc::clone(&seen);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let accept = async {
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        let (script, record) = (Arc::clone(&script), Arc::clone(&record));
                        let service = service_fn(move |request| {
                            let (script, record) = (Arc::clone(&script), Arc::clone(&record));
                            async move { Ok::<_, Infallible>(play(request, &script, &record).await) }
                        });
                        let builder = hyper::server::conn::http1::Builder::new();
                        tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
                    }
                };
                tokio::select! {
                    () = accept => {}
                    _ = stopped.changed() => {}
                }
            });
        });
        Self { url, seen, stop }
    }

    /// Requests so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for FakeGateway {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

async fn play(
    request: Request<hyper::body::Incoming>,
    script: &Arc<Script>,
    record: &Mutex<Vec<Seen>>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let header = |name: &str| {
        let value = head.headers.get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let seen = Seen {
        method: head.method.to_string(),
        path: head
            .uri
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
        host: header("host"),
        authorization: header("authorization"),
        content_type: header("content-type"),
        body: body.collect().await.unwrap().to_bytes().to_vec(),
    };
    record.lock().unwrap().push(seen.clone());
    let script = Arc::clone(script);
    // A script may wait for another request.
    let scripted = tokio::task::spawn_blocking(move || script(&seen)).await.unwrap();
    Response::builder()
        .status(scripted.status)
        .header("content-type", scripted.content_type)
        .body(Full::new(Bytes::from(scripted.body)))
        .unwrap()
}

/// A sandbox without TLS, pointed at a fake gateway.
pub(super) fn sandbox(gateway: &FakeGateway) -> Sandbox {
    sandbox_with(gateway, Options::default())
}

pub(super) fn sandbox_with(gateway: &FakeGateway, options: Options) -> Sandbox {
    let gateway = Gateway {
        url: gateway.url.clone(),
        trust: Trust::PublicRoots,
    };
    Sandbox::start(Options {
        tls: false,
        gateway: Some(gateway),
        ..options
    })
    .unwrap()
}

/// What came back from the sandbox.
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) headers: ureq::http::HeaderMap,
    pub(super) body: Value,
    pub(super) text: String,
}

impl Got {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    }

    pub(super) fn code(&self) -> &str {
        self.body
            .pointer("/additional_data/code")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

/// Calls the sandbox; `Err` when there was no answer.
pub(super) fn call(
    sandbox: &Sandbox,
    method: &str,
    path: &str,
    token: &str,
    body: Option<&Value>,
) -> Result<Got, String> {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(LIMIT))
        .proxy(None)
        .build()
        .new_agent();
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", sandbox.url()))
        .header("authorization", format!("Bearer {token}"));
    let response = match body {
        Some(body) => {
            let request = request
                .header("content-type", "application/json")
                .body(body.to_string())
                .unwrap();
            agent.run(request)
        }
        None => agent.run(request.body(()).unwrap()),
    };
    let mut response = response.map_err(|e| e.to_string())?;
    let bytes = response.body_mut().read_to_vec().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Got {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: serde_json::from_str(&text).unwrap_or_default(),
        text,
    })
}

pub(super) fn post(sandbox: &Sandbox, path: &str, body: &Value) -> Got {
    call(sandbox, "POST", path, "sandbox-token", Some(body)).unwrap()
}

pub(super) fn get(sandbox: &Sandbox, path: &str) -> Got {
    call(sandbox, "GET", path, "sandbox-token", None).unwrap()
}

pub(super) fn delete(sandbox: &Sandbox, path: &str) -> Got {
    call(sandbox, "DELETE", path, "sandbox-token", None).unwrap()
}

pub(super) const RECEIVE: &str = "/api/v1/channels/messages/receive";

pub(super) fn register(sandbox: &Sandbox) {
    let body = json!({"name": "Office", "provider_channel_id": "gw-office"});
    assert_eq!(post(sandbox, "/api/v1/channels", &body).status, 200);
}

/// A message that keeps every rule.
pub(super) fn message(id: &str, conversation: &str) -> Value {
    json!({
        "id": id, "channel_id": "gw-office", "sender_id": "customer", "conversation_id": conversation,
        "message": format!("text of {id}"), "status": "sent", "created_at": "2026-03-01T09:30:00.250Z",
        "attachments": [],
    })
}

/// The same message as a manifest endpoint serves it.
pub(super) fn served_message(id: &str) -> Value {
    json!({
        "id": id, "status": "sent", "created_at": "2026-03-01T09:30:00.250Z",
        "message": format!("text of {id}"), "sender_id": "customer", "attachments": [],
    })
}

pub(super) fn participants() -> Value {
    json!([
        {"id": "office", "name": "Office", "role": "source_user"},
        {"id": "customer", "name": "+49 30 123456", "role": "end_user"},
    ])
}

/// A conversation as getConversationById serves it, without envelope.
pub(super) fn conversation(id: &str, messages: &[Value], cursor: &str) -> Value {
    json!({
        "id": id, "link": "", "status": "open", "seen": false, "next_messages_cursor": cursor,
        "messages": messages, "participants": participants(),
    })
}

/// A conversation with its envelope.
pub(super) fn one(conversation: &Value) -> Value {
    json!({
        "success": true, "data": conversation,
        "additional_data": {"after": conversation.get("next_messages_cursor")},
    })
}

/// A gateway that keeps the contract: no history, every conversation exists, every answer is accepted.
pub(super) fn good(request: &Seen) -> Scripted {
    let path = request.path.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (request.method.as_str(), parts.as_slice()) {
        ("GET", ["api", "channels", _, "conversations"]) => {
            Scripted::json(&json!({"success": true, "data": [], "additional_data": {"after": ""}}))
        }
        ("GET", ["api", "channels", _, "conversations", id]) => {
            Scripted::json(&one(&conversation(id, &[], "")))
        }
        ("GET", ["api", "channels", _, "senders", id]) => {
            Scripted::json(&json!({"success": true, "data": {"id": id, "name": "Someone"}}))
        }
        ("GET", ["api", "channels", _, "templates"]) => {
            Scripted::json(&json!({"success": true, "data": {"templates": []}}))
        }
        ("POST", ["api", "channels", _, "messages"]) => {
            Scripted::json(&json!({"success": true, "data": {"id": "answer-1"}}))
        }
        ("DELETE", ["api", "channels", _]) => Scripted::json(&json!({"success": true})),
        _ => Scripted::not_found(),
    }
}

pub(super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}
