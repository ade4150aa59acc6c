//! The commands' side of the control socket.

use std::os::unix::net::UnixStream;
use std::path::Path;

use hyper::Method;
use serde::de::DeserializeOwned;

use crate::http::{SocketError, send_over};

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
    /// The daemon ended while it was asked.
    #[error("the daemon ended before it had answered")]
    Ended,
    /// What the daemon says cannot be understood.
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
    read(&call_raw(socket, method, path, body).await?)
}

/// Reads what [`call_raw`] returned.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes).map_err(|error| ClientError::Broken(error.to_string()))
}

/// As [`call`], for answers that are not JSON (`/metrics`).
pub async fn call_raw(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<Vec<u8>, ClientError> {
    let name = socket.display().to_string();
    let stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => ClientError::NotAllowed(name),
        _ => ClientError::NotRunning(name),
    })?;
    let path = path.to_owned();
    let body = body.map(ToString::to_string);
    let asked = move || {
        send_over(
            stream,
            method,
            &path,
            body.as_ref().map(String::as_bytes),
            MAX_BODY,
        )
    };
    let (status, bytes) = tokio::task::spawn_blocking(asked)
        .await
        .map_err(|error| ClientError::Broken(error.to_string()))?
        .map_err(|error| match error {
            SocketError::BrokenOff => ClientError::Ended,
            other => ClientError::Broken(other.to_string()),
        })?;
    if (200..300).contains(&status) {
        return Ok(bytes);
    }
    let failure = serde_json::from_slice(&bytes).map_err(|error| ClientError::Broken(error.to_string()))?;
    Err(ClientError::Refused(failure))
}
