//! The registered app, who may install it, and the tokens that were given out.
//!
//! Texts of errors are those that Pipedrive documents ("OAuth status codes" in its developer documentation).

mod consent;
mod endpoints;
mod steps;

use std::collections::{BTreeMap, HashMap};

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(super) use endpoints::answer;
pub use steps::{Decision, Visit};

use super::limits::Limits;

/// Access tokens are remembered this long after their end (milliseconds), so that an expired one is told from a
/// made-up one.
const REMEMBERED_MS: i64 = 10 * 60 * 1000;
/// The scope that the Channels API needs.
const CHANNELS_SCOPE: &str = "messengers-integration";

/// The app as it is registered with Pipedrive, and the people who can install it.
#[derive(Clone, Debug)]
pub struct App {
    /// Shown to whoever is asked for permission.
    pub name: String,
    /// The one callback URL; none = `/oauth/callback` at the gateway's URL.
    pub redirect_uri: Option<String>,
    /// What can be switched while the sandbox runs.
    pub rules: Rules,
    /// Companies by their id.
    pub companies: Vec<Company>,
    /// Users; the first one is signed in unless another is chosen.
    pub users: Vec<User>,
}

impl Default for App {
    fn default() -> Self {
        let user = |id, company, name: &str, email: &str, admin| User {
            id,
            company,
            name: name.to_owned(),
            email: email.to_owned(),
            admin,
        };
        let company = |id, name: &str| Company {
            id,
            name: name.to_owned(),
            api_domain: None,
            limits: None,
        };
        Self {
            name: "pipepost".to_owned(),
            redirect_uri: None,
            rules: Rules::default(),
            companies: vec![company(1, "Acme Heating"), company(2, "Globex Solar")],
            users: vec![
                user(11, 1, "Ada Brooks", "ada@acme.example", true),
                user(12, 1, "Ravi Patel", "ravi@acme.example", false),
                user(21, 2, "Mia Sanders", "mia@globex.example", true),
            ],
        }
    }
}

/// A company at Pipedrive.
#[derive(Clone, Debug)]
pub struct Company {
    /// Pipedrive's id.
    pub id: i64,
    /// Shown name.
    pub name: String,
    /// Base URL of its API as the token answer tells it; none = the sandbox's own address.
    pub api_domain: Option<String>,
    /// Limits of its plan; none = the sandbox's.
    pub limits: Option<Limits>,
}

/// A user of a company.
#[derive(Clone, Debug, Serialize)]
pub struct User {
    /// Pipedrive's id.
    pub id: i64,
    /// The company's id.
    pub company: i64,
    /// Shown name.
    pub name: String,
    /// E-mail address.
    pub email: String,
    /// Only admins may register channels.
    pub admin: bool,
}

/// How the OAuth server behaves; can be changed while the sandbox runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Life of an access token (seconds of the server's clock).
    pub access_seconds: u32,
    /// Life of a refresh token that is not used (seconds of the server's clock).
    pub refresh_seconds: u32,
    /// Life of an authorization code (seconds of the server's clock).
    pub code_seconds: u32,
    /// Whether a refresh gives a new refresh token and ends the old one.
    pub rotate: bool,
    /// Characters of an access token.
    pub token_length: usize,
    /// What the app may do, as it is registered.
    pub scope: String,
    /// Whether the company's channels stay when the app is uninstalled.
    pub keep_channels: bool,
    /// Whether the sandbox fetches the callback itself instead of sending the browser there. For a browser that does
    /// not trust the gateway's certificate.
    pub carry: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            access_seconds: 3_600,
            refresh_seconds: 60 * 24 * 60 * 60,
            code_seconds: 300,
            rotate: true,
            token_length: 840,
            scope: format!("base,{CHANNELS_SCOPE}"),
            keep_channels: false,
            carry: false,
        }
    }
}

