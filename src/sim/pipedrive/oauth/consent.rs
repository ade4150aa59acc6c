//! What a person sees at the authorize page.

use std::fmt::Write as _;

use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};

use super::Registry;
use super::endpoints::Asked;
use super::steps::Visit;
use crate::sim::pipedrive::server::{ReplyBody, reply};

/// Makes a page of its main part. The form's answer is a redirect, which `form-action` must allow as well.
pub(super) fn page(status: StatusCode, main: &str, redirect_uri: &str) -> Response<ReplyBody> {
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Sandbox: permission</title>\n\
         <link rel=\"stylesheet\" href=\"/style.css\">\n<link rel=\"icon\" href=\"data:,\">\n</head>\n\
         <body class=\"paper\">\n<main class=\"sheet\">\n<p class=\"tag\">sandbox</p>\n{main}</main>\n</body>\n</html>\n"
    );
    let mut response = reply(status, "text/html; charset=utf-8", html);
    let target = origin(redirect_uri);
    let policy = format!(
        "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-src 'self'; base-uri 'none'; \
         frame-ancestors 'none'; form-action 'self' {target}"
    );
    for (name, value) in [
        ("content-security-policy", policy.as_str()),
        ("x-content-type-options", "nosniff"),
        // With "no-referrer" a browser would send the form with `Origin: null`, which is refused.
        ("referrer-policy", "same-origin"),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Who asks for what, and the two buttons.
pub(super) fn ask(registry: &Registry, client_id: &str, asked: &Asked) -> String {
    let name = escaped(&registry.app.name);
    let mut users = String::new();
    for user in &registry.app.users {
        let company = registry.company(user.company).map_or("", |c| c.name.as_str());
        let checked = if (user.company, user.id) == registry.signed_in {
            " checked"
        } else {
            ""
        };
        let role = if user.admin { "admin" } else { "no admin" };
        let line = writeln!(
            users,
            "<label class=\"choice\"><input type=\"radio\" name=\"user\" value=\"{}\"{checked}> \
             <span>{}</span> <span class=\"soft\">{} · {role}</span></label>",
            user.id,
            escaped(&user.name),
            escaped(company)
        );
        if line.is_err() {
            break;
        }
    }
    let scopes = registry.app.rules.scope.split([',', ' ']);
    let scopes: Vec<String> = scopes
        .filter(|scope| !scope.is_empty())
        .map(|scope| format!("<li>{}</li>\n", escaped(permission(scope))))
        .collect();
    let scopes = scopes.concat();
    let state = asked.state.as_deref().map_or_else(String::new, |state| {
        format!(
            "<input type=\"hidden\" name=\"state\" value=\"{}\">\n",
            escaped(state)
        )
    });
    format!(
        "<h1>Allow {name} to use your account?</h1>\n<p>The app <strong>{name}</strong> wants to:</p>\n\
         <ul class=\"scopes\">\n{scopes}</ul>\n<form method=\"post\" action=\"/oauth/authorize\">\n\
         <input type=\"hidden\" name=\"client_id\" value=\"{}\">\n\
         <input type=\"hidden\" name=\"redirect_uri\" value=\"{}\">\n{state}\
         <fieldset>\n<legend>You are signed in as</legend>\n{users}</fieldset>\n\
         <p class=\"soft\">The answer goes to {}</p>\n\
         <p class=\"buttons\"><button type=\"submit\" class=\"send\" name=\"decision\" value=\"allow\">Allow and install</button>\n\
         <button type=\"submit\" class=\"quiet\" name=\"decision\" value=\"deny\">Cancel</button></p>\n</form>\n",
        escaped(client_id),
        escaped(&asked.redirect_uri),
        escaped(&asked.redirect_uri),
    )
}

/// Why there is nothing to allow.
pub(super) fn error(why: &str) -> String {
    format!(
        "<h1>This app cannot be installed</h1>\n<p class=\"problem\">{}</p>\n\
         <p>Nothing was sent to the app. Whoever made the link has to correct it.</p>\n",
        escaped(why)
    )
}

/// What the app answered to the browser, when the sandbox went there in its place.
pub(super) fn carried(visit: &Result<Visit, String>) -> String {
    let (words, body) = match visit {
        Ok(visit) => (
            format!("The gateway answered with {}:", visit.status),
            format!(
                "<iframe title=\"The gateway's page\" tabindex=\"-1\" sandbox=\"allow-same-origin\" srcdoc=\"{}\"></iframe>\n",
                escaped(&visit.body)
            ),
        ),
        Err(why) => (
            "The gateway could not be reached:".to_owned(),
            format!("<p class=\"problem\">{}</p>\n", escaped(why)),
        ),
    };
    format!(
        "<h1>Back to the gateway</h1>\n<p>{}</p>\n{body}<p class=\"buttons\"><a class=\"send\" href=\"/\">Open the inbox</a></p>\n",
        escaped(&words)
    )
}

/// A scope in a person's words.
fn permission(scope: &str) -> &str {
    match scope {
        "base" => "see your name, e-mail address and company",
        "messengers-integration" => "show messages in your inbox and send your answers",
        other => other,
    }
}

/// Scheme, host and port of a URL; what is not a URL stays.
fn origin(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    format!("{scheme}://{host}")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
