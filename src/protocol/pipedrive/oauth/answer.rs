//! What the answers mean.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::request::SCOPE;
use crate::domain::Secret;

/// Lifetime of an access token when the answer does not say.
const USUAL_LIFETIME: Duration = Duration::from_secs(3600);
/// Longest lifetime that is believed.
const LONGEST_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Longest complaint of a server that is shown, in characters.
const MAX_COMPLAINT: usize = 160;

/// What a token request brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// For the Channels API; can exceed 768 characters.
    pub access: Secret,
    /// For the next refresh. Whether it changes with each one is documented both ways: when the answer has none, the old
    /// one stays.
    pub refresh: Option<Secret>,
    /// How long `access` works from now on.
    pub lifetime: Duration,
    /// Where the company's API is, e.g. `https://acme.pipedrive.com`.
    pub api_domain: Option<String>,
    /// What the app may do, if the answer says so.
    pub scope: Option<String>,
}

impl Granted {
    /// Whether the app may use the Channels API. An answer without scopes is given the benefit of the doubt: the first
    /// call shows it.
    #[must_use]
    pub fn has_scope(&self) -> bool {
        let Some(scope) = self.scope.as_deref().filter(|scope| !scope.trim().is_empty()) else {
            return true;
        };
        scope
            .split(|c: char| c == ',' || c == '+' || c.is_whitespace())
            .any(|one| one == SCOPE)
    }
}

/// Why there is no token, or no user. `Display` is a sentence for a person, without the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The code has expired or was used, or the refresh token is not valid any more.
    #[error("Pipedrive does not accept the grant ({0})")]
    Grant(String),
    /// The client id and its secret are not accepted.
    #[error("Pipedrive does not accept client id and secret ({0})")]
    Client(String),
    /// The address of the callback is not the registered one.
    #[error("Pipedrive does not accept the callback's address ({0})")]
    RedirectUri(String),
    /// The app lacks a scope.
    #[error("the app lacks a scope ({0})")]
    Scope(String),
    /// Only a person can mend it, in a way that Pipedrive alone knows.
    #[error("Pipedrive refuses it ({0})")]
    Other(String),
    /// It may work later.
    #[error("{reason}")]
    Later {
        /// What happened.
        reason: String,
        /// The pause that Pipedrive asks for.
        after: Option<Duration>,
    },
}

impl Refused {
    /// Not now, for a reason on the way.
    pub fn later(reason: impl Into<String>) -> Self {
        Self::Later {
            reason: reason.into(),
            after: None,
        }
    }
}

/// Who has connected: `GET /users/me`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Unique at Pipedrive.
    pub id: u64,
    /// As it is shown in Pipedrive.
    pub name: String,
    /// The company.
    pub company_id: u64,
    /// Its name.
    pub company: String,
    /// Whether he has admin rights, if the answer says so.
    pub is_admin: Option<bool>,
}

/// A text for people: short, without control characters and without any of the secrets.
fn clean(text: &str, secrets: &[&Secret]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret.expose(), "***");
    }
    let mut shown: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_COMPLAINT)
        .collect();
    if shown.trim().is_empty() {
        "no reason given".clone_into(&mut shown);
    }
    shown
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    error: Option<serde_json::Value>,
    #[serde(default)]
    message: Option<serde_json::Value>,
    #[serde(default)]
    error_description: Option<serde_json::Value>,
    #[serde(default)]
    error_info: Option<serde_json::Value>,
}

impl ErrorBody {
    fn complaint(&self) -> String {
        let mut parts: Vec<&str> = Vec::new();
        for value in [
            &self.error,
            &self.message,
            &self.error_description,
            &self.error_info,
        ] {
            let text = value.as_ref().and_then(serde_json::Value::as_str);
            if let Some(text) = text.filter(|text| !text.is_empty() && !parts.contains(text)) {
                parts.push(text);
            }
        }
        parts.join(": ")
    }
}

/// Judges an answer that is not a success. `secrets` are what the request carried.
fn refused(status: u16, body: &[u8], after: Option<Duration>, secrets: &[&Secret]) -> Refused {
    match status {
        429 => {
            return Refused::Later {
                reason: "Pipedrive asks to slow down (429).".to_owned(),
                after,
            };
        }
        408 | 500..=599 => {
            return Refused::Later {
                reason: format!("Pipedrive has a fault of its own (status {status})."),
                after,
            };
        }
        300..=399 => {
            return Refused::later(format!(
                "The address of Pipedrive's sign-in redirects to another place (status {status}). Check \
                 pipedrive.oauth_url."
            ));
        }
        _ => {}
    }
    let Ok(error) = serde_json::from_slice::<ErrorBody>(body) else {
        return Refused::Later {
            reason: format!(
                "Something between the gateway and Pipedrive answers (status {status}, not in Pipedrive's form). \
                 Check the network and pipedrive.oauth_url."
            ),
            after,
        };
    };
    let complaint = error.complaint();
    let words = complaint.to_ascii_lowercase().replace('_', " ");
    let shown = clean(&complaint, secrets);
    if words.contains("redirect uri") {
        Refused::RedirectUri(shown)
    } else if words.contains("invalid client") || words.contains("unauthorized client") {
        Refused::Client(shown)
    } else if words.contains("invalid grant") {
        Refused::Grant(shown)
    } else if words.contains("scope") {
        Refused::Scope(shown)
    } else if status == 401 {
        Refused::Client(shown)
    } else {
        Refused::Other(shown)
    }
}

