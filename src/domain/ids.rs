//! One type per identifier, its scope stated.
//!
//! Identifiers that leave the gateway are URL-safe, opaque and stable, and do not reveal a phone number.
//! Random parts come from the operating system, so that a gateway whose store was lost never gives an old id
//! to a new conversation.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_DNSSEC;
use serde::{Deserialize, Serialize};

/// Why a text is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not the form that the gateway makes.
    #[error("not an id of this gateway")]
    Malformed,
    /// A configured id with characters that do not belong in a URL, or of the wrong length.
    #[error("use 1 to {max} characters out of a-z, A-Z, 0-9, '-' and '_'")]
    NotUrlSafe {
        /// The longest that is allowed.
        max: usize,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoEntropy,
}

fn check_url_safe(text: &str, max: usize) -> Result<(), IdError> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if text.is_empty() || text.len() > max || !text.bytes().all(allowed) {
        return Err(IdError::NotUrlSafe { max });
    }
    Ok(())
}

fn random<const N: usize>() -> Result<[u8; N], IdError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| IdError::NoEntropy)?;
    Ok(bytes)
}

/// Decodes `<prefix><base32 of N bytes>`, in its one canonical spelling.
fn decode<const N: usize>(text: &str, prefix: &str) -> Result<[u8; N], IdError> {
    let encoded = text.strip_prefix(prefix).ok_or(IdError::Malformed)?;
    if encoded.len() != BASE32_DNSSEC.encode_len(N) || encoded.bytes().any(|c| c.is_ascii_uppercase()) {
        return Err(IdError::Malformed);
    }
    let bytes = BASE32_DNSSEC
        .decode(encoded.as_bytes())
        .map_err(|_| IdError::Malformed)?;
    bytes.try_into().map_err(|_| IdError::Malformed)
}

/// `<prefix><base32>` of an id, without a detour over the heap: a page of messages writes dozens.
struct Encoded {
    text: [u8; Self::MAX],
    len: usize,
}

impl Encoded {
    /// Two characters of prefix and 16 bytes in base 32.
    const MAX: usize = 28;

    fn new(prefix: &str, bytes: &[u8]) -> Self {
        let mut text = [0; Self::MAX];
        let len = prefix.len() + BASE32_DNSSEC.encode_len(bytes.len());
        if let Some((head, tail)) = text
            .get_mut(..len)
            .and_then(|t| t.split_at_mut_checked(prefix.len()))
        {
            head.copy_from_slice(prefix.as_bytes());
            BASE32_DNSSEC.encode_mut(bytes, tail);
        }
        Self { text, len }
    }

    fn as_str(&self) -> &str {
        let text = self.text.get(..self.len).unwrap_or_default();
        // Base 32 is ASCII.
        std::str::from_utf8(text).unwrap_or_default()
    }
}

macro_rules! configured_id {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Longest id, in bytes.
            pub const MAX_LEN: usize = $max;

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                check_url_safe(text, Self::MAX_LEN)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

configured_id!(
    /// One gateway behind the app. Unique among all gateways of one Pipedrive app. Configured, or made once and
    /// kept in the store.
    GatewayId, 32
);
configured_id!(
    /// One channel. Unique within one gateway; comes from the configuration.
    ChannelId, 32
);
configured_id!(
    /// `provider_channel_id` of the Channels API: `<gateway id>-<channel id>`. Unique within one Pipedrive app.
    ProviderChannelId, 65
);

impl GatewayId {
    /// Makes a new random id, e.g. `gw-0k3v9d2m`.
    pub fn generate() -> Result<Self, IdError> {
        Ok(Self(format!("gw-{}", BASE32_DNSSEC.encode(&random::<5>()?))))
    }
}

impl ProviderChannelId {
    /// The id under which Pipedrive knows a channel of this gateway.
    #[must_use]
    pub fn new(gateway: &GatewayId, channel: &ChannelId) -> Self {
        Self(format!("{gateway}-{channel}"))
    }

    /// The channel of this gateway that the id names, if it is one of this gateway's.
    #[must_use]
    pub fn channel(&self, gateway: &GatewayId) -> Option<ChannelId> {
        self.0
            .strip_prefix(gateway.as_str())?
            .strip_prefix('-')?
            .parse()
            .ok()
    }
}

configured_id!(
    /// One user of one company who has installed the app: limits and tokens belong to it. Unique within one gateway.
    InstallationId, 64
);

impl InstallationId {
    /// The installation behind a configured access token.
    #[must_use]
    pub fn of_configured_token() -> Self {
        Self("static".to_owned())
    }

    /// What limits of a whole company are kept under: its number, or the id itself when nobody knows it.
    #[must_use]
    pub fn company(&self) -> &str {
        self.0
            .split_once('-')
            .map_or(self.0.as_str(), |(company, _)| company)
    }

    /// The installation of a user of a company, in Pipedrive's numbers.
    #[must_use]
    pub fn of_user(company: u64, user: u64) -> Self {
        Self(format!("{company}-{user}"))
    }
}

macro_rules! text_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.with_text(|text| serializer.serialize_str(text))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.with_text(|text| f.write_str(text))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Position in the store: the order of all messages. Unique within one store, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(pub u64);

/// A conversation: a channel and a reply address. Random, so unique for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConversationId(pub u64);

impl ConversationId {
    /// Makes a new random id.
    pub fn generate() -> Result<Self, IdError> {
        Ok(Self(u64::from_be_bytes(random()?)))
    }

    fn with_text<T>(self, use_it: impl FnOnce(&str) -> T) -> T {
        use_it(Encoded::new("c", &self.0.to_be_bytes()).as_str())
    }
}

impl FromStr for ConversationId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Ok(Self(u64::from_be_bytes(decode(text, "c")?)))
    }
}

