//! Basic authentication with the app's client id and secret.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use data_encoding::BASE64;
use hyper::header::{AUTHORIZATION, HeaderMap};
use ring::hmac;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::clock;
use crate::domain::Secret;
use crate::protocol::pipedrive::manifest::{Code, Failure};

/// Proof that a request carried the app's credentials. Only [`Credentials::check`] makes one, and every endpoint
/// asks for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(());

/// What a caller must present.
pub(super) struct Credentials {
    /// Made anew in each process: both sides are compared as digests under it, so that neither the content nor
    /// the length of the expected value shows in the time that a comparison takes.
    key: hmac::Key,
    expected: Option<hmac::Tag>,
}

impl Credentials {
    /// Without a client id or secret nobody is let in.
    pub(super) fn new(client_id: Option<&str>, secret: Option<&Secret>) -> Result<Self, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random);
        let expected = match (client_id, secret) {
            (Some(id), Some(secret)) if !id.is_empty() && !secret.is_empty() => {
                let mut context = hmac::Context::with_key(&key);
                context.update(id.as_bytes());
                context.update(b":");
                context.update(secret.expose().as_bytes());
                Some(context.sign())
            }
            _ => None,
        };
        Ok(Self { key, expected })
    }

    /// Whether anybody can be let in at all.
    pub(super) const fn are_configured(&self) -> bool {
        self.expected.is_some()
    }

    /// Lets a request in if it carries the credentials, exactly once.
    pub(super) fn check(&self, headers: &HeaderMap) -> Option<Caller> {
        let expected = self.expected.as_ref()?;
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return None;
        };
        let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let given = BASE64.decode(encoded.trim().as_bytes()).ok()?;
        let given = hmac::sign(&self.key, &given);
        bool::from(given.as_ref().ct_eq(expected.as_ref())).then_some(Caller(()))
    }
}

/// Slows down guessing.
///
/// Behind a tunnel every peer has the same address, so nobody is locked out and only failures wait: a caller
/// with the right credentials never meets this.
pub(super) struct Throttle {
    free: Mutex<(f64, Instant)>,
    waiting: Semaphore,
}

impl Throttle {
    /// Failures that are answered at once.
    const BURST: f64 = 20.0;
    /// How many more of them there are in a second.
    const PER_SECOND: f64 = 1.0;
    /// How long any further failure waits.
    const DELAY: Duration = Duration::from_secs(1);
    /// How many may wait at a time, so that they never hold most of the connections.
    const WAITING: usize = 16;

    pub(super) fn new() -> Self {
        Self {
            free: Mutex::new((Self::BURST, Instant::now())),
            waiting: Semaphore::new(Self::WAITING),
        }
    }

    /// The answer to a failure, given when its time has come.
    pub(super) async fn failure(&self) -> Failure {
        if !self.take() {
            let Ok(_waiting) = self.waiting.try_acquire() else {
                let delay = i64::try_from(Self::DELAY.as_millis()).unwrap_or_default();
                return Failure::rate_limited(clock::now().plus_ms(delay));
            };
            tokio::time::sleep(Self::DELAY).await;
        }
        Failure::new(
            Code::Unauthorized,
            "the app's client id and secret are needed as Basic credentials",
        )
    }

    fn take(&self) -> bool {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let earned = now.duration_since(free.1).as_secs_f64() * Self::PER_SECOND;
        *free = ((free.0 + earned).min(Self::BURST), now);
        let enough = free.0 >= 1.0;
        if enough {
            free.0 -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn credentials() -> Credentials {
        Credentials::new(Some("client"), Some(&Secret::new("s:e:cret".to_owned()))).unwrap()
    }

    fn header(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        headers
    }

    fn basic(text: &str) -> HeaderMap {
        header(&format!("Basic {}", BASE64.encode(text.as_bytes())))
    }

    #[test]
    fn the_right_credentials_let_in_and_anything_else_does_not() {
        let credentials = credentials();
        assert!(credentials.check(&basic("client:s:e:cret")).is_some());
        let lower = format!("bAsIc {}", BASE64.encode(b"client:s:e:cret"));
        assert!(credentials.check(&header(&lower)).is_some());
        for wrong in [
            "",
            ":",
            "client",
            "client:",
            "client:s:e:cre",
            "client:s:e:crett",
            "Client:s:e:cret",
            "s:e:cret:client",
        ] {
            assert!(credentials.check(&basic(wrong)).is_none(), "{wrong}");
        }
        for wrong in ["", "Basic", "Basic ", "Basic ?", "Bearer Y2xpZW50OnM6ZTpjcmV0"] {
            assert!(credentials.check(&header(wrong)).is_none(), "{wrong}");
        }
        assert!(credentials.check(&HeaderMap::new()).is_none());
    }

    #[test]
    fn two_authorization_headers_are_refused_even_when_one_is_right() {
        let mut headers = basic("client:s:e:cret");
        headers.append(AUTHORIZATION, HeaderValue::from_static("Basic eDp5"));
        assert!(credentials().check(&headers).is_none());
    }

    #[test]
    fn without_a_configured_secret_nobody_is_let_in() {
        let secret = Secret::new(String::new());
        for (id, secret) in [
            (Some("client"), None),
            (Some("client"), Some(&secret)),
            (None, Some(&secret)),
            (None, None),
        ] {
            let credentials = Credentials::new(id, secret).unwrap();
            assert!(!credentials.are_configured());
            assert!(credentials.check(&basic("client:")).is_none());
            assert!(credentials.check(&basic(":")).is_none());
        }
    }

    #[tokio::test]
    async fn failures_beyond_the_burst_wait_and_too_many_waiting_are_told_to_come_back() {
        let throttle = std::sync::Arc::new(Throttle::new());
        let start = Instant::now();
        for _ in 0..20 {
            assert_eq!(throttle.failure().await.code, Code::Unauthorized);
        }
        assert!(start.elapsed() < Throttle::DELAY);
        let waiting: Vec<_> = (0..16)
            .map(|_| {
                let throttle = std::sync::Arc::clone(&throttle);
                tokio::spawn(async move { throttle.failure().await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(throttle.failure().await.code, Code::RateLimitExceeded);
        for one in waiting {
            assert_eq!(one.await.unwrap().code, Code::Unauthorized);
        }
        assert!(start.elapsed() >= Duration::from_secs(1));
    }
}
