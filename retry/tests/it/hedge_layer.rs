use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use mainstay_retry::{
    AttachIdempotencyKeyLayer, AttemptTimeoutLayer, Backoff, CircuitBreaker, CloneReplay,
    DeadlineLayer, EveryError, HedgeDelay, HedgeLayer, HttpReplay, Kind, RetryLayer, TokenBudget,
    Trip, Verdict, budget::Budget, hedge::HttpRaceClassify,
};
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, ServiceBuilder, limit::ConcurrencyLimitLayer, load_shed::LoadShedLayer};

use crate::support::*;

fn after(delay: Duration) -> HedgeLayer<HttpRaceClassify, HttpReplay> {
    HedgeLayer::http().delay(delay)
}

/// Holds so many, and earns nothing.
fn purse(tokens: u32) -> Arc<TokenBudget> {
    TokenBudget::success_credit(0.0)
        .capacity(tokens)
        .refill_per_second(0.0)
        .shared()
        .unwrap()
}

fn server(steps: impl IntoIterator<Item = Step>) -> Server {
    Server::new(steps).ready_at_once()
}

#[tokio::test(start_paused = true)]
async fn the_first_good_answer_is_the_answer_and_the_loser_is_dropped() {
    let slow = |time| Step::Slow(ms(time), 200);
    let bad = |time| Step::Slow(ms(time), 500);
    // The steps of the first attempt and of the hedge that follows after 100 ms; the answer, when it is there, calls.
    let cases = [
        (slow(50), Step::Hang, 200, 50, 1),
        (slow(150), Step::Hang, 200, 150, 2),
        (Step::Hang, slow(30), 200, 130, 2),
        (Step::Hang, Step::Slow(ms(30), 404), 404, 130, 2),
        (bad(50), Step::Hang, 500, 50, 1),
        (bad(150), slow(200), 200, 300, 2),
        (slow(300), bad(50), 200, 300, 2),
        (bad(150), Step::Slow(ms(200), 502), 502, 300, 2),
        (Step::Slow(ms(300), 502), bad(50), 502, 300, 2),
    ];
    for (first, hedge, answer, time, calls) in cases {
        let name = format!("{first:?} {hedge:?}");
        let server = server([first, hedge]);
        let budget = purse(5);
        let mut client = after(ms(100)).budget(budget.clone()).layer(server.clone());
        let start = Instant::now();
        assert_eq!(status(&mut client, get()).await, answer, "{name}");
        assert_eq!(start.elapsed(), ms(time), "{name}");
        assert_eq!(server.calls(), calls, "{name}");
        assert_eq!(server.under_way(), 0, "{name}");
        assert_eq!(budget.tokens(), 6 - calls as u64, "{name}: paid once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_is_marked_and_carries_the_same_request() {
    let server = server([Step::Hang, Step::Hang, Step::Hang]);
    let mut client = ServiceBuilder::new()
        .layer(AttachIdempotencyKeyLayer::new())
        .layer(DeadlineLayer::total(secs(5)))
        .layer(RetryLayer::http())
        .layer(after(secs(1)).max_hedges(3))
        .service(server.clone());
    assert_eq!(status(&mut client, post("hello")).await, 200);
    let marks = server.seen(|seen| seen.hedge.map(|hedge| hedge.to_string()));
    let marks: Vec<_> = marks.iter().map(Option::as_deref).collect();
    assert_eq!(
        marks,
        [
            None,
            Some("hedge 1 of 3"),
            Some("hedge 2 of 3"),
            Some("hedge 3 of 3")
        ]
    );
    let attempts = server.seen(|seen| seen.attempt.unwrap().number);
    assert_eq!(attempts, [1; 4]);
    let keys = server.seen(|seen| seen.key.clone().unwrap());
    assert!(keys.iter().all(|key| *key == keys[0]));
    let bodies = server.seen(|seen| seen.body.clone().into_inner());
    assert!(bodies.iter().all(|body| body.as_deref() == Some(b"hello")));
    assert_eq!(
        server.seen(|seen| seen.time_left),
        [Some(5_000), Some(4_000), Some(3_000), Some(2_000)],
        "each says the time that is left then"
    );
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_repeated_is_not_hedged() {
    let mut keyed = post("");
    keyed
        .headers_mut()
        .insert("idempotency-key", "k1".parse().unwrap());
    for (request, calls) in [(get(), 2), (post(""), 1), (keyed, 2)] {
        let server = server([Step::Slow(ms(300), 200), Step::Hang]);
        let mut client = after(ms(100)).layer(server.clone());
        assert_eq!(status(&mut client, request).await, 200);
        assert_eq!(server.calls(), calls);
    }
    let server = server([Step::Slow(ms(300), 200)]);
    let mut off = after(ms(100)).max_hedges(0).layer(server.clone());
    assert_eq!(status(&mut off, get()).await, 200);
    assert_eq!(server.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn hedges_and_retries_are_paid_from_one_budget() {
    let budget = purse(2);
    let server = server([
        Step::Slow(ms(200), 500), // hedged, paid
        Step::Slow(ms(200), 500), // fails too: tried again, paid
        Step::Slow(ms(200), 500), // slow again: not hedged, and not tried again
    ]);
    let mut client = ServiceBuilder::new()
        .layer(
            RetryLayer::http()
                .backoff(Backoff::constant(ms(0)))
                .max_attempts(5)
                .budget(budget.clone()),
        )
        .layer(after(ms(100)).budget(budget.clone()))
        .service(server.clone());
    assert_eq!(status(&mut client, get()).await, 500);
    assert_eq!((server.calls(), budget.tokens()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn answers_fill_a_budget_that_no_retry_layer_fills() {
    for (fills, hedges) in [(true, 2), (false, 1)] {
        let budget = TokenBudget::success_credit(0.5)
            .capacity(1)
            .refill_per_second(0.0)
            .shared()
            .unwrap();
        let slow = Step::Slow(ms(200), 200);
        // The first call is hedged, the second cannot be, and two answers have paid for the third.
        let server = server([slow.clone(), Step::Hang, slow.clone(), slow, Step::Hang]);
        let layer = after(ms(100)).budget(budget).fills_budget(fills);
        let mut client = layer.layer(server.clone());
        for _ in 0..3 {
            assert_eq!(status(&mut client, get()).await, 200);
        }
        assert_eq!(server.calls(), 3 + hedges, "{fills}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_asks_for_patience_stops_further_hedges() {
    for (hedged, calls) in [
        (Step::Status(500), 3),
        (Step::Reset, 3),
        (Step::Status(429), 2),
        (Step::Status(503), 2),
        (Step::RetryAfter(409, "7"), 2),
    ] {
        let server = server([Step::Slow(ms(500), 200), hedged.clone(), Step::Hang]);
        let mut client = after(ms(100)).max_hedges(2).layer(server.clone());
        let start = Instant::now();
        assert_eq!(status(&mut client, get()).await, 200);
        assert_eq!(start.elapsed(), ms(500));
        assert_eq!(server.calls(), calls, "{hedged:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_hedge_is_sent_that_would_come_after_the_deadline() {
    for (total, calls) in [(100, 1), (101, 2)] {
        let budget = purse(5);
        let server = server([Step::Hang, Step::Hang]);
        let mut client = ServiceBuilder::new()
            .layer(DeadlineLayer::total(ms(total)))
            .layer(after(ms(100)).budget(budget.clone()))
            .service(server.clone());
        let error = send(&mut client, get()).await.unwrap_err();
        assert!(error.is_deadline_exceeded());
        assert_eq!(server.calls(), calls, "{total}");
        assert_eq!(budget.tokens(), 6 - calls as u64, "{total}");
        assert_eq!(server.under_way(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_ready_gets_no_hedge_and_nothing_is_paid() {
    let slow = || [Step::Slow(ms(300), 200)];
    // Its clones are never ready at the first time of asking.
    let probe = Server::new(slow());
    let budget = purse(5);
    let layer = after(ms(100)).budget(budget.clone());
    assert_eq!(status(&mut layer.layer(probe.clone()), get()).await, 200);
    assert_eq!((probe.calls(), budget.tokens()), (1, 5));

    let broken = server(slow()).broken_after(1);
    assert_eq!(status(&mut layer.layer(broken.clone()), get()).await, 200);
    assert_eq!((broken.calls(), budget.tokens()), (1, 5));

    for (limit, calls) in [(1, 1), (2, 2), (3, 2)] {
        let server = server(slow().into_iter().chain([Step::Slow(ms(400), 200)]));
        let mut client = ServiceBuilder::new()
            .layer(layer.clone())
            .layer(ConcurrencyLimitLayer::new(limit))
            .service(server.clone());
        for _ in 0..5 {
            assert_eq!(status(&mut client, get()).await, 200, "{limit}");
        }
        assert_eq!(server.calls(), calls + 4, "{limit}: every permit came back");
    }
    assert_eq!(budget.tokens(), 3);
}

#[tokio::test(start_paused = true)]
async fn buffers_take_hedges_and_load_shedding_refuses_them() {
    let server = Server::new([Step::Slow(ms(300), 200), Step::Slow(ms(50), 200)]);
    let buffered = ServiceBuilder::new().buffer(4).service(server.clone());
    let mut client = after(ms(100)).layer(buffered);
    let start = Instant::now();
    assert_eq!(send(&mut client, get()).await.unwrap().status(), 200);
    assert!((ms(150)..ms(160)).contains(&start.elapsed()));
    assert_eq!(server.calls(), 2);

    let server = self::server([Step::Slow(ms(300), 200)]);
    let mut client = ServiceBuilder::new()
        .layer(after(ms(100)))
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(1))
        .service(server.clone());
    let start = Instant::now();
    assert_eq!(status(&mut client, get()).await, 200);
    assert_eq!(
        (start.elapsed(), server.calls()),
        (ms(300), 1),
        "the hedge was shed, and the first attempt had the time it took"
    );
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_opens_meanwhile_refuses_the_hedge_only() {
    let server = server([Step::Slow(ms(300), 200), Step::Slow(ms(300), 500)]);
    let breaker = CircuitBreaker::builder("test")
        .trip(Trip::consecutive(5))
        .build()
        .unwrap();
    let handle = breaker.handle();
    let mut client = ServiceBuilder::new()
        .layer(after(ms(100)))
        .layer(breaker.layer())
        .layer(AttemptTimeoutLayer::new(secs(1)))
        .service(server.clone());
    for answer in [200, 500] {
        handle.reset();
        let open = async {
            sleep(ms(50)).await;
            handle.force_open();
        };
        let (got, ()) = tokio::join!(status(&mut client, get()), open);
        assert_eq!(got, answer, "not the refusal");
    }
    assert_eq!(server.calls(), 2);
    let error = send(&mut client, get()).await.unwrap_err();
    assert!(
        matches!(error, mainstay_retry::Error::CircuitOpen(open) if !open.attempted()),
        "nobody was asked this time"
    );
}

#[tokio::test(start_paused = true)]
async fn the_delay_is_learned_from_what_is_recent_and_does_not_run_away() {
    let delay = HedgeDelay::percentile(0.95)
        .min_samples(100)
        .build()
        .unwrap();
    // One in thirty takes a second, all others 40 ms.
    let server = server((0..).map_while(|n| {
        (n < 3_000).then_some(Step::Slow(if n % 30 == 29 { secs(1) } else { ms(40) }, 200))
    }));
    let layer = HedgeLayer::http().delay(delay).budget(purse(1_000));
    let mut client = layer.layer(server.clone());
    for _ in 0..100 {
        assert_eq!(status(&mut client, get()).await, 200);
    }
    assert_eq!(server.calls(), 100, "nothing is known yet");
    let mut slowest = Duration::ZERO;
    let hedged_before = server.calls();
    for _ in 0..1_500 {
        let start = Instant::now();
        assert_eq!(status(&mut client, get()).await, 200);
        if server.calls() > hedged_before + 100 {
            slowest = slowest.max(start.elapsed());
        }
    }
    let hedges = server.seen(|seen| seen.hedge).into_iter().flatten().count();
    assert!((45..60).contains(&hedges), "only the slow ones: {hedges}");
    assert!(
        (ms(80)..ms(100)).contains(&slowest),
        "a delay of about 45 ms and an answer: {slowest:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn leaving_at_any_await_drops_both_and_charges_once() {
    for polls in 0.. {
        let budget = purse(5);
        let server = server([Step::Slow(ms(900), 200), Step::Slow(ms(900), 200)]);
        let mut client = ServiceBuilder::new()
            .layer(after(ms(300)).budget(budget.clone()))
            .layer(ConcurrencyLimitLayer::new(2))
            .service(server.clone());
        let finished = {
            let mut call = pin!(send(&mut client, get()));
            let mut cx = Context::from_waker(Waker::noop());
            let mut finished = false;
            for _ in 0..polls {
                finished = call.as_mut().poll(&mut cx).is_ready();
                if finished {
                    break;
                }
                advance(ms(100)).await;
            }
            finished
        };
        let calls = server.calls();
        assert_eq!(server.under_way(), 0, "{polls}");
        assert_eq!(
            budget.tokens(),
            5 - calls.saturating_sub(1) as u64,
            "{polls}"
        );
        advance(secs(10)).await;
        assert_eq!(server.calls(), calls, "{polls}: nothing goes on");
        // Both permits are back.
        let (mut one, mut other) = (client.clone(), client.clone());
        server.push([Step::Slow(ms(10), 200), Step::Slow(ms(10), 200)]);
        let start = Instant::now();
        let both = tokio::join!(status(&mut one, get()), status(&mut other, get()));
        assert_eq!(both, (200, 200));
        assert!(start.elapsed() < ms(1_000), "{polls}");
        if finished {
            assert_eq!(calls, 2);
            assert!(polls > 9, "{polls} are too few to have met every await");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_request_that_can_be_cloned_can_be_hedged() {
    let slow_once = std::sync::Mutex::new(vec![ms(10), secs(9)]);
    let slow_once = Arc::new(slow_once);
    let service = tower::service_fn(move |n: u32| {
        let time = slow_once.lock().unwrap().pop().unwrap_or_default();
        async move {
            sleep(time).await;
            Ok::<_, std::io::Error>(n + 1)
        }
    });
    let mut client = HedgeLayer::new(EveryError, CloneReplay)
        .delay(ms(50))
        .layer(service);
    let start = Instant::now();
    let answer = tower::ServiceExt::ready(&mut client).await.unwrap();
    assert_eq!(tower::Service::call(answer, 41).await.unwrap(), 42);
    assert_eq!(start.elapsed(), ms(60));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_meets_its_own_first_attempt_does_not_win_by_that() {
    // A server that knows the key from the request that is still under way there refuses the other with 409.
    let cases = [
        (Step::Slow(ms(300), 201), Step::Status(409), 201),
        (Step::Slow(ms(300), 503), Step::Status(409), 503),
        (Step::Slow(ms(150), 409), Step::Slow(ms(100), 201), 201),
        (Step::Slow(ms(50), 409), Step::Hang, 409),
        (Step::Slow(ms(150), 409), Step::Slow(ms(100), 409), 409),
    ];
    for (first, hedge, expected) in cases {
        let name = format!("{first:?} {hedge:?}");
        let server = server([first, hedge]);
        let mut client = ServiceBuilder::new()
            .layer(AttachIdempotencyKeyLayer::new())
            .layer(after(ms(100)).max_hedges(3))
            .service(server.clone());
        assert_eq!(status(&mut client, post("")).await, expected, "{name}");
        assert!(server.calls() <= 2, "{name}: no third while one is there");
    }
}

/// Remembers what it was told.
#[derive(Debug, Default)]
struct Told(std::sync::Mutex<Vec<(Verdict, Option<Kind>)>>);

impl Budget for Told {
    fn credit(&self, verdict: Verdict, repeats: Option<Kind>) {
        self.0.lock().unwrap().push((verdict, repeats));
    }

    fn try_spend(&self, _now: std::time::Instant, _kind: Kind) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_told_first_attempts_and_hedges_apart() {
    let budget = Arc::new(Told::default());
    let server = server([Step::Slow(ms(200), 500), Step::Slow(ms(150), 200)]);
    let layer = after(ms(100)).budget(budget.clone()).fills_budget(true);
    assert_eq!(status(&mut layer.layer(server), get()).await, 200);
    let told = budget.0.lock().unwrap();
    assert_eq!(
        *told,
        [
            (Verdict::Retryable(Kind::Server, None), None),
            // Else a budget that is filled by calls would earn from each hedge the half of another.
            (Verdict::Success, Some(Kind::Timeout)),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_first_attempt_that_is_overtaken_counts_as_slow_and_keeps_the_delay_up() {
    let delay = HedgeDelay::percentile(0.95)
        .at_least(ms(1))
        .min_samples(50)
        .window(secs(4));
    let server = server([]);
    let mut client = HedgeLayer::http()
        .delay(delay.build().unwrap())
        .budget(purse(1_000))
        .layer(server.clone());
    for call in 0..600 {
        // One in ten is slow: at first there is no delay to go by, and then a hedge overtakes it.
        server.push(match (call % 10, call < 50) {
            (0, true) => vec![Step::Slow(ms(100), 200)],
            (0, false) => vec![Step::Hang, Step::Status(200)],
            _ => vec![Step::Slow(ms(20), 200)],
        });
        let start = Instant::now();
        assert_eq!(status(&mut client, get()).await, 200);
        if call > 50 && call % 10 == 0 {
            assert!(start.elapsed() >= ms(100), "{call}: {:?}", start.elapsed());
        }
    }
}
