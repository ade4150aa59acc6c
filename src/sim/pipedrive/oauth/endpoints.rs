//! `/oauth/authorize`, `/oauth/token` and `/oauth/revoke`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use hyper::header::{HeaderValue, LOCATION};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::consent;
use super::steps::Decision;
use crate::sim::pipedrive::api::{Incoming, unescape};
use crate::sim::pipedrive::caller::escape;
use crate::sim::pipedrive::core::{Core, Excerpt, Verdict, now};
use crate::sim::pipedrive::server::{ReplyBody, reply};
use crate::sim::pipedrive::state::Call;

/// Longer words are shortened in the call log: an access token fills the page otherwise.
const WORD: usize = 60;

/// Fields of a query or a form, in their order.
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(super) fn read(text: &str) -> Self {
        let read = |part: &str| unescape(&part.replace('+', " "));
        let pairs = text
            .split('&')
            .filter(|pair| !pair.is_empty())
            .filter_map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((read(name)?, read(value)?))
            });
        Self(pairs.collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name)?;
        Some(&found.1)
    }
}

/// Who asks for permission, and where the answer goes.
pub(super) struct Asked {
    pub(super) redirect_uri: String,
    pub(super) state: Option<String>,
}

/// Answers one call; `None` = the connection is to be closed without an answer. `path` comes after `/oauth/`.
pub(in crate::sim::pipedrive) async fn answer(
    core: &Arc<Core>,
    request: &Incoming,
    path: &str,
) -> Option<Response<ReplyBody>> {
    let path = path.trim_end_matches('/');
    match (request.method.as_str(), path) {
        ("GET", "authorize") => Some(authorize(core, request)),
        ("POST", "authorize") => Some(decided(core, request).await),
        ("POST", "token" | "revoke") => spoken_to(core, request, path).await,
        _ => Some(reply(
            StatusCode::NOT_FOUND,
            "text/plain",
            "there is nothing here\n",
        )),
    }
}

impl Core {
    /// The callback URL that the app is registered with.
    pub(in crate::sim::pipedrive) fn redirect_uri(&self) -> Option<String> {
        let registered = self.oauth(|registry| registry.app.redirect_uri.clone())?;
        registered.or_else(|| Some(format!("{}/oauth/callback", self.gateway_url()?)))
    }

    /// Checks what the authorize page is asked with; the error is for a page, never for a redirect.
    pub(super) fn asked(&self, fields: &Fields) -> Result<Asked, &'static str> {
        if fields.get("client_id") != Some(&self.client_id) {
            return Err("Invalid client: client is invalid");
        }
        let wanted = fields
            .get("redirect_uri")
            .filter(|uri| uri.contains("://"))
            .ok_or("Invalid request: redirect_uri is not a valid URI")?;
        if self.redirect_uri().as_deref() != Some(wanted) {
            return Err("Invalid request: redirect_uri is invalid");
        }
        Ok(Asked {
            redirect_uri: wanted.to_owned(),
            state: fields.get("state").map(str::to_owned),
        })
    }
}

fn authorize(core: &Core, request: &Incoming) -> Response<ReplyBody> {
    let asked = match core.asked(&Fields::read(&request.query)) {
        Ok(asked) => asked,
        Err(why) => return refused(core, request, why),
    };
    let page = core.oauth(|registry| consent::ask(registry, &core.client_id, &asked));
    consent::page(StatusCode::OK, &page.unwrap_or_default(), &asked.redirect_uri)
}

