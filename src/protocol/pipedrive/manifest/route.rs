//! Which request means what.

use std::str::FromStr;

use crate::domain::{ConversationId, MessageId, ParticipantId, ProviderChannelId};

/// One of the seven manifest endpoints with its ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiCall {
    /// `GET /api/channels/:c/conversations`
    GetConversations {
        /// Channel asked for.
        channel: ProviderChannelId,
    },
    /// `GET /api/channels/:c/conversations/:id`
    GetConversationById {
        /// Channel asked for.
        channel: ProviderChannelId,
        /// Conversation asked for.
        conversation: ConversationId,
    },
    /// `POST /api/channels/:c/messages`
    PostMessage {
        /// Channel to send on.
        channel: ProviderChannelId,
    },
    /// `GET /api/channels/:c/senders/:id`
    GetSenderById {
        /// Channel asked for.
        channel: ProviderChannelId,
        /// Sender asked for.
        sender: ParticipantId,
    },
    /// `GET /api/channels/:c/templates`
    GetTemplates {
        /// Channel asked for.
        channel: ProviderChannelId,
    },
    /// `GET /api/channels/:c/conversations/:id/messages/:m` and `GET /api/channels/:c/messages/:m`
    GetMessageById {
        /// Channel asked for.
        channel: ProviderChannelId,
        /// Conversation in the path, if it is there.
        conversation: Option<ConversationId>,
        /// Message asked for.
        message: MessageId,
    },
    /// `DELETE /api/channels/:c`
    DeleteChannelById {
        /// Channel that was removed.
        channel: ProviderChannelId,
    },
}

impl ApiCall {
    /// The key of the endpoint in the manifest.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::GetConversations { .. } => "getConversations",
            Self::GetConversationById { .. } => "getConversationById",
            Self::PostMessage { .. } => "postMessage",
            Self::GetSenderById { .. } => "getSenderById",
            Self::GetTemplates { .. } => "getTemplates",
            Self::GetMessageById { .. } => "getMessageById",
            Self::DeleteChannelById { .. } => "deleteChannelById",
        }
    }

    /// The channel that is asked for.
    #[must_use]
    pub const fn channel(&self) -> &ProviderChannelId {
        match self {
            Self::GetConversations { channel }
            | Self::GetConversationById { channel, .. }
            | Self::PostMessage { channel }
            | Self::GetSenderById { channel, .. }
            | Self::GetTemplates { channel }
            | Self::GetMessageById { channel, .. }
            | Self::DeleteChannelById { channel } => channel,
        }
    }
}

/// Where a request leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// A manifest endpoint.
    Api(ApiCall),
    /// `/healthz`
    Health,
    /// `/media/<link>` with the signed part of the link; a file name after it is for people only.
    Media(String),
    /// `/avatar/<link>` with the signed part of the link.
    Avatar(String),
    /// `/oauth/callback`
    OauthCallback,
    /// Nothing is there, or an id has a form that this gateway does not make.
    NotFound,
    /// Something is there, for other methods: the value of `Allow`.
    MethodNotAllowed(&'static str),
}

/// Whether a request must carry the app's credentials. Decided before any routing, from the bytes of the path as
/// they came: fixed parts of a path are only ever recognised unescaped, so there is no second spelling.
#[must_use]
pub fn needs_credentials(method: &str, path: &str) -> bool {
    path == "/api" || path.starts_with("/api/") || (path == "/oauth/callback" && method != "GET")
}

/// Finds what a request means. `path` is the raw path without query.
#[must_use]
pub fn route(method: &str, path: &str) -> Route {
    // The longest path has seven parts; an eighth only says that there is more than that.
    let mut parts = [None; 8];
    let Some(rest) = path.strip_prefix('/') else {
        return Route::NotFound;
    };
    for (slot, part) in parts.iter_mut().zip(rest.splitn(8, '/')) {
        if part.is_empty() {
            return Route::NotFound;
        }
        *slot = Some(part);
    }
    match parts {
        [Some("healthz"), None, ..] => allow(method, GET_HEAD, || Some(Route::Health)),
        [Some("media"), Some(link), _, None, ..] => {
            allow(method, GET_HEAD, || decode(link, false).map(Route::Media))
        }
        [Some("avatar"), Some(link), None, ..] => {
            allow(method, GET_HEAD, || decode(link, false).map(Route::Avatar))
        }
        [Some("oauth"), Some("callback"), None, ..] => {
            allow(method, "GET, POST, DELETE", || Some(Route::OauthCallback))
        }
        [Some("api"), Some("channels"), Some(channel), tail @ ..] => api(method, channel, tail),
        _ => Route::NotFound,
    }
}

