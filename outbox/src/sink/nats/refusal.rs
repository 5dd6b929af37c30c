//! What JetStream's refusals mean, by their codes.

use std::error::Error as _;

use async_nats::jetstream::{self, ErrorCode, context::PublishError};

use crate::sink::Outcome;

/// What was answered instead of an ack.
pub(super) enum Refusal {
    /// It is this message's.
    Message(Outcome),
    /// Another stream than the one that is meant takes the subject.
    Elsewhere,
    /// The stream takes nothing, whatever it is.
    Stream(String),
    /// The stream has no room for so many bytes.
    NoRoom(String),
    /// JetStream takes nothing, of whichever stream.
    JetStream(String),
    /// Something keeps the server from storing it, and may be anything.
    Unknown(String),
}

pub(super) fn refusal(error: &PublishError) -> Refusal {
    let source = error.source();
    let Some(error) = source.and_then(|source| source.downcast_ref::<jetstream::Error>()) else {
        let reason = "the answer is not JetStream's";
        return Refusal::Message(Outcome::retry(reason));
    };
    let said = format!("JetStream answered {}", error.error_code().0);
    match error.error_code() {
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            Refusal::Message(Outcome::reject(said))
        }
        ErrorCode::STREAM_NOT_MATCH => Refusal::Elsewhere,
        ErrorCode::STREAM_SEALED => Refusal::Stream(said),
        // Why it was not stored stands in the text alone.
        ErrorCode::STREAM_STORE_FAILED => match error.to_string() {
            why if why.contains("per subject") => {
                let reason = "its subject has as many messages as it may";
                Refusal::Message(Outcome::retry(reason))
            }
            why if why.contains("bytes") => Refusal::NoRoom("the stream is full".to_owned()),
            why if why.contains("maximum messages") => {
                Refusal::Stream("the stream is full".to_owned())
            }
            _ => Refusal::Unknown(said),
        },
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::CLUSTER_NOT_AVAILABLE
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::JETSTREAM_NOT_ENABLED
        | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => Refusal::JetStream(said),
        _ if error.code() >= 500 => Refusal::Unknown(said),
        _ => Refusal::Message(Outcome::retry(said)),
    }
}
