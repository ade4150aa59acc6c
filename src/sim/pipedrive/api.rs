//! The Channels API as Pipedrive documents it: `/api/v1` and `/v1`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::caller::has_expiring_links;
use super::contract;
use super::core::{Core, Excerpt, Verdict, now};
use super::faults::Injected;
use super::limits::Spending;
use super::oauth::Caller;
use super::paging::PageSize;
use super::served;
use super::state::{Call, Channel, Origin};

/// Beside every 401.
const WHERE_TO_LOOK: &str = "The access token is missing, wrong or expired.";

/// A request whose body has been read.
pub(super) struct Incoming {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) authorization: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) body: Bytes,
}

/// An answer of the Channels API.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

/// What the rest of the answer says about the call.
struct Outcome {
    status: StatusCode,
    body: Value,
    verdict: Verdict,
    detail: String,
}

/// Answers one call; `None` = the connection is to be closed without an answer. `path` comes after the version.
pub(super) async fn answer(core: &Arc<Core>, request: &Incoming, path: &str) -> Option<Reply> {
    let started = Instant::now();
    let (injected, latency_ms) = core.dice().roll();
    if latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(latency_ms)).await;
    }
    let mut headers = Vec::new();
    let (reply, verdict, detail) = match injected {
        Injected::DropBefore => (None, Verdict::Fault, String::new()),
        Injected::ServerError => (
            Some(edge_error(502, "Bad Gateway")),
            Verdict::Fault,
            String::new(),
        ),
        Injected::Html403 => (
            Some(edge_error(403, "Access denied")),
            Verdict::Fault,
            String::new(),
        ),
        Injected::Gone(status) => (
            Some(edge_error(status, "Not found")),
            Verdict::Fault,
            String::new(),
        ),
        _ => {
            let outcome = limited(core, request, path, injected, &mut headers).await;
            let mut body = outcome.body.to_string().into_bytes();
            if injected == Injected::BrokenJson {
                body.truncate(body.len() / 2);
            }
            let reply = Reply {
                status: outcome.status,
                content_type: "application/json; charset=utf-8",
                headers,
                body,
            };
            let dropped = injected == Injected::DropAfter;
            let verdict = if injected == Injected::Nothing {
                outcome.verdict
            } else {
                Verdict::Fault
            };
            (if dropped { None } else { Some(reply) }, verdict, outcome.detail)
        }
    };
    let words = injected.words();
    let detail = if words.is_empty() || detail.is_empty() {
        format!("{words}{detail}")
    } else {
        format!("{words}; {detail}")
    };
    core.change(|state| {
        state.counters.calls += 1;
        state.counters.faulted += u64::from(injected != Injected::Nothing);
        state.log_call(Call {
            number: 0,
            at: now(),
            direction: "to pipedrive",
            request: format!("{} {}", request.method, request.path),
            status: reply.as_ref().map_or(0, |r| r.status.as_u16()),
            milliseconds: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            verdict: verdict.word(),
            detail,
            sent: request.body.excerpt(),
            answered: reply.as_ref().map(|r| r.body.excerpt()).unwrap_or_default(),
        });
    });
    reply
}