const GET_HEAD: &str = "GET, HEAD";

fn api(method: &str, channel: &str, tail: [Option<&str>; 5]) -> Route {
    let channel = || id::<ProviderChannelId>(channel);
    match tail {
        [None, ..] => allow(method, "DELETE", || {
            Some(Route::Api(ApiCall::DeleteChannelById { channel: channel()? }))
        }),
        [Some("conversations"), None, ..] => allow(method, "GET", || {
            Some(Route::Api(ApiCall::GetConversations { channel: channel()? }))
        }),
        [Some("conversations"), Some(conversation), None, ..] => allow(method, "GET", || {
            Some(Route::Api(ApiCall::GetConversationById {
                channel: channel()?,
                conversation: id(conversation)?,
            }))
        }),
        [
            Some("conversations"),
            Some(conversation),
            Some("messages"),
            Some(message),
            None,
        ] => allow(method, "GET", || {
            Some(Route::Api(ApiCall::GetMessageById {
                channel: channel()?,
                conversation: Some(id(conversation)?),
                message: id(message)?,
            }))
        }),
        [Some("messages"), None, ..] => allow(method, "POST", || {
            Some(Route::Api(ApiCall::PostMessage { channel: channel()? }))
        }),
        [Some("messages"), Some(message), None, ..] => allow(method, "GET", || {
            Some(Route::Api(ApiCall::GetMessageById {
                channel: channel()?,
                conversation: None,
                message: id(message)?,
            }))
        }),
        [Some("senders"), Some(sender), None, ..] => allow(method, "GET", || {
            Some(Route::Api(ApiCall::GetSenderById {
                channel: channel()?,
                sender: id(sender)?,
            }))
        }),
        [Some("templates"), None, ..] => allow(method, "GET", || {
            Some(Route::Api(ApiCall::GetTemplates { channel: channel()? }))
        }),
        _ => Route::NotFound,
    }
}

fn allow(method: &str, methods: &'static str, found: impl FnOnce() -> Option<Route>) -> Route {
    if methods.split(", ").any(|allowed| allowed == method) {
        found().unwrap_or(Route::NotFound)
    } else {
        Route::MethodNotAllowed(methods)
    }
}

fn id<T: FromStr>(part: &str) -> Option<T> {
    decode(part, false)?.parse().ok()
}

/// Undoes percent-encoding, and `+` for a space in queries; `None` for a broken escape or what is not UTF-8.
pub(in crate::protocol::pipedrive) fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Items on a page when nothing readable is asked for.
pub const DEFAULT_LIMIT: usize = 30;
/// Most items on a page.
pub const MAX_LIMIT: usize = 100;

/// The query of getConversations and getConversationById. Unknown parameters are ignored, of a repeated one the
/// first counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// `conversations_limit`
    pub conversations: usize,
    /// `messages_limit`
    pub messages: usize,
    /// `after`, absent for the first page.
    pub after: Option<String>,
}

/// Reads a raw query string. Nothing in it is an error: an unreadable limit is the default one, an unreadable
/// cursor is found out when it is decoded.
#[must_use]
pub fn page_request(query: &str) -> PageRequest {
    let value = |key: &str| {
        query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find(|(name, _)| decode(name, true).as_deref() == Some(key))
            .map(|(_, value)| value)
    };
    PageRequest {
        conversations: limit(value("conversations_limit")),
        messages: limit(value("messages_limit")),
        after: value("after")
            .filter(|text| !text.is_empty())
            // A broken escape is kept as it is: no cursor contains one.
            .map(|text| decode(text, true).unwrap_or_else(|| text.to_owned())),
    }
}

