//! The commands.

mod args;
mod connect;
mod contacts;
mod error;
mod mqtt;
mod output;
mod show;

#[cfg(feature = "demo")]
mod demo;
mod run;
#[cfg(feature = "demo")]
mod sim;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use args::Arguments;
use args::{ChannelsCommand, Command, ConversationsCommand};
pub use error::CliError;
use error::{CONFIG, DATA};

use crate::config::{self, Config, Severity};
use crate::control::client::{self, ClientError};
use crate::control::{Done, Gateway, Sent};
use crate::protocol::pipedrive::manifest;
use crate::store::Store;

/// Runs one command to its end.
pub async fn execute(arguments: Arguments) -> Result<(), CliError> {
    let Arguments {
        config: file,
        json,
        command,
    } = arguments;
    let session = Session { file, json };
    match command {
        Command::Run => run::run(session.file).await,
        Command::Check { effective } => check(session.file, effective),
        Command::Status => session.look(Method::GET, "/status", show::status).await,
        Command::Metrics => session.metrics().await,
        Command::Manifest { public_url } => session.manifest(public_url),
        Command::Connect { channels, minutes } => connect::run(&session, channels, minutes).await,
        Command::Disconnect { installation, local } => {
            connect::leave(&session, installation.as_deref(), local).await
        }
        Command::Channels { command } => session.channels(command).await,
        Command::Conversations { command } => session.conversations(command).await,
        Command::Contacts { command } => contacts::run(&session, command).await,
        Command::Send { channel, to, text } => {
            let body = json!({ "channel": channel, "to": to, "text": text });
            session.change(Method::POST, "/send", Some(body), sent).await
        }
        Command::Queue { limit } => {
            session
                .look(Method::GET, &format!("/queue?limit={limit}"), show::queue)
                .await
        }
        Command::Unmapped { limit } => {
            session
                .look(
                    Method::GET,
                    &format!("/unmapped?limit={limit}"),
                    |rows: &Vec<_>| show::unmapped(rows),
                )
                .await
        }
        Command::Modem {
            command: args::ModemCommand::List,
        } => {
            session
                .look(Method::GET, "/modems", |links: &Vec<_>| show::modems(links))
                .await
        }
        Command::Modem {
            command: args::ModemCommand::Ussd { name, code },
        } => {
            let path = format!("/modems/{}/ussd", segment(&name)?);
            let body = json!({ "code": code });
            session.change(Method::POST, &path, Some(body), done).await
        }
        Command::Mqtt { command } => mqtt::run(&session, command).await,
        #[cfg(feature = "demo")]
        Command::Demo { no_browser, manual } => demo::run(no_browser, manual).await,
        #[cfg(feature = "demo")]
        Command::Sim {
            command: args::SimCommand::Pipedrive(options),
        } => sim::pipedrive(options).await,
        #[cfg(feature = "demo")]
        Command::Sim {
            command: args::SimCommand::Modem(options),
        } => sim::modem(options).await,
    }
}

fn sent(sent: &Sent) -> String {
    format!(
        "queued message {}; see `pipepost conversations show {}`\n",
        sent.message, sent.conversation
    )
}

fn done(done: &Done) -> String {
    format!("{}\n", done.message)
}

/// Loads the configuration for `run` and `check`. What there is to say about it goes to standard error, warnings
/// first, so that errors stand where a terminal ends; errors end the command.
fn load(file: Option<PathBuf>) -> Result<Loaded, CliError> {
    let loaded = config::load(&config::Request::of_this_process(file));
    say_findings(&loaded, &[Severity::Warning, Severity::Error]);
    refuse_errors(loaded)
}

/// Loads the configuration for commands that ask the daemon. They say nothing of warnings: those concern the daemon,
/// whose credentials the user of a command may not even see.
fn load_quietly(file: Option<PathBuf>) -> Result<Config, CliError> {
    let loaded = config::load(&config::Request::of_this_process(file));
    say_findings(&loaded, &[Severity::Error]);
    refuse_errors(loaded).map(|loaded| loaded.config)
}

/// A configuration without errors.
struct Loaded {
    config: Config,
    files: Vec<PathBuf>,
    effective: String,
}

fn say_findings(loaded: &config::Loaded, severities: &[Severity]) {
    for severity in severities {
        for finding in loaded.findings.iter().filter(|f| f.severity == *severity) {
            output::note(&format!("{finding}\n"));
        }
    }
}

