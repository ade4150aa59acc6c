//! What users do at Pipedrive beside the inbox: allow, leave, share; each with Pipedrive's call to the app's callback URL.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Person;
use super::endpoints::Fields;
use crate::sim::pipedrive::client::Request;
use crate::sim::pipedrive::core::{Core, Verdict};

/// What a user decides at the authorize page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// The app is installed.
    #[default]
    Allow,
    /// The browser goes back with `error=user_denied`.
    Deny,
}

/// What the gateway showed to the browser at the callback URL.
#[derive(Clone, Debug, Serialize)]
pub struct Visit {
    /// HTTP status.
    pub status: u16,
    /// The page.
    pub body: String,
}

impl Core {
    /// Opens an authorization URL, decides as a user, and goes where the browser is sent.
    pub(in crate::sim::pipedrive) async fn decide(
        &self,
        url: &str,
        user: Option<i64>,
        decision: Decision,
    ) -> Result<Visit, String> {
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let asked = self.asked(&Fields::read(query)).map_err(str::to_owned)?;
        let person = self
            .oauth(|registry| user.map_or(Some(registry.signed_in), |id| registry.person(id)))
            .flatten()
            .ok_or("this user is unknown")?;
        let location = self.redirection(&asked, person, decision);
        self.visit(&location).await
    }

    /// Fetches a page of the gateway as a browser would.
    pub(super) async fn visit(&self, url: &str) -> Result<Visit, String> {
        let request = Request {
            method: "GET",
            url: url.to_owned(),
            authorization: None,
            content_type: None,
            body: Vec::new(),
        };
        let started = Instant::now();
        let sent = self.client.send(request.clone()).await;
        let verdict = match &sent {
            Ok(answer) if answer.status == 200 => Verdict::Ok,
            _ => Verdict::Refused,
        };
        let detail = "the browser of whoever decided".to_owned();
        self.log("to gateway", &request, &sent, verdict, detail, started);
        let answer = sent?;
        Ok(Visit {
            status: answer.status,
            body: String::from_utf8_lossy(&answer.body).into_owned(),
        })
    }

    /// A user uninstalls the app: tokens end, then the app is told. Gives the gateway's status.
    pub(in crate::sim::pipedrive) async fn uninstall(&self, user: i64) -> Result<u16, String> {
        let person = self.installed_person(user)?;
        self.oauth(|registry| registry.uninstall(person));
        self.after_uninstall(person);
        let timestamp = crate::domain::Timestamp::from_unix_ms(self.server_ms()).to_iso8601();
        let body = json!({
            "client_id": self.client_id, "company_id": person.0, "user_id": person.1, "timestamp": timestamp,
        });
        self.call_back("DELETE", "uninstall callback", &body).await
    }

    /// A user shares the app's channels with colleagues, or stops to. Gives the gateway's status.
    pub(in crate::sim::pipedrive) async fn share(&self, user: i64, shared: bool) -> Result<u16, String> {
        let person = self.installed_person(user)?;
        let body = json!({"company_id": person.0, "user_id": person.1, "isShared": shared});
        self.call_back("POST", "sharing callback", &body).await
    }

    /// What goes with an installation: the channels that its user registered.
    pub(super) fn after_uninstall(&self, person: Person) {
        if self.oauth(|registry| registry.app.rules.keep_channels) == Some(true) {
            return;
        }
        self.change(|state| {
            let own = state
                .channels
                .values()
                .filter(|channel| (channel.company, channel.user) == person)
                .map(|channel| channel.id.clone());
            for channel in own.collect::<Vec<_>>() {
                state.unregister(&channel);
            }
        });
    }

    fn installed_person(&self, user: i64) -> Result<Person, String> {
        self.oauth(|registry| registry.person(user).filter(|p| registry.installed(*p)))
            .flatten()
            .ok_or_else(|| format!("user {user} has not installed the app"))
    }

    async fn call_back(&self, method: &'static str, call: &str, body: &Value) -> Result<u16, String> {
        let request = Request {
            method,
            url: self.redirect_uri().ok_or("the app has no callback URL")?,
            authorization: Some(self.basic.clone()),
            content_type: Some("application/json".to_owned()),
            body: body.to_string().into_bytes(),
        };
        let started = Instant::now();
        let sent = self.client.send(request.clone()).await;
        let status = sent.as_ref().map_or(0, |answer| answer.status);
        // A tunnel may be down; an app that answers must answer well.
        let violated = (1..500).contains(&status) && !(200..300).contains(&status);
        let (verdict, detail) = match (violated, status) {
            (true, _) => (Verdict::Violation, format!("{call} was refused")),
            (false, 200..300) => (Verdict::Ok, call.to_owned()),
            (false, _) => (Verdict::Refused, format!("{call} did not arrive")),
        };
        self.log("to gateway", &request, &sent, verdict, detail, started);
        if violated {
            self.violations(
                call,
                &[format!("the callback URL answered {method} with {status}")],
            );
        }
        sent.map(|_| status)
    }
}