/// Token, limits, then the call itself.
async fn limited(
    core: &Arc<Core>,
    request: &Incoming,
    path: &str,
    injected: Injected,
    headers: &mut Vec<(&'static str, String)>,
) -> Outcome {
    let caller = match caller(core, request, injected) {
        Ok(caller) => caller,
        Err(why) => {
            core.change(|state| state.counters.unauthorized += 1);
            let body = json!({"success": false, "error": why, "errorCode": 401, "error_info": WHERE_TO_LOOK});
            return Outcome {
                status: StatusCode::UNAUTHORIZED,
                body,
                verdict: Verdict::Refused,
                detail: why.to_owned(),
            };
        }
    };
    let spending = Spending {
        key: &caller.key,
        company: caller.company,
        limits: caller.limits,
        cost: cost(request),
        budget_empty: injected == Injected::BudgetEmpty,
    };
    let admitted = core.limiter().take(spending, Instant::now(), core.server_ms());
    *headers = admitted.headers;
    let storm = (injected == Injected::TooMany).then_some("too many calls within 2 seconds");
    if let Some(why) = admitted.refused.or(storm) {
        core.change(|state| state.counters.limited += 1);
        let body = json!({
            "success": false,
            "error": "request over limit",
            "errorCode": 429,
            "error_info": why,
        });
        return Outcome {
            status: StatusCode::TOO_MANY_REQUESTS,
            body,
            verdict: Verdict::Refused,
            detail: why.to_owned(),
        };
    }
    let unescaped: Option<Vec<String>> = path.split('/').filter(|s| !s.is_empty()).map(unescape).collect();
    let unescaped = unescaped.unwrap_or_default();
    let parts: Vec<&str> = unescaped.iter().map(String::as_str).collect();
    if parts.first() == Some(&"channels") && !caller.channels {
        let body = json!({"success": false, "error": "Scope and URL mismatch", "errorCode": 403});
        return Outcome {
            status: StatusCode::FORBIDDEN,
            body,
            verdict: Verdict::Refused,
            detail: "the app has no scope for the Channels API".to_owned(),
        };
    }
    match (request.method.as_str(), parts.as_slice()) {
        ("GET", ["users", "me"]) => success(&me(core, &caller)),
        ("POST", ["channels"]) => add_channel(core, request, &caller),
        ("POST", ["channels", "messages", "receive"]) => receive(core, request, &caller).await,
        ("DELETE", ["channels", id]) => delete_channel(core, id, &caller),
        ("DELETE", ["channels", channel, "conversations", id]) => {
            delete_conversation(core, channel, id, &caller)
        }
        _ => {
            let what = format!(
                "{} {} is not a call of the Channels API",
                request.method, request.path
            );
            core.violations(
                &format!("{} {}", request.method, request.path),
                std::slice::from_ref(&what),
            );
            let mut outcome = failure(404, "NOT_FOUND", "Not found", &what);
            outcome.verdict = Verdict::Violation;
            outcome
        }
    }
}

/// What a call costs of the daily budget (tokens).
const fn cost(request: &Incoming) -> u64 {
    match request.method {
        Method::DELETE => 6,
        Method::GET => 2,
        _ => 10,
    }
}

/// Who calls; the error is the 401's text.
fn caller(core: &Core, request: &Incoming, injected: Injected) -> Result<Caller, &'static str> {
    let token = request
        .authorization
        .as_deref()
        .and_then(|value| value.strip_prefix("Bearer "));
    let now = core.server_ms();
    if injected == Injected::Unauthorized {
        return Err("unauthorized access");
    }
    let by_oauth = core.oauth(|registry| registry.caller(token.unwrap_or_default(), now));
    by_oauth.unwrap_or_else(|| {
        if token != Some(core.token.expose()) {
            return Err("unauthorized access");
        }
        Ok(Caller {
            key: "fixed".to_owned(),
            company: 1,
            user: 1,
            admin: true,
            channels: true,
            limits: None,
        })
    })
}

/// `GET /users/me`: who the token belongs to.
fn me(core: &Core, caller: &Caller) -> Value {
    let known = core.oauth(|registry| {
        let user = registry.user((caller.company, caller.user)).cloned();
        (
            user,
            registry
                .company(caller.company)
                .map(|company| company.name.clone()),
        )
    });
    let (user, company) = known.unwrap_or_default();
    let (name, email) = user.map_or_else(
        || ("Sandbox User".to_owned(), "user@sandbox.example".to_owned()),
        |user| (user.name, user.email),
    );
    json!({
        "id": caller.user,
        "name": name,
        "email": email,
        "lang": 1,
        "locale": "en_US",
        "timezone_name": "Europe/Tallinn",
        "activated": true,
        "active_flag": true,
        "is_admin": u8::from(caller.admin),
        "access": [{"app": "global", "admin": caller.admin, "permission_set_id": "0a1b2c3d"}],
        "is_you": true,
        "is_deleted": false,
        "company_id": caller.company,
        "company_name": company.unwrap_or_else(|| "Sandbox Company".to_owned()),
        "company_domain": "sandbox",
        "company_country": "EE",
    })
}

