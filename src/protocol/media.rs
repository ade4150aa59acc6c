//! Unguessable, expiring links to files.
//!
//! A link carries everything that is needed to check it, so nothing about links is stored: base64url of
//! attachment id (8 bytes) ‖ expiry in hours since the Unix epoch (4 bytes) ‖ HMAC-SHA256 over both, cut to
//! 10 bytes. That is 30 characters: links are appended to texts, and a part of an SMS costs money.
//! Refreshing a link means signing it again.

use data_encoding::BASE64URL_NOPAD;
use ring::hmac;
use subtle::ConstantTimeEq;

use crate::domain::{AttachmentId, Timestamp};

/// Length of the signed part of a link, in characters.
pub const LINK_LEN: usize = 30;

const TAG_LEN: usize = 10;
const MS_PER_HOUR: i64 = 60 * 60 * 1000;
/// Keeps these tags apart from anything else that the same secret may sign later.
const PURPOSE: &[u8] = b"pipepost media link\0";

/// Why a link does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not made with this gateway's secret.
    #[error("not a link of this gateway")]
    Malformed,
    /// Made by this gateway, but its time is over.
    #[error("the link has expired")]
    Expired,
}

/// Makes the signed part of a link to a file. It works until `expires`, rounded up to the full hour.
#[must_use]
pub fn sign(secret: &[u8; 32], id: AttachmentId, expires: Timestamp) -> String {
    let payload = payload(id, hours(expires));
    let mut bytes = [0; 12 + TAG_LEN];
    let (head, tail) = bytes.split_at_mut(payload.len());
    head.copy_from_slice(&payload);
    tail.copy_from_slice(&tag(secret, &payload));
    BASE64URL_NOPAD.encode(&bytes)
}

/// Checks the signed part of a link, in constant time where the secret matters.
pub fn verify(secret: &[u8; 32], text: &str, now: Timestamp) -> Result<AttachmentId, LinkError> {
    if text.len() != LINK_LEN {
        return Err(LinkError::Malformed);
    }
    let bytes = BASE64URL_NOPAD
        .decode(text.as_bytes())
        .map_err(|_| LinkError::Malformed)?;
    let (payload, given) = bytes.split_first_chunk::<12>().ok_or(LinkError::Malformed)?;
    if !bool::from(tag(secret, payload).as_slice().ct_eq(given)) {
        return Err(LinkError::Malformed);
    }
    let (id, expiry) = payload.split_first_chunk::<8>().ok_or(LinkError::Malformed)?;
    let expiry = u32::from_be_bytes(expiry.try_into().map_err(|_| LinkError::Malformed)?);
    if now.unix_ms() >= i64::from(expiry) * MS_PER_HOUR {
        return Err(LinkError::Expired);
    }
    Ok(AttachmentId(u64::from_be_bytes(*id)))
}

/// The whole link. `public_url` has no trailing slash.
#[must_use]
pub fn url(public_url: &str, secret: &[u8; 32], id: AttachmentId, expires: Timestamp) -> String {
    format!("{public_url}/media/{}", sign(secret, id, expires))
}

fn hours(expires: Timestamp) -> u32 {
    let up = i64::from(expires.unix_ms().rem_euclid(MS_PER_HOUR) != 0);
    let hours = expires.unix_ms().div_euclid(MS_PER_HOUR).saturating_add(up);
    u32::try_from(hours.max(0)).unwrap_or(u32::MAX)
}

fn payload(id: AttachmentId, hours: u32) -> [u8; 12] {
    let packed = (u128::from(id.0) << 32) | u128::from(hours);
    let mut payload = [0; 12];
    let bytes = packed.to_be_bytes();
    payload.copy_from_slice(bytes.last_chunk::<12>().unwrap_or(&[0; 12]));
    payload
}

fn tag(secret: &[u8; 32], payload: &[u8; 12]) -> [u8; TAG_LEN] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    context.update(PURPOSE);
    context.update(payload);
    let full = context.sign();
    let mut tag = [0; TAG_LEN];
    tag.iter_mut()
        .zip(full.as_ref())
        .for_each(|(to, from)| *to = *from);
    tag
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: [u8; 32] = [7; 32];
    const NOON: Timestamp = Timestamp::from_unix_ms(1_769_774_400_000);

    #[test]
    fn a_link_opens_until_the_hour_of_its_expiry_and_then_says_expired() {
        let expires = NOON.plus_ms(90 * 60_000);
        let link = sign(&SECRET, AttachmentId(42), expires);
        assert_eq!(verify(&SECRET, &link, NOON), Ok(AttachmentId(42)));
        assert_eq!(verify(&SECRET, &link, expires), Ok(AttachmentId(42)));
        assert_eq!(
            verify(&SECRET, &link, NOON.plus_ms(2 * MS_PER_HOUR)),
            Err(LinkError::Expired)
        );
    }

    #[test]
    fn a_link_of_another_gateway_does_not_open() {
        let link = sign(&[8; 32], AttachmentId(42), NOON.plus_ms(MS_PER_HOUR));
        assert_eq!(verify(&SECRET, &link, NOON), Err(LinkError::Malformed));
    }

    #[test]
    fn a_link_is_short_and_needs_no_escaping() {
        let url = url(
            "https://sms.example",
            &SECRET,
            AttachmentId(u64::MAX),
            NOON.plus_ms(1),
        );
        let link = url.strip_prefix("https://sms.example/media/").unwrap();
        assert_eq!(link.len(), LINK_LEN);
        assert!(
            link.bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
        );
    }

    proptest! {
        #[test]
        fn any_id_survives_and_any_changed_character_closes_the_link(
            id: u64, minutes in 1_i64..1_000_000, at in 0..LINK_LEN, to in "[A-Za-z0-9_-]"
        ) {
            let link = sign(&SECRET, AttachmentId(id), NOON.plus_ms(minutes * 60_000));
            prop_assert_eq!(verify(&SECRET, &link, NOON), Ok(AttachmentId(id)));
            let mut changed = link.clone();
            changed.replace_range(at..=at, &to);
            if changed != link {
                prop_assert_eq!(verify(&SECRET, &changed, NOON), Err(LinkError::Malformed));
            }
        }

        #[test]
        fn no_text_and_no_time_makes_verify_or_sign_panic(text in ".{0,40}", ms: i64) {
            let time = Timestamp::from_unix_ms(ms);
            prop_assert_eq!(verify(&SECRET, &text, time), Err(LinkError::Malformed));
            prop_assert_eq!(sign(&SECRET, AttachmentId(1), time).len(), LINK_LEN);
        }
    }
}
