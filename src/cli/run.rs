//! `pipepost run`: the daemon.

use std::path::PathBuf;

use log::info;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::error::{CONFIG, IO, SOFTWARE, UNAVAILABLE};
use super::{CliError, load};
use crate::app::{self, AppError, Signals};
use crate::{logging, store};

/// Runs the gateway until SIGTERM or SIGINT; SIGHUP reads certificates again.
pub(super) async fn run(file: Option<PathBuf>) -> Result<(), CliError> {
    let config = load(file)?.config;
    logging::start(&config.log).map_err(|error| CliError::new(SOFTWARE, format!("cannot log: {error}")))?;
    store::watch_for_damage(&config.gateway.state_dir);
    info!(version = env!("CARGO_PKG_VERSION"); "Starting");
    let signals = signals()?;
    app::run(config, signals, |_| ()).await.map_err(CliError::from)
}

/// Listens for the signals of systemd and of a terminal.
pub(super) fn signals() -> Result<Signals, CliError> {
    let failed = |error| CliError::new(SOFTWARE, format!("cannot listen for signals: {error}"));
    let (stop, stopped) = watch::channel(false);
    let (reload, reloaded) = watch::channel(0);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => stop.send_replace(true),
                _ = interrupt.recv() => stop.send_replace(true),
                _ = hangup.recv() => { reload.send_modify(|count| *count += 1); continue }
            };
        }
    });
    Ok(Signals {
        stop: stopped,
        reload: reloaded,
    })
}

impl From<AppError> for CliError {
    fn from(error: AppError) -> Self {
        let message = error.to_string();
        match error {
            AppError::Open(error) => error.into(),
            AppError::Listen(error) => {
                let failure = Self::new(IO, message);
                match error.hint() {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            }
            AppError::Store(_) => {
                Self::new(IO, message).hint("check the disk (dmesg, df); systemd starts the gateway again")
            }
            AppError::Control(_) => Self::new(UNAVAILABLE, message)
                .hint("stop the other daemon, or set gateway.control_socket to a folder of this user"),
            AppError::Config(_) => Self::new(CONFIG, message),
            AppError::Task(..) => Self::new(SOFTWARE, message).hint("systemd starts the gateway again"),
        }
    }
}
