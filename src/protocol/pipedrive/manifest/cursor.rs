//! Opaque cursors for paging.

use data_encoding::BASE64URL_NOPAD;
use ring::digest;

use crate::domain::{ChannelId, ConversationId};

const CHECK_LEN: usize = 7;

/// What a cursor pages through. A cursor made for one is unreadable for any other.
#[derive(Clone, Copy, Debug)]
pub enum Cursor<'a> {
    /// The conversations of a channel; the value is the activity of the last one shown.
    Conversations(&'a ChannelId),
    /// The messages of a conversation; the value is the sequence of the last one shown.
    Messages(ConversationId),
}

impl Cursor<'_> {
    /// Writes a place as a cursor: 20 characters that need no escaping in a URL.
    #[must_use]
    pub fn encode(&self, place: u64) -> String {
        let mut bytes = Vec::with_capacity(8 + CHECK_LEN);
        bytes.extend_from_slice(&place.to_be_bytes());
        bytes.extend_from_slice(&self.check(place));
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// Reads a cursor; `None` when it was not made here, for this.
    #[must_use]
    pub fn decode(&self, text: &str) -> Option<u64> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (place, check) = bytes.split_first_chunk::<8>()?;
        let place = u64::from_be_bytes(*place);
        (self.check(place) == check).then_some(place)
    }

    /// Guards against mistakes, not against malice: whoever may page may see every page.
    fn check(&self, place: u64) -> [u8; CHECK_LEN] {
        let mut context = digest::Context::new(&digest::SHA256);
        match self {
            Self::Conversations(channel) => {
                context.update(b"conversations\0");
                context.update(channel.as_str().as_bytes());
            }
            Self::Messages(conversation) => {
                context.update(b"messages\0");
                context.update(&conversation.0.to_be_bytes());
            }
        }
        context.update(b"\0");
        context.update(&place.to_be_bytes());
        let full = context.finish();
        full.as_ref().first_chunk().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_survives_and_opens_only_what_it_was_made_for(place: u64, a: u64, b: u64) {
            let channel: ChannelId = "desk".parse().unwrap();
            let other: ChannelId = "yard".parse().unwrap();
            let conversations = Cursor::Conversations(&channel);
            let messages = Cursor::Messages(ConversationId(a));
            let text = conversations.encode(place);
            prop_assert_eq!(text.len(), 20);
            prop_assert_eq!(conversations.decode(&text), Some(place));
            prop_assert_eq!(Cursor::Conversations(&other).decode(&text), None);
            prop_assert_eq!(messages.decode(&text), None);
            let text = messages.encode(place);
            prop_assert_eq!(messages.decode(&text), Some(place));
            if a != b {
                prop_assert_eq!(Cursor::Messages(ConversationId(b)).decode(&text), None);
            }
        }

        #[test]
        fn no_text_is_a_cursor_by_accident_or_makes_the_reader_panic(text in ".{0,32}") {
            prop_assert_eq!(Cursor::Messages(ConversationId(1)).decode(&text), None);
        }
    }

    #[test]
    fn an_empty_or_shortened_cursor_is_unreadable() {
        let cursor = Cursor::Messages(ConversationId(1));
        let text = cursor.encode(7);
        for length in 0..text.len() {
            assert_eq!(cursor.decode(&text[..length]), None, "{length} characters");
        }
    }
}
