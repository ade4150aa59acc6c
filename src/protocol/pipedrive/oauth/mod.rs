//! OAuth 2.0 towards Pipedrive: requests, answers, what the callback brings, and how long tokens live.
//!
//! Pipedrive's words: <https://pipedrive.readme.io/docs/marketplace-oauth-authorization>. Nothing here prints a code or
//! a token: they are [`Secret`](crate::domain::Secret)s, and what a server says in an error is cleaned of them.

mod answer;
mod callback;
mod life;
mod page;
mod request;
#[cfg(test)]
mod tests;

pub use answer::{Granted, Refused, User, api_base, done, granted, user};
pub use callback::{Authorized, MAX_BODY, Sharing, Uninstalled, authorized, sharing, uninstalled};
pub use life::{
    IDLE_REFRESH, REFRESH_TOKEN_LIFE, Warning, dies_at, idle_refresh_due, refresh_early, retry_gap, warning,
};
pub use page::{PAGE_POLICY, Page};
pub use request::{CALLBACK_PATH, Form, SCOPE, authorize_url, exchange, refresh, revoke};
