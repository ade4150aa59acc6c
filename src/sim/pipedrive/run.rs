//! `pipepost sim pipedrive`: the sandbox alone, for any gateway.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::client::{Gateway, Trust};
use super::faults::Faults;
use super::limits::Limits;
use super::oauth::App;
use super::sandbox::{Options, Sandbox, StartError};
use crate::domain::Secret;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Where the Channels API listens.
    pub address: SocketAddr,
    /// Where the page is served without TLS, if anywhere beside `address`.
    pub page_address: Option<SocketAddr>,
    /// Whether `address` speaks TLS.
    pub tls: bool,
    /// Names for the certificate beside localhost and the address.
    pub names: Vec<String>,
    /// Where the certificate of the made authority is written.
    pub ca_file: Option<PathBuf>,
    /// The access token that the gateway must present.
    pub token: Secret,
    /// The app's client id.
    pub client_id: String,
    /// The app's client secret.
    pub client_secret: Secret,
    /// The gateway's public base URL.
    pub gateway_url: Option<String>,
    /// PEM file with the certificates to trust at the gateway; none = the public authorities.
    pub gateway_ca_file: Option<PathBuf>,
    /// Faults from the start.
    pub faults: Faults,
    /// Limits, see [`Limits::of_plan`].
    pub limits: Limits,
    /// The app that users install with OAuth 2.0; none = the fixed token.
    pub app: Option<App>,
    /// How far the server's clock is ahead at the start.
    pub clock_ahead: Duration,
    /// Seconds of the server's clock in one real second.
    pub clock_speed: u32,
}

/// Runs the sandbox until `stop` completes; `ready` is told the API's base URL and the page's URL.
pub async fn run(
    options: RunOptions,
    ready: impl FnOnce(&str, &str),
    stop: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let trust = options.gateway_ca_file.map_or(Trust::PublicRoots, Trust::CaFile);
    let sandbox = Sandbox::start(Options {
        address: options.address,
        page_address: options.page_address,
        tls: options.tls,
        names: options.names,
        ca_file: options.ca_file,
        token: options.token,
        client_id: options.client_id,
        client_secret: options.client_secret,
        gateway: options.gateway_url.map(|url| Gateway { url, trust }),
        faults: options.faults,
        limits: options.limits,
        app: options.app,
        ..Options::default()
    })?;
    sandbox.advance_clock(options.clock_ahead);
    sandbox.set_clock_speed(options.clock_speed);
    ready(&sandbox.url(), &sandbox.page_url());
    stop.await;
    let counters = sandbox.counters();
    log::info!(
        calls = counters.calls, messages = counters.created, violations = counters.violations;
        "The sandbox stops"
    );
    sandbox.stop().await;
    Ok(())
}
