//! A server for tests that does exactly what the test says, on real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Name of the threads that serve connections.
pub(crate) const SERVER_THREAD: &str = "scripted";

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    /// `POST /path HTTP/1.1`
    pub(crate) line: String,
    /// Header lines, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// Body.
    pub(crate) body: Vec<u8>,
}

impl Arrived {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What the server does with a request.
pub(crate) enum Act {
    /// Writes these bytes and keeps the connection.
    Write(Vec<u8>),
    /// Writes these bytes and closes.
    WriteAndClose(Vec<u8>),
    /// Resets the connection.
    Reset,
    /// Says nothing until the other side gives up.
    Silence,
}

/// A whole answer.
pub(crate) fn answer(status: u16, kind: &str, extra: &str, body: &str) -> Act {
    let text = format!(
        "HTTP/1.1 {status} Status\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{extra}\r\n{body}",
        body.len()
    );
    Act::Write(text.into_bytes())
}

/// An answer in JSON.
pub(crate) fn json(status: u16, body: &str) -> Act {
    answer(status, "application/json", "", body)
}

type Script = dyn Fn(usize, &Arrived) -> Act + Send + Sync;

/// A running server; it stops when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) scheme: &'static str,
    pub(crate) requests: Arc<Mutex<Vec<Arrived>>>,
    pub(crate) connections: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl Server {
    /// Serves plain HTTP; `script` gets the number of the request, from 0.
    pub(crate) fn plain(script: impl Fn(usize, &Arrived) -> Act + Send + Sync + 'static) -> Self {
        Self::start(None, Arc::new(script))
    }

    /// Serves HTTPS.
    pub(crate) fn tls(
        config: Arc<ServerConfig>,
        script: impl Fn(usize, &Arrived) -> Act + Send + Sync + 'static,
    ) -> Self {
        Self::start(Some(config), Arc::new(script))
    }

    fn start(tls: Option<Arc<ServerConfig>>, script: Arc<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            scheme: if tls.is_some() { "https" } else { "http" },
            requests: Arc::default(),
            connections: Arc::default(),
            stopped: Arc::default(),
        };
        let (requests, connections) = (Arc::clone(&server.requests), Arc::clone(&server.connections));
        let stopped = Arc::clone(&server.stopped);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                connections.fetch_add(1, Ordering::SeqCst);
                stream.set_nodelay(true).unwrap();
                let (requests, script, tls) = (Arc::clone(&requests), Arc::clone(&script), tls.clone());
                let thread = std::thread::Builder::new().name(SERVER_THREAD.to_owned());
                let thread = thread.spawn(move || {
                    let raw = stream.try_clone().unwrap();
                    match tls {
                        None => serve(stream, &raw, &requests, &*script),
                        Some(config) => {
                            let connection = ServerConnection::new(config).unwrap();
                            serve(StreamOwned::new(connection, stream), &raw, &requests, &*script);
                        }
                    }
                });
                thread.unwrap();
            }
        });
        server
    }

    /// `http(s)://localhost:port`
    pub(crate) fn url(&self) -> String {
        format!("{}://localhost:{}", self.scheme, self.address.port())
    }

    pub(crate) fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

fn serve(stream: impl Read + Write, raw: &TcpStream, requests: &Mutex<Vec<Arrived>>, script: &Script) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream) {
        let number = {
            let mut requests = requests.lock().unwrap();
            requests.push(request.clone());
            requests.len() - 1
        };
        let (bytes, go_on) = match script(number, &request) {
            Act::Write(bytes) => (bytes, true),
            Act::WriteAndClose(bytes) => (bytes, false),
            Act::Reset => {
                rustix::net::sockopt::set_socket_linger(raw, Some(std::time::Duration::ZERO)).unwrap();
                return;
            }
            Act::Silence => {
                stream.read_to_end(&mut Vec::new()).ok();
                return;
            }
        };
        if stream.get_mut().write_all(&bytes).is_err() || stream.get_mut().flush().is_err() || !go_on {
            return;
        }
    }
}

fn read_request(stream: &mut impl BufRead) -> Option<Arrived> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    Some(Arrived {
        line: lines[0].clone(),
        headers,
        body,
    })
}

/// A certificate authority for tests.
pub(crate) struct Authority {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer =
            rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// The authority's certificate as a file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A server's TLS settings with a certificate for `name`, valid between two years.
    pub(crate) fn server(&self, name: &str, years: (i32, i32)) -> Arc<ServerConfig> {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}
