//! Signing as Standard Webhooks describes it.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::InvalidWebhook;

/// A secret shared with the receiver, in text `whsec_` and the base64 of 24 to 64 bytes. Never shown.
#[derive(Clone)]
pub struct WebhookSecret(Hmac<Sha256>);

impl WebhookSecret {
    /// `v1,` and the base64 of the HMAC-SHA256 over id, timestamp and body, joined by dots.
    pub(super) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(timestamp.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl FromStr for WebhookSecret {
    type Err = InvalidWebhook;

    fn from_str(text: &str) -> Result<Self, InvalidWebhook> {
        let encoded = text.strip_prefix("whsec_").ok_or(InvalidWebhook::Secret)?;
        let key = STANDARD
            .decode(encoded)
            .map_err(|_| InvalidWebhook::Secret)?;
        if !(24..=64).contains(&key.len()) {
            return Err(InvalidWebhook::Secret);
        }
        let mac = Hmac::new_from_slice(&key).map_err(|_| InvalidWebhook::Secret)?;
        Ok(Self(mac))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_of_the_specifications_example_holds() {
        let secret: WebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let signature = secret.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn short_long_and_unprefixed_secrets_are_refused() {
        for bad in [
            "",
            "whsec_",
            "whsec_AAAA",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_!!!",
        ] {
            assert!(bad.parse::<WebhookSecret>().is_err(), "{bad} was accepted");
        }
        assert!(
            format!("whsec_{}", STANDARD.encode([1; 65]))
                .parse::<WebhookSecret>()
                .is_err()
        );
    }
}
