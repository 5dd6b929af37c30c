//! Any `http::Response` whose body is an `http_body::Body`: hyper's, axum's, a tower client's.

use std::pin::pin;

use http_body::Body;
use http_body_util::BodyExt;

use super::body::{Collected, problem};
use super::{OrProblem, fails, now};
use crate::{Problem, ProblemReader};

/// The answer does not know its address: set [`ProblemReader::base`] for a relative `type` to mean something.
impl<B> OrProblem for http::Response<B>
where
    B: Body + Send,
    B::Data: Send,
{
    fn is_failure(&self) -> bool {
        fails(self.status())
    }

    async fn into_problem_with(self, reader: &ProblemReader) -> Problem {
        let reader = reader.received(now(), None);
        let (parts, body) = self.into_parts();
        let mut collected = Collected::begin(&reader, &parts.headers, body.size_hint().lower());
        let mut body = pin!(body);
        while let Some(so_far) = collected.take() {
            match body.frame().await {
                Some(Ok(frame)) => {
                    collected = match frame.into_data() {
                        Ok(data) => so_far.with(data),
                        // Trailers.
                        Err(_) => Some(so_far),
                    };
                }
                // It broke off.
                Some(Err(_)) => break,
                None => {
                    collected = Some(so_far);
                    break;
                }
            }
        }
        problem(&reader, parts.status.as_u16(), &parts.headers, collected)
    }
}
