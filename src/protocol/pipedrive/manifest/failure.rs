//! What went wrong, in the one shape that Pipedrive understands.

use std::borrow::Cow;

use serde::Serialize;

use crate::domain::Timestamp;

/// `data.code` of a failed request. The first five are Pipedrive's own words; the others follow their form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// 400
    InvalidBody,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 429
    RateLimitExceeded,
    /// 400, for what is wrong outside the body
    InvalidRequest,
    /// 405
    MethodNotAllowed,
    /// 408
    RequestTimeout,
    /// 413
    PayloadTooLarge,
    /// 414
    UriTooLong,
    /// 415
    UnsupportedMediaType,
    /// 416
    RangeNotSatisfiable,
    /// 431
    RequestHeadersTooLarge,
    /// 500
    InternalError,
    /// 503
    ServiceUnavailable,
}

impl Code {
    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidBody | Self::InvalidRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::PayloadTooLarge => 413,
            Self::UriTooLong => 414,
            Self::UnsupportedMediaType => 415,
            Self::RangeNotSatisfiable => 416,
            Self::RateLimitExceeded => 429,
            Self::RequestHeadersTooLarge => 431,
            Self::InternalError => 500,
            Self::ServiceUnavailable => 503,
        }
    }
}

/// A failed request: `{"success":false,"data":{"message","code"}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub code: Code,
    /// For a person. Never contains a number, a text or a secret.
    pub message: Cow<'static, str>,
    /// When to try again; only with [`Code::RateLimitExceeded`].
    pub retry_by: Option<Timestamp>,
    /// Value of the `Allow` header; only with [`Code::MethodNotAllowed`].
    pub allow: Option<&'static str>,
}

impl Failure {
    /// A failure with its explanation.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_by: None,
            allow: None,
        }
    }

    /// The path is known, the method is not.
    #[must_use]
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::new(Code::MethodNotAllowed, format!("use {allow} here"))
        }
    }

    /// Too many failures: try again later.
    #[must_use]
    pub fn rate_limited(retry_by: Timestamp) -> Self {
        Self {
            retry_by: Some(retry_by),
            ..Self::new(
                Code::RateLimitExceeded,
                "too many requests with wrong credentials",
            )
        }
    }

    /// The body as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            success: bool,
            data: Data<'a>,
        }
        #[derive(Serialize)]
        struct Data<'a> {
            message: &'a str,
            code: Code,
            #[serde(skip_serializing_if = "Option::is_none")]
            retry_by: Option<String>,
        }
        let body = Body {
            success: false,
            data: Data {
                message: &self.message,
                code: self.code,
                retry_by: self.retry_by.map(Timestamp::to_iso8601),
            },
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn json_of(failure: &Failure) -> Value {
        serde_json::from_slice(&failure.to_json()).unwrap()
    }

    #[test]
    fn a_failure_has_pipedrives_shape_and_words() {
        assert_eq!(
            json_of(&Failure::new(Code::NotFound, "no such channel")),
            json!({"success": false, "data": {"message": "no such channel", "code": "NOT_FOUND"}})
        );
        for (code, word, status) in [
            (Code::InvalidBody, "INVALID_BODY", 400),
            (Code::Unauthorized, "UNAUTHORIZED", 401),
            (Code::Forbidden, "FORBIDDEN", 403),
            (Code::NotFound, "NOT_FOUND", 404),
            (Code::RateLimitExceeded, "RATE_LIMIT_EXCEEDED", 429),
            (Code::RequestHeadersTooLarge, "REQUEST_HEADERS_TOO_LARGE", 431),
        ] {
            assert_eq!(json_of(&Failure::new(code, ""))["data"]["code"], word);
            assert_eq!(code.status(), status);
        }
    }

    #[test]
    fn a_rate_limit_says_when_to_come_back() {
        let failure = Failure::rate_limited(Timestamp::from_unix_ms(1_769_744_285_007));
        assert_eq!(json_of(&failure)["data"]["retry_by"], "2026-01-30T03:38:05.007Z");
    }
}