fn add_channel(core: &Arc<Core>, request: &Incoming, caller: &Caller) -> Outcome {
    let body = match json_body(core, request, "POST /channels", "INVALID_BODY", contract::channel) {
        Ok(body) => body,
        Err(outcome) => return *outcome,
    };
    if !caller.admin || core.dice().faults.admin_only {
        return failure(
            403,
            "ADMIN_ONLY",
            "Forbidden",
            "Only admins may register channels.",
        );
    }
    let id = served::text(&body, "provider_channel_id");
    let text = |name: &str, default: &str| {
        body.get(name)
            .and_then(Value::as_str)
            .unwrap_or(default)
            .to_owned()
    };
    let name = text("name", "");
    let company = core.read(|state| state.channels.get(id.as_str()).map(|channel| channel.company));
    if company.is_some_and(|company| company != caller.company) {
        let why = format!("The channel {id} belongs to another company.");
        return failure(400, "INVALID_BODY", "Bad request", &why);
    }
    let templates = body.get("template_support") == Some(&Value::Bool(true));
    let (new, data) = core.change(|state| {
        let number = state.channels.len() + 1;
        let mut channel = Channel::new(&id, format!("0a1b2c3d-0000-4000-8000-{number:012}"), &name, now());
        channel.provider_type = text("provider_type", "other");
        channel.template_support = templates;
        (channel.company, channel.user) = (caller.company, caller.user);
        channel.avatar_url = body.get("avatar_url").and_then(Value::as_str).map(str::to_owned);
        let new = state.register(channel);
        (
            new,
            state
                .channels
                .get(id.as_str())
                .map(|channel| shown(channel, &core.client_id)),
        )
    });
    if new && core.import_history {
        tokio::spawn(after_registration(Arc::clone(core), id, templates));
    }
    success(&data.unwrap_or_default())
}

/// A channel as the answer of `POST /channels` shows it. Its `id` is of no use to the gateway.
fn shown(channel: &Channel, client_id: &str) -> Value {
    json!({
        "id": channel.internal_id,
        "name": channel.name,
        "avatar_url": channel.avatar_url,
        "provider_channel_id": &*channel.id,
        "marketplace_client_id": client_id,
        "pd_company_id": channel.company,
        "pd_user_id": channel.user,
        "created_at": channel.created_at,
        "provider_type": channel.provider_type,
        "template_support": channel.template_support,
    })
}

/// What Pipedrive does by itself once a channel is there.
async fn after_registration(core: Arc<Core>, channel: String, templates: bool) {
    let history = core.page_history(&channel, PageSize::default()).await;
    log::info!(
        channel = channel.as_str(), conversations = history.conversations, messages = history.messages,
        complete = history.complete; "Read the history of a new channel"
    );
    if templates {
        core.get_templates(&channel).await;
    }
}

async fn receive(core: &Arc<Core>, request: &Incoming, caller: &Caller) -> Outcome {
    const CALL: &str = "POST /channels/messages/receive";
    const CODE: &str = "INVALID_RECEIVE_MESSAGE_PAYLOAD";
    let body = match json_body(core, request, CALL, CODE, contract::received_message) {
        Ok(body) => body,
        Err(outcome) => return *outcome,
    };
    let channel = served::text(&body, "channel_id");
    let conversation = served::text(&body, "conversation_id");
    let sender = served::text(&body, "sender_id");
    let known = core.read(|state| {
        let channel = state.channels.get(channel.as_str())?;
        if channel.company != caller.company {
            return None;
        }
        Some(channel.conversations.contains_key(conversation.as_str()))
    });
    let Some(known) = known else {
        return failure(
            404,
            "NOT_FOUND",
            "Not found",
            &format!("There is no channel {channel}."),
        );
    };
    if !known && let Err(why) = core.meet_conversation(&channel, &conversation).await {
        return failure(
            400,
            CODE,
            "The conversation is unknown and could not be fetched",
            &why,
        );
    }
    let sender_known = core.read(|state| {
        let conversation = state.conversation(&channel, &conversation);
        conversation.is_some_and(|c| c.participants.iter().any(|p| p.id == sender))
    });
    if !sender_known {
        core.meet_sender(&channel, &conversation, &sender).await;
    }
    let message = served::message(&body, Origin::Post);
    let (id, links) = (message.id.clone(), has_expiring_links(&message.attachments));
    let problems = core.change(|state| state.arrive(&channel, &conversation, message));
    core.violations(CALL, &problems);
    if links {
        let core = Arc::clone(core);
        tokio::spawn(async move { core.check_links(&channel, &conversation, &id).await });
    }
    let mut outcome = success(&body);
    if !problems.is_empty() {
        outcome.verdict = Verdict::Violation;
        outcome.detail = problems.join("; ");
    }
    outcome
}

