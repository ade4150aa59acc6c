//! Connections: how many, how long, and how they end.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use log::{debug, info, warn};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::auth::{Credentials, Throttle};
use super::callback::Callback;
use super::crowd::{Crowd, Room};
use super::guard::{Guard, Limits, Phase, Wire};
use super::metrics::{Metrics, Snapshot};
use super::reads::Reads;
use super::service::{self, Context, Served};
use super::tls::{CertificateError, Certificates};
use crate::config::{self, Config, Template};
use crate::domain::ProviderChannelId;
use crate::store::Store;

/// Room for one request's head in hyper, with some for what comes after it.
const BUFFER: usize = 64 * 1024;
/// hyper's own limit of headers, behind the one that answers in words.
const MAX_HEADERS: usize = 256;
/// How long accepting pauses after the operating system refused (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long a connection that is asked to make room has for the end of its answer.
const LEAVE_WITHIN: Duration = Duration::from_millis(500);
/// How often is looked again for somebody who can make room while all are busy.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Why the listener cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// From the configuration.
        address: SocketAddr,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoEntropy,
}

impl ListenError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("another program has this port: change listener.bind, or stop that program")
            }
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrNotAvailable => {
                Some("this machine has no such address: check listener.bind")
            }
            Self::Bind { .. } | Self::NoEntropy => None,
            Self::Certificate(_) => Some("check listener.certificate_file and listener.key_file"),
        }
    }
}

/// The listener, bound but not serving yet.
pub struct Listener {
    socket: TcpListener,
    tls: Arc<ServerConfig>,
    context: Arc<Context>,
    limits: Limits,
    places: Arc<Semaphore>,
    handle: Handle,
}

/// What the rest of the gateway holds of a running listener. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    certificates: Arc<Certificates>,
    templates: Arc<RwLock<Vec<Template>>>,
    metrics: Arc<Metrics>,
    address: SocketAddr,
    has_credentials: bool,
}

impl Handle {
    /// Reads the certificate again (SIGHUP). On an error the old one stays in use.
    pub fn reload(&self) -> Result<(), CertificateError> {
        self.certificates.reload()
    }

    /// Offers other templates from now on.
    pub fn set_templates(&self, templates: Vec<Template>) {
        *self.templates.write().unwrap_or_else(PoisonError::into_inner) = templates;
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> Snapshot {
        self.metrics.snapshot()
    }

    /// Where it listens; with a configured port of 0 the one that was given.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate's file, which a client of a self-signed certificate must trust.
    #[must_use]
    pub fn certificate_file(&self) -> PathBuf {
        self.certificates.path()
    }

    /// Whether the certificate was made here.
    #[must_use]
    pub fn is_self_signed(&self) -> bool {
        self.certificates.is_self_signed()
    }

    /// Whether `pipedrive.client_id` and its secret are there: without them every call is answered with 401.
    #[must_use]
    pub const fn has_credentials(&self) -> bool {
        self.has_credentials
    }
}

impl Listener {
    /// Takes the address and reads or makes the certificate. Nothing is answered before [`Self::serve`].
    pub async fn bind(config: &Config, store: Store) -> Result<Self, ListenError> {
        Self::bind_with(config, store, None).await
    }

    /// The same with something that `/oauth/callback` leads to.
    pub async fn bind_with(
        config: &Config,
        store: Store,
        callback: Option<Arc<dyn Callback>>,
    ) -> Result<Self, ListenError> {
        let address = config.listener.bind;
        let pipedrive = &config.pipedrive;
        let credentials = Credentials::new(pipedrive.client_id.as_deref(), pipedrive.client_secret.as_ref())
            .map_err(|_| ListenError::NoEntropy)?;
        if !credentials.are_configured() {
            warn!("No client id and secret are configured: every call of Pipedrive is answered with 401");
        }
        let certificates = match (&config.listener.certificate_file, &config.listener.key_file) {
            (Some(certificate), Some(key)) => Certificates::from_files(certificate.clone(), key.clone())?,
            (None, None) => Certificates::self_signed(&config.gateway.state_dir, names(config))?,
            _ => return Err(CertificateError::HalfConfigured.into()),
        };
        let tls = certificates.server_config()?;
        let bind_error = |source| ListenError::Bind { address, source };
        let socket = TcpListener::bind(address).await.map_err(bind_error)?;
        let address = socket.local_addr().map_err(bind_error)?;

        let metrics = Arc::new(Metrics::default());
        let templates = Arc::new(RwLock::new(config.templates.clone()));
        let handle = Handle {
            certificates,
            templates: Arc::clone(&templates),
            metrics: Arc::clone(&metrics),
            address,
            has_credentials: credentials.are_configured(),
        };
        let gateway = store.gateway_id().clone();
        let served = config.channels.iter().map(|channel| {
            let served = Served {
                id: channel.id.clone(),
                provider_id: ProviderChannelId::new(&gateway, &channel.id),
                name: channel.name.clone(),
                avatar_url: channel.avatar_url.clone(),
            };
            (served.provider_id.clone(), Arc::new(served))
        });
        let context = Arc::new(Context {
            channels: served.collect(),
            templates,
            credentials,
            throttle: Throttle::new(),
            reads: Reads::new(),
            metrics,
            // Without a public address Pipedrive reaches nothing; links that work on this machine are all there is.
            public_url: pipedrive
                .public_url
                .clone()
                .unwrap_or_else(|| format!("https://{address}")),
            media_secret: store.media_secret(),
            link_lifetime: config.listener.link_lifetime,
            max_upload: config.listener.max_upload,
            body_timeout: config.listener.body_timeout,
            callback,
            gateway,
            store,
        });
        let config::Listener {
            max_connections,
            header_timeout,
            idle_timeout,
            ..
        } = config.listener;
        Ok(Self {
            socket,
            tls,
            context,
            limits: Limits {
                head: header_timeout,
                idle: idle_timeout,
                write: idle_timeout,
            },
            places: Arc::new(Semaphore::new(max_connections.clamp(1, Semaphore::MAX_PERMITS))),
            handle,
        })
    }

