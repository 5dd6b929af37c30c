//! Sealed payloads: what is sealed, what it is bound to, and their bytes, which stay.

use bytes::Bytes;

/// Seals payloads before they are stored and opens them again: authenticated encryption, in most services.
///
/// The id of the key that sealed travels with each message, so keys can be rotated: seal with the new one, open with both,
/// drop the old one when no message is left that it sealed: in the outbox, its dead letters, and wherever consumers open.
///
/// Feature `aead` has one: `Aead`, AES-256-GCM-SIV.
pub trait Seal: Send + Sync + 'static {
    /// The key that [`seal`](Self::seal) uses now.
    fn key_id(&self) -> u32;

    /// Seals `plain` for the event that `bound_to` names: it must not open for another one.
    ///
    /// # Errors
    /// Whatever keeps it from sealing; the event is refused.
    fn seal(&self, bound_to: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError>;

    /// Opens what the key `key_id` sealed.
    ///
    /// # Errors
    /// An unknown key, or bytes that were changed or moved.
    fn open(&self, key_id: u32, bound_to: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError>;
}

/// A payload that cannot be sealed or opened. It says no more: what is wrong with a key is nobody's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payload cannot be sealed or opened")]
pub struct SealError;

/// The header with the id of the key: one word, so that it is a CloudEvents extension attribute on every transport.
pub(crate) const SEALED_BY: &str = "sealedby";

/// What a sealed payload says it is.
#[cfg(feature = "sqlx")]
const OPAQUE: &str = "application/octet-stream";

/// Seals the payload of an event of this source.
#[cfg(feature = "sqlx")]
pub(crate) fn seal(
    with: &dyn Seal,
    source: &str,
    event: &mut crate::event::Event,
) -> Result<(), SealError> {
    let content_type = event.content_type.as_deref().unwrap_or_default();
    let length = u16::try_from(content_type.len()).map_err(|_| SealError)?;
    // The media type with its length in front, then the payload.
    let mut plain = Vec::with_capacity(2 + content_type.len() + event.payload.len());
    plain.extend_from_slice(&length.to_be_bytes());
    plain.extend_from_slice(content_type.as_bytes());
    plain.extend_from_slice(&event.payload);
    let bound_to = bound_to(source, &event.id.to_string(), &event.event_type);
    event.payload = with.seal(&bound_to, &plain)?.into();
    event.content_type = Some(OPAQUE.to_owned());
    let key = with.key_id().to_string();
    event.headers.push((SEALED_BY.to_owned(), key));
    Ok(())
}

/// The media type and payload of a sealed message, which `header` says the key of; `None` if it is not sealed.
pub(crate) fn open(
    with: &dyn Seal,
    (source, id, event_type): (&str, &str, &str),
    header: Option<&str>,
    sealed: &[u8],
) -> Result<Option<(Option<String>, Bytes)>, SealError> {
    let Some(key_id) = header else {
        return Ok(None);
    };
    let key_id = key_id.parse().map_err(|_| SealError)?;
    let plain = with.open(key_id, &bound_to(source, id, event_type), sealed)?;
    let (length, rest) = plain.split_first_chunk::<2>().ok_or(SealError)?;
    let (content_type, payload) = rest
        .split_at_checked(u16::from_be_bytes(*length).into())
        .ok_or(SealError)?;
    let content_type = std::str::from_utf8(content_type).map_err(|_| SealError)?;
    let content_type = (!content_type.is_empty()).then(|| content_type.to_owned());
    Ok(Some((content_type, Bytes::copy_from_slice(payload))))
}

/// Whose payload it is. Each part with its length in front: no two events have the same bytes here.
fn bound_to(source: &str, id: &str, event_type: &str) -> Vec<u8> {
    let mut place = b"mainstay event 1\0".to_vec();
    for part in [source, id, event_type] {
        place.extend_from_slice(&(part.len() as u64).to_be_bytes());
        place.extend_from_slice(part.as_bytes());
    }
    place
}

#[cfg(test)]
#[cfg(feature = "sqlx")]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::event::Event;

    /// What it is bound to in front, and the bits of the rest turned over: nobody's encryption, but it can be read here.
    struct Turned;

    impl Seal for Turned {
        fn key_id(&self) -> u32 {
            7
        }

        fn seal(&self, bound_to: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
            let turned = plain.iter().map(|byte| !byte);
            Ok(bound_to.iter().copied().chain(turned).collect())
        }

        fn open(&self, key_id: u32, bound_to: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
            let sealed = sealed.strip_prefix(bound_to).ok_or(SealError)?;
            let known = key_id == 7;
            known
                .then(|| sealed.iter().map(|byte| !byte).collect())
                .ok_or(SealError)
        }
    }

    const ID: &str = "00000000-0000-0000-0000-000000000011";

    fn sealed() -> Event {
        let mut event = Event::new("t")
            .id(Uuid::from_u128(0x11))
            .bytes("text/plain", "hi");
        seal(&Turned, "/s", &mut event).unwrap();
        event
    }

    #[test]
    fn the_bytes_of_a_sealed_event_never_change() {
        let event = sealed();
        let mut golden = b"mainstay event 1\0\0\0\0\0\0\0\0\x02/s\0\0\0\0\0\0\0\x24".to_vec();
        golden.extend_from_slice(ID.as_bytes());
        golden.extend_from_slice(b"\0\0\0\0\0\0\0\x01t");
        golden.extend(b"\0\x0atext/plainhi".iter().map(|byte| !byte));
        assert_eq!(event.payload, golden);
        assert_eq!(event.content_type.as_deref(), Some(OPAQUE));
        assert_eq!(event.headers, [("sealedby".to_owned(), "7".to_owned())]);
    }

    #[test]
    fn it_opens_for_its_own_event_and_key_only() {
        let event = sealed();
        let open = |place, key| open(&Turned, place, key, &event.payload);
        assert_eq!(
            open(("/s", ID, "t"), Some("7")),
            Ok(Some((Some("text/plain".to_owned()), "hi".into())))
        );
        assert_eq!(
            open(("/s", ID, "t"), None),
            Ok(None),
            "it says it is not sealed"
        );
        for (place, key) in [
            (("/other", ID, "t"), "7"),
            (("/s", "2", "t"), "7"),
            (("/s", ID, "u"), "7"),
            (("/s", ID, "t"), "8"),
            (("/s", ID, "t"), ""),
            (("/s", ID, "t"), "seven"),
        ] {
            assert_eq!(open(place, Some(key)), Err(SealError), "{place:?} {key}");
        }
    }

    #[test]
    fn what_has_no_media_type_has_none_afterwards() {
        let mut event = Event::new("t").id(Uuid::from_u128(0x11));
        seal(&Turned, "/s", &mut event).unwrap();
        let opened = open(&Turned, ("/s", ID, "t"), Some("7"), &event.payload);
        assert_eq!(opened, Ok(Some((None, Bytes::new()))));
    }
}
