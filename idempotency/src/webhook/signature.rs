//! Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

use super::{Delivery, Secret, Verifier, Verify, WebhookError};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Longest `webhook-id` in bytes.
pub const WEBHOOK_ID_BYTES_MAX: usize = 255;

/// Most signatures of one delivery that are looked at: a rotation needs two, and each costs a hash of the body.
pub(super) const SIGNATURES_MAX: usize = 8;

/// The three headers of a delivery, for a sender. `id` must be the same on every attempt and `now` that attempt's own.
///
/// # Errors
/// [`SignError`] for an id that is empty, over [`WEBHOOK_ID_BYTES_MAX`], or holds anything but visible ASCII without `.`: a dot
/// would let parts of one signed text be read as parts of another.
pub fn sign(
    secret: &Secret,
    id: &str,
    now: SystemTime,
    body: &[u8],
) -> Result<HeaderMap, SignError> {
    check_id(id.as_bytes()).then_some(()).ok_or(SignError)?;
    let timestamp = seconds(now).to_string();
    let signature = format!(
        "v1,{}",
        STANDARD.encode(
            mac(secret, id.as_bytes(), timestamp.as_bytes(), body)
                .finalize()
                .into_bytes()
        )
    );
    let mut headers = HeaderMap::with_capacity(3);
    for (name, value) in [(ID, id), (TIMESTAMP, &timestamp), (SIGNATURE, &signature)] {
        headers.insert(name, HeaderValue::from_str(value).map_err(|_| SignError)?);
    }
    Ok(headers)
}

/// The id cannot be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a webhook id is 1 to 255 visible ASCII characters without a dot")]
pub struct SignError;

impl Verifier {
    /// First the signature, then the time: an unsigned time is nobody's word.
    ///
    /// # Errors
    /// [`WebhookError`], each with its HTTP status.
    pub fn verify(
        &self,
        headers: &HeaderMap,
        body: Bytes,
        now: SystemTime,
    ) -> Result<Delivery, WebhookError> {
        let (id, timestamp) = (one(headers, &ID)?, one(headers, &TIMESTAMP)?);
        let signatures = one(headers, &SIGNATURE)?;
        if !check_id(id) {
            return Err(WebhookError::Headers);
        }
        let seconds_signed = whole_seconds(timestamp).ok_or(WebhookError::Headers)?;
        let signatures: Vec<_> = signatures
            .split(|byte| *byte == b' ')
            .filter_map(|signature| STANDARD.decode(signature.strip_prefix(b"v1,")?).ok())
            .take(SIGNATURES_MAX)
            .collect();
        let signed_by = |secret: &Secret| {
            // Compared in constant time.
            signatures.iter().any(|signature| {
                mac(secret, id, timestamp, &body)
                    .verify_slice(signature)
                    .is_ok()
            })
        };
        self.check(signed_by, seconds_signed, now)?;
        let id = String::from_utf8_lossy(id).into_owned();
        Ok(Delivery {
            id,
            timestamp: UNIX_EPOCH + Duration::from_secs(seconds_signed),
            body,
        })
    }
}

impl Verify for Verifier {
    fn verify(
        &self,
        headers: &HeaderMap,
        body: Bytes,
        now: SystemTime,
    ) -> Result<Delivery, WebhookError> {
        Self::verify(self, headers, body, now)
    }
}

fn mac(secret: &Secret, id: &[u8], timestamp: &[u8], body: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.bytes()).expect("any length");
    for part in [id, b".", timestamp, b".", body] {
        mac.update(part);
    }
    mac
}

pub(super) fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], WebhookError> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => Ok(line.as_bytes()),
        _ => Err(WebhookError::Headers),
    }
}

pub(super) fn check_id(id: &[u8]) -> bool {
    (1..=WEBHOOK_ID_BYTES_MAX).contains(&id.len())
        && id
            .iter()
            .all(|byte| matches!(byte, 0x21..=0x7e) && *byte != b'.')
}

