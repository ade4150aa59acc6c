//! `pipepost connect` and `pipepost disconnect`.

use std::io::IsTerminal as _;
use std::time::Duration;

use hyper::Method;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::error::{CliError, UNAVAILABLE};
use super::{Session, done, output, segment};
use crate::control::client::{self, ClientError};
use crate::control::{ConnectOpened, ConnectPhase, ConnectProgress, Done};

/// Opens a connect window, shows the address and waits until somebody has connected.
pub(super) async fn run(session: &Session, channels: Vec<String>, minutes: u64) -> Result<(), CliError> {
    let socket = session.config()?.gateway.control_socket;
    let body = json!({ "channels": channels, "minutes": minutes });
    let opened: ConnectOpened = client::call(&socket, Method::POST, "/connect", Some(&body)).await?;
    if session.json {
        output::print_json(&opened)?;
    } else {
        output::print(&invitation(&opened, std::io::stdout().is_terminal()))?;
    }
    let deadline = Instant::now() + Duration::from_secs(opened.minutes.saturating_mul(60));
    let follow = follow(session, &opened);
    let end = tokio::select! {
        end = timeout_at(deadline, follow) => end.unwrap_or_else(|_| {
            Err(CliError::new(UNAVAILABLE, format!("nobody connected within {} minutes", opened.minutes))
                .hint("run `pipepost connect` again; --minutes makes it wait longer"))
        }),
        _ = tokio::signal::ctrl_c() => Err(CliError::new(UNAVAILABLE, "stopped: nobody can connect now")),
    };
    if end.is_err() {
        let path = format!("/connect/{}", opened.window);
        // The window ends by itself when the daemon has gone meanwhile.
        drop(client::call::<Value>(&socket, Method::DELETE, &path, None).await);
    }
    end
}

/// Prints what happens until it is over.
async fn follow(session: &Session, opened: &ConnectOpened) -> Result<(), CliError> {
    let socket = session.config()?.gateway.control_socket;
    let (mut change, mut shown) = (0, 0);
    loop {
        let path = format!("/connect?after={change}");
        let progress: ConnectProgress = match client::call(&socket, Method::GET, &path, None).await {
            Err(ClientError::NotRunning(_) | ClientError::Ended) => {
                return Err(CliError::new(UNAVAILABLE, "the daemon has stopped meanwhile")
                    .hint("when it runs again, run `pipepost connect` again"));
            }
            other => other?,
        };
        change = progress.change;
        if progress.window != opened.window {
            return Err(CliError::new(UNAVAILABLE, "another `pipepost connect` took over"));
        }
        let over = matches!(progress.phase, ConnectPhase::Connected | ConnectPhase::Failed);
        if session.json {
            if over {
                output::print_json(&progress)?;
            }
        } else {
            for line in progress.lines.iter().skip(shown) {
                output::print(&format!("{}\n", printable(line)))?;
            }
        }
        shown = progress.lines.len();
        let hint = progress.hint.unwrap_or_default();
        match progress.phase {
            ConnectPhase::Connected if session.json => return Ok(()),
            ConnectPhase::Connected => return output::print(&format!("{hint}\n")),
            ConnectPhase::Failed => {
                return Err(CliError::new(UNAVAILABLE, "nobody was connected").hint(printable(&hint)));
            }
            ConnectPhase::Waiting | ConnectPhase::Working | ConnectPhase::Closed => {}
        }
    }
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '·' } else { c })
        .collect()
}

fn invitation(opened: &ConnectOpened, terminal: bool) -> String {
    let code = terminal.then(|| qr(&opened.url)).flatten().unwrap_or_default();
    format!(
        "Open this address in a browser in which an admin of your company is signed in to Pipedrive:\n\n  \
         {}\n\n{code}The app's callback URL in Pipedrive's Developer Hub must be {}\n\
         Waiting {} minutes for the answer; Ctrl-C stops.\n",
        opened.url, opened.redirect_uri, opened.minutes
    )
}

/// The address as a QR code of half blocks: light on dark as terminals mostly are, so its colours are exchanged.
fn qr(url: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(url, EcLevel::L).ok()?;
    let drawn = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build();
    Some(format!("{drawn}\n\n"))
}

/// Ends an installation.
pub(super) async fn leave(
    session: &Session,
    installation: Option<&str>,
    local: bool,
) -> Result<(), CliError> {
    let mut parameters = Vec::new();
    if let Some(id) = installation {
        parameters.push(format!("id={}", segment(id)?));
    }
    if local {
        parameters.push("local=yes".to_owned());
    }
    let path = format!("/installations?{}", parameters.join("&"));
    session
        .change(Method::DELETE, &path, None, |answer: &Done| done(answer))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> ConnectOpened {
        ConnectOpened {
            window: 1,
            url: format!(
                "https://oauth.pipedrive.com/oauth/authorize?client_id=0123456789abcdef&redirect_uri=https%3A%2F%2F\
                 gateway.example.com%2Foauth%2Fcallback&state={}",
                "x".repeat(43)
            ),
            redirect_uri: "https://gateway.example.com/oauth/callback".to_owned(),
            minutes: 15,
        }
    }

    #[test]
    fn the_invitation_says_the_address_and_draws_it_for_a_terminal_of_80_columns() {
        let text = invitation(&opened(), true);
        assert!(text.contains(&opened().url), "{text}");
        let drawn: Vec<_> = text.lines().filter(|line| line.contains('█')).collect();
        assert!(drawn.len() > 20, "{text}");
        assert!(drawn.iter().all(|line| line.chars().count() <= 80), "{text}");
        assert!(!invitation(&opened(), false).contains('█'));
    }
}
