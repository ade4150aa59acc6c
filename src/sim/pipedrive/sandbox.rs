//! The handle that demo, tests and `pipepost sim pipedrive` hold.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::caller::{RecipientsForm, Reply};
use super::client::Gateway;
use super::core::{Core, Parts};
use super::faults::Faults;
use super::limits::Limits;
use super::oauth::{App, Decision, Installation, Offer, Rules, Visit};
use super::paging::{History, PageSize};
use super::probes::Probe;
use super::state::{Counters, State, Violation};
use super::{server, tls};
use crate::domain::Secret;

/// Least time between two looks at the state while waiting: a look may be expensive.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// How a sandbox is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the Channels API listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// Where the page is served without TLS, beside `address`; port 0 takes a free one.
    pub page_address: Option<SocketAddr>,
    /// Whether `address` speaks TLS, with a certificate under an authority made at the start.
    pub tls: bool,
    /// Names for the certificate beside localhost and the address.
    pub names: Vec<String>,
    /// Where the authority's certificate is written for the gateway.
    pub ca_file: Option<PathBuf>,
    /// The access token that the gateway must present.
    pub token: Secret,
    /// The app's client id, for Basic auth at the gateway.
    pub client_id: String,
    /// The app's client secret, for Basic auth at the gateway.
    pub client_secret: Secret,
    /// Where the gateway is; may be told later, see [`Sandbox::set_gateway`].
    pub gateway: Option<Gateway>,
    /// Faults from the start.
    pub faults: Faults,
    /// Limits; none by default.
    pub limits: Limits,
    /// Whether the history of a newly registered channel is read, as Pipedrive does.
    pub import_history: bool,
    /// How recipients are written in postMessage.
    pub recipients_form: RecipientsForm,
    /// The app that users install with OAuth 2.0; none = `token` is the one access token.
    pub app: Option<App>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            page_address: None,
            tls: true,
            names: Vec::new(),
            ca_file: None,
            token: Secret::new("sandbox-token".to_owned()),
            client_id: "sandbox-client".to_owned(),
            client_secret: Secret::new("sandbox-secret".to_owned()),
            gateway: None,
            faults: Faults::default(),
            limits: Limits::default(),
            import_history: true,
            recipients_form: RecipientsForm::default(),
            app: None,
        }
    }
}

/// Why a sandbox did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The wanted address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// No certificate could be made.
    #[error("{0}")]
    Certificate(String),
    /// The authority's certificate could not be written.
    #[error("cannot write {}: {source}", path.display())]
    CaFile {
        /// The wanted path.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The faults make no sense.
    #[error("faults: {0}")]
    Faults(String),
    /// No thread or no runtime.
    #[error("cannot start the sandbox's thread: {0}")]
    Thread(std::io::Error),
}

/// A running sandbox. It works on a thread of its own, so that it answers whatever its owner is busy with, and
/// stops when the handle is dropped.
pub struct Sandbox {
    core: Arc<Core>,
    runtime: tokio::runtime::Handle,
    stop: watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
    page_address: Option<SocketAddr>,
    ca_pem: Option<String>,
}

