//! From one request to its answer.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{HOST, TRANSFER_ENCODING};
use hyper::{Request, Response, Version};
use log::debug;
use serde::Serialize;
use tokio::time::Instant;

use super::auth::{Credentials, Throttle};
use super::callback::{self, Callback};
use super::guard::{MAX_HEAD, Phase};
use super::metrics::Metrics;
use super::reads::Reads;
use super::reply::{self, Body};
use super::{api, avatar, clock, files};
use crate::config::Template;
use crate::domain::{AttachmentId, ChannelId, GatewayId, ProviderChannelId, Timestamp};
use crate::protocol::media;
use crate::protocol::pipedrive::manifest::{self, Code, Failure, Route, body::Source};
use crate::store::Store;

/// Longest path with query, in bytes.
const MAX_URI: usize = 4096;
/// Most headers of a request.
const MAX_HEADERS: usize = 64;

/// A channel as the endpoints show it.
pub(super) struct Served {
    pub(super) id: ChannelId,
    pub(super) provider_id: ProviderChannelId,
    pub(super) name: String,
    pub(super) avatar_url: Option<String>,
}

impl Served {
    pub(super) fn source(&self) -> Source<'_> {
        Source {
            id: &self.provider_id,
            name: &self.name,
            avatar_url: self.avatar_url.as_deref(),
        }
    }
}

/// Everything that the answers are made of.
pub(super) struct Context {
    pub(super) store: Store,
    pub(super) gateway: GatewayId,
    pub(super) channels: HashMap<ProviderChannelId, Arc<Served>>,
    /// Replaced as a whole on reload.
    pub(super) templates: Arc<RwLock<Vec<Template>>>,
    pub(super) credentials: Credentials,
    pub(super) throttle: Throttle,
    /// Keeps the reads of all connections on a few threads.
    pub(super) reads: Arc<Reads>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) public_url: String,
    pub(super) media_secret: [u8; 32],
    pub(super) link_lifetime: Duration,
    pub(super) max_upload: u64,
    pub(super) body_timeout: Duration,
    /// What `/oauth/callback` leads to.
    pub(super) callback: Option<Arc<dyn Callback>>,
}

impl Context {
    /// A link to a file that works from now on for the configured time.
    pub(super) fn link(&self, id: AttachmentId, now: Timestamp) -> String {
        let lifetime = i64::try_from(self.link_lifetime.as_millis()).unwrap_or(i64::MAX);
        media::url(&self.public_url, &self.media_secret, id, now.plus_ms(lifetime))
    }
}

/// Answers one request; counts it and writes one line of log.
pub(super) async fn handle(
    context: Arc<Context>,
    phase: Arc<Phase>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    phase.busy();
    let began = Instant::now();
    let route = manifest::route(request.method().as_str(), request.uri().path());
    let endpoint = name(&route);
    let has_body = !request.body().is_end_stream();

    let mut response = match answer(&context, &phase, route, request).await {
        Ok(response) => response,
        Err(failure) => {
            if has_body {
                phase.linger();
            }
            reply::failure(&failure)
        }
    };
    let status = response.status().as_u16();
    context.metrics.request(endpoint, status);
    debug!(endpoint, status, ms = began.elapsed().as_millis(); "Answered a request");
    response.body_mut().tell(phase);
    Ok(response)
}

fn name(route: &Route) -> &'static str {
    match route {
        Route::Api(call) => call.name(),
        Route::Health => "health",
        Route::Media(_) => "media",
        Route::Avatar(_) => "avatar",
        Route::OauthCallback => "oauth",
        Route::NotFound | Route::MethodNotAllowed(_) => "other",
    }
}

async fn answer(
    context: &Arc<Context>,
    phase: &Phase,
    route: Route,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    check_shape(phase, &request)?;
    // Before anything is looked up: a stranger learns nothing about what exists.
    let mut caller = None;
    if manifest::needs_credentials(request.method().as_str(), request.uri().path()) {
        caller = context.credentials.check(request.headers());
        if caller.is_none() {
            context.metrics.auth_failure();
            return Err(context.throttle.failure().await);
        }
        phase.trust();
        context.metrics.heard_from_pipedrive(clock::now());
    }
    match (route, caller) {
        (Route::Api(call), Some(caller)) => api::answer(context, caller, call, request).await,
        (Route::Api(_), None) => Err(context.throttle.failure().await),
        (Route::Health, _) => Ok(health(context)),
        (Route::Media(link), _) => files::serve(context, &link, request.headers()).await,
        (Route::Avatar(link), _) => avatar::serve(context, &link),
        (Route::OauthCallback, caller) => callback::answer(context, caller, request).await,
        (Route::NotFound, _) => Err(Failure::new(Code::NotFound, "nothing is here")),
        (Route::MethodNotAllowed(allow), _) => Err(Failure::method_not_allowed(allow)),
    }
}

/// Refuses what is too long, or could be read two ways, in the shape of every other failure. hyper has its own,
/// wider limits behind these.
fn check_shape(phase: &Phase, request: &Request<Incoming>) -> Result<(), Failure> {
    if phase.is_ambiguous() {
        return Err(Failure::new(
            Code::InvalidRequest,
            "the length of the body is given more than once",
        ));
    }
    let uri = request.uri();
    if uri.path_and_query().map_or(0, |path| path.as_str().len()) > MAX_URI {
        return Err(Failure::new(
            Code::UriTooLong,
            format!("at most {MAX_URI} bytes of path and query"),
        ));
    }
    let headers = request.headers();
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    if bytes > MAX_HEAD || headers.len() > MAX_HEADERS {
        return Err(Failure::new(
            Code::RequestHeadersTooLarge,
            format!("at most {MAX_HEADERS} headers of {MAX_HEAD} bytes together"),
        ));
    }
    let hosts = headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Err(Failure::new(
            Code::InvalidRequest,
            "exactly one Host header is needed",
        ));
    }
    let odd_coding = headers
        .get(TRANSFER_ENCODING)
        .is_some_and(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"));
    if odd_coding {
        return Err(Failure::new(
            Code::InvalidRequest,
            "no transfer coding but chunked",
        ));
    }
    Ok(())
}

/// Whether the gateway works, without secrets: for watchdogs, and for the gateway itself to see whether the
/// tunnel leads to it.
fn health(context: &Context) -> Response<Body> {
    #[derive(Serialize)]
    struct Health<'a> {
        status: &'static str,
        gateway: &'a GatewayId,
        store: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        pipedrive: Option<&'static str>,
    }
    let failed = context.store.failed().borrow().is_some();
    let enough = context.store.space().borrow().is_enough();
    let damaged = || context.store.damaged_copy().is_some();
    let health = Health {
        status: if failed { "failed" } else { "ok" },
        gateway: &context.gateway,
        store: match (failed, enough) {
            (true, _) => "failed",
            (false, false) => "no space",
            (false, true) if damaged() => "damaged",
            (false, true) => "ready",
        },
        pipedrive: context.callback.as_ref().map(|callback| callback.health()),
    };
    reply::json(
        if failed { 503 } else { 200 },
        serde_json::to_vec(&health).unwrap_or_default(),
    )
}
