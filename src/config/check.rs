//! Gives the merged tree its types and says what is wrong or unwise in it.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::de::typed;
use super::effective::Effective;
use super::files::{Files, Pem};
use super::load::{LISTS, Request};
use super::raw::{self, Size, Span};
use super::source::{Findings, Place, Source, nearest};
use super::tree::{Node, Step, Value};
use super::url;
use super::{Channel, Config, CreatedAt, Gateway, Listener, Log, Pipedrive, Store, Template};
use crate::domain::Secret;
use crate::protocol::sms::Home;

/// First-level keys that are written `[like this]`.
const TABLES: [&str; 5] = ["gateway", "pipedrive", "listener", "store", "log"];

/// `TimeoutStopSec` of systemd/pipepost.service: what still runs then is killed.
pub(super) const UNIT_STOPS_WITHIN: Duration = Duration::from_secs(20);

/// Checks everything. The configuration is meaningful only when no finding is an error.
pub(super) fn check(tree: &Node, findings: &mut Findings, request: &Request) -> (Config, Effective) {
    let files = Files {
        credentials: request.credentials.clone(),
        assumed: request.without_files,
    };
    let mut check = Check {
        tree,
        findings,
        files,
        secrets: Vec::new(),
    };
    check.first_level();
    let mut effective = Effective::default();
    let mut gateway = check.gateway(&mut effective);
    let pipedrive = check.pipedrive(&mut effective);
    let listener = check.listener(&mut effective);
    let store = check.store(&mut effective);
    let log = check.log(&mut effective);
    let brokers = check.brokers(&mut effective);
    let devices = check.devices(&brokers, &mut effective);
    let modems = check.modems(&mut effective);
    let mut channels = check.channels(&devices, &modems, &mut effective);
    let templates = check.templates(&gateway, &mut channels, &mut effective);
    if let (Home::NOWHERE, [first, others @ ..]) = (gateway.home, modems.as_slice())
        && others.iter().all(|other| other.home == first.home)
    {
        gateway.home = first.home;
    }
    effective.secrets = check.secrets;
    let config = Config {
        gateway,
        pipedrive,
        listener,
        store,
        log,
        brokers,
        devices,
        modems,
        channels,
        templates,
    };
    (config, effective)
}

/// The check in progress.
pub(super) struct Check<'a> {
    pub(super) tree: &'a Node,
    pub(super) findings: &'a mut Findings,
    pub(super) files: Files,
    /// Secrets that were found: key and origin.
    pub(super) secrets: Vec<(String, String)>,
}

/// A path to a key of the configuration.
macro_rules! keys {
    ($($step:expr),+) => { [$($crate::config::tree::Step::from($step)),+] };
}
pub(super) use keys;

