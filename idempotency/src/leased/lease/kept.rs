//! What a step returned, as the journal keeps it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::LeaseError;

pub(super) fn to_json<E>(result: &impl Serialize) -> Result<Vec<u8>, LeaseError<E>> {
    serde_json::to_vec(result).map_err(|error| LeaseError::NotKept(error.to_string().into()))
}

pub(super) fn parse<T: DeserializeOwned, E>(json: &[u8]) -> Result<T, LeaseError<E>> {
    serde_json::from_slice(json).map_err(|error| LeaseError::NotKept(error.to_string().into()))
}

pub(super) fn not_kept<E>(step: &str) -> LeaseError<E> {
    LeaseError::NotKept(step.chars().take(64).collect::<String>().into())
}