    /// For reload, metrics and status, also while it serves.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Answers until `stop` says true (or its sender is gone), then lets what is in progress finish. Dropping the
    /// future breaks that off.
    pub async fn serve(self, mut stop: watch::Receiver<bool>) {
        info!(address = self.handle.address.to_string().as_str(); "Listening for Pipedrive");
        let mut crowd = Crowd::default();
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                // Only so that finished connections do not pile up.
                Some(_) = connections.join_next() => continue,
                accepted = self.socket.accept() => accepted,
            };
            let socket = match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    warn!(reason = error.to_string().as_str(); "Cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let place = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                place = self.place(&mut crowd) => place,
            };
            let Some(place) = place else {
                self.handle.metrics.turned_away();
                continue;
            };
            let phase = Phase::new();
            crowd.join(&phase);
            let connection = Connection {
                tls: TlsAcceptor::from(Arc::clone(&self.tls)),
                context: Arc::clone(&self.context),
                limits: self.limits,
                stop: stop.clone(),
                phase,
                _place: place,
            };
            connections.spawn(connection.run(socket));
        }
        drop(self.socket);
        while connections.join_next().await.is_some() {}
    }

    /// Answers one connection whose bytes are decrypted already, until it ends: for fuzzers, which have no sockets.
    #[cfg(feature = "demo")]
    pub async fn answer_decrypted(&self, stream: tokio::io::DuplexStream) {
        let (_stop, stop) = watch::channel(false);
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
            return;
        };
        let mut connection = Connection {
            tls: TlsAcceptor::from(Arc::clone(&self.tls)),
            context: Arc::clone(&self.context),
            limits: self.limits,
            stop,
            phase: Phase::new(),
            _place: place,
        };
        if let Err(reason) = connection.converse(stream).await {
            debug!(reason = reason.as_str(); "A connection ended early");
        }
    }

    /// A place for one more connection. When all are taken, one after the other is asked to leave; meanwhile the
    /// operating system holds whoever else comes.
    async fn place(&self, crowd: &mut Crowd) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        let deadline = Instant::now() + self.limits.head;
        let mut place = pin!(Arc::clone(&self.places).acquire_owned());
        loop {
            let now = Instant::now();
            let look_again = match crowd.make_room(now) {
                Room::Soon => {
                    self.handle.metrics.displaced();
                    now + LEAVE_WITHIN
                }
                Room::NotBefore(due) => due.min(now + LOOK_AGAIN),
                Room::None => now + LOOK_AGAIN,
            };
            match timeout_at(look_again.min(deadline), place.as_mut()).await {
                Ok(place) => return place.ok(),
                Err(_) if Instant::now() >= deadline => return None,
                Err(_) => {}
            }
        }
    }
}

struct Connection {
    tls: TlsAcceptor,
    context: Arc<Context>,
    limits: Limits,
    stop: watch::Receiver<bool>,
    phase: Arc<Phase>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(mut self, socket: TcpStream) {
        let metrics = Arc::clone(&self.context.metrics);
        metrics.connection_opened();
        let phase = Arc::clone(&self.phase);
        let ended = tokio::select! {
            ended = self.talk(socket) => ended,
            () = out_of_the_way(&phase) => Err("made room for another".to_owned()),
        };
        if let Err(reason) = ended {
            debug!(reason = reason.as_str(); "A connection ended early");
        }
        metrics.connection_closed();
    }

    async fn talk(&mut self, socket: TcpStream) -> Result<(), String> {
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        let handshake = timeout(self.limits.head, self.tls.accept(socket));
        let stream = match handshake.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.context.metrics.broken_handshake();
                return Err(format!("TLS handshake: {error}"));
            }
            Err(_) => {
                self.context.metrics.broken_handshake();
                return Err("TLS handshake: took too long".to_owned());
            }
        };
        self.converse(stream).await
    }

    /// HTTP, from the first byte to the close.
    async fn converse(&mut self, stream: impl Wire) -> Result<(), String> {
        let phase = Arc::clone(&self.phase);
        let guard = Guard::new(stream, Arc::clone(&phase), self.limits);
        let service =
            service_fn(|request| service::handle(Arc::clone(&self.context), Arc::clone(&phase), request));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(BUFFER)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(guard), service);
        let mut connection = pin!(connection);
        tokio::select! {
            done = connection.as_mut() => return done.map_err(|error| error.to_string()),
            _ = self.stop.wait_for(|stop| *stop) => {}
            () = phase.asked_to_finish() => {}
        }
        // Closes at once between two requests, else after the answer.
        connection.as_mut().graceful_shutdown();
        connection.await.map_err(|error| error.to_string())
    }
}

/// Resolves when the connection has to end for another's sake: at once, or between two requests after a moment in
/// which it can end in good order.
async fn out_of_the_way(phase: &Phase) {
    phase.asked_to_leave().await;
    if phase.finish() {
        tokio::time::sleep(LEAVE_WITHIN).await;
    }
}

/// The names of a self-signed certificate: this machine, the address it listens on and the public name.
fn names(config: &Config) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let bind = config.listener.bind.ip();
    if !bind.is_unspecified() {
        names.push(bind.to_string());
    }
    let public: Option<hyper::Uri> = config
        .pipedrive
        .public_url
        .as_deref()
        .and_then(|url| url.parse().ok());
    if let Some(host) = public.as_ref().and_then(hyper::Uri::host) {
        names.push(host.trim_matches(['[', ']']).to_owned());
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}