impl Check<'_> {
    fn first_level(&mut self) {
        for entry in self.tree.entries() {
            let key = entry.key.as_str();
            if LISTS.contains(&key) {
                if !matches!(entry.node.value, Value::List(_)) {
                    let hint = format!("write [[{key}]] with two brackets: there can be several");
                    self.findings.error(
                        Some(&entry.key_at),
                        format!("{key:?} is not a list of tables"),
                        Some(hint),
                    );
                }
            } else if !TABLES.contains(&key) {
                let known = TABLES.into_iter().chain(LISTS);
                let hint = match nearest(key, known.clone()) {
                    Some(meant) => format!("did you mean {meant:?}?"),
                    None => format!("sections are {}", known.collect::<Vec<_>>().join(", ")),
                };
                self.findings
                    .error(Some(&entry.key_at), format!("unknown key {key:?}"), Some(hint));
            }
        }
    }

    fn section<T: DeserializeOwned + Default>(&mut self, name: &str) -> T {
        match self.tree.get(name) {
            Some(node) => typed(node, self.findings).unwrap_or_default(),
            None => T::default(),
        }
    }

    /// Where a key was written, or else its section; `None` when not even that was written.
    pub(super) fn place(&self, path: &[Step]) -> Option<Place> {
        let node = self.tree.nearest(path);
        (!std::ptr::eq(node, self.tree)).then(|| node.at.clone())
    }

    pub(super) fn error(&mut self, path: &[Step], message: impl Into<String>, hint: Option<String>) {
        let place = self.place(path);
        self.findings.error(place.as_ref(), message, hint);
    }

    pub(super) fn warning(&mut self, path: &[Step], message: impl Into<String>, hint: Option<String>) {
        let place = self.place(path);
        self.findings.warning(place.as_ref(), message, hint);
    }

    /// Complains about a value outside of its range.
    pub(super) fn range<T: Copy + PartialOrd + Display>(
        &mut self,
        path: &[Step],
        value: T,
        least: T,
        most: T,
    ) {
        if value < least || value > most {
            let key = match path.last() {
                Some(Step::Key(key)) => key.as_str(),
                _ => "",
            };
            self.error(
                path,
                format!("{key:?} must be from {least} to {most}, not {value}"),
                None,
            );
        }
    }

    pub(super) fn span(&mut self, path: &[Step], value: Span, least: u64, most: u64) -> Duration {
        let seconds = Duration::from_secs;
        if value.0 < seconds(least) || value.0 > seconds(most) {
            let key = match path.last() {
                Some(Step::Key(key)) => key.as_str(),
                _ => "",
            };
            let (least, most) = (Span(seconds(least)), Span(seconds(most)));
            self.error(
                path,
                format!("{key:?} must be from {least} to {most}, not {value}"),
                None,
            );
        }
        value.0
    }

    pub(super) fn size(&mut self, path: &[Step], value: Size, least: u64, most: u64) -> u64 {
        if value.0 < least || value.0 > most {
            let key = match path.last() {
                Some(Step::Key(key)) => key.as_str(),
                _ => "",
            };
            let (least, most) = (Size(least), Size(most));
            self.error(
                path,
                format!("{key:?} must be from {least} to {most}, not {value}"),
                None,
            );
        }
        value.0
    }

    /// Makes a relative path start at the folder of the file that it is written in.
    pub(super) fn resolve(&self, path: &[Step], value: &mut Option<PathBuf>) {
        if let Some(value) = value {
            self.resolve_path(path, value);
        }
    }

    fn resolve_path(&self, path: &[Step], value: &mut PathBuf) {
        if value.is_absolute() {
            return;
        }
        let source = self
            .place(path)
            .and_then(|place| self.findings.sources.get(place.source));
        if let Some(Source::File { path: file, .. }) = source {
            *value = file.parent().unwrap_or(Path::new("")).join(&*value);
        }
    }

    pub(super) fn pem(&mut self, path: &[Step], file: Option<&PathBuf>, expected: Pem) {
        if let (Some(file), Some(place)) = (file, self.place(path)) {
            self.files.pem(file, expected, &place, self.findings);
        }
    }

    /// A certificate needs its key and the other way round.
    pub(super) fn pair(
        &mut self,
        section: &[Step],
        certificate: Option<&PathBuf>,
        key: Option<&PathBuf>,
    ) -> Option<(PathBuf, PathBuf)> {
        let at = |name: &str| {
            section
                .iter()
                .cloned()
                .chain([Step::from(name)])
                .collect::<Vec<_>>()
        };
        self.pem(&at("certificate_file"), certificate, Pem::Certificates);
        self.pem(&at("key_file"), key, Pem::Key);
        match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (Some(_), None) => {
                let hint = Some("add key_file with its private key".to_owned());
                self.error(&at("certificate_file"), "a certificate without its key", hint);
                None
            }
            (None, Some(_)) => {
                let hint = Some("add certificate_file with its certificate".to_owned());
                self.error(&at("key_file"), "a key without its certificate", hint);
                None
            }
            (None, None) => None,
        }
    }

    /// A secret by its file key or credential.
    pub(super) fn secret(
        &mut self,
        path: &[Step],
        file: Option<&PathBuf>,
        credential: &str,
        shown_as: String,
    ) -> Option<Secret> {
        let place = self.place(path);
        let key = match path.last() {
            Some(Step::Key(key)) => key.as_str(),
            _ => "",
        };
        let file = file
            .zip(place.as_ref())
            .map(|(file, place)| (file.as_path(), place));
        let found = self.files.secret(key, file, credential, self.findings)?;
        self.secrets.push((shown_as, found.origin));
        Some(found.secret)
    }

    /// A text that is not empty and has no control characters.
    pub(super) fn plain_text(&mut self, path: &[Step], value: &str, most: usize) {
        let key = match path.last() {
            Some(Step::Key(key)) => key.clone(),
            _ => String::new(),
        };
        if value.trim().is_empty() {
            self.error(path, format!("{key:?} is empty"), None);
        } else if value.chars().any(char::is_control) {
            self.error(path, format!("{key:?} holds a control character"), None);
        } else if value.chars().count() > most {
            self.error(path, format!("{key:?} is longer than {most} characters"), None);
        }
    }

    fn gateway(&mut self, effective: &mut Effective) -> Gateway {
        let mut raw: raw::Gateway = self.section("gateway");
        self.resolve_path(&keys!["gateway", "state_dir"], &mut raw.state_dir);
        self.resolve_path(&keys!["gateway", "control_socket"], &mut raw.control_socket);
        self.resolve_path(&keys!["gateway", "templates_dir"], &mut raw.templates_dir);
        // The kernel's limit of a socket's path is 108 bytes with the terminating zero.
        if raw.control_socket.as_os_str().len() > 107 {
            let hint = Some("a socket's path may have 107 bytes".to_owned());
            self.error(
                &keys!["gateway", "control_socket"],
                "\"control_socket\" is too long",
                hint,
            );
        }
        effective.gateway = raw.clone();
        let drain_timeout = self.span(&keys!["gateway", "drain_timeout"], raw.drain_timeout, 0, 3600);
        if drain_timeout >= UNIT_STOPS_WITHIN {
            let unit = UNIT_STOPS_WITHIN.as_secs();
            let hint = format!(
                "make it shorter than {unit}s; or give the unit more time with `systemctl edit pipepost` ([Service], \
                 TimeoutStopSec=), then this warning means nothing"
            );
            self.warning(
                &keys!["gateway", "drain_timeout"],
                format!(
                    "systemd kills the gateway {unit}s after a stop began, before \"drain_timeout\" is over"
                ),
                Some(hint),
            );
        }
        Gateway {
            id: raw.id,
            state_dir: raw.state_dir,
            control_socket: raw.control_socket,
            clock_wait: self.span(&keys!["gateway", "clock_wait"], raw.clock_wait, 0, 3600),
            drain_timeout,
            home: self.home(&keys!["gateway", "country"], raw.country.as_deref()),
            templates_dir: raw.templates_dir,
        }
    }

    /// Reads the templates, and offers them on the channels that do not say whether to.
    fn templates(
        &mut self,
        gateway: &Gateway,
        channels: &mut [Channel],
        effective: &mut Effective,
    ) -> Vec<Template> {
        let mut templates = Vec::new();
        if !self.files.assumed {
            let ids: Vec<_> = channels.iter().map(|channel| channel.id.clone()).collect();
            let (usable, findings) = super::templates(&gateway.templates_dir, &ids);
            self.findings.list.extend(findings);
            templates = usable;
        }
        for (channel, raw) in channels.iter_mut().zip(&mut effective.channel) {
            channel.template_support = raw
                .template_support
                .unwrap_or_else(|| templates.iter().any(|template| template.is_for(&channel.id)));
            raw.template_support = Some(channel.template_support);
        }
        templates
    }

    fn pipedrive(&mut self, effective: &mut Effective) -> Pipedrive {
        let at = |key: &str| keys!["pipedrive", key];
        let mut raw: raw::Pipedrive = self.section("pipedrive");
        self.resolve(&at("ca_file"), &mut raw.ca_file);
        self.resolve(&at("access_token_file"), &mut raw.access_token_file);
        self.resolve(&at("client_secret_file"), &mut raw.client_secret_file);
        self.resolve(&at("token_key_file"), &mut raw.token_key_file);
        match url::https(&raw.oauth_url, true) {
            Ok(url) => raw.oauth_url = url,
            Err((message, hint)) => {
                let message = format!("\"oauth_url\" cannot be used: {message}");
                self.error(&at("oauth_url"), message, hint);
            }
        }
        match url::https(&raw.api_url, true) {
            Ok(url) => raw.api_url = url,
            Err((message, hint)) => {
                self.error(
                    &at("api_url"),
                    format!("\"api_url\" cannot be used: {message}"),
                    hint,
                );
            }
        }
        if let Some(text) = &raw.public_url {
            match url::https(text, false) {
                Ok(url) => raw.public_url = Some(url),
                Err((message, hint)) => {
                    self.error(
                        &at("public_url"),
                        format!("\"public_url\" cannot be used: {message}"),
                        hint,
                    );
                }
            }
        }
        self.pem(&at("ca_file"), raw.ca_file.as_ref(), Pem::Certificates);
        if let Some(id) = &raw.client_id {
            self.plain_text(&at("client_id"), id, 255);
            if id.contains(':') {
                let hint = "Basic authentication separates it from the secret by a colon".to_owned();
                self.error(
                    &at("client_id"),
                    "\"client_id\" must not hold a colon",
                    Some(hint),
                );
            }
        }
        let token = raw.access_token_file.as_ref();
        let access_token = self.secret(
            &at("access_token_file"),
            token,
            "access-token",
            "pipedrive.access_token".to_owned(),
        );
        let secret = raw.client_secret_file.as_ref();
        let client_secret = self.secret(
            &at("client_secret_file"),
            secret,
            "client-secret",
            "pipedrive.client_secret".to_owned(),
        );
        let token_key = self.token_key(raw.token_key_file.as_ref());
        self.pipedrive_readiness(&raw, access_token.is_some(), client_secret.is_some());
        let timeout = self.span(&at("timeout"), raw.timeout, 1, 600);
        self.range(&at("in_flight"), raw.in_flight, 1, 64);
        if let Some(tokens) = raw.daily_budget {
            self.range(&at("daily_budget"), tokens, 100, 1_000_000_000);
        }
        effective.pipedrive = raw.clone();
        Pipedrive {
            api_url: raw.api_url,
            api_url_given: self
                .tree
                .get("pipedrive")
                .is_some_and(|section| section.get("api_url").is_some()),
            oauth_url: raw.oauth_url,
            token_key,
            ca_file: raw.ca_file,
            access_token,
            client_id: raw.client_id,
            client_secret,
            public_url: raw.public_url,
            created_at: match raw.created_at {
                raw::CreatedAt::Iso8601 => CreatedAt::Iso8601,
                raw::CreatedAt::Minutes => CreatedAt::Minutes,
            },
            timeout,
            in_flight: raw.in_flight,
            daily_budget: raw.daily_budget,
        }
    }

    /// The key must be random: what is derived from it is not made slow to guess.
    fn token_key(&mut self, file: Option<&PathBuf>) -> Option<Secret> {
        const LEAST: usize = 22;
        let path = keys!["pipedrive", "token_key_file"];
        let key = self.secret(&path, file, "token-key", "pipedrive.token_key".to_owned())?;
        if key.expose().chars().count() < LEAST {
            let hint = "make it with: openssl rand -base64 32".to_owned();
            let message = format!("the key for the tokens has less than {LEAST} characters");
            self.error(&path, message, Some(hint));
        }
        Some(key)
    }

    /// What does not work yet with Pipedrive; none of it keeps the gateway from storing messages.
    fn pipedrive_readiness(&mut self, raw: &raw::Pipedrive, has_token: bool, has_secret: bool) {
        if self.files.assumed {
            return;
        }
        let section = keys!["pipedrive"];
        let connects = raw.client_id.is_some() && has_secret && raw.public_url.is_some();
        if !has_token && !connects {
            let hint =
                "set client_id, client secret and public_url and run `pipepost connect`; or write a token to \
                        /etc/pipepost/credentials/access-token, from where systemd passes it to the service"
                    .to_owned();
            let message = "no access token yet: messages are stored, but not delivered to Pipedrive";
            self.warning(&section, message, Some(hint));
        }
        if raw.client_id.is_none() || !has_secret {
            let missing = match (raw.client_id.is_none(), has_secret) {
                (true, true) => "client_id",
                (false, _) => "client secret",
                (true, false) => "client_id and client secret",
            };
            let hint = "the app's page in Pipedrive's Developer Hub shows client id and client secret: write the \
                        secret to /etc/pipepost/credentials/client-secret, from where systemd passes it to the \
                        service, or name another file with client_secret_file";
            let message = format!("no {missing} yet: every request from Pipedrive is refused");
            self.warning(&section, message, Some(hint.to_owned()));
        }
        if raw.public_url.is_none() {
            let hint = "set public_url to the address of the tunnel, such as https://gateway.example.com";
            self.warning(
                &section,
                "no public_url yet: files cannot be linked",
                Some(hint.to_owned()),
            );
        }
    }

    fn listener(&mut self, effective: &mut Effective) -> Listener {
        let at = |key: &str| keys!["listener", key];
        let mut raw: raw::Listener = self.section("listener");
        self.resolve(&at("certificate_file"), &mut raw.certificate_file);
        self.resolve(&at("key_file"), &mut raw.key_file);
        let bind = raw.bind.parse::<SocketAddr>().unwrap_or_else(|_| {
            let hint = "write an IP address and a port, such as 127.0.0.1:8443 or [::1]:8443".to_owned();
            self.error(
                &at("bind"),
                format!("{:?} is not an address to listen on", raw.bind),
                Some(hint),
            );
            SocketAddr::from(([127, 0, 0, 1], 8443))
        });
        self.pair(
            &keys!["listener"],
            raw.certificate_file.as_ref(),
            raw.key_file.as_ref(),
        );
        let header_timeout = self.span(&at("header_timeout"), raw.header_timeout, 1, 3600);
        let body_timeout = self.span(&at("body_timeout"), raw.body_timeout, 1, 3600);
        let idle_timeout = self.span(&at("idle_timeout"), raw.idle_timeout, 1, 3600);
        self.range(&at("max_connections"), raw.max_connections, 1, 4096);
        let max_upload = self.size(&at("max_upload"), raw.max_upload, 64 << 10, 1 << 30);
        let link_lifetime = self.span(&at("link_lifetime"), raw.link_lifetime, 3600, 365 * 86_400);
        effective.listener = raw.clone();
        Listener {
            bind,
            certificate_file: raw.certificate_file,
            key_file: raw.key_file,
            max_connections: raw.max_connections,
            header_timeout,
            body_timeout,
            idle_timeout,
            max_upload,
            link_lifetime,
        }
    }

    fn store(&mut self, effective: &mut Effective) -> Store {
        let at = |key: &str| keys!["store", key];
        let raw: raw::Store = self.section("store");
        effective.store = raw.clone();
        Store {
            retain_for: self.span(&at("retain_for"), raw.retain_for, 86_400, 36_500 * 86_400),
            retain_bytes: self.size(&at("retain_bytes"), raw.retain_bytes, 1 << 20, 1 << 50),
            disk_reserve: self.size(&at("disk_reserve"), raw.disk_reserve, 1 << 20, 1 << 40),
        }
    }

    fn log(&mut self, effective: &mut Effective) -> Log {
        let raw: raw::Log = self.section("log");
        effective.log = raw.clone();
        let level = match raw.level {
            raw::Level::Error => log::LevelFilter::Error,
            raw::Level::Warn => log::LevelFilter::Warn,
            raw::Level::Info => log::LevelFilter::Info,
            raw::Level::Debug => log::LevelFilter::Debug,
        };
        Log { level }
    }
}
