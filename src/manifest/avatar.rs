//! Pictures of people, drawn from their links.

use hyper::Response;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};

use super::reply::{self, Body};
use super::service::Context;
use crate::protocol::avatar::{self, Avatar};
use crate::protocol::pipedrive::manifest::{Code, Failure};

/// Answers a request for a picture. A browser that opens it as a page may neither run nor load anything.
pub(super) fn serve(context: &Context, link: &str) -> Result<Response<Body>, Failure> {
    let avatar = Avatar::verify(&context.media_secret, link)
        .ok_or_else(|| Failure::new(Code::NotFound, "no such picture"))?;
    let mut response = Response::new(Body::bytes(avatar.svg()));
    reply::header(&mut response, CONTENT_TYPE, avatar::MIME);
    // Another name has another link.
    reply::header(&mut response, CACHE_CONTROL, "public, max-age=2592000, immutable");
    reply::header(&mut response, X_CONTENT_TYPE_OPTIONS, "nosniff");
    reply::header(
        &mut response,
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; sandbox",
    );
    Ok(response)
}