fn refuse_errors(loaded: config::Loaded) -> Result<Loaded, CliError> {
    let (errors, effective) = (loaded.errors(), loaded.effective());
    if let (Some(config), Some(effective)) = (loaded.config, effective) {
        return Ok(Loaded {
            config,
            files: loaded.files,
            effective,
        });
    }
    let plural = if errors == 1 { "" } else { "s" };
    let message = format!("the configuration has {errors} error{plural}, see above");
    Err(CliError::new(CONFIG, message))
}

/// `pipepost check`
fn check(file: Option<PathBuf>, effective: bool) -> Result<(), CliError> {
    if let Some(hidden) = config::hidden_credentials(file.as_deref()) {
        output::note(&format!(
            "note: only root may look into {}: run this with sudo to have the secrets there checked as well\n",
            hidden.display()
        ));
    }
    let loaded = load(file)?;
    if effective {
        output::print(&loaded.effective)
    } else {
        output::print(&config::summary(&loaded.config, &loaded.files))
    }
}

/// What the commands share.
struct Session {
    file: Option<PathBuf>,
    json: bool,
}

impl Session {
    fn config(&self) -> Result<Config, CliError> {
        load_quietly(self.file.clone())
    }

    fn print<T: Serialize>(&self, value: &T, words: impl FnOnce(&T) -> String) -> Result<(), CliError> {
        if self.json {
            output::print_json(value)
        } else {
            output::print(&words(value))
        }
    }

    /// A command that only reads: from the daemon, or from the store when none runs.
    async fn look<T: Serialize + DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        words: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        let value = self.ask(method, path).await?;
        self.print(&value, words)
    }

    /// What the daemon answers, or the store when none runs.
    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, CliError> {
        let answer = self.ask_raw(method, path).await?;
        client::read(&answer).map_err(CliError::from)
    }

    /// As JSON in both cases: a second way to read each type would make the program much larger.
    async fn ask_raw(&self, method: Method, path: &str) -> Result<Vec<u8>, CliError> {
        let config = self.config()?;
        let socket = config.gateway.control_socket.clone();
        match client::call_raw(&socket, method.clone(), path, None).await {
            Err(ClientError::NotRunning(_)) => look_into_store(config, &method, path).await,
            other => Ok(other?),
        }
    }

    /// A command that changes something: only the daemon does it.
    async fn change<T: Serialize + DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        words: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        let socket = self.config()?.gateway.control_socket;
        let value: T = client::call(&socket, method, path, body.as_ref()).await?;
        self.print(&value, words)
    }

    async fn metrics(&self) -> Result<(), CliError> {
        let socket = self.config()?.gateway.control_socket;
        let bytes = client::call_raw(&socket, Method::GET, "/metrics", None).await?;
        output::print(&String::from_utf8_lossy(&bytes))
    }

    fn manifest(&self, public_url: Option<String>) -> Result<(), CliError> {
        let public_url = match public_url {
            Some(url) => config::public_url(&url)
                .map_err(|reason| CliError::new(DATA, format!("--public-url {url:?}: {reason}")))?,
            None => self.config()?.pipedrive.public_url.ok_or_else(|| {
                CliError::new(CONFIG, "no public address is known")
                    .hint("give --public-url https://…, or set pipedrive.public_url")
            })?,
        };
        output::print(&manifest::document(&public_url))
    }

    async fn channels(&self, command: ChannelsCommand) -> Result<(), CliError> {
        match command {
            ChannelsCommand::List => {
                self.look(Method::GET, "/channels", |rows: &Vec<_>| show::channels(rows))
                    .await
            }
            ChannelsCommand::Register { id } => {
                self.change(Method::POST, &format!("/channels/{}", segment(&id)?), None, done)
                    .await
            }
            ChannelsCommand::Delete { id } => {
                self.change(
                    Method::DELETE,
                    &format!("/channels/{}", segment(&id)?),
                    None,
                    done,
                )
                .await
            }
        }
    }

    async fn mark(&self, id: &str, mark: &str) -> Result<(), CliError> {
        let path = format!("/conversations/{}/{mark}", segment(id)?);
        self.change(Method::POST, &path, None, done).await
    }

    async fn conversations(&self, command: ConversationsCommand) -> Result<(), CliError> {
        match command {
            ConversationsCommand::List { channel, limit } => {
                let channel = match channel {
                    Some(id) => format!("&channel={}", segment(&id)?),
                    None => String::new(),
                };
                let path = format!("/conversations?limit={limit}{channel}");
                self.look(Method::GET, &path, |rows: &Vec<_>| show::conversations(rows))
                    .await
            }
            ConversationsCommand::Show { id, limit } => {
                let path = format!("/conversations/{}?limit={limit}", segment(&id)?);
                self.look(Method::GET, &path, show::conversation).await
            }
            ConversationsCommand::Close { id } => self.mark(&id, "close").await,
            ConversationsCommand::Open { id } => self.mark(&id, "open").await,
            ConversationsCommand::Seen { id } => self.mark(&id, "seen").await,
            ConversationsCommand::Delete { id } => {
                self.change(
                    Method::DELETE,
                    &format!("/conversations/{}", segment(&id)?),
                    None,
                    done,
                )
                .await
            }
        }
    }
}

