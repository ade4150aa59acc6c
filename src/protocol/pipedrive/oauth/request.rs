//! What is asked.

use zeroize::Zeroizing;

use crate::domain::Secret;

/// Path of the callback below the public address.
pub const CALLBACK_PATH: &str = "/oauth/callback";
/// The scope that the Channels API needs; it is set on the app, not in a request.
pub const SCOPE: &str = "messengers-integration";

/// A form body (`application/x-www-form-urlencoded`) with a secret in it; its memory is wiped.
pub type Form = Zeroizing<String>;

/// Percent-encodes everything but the unreserved characters of RFC 3986, section 2.3.
fn push_encoded(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for digit in [byte >> 4, byte & 15] {
                out.extend(char::from_digit(digit.into(), 16).map(|digit| digit.to_ascii_uppercase()));
            }
        }
    }
}

fn pairs(out: &mut String, pairs: &[(&str, &str)]) {
    for (index, (name, value)) in pairs.iter().enumerate() {
        if index > 0 {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        push_encoded(out, value);
    }
}

fn form(fields: &[(&str, &str)]) -> Form {
    // Large enough from the start: a string that grows leaves copies of the secret behind.
    let room = fields
        .iter()
        .map(|(name, value)| name.len() + 3 * value.len() + 2);
    let mut out = Zeroizing::new(String::with_capacity(room.sum()));
    pairs(&mut out, fields);
    out
}

/// Where a person allows the app to act for him.
#[must_use]
pub fn authorize_url(oauth_url: &str, client_id: &str, redirect_uri: &str, state: &str) -> String {
    let mut url = format!("{oauth_url}/oauth/authorize?");
    pairs(
        &mut url,
        &[
            ("client_id", client_id),
            ("redirect_uri", redirect_uri),
            ("state", state),
        ],
    );
    url
}

/// Body of `POST /oauth/token` for a code, which lives five minutes and is used once.
#[must_use]
pub fn exchange(code: &Secret, redirect_uri: &str) -> Form {
    form(&[
        ("grant_type", "authorization_code"),
        ("code", code.expose()),
        ("redirect_uri", redirect_uri),
    ])
}

/// Body of `POST /oauth/token` for a refresh token.
#[must_use]
pub fn refresh(token: &Secret) -> Form {
    form(&[("grant_type", "refresh_token"), ("refresh_token", token.expose())])
}

/// Body of `POST /oauth/revoke`. Revoking the refresh token uninstalls the app for the user.
#[must_use]
pub fn revoke(refresh_token: &Secret) -> Form {
    form(&[
        ("token", refresh_token.expose()),
        ("token_type_hint", "refresh_token"),
    ])
}
