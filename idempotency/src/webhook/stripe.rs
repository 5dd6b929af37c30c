//! Stripe's signatures: `Stripe-Signature: t=<seconds>,v1=<hex>`, HMAC-SHA256 over `t.body`. Nothing in a header names the
//! event, so its id is read from the body, after that has been verified.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName};
use sha2::Sha256;

use super::signature::{SIGNATURES_MAX, check_id, one, whole_seconds};
use super::{Delivery, Verifier, Verify, WebhookError};

const SIGNATURE: HeaderName = HeaderName::from_static("stripe-signature");

/// How long Stripe goes on delivering an event that is not acknowledged: three days, in live mode.
pub const STRIPE_REDELIVERS: Duration = Duration::from_hours(3 * 24);

/// An endpoint's signing secret, as Stripe shows it (`whsec_..`). Its text is the key, prefix and all. `Debug` shows nothing.
#[derive(Clone)]
pub struct StripeSecret(Box<str>);

impl StripeSecret {
    /// `None` for fewer than 16 characters: nobody has such a secret on purpose.
    pub fn new(text: &str) -> Option<Self> {
        (text.len() >= 16).then(|| Self(text.into()))
    }
}

impl fmt::Debug for StripeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StripeSecret(..)")
    }
}

/// Checks deliveries of Stripe against one secret, or several while one is rolled.
///
/// ```
/// # use mainstay_idempotency::webhook::{StripeSecret, StripeVerifier};
/// let secret = StripeSecret::new("whsec_4f1c2e8f3a9b6d70").expect("from the configuration");
/// let verifier = StripeVerifier::new(secret);
/// ```
pub type StripeVerifier = Verifier<StripeSecret>;

impl Verify for StripeVerifier {
    fn verify(
        &self,
        headers: &HeaderMap,
        body: Bytes,
        now: SystemTime,
    ) -> Result<Delivery, WebhookError> {
        let header = Header::read(one(headers, &SIGNATURE)?).ok_or(WebhookError::Headers)?;
        let signed_by = |secret: &StripeSecret| {
            // Compared in constant time.
            header.signatures.iter().any(|signature| {
                mac(secret, header.time, &body)
                    .verify_slice(signature)
                    .is_ok()
            })
        };
        self.check(signed_by, header.seconds, now)?;
        Ok(Delivery {
            id: event_id(&body).ok_or(WebhookError::Body)?,
            timestamp: UNIX_EPOCH + Duration::from_secs(header.seconds),
            body,
        })
    }
}

struct Header<'a> {
    /// As it was signed.
    time: &'a [u8],
    seconds: u64,
    /// Those of the scheme `v1`; `v0` is for tests of Stripe's own, and others are not known.
    signatures: Vec<[u8; 32]>,
}

impl<'a> Header<'a> {
    /// One time, and signatures in any order between other things.
    fn read(value: &'a [u8]) -> Option<Self> {
        let (mut times, mut signatures) = (Vec::new(), Vec::new());
        for item in value.split(|byte| *byte == b',') {
            match item.trim_ascii() {
                [b't', b'=', digits @ ..] => times.push(digits),
                [b'v', b'1', b'=', hex @ ..] if signatures.len() < SIGNATURES_MAX => {
                    signatures.extend(bytes_of(hex));
                }
                _ => {}
            }
        }
        let [time] = times.try_into().ok()?;
        Some(Self {
            time,
            seconds: whole_seconds(time)?,
            signatures,
        })
    }
}

fn bytes_of(hex: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(hex.as_chunks::<2>().0) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? * 16 + low?).ok()?;
    }
    Some(bytes)
}

fn mac(secret: &StripeSecret, time: &[u8], body: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.0.as_bytes()).expect("any length");
    for part in [time, b".", body] {
        mac.update(part);
    }
    mac
}