/// Digits only: what `parse` takes besides them (a sign) would give one time two texts.
pub(super) fn whole_seconds(timestamp: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(timestamp)
        .ok()
        .filter(|text| text.len() <= 12 && text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap()
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SENT: u64 = 1_614_265_330;

    fn verify(headers: &HeaderMap, body: &[u8], now: u64) -> Result<Delivery, WebhookError> {
        Verifier::new(secret()).verify(headers, Bytes::copy_from_slice(body), at(now))
    }

    #[test]
    fn the_specifications_own_vector_verifies() {
        let headers = sign(&secret(), "msg_p5jXN8AQM9LWM0D4loKWxJek", at(SENT), BODY).unwrap();
        assert_eq!(
            headers[SIGNATURE],
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        let delivery = verify(&headers, BODY, SENT).unwrap();
        assert_eq!(
            (delivery.id.as_str(), delivery.timestamp),
            ("msg_p5jXN8AQM9LWM0D4loKWxJek", at(SENT))
        );
        assert_eq!(delivery.body, BODY);
    }

    #[test]
    fn any_changed_part_is_refused() {
        let good = sign(&secret(), "msg_1", at(SENT), BODY).unwrap();
        assert_eq!(verify(&good, b"{}", SENT), Err(WebhookError::Signature));
        for (name, value) in [
            (ID, "msg_2"),
            (TIMESTAMP, "1614265331"),
            (SIGNATURE, "v1,AAAA"),
            (SIGNATURE, "v2,g0hM9SsE"),
            (SIGNATURE, ""),
        ] {
            let mut headers = good.clone();
            headers.insert(name.clone(), HeaderValue::from_static(value));
            assert_eq!(
                verify(&headers, BODY, SENT),
                Err(WebhookError::Signature),
                "{name} {value}"
            );
        }
        let other =
            Verifier::new(Secret::generate()).verify(&good, Bytes::from_static(BODY), at(SENT));
        assert_eq!(other, Err(WebhookError::Signature));
    }

    #[test]
    fn missing_repeated_and_malformed_headers_are_told_apart_from_bad_signatures() {
        let good = sign(&secret(), "msg_1", at(SENT), BODY).unwrap();
        for name in [ID, TIMESTAMP, SIGNATURE] {
            let mut headers = good.clone();
            headers.remove(&name);
            assert_eq!(
                verify(&headers, BODY, SENT),
                Err(WebhookError::Headers),
                "{name} missing"
            );
            let mut headers = good.clone();
            headers.append(name.clone(), good[&name].clone());
            assert_eq!(
                verify(&headers, BODY, SENT),
                Err(WebhookError::Headers),
                "{name} twice"
            );
        }
        for (name, value) in [
            (TIMESTAMP, "+1614265330"),
            (TIMESTAMP, "1614265330.0"),
            (TIMESTAMP, "-1"),
            (TIMESTAMP, "9999999999999"),
            (ID, "a.b"),
            (ID, ""),
        ] {
            let mut headers = good.clone();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(
                verify(&headers, BODY, SENT),
                Err(WebhookError::Headers),
                "{value}"
            );
        }
    }

    #[test]
    fn the_tolerance_holds_both_ways() {
        let headers = sign(&secret(), "msg_1", at(SENT), BODY).unwrap();
        for (now, verdict) in [
            (SENT - 301, false),
            (SENT - 300, true),
            (SENT + 300, true),
            (SENT + 301, false),
            (0, false),
        ] {
            assert_eq!(
                verify(&headers, BODY, now).err(),
                (!verdict).then_some(WebhookError::Timestamp),
                "{now}"
            );
        }
    }

    #[test]
    fn during_a_rotation_either_side_may_be_ahead() {
        let (old, new) = (secret(), Secret::generate());
        let by_old = sign(&old, "msg_1", at(SENT), BODY).unwrap();
        let by_new = sign(&new, "msg_1", at(SENT), BODY).unwrap();
        let both = Verifier::new(old.clone()).or(new.clone());
        for headers in [&by_old, &by_new] {
            assert!(
                both.verify(headers, Bytes::from_static(BODY), at(SENT))
                    .is_ok()
            );
        }
        let mut twice = by_old.clone();
        let signatures = format!(
            "{} {}",
            by_new[SIGNATURE].to_str().unwrap(),
            by_old[SIGNATURE].to_str().unwrap()
        );
        twice.insert(SIGNATURE, signatures.parse().unwrap());
        for one in [old, new] {
            assert!(
                Verifier::new(one)
                    .verify(&twice, Bytes::from_static(BODY), at(SENT))
                    .is_ok()
            );
        }
    }

    #[test]
    fn an_id_with_a_dot_is_not_signed() {
        for id in ["", "a.b", "a b", "\u{e9}", &"i".repeat(256)] {
            assert_eq!(
                sign(&secret(), id, at(SENT), BODY).unwrap_err(),
                SignError,
                "{id}"
            );
        }
    }
}