impl Rules {
    /// These rules with the named ones replaced; the error says what is wrong with the change.
    pub fn changed(&self, change: &Value) -> Result<Self, String> {
        let Some(change) = change.as_object() else {
            return Err("rules must be an object".to_owned());
        };
        let mut merged = serde_json::to_value(self).map_err(|e| e.to_string())?;
        if let Some(merged) = merged.as_object_mut() {
            merged.extend(change.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        let rules: Self = serde_json::from_value(merged).map_err(|e| e.to_string())?;
        if !(16..=8_192).contains(&rules.token_length) {
            return Err(format!(
                "token_length must lie between 16 and 8192, not {}",
                rules.token_length
            ));
        }
        Ok(rules)
    }
}

/// Who calls the API.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Whose burst is counted: a refreshed token does not begin anew.
    pub(super) key: String,
    pub(super) company: i64,
    pub(super) user: i64,
    pub(super) admin: bool,
    /// Whether the app may use the Channels API.
    pub(super) channels: bool,
    /// The company's own limits.
    pub(super) limits: Option<Limits>,
}

/// A user of a company.
pub(super) type Person = (i64, i64);

/// One user's installation of the app.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Installation {
    pub(super) company: i64,
    pub(super) user: i64,
    /// Unix milliseconds on the server's clock.
    pub(super) since: i64,
    pub(super) refreshes: u64,
    #[serde(skip)]
    refresh: Option<Refresh>,
}

impl Installation {
    /// Whether its refresh token was not ended by a switch.
    pub(super) const fn is_alive(&self) -> bool {
        self.refresh.is_some()
    }
}

#[derive(Clone, Debug)]
struct Refresh {
    token: String,
    until: i64,
}

struct Access {
    person: Person,
    until: i64,
}

struct Code {
    person: Person,
    until: i64,
    used: bool,
}

/// What a token request gives.
#[derive(Clone, Debug)]
pub(super) struct Granted {
    pub(super) person: Person,
    pub(super) access_token: String,
    pub(super) refresh_token: String,
}

/// The OAuth server's memory.
pub(super) struct Registry {
    pub(super) app: App,
    /// Who is signed in at the authorize page unless another is chosen there.
    pub(super) signed_in: Person,
    /// An authorization URL that somebody wants to be opened; shown on the page.
    pub(super) offer: Option<Offer>,
    installations: BTreeMap<Person, Installation>,
    access: HashMap<String, Access>,
    codes: HashMap<String, Code>,
}

/// An authorization URL on the page.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Offer {
    /// Path and query of the authorize page.
    pub(super) path: String,
    /// When it is taken without a click (Unix milliseconds).
    pub(super) by_itself_at: Option<i64>,
}

impl Registry {
    pub(super) fn new(app: App) -> Self {
        let signed_in = app.users.first().map_or((0, 0), |user| (user.company, user.id));
        Self {
            app,
            signed_in,
            offer: None,
            installations: BTreeMap::new(),
            access: HashMap::new(),
            codes: HashMap::new(),
        }
    }

    pub(super) fn user(&self, person: Person) -> Option<&User> {
        self.app.users.iter().find(|u| (u.company, u.id) == person)
    }

    /// The user with this id, whatever the company.
    pub(super) fn person(&self, user: i64) -> Option<Person> {
        let user = self.app.users.iter().find(|u| u.id == user)?;
        Some((user.company, user.id))
    }

    pub(super) fn company(&self, id: i64) -> Option<&Company> {
        self.app.companies.iter().find(|c| c.id == id)
    }

    pub(super) fn installations(&self) -> impl Iterator<Item = &Installation> {
        self.installations.values()
    }

    pub(super) fn installed(&self, person: Person) -> bool {
        self.installations.contains_key(&person)
    }

    /// A code for whoever gave permission.
    pub(super) fn issue_code(&mut self, person: Person, now: i64) -> String {
        let code = random_text(40);
        let until = now + i64::from(self.app.rules.code_seconds) * 1000;
        self.codes.insert(
            code.clone(),
            Code {
                person,
                until,
                used: false,
            },
        );
        code
    }

