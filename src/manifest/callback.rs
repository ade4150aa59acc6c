//! The app's callback: a browser that comes back from Pipedrive, and Pipedrive's word that somebody left.
//!
//! This room reads and answers; what follows from it is decided by whoever implements [`Callback`].

use std::pin::Pin;
use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};

use super::auth::Caller;
use super::reply::{self, Body};
use super::service::Context;
use crate::protocol::pipedrive::manifest::{Code, Failure, body};
use crate::protocol::pipedrive::oauth::{
    self, Authorized, MAX_BODY, PAGE_POLICY, Page, Sharing, Uninstalled,
};

/// A call that goes on for a while.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the callback leads to.
pub trait Callback: Send + Sync {
    /// A browser came back. Anybody can make this call.
    fn authorized(&self, asked: Authorized) -> Pending<'_, Page>;
    /// A user has uninstalled the app. Called with the app's credentials only.
    fn uninstalled(&self, told: Uninstalled) -> Pending<'_, Result<(), Failure>>;
    /// A user shares the app, or does not any more. Called with the app's credentials only.
    fn sharing(&self, told: Sharing) -> Pending<'_, Result<(), Failure>>;
    /// How the connection to Pipedrive is, in a few words without names, for `/healthz`.
    fn health(&self) -> &'static str;
}

/// Answers `/oauth/callback`. `caller` is there for every method but `GET`.
pub(super) async fn answer(
    context: &Context,
    caller: Option<Caller>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let Some(callback) = context.callback.as_ref().map(Arc::clone) else {
        return Err(Failure::new(Code::NotFound, "this gateway has no OAuth callback"));
    };
    match (request.method(), caller) {
        (&Method::GET, _) => {
            let asked = oauth::authorized(request.uri().query().unwrap_or_default());
            Ok(page(&callback.authorized(asked).await))
        }
        (&Method::DELETE, Some(_)) => {
            let bytes = read(context, request).await?;
            let told = oauth::uninstalled(&bytes).map_err(|wrong| Failure::new(Code::InvalidBody, wrong))?;
            callback.uninstalled(told).await?;
            Ok(reply::json(200, body::done()))
        }
        (&Method::POST, Some(_)) => {
            let bytes = read(context, request).await?;
            let told = oauth::sharing(&bytes).map_err(|wrong| Failure::new(Code::InvalidBody, wrong))?;
            callback.sharing(told).await?;
            Ok(reply::json(200, body::done()))
        }
        _ => Err(context.throttle.failure().await),
    }
}

async fn read(context: &Context, request: Request<Incoming>) -> Result<Vec<u8>, Failure> {
    let too_large = || Failure::new(Code::PayloadTooLarge, format!("at most {MAX_BODY} bytes"));
    let most = u64::try_from(MAX_BODY).unwrap_or(u64::MAX);
    if request.body().size_hint().lower() > most {
        return Err(too_large());
    }
    let limited = Limited::new(request.into_body(), MAX_BODY).collect();
    let collected = tokio::time::timeout(context.body_timeout, limited)
        .await
        .map_err(|_| Failure::new(Code::RequestTimeout, "the body took too long"))?;
    match collected {
        Ok(whole) => Ok(whole.to_bytes().to_vec()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Failure::new(Code::InvalidBody, "the body broke off")),
    }
}

/// A page that nobody may keep, frame or load anything into; its address, which holds a code, goes nowhere.
fn page(page: &Page) -> Response<Body> {
    let mut response = Response::new(Body::bytes(page.to_html().into_bytes()));
    *response.status_mut() = StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        reply::header(&mut response, name, value);
    }
    response
}