fn delete_channel(core: &Arc<Core>, id: &str, caller: &Caller) -> Outcome {
    if let Err(refusal) = owned(core, id, caller) {
        return *refusal;
    }
    if core.change(|state| state.unregister(id)) {
        return done(json!({"success": true}));
    }
    failure(
        400,
        "INVALID_BODY",
        "Bad request",
        &format!("There is no channel {id}."),
    )
}

fn delete_conversation(core: &Arc<Core>, channel: &str, id: &str, caller: &Caller) -> Outcome {
    if let Err(refusal) = owned(core, channel, caller) {
        return *refusal;
    }
    if core.change(|state| state.forget_conversation(channel, id)) {
        return done(json!({"success": true}));
    }
    failure(
        404,
        "NOT_FOUND",
        "Not found",
        &format!("There is no conversation {id} in the channel {channel}."),
    )
}

/// Only whose installation registered a channel may delete it or what is in it.
fn owned(core: &Core, channel: &str, caller: &Caller) -> Result<(), Box<Outcome>> {
    let owner = core.read(|state| state.channels.get(channel).map(|c| (c.company, c.user)));
    if owner.is_none_or(|owner| owner == (caller.company, caller.user)) {
        return Ok(());
    }
    let why = format!("The channel {channel} was registered by another user.");
    Err(Box::new(failure(
        403,
        "FORBIDDEN_USER_REQUEST",
        "Forbidden",
        &why,
    )))
}

/// The body as JSON that keeps the rules, else the 400.
fn json_body(
    core: &Core,
    request: &Incoming,
    call: &str,
    refusal: &str,
    check: impl Fn(&Value) -> Vec<String>,
) -> Result<Value, Box<Outcome>> {
    let kind = request
        .content_type
        .as_deref()
        .and_then(|t| t.split(';').next())
        .unwrap_or_default()
        .trim();
    let (body, problems) = if kind.eq_ignore_ascii_case("application/json") {
        match serde_json::from_slice::<Value>(&request.body) {
            Ok(body) => {
                let problems = check(&body);
                (body, problems)
            }
            Err(e) => (Value::Null, vec![format!("the body is not JSON: {e}")]),
        }
    } else {
        (
            Value::Null,
            vec![format!("content type must be application/json, not {kind:?}")],
        )
    };
    if problems.is_empty() {
        return Ok(body);
    }
    core.change(|state| state.counters.invalid += 1);
    core.violations(call, &problems);
    let mut outcome = failure(
        400,
        refusal,
        "The request body does not fit",
        &problems.join("; "),
    );
    outcome.verdict = Verdict::Violation;
    Err(Box::new(outcome))
}

fn success(data: &Value) -> Outcome {
    done(json!({"success": true, "data": data}))
}

const fn done(body: Value) -> Outcome {
    Outcome {
        status: StatusCode::OK,
        body,
        verdict: Verdict::Ok,
        detail: String::new(),
    }
}

fn failure(status: u16, code: &str, error: &str, info: &str) -> Outcome {
    Outcome {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        body: json!({
            "success": false,
            "error": error,
            "error_info": info,
            "additional_data": {"code": code},
        }),
        verdict: Verdict::Refused,
        detail: if info.is_empty() {
            code.to_owned()
        } else {
            format!("{code}: {info}")
        },
    }
}

/// What the edge in front of Pipedrive answers: HTML, nothing of Pipedrive's shapes.
fn edge_error(status: u16, title: &str) -> Reply {
    Reply {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY),
        content_type: "text/html; charset=utf-8",
        headers: Vec::new(),
        body: format!("<!doctype html><title>{title}</title><h1>{status} {title}</h1>\n").into_bytes(),
    }
}

/// Undoes percent-encoding; `None` when it is broken.
pub(super) fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
            let high = digit(rest.next()?)?;
            bytes.push(high * 16 + digit(rest.next()?)?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
