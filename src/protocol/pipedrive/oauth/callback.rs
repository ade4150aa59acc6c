//! What the callback brings: `GET` with a code or a refusal, `DELETE` after an uninstall, `POST` when sharing changed.

use serde::Deserialize;

use super::answer::{number, truth};
use crate::domain::{Secret, Timestamp};
use crate::protocol::pipedrive::manifest::decode;

/// Longest body of a `DELETE` or `POST`, in bytes.
pub const MAX_BODY: usize = 16 * 1024;
/// Longest code that is passed on, in bytes.
const MAX_CODE: usize = 2048;
/// Longest state, in bytes; the gateway's own has 43.
const MAX_STATE: usize = 256;

/// The query of `GET /oauth/callback`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorized {
    /// Allowed.
    Code {
        /// To be exchanged within five minutes.
        code: Secret,
        /// What the authorization URL carried; absent when the installation began in the Marketplace.
        state: Option<Secret>,
    },
    /// Not allowed.
    Refused {
        /// Pipedrive's word, e.g. `user_denied`; printable and short.
        error: String,
        /// What the authorization URL carried.
        state: Option<Secret>,
    },
    /// Nothing that Pipedrive would send.
    Malformed,
}

/// Reads the raw query. A parameter that comes twice is refused: whoever reads the other one would read something else.
#[must_use]
pub fn authorized(query: &str) -> Authorized {
    let (mut code, mut state, mut error) = (None, None, None);
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let slot = match name {
            "code" => &mut code,
            "state" => &mut state,
            "error" => &mut error,
            _ => continue,
        };
        let Some(value) = decode(value, true) else {
            return Authorized::Malformed;
        };
        if slot.replace(value).is_some() {
            return Authorized::Malformed;
        }
    }
    let present = |text: Option<String>| text.filter(|text| !text.is_empty());
    let state = match present(state) {
        Some(text) if text.len() > MAX_STATE => return Authorized::Malformed,
        other => other.map(Secret::new),
    };
    if let Some(error) = present(error) {
        let error = error.chars().filter(char::is_ascii_graphic).take(64).collect();
        return Authorized::Refused { error, state };
    }
    match present(code) {
        Some(code) if code.len() <= MAX_CODE && code.bytes().all(|c| c.is_ascii_graphic()) => {
            Authorized::Code {
                code: Secret::new(code),
                state,
            }
        }
        _ => Authorized::Malformed,
    }
}

/// A user has uninstalled the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uninstalled {
    /// Which app.
    pub client_id: String,
    /// Whose company.
    pub company_id: u64,
    /// Who.
    pub user_id: u64,
    /// When, if it can be read.
    pub at: Option<Timestamp>,
}

/// Reads the body of `DELETE /oauth/callback`.
///
/// # Errors
/// What is wrong with it, for the answer.
pub fn uninstalled(body: &[u8]) -> Result<Uninstalled, &'static str> {
    #[derive(Deserialize)]
    struct Body {
        client_id: String,
        #[serde(deserialize_with = "number")]
        company_id: u64,
        #[serde(deserialize_with = "number")]
        user_id: u64,
        #[serde(default)]
        timestamp: Option<serde_json::Value>,
    }
    let read: Body = serde_json::from_slice(body)
        .map_err(|_| "the body must be JSON with client_id, company_id and user_id")?;
    Ok(Uninstalled {
        client_id: read.client_id,
        company_id: read.company_id,
        user_id: read.user_id,
        at: read.timestamp.as_ref().and_then(time),
    })
}

/// Whether a user shares the app with the whole company has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// Whose company.
    pub company_id: u64,
    /// Who.
    pub user_id: u64,
    /// Whether everybody in the company uses it now.
    pub is_shared: bool,
}

/// Reads the body of `POST /oauth/callback`.
///
/// # Errors
/// What is wrong with it, for the answer.
pub fn sharing(body: &[u8]) -> Result<Sharing, &'static str> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(deserialize_with = "number")]
        company_id: u64,
        #[serde(deserialize_with = "number")]
        user_id: u64,
        #[serde(rename = "isShared", alias = "is_shared")]
        is_shared: serde_json::Value,
    }
    let malformed = "the body must be JSON with company_id, user_id and isShared";
    let read: Body = serde_json::from_slice(body).map_err(|_| malformed)?;
    Ok(Sharing {
        company_id: read.company_id,
        user_id: read.user_id,
        is_shared: truth(&read.is_shared).ok_or(malformed)?,
    })
}

/// A time whose form is not documented: ISO 8601, or a number of seconds or milliseconds.
fn time(value: &serde_json::Value) -> Option<Timestamp> {
    /// As seconds this is the year 5138, as milliseconds 1973.
    const SECONDS_END: i64 = 100_000_000_000;
    let of_number = |number: i64| {
        let milliseconds = if number < SECONDS_END {
            number.saturating_mul(1000)
        } else {
            number
        };
        (number > 0).then(|| Timestamp::from_unix_ms(milliseconds))
    };
    match value {
        serde_json::Value::Number(number) => of_number(number.as_i64()?),
        serde_json::Value::String(text) => {
            if let Ok(number) = text.parse() {
                return of_number(number);
            }
            let text = text.trim();
            let zoned = text.parse::<jiff::Timestamp>();
            let time = zoned.or_else(|_| {
                let civil: jiff::civil::DateTime = text.parse()?;
                civil
                    .to_zoned(jiff::tz::TimeZone::UTC)
                    .map(|zoned| zoned.timestamp())
            });
            Some(Timestamp::from_unix_ms(time.ok()?.as_millisecond()))
        }
        _ => None,
    }
}
