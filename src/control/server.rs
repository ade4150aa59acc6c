//! The daemon's side of the control socket: JSON over HTTP/1.1 on a Unix socket, for its own user and root.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use log::{debug, info};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{Failure, Gateway, MAX_BODY, SendRequest};

/// More commands than this at a time wait.
const MAX_CONNECTIONS: usize = 8;
/// A command sends its request at once; a longer pause is a hung client.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// The bound socket. The file is removed when it is dropped.
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// Why the control socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon answers on it.
    #[error("another pipepost daemon already runs here: it answers on {0}")]
    InUse(String),
    /// The operating system refused.
    #[error("cannot open the control socket {0}: {1}")]
    Io(String, std::io::Error),
}

impl ControlSocket {
    /// Binds the socket, replacing one that a killed daemon left behind, and restricts it to its user (and root).
    pub async fn bind(path: &Path) -> Result<Self, BindError> {
        let name = path.display().to_string();
        if UnixStream::connect(path).await.is_ok() {
            return Err(BindError::InUse(name));
        }
        let io = |error| BindError::Io(name.clone(), error);
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(io)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(io)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Answers commands until `stop` resolves.
    pub async fn serve(self, gateway: Arc<Gateway>, stop: impl Future<Output = ()>, mut beat: impl FnMut()) {
        info!(socket = self.path.display().to_string().as_str(); "Control socket ready");
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut stop = std::pin::pin!(stop);
        let mut ticks = tokio::time::interval(Duration::from_secs(5));
        loop {
            let stream = tokio::select! {
                () = &mut stop => return,
                _ = ticks.tick() => { beat(); continue }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => { debug!("control accept: {error}"); continue }
                },
            };
            // No slot free: the command is turned away at once rather than left hanging.
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                continue;
            };
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move {
                let service = service_fn(move |request| respond(Arc::clone(&gateway), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(READ_LIMIT)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    debug!("control connection: {error}");
                }
                drop(slot);
            });
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            debug!("control socket: {error}");
        }
    }
}

async fn respond(
    gateway: Arc<Gateway>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = tokio::time::timeout(READ_LIMIT, Limited::new(body, MAX_BODY).collect()).await;
    let answer = match body {
        Ok(Ok(body)) => {
            route(
                &gateway,
                &parts.method,
                parts.uri.path(),
                parts.uri.query(),
                &body.to_bytes(),
            )
            .await
        }
        Ok(Err(_)) | Err(_) => Err(Failure::invalid(
            "the request's body is too long or did not arrive",
        )),
    };
    let (status, mime, bytes) = match answer {
        Ok(Answer::Json(value)) => (StatusCode::OK, "application/json", value.to_string()),
        Ok(Answer::Text(text)) => (StatusCode::OK, "text/plain; version=0.0.4", text),
        Err(failure) => {
            let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (
                status,
                "application/json",
                serde_json::to_string(&failure).unwrap_or_default(),
            )
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(bytes)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(mime));
    Ok(response)
}

enum Answer {
    Json(serde_json::Value),
    Text(String),
}

fn json<T: serde::Serialize>(value: &T) -> Result<Answer, Failure> {
    serde_json::to_value(value)
        .map(Answer::Json)
        .map_err(|error| Failure::internal(&error))
}

/// The value of one query parameter; the commands send no characters that need decoding.
fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?.split('&').find_map(|pair| {
        pair.split_once('=')
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value)
    })
}

fn limit(query: Option<&str>) -> usize {
    parameter(query, "limit")
        .and_then(|text| text.parse().ok())
        .unwrap_or(50)
        .clamp(1, 1000)
}

async fn route(
    gateway: &Gateway,
    method: &Method,
    path: &str,
    query: Option<&str>,
    body: &[u8],
) -> Result<Answer, Failure> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (method.as_str(), segments.as_slice()) {
        ("GET", ["status"]) => json(&gateway.status().await?),
        ("GET", ["metrics"]) => Ok(Answer::Text(gateway.metrics().await?)),
        ("GET", ["channels"]) => json(&gateway.channels().await?),
        ("POST", ["channels", id]) => json(&gateway.register_channel(id).await?),
        ("DELETE", ["channels", id]) => json(&gateway.delete_channel(id).await?),
        ("GET", ["conversations"]) => json(
            &gateway
                .conversations(parameter(query, "channel"), limit(query))
                .await?,
        ),
        ("GET", ["conversations", id]) => json(&gateway.conversation(id, limit(query)).await?),
        ("POST", ["conversations", id, mark]) => json(&gateway.mark_conversation(id, mark).await?),
        ("DELETE", ["conversations", id]) => json(&gateway.delete_conversation(id).await?),
        ("GET", ["contacts"]) => json(&gateway.contacts(parameter(query, "after"), limit(query)).await?),
        ("POST", ["contacts"]) => {
            let request =
                serde_json::from_slice(body).map_err(|error| Failure::invalid(&error.to_string()))?;
            json(&gateway.save_contacts(request).await?)
        }
        ("DELETE", ["contacts"]) => json(&gateway.remove_contacts().await?),
        ("DELETE", ["contacts", cursor]) => json(&gateway.remove_contact(cursor).await?),
        ("GET", ["queue"]) => json(&gateway.queue(limit(query)).await?),
        ("GET", ["unmapped"]) => json(&gateway.unmapped(limit(query)).await?),
        ("GET", ["modems"]) => json(&gateway.modems().await?),
        ("POST", ["modems", name, "ussd"]) => {
            let request =
                serde_json::from_slice(body).map_err(|error| Failure::invalid(&error.to_string()))?;
            json(&gateway.ussd(name, request).await?)
        }
        ("GET", ["connect"]) => {
            let seen = parameter(query, "after").and_then(|text| text.parse().ok());
            json(&gateway.connect_progress(seen.unwrap_or(0)).await?)
        }
        ("POST", ["connect"]) => {
            let request =
                serde_json::from_slice(body).map_err(|error| Failure::invalid(&error.to_string()))?;
            json(&gateway.open_connect(&request)?)
        }
        ("DELETE", ["connect", window]) => json(&gateway.close_connect(window.parse().unwrap_or(0))?),
        ("GET", ["installations"]) => json(&gateway.installations().await?),
        ("DELETE", ["installations"]) => {
            let local = parameter(query, "local").is_some();
            json(&gateway.disconnect(parameter(query, "id"), local).await?)
        }
        ("POST", ["send"]) => {
            let request: SendRequest =
                serde_json::from_slice(body).map_err(|error| Failure::invalid(&error.to_string()))?;
            json(&gateway.send(request).await?)
        }
        _ => Err(Failure::not_found(&format!(
            "the daemon has no command {method} {path}"
        ))),
    }
}

/// The JSON answer to a reading request without a socket: for commands when no daemon runs.
pub async fn answer(
    gateway: &Gateway,
    method: &Method,
    path_and_query: &str,
) -> Result<serde_json::Value, Failure> {
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    match route(gateway, method, path, query, &[]).await? {
        Answer::Json(value) => Ok(value),
        Answer::Text(text) => Ok(serde_json::Value::String(text)),
    }
}