impl Sandbox {
    /// Binds the listeners and starts serving. When it returns, connections are accepted.
    pub fn start(options: Options) -> Result<Self, StartError> {
        options.faults.check().map_err(StartError::Faults)?;
        let listener = listen(options.address)?;
        let page_listener = options.page_address.map(listen).transpose()?;
        let identity = if options.tls {
            Some(tls::make(&options.names, options.address.ip()).map_err(StartError::Certificate)?)
        } else {
            None
        };
        if let (Some(path), Some(identity)) = (&options.ca_file, &identity) {
            std::fs::write(path, &identity.ca_pem).map_err(|source| StartError::CaFile {
                path: path.clone(),
                source,
            })?;
        }
        let local = |l: &std::net::TcpListener| l.local_addr().map_err(StartError::Thread);
        let address = local(&listener)?;
        let page_address = page_listener.as_ref().map(local).transpose()?;
        let (ca_pem, acceptor) = match identity {
            Some(identity) => (Some(identity.ca_pem), Some(TlsAcceptor::from(identity.config))),
            None => (None, None),
        };
        let scheme = if ca_pem.is_some() { "https" } else { "http" };
        let core = Core::new(Parts {
            url: format!("{scheme}://{address}"),
            app: options.app,
            token: options.token,
            client_id: options.client_id,
            client_secret: options.client_secret,
            recipients_form: options.recipients_form,
            import_history: options.import_history,
            gateway: options.gateway,
            faults: options.faults,
            limits: options.limits,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let handle = runtime.handle().clone();
        let (stop, stop_seen) = watch::channel(false);
        let (ended, stopped) = watch::channel(false);
        let serving = Arc::clone(&core);
        std::thread::Builder::new()
            .name("sandbox".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    let listeners = async {
                        let main = adopt(listener).map(|l| {
                            tokio::spawn(server::serve(
                                l,
                                acceptor,
                                Arc::clone(&serving),
                                stop_seen.clone(),
                            ))
                        });
                        let page = page_listener.and_then(adopt).map(|l| {
                            tokio::spawn(server::serve(l, None, Arc::clone(&serving), stop_seen.clone()))
                        });
                        for task in [main, page].into_iter().flatten() {
                            if let Err(e) = task.await {
                                log::error!("The sandbox's listener failed: {e}");
                            }
                        }
                    };
                    listeners.await;
                });
                // Calls to the gateway that still wait for an answer are left behind.
                runtime.shutdown_timeout(Duration::from_millis(200));
                ended.send_replace(true);
            })
            .map_err(StartError::Thread)?;
        Ok(Self {
            core,
            runtime: handle,
            stop,
            stopped,
            page_address,
            ca_pem,
        })
    }

    /// Base URL of the Channels API's host; `/api/v1` comes after it.
    #[must_use]
    pub fn url(&self) -> String {
        self.core.url().to_owned()
    }

    /// Where a browser sees the inbox: without TLS when there is such a listener.
    #[must_use]
    pub fn page_url(&self) -> String {
        self.page_address.map_or_else(
            || format!("{}/", self.url()),
            |address| format!("http://{address}/"),
        )
    }

    /// The certificate of the authority that vouches for [`url`](Self::url), if it speaks TLS.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Tells where the gateway is.
    pub fn set_gateway(&self, gateway: Gateway) {
        self.core.set_gateway(gateway);
    }

    /// Looks at the state.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.core.read(look)
    }

    /// Waits until the state is as wanted; `false` when the limit passed first. Needs a tokio runtime with time.
    pub async fn wait_for(&self, wanted: impl Fn(&State) -> bool, limit: Duration) -> bool {
        let mut changed = self.core.subscribe();
        let waiting = async {
            loop {
                changed.borrow_and_update();
                if self.core.read(&wanted) {
                    return;
                }
                tokio::time::sleep(LOOK_PAUSE).await;
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        // The state may have become right between the last look and the end of the limit.
        tokio::time::timeout(limit, waiting).await.is_ok() || self.core.read(&wanted)
    }

    /// [`wait_for`](Self::wait_for) for threads without a runtime.
    pub fn wait_for_blocking(&self, wanted: impl Fn(&State) -> bool, limit: Duration) -> bool {
        let deadline = std::time::Instant::now() + limit;
        loop {
            if self.core.read(&wanted) {
                return true;
            }
            if std::time::Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    /// Sends an agent's answer to the gateway; gives the gateway's id of the message, or says why not.
    pub async fn reply(&self, reply: Reply) -> Result<String, String> {
        let core = Arc::clone(&self.core);
        self.on_own_thread(async move { core.post_message(reply).await })
            .await?
    }

    /// Reads a channel's whole history from the gateway and checks that nothing is skipped or repeated.
    pub async fn page_history(&self, channel: &str, size: PageSize) -> Result<History, String> {
        let (core, channel) = (Arc::clone(&self.core), channel.to_owned());
        self.on_own_thread(async move { core.page_history(&channel, size).await })
            .await
    }

    /// Sends wrong requests to the manifest endpoints of a registered channel and checks how they are refused.
    pub async fn probe(&self, channel: &str) -> Result<Vec<Probe>, String> {
        let (core, channel) = (Arc::clone(&self.core), channel.to_owned());
        self.on_own_thread(async move { core.probe(&channel).await })
            .await
    }

    /// A user removes the channel in Pipedrive's settings: deleteChannelById at the gateway.
    pub async fn delete_channel(&self, channel: &str) -> Result<(), String> {
        let (core, channel) = (Arc::clone(&self.core), channel.to_owned());
        self.on_own_thread(async move { core.delete_channel(&channel).await })
            .await?
    }

    /// Broken rules so far.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.core.read(|state| state.violations.clone())
    }

    /// Numbers so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.core.read(|state| state.counters)
    }

    /// The faults in force.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.core.dice().faults.clone()
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: Faults) -> Result<(), String> {
        faults.check()?;
        self.core.dice().faults = faults;
        Ok(())
    }

    /// Replaces the limits.
    pub fn set_limits(&self, limits: Limits) {
        self.core.limiter().limits = limits;
    }

    /// Forgets what was spent of the daily budget.
    pub fn new_day(&self) {
        self.core.limiter().new_day();
    }

    /// Shows an authorization URL on the page, until somebody has allowed it. `by_itself` is how long the page says that
    /// it takes without a click; taking it is the caller's, see [`decide`](Self::decide).
    pub fn offer(&self, url: &str, by_itself: Option<Duration>) {
        // The page's own address: a browser does not trust the other one's certificate.
        let path = url
            .split_once("://")
            .and_then(|(_, rest)| rest.find('/').and_then(|at| rest.get(at..)))
            .unwrap_or_default();
        let wait = by_itself.map(|wait| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        let offer = Offer {
            path: path.to_owned(),
            by_itself_at: wait.map(|wait| super::core::now_ms().saturating_add(wait)),
        };
        self.core.oauth(|registry| registry.offer = Some(offer));
        self.core.change(|_| ());
    }

    /// Whether somebody has installed the app, with a refresh token that still counts.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.core
            .oauth(|registry| registry.installations().any(Installation::is_alive))
            .unwrap_or(true)
    }

    /// Opens an authorization URL, decides as a user (none = who is signed in), and goes where the browser is sent.
    pub async fn decide(&self, url: &str, user: Option<i64>, decision: Decision) -> Result<Visit, String> {
        let (core, url) = (Arc::clone(&self.core), url.to_owned());
        self.on_own_thread(async move { core.decide(&url, user, decision).await })
            .await?
    }

    /// A user uninstalls the app: tokens and channels end, the gateway is told. Gives the status it answered with.
    pub async fn uninstall(&self, user: i64) -> Result<u16, String> {
        let core = Arc::clone(&self.core);
        self.on_own_thread(async move { core.uninstall(user).await })
            .await?
    }

    /// A user shares the app's channels, or stops to; the gateway is told. Gives the status it answered with.
    pub async fn share(&self, user: i64, shared: bool) -> Result<u16, String> {
        let core = Arc::clone(&self.core);
        self.on_own_thread(async move { core.share(user, shared).await })
            .await?
    }

    /// The OAuth server's rules in force; `None` with a fixed token.
    #[must_use]
    pub fn rules(&self) -> Option<Rules> {
        self.core.oauth(|registry| registry.app.rules.clone())
    }

    /// Replaces the OAuth server's rules; tokens that were given out keep their end.
    pub fn set_rules(&self, rules: Rules) {
        self.core.oauth(|registry| registry.app.rules = rules);
    }

    /// Makes a user an admin, or no admin.
    pub fn set_admin(&self, user: i64, admin: bool) {
        self.core.oauth(|registry| registry.set_admin(user, admin));
    }

    /// All access tokens end at once. Refresh tokens live on.
    pub fn end_access_tokens(&self) {
        self.core.oauth(|registry| registry.end_access(None));
    }

    /// All refresh tokens end at once. Access tokens live on.
    pub fn end_refresh_tokens(&self) {
        self.core.oauth(|registry| registry.end_refresh(None));
    }

    /// Puts the server's clock forward: it decides on midnight and on the end of tokens.
    pub fn advance_clock(&self, by: Duration) {
        self.core.clock().advance(by, super::core::now_ms());
    }

    /// Seconds of the server's clock in one real second from now on.
    pub fn set_clock_speed(&self, speed: u32) {
        self.core.clock().set_speed(speed, super::core::now_ms());
    }

    /// The server's time in milliseconds since the epoch.
    #[must_use]
    pub fn server_ms(&self) -> i64 {
        self.core.server_ms()
    }

    /// Stops listening, lets open calls finish for up to two seconds, and returns when the thread is done.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if self.stopped.wait_for(|stopped| *stopped).await.is_err() {
            log::warn!("The sandbox's thread ended early");
        }
    }

    async fn on_own_thread<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, String> {
        self.runtime
            .spawn(work)
            .await
            .map_err(|e| format!("the sandbox has stopped: {e}"))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener, StartError> {
    let listener = std::net::TcpListener::bind(address);
    listener
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|source| StartError::Listen { address, source })
}

fn adopt(listener: std::net::TcpListener) -> Option<tokio::net::TcpListener> {
    tokio::net::TcpListener::from_std(listener)
        .inspect_err(|e| log::error!("The sandbox cannot use its listener: {e}"))
        .ok()
}
