//! For any request.

use std::time::Duration;

use mainstay_retry::{
    CircuitBreaker, CloneReplay, DeadlineLayer, EveryError, RetryLayer, TokenBudget, Trip,
    deadline::Untold,
};
use tower::ServiceBuilder;
use tower::retry::Retry;
use tower::timeout::Timeout;
use tower_resilience_circuitbreaker::{CircuitBreakerError, CircuitBreakerLayer};
use tower_resilience_retry::RetryBudgetBuilder;
use tower_resilience_timelimiter::TimeLimiterLayer;

use super::{ALONE, attempts};
use crate::by_hand::{self, Circuit, InARow, Tokens};
use crate::race::Contestant;
use crate::service::{AtOnce, Counted, FAIL, Failed, Inner, service};
use crate::tower_policy::{TowerPolicy, exponential};

const FIVE_SECONDS: Duration = Duration::from_secs(5);

pub fn contestants<S: Inner>(inner: S) -> Vec<Contestant<'static>> {
    vec![
        service("hand-written", &inner, |inner| {
            let circuit = Circuit::shared(InARow::new(5));
            let inner = by_hand::Breaker::new(inner, circuit, Result::is_err);
            let inner = by_hand::Retry::new(inner, Tokens::shared(), by_hand::is_inner);
            by_hand::Timeout::new(inner, FIVE_SECONDS)
        }),
        service(ALONE, &inner, |inner| inner),
        service("mainstay", &inner, |inner| {
            let budget = TokenBudget::success_credit(0.1).shared().unwrap();
            let trip = Trip::consecutive(5);
            let breaker = CircuitBreaker::builder("race").trip(trip).build().unwrap();
            ServiceBuilder::new()
                .layer(DeadlineLayer::total(FIVE_SECONDS).carried_by(Untold))
                .layer(RetryLayer::new(EveryError, CloneReplay).budget(budget))
                .layer(breaker.layer_with(EveryError))
                .service(inner)
        }),
        service("tower: timeout, retry, no breaker", &inner, |inner| {
            let policy = TowerPolicy::new(0.2, exponential(), Result::is_err);
            Timeout::new(Retry::new(policy, inner), FIVE_SECONDS)
        }),
        service("tower-resilience", &inner, |inner| {
            let bucket = RetryBudgetBuilder::new().token_bucket().build().unwrap();
            let retry = tower_resilience_retry::RetryLayer::<u64, u64, _>::builder()
                .max_attempts(3)
                .exponential_backoff(Duration::from_millis(100))
                // That an open circuit is not to be asked again is for its user to say.
                .retry_on(|error: &CircuitBreakerError<Failed>| !error.is_circuit_open())
                .budget(bucket);
            let breaker = CircuitBreakerLayer::builder().consecutive_failures(5);
            let limit = TimeLimiterLayer::builder().timeout_duration(FIVE_SECONDS);
            ServiceBuilder::new()
                .layer(limit.build())
                .layer(retry.build())
                .layer(breaker.build().unwrap())
                .service(inner)
        }),
    ]
}

pub fn check() {
    let inner = Counted::new(AtOnce);
    for contestant in contestants(inner.clone()) {
        let name = contestant.name.clone();
        let mut contestant = contestant.prepare();
        assert_eq!((contestant.once(7), inner.take()), (8, 1), "{name}");
        let made = [(); 3].map(|()| {
            assert_eq!(contestant.once(FAIL), 0, "{name}");
            inner.take()
        });
        assert_eq!(made, attempts(&name), "{name}");
    }
}
