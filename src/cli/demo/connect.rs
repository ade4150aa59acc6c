//! The demo's connect step: what a person does once with `pipepost connect`.

use std::path::Path;
use std::time::Duration;

use hyper::Method;
use serde_json::json;
use tokio::time::sleep;

use super::say;
use crate::cli::error::{CliError, SOFTWARE};
use crate::control::client;
use crate::control::{ConnectOpened, ConnectPhase, ConnectProgress};
use crate::sim::pipedrive::{Decision, Sandbox};

/// How long the page shows the step before the demo takes it.
const BY_ITSELF: Duration = Duration::from_secs(2);
/// Between two looks at whether somebody is connected.
const LOOK: Duration = Duration::from_millis(100);
/// How long the gateway waits for somebody to allow it.
const MINUTES: u32 = 24 * 60;

/// Connects, and offers it anew whenever the connection is lost. After the first time, or with `manual`, a person has to
/// click. Ends only with an error.
pub(super) async fn keep(sandbox: &Sandbox, socket: &Path, manual: bool) -> CliError {
    let mut by_itself = (!manual).then_some(BY_ITSELF);
    loop {
        if let Err(error) = once(sandbox, socket, by_itself).await {
            return error;
        }
        while sandbox.is_connected() {
            sleep(LOOK).await;
        }
        if let Err(error) = say("Pipedrive has let the gateway go; messages wait until it is connected again")
        {
            return error;
        }
        by_itself = None;
    }
}

async fn once(sandbox: &Sandbox, socket: &Path, by_itself: Option<Duration>) -> Result<(), CliError> {
    let body = json!({ "channels": [], "minutes": MINUTES });
    let opened: ConnectOpened = client::call(socket, Method::POST, "/connect", Some(&body)).await?;
    sandbox.offer(&opened.url, by_itself);
    say(&format!(
        "connect: {}{}",
        sandbox.page_url().trim_end_matches('/'),
        path(&opened.url)
    ))?;
    if let Some(wait) = by_itself {
        say(&format!(
            "the demo allows it in {} s; `pipepost demo --manual` waits for your click",
            wait.as_secs()
        ))?;
        let clicked = async {
            while !sandbox.is_connected() {
                sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(wait, clicked).await.is_err() {
            let visit = sandbox.decide(&opened.url, None, Decision::Allow).await;
            visit.map_err(|why| CliError::new(SOFTWARE, format!("the demo cannot connect: {why}")))?;
        }
    } else {
        say("open this address, or \"Look and allow\" on the inbox page, and allow it")?;
    }
    let (mut change, mut shown) = (0, 0);
    loop {
        let seen = format!("/connect?after={change}");
        let progress: ConnectProgress = client::call(socket, Method::GET, &seen, None).await?;
        change = progress.change;
        for line in progress.lines.iter().skip(shown) {
            say(line)?;
        }
        shown = progress.lines.len();
        match progress.phase {
            ConnectPhase::Connected => return Ok(()),
            // Somebody cancelled, or is no admin: the page offers it again.
            ConnectPhase::Failed => {
                return Box::pin(once(sandbox, socket, None)).await;
            }
            ConnectPhase::Waiting | ConnectPhase::Working | ConnectPhase::Closed => {}
        }
    }
}

/// Path and query of a URL.
fn path(url: &str) -> &str {
    url.split_once("://")
        .and_then(|(_, rest)| rest.find('/').and_then(|at| rest.get(at..)))
        .unwrap_or_default()
}
