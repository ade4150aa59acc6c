//! Name look-ups that are remembered for a short time.
//!
//! ureq resolves before it looks whether a connection is open, with one thread per look-up: at hundreds of requests
//! per second that would cost more than the requests.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::http::uri::{Authority, Scheme};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// How long an answer counts. Shorter than the time to live of any name that serves an API.
const REMEMBERED: Duration = Duration::from_secs(20);
/// Names that are remembered: the API, OAuth and a probe.
const NAMES: usize = 4;

/// Remembers successful look-ups.
#[derive(Debug, Default)]
pub(super) struct Remembering {
    names: Mutex<Vec<Name>>,
    inner: DefaultResolver,
}

#[derive(Debug)]
struct Name {
    scheme: Scheme,
    authority: Authority,
    addresses: ResolvedSocketAddrs,
    at: Instant,
}

impl Resolver for Remembering {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return self.inner.resolve(uri, config, timeout);
        };
        let now = Instant::now();
        {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            names.retain(|name| now.duration_since(name.at) < REMEMBERED);
            let known = names
                .iter()
                .find(|name| name.scheme == *scheme && name.authority == *authority);
            if let Some(name) = known {
                let mut addresses = self.empty();
                name.addresses.iter().for_each(|address| addresses.push(*address));
                return Ok(addresses);
            }
        }
        // A failed look-up is an io::Error of no particular kind: give it its name here, where it is certain.
        let addresses = match self.inner.resolve(uri, config, timeout) {
            Err(ureq::Error::Io(_)) => return Err(ureq::Error::HostNotFound),
            other => other?,
        };
        let mut kept = self.empty();
        addresses.iter().for_each(|address| kept.push(*address));
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < NAMES {
            names.push(Name {
                scheme: scheme.clone(),
                authority: authority.clone(),
                addresses: kept,
                at: now,
            });
        }
        Ok(addresses)
    }
}
