//! The inbox page: four files, no framework.

use hyper::header::HeaderValue;
use hyper::{Method, Response, StatusCode};

use super::api::Incoming;
use super::server::{ReplyBody, reply};

const HTML: &str = include_str!("page/index.html");
const CSS: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/inbox.js");
const APP: &str = include_str!("page/app.js");

/// Everything comes from the sandbox itself; nothing runs that is not in the script file.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Serves the page's files; anything else is 404.
pub(super) fn answer(request: &Incoming) -> Response<ReplyBody> {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return reply(StatusCode::NOT_FOUND, "text/plain", "there is nothing here\n");
    }
    let (kind, body) = match request.path.as_str() {
        "/" => ("text/html; charset=utf-8", HTML),
        "/style.css" => ("text/css; charset=utf-8", CSS),
        "/inbox.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "/app.js" => ("text/javascript; charset=utf-8", APP),
        _ => return reply(StatusCode::NOT_FOUND, "text/plain", "there is nothing here\n"),
    };
    let mut response = reply(StatusCode::OK, kind, body);
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