    /// `grant_type=authorization_code`: a code is good once.
    pub(super) fn exchange(&mut self, code: &str, now: i64) -> Result<Granted, &'static str> {
        let known = self.codes.get_mut(code).filter(|code| !code.used);
        let Some(known) = known else {
            return Err("Invalid grant: authorization_code is invalid");
        };
        if now > known.until {
            return Err("Invalid grant: authorization_code has expired");
        }
        known.used = true;
        let person = known.person;
        let refreshes = self.installations.get(&person).map_or(0, |i| i.refreshes);
        let refresh = self.new_refresh(now);
        let granted = Granted {
            person,
            access_token: self.issue_access(person, now),
            refresh_token: refresh.token.clone(),
        };
        let installation = Installation {
            company: person.0,
            user: person.1,
            since: now,
            refreshes,
            refresh: Some(refresh),
        };
        self.installations.insert(person, installation);
        self.offer = None;
        Ok(granted)
    }

    /// `grant_type=refresh_token`.
    pub(super) fn refresh(&mut self, token: &str, now: i64) -> Result<Granted, &'static str> {
        const INVALID: &str = "Invalid grant: refresh_token is invalid";
        let (person, known) = self
            .installations
            .iter()
            .find_map(|(person, i)| Some((*person, i.refresh.clone().filter(|r| r.token == token)?)))
            .ok_or(INVALID)?;
        if now > known.until {
            return Err(INVALID);
        }
        let mut next = self.new_refresh(now);
        if !self.app.rules.rotate {
            next.token = known.token;
        }
        let refresh_token = next.token.clone();
        if let Some(installation) = self.installations.get_mut(&person) {
            installation.refresh = Some(next);
            installation.refreshes += 1;
        }
        Ok(Granted {
            person,
            access_token: self.issue_access(person, now),
            refresh_token,
        })
    }

    fn new_refresh(&self, now: i64) -> Refresh {
        Refresh {
            token: format!("{}:{}", random_digits(), random_text(40)),
            until: now + i64::from(self.app.rules.refresh_seconds) * 1000,
        }
    }

    fn issue_access(&mut self, person: Person, now: i64) -> String {
        let token = format!(
            "v1u:{}",
            random_text(self.app.rules.token_length.saturating_sub(4))
        );
        self.access.retain(|_, access| access.until + REMEMBERED_MS > now);
        let until = now + i64::from(self.app.rules.access_seconds) * 1000;
        self.access.insert(token.clone(), Access { person, until });
        token
    }

    /// Whose token it is; the error is Pipedrive's text for the 401.
    pub(super) fn caller(&self, token: &str, now: i64) -> Result<Caller, &'static str> {
        const INVALID: &str = "Invalid token: access token is invalid";
        let access = self.access.get(token).ok_or(INVALID)?;
        if now >= access.until {
            return Err("Invalid token: access token has expired");
        }
        let user = self.user(access.person).ok_or(INVALID)?;
        let scopes = &self.app.rules.scope;
        Ok(Caller {
            key: format!("{}/{}", user.company, user.id),
            company: user.company,
            user: user.id,
            admin: user.admin,
            channels: scopes
                .split([',', ' '])
                .any(|scope| scope.trim() == CHANNELS_SCOPE),
            limits: self.company(user.company).and_then(|company| company.limits),
        })
    }

    /// `/oauth/revoke`: an access token ends alone; a refresh token takes the installation with it, whose user is
    /// given back. Unknown tokens are no error (RFC 7009, section 2.2).
    pub(super) fn revoke(&mut self, token: &str) -> Option<Person> {
        if self.access.remove(token).is_some() {
            return None;
        }
        let person = self
            .installations
            .iter()
            .find_map(|(person, i)| i.refresh.as_ref().filter(|r| r.token == token).map(|_| *person))?;
        self.uninstall(person);
        Some(person)
    }

    /// Ends an installation and its tokens; `false` when there is none.
    pub(super) fn uninstall(&mut self, person: Person) -> bool {
        self.end_access(Some(person));
        self.installations.remove(&person).is_some()
    }

    /// Access tokens end at once, those of one user or all; gives how many.
    pub(super) fn end_access(&mut self, person: Option<Person>) -> usize {
        let before = self.access.len();
        self.access
            .retain(|_, access| person.is_some_and(|p| p != access.person));
        before - self.access.len()
    }

    pub(super) fn set_admin(&mut self, user: i64, admin: bool) {
        for known in self.app.users.iter_mut().filter(|known| known.id == user) {
            known.admin = admin;
        }
    }

    /// Refresh tokens end at once, those of one user or all; gives how many. Access tokens live on.
    pub(super) fn end_refresh(&mut self, person: Option<Person>) -> usize {
        let mut ended = 0;
        for (whose, installation) in &mut self.installations {
            if person.is_none_or(|p| p == *whose) {
                ended += usize::from(installation.refresh.take().is_some());
            }
        }
        ended
    }
}

