//! A Pipedrive for tests of tokens: sign-in, user, channels and messages, as the test says.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::json;

use super::{AccessToken, AccountOptions, Accounts, App, ChannelsUplink};
use crate::domain::Secret;
use crate::http::scripted::{Act, Arrived, Server, json as answer};
use crate::http::{Client, Options};
use crate::protocol::pipedrive::wire::TimeForm;
use crate::store::{self, Store};

pub(crate) const CLIENT_SECRET: &str = "very-client-secret";
pub(crate) const REDIRECT_URI: &str = "https://gw.example/oauth/callback";

/// What the server does; tests change it.
pub(crate) struct Rules {
    pub(crate) user: (u64, u64),
    pub(crate) lifetime_s: u64,
    pub(crate) rotates: bool,
    pub(crate) scope: &'static str,
    pub(crate) admin: bool,
    /// The next token requests are answered so.
    pub(crate) refuse_tokens: Option<(u16, &'static str)>,
    /// Every access token is refused.
    pub(crate) refuse_access: bool,
    /// Called in the middle of a token request.
    pub(crate) meanwhile: Option<Box<dyn FnOnce() + Send>>,
    pub(crate) codes: HashSet<String>,
    pub(crate) access: HashSet<String>,
    pub(crate) refresh: HashSet<String>,
    pub(crate) channels: Vec<(String, String)>,
    pub(crate) revoked: Vec<String>,
    given: u64,
}

pub(crate) struct Fake {
    pub(crate) server: Server,
    rules: Arc<Mutex<Rules>>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let rules = Arc::new(Mutex::new(Rules {
            user: (12, 7),
            lifetime_s: 3600,
            rotates: true,
            scope: "base,messengers-integration",
            admin: true,
            refuse_tokens: None,
            refuse_access: false,
            meanwhile: None,
            codes: HashSet::from(["code-1".to_owned(), "code-2".to_owned(), "code-3".to_owned()]),
            access: HashSet::new(),
            refresh: HashSet::new(),
            channels: Vec::new(),
            revoked: Vec::new(),
            given: 0,
        }));
        let shared = Arc::clone(&rules);
        let server = Server::plain(move |_, arrived| respond(&shared, arrived));
        Self { server, rules }
    }

    pub(crate) fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap()
    }

    pub(crate) fn refreshes(&self) -> usize {
        let requests = self.server.requests.lock().unwrap();
        let is = |request: &&Arrived| {
            String::from_utf8_lossy(&request.body).starts_with("grant_type=refresh_token")
        };
        requests.iter().filter(is).count()
    }

    pub(crate) fn client() -> Client {
        Client::new(&Options {
            timeout: Duration::from_secs(5),
            ..Options::default()
        })
        .unwrap()
    }

    pub(crate) fn accounts(&self, store: &Store, key: Option<&str>) -> Accounts {
        let options = AccountOptions {
            client: Self::client(),
            app: Some(App {
                client_id: "client".to_owned(),
                client_secret: Secret::new(CLIENT_SECRET.to_owned()),
                oauth_url: self.server.url(),
                redirect_uri: Some(REDIRECT_URI.to_owned()),
            }),
            api_url: None,
            fixed: ("http://localhost:1/v1".to_owned(), AccessToken::new(None)),
            token_key: key.map(|key| Secret::new(key.to_owned())),
        };
        Accounts::open(store, options).unwrap()
    }

    pub(crate) fn uplink(accounts: &Accounts) -> ChannelsUplink {
        ChannelsUplink::with_accounts(Self::client(), accounts.clone(), TimeForm::Iso8601)
    }
}

pub(crate) fn store(folder: &tempfile::TempDir) -> Store {
    let mut options = store::Options::new(folder.path());
    options.gateway_id = Some("gw-1".parse().unwrap());
    options.disk_reserve = 0;
    Store::open(options).unwrap()
}

fn field(body: &str, name: &str) -> String {
    let found = body
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_default().to_owned()
}

fn error(status: u16, words: &str) -> Act {
    answer(status, &json!({"success": false, "error": words}).to_string())
}

fn respond(rules: &Mutex<Rules>, arrived: &Arrived) -> Act {
    let path = arrived.line.split(' ').nth(1).unwrap_or_default();
    let body = String::from_utf8_lossy(&arrived.body).into_owned();
    if path == "/oauth/token" {
        let meanwhile = rules.lock().unwrap().meanwhile.take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
    }
    let mut rules = rules.lock().unwrap();
    match path {
        "/oauth/token" | "/oauth/revoke" => {
            // client:very-client-secret
            if arrived.header("authorization") != Some("Basic Y2xpZW50OnZlcnktY2xpZW50LXNlY3JldA==") {
                return error(401, "Invalid client: client is invalid");
            }
            if path == "/oauth/revoke" {
                rules.revoked.push(field(&body, "token"));
                return answer(200, r#"{"success":true}"#);
            }
            if let Some((status, words)) = rules.refuse_tokens {
                return error(status, words);
            }
            token(&mut rules, &body, arrived.header("host").unwrap_or_default())
        }
        _ => {
            let bearer = arrived.header("authorization").unwrap_or_default();
            let token = bearer.strip_prefix("Bearer ").unwrap_or_default();
            if rules.refuse_access || !rules.access.contains(token) {
                return error(401, "unauthorized access");
            }
            let (company_id, id) = rules.user;
            match path {
                "/api/v1/users/me" => answer(
                    200,
                    &json!({"success": true, "data": {
                        "id": id, "name": "Ada", "company_id": company_id, "company_name": "Acme",
                    }})
                    .to_string(),
                ),
                "/api/v1/channels" if !rules.admin => answer(
                    403,
                    r#"{"success":false,"error":"no","additional_data":{"code":"ADMIN_ONLY"}}"#,
                ),
                "/api/v1/channels" => {
                    let channel = arrived.json()["provider_channel_id"].as_str().unwrap().to_owned();
                    let token = token.to_owned();
                    rules.channels.push((channel, token));
                    answer(200, r#"{"success":true,"data":{}}"#)
                }
                _ => answer(200, r#"{"success":true,"data":{}}"#),
            }
        }
    }
}

fn token(rules: &mut Rules, body: &str, host: &str) -> Act {
    let refreshed = field(body, "refresh_token");
    match field(body, "grant_type").as_str() {
        "authorization_code" => {
            if field(body, "redirect_uri") != "https%3A%2F%2Fgw.example%2Foauth%2Fcallback" {
                return error(400, "Invalid request: `redirect_uri` is invalid");
            }
            if !rules.codes.remove(&field(body, "code")) {
                return error(400, "Invalid grant: authorization code is invalid");
            }
        }
        _ if !rules.refresh.contains(&refreshed) => {
            return error(400, "Invalid grant: refresh token is invalid");
        }
        _ => {}
    }
    rules.given += 1;
    let number = rules.given;
    let refresh = if refreshed.is_empty() || rules.rotates {
        rules.refresh.remove(&refreshed);
        format!("refresh-{number}")
    } else {
        refreshed
    };
    rules.refresh.insert(refresh.clone());
    rules.access.insert(format!("access-{number}"));
    let tokens = json!({
        "access_token": format!("access-{number}"), "refresh_token": refresh, "expires_in": rules.lifetime_s,
        "scope": rules.scope, "api_domain": format!("http://{host}"),
    });
    answer(200, &tokens.to_string())
}
