//! What Pipedrive demands of requests to its Channels API, and what it may demand of the gateway's answers.
//!
//! Each function returns findings in words; an empty list means that the contract holds. The rules are those of
//! Pipedrive's public documentation and of the texts of its 400 answers.

use serde_json::Value;

use super::fields::{Field, Kind, check, is_id, is_iso_time, optional, required};

const STATUSES: &[&str] = &["sent", "delivered", "read", "failed"];

/// An attachment of `POST /channels/messages/receive`. The reference marks `name`, `size` and `preview_url` as
/// optional; the text of the documented 400 says that the runtime wants them.
const POSTED_ATTACHMENT: &[Field] = &[
    required("id", Kind::Id),
    required("type", Kind::Text),
    required("url", Kind::Url),
    required("name", Kind::Text),
    required("size", Kind::Count),
    required("preview_url", Kind::UrlOrEmpty),
    optional("link_expires", Kind::Bool),
];

const POSTED_MESSAGE: &[Field] = &[
    required("id", Kind::Id),
    required("channel_id", Kind::Id),
    required("sender_id", Kind::Id),
    required("conversation_id", Kind::Id),
    required("message", Kind::Text),
    required("status", Kind::Word(STATUSES)),
    required("created_at", Kind::EitherTime),
    optional("reply_by", Kind::EitherTime),
    optional("conversation_link", Kind::Url),
    required("attachments", Kind::List(POSTED_ATTACHMENT)),
];

const CHANNEL: &[Field] = &[
    required("name", Kind::Text),
    required("provider_channel_id", Kind::Id),
    optional("avatar_url", Kind::Url),
    optional("provider_type", Kind::Word(&["facebook", "whatsapp", "other"])),
    optional("template_support", Kind::Bool),
];

const SERVED_ATTACHMENT: &[Field] = &[
    required("id", Kind::Id),
    required("type", Kind::Text),
    required("url", Kind::Url),
    optional("name", Kind::Text),
    optional("size", Kind::Count),
    optional("preview_url", Kind::UrlOrEmpty),
    optional("link_expires", Kind::Bool),
];

const SERVED_MESSAGE: &[Field] = &[
    required("id", Kind::Id),
    required("status", Kind::Word(STATUSES)),
    required("created_at", Kind::IsoTime),
    required("message", Kind::Str),
    required("sender_id", Kind::Id),
    optional("reply_by", Kind::IsoTime),
    required("attachments", Kind::List(SERVED_ATTACHMENT)),
];

const PARTICIPANT: &[Field] = &[
    required("id", Kind::Id),
    required("name", Kind::Text),
    required("role", Kind::Word(&["end_user", "source_user"])),
    optional("avatar_url", Kind::UrlOrEmpty),
    optional("fetch_avatar", Kind::Bool),
    optional("avatar_expires", Kind::Bool),
];

const CONVERSATION: &[Field] = &[
    required("id", Kind::Id),
    required("link", Kind::UrlOrEmpty),
    required("status", Kind::Word(&["open", "closed"])),
    required("seen", Kind::Bool),
    required("next_messages_cursor", Kind::Str),
    required("messages", Kind::List(SERVED_MESSAGE)),
    required("participants", Kind::List(PARTICIPANT)),
];

const AFTER: &[Field] = &[required("after", Kind::Str)];

const CONVERSATION_LIST: &[Field] = &[
    required("success", Kind::True),
    required("data", Kind::List(CONVERSATION)),
    required("additional_data", Kind::Object(AFTER)),
];

const ONE_CONVERSATION: &[Field] = &[
    required("success", Kind::True),
    required("data", Kind::Object(CONVERSATION)),
    required("additional_data", Kind::Object(AFTER)),
];

const SENDER_DATA: &[Field] = &[
    required("id", Kind::Id),
    required("name", Kind::Text),
    optional("avatar_url", Kind::UrlOrEmpty),
];
const SENDER: &[Field] = &[
    required("success", Kind::True),
    required("data", Kind::Object(SENDER_DATA)),
];

