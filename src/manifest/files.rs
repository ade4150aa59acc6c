//! Links to files: `GET` and `HEAD`, whole or a range, from disk as it goes out.

use std::fmt::Write as _;
use std::io::SeekFrom;

use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use tokio::fs::File;
use tokio::io::AsyncSeekExt;

use super::api::store_failure;
use super::clock;
use super::reply::{self, Body, FILE_CHUNK};
use super::service::Context;
use crate::protocol::pipedrive::manifest::{Code, Failure};
use crate::protocol::{file, media};

/// Types that a browser may show in place. Everything else is offered for download, so that no file can act as a
/// page of this address.
const SHOWN: [&str; 9] = [
    "image/jpeg",
    "image/png",
    "image/gif",
    "image/webp",
    "application/pdf",
    "text/plain",
    "audio/mpeg",
    "audio/ogg",
    "video/mp4",
];

/// Answers a request for a file.
pub(super) async fn serve(
    context: &Context,
    link: &str,
    headers: &HeaderMap,
) -> Result<Response<Body>, Failure> {
    let gone = |why: &'static str| Failure::new(Code::NotFound, why);
    let id = media::verify(&context.media_secret, link, clock::now()).map_err(|error| match error {
        media::LinkError::Malformed => gone("no such file"),
        media::LinkError::Expired => gone("the link has expired"),
    })?;
    let found = context
        .store
        .read(move |reader| reader.attachment(id))
        .await
        .map_err(store_failure)?;
    let (attachment, path) = found.ok_or_else(|| gone("no such file"))?;
    let mut opened = File::open(&path).await.map_err(|_| gone("the file is gone"))?;
    opened.set_max_buf_size(FILE_CHUNK);
    let size = opened
        .metadata()
        .await
        .map_err(|_| gone("the file is gone"))?
        .len();

    // A file never changes under its id.
    let etag = format!("\"{id}\"");
    let same = headers
        .get(IF_RANGE)
        .is_none_or(|tag| tag.as_bytes() == etag.as_bytes());
    let wanted = headers
        .get(RANGE)
        .filter(|_| same)
        .and_then(|range| range.to_str().ok());
    let (start, length, partial) = match wanted.map_or(Wanted::Everything, |range| wanted_part(range, size)) {
        Wanted::Everything => (0, size, false),
        Wanted::Part { start, length } => (start, length, true),
        Wanted::Nothing => {
            let mut response =
                reply::failure(&Failure::new(Code::RangeNotSatisfiable, "the file is shorter"));
            set(&mut response, CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(response);
        }
    };
    if start > 0 {
        opened
            .seek(SeekFrom::Start(start))
            .await
            .map_err(|_| gone("the file is gone"))?;
    }

    let mut response = Response::new(Body::file(opened, length));
    if partial {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        set(
            &mut response,
            CONTENT_RANGE,
            &format!("bytes {start}-{}/{size}", start + length - 1),
        );
    }
    let mime = attachment.mime.trim();
    reply::header(&mut response, CONTENT_TYPE, file::UNKNOWN);
    if !file::is_active(mime) {
        set(&mut response, CONTENT_TYPE, mime);
    }
    set(
        &mut response,
        CONTENT_DISPOSITION,
        &disposition(&attachment.name, mime),
    );
    set(&mut response, ETAG, &etag);
    reply::header(&mut response, ACCEPT_RANGES, "bytes");
    reply::header(&mut response, CACHE_CONTROL, "private, max-age=3600");
    reply::header(&mut response, X_CONTENT_TYPE_OPTIONS, "nosniff");
    reply::header(
        &mut response,
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; sandbox",
    );
    Ok(response)
}

/// Sets a header, unless the value cannot be one.
fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value)
        && !value.is_empty()
    {
        response.headers_mut().insert(name, value);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Everything,
    Part { start: u64, length: u64 },
    Nothing,
}

