//! Questions to JetStream, whose answers tell whose failure it was that a message was not stored.

use async_nats::jetstream::{
    context::{Context, RequestErrorKind},
    response::Response,
};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

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
pub(super) async fn stream_of(context: &Context, subject: &str, until: Instant) -> Said {
    let question = serde_json::json!({ "subject": subject });
    let asked = context.request::<_, _, Response<Names>>("STREAM.NAMES", &question);
    match timeout_at(until, asked).await {
        Ok(Ok(Response::Ok(names))) => match names.streams.unwrap_or_default().pop() {
            Some(stream) => Said::Stream(stream),
            None => Said::NoStream,
        },
        Ok(Ok(Response::Err { .. })) => Said::Away,
        Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => Said::Away,
        Ok(Err(_)) | Err(_) => Said::Nothing,
    }
}

/// How many bytes the stream may ever hold, if that is limited and it says so in time.
pub(super) async fn bytes_max(context: &Context, stream: &str, until: Instant) -> Option<usize> {
    let asked = timeout_at(until, context.get_stream(stream)).await;
    let stream = asked.ok()?.ok()?;
    let most = usize::try_from(stream.cached_info().config.max_bytes).ok();
    most.filter(|most| *most > 0)
}