const TEMPLATE: &[Field] = &[
    required("id", Kind::Id),
    required("name", Kind::Text),
    required("content", Kind::Text),
    required("language", Kind::Str),
];
const TEMPLATES_DATA: &[Field] = &[required("templates", Kind::List(TEMPLATE))];
const TEMPLATES: &[Field] = &[
    required("success", Kind::True),
    required("data", Kind::Object(TEMPLATES_DATA)),
];

const POSTED_DATA: &[Field] = &[required("id", Kind::Id)];
const POSTED: &[Field] = &[
    required("success", Kind::True),
    required("data", Kind::Object(POSTED_DATA)),
];

const DELETED: &[Field] = &[required("success", Kind::True)];

const ERROR_DATA: &[Field] = &[
    required("message", Kind::Text),
    required("code", Kind::Text),
    optional("retry_by", Kind::IsoTime),
];

/// Findings about the body of `POST /channels/messages/receive`.
pub(super) fn received_message(body: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    check("", body, POSTED_MESSAGE, &mut problems);
    problems.extend(repeats("attachments", body.get("attachments")));
    problems
}

/// Findings about the body of `POST /channels`.
pub(super) fn channel(body: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    check("", body, CHANNEL, &mut problems);
    problems
}

/// Findings about the answer of getConversations.
pub(super) fn conversation_list(body: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    check("", body, CONVERSATION_LIST, &mut problems);
    let conversations = body
        .get("data")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    problems.extend(repeats("data", body.get("data")));
    for (index, conversation) in conversations.iter().enumerate() {
        conversation_rules(&format!("data[{index}]"), conversation, &mut problems);
    }
    problems
}

/// Findings about the answer of getConversationById.
pub(super) fn one_conversation(body: &Value, id: &str) -> Vec<String> {
    let mut problems = Vec::new();
    check("", body, ONE_CONVERSATION, &mut problems);
    let Some(conversation) = body.get("data") else {
        return problems;
    };
    conversation_rules("data", conversation, &mut problems);
    same_id("data.id", conversation, id, &mut problems);
    let cursor = conversation.get("next_messages_cursor").and_then(Value::as_str);
    let after = body.pointer("/additional_data/after").and_then(Value::as_str);
    if let (Some(cursor), Some(after)) = (cursor, after)
        && cursor != after
    {
        problems.push(format!(
            "additional_data.after ({after:?}) must equal data.next_messages_cursor ({cursor:?})"
        ));
    }
    problems
}

/// Rules that a table of fields cannot say.
fn conversation_rules(path: &str, conversation: &Value, problems: &mut Vec<String>) {
    let participants = conversation
        .get("participants")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let count = |role: &str| {
        participants
            .iter()
            .filter(|p| p.get("role").and_then(Value::as_str) == Some(role))
            .count()
    };
    let (source, end) = (count("source_user"), count("end_user"));
    if source != 1 {
        problems.push(format!(
            "{path}.participants must have exactly one source_user, not {source}"
        ));
    }
    if end == 0 {
        problems.push(format!("{path}.participants must have at least one end_user"));
    }
    problems.extend(repeats(
        &format!("{path}.participants"),
        conversation.get("participants"),
    ));
    problems.extend(repeats(&format!("{path}.messages"), conversation.get("messages")));
}

/// Findings about the answer of getMessageById, which has no envelope.
pub(super) fn one_message(body: &Value, id: &str) -> Vec<String> {
    let mut problems = Vec::new();
    check("", body, SERVED_MESSAGE, &mut problems);
    same_id("id", body, id, &mut problems);
    problems.extend(repeats("attachments", body.get("attachments")));
    problems
}

/// Findings about the answer of getSenderById.
pub(super) fn sender(body: &Value, id: &str) -> Vec<String> {
    let mut problems = Vec::new();
    check("", body, SENDER, &mut problems);
    if let Some(data) = body.get("data") {
        same_id("data.id", data, id, &mut problems);
    }
    problems
}

/// Findings about the answer of getTemplates.
pub(super) fn templates(body: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    check("", body, TEMPLATES, &mut problems);
    problems.extend(repeats("data.templates", body.pointer("/data/templates")));
    problems
}

/// Findings about the answer of postMessage.
pub(super) fn posted(body: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    check("", body, POSTED, &mut problems);
    problems
}

