//! The fields of postMessage.

use super::failure::{Code, Failure};

/// Longest text of one form field, in bytes.
pub const MAX_FIELD: usize = 64 * 1024;
/// Most files of one message.
pub const MAX_FILES: usize = 20;
/// Most fields of one form, files included.
pub const MAX_FIELDS: usize = 256;

/// Collects the text fields of a form as they arrive.
#[derive(Debug, Default)]
pub struct PostForm {
    message: Option<String>,
    sender: Option<String>,
    conversation: Option<String>,
    recipients: Vec<String>,
}

/// A complete form.
#[derive(Debug, PartialEq, Eq)]
pub struct Post {
    /// `message`; empty when there are only files.
    pub message: String,
    /// `senderId`, as it came.
    pub sender: Option<String>,
    /// `conversationId`, as it came.
    pub conversation: String,
    /// All `recipientIds`, as they came.
    pub recipients: Vec<String>,
}

impl PostForm {
    /// Takes one text field. Unknown names are ignored.
    pub fn field(&mut self, name: &str, value: String) -> Result<(), Failure> {
        match name {
            "message" => once(&mut self.message, value, "message is given twice"),
            "senderId" => once(&mut self.sender, value, "senderId is given twice"),
            "conversationId" => once(&mut self.conversation, value, "conversationId is given twice"),
            _ if is_list(name, "recipientIds") => {
                let ids = value.split(',').map(str::trim).filter(|id| !id.is_empty());
                self.recipients.extend(ids.map(str::to_owned));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Checks what can be checked without knowing the conversation.
    pub fn finish(self) -> Result<Post, Failure> {
        // Given but empty is no missing field, only a conversation that nobody has.
        let conversation = self
            .conversation
            .ok_or_else(|| invalid("conversationId is missing"))?;
        let message = self.message.unwrap_or_default();
        Ok(Post {
            message: if message.trim().is_empty() {
                String::new()
            } else {
                message
            },
            sender: self.sender.filter(|sender| !sender.trim().is_empty()),
            conversation: conversation.trim().to_owned(),
            recipients: self.recipients,
        })
    }
}

impl Post {
    /// Whether there is anything to send. Asked once the conversation is known to exist: a form that fits the
    /// contract is refused for its conversation first.
    pub fn check_content(&self, files: usize) -> Result<(), Failure> {
        if self.message.is_empty() && files == 0 {
            return Err(invalid("message is missing or empty, and there are no files"));
        }
        Ok(())
    }
}

fn once(slot: &mut Option<String>, value: String, twice: &'static str) -> Result<(), Failure> {
    if slot.is_some() {
        return Err(invalid(twice));
    }
    *slot = Some(value);
    Ok(())
}

fn invalid(message: &'static str) -> Failure {
    Failure::new(Code::InvalidBody, message)
}

/// `name`, `name[]` or `name[0]`.
fn is_list(field: &str, name: &str) -> bool {
    let Some(rest) = field.strip_prefix(name) else {
        return false;
    };
    let index = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    rest.is_empty() || index.is_some_and(|index| index.bytes().all(|c| c.is_ascii_digit()))
}

/// Whether a part of the form is a file: `files`, `files[]`, `files[0]`, or anything that has a file name.
#[must_use]
pub fn is_file_field(name: &str, file_name: Option<&str>) -> bool {
    file_name.is_some() || is_list(name, "files")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(fields: &[(&str, &str)], files: usize) -> Result<Post, Failure> {
        let mut form = PostForm::default();
        for (name, value) in fields {
            form.field(name, (*value).to_owned())?;
        }
        let post = form.finish()?;
        post.check_content(files)?;
        Ok(post)
    }

    #[test]
    fn recipients_are_understood_in_every_spelling() {
        for fields in [
            &[("recipientIds[]", "a"), ("recipientIds[]", "b")][..],
            &[("recipientIds", "a"), ("recipientIds", "b")],
            &[("recipientIds[0]", "a"), ("recipientIds[1]", "b")],
            &[("recipientIds", "a,b")],
            &[("recipientIds[]", " a , ,b")],
        ] {
            let mut all = vec![("message", "hi"), ("conversationId", "c1")];
            all.extend_from_slice(fields);
            assert_eq!(form(&all, 0).unwrap().recipients, ["a", "b"], "{fields:?}");
        }
    }

    #[test]
    fn a_message_needs_a_conversation_and_a_text_or_a_file() {
        let said = |fields: &[(&str, &str)], files| form(fields, files).unwrap_err().message.into_owned();
        assert_eq!(said(&[("message", "hi")], 0), "conversationId is missing");
        let blank = form(&[("message", "hi"), ("conversationId", " ")], 0).unwrap();
        assert_eq!(blank.conversation, "");
        let empty = "message is missing or empty, and there are no files";
        assert_eq!(said(&[("conversationId", "c")], 0), empty);
        assert_eq!(said(&[("conversationId", "c"), ("message", " \n")], 0), empty);
        assert_eq!(
            said(&[("message", "a"), ("message", "b")], 0),
            "message is given twice"
        );
        let only_a_file = form(&[("conversationId", "c"), ("message", " ")], 1).unwrap();
        assert_eq!(only_a_file.message, "");
    }

    #[test]
    fn a_text_is_kept_as_it_was_written_and_unknown_fields_are_ignored() {
        let post = form(
            &[
                ("conversationId", " c "),
                ("message", " hi\r\n"),
                ("extra", "1"),
                ("senderId", "x"),
            ],
            0,
        );
        assert_eq!(
            post.unwrap(),
            Post {
                message: " hi\r\n".to_owned(),
                sender: Some("x".to_owned()),
                conversation: "c".to_owned(),
                recipients: Vec::new(),
            }
        );
    }

    #[test]
    fn a_file_is_known_by_its_field_or_by_its_name() {
        assert!(is_file_field("files", None));
        assert!(is_file_field("files[]", None));
        assert!(is_file_field("files[12]", None));
        assert!(is_file_field("other", Some("a.txt")));
        assert!(!is_file_field("filesystem", None));
        assert!(!is_file_field("files[x]", None));
        assert!(!is_file_field("message", None));
    }
}