text_serde!(ConversationId);

/// A message: its conversation and its place in the store, so that it is found without an index.
/// Unique for ever, also after deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// The conversation that the message belongs to.
    pub conversation: ConversationId,
    /// Its place in the store.
    pub sequence: Sequence,
}

impl MessageId {
    fn with_text<T>(self, use_it: impl FnOnce(&str) -> T) -> T {
        let packed = (u128::from(self.conversation.0) << 64) | u128::from(self.sequence.0);
        use_it(Encoded::new("m", &packed.to_be_bytes()).as_str())
    }
}

impl FromStr for MessageId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let packed = u128::from_be_bytes(decode(text, "m")?);
        let halves = (
            u64::try_from(packed >> 64),
            u64::try_from(packed & u128::from(u64::MAX)),
        );
        let (Ok(conversation), Ok(sequence)) = halves else {
            return Err(IdError::Malformed);
        };
        Ok(Self {
            conversation: ConversationId(conversation),
            sequence: Sequence(sequence),
        })
    }
}

text_serde!(MessageId);

/// `sender_id` of messages and `id` of participants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ParticipantId {
    /// The company's side: the channel itself. Written as the provider channel id.
    Source(ProviderChannelId),
    /// A customer: the nth who wrote in a conversation, so that no further index is needed.
    /// Unique for ever, as the conversation's id is.
    EndUser {
        /// Where the customer writes.
        conversation: ConversationId,
        /// Place in the order of first appearance.
        index: u16,
    },
}

impl ParticipantId {
    fn with_text<T>(&self, use_it: impl FnOnce(&str) -> T) -> T {
        match self {
            Self::Source(channel) => use_it(channel.as_str()),
            Self::EndUser { conversation, index } => {
                let packed = (u128::from(conversation.0) << 16) | u128::from(*index);
                let bytes = packed.to_be_bytes();
                use_it(Encoded::new("p.", bytes.get(6..).unwrap_or_default()).as_str())
            }
        }
    }
}

impl FromStr for ParticipantId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        // A provider channel id has no dot, so the two forms cannot be confused.
        if !text.contains('.') {
            return Ok(Self::Source(text.parse().map_err(|_| IdError::Malformed)?));
        }
        let bytes: [u8; 10] = decode(text, "p.")?;
        let (conversation, index) = bytes.split_first_chunk::<8>().ok_or(IdError::Malformed)?;
        Ok(Self::EndUser {
            conversation: ConversationId(u64::from_be_bytes(*conversation)),
            index: u16::from_be_bytes(index.try_into().map_err(|_| IdError::Malformed)?),
        })
    }
}

text_serde!(ParticipantId);

/// A stored file. Random, so unique for ever; also its file name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentId(pub u64);

impl AttachmentId {
    /// Makes a new random id.
    pub fn generate() -> Result<Self, IdError> {
        Ok(Self(u64::from_be_bytes(random()?)))
    }

    fn with_text<T>(self, use_it: impl FnOnce(&str) -> T) -> T {
        use_it(Encoded::new("a", &self.0.to_be_bytes()).as_str())
    }
}

impl FromStr for AttachmentId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Ok(Self(u64::from_be_bytes(decode(text, "a")?)))
    }
}

text_serde!(AttachmentId);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip<T: FromStr<Err = IdError> + fmt::Display + fmt::Debug + PartialEq>(id: &T) {
        let text = id.to_string();
        assert_eq!(text.parse::<T>().as_ref(), Ok(id), "{text}");
        assert!(
            text.bytes()
                .all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c)),
            "{text} is not URL-safe"
        );
    }

    proptest! {
        #[test]
        fn every_id_survives_its_text_form(a: u64, b: u64, index: u16) {
            let conversation = ConversationId(a);
            round_trip(&conversation);
            round_trip(&MessageId { conversation, sequence: Sequence(b) });
            round_trip(&ParticipantId::EndUser { conversation, index });
            round_trip(&AttachmentId(b));
        }

        #[test]
        fn no_text_makes_a_parser_panic_and_each_id_has_one_spelling(text in ".{0,40}") {
            if let Ok(id) = text.parse::<ConversationId>() { prop_assert_eq!(id.to_string(), text.clone()); }
            if let Ok(id) = text.parse::<MessageId>() { prop_assert_eq!(id.to_string(), text.clone()); }
            if let Ok(id) = text.parse::<ParticipantId>() { prop_assert_eq!(id.to_string(), text.clone()); }
        }
    }

    #[test]
    fn an_upper_case_spelling_of_an_id_is_refused() {
        let id = ConversationId(0x1234_5678_9abc_def0).to_string();
        assert_eq!(
            id.to_uppercase().parse::<ConversationId>(),
            Err(IdError::Malformed)
        );
        assert_eq!(
            format!("c{}", id[1..].to_uppercase()).parse::<ConversationId>(),
            Err(IdError::Malformed)
        );
    }

    #[test]
    fn a_provider_channel_id_names_its_channel_also_when_both_parts_have_dashes() {
        let gateway: GatewayId = "gw-1".parse().unwrap();
        let channel: ChannelId = "front-desk".parse().unwrap();
        let provider = ProviderChannelId::new(&gateway, &channel);
        assert_eq!(provider.as_str(), "gw-1-front-desk");
        assert_eq!(provider.channel(&gateway), Some(channel));
        assert_eq!(provider.channel(&"other".parse().unwrap()), None);
    }

    #[test]
    fn a_configured_id_with_a_slash_is_refused_in_words() {
        let error = "a/b".parse::<ChannelId>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "use 1 to 32 characters out of a-z, A-Z, 0-9, '-' and '_'"
        );
    }
}
