//! postMessage: an agent's answer, as a multipart form with files.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context as TaskContext, Poll, ready};

use http_body_util::BodyDataStream;
use hyper::Request;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use log::{debug, info};
use multer::{Constraints, Field, Multipart, SizeLimit};

use super::api::store_failure;
use super::service::{Context, Served};
use crate::domain::{ConversationId, ParticipantId, Role, Timestamp};
use crate::protocol::file::{self, clean_name};
use crate::protocol::pipedrive::manifest::{
    Code, Failure, MAX_FIELD, MAX_FIELDS, MAX_FILES, Post, PostForm, body, is_file_field,
};
use crate::store::{NewOutgoing, StagedAttachment};

/// RFC 2046 allows 70 characters; some clients go beyond.
const MAX_BOUNDARY: usize = 200;
/// Most bytes of a form that lead to nothing, such as the head of one part.
const MAX_UNUSED: usize = 256 * 1024;
/// Longest MIME type that is kept.
const MAX_MIME: usize = 127;

/// Stores an agent's answer. The body of the answer is made only once the message is synced.
pub(super) async fn answer(
    context: &Context,
    channel: &Arc<Served>,
    request: Request<Incoming>,
    now: Timestamp,
) -> Result<Vec<u8>, Failure> {
    let boundary = boundary(request.headers())?;
    let too_large = || {
        Failure::new(
            Code::PayloadTooLarge,
            format!("at most {} bytes", context.max_upload),
        )
    };
    let length = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > context.max_upload) {
        return Err(too_large());
    }
    let form = read_form(context, request.into_body(), &boundary);
    let (form, files) = tokio::time::timeout(context.body_timeout, form)
        .await
        .map_err(|_| Failure::new(Code::RequestTimeout, "the body took too long"))??;
    let post = form.finish()?;
    let conversation = check(context, channel, &post).await?;
    post.check_content(files.len())?;

    let outgoing = NewOutgoing {
        channel: channel.id.clone(),
        conversation,
        text: post.message,
        attachments: files,
        now,
        announce: false,
    };
    let id = context
        .store
        .insert_outgoing(outgoing)
        .await
        .map_err(store_failure)?;
    info!(message_id = id.to_string().as_str(), channel = channel.id.as_str(); "Stored outgoing message");
    Ok(body::posted(id))
}

fn malformed(what: &'static str) -> Failure {
    Failure::new(Code::InvalidBody, what)
}

fn boundary(headers: &HeaderMap) -> Result<String, Failure> {
    let wrong = || Failure::new(Code::UnsupportedMediaType, "send multipart/form-data");
    let content_type = headers
        .get(CONTENT_TYPE)
        .ok_or_else(wrong)?
        .to_str()
        .map_err(|_| wrong())?;
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("multipart/form-data") {
        return Err(wrong());
    }
    let boundary = multer::parse_boundary(content_type)
        .map_err(|_| malformed("the content type has no readable boundary"))?;
    if boundary.is_empty() || boundary.len() > MAX_BOUNDARY {
        return Err(malformed("the boundary is empty or too long"));
    }
    Ok(boundary)
}

async fn read_form(
    context: &Context,
    body: Incoming,
    boundary: &str,
) -> Result<(PostForm, Vec<StagedAttachment>), Failure> {
    let limits = Constraints::new().size_limit(SizeLimit::new().whole_stream(context.max_upload));
    let unused = Arc::new(AtomicUsize::new(0));
    let stream = BodyDataStream::new(Paced {
        body,
        rest: false,
        unused: Arc::clone(&unused),
    });
    let mut multipart = Multipart::with_constraints(stream, boundary, limits);
    let mut form = PostForm::default();
    let mut files = Vec::new();
    let mut fields = 0_usize;
    while let Some(mut field) = multipart
        .next_field()
        .await
        .map_err(|error| multipart_failure(&error))?
    {
        unused.store(0, Relaxed);
        fields += 1;
        if fields > MAX_FIELDS {
            return Err(Failure::new(
                Code::PayloadTooLarge,
                format!("at most {MAX_FIELDS} fields"),
            ));
        }
        let name = field
            .name()
            .ok_or_else(|| malformed("a part of the form has no name"))?
            .to_owned();
        if is_file_field(&name, field.file_name()) {
            if files.len() >= MAX_FILES {
                return Err(Failure::new(
                    Code::PayloadTooLarge,
                    format!("at most {MAX_FILES} files"),
                ));
            }
            files.extend(stage(context, &mut field, &unused).await?);
        } else {
            form.field(&name, text(&mut field, &unused).await?)?;
        }
    }
    Ok((form, files))
}