fn limit(value: Option<&str>) -> usize {
    let Some(text) = value.and_then(|text| decode(text, true)) else {
        return DEFAULT_LIMIT;
    };
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_digit()) {
        return DEFAULT_LIMIT;
    }
    // Only digits that overflow fail here, and those are more than the maximum.
    match text.parse::<usize>().unwrap_or(usize::MAX) {
        0 => DEFAULT_LIMIT,
        number => number.min(MAX_LIMIT),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Sequence;

    const CONVERSATION: ConversationId = ConversationId(7);
    const MESSAGE: MessageId = MessageId {
        conversation: CONVERSATION,
        sequence: Sequence(9),
    };

    fn channel() -> ProviderChannelId {
        "gw-1-desk".parse().unwrap()
    }

    #[test]
    fn every_endpoint_has_its_method_and_path() {
        let customer = ParticipantId::EndUser {
            conversation: CONVERSATION,
            index: 0,
        };
        let base = "/api/channels/gw-1-desk";
        let table = [
            (
                "DELETE",
                base.to_owned(),
                ApiCall::DeleteChannelById { channel: channel() },
            ),
            (
                "GET",
                format!("{base}/conversations"),
                ApiCall::GetConversations { channel: channel() },
            ),
            (
                "GET",
                format!("{base}/conversations/{CONVERSATION}"),
                ApiCall::GetConversationById {
                    channel: channel(),
                    conversation: CONVERSATION,
                },
            ),
            (
                "GET",
                format!("{base}/conversations/{CONVERSATION}/messages/{MESSAGE}"),
                ApiCall::GetMessageById {
                    channel: channel(),
                    conversation: Some(CONVERSATION),
                    message: MESSAGE,
                },
            ),
            (
                "GET",
                format!("{base}/messages/{MESSAGE}"),
                ApiCall::GetMessageById {
                    channel: channel(),
                    conversation: None,
                    message: MESSAGE,
                },
            ),
            (
                "POST",
                format!("{base}/messages"),
                ApiCall::PostMessage { channel: channel() },
            ),
            (
                "GET",
                format!("{base}/senders/{customer}"),
                ApiCall::GetSenderById {
                    channel: channel(),
                    sender: customer,
                },
            ),
            (
                "GET",
                format!("{base}/senders/gw-1-desk"),
                ApiCall::GetSenderById {
                    channel: channel(),
                    sender: ParticipantId::Source(channel()),
                },
            ),
            (
                "GET",
                format!("{base}/templates"),
                ApiCall::GetTemplates { channel: channel() },
            ),
        ];
        for (method, path, call) in table {
            assert_eq!(route(method, &path), Route::Api(call), "{method} {path}");
            assert!(needs_credentials(method, &path), "{path}");
            for other in [
                "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get",
            ] {
                if other != method {
                    assert_eq!(
                        route(other, &path),
                        Route::MethodNotAllowed(method),
                        "{other} {path}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_other_paths_have_their_methods_too() {
        assert_eq!(route("GET", "/healthz"), Route::Health);
        assert_eq!(route("HEAD", "/healthz"), Route::Health);
        assert_eq!(route("POST", "/healthz"), Route::MethodNotAllowed("GET, HEAD"));
        assert_eq!(route("GET", "/media/abc"), Route::Media("abc".to_owned()));
        assert_eq!(route("HEAD", "/avatar/abc"), Route::Avatar("abc".to_owned()));
        assert_eq!(route("GET", "/avatar/abc/x"), Route::NotFound);
        assert_eq!(
            route("HEAD", "/media/abc/roof.jpg"),
            Route::Media("abc".to_owned())
        );
        assert_eq!(route("PUT", "/media/abc"), Route::MethodNotAllowed("GET, HEAD"));
        for method in ["GET", "POST", "DELETE"] {
            assert_eq!(route(method, "/oauth/callback"), Route::OauthCallback);
        }
        assert_eq!(
            route("PATCH", "/oauth/callback"),
            Route::MethodNotAllowed("GET, POST, DELETE")
        );
    }

    #[test]
    fn what_is_nowhere_is_not_found() {
        for path in [
            "",
            "*",
            "/",
            "//",
            "/api",
            "/api/",
            "/api/channels",
            "/api/channels/",
            "/api/channels//conversations",
            "/api/channels/gw-1-desk/",
            "/api/channels/gw-1-desk/conversations/",
            "/api/channels/gw-1-desk/conversations/123",
            "/api/channels/gw-1-desk/conversations/null",
            "/api/channels/gw-1-desk/conversations/c%",
            "/api/channels/gw-1-desk/conversations/%ff",
            "/api/channels/gw-1-desk/senders",
            "/api/channels/gw-1-desk/senders/p.x",
            "/api/channels/gw-1-desk/nothing",
            "/api/channels/gw-1-desk/conversations/a/messages/b/c",
            "/api/channels/gw-1-desk/conversations/a/messages/b/c/d/e",
            "/API/channels/gw-1-desk/conversations",
            "/%61pi/channels/gw-1-desk/conversations",
            "/api/%63hannels/gw-1-desk/conversations",
            "/media",
            "/media/",
            "/media/a/",
            "/media/a/b/c",
            "/healthz/",
            "/oauth",
        ] {
            assert_eq!(route("GET", path), Route::NotFound, "{path}");
        }
    }

    #[test]
    fn an_escaped_id_is_the_same_id() {
        assert_eq!(
            route("GET", "/api/channels/gw%2D1-de%73k/templates"),
            Route::Api(ApiCall::GetTemplates { channel: channel() })
        );
        assert_eq!(
            route("GET", "/api/channels/gw-1-desk%2Ftemplates"),
            Route::MethodNotAllowed("DELETE")
        );
        assert_eq!(route("DELETE", "/api/channels/a%2Fb"), Route::NotFound);
    }

    #[test]
    fn health_files_and_the_browsers_callback_need_no_credentials() {
        assert!(!needs_credentials("GET", "/healthz"));
        assert!(!needs_credentials("GET", "/media/x"));
        assert!(!needs_credentials("GET", "/oauth/callback"));
        assert!(needs_credentials("DELETE", "/oauth/callback"));
        assert!(needs_credentials("POST", "/oauth/callback"));
        assert!(needs_credentials("GET", "/api"));
        assert!(needs_credentials("OPTIONS", "/api/whatever"));
    }

    #[test]
    fn limits_fall_back_to_thirty_and_stop_at_a_hundred() {
        for (query, expected) in [
            ("", 30),
            ("messages_limit=", 30),
            ("messages_limit", 30),
            ("messages_limit=0", 30),
            ("messages_limit=-5", 30),
            ("messages_limit=abc", 30),
            ("messages_limit=1.5", 30),
            ("messages_limit=+7", 30),
            ("messages_limit=%FF", 30),
            ("messages_limit=null", 30),
            ("messages_limit=1", 1),
            ("messages_limit=007", 7),
            ("messages_limit=%37", 7),
            ("messages%5Flimit=8", 8),
            ("messages_limit=100", 100),
            ("messages_limit=101", 100),
            ("messages_limit=99999999999999999999999999", 100),
            ("x=y&messages_limit=5&messages_limit=6&=&&%", 5),
        ] {
            assert_eq!(page_request(query).messages, expected, "{query}");
            let other = query.replace("messages", "conversations");
            assert_eq!(page_request(&other).conversations, expected, "{other}");
        }
    }

    #[test]
    fn an_empty_cursor_is_the_first_page() {
        assert_eq!(page_request("after=").after, None);
        assert_eq!(page_request("messages_limit=3").after, None);
        assert_eq!(page_request("after=a%2Db").after.as_deref(), Some("a-b"));
        assert_eq!(page_request("after=%zz").after.as_deref(), Some("%zz"));
    }

    proptest! {
        #[test]
        fn no_request_makes_the_router_panic(method in "[A-Z]{0,8}|.{0,8}", path in "(/[^/]{0,20}){0,9}|.{0,60}") {
            let found = route(&method, &path);
                if method.is_empty() { prop_assert!(!matches!(found, Route::Api(_))); }
        }

        #[test]
        fn whatever_leads_to_an_endpoint_needs_credentials(
            method in "GET|POST|DELETE|HEAD",
            path in "(/(api|%61pi|API|channels|x|messages|conversations|\\.\\.|)){0,5}"
        ) {
            if let Route::Api(_) = route(&method, &path) {
                prop_assert!(needs_credentials(&method, &path));
            }
        }

        #[test]
        fn every_page_has_between_one_and_a_hundred_items(query in ".{0,60}", number in "[0-9+ -]{0,25}") {
            for query in [query, format!("messages_limit={number}&conversations_limit={number}")] {
                let page = page_request(&query);
                prop_assert!((1..=MAX_LIMIT).contains(&page.messages));
                prop_assert!((1..=MAX_LIMIT).contains(&page.conversations));
            }
        }
    }
}