/// Ids are URL-safe; anything else names nothing and would change the request's path.
fn segment(id: &str) -> Result<&str, CliError> {
    let safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    if id.is_empty() || !id.chars().all(safe) {
        return Err(CliError::new(DATA, format!("{id:?} is not an id")).hint("copy an id from the list"));
    }
    Ok(id)
}

/// The answer that a daemon would give, from the store alone.
async fn look_into_store(config: Config, method: &Method, path: &str) -> Result<Vec<u8>, CliError> {
    let store = open_existing(&config)?;
    let state_dir = config.gateway.state_dir.clone();
    let gateway = Gateway {
        config: Arc::new(config),
        store: store.clone(),
        live: None,
    };
    let answer = crate::control::server::answer(&gateway, method, path).await;
    store.close().await;
    drop((gateway, store));
    give_back(&state_dir);
    Ok(answer?.to_string().into_bytes())
}

/// A store that root opens may get new files, and those belong to root. The daemon's user must be able to use them.
fn give_back(folder: &Path) {
    fn visit(path: &Path, owner: (u32, u32)) -> std::io::Result<()> {
        let metadata = std::fs::symlink_metadata(path)?;
        if metadata.uid() != owner.0 {
            std::os::unix::fs::lchown(path, Some(owner.0), Some(owner.1))?;
        }
        if metadata.is_dir() {
            for entry in std::fs::read_dir(path)? {
                visit(&entry?.path(), owner)?;
            }
        }
        Ok(())
    }
    let given = std::fs::symlink_metadata(folder)
        .and_then(|metadata| visit(folder, (metadata.uid(), metadata.gid())));
    if let Err(error) = given {
        output::note(&format!(
            "warning: {} may hold files that the daemon cannot use: {error}\nhint: chown -R pipepost: {0}",
            folder.display()
        ));
    }
}

fn open_existing(config: &Config) -> Result<Store, CliError> {
    let state_dir = &config.gateway.state_dir;
    match state_dir.join("store").try_exists() {
        Ok(true) => {}
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(CliError::new(
                error::NO_PERMISSION,
                format!(
                    "no daemon runs here, and this user may not look into its store in {}",
                    state_dir.display()
                ),
            )
            .hint("run the command with sudo, or start the daemon: systemctl start pipepost"));
        }
        Ok(false) | Err(_) => {
            return Err(CliError::new(
                error::UNAVAILABLE,
                format!(
                    "no daemon runs here and there is no store in {}",
                    state_dir.display()
                ),
            )
            .hint("start the daemon first: systemctl start pipepost, or `pipepost run`"));
        }
    }
    Ok(Store::open_existing(crate::app::store_options(config))?)
}

/// Prints what clap says: help and version end well, anything else with `EX_USAGE`.
#[must_use]
pub fn usage(error: &clap::Error) -> ExitCode {
    // A closed standard output is no reason to fail on `--help`.
    drop(error.print());
    if error.use_stderr() {
        ExitCode::from(error::USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

/// Runs one command on a runtime of its own and turns its outcome into an exit code.
#[must_use]
pub fn main(arguments: Arguments) -> ExitCode {
    // One thread carries everything asynchronous; blocking work (reads of the store, calls to Pipedrive) runs
    // beside it on threads that end when they are idle.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(512 * 1024)
        .max_blocking_threads(32)
        .build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(execute(arguments));
            runtime.shutdown_timeout(std::time::Duration::from_secs(2));
            outcome
        }
        Err(error) => Err(CliError::new(
            error::SOFTWARE,
            format!("cannot start the runtime: {error}"),
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&error.to_string());
            error.exit_code()
        }
    }
}