/// Reads a `Range` header (RFC 9110, section 14). Several ranges, or what is no range, mean the whole file.
fn wanted_part(range: &str, size: u64) -> Wanted {
    let Some((first, last)) = range
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Wanted::Everything;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        // Only what overflows fails here, and that lies behind the end of any file.
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let (first, last) = (first.trim(), last.trim());
    let (start, end) = match (number(first), number(last)) {
        (Some(start), Some(end)) if start <= end => (start, end.min(size.saturating_sub(1))),
        (Some(start), None) if last.is_empty() => (start, size.saturating_sub(1)),
        (None, Some(0)) if first.is_empty() => return Wanted::Nothing,
        (None, Some(suffix)) if first.is_empty() => (size.saturating_sub(suffix), size.saturating_sub(1)),
        _ => return Wanted::Everything,
    };
    if start >= size {
        return Wanted::Nothing;
    }
    Wanted::Part {
        start,
        length: end - start + 1,
    }
}

/// `inline` or `attachment` with the name in both forms of RFC 6266.
fn disposition(name: &str, mime: &str) -> String {
    let essence = mime.split(';').next().unwrap_or_default().trim();
    let kind = if SHOWN.iter().any(|shown| shown.eq_ignore_ascii_case(essence)) {
        "inline"
    } else {
        "attachment"
    };
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%') || c == ' ' {
                c
            } else {
                '_'
            }
        })
        .collect();
    let mut text = format!("{kind}; filename=\"{plain}\"");
    if plain != name {
        text.push_str("; filename*=UTF-8''");
        for byte in name.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else if write!(text, "%{byte:02X}").is_err() {
                break;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_is_a_part_of_the_file_or_nothing() {
        let part = |start, length| Wanted::Part { start, length };
        for (range, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-99", part(0, 10)),
            ("bytes=3-5", part(3, 3)),
            ("bytes=3-", part(3, 7)),
            ("bytes=-4", part(6, 4)),
            ("bytes=-40", part(0, 10)),
            ("bytes=9-99999999999999999999999", part(9, 1)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=99999999999999999999999-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=5-3", Wanted::Everything),
            ("bytes=a-b", Wanted::Everything),
            ("bytes=-", Wanted::Everything),
            ("bytes=0-1,3-4", Wanted::Everything),
            ("lines=1-2", Wanted::Everything),
            ("", Wanted::Everything),
        ] {
            assert_eq!(wanted_part(range, 10), expected, "{range}");
        }
        assert_eq!(wanted_part("bytes=0-", 0), Wanted::Nothing);
        assert_eq!(wanted_part("bytes=-5", 0), Wanted::Nothing);
    }

    #[test]
    fn only_harmless_types_are_shown_in_place() {
        assert_eq!(disposition("a.png", "image/png"), "inline; filename=\"a.png\"");
        assert_eq!(
            disposition("a.txt", "text/plain; charset=utf-8"),
            "inline; filename=\"a.txt\""
        );
        for mime in [
            "text/html",
            "image/svg+xml",
            "application/xml",
            "",
            "application/javascript",
        ] {
            assert!(disposition("a", mime).starts_with("attachment;"), "{mime}");
        }
    }

    #[test]
    fn a_name_beyond_ascii_is_given_in_both_forms() {
        assert_eq!(
            disposition("Größe \"1\".pdf", "application/pdf"),
            "inline; filename=\"Gr__e _1_.pdf\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%20%221%22.pdf"
        );
    }

    proptest! {
        #[test]
        fn a_part_never_leaves_the_file(range in "(bytes=)?[0-9]{0,25}-?[0-9]{0,25}|.{0,20}", size: u64) {
            if let Wanted::Part { start, length } = wanted_part(&range, size) {
                prop_assert!(length > 0 && start.checked_add(length).is_some_and(|end| end <= size));
            }
        }

        #[test]
        fn any_name_makes_a_header(name in ".{0,60}") {
            prop_assert!(HeaderValue::from_str(&disposition(&name, "text/plain")).is_ok());
        }
    }
}