/// Reads the answer to `POST /oauth/token`. `secrets` are what the request carried; `after` is the pause that the
/// answer asks for.
pub fn granted(
    status: u16,
    body: &[u8],
    after: Option<Duration>,
    secrets: &[&Secret],
) -> Result<Granted, Refused> {
    #[derive(Deserialize)]
    struct Body {
        access_token: String,
        #[serde(default)]
        refresh_token: Option<String>,
        #[serde(default, deserialize_with = "seconds")]
        expires_in: Option<u64>,
        #[serde(default)]
        api_domain: Option<String>,
        #[serde(default)]
        scope: Option<String>,
    }
    if !(200..300).contains(&status) {
        return Err(refused(status, body, after, secrets));
    }
    let unreadable = || Refused::later("Pipedrive's answer with the tokens cannot be read.");
    let read: Body = serde_json::from_slice(body).map_err(|_| unreadable())?;
    let access = Secret::new(read.access_token);
    let refresh = read
        .refresh_token
        .map(Secret::new)
        .filter(|token| !token.is_empty());
    let usable = |token: &Secret| token.expose().bytes().all(|c| c.is_ascii_graphic());
    if access.is_empty() || !usable(&access) || refresh.as_ref().is_some_and(|token| !usable(token)) {
        return Err(unreadable());
    }
    let lifetime = read.expires_in.map_or(USUAL_LIFETIME, Duration::from_secs);
    Ok(Granted {
        access,
        refresh,
        lifetime: lifetime.clamp(Duration::from_secs(1), LONGEST_LIFETIME),
        api_domain: read.api_domain,
        scope: read.scope,
    })
}

/// Reads an answer of which only the status counts: `POST /oauth/revoke`.
pub fn done(status: u16, body: &[u8], after: Option<Duration>, secrets: &[&Secret]) -> Result<(), Refused> {
    if (200..300).contains(&status) {
        return Ok(());
    }
    Err(refused(status, body, after, secrets))
}

/// Reads the answer to `GET /users/me`.
pub fn user(status: u16, body: &[u8], after: Option<Duration>, secrets: &[&Secret]) -> Result<User, Refused> {
    #[derive(Deserialize)]
    struct Body {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        #[serde(deserialize_with = "number")]
        id: u64,
        #[serde(default)]
        name: Option<String>,
        #[serde(deserialize_with = "number")]
        company_id: u64,
        #[serde(default)]
        company_name: Option<String>,
        #[serde(default)]
        is_admin: Option<serde_json::Value>,
    }
    if !(200..300).contains(&status) {
        let refused = refused(status, body, after, secrets);
        // A token that was given a moment ago is not refused for itself.
        return Err(match refused {
            Refused::Client(words) => Refused::Other(words),
            Refused::Other(words) if status == 403 => Refused::Scope(words),
            other => other,
        });
    }
    let read: Body = serde_json::from_slice(body)
        .map_err(|_| Refused::later("Pipedrive's answer about the user cannot be read."))?;
    let named = |name: Option<String>, else_: String| {
        let name = name.unwrap_or_default();
        let shown: String = name.chars().filter(|c| !c.is_control()).take(120).collect();
        if shown.trim().is_empty() { else_ } else { shown }
    };
    let data = read.data;
    Ok(User {
        id: data.id,
        name: named(data.name, format!("user {}", data.id)),
        company_id: data.company_id,
        company: named(data.company_name, format!("company {}", data.company_id)),
        is_admin: data.is_admin.and_then(|value| truth(&value)),
    })
}

/// The base of a company's API: `<domain>/api/v1`. `None` for what is not `https://host[:port]`; `http` is let through
/// only when `or_http` says so, for a sandbox on the own machine.
#[must_use]
pub fn api_base(domain: &str, or_http: bool) -> Option<String> {
    let domain = domain.trim_end_matches('/');
    let host = match domain.split_once("://")? {
        ("https", host) => host,
        ("http", host) if or_http => host,
        _ => return None,
    };
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b".-:[]".contains(&c);
    (!host.is_empty() && host.bytes().all(allowed)).then(|| format!("{domain}/api/v1"))
}

/// A yes or no that may come as a number.
pub(super) fn truth(value: &serde_json::Value) -> Option<bool> {
    match value {
        serde_json::Value::Bool(yes) => Some(*yes),
        serde_json::Value::Number(number) => Some(number.as_u64() != Some(0)),
        serde_json::Value::String(text) => match text.as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn as_number(value: &serde_json::Value) -> Option<u64> {
    match value {
        serde_json::Value::Number(number) => number.as_u64(),
        serde_json::Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// A number that may come as a text.
pub(super) fn number<'de, D: Deserializer<'de>>(json: D) -> Result<u64, D::Error> {
    let value = serde_json::Value::deserialize(json)?;
    as_number(&value).ok_or_else(|| serde::de::Error::custom("not a number"))
}

/// What cannot be read counts as not said.
fn seconds<'de, D: Deserializer<'de>>(json: D) -> Result<Option<u64>, D::Error> {
    let value = serde_json::Value::deserialize(json)?;
    Ok(as_number(&value))
}