/// Findings about the answer of deleteChannelById.
pub(super) fn deleted(body: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    check("", body, DELETED, &mut problems);
    problems
}

/// Findings about an error answer of a manifest endpoint: its shape, and whether code and status belong together.
pub(super) fn error(status: u16, body: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    if body.get("success") != Some(&Value::Bool(false)) {
        problems.push("success must be false in an error".to_owned());
    }
    if let Some(object) = body.as_object() {
        for name in object
            .keys()
            .filter(|name| !matches!(name.as_str(), "success" | "data"))
        {
            problems.push(format!("{name} is not a known field of an error"));
        }
    }
    match body.get("data") {
        Some(data) => check("data", data, ERROR_DATA, &mut problems),
        None => problems.push("data is missing in an error".to_owned()),
    }
    let code = body
        .pointer("/data/code")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let wanted: Option<&[&str]> = match status {
        400 => Some(&["INVALID_BODY"]),
        401 => Some(&["UNAUTHORIZED", "ACCOUNT_SUSPENDED"]),
        403 => Some(&["FORBIDDEN"]),
        404 => Some(&["NOT_FOUND"]),
        429 => Some(&["RATE_LIMIT_EXCEEDED"]),
        _ => None,
    };
    if let Some(wanted) = wanted
        && !wanted.contains(&code)
    {
        problems.push(format!(
            "data.code of a {status} must be {}, not {code:?}",
            wanted.join(" or ")
        ));
    }
    if status == 429 {
        let retry_by = body.pointer("/data/retry_by").and_then(Value::as_str);
        if !retry_by.is_some_and(|time| is_iso_time(time) && time.ends_with('Z')) {
            problems.push("data.retry_by of a 429 must be an ISO 8601 time in UTC".to_owned());
        }
    }
    problems
}

/// Findings about a manifest file (`pipepost manifest`), which names the endpoints.
pub(super) fn manifest(manifest: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    if manifest.get("version").and_then(Value::as_str) != Some("v202101") {
        problems.push("version must be \"v202101\"".to_owned());
    }
    let Some(endpoints) = manifest.get("endpoints").and_then(Value::as_object) else {
        problems.push("endpoints must be an object".to_owned());
        return problems;
    };
    for (name, parts) in ENDPOINTS {
        let Some(url) = endpoints.get(*name).and_then(Value::as_str) else {
            problems.push(format!("endpoints.{name} is missing"));
            continue;
        };
        if !url.starts_with("https://") {
            problems.push(format!("endpoints.{name} must be an https URL"));
        }
        for part in *parts {
            if !url.split(['/', '?']).any(|segment| segment == *part) {
                problems.push(format!("endpoints.{name} must contain {part}"));
            }
        }
    }
    for name in endpoints
        .keys()
        .filter(|name| !ENDPOINTS.iter().any(|(known, _)| known == name))
    {
        problems.push(format!("endpoints.{name} is not a known endpoint"));
    }
    problems
}

/// Names of the endpoints in a manifest, each with the placeholders that its URL must carry.
const ENDPOINTS: &[(&str, &[&str])] = &[
    ("getConversations", &[":providerChannelId"]),
    (
        "getConversationById",
        &[":providerChannelId", ":sourceConversationId"],
    ),
    ("postMessage", &[":providerChannelId"]),
    ("getSenderById", &[":providerChannelId", ":senderId"]),
    ("getTemplates", &[":providerChannelId"]),
    ("getMessageById", &[":providerChannelId", ":sourceMessageId"]),
    ("deleteChannelById", &[":providerChannelId"]),
];

fn same_id(path: &str, object: &Value, id: &str, problems: &mut Vec<String>) {
    let served = object.get("id").and_then(Value::as_str).unwrap_or_default();
    if is_id(served) && served != id {
        problems.push(format!("{path} is {served:?}, but {id:?} was asked for"));
    }
}

/// Ids that occur twice in a list of objects.
fn repeats(path: &str, list: Option<&Value>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    let items = list.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    items
        .iter()
        .filter_map(|item| item.get("id").and_then(Value::as_str))
        .filter(|id| !seen.insert(*id))
        .map(|id| format!("{path} has the id {id:?} twice"))
        .collect()
}
