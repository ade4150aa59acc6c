//! The HTTP client for the gateway's side: blocking calls on tokio's threads for blocking work.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Calls to the gateway at a time.
const IN_FLIGHT: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(15);
/// Largest answer that is read.
const ANSWER_LIMIT: u64 = 64 * 1024 * 1024;

/// Where the gateway's manifest endpoints are.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Public base URL, e.g. `https://127.0.0.1:8443`.
    pub url: String,
    /// Which certificates are trusted there.
    pub trust: Trust,
}

/// Which certificates of the gateway are trusted.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The certificate authorities that browsers know.
    PublicRoots,
    /// A PEM file, read at the first call and again after a failed handshake: the gateway may make it later.
    CaFile(PathBuf),
    /// PEM text.
    CaPem(String),
}

/// An answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) content_length: Option<u64>,
    pub(super) body: Vec<u8>,
}

/// One request to be sent.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) url: String,
    pub(super) authorization: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) body: Vec<u8>,
}

/// Sends requests; the agent keeps connections.
pub(super) struct Client {
    trust: Mutex<Trust>,
    agent: Mutex<Option<ureq::Agent>>,
    permits: Semaphore,
}

impl Client {
    pub(super) fn new(trust: Trust) -> Self {
        Self {
            trust: Mutex::new(trust),
            agent: Mutex::new(None),
            permits: Semaphore::new(IN_FLIGHT),
        }
    }

    /// Trusts other certificates from now on.
    pub(super) fn set_trust(&self, trust: Trust) {
        *self.trust.lock().unwrap_or_else(PoisonError::into_inner) = trust;
        *self.agent.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Sends one request; the error says why there was no answer.
    pub(super) async fn send(&self, request: Request) -> Result<Answer, String> {
        let _permit = self.permits.acquire().await.map_err(|e| e.to_string())?;
        let agent = self.agent()?;
        let sent = tokio::task::spawn_blocking(move || send(&agent, request))
            .await
            .map_err(|e| e.to_string())?;
        if sent.is_err() {
            *self.agent.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        sent
    }

    fn agent(&self) -> Result<ureq::Agent, String> {
        let mut agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agent.as_ref() {
            return Ok(agent.clone());
        }
        let trust = self.trust.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let roots = match trust {
            Trust::PublicRoots => RootCerts::WebPki,
            Trust::CaFile(path) => {
                let pem = std::fs::read_to_string(&path)
                    .map_err(|e| format!("cannot read the gateway's certificate {}: {e}", path.display()))?;
                roots(&pem)?
            }
            Trust::CaPem(pem) => roots(&pem)?,
        };
        let tls = TlsConfig::builder()
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let made = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_global(Some(TIMEOUT))
            .timeout_connect(Some(Duration::from_secs(5)))
            .max_idle_connections(IN_FLIGHT)
            .max_idle_connections_per_host(IN_FLIGHT)
            .user_agent("Pipedrive sandbox")
            .tls_config(tls)
            .build()
            .new_agent();
        *agent = Some(made.clone());
        Ok(made)
    }
}

fn roots(pem: &str) -> Result<RootCerts, String> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut certificates = Vec::new();
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let der = der.map_err(|e| format!("the gateway's certificate is not PEM: {e}"))?;
        certificates.push(Certificate::from_der(&der).to_owned());
    }
    if certificates.is_empty() {
        return Err("the gateway's certificate file holds no certificate".to_owned());
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

fn send(agent: &ureq::Agent, request: Request) -> Result<Answer, String> {
    let mut builder = ureq::http::Request::builder()
        .method(request.method)
        .uri(&request.url);
    for (name, value) in [
        ("authorization", request.authorization),
        ("content-type", request.content_type),
    ] {
        if let Some(value) = value {
            builder = builder.header(name, value);
        }
    }
    let response = if request.body.is_empty() && request.method != "POST" {
        agent.run(builder.body(()).map_err(|e| e.to_string())?)
    } else {
        agent.run(builder.body(request.body).map_err(|e| e.to_string())?)
    };
    let mut response = response.map_err(|e| e.to_string())?;
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned)
    };
    let content_type = header("content-type").unwrap_or_default();
    let content_length = header("content-length").and_then(|v| v.parse().ok());
    let status = response.status().as_u16();
    let body = response
        .body_mut()
        .with_config()
        .limit(ANSWER_LIMIT)
        .read_to_vec()
        .map_err(|e| format!("the answer's body is broken: {e}"))?;
    Ok(Answer {
        status,
        content_type,
        content_length,
        body,
    })
}
