//! Shapes that the Channels API and the manifest endpoints share.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::domain::{self, AttachmentId, DeliveryState, OutgoingState, Timestamp};
use crate::protocol::file;

/// Shown for a message that carries neither text nor file: Pipedrive wants `message` to say something.
pub const EMPTY_MESSAGE: &str = "(empty message)";

/// Form of `created_at` in requests to the Channels API. Answers of the manifest endpoints always use
/// [`Self::Iso8601`].
///
/// Pipedrive's prose and sample application say `YYYY-MM-DD HH:MM`, its schema says date-time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeForm {
    /// UTC with milliseconds and `Z`; keeps the order within a minute.
    #[default]
    Iso8601,
    /// UTC `YYYY-MM-DD HH:MM`.
    Minutes,
}

impl TimeForm {
    /// Writes a time in this form.
    #[must_use]
    pub fn write(self, time: Timestamp) -> String {
        match self {
            Self::Iso8601 => time.to_iso8601(),
            Self::Minutes => time.to_minutes(),
        }
    }
}

/// What `message` says: the text, or for an empty one the names of its files, or [`EMPTY_MESSAGE`]. Of an agent's message
/// that was not sent, or of which nobody knows, a line under it says why: Pipedrive has no field for a reason.
#[must_use]
pub fn shown_message(message: &domain::Message) -> Cow<'_, str> {
    let mut text = shown_text(&message.text, &message.attachments);
    let line = match &message.state {
        DeliveryState::Outgoing(OutgoingState::Rejected(reason)) => format!("\n[not delivered: {reason}]"),
        DeliveryState::Outgoing(OutgoingState::Unknown(reason)) => {
            format!("\n[unknown whether it was sent: {reason}]")
        }
        DeliveryState::Outgoing(_) | DeliveryState::Incoming(_) => return text,
    };
    text.to_mut().push_str(&line);
    text
}

/// A text of nothing but white space counts as empty.
fn shown_text<'a>(text: &'a str, attachments: &'a [domain::Attachment]) -> Cow<'a, str> {
    if !text.trim().is_empty() {
        return Cow::Borrowed(text);
    }
    match attachments {
        [] => Cow::Borrowed(EMPTY_MESSAGE),
        [only] => Cow::Borrowed(shown_name(only)),
        several => Cow::Owned(several.iter().map(shown_name).collect::<Vec<_>>().join(", ")),
    }
}

fn shown_name(attachment: &domain::Attachment) -> &str {
    let name = attachment.name.trim();
    if name.is_empty() { "file" } else { name }
}

/// A file of a message: `{id, type, url, name, size, preview_url, link_expires}`, all present.
///
/// `preview_url` is the link itself: Pipedrive's validation demands the key on every file, and our links serve
/// the file as it is. `link_expires` is always true: our links do, and Pipedrive then asks `getMessageById` for
/// a fresh one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment<'a> {
    id: AttachmentId,
    mime: &'a str,
    name: &'a str,
    size: u64,
    url: Cow<'a, str>,
}

impl<'a> Attachment<'a> {
    /// Shows a stored file under a link to it.
    pub fn new(attachment: &'a domain::Attachment, url: impl Into<Cow<'a, str>>) -> Self {
        let mime = attachment.mime.trim();
        Self {
            id: attachment.id,
            mime: if mime.is_empty() { file::UNKNOWN } else { mime },
            name: shown_name(attachment),
            size: attachment.size,
            url: url.into(),
        }
    }
}

impl Serialize for Attachment<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut json = serializer.serialize_struct("Attachment", 7)?;
        json.serialize_field("id", &self.id)?;
        json.serialize_field("type", self.mime)?;
        json.serialize_field("url", &self.url)?;
        json.serialize_field("name", self.name)?;
        json.serialize_field("size", &self.size)?;
        json.serialize_field("preview_url", &self.url)?;
        json.serialize_field("link_expires", &true)?;
        json.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(name: &str, mime: &str) -> domain::Attachment {
        domain::Attachment {
            id: AttachmentId(7),
            name: name.to_owned(),
            mime: mime.to_owned(),
            size: 12,
        }
    }

    #[test]
    fn a_file_is_written_with_every_key_that_pipedrive_demands() {
        let stored = file("roof.jpg", "image/jpeg");
        assert_eq!(
            serde_json::to_value(Attachment::new(&stored, "https://gw.example/media/x")).unwrap(),
            json!({
                "id": AttachmentId(7).to_string(),
                "type": "image/jpeg",
                "url": "https://gw.example/media/x",
                "name": "roof.jpg",
                "size": 12,
                "preview_url": "https://gw.example/media/x",
                "link_expires": true,
            })
        );
    }

    #[test]
    fn a_file_without_name_or_type_still_has_both() {
        let stored = file(" ", "");
        let json = serde_json::to_value(Attachment::new(&stored, "u")).unwrap();
        assert_eq!(json["name"], "file");
        assert_eq!(json["type"], "application/octet-stream");
    }

    #[test]
    fn an_empty_text_shows_the_file_names_or_says_that_it_is_empty() {
        assert_eq!(shown_text("hello", &[file("a", "b")]), "hello");
        assert_eq!(shown_text("", &[]), "(empty message)");
        assert_eq!(shown_text(" \n", &[]), "(empty message)");
        assert_eq!(shown_text("", &[file("roof.jpg", "")]), "roof.jpg");
        assert_eq!(
            shown_text("", &[file("a.jpg", ""), file("b.jpg", "")]),
            "a.jpg, b.jpg"
        );
    }

    #[test]
    fn a_text_keeps_its_own_white_space() {
        assert_eq!(shown_text(" hi\n", &[]), " hi\n");
    }

    #[test]
    fn time_has_two_forms_in_requests() {
        let time = Timestamp::from_unix_ms(1_769_744_285_007);
        assert_eq!(TimeForm::default().write(time), "2026-01-30T03:38:05.007Z");
        assert_eq!(TimeForm::Minutes.write(time), "2026-01-30 03:38");
    }
}