/// Somebody pressed a button of the authorize page.
async fn decided(core: &Arc<Core>, request: &Incoming) -> Response<ReplyBody> {
    let form = Fields::read(&String::from_utf8_lossy(&request.body));
    let asked = match core.asked(&form) {
        Ok(asked) => asked,
        Err(why) => return refused(core, request, why),
    };
    let decision = match form.get("decision") {
        Some("allow") => Decision::Allow,
        _ => Decision::Deny,
    };
    let person = form
        .get("user")
        .and_then(|id| id.parse().ok())
        .and_then(|id| core.oauth(|registry| registry.person(id))?);
    let Some(person) = person else {
        return refused(core, request, "This user is unknown.");
    };
    core.oauth(|registry| registry.signed_in = person);
    let location = core.redirection(&asked, person, decision);
    note(core, request, 302, Verdict::Ok, &location);
    if core.oauth(|registry| registry.app.rules.carry) == Some(true) {
        let visit = core.visit(&location).await;
        return consent::page(StatusCode::OK, &consent::carried(&visit), "");
    }
    let mut response = reply(StatusCode::FOUND, "text/plain", "");
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn refused(core: &Core, request: &Incoming, why: &str) -> Response<ReplyBody> {
    note(core, request, 400, Verdict::Refused, why);
    consent::page(StatusCode::BAD_REQUEST, &consent::error(why), "")
}

impl Core {
    /// Where the browser goes after a decision.
    pub(super) fn redirection(&self, asked: &Asked, person: super::Person, decision: Decision) -> String {
        let now = self.server_ms();
        let code = (decision == Decision::Allow)
            .then(|| self.oauth(|registry| registry.issue_code(person, now)))
            .flatten();
        let outcome = code.map_or_else(
            || "error=user_denied".to_owned(),
            |code| format!("code={}", escape(&code)),
        );
        let state = asked
            .state
            .as_deref()
            .map_or_else(String::new, |state| format!("&state={}", escape(state)));
        let mark = if asked.redirect_uri.contains('?') {
            '&'
        } else {
            '?'
        };
        format!("{}{mark}{outcome}{state}", asked.redirect_uri)
    }
}

/// The app's own calls: `/oauth/token` and `/oauth/revoke`, with the faults that are on.
async fn spoken_to(core: &Arc<Core>, request: &Incoming, path: &str) -> Option<Response<ReplyBody>> {
    let started = Instant::now();
    let (latency_ms, down, drop_after) = {
        let faults = &core.dice().faults;
        (faults.latency_ms, faults.oauth_down, faults.oauth_drop_after)
    };
    if latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(latency_ms)).await;
    }
    if down {
        note(
            core,
            request,
            503,
            Verdict::Fault,
            "fault: the OAuth server is down",
        );
        let page = "<!doctype html><title>503</title><h1>503 Service Unavailable</h1>\n";
        return Some(reply(
            StatusCode::SERVICE_UNAVAILABLE,
            "text/html; charset=utf-8",
            page,
        ));
    }
    let outcome = checked(core, request).and_then(|form| {
        if path == "token" {
            token(core, &form)
        } else {
            revoke(core, &form)
        }
    });
    let (status, body, detail) = match outcome {
        Ok((body, detail)) => (200, body, detail),
        Err(why) => (400, error_body(&why), why),
    };
    core.change(|state| {
        state.counters.token_calls += 1;
        state.counters.token_refusals += u64::from(status != 200);
        state.log_call(Call {
            number: 0,
            at: now(),
            direction: "to pipedrive",
            request: format!("POST {}", request.path),
            status: if drop_after { 0 } else { status },
            milliseconds: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            verdict: match (drop_after, status) {
                (true, _) => Verdict::Fault.word(),
                (false, 200) => Verdict::Ok.word(),
                _ => Verdict::Refused.word(),
            },
            detail: if drop_after {
                format!("{detail}; fault: connection dropped after processing")
            } else {
                detail
            },
            sent: shortened(&String::from_utf8_lossy(&request.body)),
            answered: shortened(&body.to_string()),
        });
    });
    if drop_after {
        return None;
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    Some(reply(status, "application/json; charset=utf-8", body.to_string()))
}

type Outcome = Result<(Value, String), String>;

/// The form of a request that keeps the rules of all calls to the OAuth server.
fn checked(core: &Core, request: &Incoming) -> Result<Fields, String> {
    let kind = request.content_type.as_deref().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err("Invalid request: content must be application/x-www-form-urlencoded".to_owned());
    }
    let given = request
        .authorization
        .as_deref()
        .and_then(|value| value.strip_prefix("Basic "))
        .and_then(|value| BASE64.decode(value.as_bytes()).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .filter(|pair| pair.contains(':'))
        .ok_or("Invalid client: cannot retrieve client credentials")?;
    if given != format!("{}:{}", core.client_id, core.client_secret.expose()) {
        return Err("Invalid client: client is invalid".to_owned());
    }
    Ok(Fields::read(&String::from_utf8_lossy(&request.body)))
}