/// Random characters of the URL-safe alphabet.
fn random_text(length: usize) -> String {
    let mut bytes = vec![0; length];
    if let Err(e) = getrandom::fill(&mut bytes) {
        log::error!("The sandbox has no randomness: {e}");
    }
    let mut text = BASE64URL_NOPAD.encode(&bytes);
    text.truncate(length);
    text
}

fn random_digits() -> u32 {
    10_000_000 + getrandom::u32().unwrap_or_default() % 90_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: Person = (1, 11);
    const HOUR_MS: i64 = 3_600_000;

    fn installed(rotate: bool) -> (Registry, Granted) {
        let mut registry = Registry::new(App::default());
        registry.app.rules.rotate = rotate;
        let code = registry.issue_code(ADA, 0);
        let granted = registry.exchange(&code, 0).unwrap();
        (registry, granted)
    }

    #[test]
    fn a_code_is_good_once_and_for_five_minutes() {
        let mut registry = Registry::new(App::default());
        let code = registry.issue_code(ADA, 0);
        assert!(registry.exchange(&code, 299_000).is_ok());
        assert_eq!(
            registry.exchange(&code, 299_000).unwrap_err(),
            "Invalid grant: authorization_code is invalid"
        );
        let late = registry.issue_code(ADA, 0);
        assert_eq!(
            registry.exchange(&late, 301_000).unwrap_err(),
            "Invalid grant: authorization_code has expired"
        );
    }

    #[test]
    fn access_tokens_are_long_and_expire() {
        let (registry, granted) = installed(true);
        assert!(granted.access_token.len() > 768);
        assert!(registry.caller(&granted.access_token, HOUR_MS - 1).is_ok());
        assert_eq!(
            registry.caller(&granted.access_token, HOUR_MS).unwrap_err(),
            "Invalid token: access token has expired"
        );
        assert_eq!(
            registry.caller("v1u:made-up", 0).unwrap_err(),
            "Invalid token: access token is invalid"
        );
    }

    #[test]
    fn a_rotated_refresh_token_is_good_once() {
        let (mut registry, first) = installed(true);
        let second = registry.refresh(&first.refresh_token, 1).unwrap();
        assert_ne!(first.refresh_token, second.refresh_token);
        assert_eq!(
            registry.refresh(&first.refresh_token, 2).unwrap_err(),
            "Invalid grant: refresh_token is invalid"
        );
        assert!(registry.refresh(&second.refresh_token, 2).is_ok());
        assert!(
            registry.caller(&first.access_token, 2).is_ok(),
            "an access token lives until its own end"
        );
    }

    #[test]
    fn without_rotation_each_use_renews_the_sixty_days_of_a_refresh_token() {
        let (mut registry, first) = installed(false);
        let day = 24 * HOUR_MS;
        let second = registry.refresh(&first.refresh_token, 59 * day).unwrap();
        assert_eq!(first.refresh_token, second.refresh_token);
        assert!(registry.refresh(&first.refresh_token, 118 * day).is_ok());
        assert!(registry.refresh(&first.refresh_token, 179 * day).is_err());
    }

    #[test]
    fn revoking_a_refresh_token_ends_the_installation_and_an_access_token_only_itself() {
        let (mut registry, first) = installed(true);
        let second = registry.refresh(&first.refresh_token, 1).unwrap();
        assert_eq!(registry.revoke(&first.access_token), None);
        assert!(registry.caller(&first.access_token, 2).is_err());
        assert!(registry.caller(&second.access_token, 2).is_ok());
        assert_eq!(registry.revoke("unknown"), None);
        assert_eq!(registry.revoke(&second.refresh_token), Some(ADA));
        assert!(registry.caller(&second.access_token, 2).is_err());
        assert!(!registry.installed(ADA));
    }

    #[test]
    fn rules_that_make_no_sense_are_refused_in_words() {
        let rules = Rules::default();
        assert!(
            rules
                .changed(&serde_json::json!({"accessSeconds": 1}))
                .unwrap_err()
                .contains("accessSeconds")
        );
        assert!(
            rules
                .changed(&serde_json::json!({"token_length": 3}))
                .unwrap_err()
                .contains("token_length")
        );
        let changed = rules.changed(&serde_json::json!({"access_seconds": 2})).unwrap();
        assert_eq!((changed.access_seconds, changed.rotate), (2, true));
    }
}
