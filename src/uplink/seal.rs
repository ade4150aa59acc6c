//! Tokens as they lie in the store: encrypted when there is a key, else plain behind the permissions of its files.
//!
//! | first byte | what follows |
//! |---|---|
//! | 0 | the tokens as JSON |
//! | 1 | 12 random bytes, then ChaCha20-Poly1305 of the JSON with the installation's id as associated data |
//!
//! The key is derived with HKDF-SHA256 from the text of the configured secret, which must be random: nothing here slows
//! down guessing.

use std::fmt;
use std::time::Duration;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::domain::{InstallationId, Secret};

const PLAIN: u8 = 0;
const SEALED: u8 = 1;

/// The tokens of one installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) access: Secret,
    pub(super) refresh: Secret,
    /// Of `access`, when it was new.
    pub(super) lifetime: Duration,
}

#[derive(Serialize)]
struct Written<'a> {
    access: &'a str,
    refresh: &'a str,
    lifetime_ms: u64,
}

#[derive(Deserialize)]
struct Read {
    access: String,
    refresh: String,
    lifetime_ms: u64,
}

/// Why tokens cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SealError {
    /// They are encrypted and there is no key.
    #[error("its tokens are encrypted and no key is configured")]
    NoKey,
    /// The key is another one, or the bytes are damaged.
    #[error("its tokens are encrypted with another key than the configured one")]
    WrongKey,
    /// Not what this program writes.
    #[error("its tokens cannot be read")]
    Damaged,
}

/// Encrypts, or not.
pub(super) struct Seal(Option<LessSafeKey>);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Seal(key)"
        } else {
            "Seal(plain)"
        })
    }
}

impl Seal {
    pub(super) fn new(key: Option<&Secret>) -> Self {
        Self(key.filter(|key| !key.is_empty()).and_then(|key| {
            let extracted = Salt::new(HKDF_SHA256, b"pipepost").extract(key.expose().as_bytes());
            let key = extracted.expand(&[b"tokens at rest"], &CHACHA20_POLY1305).ok()?;
            Some(LessSafeKey::new(UnboundKey::from(key)))
        }))
    }

    /// Bytes for the store; `None` when the operating system gives no random bytes.
    pub(super) fn seal(&self, id: &InstallationId, tokens: &Tokens) -> Option<Vec<u8>> {
        let written = Written {
            access: tokens.access.expose(),
            refresh: tokens.refresh.expose(),
            lifetime_ms: u64::try_from(tokens.lifetime.as_millis()).unwrap_or(u64::MAX),
        };
        let mut json = Zeroizing::new(serde_json::to_vec(&written).ok()?);
        let Some(key) = &self.0 else {
            return Some([&[PLAIN], json.as_slice()].concat());
        };
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let tag = key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(id.as_str()),
                &mut json,
            )
            .ok()?;
        Some([&[SEALED], nonce.as_slice(), &json, tag.as_ref()].concat())
    }

    /// Reads what [`Self::seal`] made.
    pub(super) fn open(&self, id: &InstallationId, bytes: &[u8]) -> Result<Tokens, SealError> {
        let (first, rest) = bytes.split_first().ok_or(SealError::Damaged)?;
        let mut opened = Zeroizing::new(rest.to_vec());
        let json = match *first {
            PLAIN => opened.as_slice(),
            SEALED => {
                let key = self.0.as_ref().ok_or(SealError::NoKey)?;
                let (nonce, _) = rest.split_first_chunk().ok_or(SealError::Damaged)?;
                let plain = key.open_within(
                    Nonce::assume_unique_for_key(*nonce),
                    Aad::from(id.as_str()),
                    &mut opened,
                    NONCE_LEN..,
                );
                plain.map_err(|_| SealError::WrongKey)?
            }
            _ => return Err(SealError::Damaged),
        };
        let written: Read = serde_json::from_slice(json).map_err(|_| SealError::Damaged)?;
        Ok(Tokens {
            access: Secret::new(written.access),
            refresh: Secret::new(written.refresh),
            lifetime: Duration::from_millis(written.lifetime_ms),
        })
    }

    /// Whether bytes that can be opened should be sealed anew: they are plain and there is a key now.
    pub(super) fn is_outdated(&self, bytes: &[u8]) -> bool {
        self.0.is_some() && bytes.first() == Some(&PLAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> InstallationId {
        InstallationId::of_user(12, 7)
    }

    fn tokens() -> Tokens {
        Tokens {
            access: Secret::new("access-secret".to_owned()),
            refresh: Secret::new("refresh-secret".to_owned()),
            lifetime: Duration::from_secs(3600),
        }
    }

    fn with(key: &str) -> Seal {
        Seal::new(Some(&Secret::new(key.to_owned())))
    }

    fn shows(bytes: &[u8]) -> bool {
        bytes.windows(6).any(|part| part == b"secret")
    }

    #[test]
    fn sealed_tokens_show_nothing_and_open_with_their_key_alone() {
        let bytes = with("one key").seal(&id(), &tokens()).unwrap();
        assert!(!shows(&bytes));
        assert_eq!(with("one key").open(&id(), &bytes), Ok(tokens()));
        assert_eq!(with("another").open(&id(), &bytes), Err(SealError::WrongKey));
        assert_eq!(Seal::new(None).open(&id(), &bytes), Err(SealError::NoKey));
        assert!(!with("one key").is_outdated(&bytes));
    }

    #[test]
    fn the_same_tokens_are_never_sealed_to_the_same_bytes() {
        let seal = with("one key");
        assert_ne!(seal.seal(&id(), &tokens()), seal.seal(&id(), &tokens()));
    }

    #[test]
    fn sealed_tokens_of_one_installation_are_no_use_for_another() {
        let bytes = with("one key").seal(&id(), &tokens()).unwrap();
        let other = InstallationId::of_user(12, 8);
        assert_eq!(with("one key").open(&other, &bytes), Err(SealError::WrongKey));
    }

    #[test]
    fn plain_tokens_open_with_and_without_a_key_and_are_outdated_with_one() {
        let bytes = Seal::new(None).seal(&id(), &tokens()).unwrap();
        assert!(shows(&bytes));
        assert_eq!(Seal::new(None).open(&id(), &bytes), Ok(tokens()));
        assert_eq!(with("one key").open(&id(), &bytes), Ok(tokens()));
        assert!(with("one key").is_outdated(&bytes));
        assert!(!Seal::new(None).is_outdated(&bytes));
    }

    #[test]
    fn damaged_bytes_are_an_error_wherever_the_damage_is() {
        let seal = with("one key");
        let whole = seal.seal(&id(), &tokens()).unwrap();
        for index in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[index] ^= 0x40;
            assert!(seal.open(&id(), &bytes).is_err(), "{index}");
        }
        for length in 0..whole.len() {
            assert!(seal.open(&id(), &whole[..length]).is_err(), "{length}");
        }
    }
}