fn event_id(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Event {
        id: String,
    }
    let event: Event = serde_json::from_slice(body).ok()?;
    check_id(event.id.as_bytes()).then_some(event.id)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const OLD: &str = "whsec_old_old_old_old";
    const NEW: &str = "whsec_new_new_new_new";
    const BODY: &str = r#"{"id":"evt_1","type":"charge.succeeded"}"#;
    const SENT: u64 = 1_700_000_000;

    fn secret(text: &str) -> StripeSecret {
        StripeSecret::new(text).unwrap()
    }

    fn hex(text: &str, time: &str, body: &str) -> String {
        let signed = mac(&secret(text), time.as_bytes(), body.as_bytes()).finalize();
        let bytes = signed.into_bytes();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn verify(header: &str, body: &str, now: u64) -> Result<Delivery, WebhookError> {
        let headers = HeaderMap::from_iter([(SIGNATURE, HeaderValue::from_str(header).unwrap())]);
        let now = UNIX_EPOCH + Duration::from_secs(now);
        let body = Bytes::copy_from_slice(body.as_bytes());
        StripeVerifier::new(secret(OLD))
            .or(secret(NEW))
            .verify(&headers, body, now)
    }

    /// HMAC by another hand: `printf '%s' "1700000000.$BODY" | openssl dgst -sha256 -hmac whsec_old_old_old_old`.
    #[test]
    fn a_signature_made_elsewhere_verifies() {
        let made = "245f375ccee6fd56bd348841f25825b00923f0ec1daf5e56d021683b4c67bd47";
        assert_eq!(hex(OLD, "1700000000", BODY), made);
        let delivery = verify(&format!("t=1700000000,v1={made}"), BODY, SENT).unwrap();
        assert_eq!(
            (delivery.id.as_str(), &delivery.body[..]),
            ("evt_1", BODY.as_bytes())
        );
        assert_eq!(delivery.timestamp, UNIX_EPOCH + Duration::from_secs(SENT));
    }

    #[test]
    fn during_a_rotation_either_secret_and_either_signature_will_do() {
        let (old, new) = (hex(OLD, "1700000000", BODY), hex(NEW, "1700000000", BODY));
        let other = hex("whsec_somebody_else_s", "1700000000", BODY);
        for header in [
            format!("t=1700000000,v1={new}"),
            format!("t=1700000000,v1={other},v1={old}"),
            format!("t=1700000000,v1={new},v1={old}"),
            format!("v0=abc,v1={old},t=1700000000"),
            format!("t=1700000000, v1={}", old.to_uppercase()),
        ] {
            assert!(verify(&header, BODY, SENT).is_ok(), "{header}");
        }
    }

    #[test]
    fn what_is_not_signed_is_refused() {
        let good = hex(OLD, "1700000000", BODY);
        let other = hex("whsec_somebody_else_s", "1700000000", BODY);
        for header in [
            format!("t=1700000001,v1={good}"),
            format!("t=1700000000,v1={other}"),
            format!("t=1700000000,v0={good}"),
            format!("t=1700000000,v1={}", &good[..62]),
            format!("t=1700000000,v1={}g", &good[..63]),
            format!("t=1700000000,v1={good}00"),
            "t=1700000000,v1=".into(),
            "t=1700000000".into(),
            // One more than are looked at.
            format!(
                "t=1700000000,{}v1={good}",
                format!("v1={other},").repeat(SIGNATURES_MAX)
            ),
        ] {
            assert_eq!(
                verify(&header, BODY, SENT),
                Err(WebhookError::Signature),
                "{header}"
            );
        }
        let header = format!("t=1700000000,v1={good}");
        assert_eq!(verify(&header, "{}", SENT), Err(WebhookError::Signature));
        for header in [
            String::new(),
            format!("v1={good}"),
            format!("t=,v1={good}"),
            format!("t=-1,v1={good}"),
            format!("t=+1700000000,v1={good}"),
            format!("t=17e8,v1={good}"),
            format!("t=1700000000,t=1700000000,v1={good}"),
        ] {
            assert_eq!(
                verify(&header, BODY, SENT),
                Err(WebhookError::Headers),
                "{header}"
            );
        }
        let none = StripeVerifier::new(secret(OLD));
        let none = none.verify(&HeaderMap::new(), Bytes::new(), UNIX_EPOCH);
        assert_eq!(none, Err(WebhookError::Headers));
    }

    #[test]
    fn the_tolerance_holds_both_ways() {
        let header = format!("t=1700000000,v1={}", hex(OLD, "1700000000", BODY));
        for (now, good) in [
            (SENT - 301, false),
            (SENT - 300, true),
            (SENT + 300, true),
            (SENT + 301, false),
        ] {
            let verdict = verify(&header, BODY, now).err();
            assert_eq!(verdict, (!good).then_some(WebhookError::Timestamp), "{now}");
        }
    }

    #[test]
    fn a_signed_body_without_an_id_is_told_apart() {
        let long = format!(r#"{{"id":"{}"}}"#, "e".repeat(256));
        for body in [
            "",
            "[]",
            "{}",
            r#"{"id":1}"#,
            r#"{"id":""}"#,
            r#"{"id":"a b"}"#,
            &long,
        ] {
            let header = format!("t=1700000000,v1={}", hex(OLD, "1700000000", body));
            assert_eq!(
                verify(&header, body, SENT),
                Err(WebhookError::Body),
                "{body}"
            );
        }
    }

    #[test]
    fn secrets_are_not_shown_and_not_empty() {
        assert_eq!(format!("{:?}", secret(OLD)), "StripeSecret(..)");
        assert!(StripeSecret::new("").is_none());
    }
}
