//! Requests to Pipedrive's sign-in: codes and refresh tokens become access tokens. Calls block.

use zeroize::Zeroizing;

use crate::domain::{Secret, Timestamp};
use crate::http::{Client, FORM, Failure, Method, Request, Response};
use crate::protocol::pipedrive::oauth::{self, Form, Granted, Refused, User};
use crate::protocol::retry::Limits;

/// The app as it is registered in Pipedrive's Developer Hub.
#[derive(Clone, Debug)]
pub struct App {
    /// Client id.
    pub client_id: String,
    /// Client secret.
    pub client_secret: Secret,
    /// Base of the sign-in, e.g. `https://oauth.pipedrive.com`.
    pub oauth_url: String,
    /// The callback: `<public_url>/oauth/callback`. Without it nobody can connect, but tokens are refreshed.
    pub redirect_uri: Option<String>,
}

/// Speaks for the app.
pub(super) struct SignIn {
    client: Client,
    app: App,
}

fn unanswered(failure: &Failure) -> Refused {
    Refused::later(
        failure
            .to_string()
            .replace("pipedrive.api_url", "pipedrive.oauth_url"),
    )
}

fn pause(response: &Response, now: Timestamp) -> Option<std::time::Duration> {
    let limits = Limits::read(|name| response.header(name), now);
    limits.retry_after.or(limits.reset)
}

impl SignIn {
    pub(super) const fn new(client: Client, app: App) -> Self {
        Self { client, app }
    }

    pub(super) const fn app(&self) -> &App {
        &self.app
    }

    /// Whether the sign-in is on this machine, without TLS: a sandbox.
    pub(super) fn is_local(&self) -> bool {
        self.app.oauth_url.starts_with("http://")
    }

    fn post(&self, path: &str, form: &Form) -> Result<Response, Refused> {
        let url = format!("{}{path}", self.app.oauth_url);
        let request = Request {
            method: Method::Post,
            url: &url,
            bearer: None,
            basic: Some((&self.app.client_id, &self.app.client_secret)),
            body: Some((FORM, form.as_bytes())),
        };
        self.client.send(&request).map_err(|failure| unanswered(&failure))
    }

    fn tokens(&self, form: &Form, sent: &Secret, now: Timestamp) -> Result<Granted, Refused> {
        let mut response = self.post("/oauth/token", form)?;
        let after = pause(&response, now);
        let body = Zeroizing::new(std::mem::take(&mut response.body));
        oauth::granted(response.status, &body, after, &[sent, &self.app.client_secret])
    }

    /// A code becomes tokens.
    pub(super) fn exchange(&self, code: &Secret, now: Timestamp) -> Result<Granted, Refused> {
        let redirect_uri = self.app.redirect_uri.as_deref().unwrap_or_default();
        self.tokens(&oauth::exchange(code, redirect_uri), code, now)
    }

    /// A refresh token becomes tokens.
    pub(super) fn refresh(&self, token: &Secret, now: Timestamp) -> Result<Granted, Refused> {
        self.tokens(&oauth::refresh(token), token, now)
    }

    /// Ends an installation at Pipedrive.
    pub(super) fn revoke(&self, token: &Secret, now: Timestamp) -> Result<(), Refused> {
        let response = self.post("/oauth/revoke", &oauth::revoke(token))?;
        let after = pause(&response, now);
        oauth::done(
            response.status,
            &response.body,
            after,
            &[token, &self.app.client_secret],
        )
    }

    /// Whose token it is.
    pub(super) fn user(&self, base: &str, token: &Secret, now: Timestamp) -> Result<User, Refused> {
        let url = format!("{base}/users/me");
        let request = Request {
            method: Method::Get,
            url: &url,
            bearer: Some(token),
            basic: None,
            body: None,
        };
        let response = self
            .client
            .send(&request)
            .map_err(|failure| Refused::later(failure.to_string()))?;
        oauth::user(response.status, &response.body, pause(&response, now), &[token])
    }
}
