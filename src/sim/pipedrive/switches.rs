//! The part of `/sandbox/…` that is about the app's life and the server's clock.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::api::Incoming;
use super::core::{Core, now_ms};
use super::driver::{Outcome, asked, body};
use super::oauth::{Decision, Installation, Rules};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decide {
    url: String,
    user: Option<i64>,
    #[serde(default)]
    decision: Decision,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    user: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shared {
    user: i64,
    shared: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Admin {
    user: i64,
    admin: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clock {
    advance_seconds: Option<u64>,
    speed: Option<u32>,
}

/// Answers one call; `path` comes after `/sandbox/`.
pub(super) async fn answer(core: &Arc<Core>, request: &Incoming, path: &str) -> Outcome {
    let outcome = match (request.method.as_str(), path) {
        ("GET", "clock") => Ok(clock(core)),
        ("POST", "clock") => body(request).map(|wanted: Clock| {
            if let Some(seconds) = wanted.advance_seconds {
                core.clock().advance(Duration::from_secs(seconds), now_ms());
            }
            if let Some(speed) = wanted.speed {
                core.clock().set_speed(speed, now_ms());
            }
            clock(core)
        }),
        ("GET", "oauth") => Ok(overview(core)),
        ("POST", "oauth") => body(request).and_then(|change: Value| rules(core, &change)),
        ("POST", "oauth/decide") => {
            let wanted: Decide = body(request)?;
            let visit = core.decide(&wanted.url, wanted.user, wanted.decision).await;
            asked(visit.map(|visit| json!(visit)))
        }
        ("POST", "oauth/admin") => body(request).map(|wanted: Admin| {
            core.oauth(|registry| registry.set_admin(wanted.user, wanted.admin));
            json!({})
        }),
        ("POST", "oauth/end-access") => {
            let ended = core.oauth(|registry| registry.end_access(None));
            Ok(json!({"ended": ended}))
        }
        ("POST", "oauth/end-refresh") => {
            let ended = core.oauth(|registry| registry.end_refresh(None));
            Ok(json!({"ended": ended}))
        }
        ("POST", "oauth/uninstall") => {
            let wanted: Whose = body(request)?;
            asked(
                core.uninstall(wanted.user)
                    .await
                    .map(|status| json!({"status": status})),
            )
        }
        ("POST", "oauth/share") => {
            let wanted: Shared = body(request)?;
            asked(
                core.share(wanted.user, wanted.shared)
                    .await
                    .map(|status| json!({"status": status})),
            )
        }
        _ => Err((404, format!("{} /sandbox/{path} does not exist", request.method))),
    };
    if request.method != "GET" {
        // Every open page shows what is so now.
        core.change(|_| ());
    }
    outcome
}

fn clock(core: &Core) -> Value {
    let shown = core.server_ms();
    json!({"unix_ms": shown, "time": crate::domain::Timestamp::from_unix_ms(shown).to_iso8601()})
}

fn rules(core: &Core, change: &Value) -> Outcome {
    let changed = core.oauth(|registry| {
        let rules = registry.app.rules.changed(change)?;
        registry.app.rules = rules.clone();
        Ok::<Rules, String>(rules)
    });
    match changed {
        Some(Ok(rules)) => Ok(json!(rules)),
        Some(Err(why)) => Err((400, why)),
        None => Err((
            404,
            "this sandbox has a fixed token and no OAuth server".to_owned(),
        )),
    }
}

/// What the page shows of the app; `{}` where there is a fixed token.
fn overview(core: &Core) -> Value {
    let redirect_uri = core.redirect_uri();
    core.oauth(|registry| {
        let users: Vec<Value> = registry
            .app
            .users
            .iter()
            .map(|user| {
                json!({
                    "id": user.id,
                    "name": user.name,
                    "company": user.company,
                    "company_name": registry.company(user.company).map(|company| company.name.as_str()),
                    "admin": user.admin,
                    "installed": registry.installed((user.company, user.id)),
                })
            })
            .collect();
        let installations: Vec<&Installation> = registry.installations().collect();
        json!({
            "app": registry.app.name,
            "client_id": core.client_id,
            "redirect_uri": redirect_uri,
            "rules": registry.app.rules,
            "users": users,
            "installations": installations,
            "offer": registry.offer,
        })
    })
    .unwrap_or_else(|| json!({}))
}
