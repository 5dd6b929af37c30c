//! A question to JetStream: its answer tells whose failure it was that a message was not acked.

use std::time::Duration;

use async_nats::jetstream::{
    context::{Context, RequestErrorKind},
    response::Response,
};
use serde::Deserialize;
use tokio::time::timeout;

/// What JetStream says of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// This stream takes it.
    Stream(String),
    /// No stream takes it.
    NoStream,
    /// JetStream is not there, or has nobody to answer.
    Away,
    /// Nothing in time: JetStream is away, or we may not ask it.
    Nothing,
}

#[derive(Deserialize)]
struct Names {
    streams: Option<Vec<String>>,
}

/// Asks which stream takes the subject. The client's own question would take an error for the answer that none does.
pub(super) async fn stream_of(context: &Context, subject: &str, within: Duration) -> Said {
    let question = serde_json::json!({ "subject": subject });
    let asked = context.request::<_, _, Response<Names>>("STREAM.NAMES", &question);
    match timeout(within, asked).await {
        Ok(Ok(Response::Ok(names))) => match names.streams.unwrap_or_default().pop() {
            Some(stream) => Said::Stream(stream),
            None => Said::NoStream,
        },
        Ok(Ok(Response::Err { .. })) => Said::Away,
        Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => Said::Away,
        Ok(Err(_)) | Err(_) => Said::Nothing,
    }
}
