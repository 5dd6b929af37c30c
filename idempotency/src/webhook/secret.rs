//! The key that sender and receiver share.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::TryRng;
use rand::rngs::SysRng;

const PREFIX: &str = "whsec_";

/// A signing secret: `whsec_` and base64 of 24 to 64 bytes. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A fresh secret of 32 bytes from the operating system.
    ///
    /// # Panics
    /// When the operating system has no randomness to give: there is no secret without it.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = vec![0; 32];
        #[expect(clippy::expect_used, reason = "a guessable secret is worse than none")]
        SysRng
            .try_fill_bytes(&mut bytes)
            .expect("the operating system's randomness");
        Self(bytes)
    }

    /// The written form, to be handed to the other side. Never log it.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = BadSecret;

    fn from_str(text: &str) -> Result<Self, BadSecret> {
        let bytes = STANDARD
            .decode(text.strip_prefix(PREFIX).ok_or(BadSecret)?)
            .map_err(|_| BadSecret)?;
        if (24..=64).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(BadSecret)
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The text is not a secret. It does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a webhook secret is `whsec_` followed by base64 of 24 to 64 bytes")]
pub struct BadSecret;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_written_and_read_back() {
        let secret = Secret::generate();
        let written = secret.expose();
        assert_eq!(written.parse::<Secret>().unwrap().bytes(), secret.bytes());
        assert_ne!(written, Secret::generate().expose());
    }

    #[test]
    fn debug_shows_nothing() {
        let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn other_texts_are_refused() {
        let short = format!("whsec_{}", STANDARD.encode([0; 23]));
        let long = format!("whsec_{}", STANDARD.encode([0; 65]));
        for text in [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_not base64!",
            &short,
            &long,
        ] {
            assert_eq!(text.parse::<Secret>().unwrap_err(), BadSecret, "{text}");
        }
    }
}