async fn text(field: &mut Field<'_>, unused: &AtomicUsize) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    while let Some(chunk) = next(field, unused).await? {
        if bytes.len() + chunk.len() > MAX_FIELD {
            return Err(Failure::new(
                Code::PayloadTooLarge,
                format!("at most {MAX_FIELD} bytes of text"),
            ));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| malformed("a text is not UTF-8"))
}

/// Writes a file to disk as it comes. Nothing of it stays unless the message is stored. An empty file input of a
/// browser form (no name, no content) is no file.
async fn stage(
    context: &Context,
    field: &mut Field<'_>,
    unused: &AtomicUsize,
) -> Result<Option<StagedAttachment>, Failure> {
    let given = field.file_name().unwrap_or_default();
    let no_name = given.is_empty();
    let name = clean_name(given);
    let mime = field
        .content_type()
        .map(ToString::to_string)
        .filter(|mime| mime.len() <= MAX_MIME);
    let mime = mime.unwrap_or_else(|| file::UNKNOWN.to_owned());
    let mut chunk = next(field, unused).await?;
    if chunk.is_none() && no_name {
        return Ok(None);
    }
    let mut writer = context
        .store
        .stage_attachment(&name, &mime)
        .await
        .map_err(store_failure)?;
    while let Some(bytes) = chunk {
        writer.write_all(&bytes).await.map_err(store_failure)?;
        chunk = next(field, unused).await?;
    }
    writer.finish().await.map(Some).map_err(store_failure)
}

async fn next(field: &mut Field<'_>, unused: &AtomicUsize) -> Result<Option<Bytes>, Failure> {
    loop {
        let chunk = field.chunk().await.map_err(|error| multipart_failure(&error))?;
        unused.store(0, Relaxed);
        match chunk {
            Some(chunk) if chunk.is_empty() => {}
            other => return Ok(other),
        }
    }
}

/// The one place that knows multer's errors.
fn multipart_failure(error: &multer::Error) -> Failure {
    match error {
        multer::Error::StreamSizeExceeded { limit } | multer::Error::FieldSizeExceeded { limit, .. } => {
            Failure::new(Code::PayloadTooLarge, format!("at most {limit} bytes"))
        }
        multer::Error::StreamReadFailed(_) => malformed("the body broke off"),
        _ => malformed("the form is not readable as multipart/form-data"),
    }
}

/// Checks that the conversation is this channel's and that every recipient takes part in it. Where the answer
/// goes is decided by the conversation alone.
async fn check(context: &Context, channel: &Arc<Served>, post: &Post) -> Result<ConversationId, Failure> {
    let unknown = || Failure::new(Code::NotFound, "no such conversation");
    let id: ConversationId = post.conversation.parse().map_err(|_| unknown())?;
    let view = context
        .store
        .read(move |reader| reader.conversation(id, 1, None))
        .await
        .map_err(store_failure)?;
    let view = view
        .filter(|view| view.channel == channel.id)
        .ok_or_else(unknown)?;
    let customers: Vec<_> = view
        .participants
        .iter()
        .filter(|one| one.role == Role::EndUser)
        .collect();
    let takes_part = |recipient: &String| {
        let recipient: Option<ParticipantId> = recipient.parse().ok();
        recipient.is_some_and(|recipient| {
            customers.iter().any(|one| one.id == recipient)
                || (customers.is_empty() && recipient == body::first_customer(id))
        })
    };
    if !post.recipients.iter().all(takes_part) {
        return Err(malformed(
            "recipientIds names somebody who does not take part in the conversation",
        ));
    }
    if post
        .sender
        .as_deref()
        .is_some_and(|sender| sender != channel.provider_id.as_str())
    {
        debug!(channel = channel.id.as_str(); "postMessage from a senderId that this gateway did not give out");
    }
    Ok(id)
}

/// Hands the parser one piece at a time, and no more than [`MAX_UNUSED`] that it makes nothing of. It takes in
/// whatever is ready before it looks at anything, which from a fast client would be the whole upload, and it looks
/// for the end of a part's head from the start each time.
struct Paced {
    body: Incoming,
    rest: bool,
    /// Bytes handed over since the parser last came up with something.
    unused: Arc<AtomicUsize>,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if this.rest {
            this.rest = false;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        this.rest = frame.is_some();
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(io::Error::other)?;
            let length = frame.data_ref().map_or(0, Bytes::len);
            if this.unused.fetch_add(length, Relaxed).saturating_add(length) > MAX_UNUSED {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
