//! The commands' side of the control socket.

use std::path::Path;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{Failure, MAX_BODY};

/// Why the daemon did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens on the socket.
    #[error("no pipepost daemon runs here (nothing listens on {0})")]
    NotRunning(String),
    /// The socket exists and may not be used by this user.
    #[error("the daemon's control socket {0} may not be opened by this user")]
    NotAllowed(String),
    /// The daemon understood the request and refused it.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// The conversation with the daemon broke off.
    #[error("the daemon's answer could not be read: {0}")]
    Broken(String),
}

/// Asks the running daemon. `body` is JSON; the answer is parsed as `T`.
pub async fn call<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<T, ClientError> {
    let bytes = call_raw(socket, method, path, body).await?;
    serde_json::from_slice(&bytes).map_err(|error| ClientError::Broken(error.to_string()))
}

/// As [`call`], for answers that are not JSON (`/metrics`).
pub async fn call_raw(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<Bytes, ClientError> {
    let name = socket.display().to_string();
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => ClientError::NotAllowed(name.clone()),
            _ => ClientError::NotRunning(name.clone()),
        })?;
    let broken = |error: &dyn std::fmt::Display| ClientError::Broken(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| broken(&e))?;
    let driving = tokio::spawn(connection);
    let body = body.map(ToString::to_string).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "pipepost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| broken(&e))?;
    let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
    let status = response.status();
    let bytes = Limited::new(response.into_body(), MAX_BODY)
        .collect()
        .await
        .map_err(|e| broken(&e))?
        .to_bytes();
    driving.abort();
    if status.is_success() {
        return Ok(bytes);
    }
    let failure = serde_json::from_slice(&bytes).map_err(|error| ClientError::Broken(error.to_string()))?;
    Err(ClientError::Refused(failure))
}