fn token(core: &Core, form: &Fields) -> Outcome {
    let now = core.server_ms();
    let (granted, words) = match form.get("grant_type") {
        None | Some("") => return Err("Missing parameter: grant_type".to_owned()),
        Some("authorization_code") => {
            let given = form
                .get("code")
                .filter(|given| !given.is_empty())
                .ok_or("Missing parameter: code")?;
            let uri = form
                .get("redirect_uri")
                .filter(|uri| uri.contains("://"))
                .ok_or("Invalid request: redirect_uri is not a valid URI")?;
            if core.redirect_uri().as_deref() != Some(uri) {
                return Err("Invalid request: redirect_uri is invalid".to_owned());
            }
            (
                core.oauth(|registry| registry.exchange(given, now)),
                "code exchanged",
            )
        }
        Some("refresh_token") => {
            let token = form
                .get("refresh_token")
                .filter(|token| !token.is_empty())
                .ok_or("Missing parameter: refresh_token")?;
            (
                core.oauth(|registry| registry.refresh(token, now)),
                "token refreshed",
            )
        }
        Some(_) => return Err("Unsupported grant type: grant_type is invalid".to_owned()),
    };
    let granted = granted.ok_or("Invalid client: client is invalid")??;
    let (company, user) = granted.person;
    let body = core.oauth(|registry| {
        let own = registry
            .company(company)
            .and_then(|company| company.api_domain.clone());
        json!({
            "access_token": granted.access_token,
            "token_type": "Bearer",
            "refresh_token": granted.refresh_token,
            "scope": registry.app.rules.scope,
            "expires_in": registry.app.rules.access_seconds,
            "api_domain": own.unwrap_or_else(|| core.url().to_owned()),
        })
    });
    Ok((
        body.unwrap_or_default(),
        format!("{words} for user {user} of company {company}"),
    ))
}

fn revoke(core: &Core, form: &Fields) -> Outcome {
    let token = form
        .get("token")
        .filter(|token| !token.is_empty())
        .ok_or("Missing parameter: token")?;
    let ended = core.oauth(|registry| registry.revoke(token)).flatten();
    let detail = match ended {
        Some(person) => {
            core.after_uninstall(person);
            format!("user {} of company {} has left the app", person.1, person.0)
        }
        None => "a token has ended".to_owned(),
    };
    Ok((json!({"success": true}), detail))
}

/// The 400's body: a machine's word and Pipedrive's text.
fn error_body(text: &str) -> Value {
    let error = match text.split(':').next().unwrap_or_default() {
        "Invalid grant" => "invalid_grant",
        "Invalid client" => "invalid_client",
        "Unsupported grant type" => "unsupported_grant_type",
        _ => "invalid_request",
    };
    json!({"success": false, "error": error, "message": text})
}

fn note(core: &Core, request: &Incoming, status: u16, verdict: Verdict, detail: &str) {
    core.change(|state| {
        state.log_call(Call {
            number: 0,
            at: now(),
            direction: "to pipedrive",
            request: format!("{} {}", request.method, request.path),
            status,
            milliseconds: 0,
            verdict: verdict.word(),
            detail: shortened(detail),
            sent: shortened(&request.query),
            answered: String::new(),
        });
    });
}

/// Long words with their middle left out.
fn shortened(text: &str) -> String {
    let mut short = String::new();
    let mut word = String::new();
    for character in text.chars().chain([' ']) {
        if character.is_ascii_alphanumeric() || matches!(character, '-' | '_') {
            word.push(character);
            continue;
        }
        match (word.get(..8), word.get(word.len().saturating_sub(4)..)) {
            (Some(first), Some(last)) if word.len() > WORD => short.extend([first, "…", last]),
            _ => short.push_str(&word),
        }
        word.clear();
        short.push(character);
    }
    short.trim_end().excerpt()
}
