//! Answers as they leave.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Bytes, Frame, SizeHint};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use tokio::fs::File;
use tokio::io::{AsyncRead, ReadBuf};

use super::guard::Phase;
use crate::protocol::pipedrive::manifest::{Code, Failure};

/// How much of a file is in memory at a time, per request.
pub(super) const FILE_CHUNK: usize = 64 * 1024;

/// The body of an answer: bytes at hand, or a file that is read as it goes out.
pub(super) struct Body {
    content: Content,
    phase: Option<Arc<Phase>>,
}

enum Content {
    Bytes(Option<Bytes>),
    File { file: Box<File>, left: u64 },
}

impl Body {
    pub(super) fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self {
            content: Content::Bytes(Some(bytes.into())),
            phase: None,
        }
    }

    /// The next `left` bytes of a file.
    pub(super) fn file(file: File, left: u64) -> Self {
        Self {
            content: Content::File {
                file: Box::new(file),
                left,
            },
            phase: None,
        }
    }

    /// Tells the connection when the body has gone.
    pub(super) fn tell(&mut self, phase: Arc<Phase>) {
        self.phase = Some(phase);
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(phase) = &self.phase {
            phase.idle();
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.get_mut().content {
            Content::Bytes(bytes) => {
                let bytes = bytes.take().filter(|bytes| !bytes.is_empty());
                Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Content::File { left: 0, .. } => Poll::Ready(None),
            Content::File { file, left } => {
                let size = usize::try_from(*left).unwrap_or(usize::MAX).min(FILE_CHUNK);
                let mut chunk = vec![0; size];
                let mut buffer = ReadBuf::new(&mut chunk);
                if let Err(error) = ready!(Pin::new(file).poll_read(cx, &mut buffer)) {
                    return Poll::Ready(Some(Err(error)));
                }
                let read = buffer.filled().len();
                if read == 0 {
                    // Shorter than promised: breaking off is the only way left to say so.
                    return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
                }
                chunk.truncate(read);
                *left = left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
                Poll::Ready(Some(Ok(Frame::data(Bytes::from(chunk)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Bytes(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Content::File { left, .. } => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.content {
            Content::Bytes(bytes) => bytes
                .as_ref()
                .map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or_default()),
            Content::File { left, .. } => *left,
        })
    }
}

/// An answer in JSON that nobody may keep.
pub(super) fn json(status: u16, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::bytes(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    header(&mut response, CONTENT_TYPE, "application/json; charset=utf-8");
    header(&mut response, CACHE_CONTROL, "no-store");
    header(&mut response, X_CONTENT_TYPE_OPTIONS, "nosniff");
    response
}

/// A failure in Pipedrive's shape.
pub(super) fn failure(failure: &Failure) -> Response<Body> {
    let mut response = json(failure.code.status(), failure.to_json());
    if let Some(allow) = failure.allow {
        header(&mut response, ALLOW, allow);
    }
    match failure.code {
        Code::Unauthorized => {
            header(
                &mut response,
                WWW_AUTHENTICATE,
                "Basic realm=\"pipepost\", charset=\"UTF-8\"",
            );
        }
        // What is left of such a request cannot be told apart from the next one, or is not worth waiting for.
        Code::InvalidRequest
        | Code::PayloadTooLarge
        | Code::RequestTimeout
        | Code::UriTooLong
        | Code::RequestHeadersTooLarge => {
            header(&mut response, CONNECTION, "close");
        }
        _ => {}
    }
    response
}

/// Sets a header to a fixed value.
pub(super) fn header(response: &mut Response<Body>, name: HeaderName, value: &'static str) {
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static(value));
}
