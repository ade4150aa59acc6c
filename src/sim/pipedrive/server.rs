//! The listeners: TLS for the Channels API, plain HTTP for the page; both serve everything.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Bytes, Frame};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, DATE, HeaderName, HeaderValue, ORIGIN};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::api::{self, Incoming};
use super::core::Core;
use super::{clock, driver, oauth, page};

/// Largest body that is read: files that an agent adds to an answer come this way.
const BODY_LIMIT: usize = 48 * 1024 * 1024;
/// How long open connections may still work after a stop.
const DRAIN: Duration = Duration::from_secs(2);

/// The body of an answer: all of it, or a stream of events.
pub(super) enum ReplyBody {
    Full(Option<Bytes>),
    Events(mpsc::Receiver<Bytes>),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Events(events) => events
                .poll_recv(context)
                .map(|event| event.map(|e| Ok(Frame::data(e)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Full(bytes) => {
                let length = bytes.as_ref().map_or(0, Bytes::len);
                hyper::body::SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
            }
            Self::Events(_) => hyper::body::SizeHint::default(),
        }
    }
}

/// Makes an answer from a status, a content type and a body.
pub(super) fn reply(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Response<ReplyBody> {
    let body: Bytes = body.into();
    let mut response = Response::new(ReplyBody::Full((!body.is_empty()).then_some(body)));
    *response.status_mut() = status;
    if let Ok(value) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The service gives up a connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox drops this connection on purpose")]
struct Dropped;

/// Accepts connections until `stop` turns true, then lets the open ones finish for a short while.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    core: Arc<Core>,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Without this, small answers wait for the peer's delayed acknowledgement.
                    if let Err(e) = stream.set_nodelay(true) {
                        log::debug!("TCP_NODELAY: {e}");
                    }
                    let (core, tls, stop) = (Arc::clone(&core), tls.clone(), stop.clone());
                    connections.spawn(async move {
                        match tls {
                            Some(tls) => match tls.accept(stream).await {
                                Ok(stream) => connection(stream, core, stop).await,
                                Err(e) => handshake_failed(peer, &e),
                            },
                            None => connection(stream, core, stop).await,
                        }
                    });
                }
                Err(e) => {
                    log::warn!("The sandbox cannot accept a connection: {e}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = stopped(&mut stop) => break,
        }
    }
    drop(listener);
    let drained =
        tokio::time::timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        log::debug!("{} connections to the sandbox were cut off", connections.len());
    }
}

/// Returns when the sandbox is to stop (or its handle is gone).
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        log::debug!("The sandbox's handle is gone");
    }
}

fn handshake_failed(peer: SocketAddr, error: &std::io::Error) {
    log::info!("TLS handshake with {peer} failed: {error}");
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    core: Arc<Core>,
    mut stop: watch::Receiver<bool>,
) {
    let events_stop = stop.clone();
    let service = service_fn(move |request| {
        let (core, stop) = (Arc::clone(&core), events_stop.clone());
        async move { handle(core, request, stop).await }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(60))
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        log::debug!("A connection to the sandbox ended: {e}");
    }
}

/// The time by the server's clock, which need not be the real one.
fn date(core: &Core, response: &mut Response<ReplyBody>) {
    if let Some(value) = clock::http_date(core.server_ms()).and_then(|text| HeaderValue::from_str(&text).ok())
    {
        response.headers_mut().insert(DATE, value);
    }
}

async fn handle(
    core: Arc<Core>,
    request: Request<hyper::body::Incoming>,
    stop: watch::Receiver<bool>,
) -> Result<Response<ReplyBody>, Dropped> {
    let (head, body) = request.into_parts();
    let header = |name: HeaderName| {
        head.headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned)
    };
    let foreign = header(ORIGIN).is_some_and(|origin| {
        let host = header(hyper::header::HOST).unwrap_or_default();
        origin.split_once("://").is_none_or(|(_, from)| from != host)
    });
    let path = head.uri.path().to_owned();
    if foreign {
        // Another site's script in the browser of whoever watches the page.
        return Ok(reply(
            StatusCode::FORBIDDEN,
            "text/plain",
            "requests from other sites are refused\n",
        ));
    }
    let Ok(body) = Limited::new(body, BODY_LIMIT).collect().await else {
        return Ok(reply(
            StatusCode::PAYLOAD_TOO_LARGE,
            "text/plain",
            "the body is too large or broken\n",
        ));
    };
    let request = Incoming {
        method: head.method,
        query: head.uri.query().unwrap_or_default().to_owned(),
        authorization: head
            .headers
            .get(hyper::header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned),
        content_type: head
            .headers
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned),
        body: body.to_bytes(),
        path,
    };
    for prefix in ["/api/v1/", "/v1/"] {
        if let Some(path) = request.path.strip_prefix(prefix) {
            let Some(answer) = api::answer(&core, &request, path).await else {
                return Err(Dropped);
            };
            let mut response = reply(answer.status, answer.content_type, answer.body);
            date(&core, &mut response);
            for (name, value) in answer.headers {
                if let Ok(value) = HeaderValue::from_str(&value) {
                    response
                        .headers_mut()
                        .insert(HeaderName::from_static(name), value);
                }
            }
            return Ok(response);
        }
    }
    if let Some(path) = request.path.strip_prefix("/oauth/")
        && core.oauth(|_| ()).is_some()
    {
        let mut response = oauth::answer(&core, &request, path).await.ok_or(Dropped)?;
        date(&core, &mut response);
        return Ok(response);
    }
    if let Some(path) = request.path.strip_prefix("/sandbox/") {
        return Ok(driver::answer(&core, &request, path, stop).await);
    }
    Ok(page::answer(&request))
}
