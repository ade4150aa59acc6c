//! The manifest itself: where Pipedrive finds the endpoints.

use serde::Serialize;

#[derive(Serialize)]
struct Document {
    version: &'static str,
    endpoints: Endpoints,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoints {
    get_conversations: String,
    get_conversation_by_id: String,
    post_message: String,
    get_sender_by_id: String,
    get_templates: String,
    get_message_by_id: String,
    delete_channel_by_id: String,
}

/// The manifest for the app's page in Pipedrive's Developer Hub, as indented JSON.
///
/// One manifest serves all gateways of an app: the channel is a variable in each address.
#[must_use]
pub fn document(public_url: &str) -> String {
    let channel = format!(
        "{}/api/channels/:providerChannelId",
        public_url.trim_end_matches('/')
    );
    let document = Document {
        version: "v202101",
        endpoints: Endpoints {
            get_conversations: format!("{channel}/conversations"),
            get_conversation_by_id: format!("{channel}/conversations/:sourceConversationId"),
            post_message: format!("{channel}/messages"),
            get_sender_by_id: format!("{channel}/senders/:senderId"),
            get_templates: format!("{channel}/templates"),
            get_message_by_id: format!(
                "{channel}/conversations/:sourceConversationId/messages/:sourceMessageId"
            ),
            delete_channel_by_id: channel,
        },
    };
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::route::{Route, route};
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_manifest_names_all_seven_endpoints() {
        let manifest: Value = serde_json::from_str(&document("https://sms.example/")).unwrap();
        assert_eq!(
            manifest,
            json!({"version": "v202101", "endpoints": {
                "getConversations": "https://sms.example/api/channels/:providerChannelId/conversations",
                "getConversationById":
                    "https://sms.example/api/channels/:providerChannelId/conversations/:sourceConversationId",
                "postMessage": "https://sms.example/api/channels/:providerChannelId/messages",
                "getSenderById": "https://sms.example/api/channels/:providerChannelId/senders/:senderId",
                "getTemplates": "https://sms.example/api/channels/:providerChannelId/templates",
                "getMessageById": "https://sms.example/api/channels/:providerChannelId/conversations/\
                    :sourceConversationId/messages/:sourceMessageId",
                "deleteChannelById": "https://sms.example/api/channels/:providerChannelId",
            }})
        );
    }

    #[test]
    fn every_address_of_the_manifest_leads_to_a_route() {
        let manifest: Value = serde_json::from_str(&document("")).unwrap();
        let endpoints = manifest["endpoints"].as_object().unwrap();
        assert_eq!(endpoints.len(), 7);
        for (name, template) in endpoints {
            let path = template
                .as_str()
                .unwrap()
                .replace(":providerChannelId", "gw-1-desk")
                .replace(":sourceConversationId", "cg000000000000")
                .replace(":sourceMessageId", "m00000000000000000000000000")
                .replace(":senderId", "gw-1-desk");
            let method = match name.as_str() {
                "postMessage" => "POST",
                "deleteChannelById" => "DELETE",
                _ => "GET",
            };
            let found = route(method, &path);
            assert!(
                matches!(&found, Route::Api(call) if call.name() == name),
                "{name}: {found:?}"
            );
        }
    }
}
