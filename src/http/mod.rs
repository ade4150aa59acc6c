//! The one HTTP client: the only room besides `sim` that names ureq.
//!
//! Blocking on purpose: requests run on threads that end when they idle, the pump's own and tokio's blocking pool.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ureq::http::{self, HeaderMap, HeaderValue};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::unversioned::transport::{Connector, DefaultConnector};
use zeroize::Zeroizing;

use crate::domain::Secret;

mod failure;
mod resolve;
#[cfg(test)]
pub(crate) mod scripted;
mod socket;
#[cfg(test)]
mod tests;
mod whole;

pub use failure::{Failure, FailureKind};
pub use socket::{SocketError, send_over};

/// MIME type of a form.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// How requests identify the gateway.
pub const USER_AGENT: &str = concat!("pipepost/", env!("CARGO_PKG_VERSION"));

/// How long a kept connection may idle. A server that closes it earlier is noticed before the next request.
const MAX_IDLE: Duration = Duration::from_secs(30);
/// Buffers of one connection, in bytes, each way; the head of an answer may fill half of one.
const BUFFER: usize = 16 * 1024;

/// What a client needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// PEM certificates to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// For one request from the first look-up to the last byte of the answer.
    pub timeout: Duration,
    /// Connections kept open for the next request.
    pub keep: usize,
    /// Longest answer that is read, in bytes; the rest is cut off.
    pub max_body: usize,
    /// A proxy, e.g. `http://proxy.example:3128`. The environment is not consulted.
    pub proxy: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ca_file: None,
            timeout: Duration::from_secs(30),
            keep: 8,
            max_body: 256 * 1024,
            proxy: None,
        }
    }
}

/// Why a client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The file with trusted certificates cannot be read.
    #[error("cannot read the trusted certificates in {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds no usable certificate.
    #[error("{} holds no PEM certificate that can be trusted", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// The proxy's address is not one.
    #[error("the proxy's address cannot be used: it has to look like http://host:port")]
    Proxy,
}

/// What the gateway asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    Post,
    /// `DELETE`
    Delete,
}

/// One request.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Method.
    pub method: Method,
    /// Whole address.
    pub url: &'a str,
    /// Token for `Authorization: Bearer`.
    pub bearer: Option<&'a Secret>,
    /// Name and password for `Authorization: Basic`, when there is no token.
    pub basic: Option<(&'a str, &'a Secret)>,
    /// MIME type and bytes.
    pub body: Option<(&'static str, &'a [u8])>,
}

/// Without the bytes: a form can hold a token.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body.map(|(kind, bytes)| (kind, bytes.len()));
        write!(f, "{:?} {} {body:?}", self.method, self.url)
    }
}

impl Request<'_> {
    /// The value of `Authorization` (RFC 6750; RFC 7617 for Basic).
    fn credentials(&self) -> Option<Zeroizing<String>> {
        if let Some(token) = self.bearer {
            return Some(Zeroizing::new(format!("Bearer {}", token.expose())));
        }
        let (name, password) = self.basic?;
        let pair = Zeroizing::new(format!("{name}:{}", password.expose()));
        let encoded = Zeroizing::new(BASE64.encode(pair.as_bytes()));
        Some(Zeroizing::new(format!("Basic {}", encoded.as_str())))
    }
}

/// An answer of any status.
#[derive(Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// The body, or as much of it as came and was allowed.
    pub body: Vec<u8>,
    /// Whether `body` is whole.
    pub complete: bool,
    headers: HeaderMap,
}

impl Response {
    /// A header's value, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The client. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    max_body: usize,
}

impl Client {
    /// Builds a client: rustls with ring, no redirects, nothing from the environment.
    pub fn new(options: &Options) -> Result<Self, BuildError> {
        let roots = match &options.ca_file {
            None => RootCerts::WebPki,
            Some(path) => RootCerts::from(trusted(path)?),
        };
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let proxy = match &options.proxy {
            None => None,
            Some(url) => Some(ureq::Proxy::new(url).map_err(|_| BuildError::Proxy)?),
        };
        // The phases before the answer add up to less than the whole: a whole that runs out means that the request
        // was sent and the answer is missing.
        let part = options.timeout / 5;
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .proxy(proxy)
            .user_agent(USER_AGENT)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(options.timeout))
            .timeout_resolve(Some(part))
            .timeout_connect(Some(part))
            .timeout_send_request(Some(part))
            .timeout_send_body(Some(part))
            .max_idle_connections(options.keep)
            .max_idle_connections_per_host(options.keep)
            .max_idle_age(MAX_IDLE)
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .max_response_header_size(BUFFER / 2)
            .build();
        Ok(Self {
            agent: ureq::Agent::with_parts(
                config,
                DefaultConnector::default().chain(whole::Whole),
                resolve::Remembering::default(),
            ),
            max_body: options.max_body,
        })
    }

    /// Sends a request and reads the answer. Blocks.
    pub fn send(&self, request: &Request<'_>) -> Result<Response, Failure> {
        let method = match request.method {
            Method::Get => http::Method::GET,
            Method::Post => http::Method::POST,
            Method::Delete => http::Method::DELETE,
        };
        let mut head = http::Request::builder().method(method).uri(request.url);
        if let Some(credentials) = request.credentials() {
            let mut value = HeaderValue::try_from(credentials.as_str())
                .map_err(|_| Failure::new(FailureKind::BadToken, ""))?;
            value.set_sensitive(true);
            head = head.header(AUTHORIZATION, value);
        }
        let answer = match request.body {
            Some((kind, bytes)) => {
                let whole = head
                    .header(CONTENT_TYPE, HeaderValue::from_static(kind))
                    .body(bytes);
                self.agent.run(whole.map_err(|_| Failure::bad_address())?)
            }
            None => self.agent.run(head.body(()).map_err(|_| Failure::bad_address())?),
        };
        let (head, mut body) = answer.map_err(|error| Failure::classify(&error))?.into_parts();
        let limit = u64::try_from(self.max_body).unwrap_or(u64::MAX);
        let mut bytes = Vec::new();
        // A body that breaks off is still an answer: its status and what came of it count.
        let read = body
            .as_reader()
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes);
        let complete = read.is_ok() && bytes.len() <= self.max_body;
        bytes.truncate(self.max_body);
        Ok(Response {
            status: head.status.as_u16(),
            body: bytes,
            complete,
            headers: head.headers,
        })
    }
}

fn trusted(path: &PathBuf) -> Result<Vec<Certificate<'static>>, BuildError> {
    let pem = std::fs::read(path).map_err(|source| BuildError::Read {
        path: path.clone(),
        source,
    })?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    let mut roots = rustls::RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(
        certificates
            .iter()
            .map(|certificate| rustls::pki_types::CertificateDer::from(certificate.der())),
    );
    if usable == 0 {
        return Err(BuildError::NoCertificate { path: path.clone() });
    }
    Ok(certificates)
}
