//! Asking for payments, looking at them, listing them.

use http::Method;
use serde_json::json;

use crate::service::{ACME, GLOBEX, Service, order};

#[tokio::test]
async fn a_payment_is_created_shown_and_replayed() {
    let service = Service::start();
    let created = service.pay(ACME, "key-1", order("order-17")).await;
    assert_eq!(created.status, 201, "{:?}", created.body);
    let payment = created.json();
    assert_eq!(payment["amount"], 1250);
    assert_eq!(payment["currency"], "EUR");
    assert_eq!(payment["reference"], "order-17");
    assert_eq!(payment["status"], "pending");
    assert!(
        payment["created_at"].as_str().unwrap().ends_with('Z'),
        "{payment}"
    );
    assert_eq!(payment.as_object().unwrap().len(), 6, "{payment}");
    let location = created.header("location").unwrap().to_owned();
    assert_eq!(
        location,
        format!("/v1/payments/{}", payment["id"].as_str().unwrap())
    );
    assert_eq!(created.header("idempotent-replayed"), None);

    let replayed = service.pay(ACME, "key-1", order("order-17")).await;
    assert_eq!(replayed.status, 201);
    assert_eq!(replayed.body, created.body);
    assert_eq!(replayed.header("location"), Some(&*location));
    assert_eq!(replayed.header("idempotent-replayed"), Some("true"));

    let shown = service.get(&location).await;
    assert_eq!(shown.status, 200);
    assert_eq!(shown.json(), payment);
    assert_eq!(
        service.get("/v1/payments").await.json()["items"],
        json!([payment])
    );
}

#[tokio::test]
async fn sixteen_at_once_under_one_key_are_one_payment() {
    let service = Service::start();
    let answers = futures(16, |_| service.pay(ACME, "race", order("once"))).await;
    let mut created = 0;
    for answer in &answers {
        match answer.status.as_u16() {
            201 => created += 1,
            409 => {
                answer.problem(409, "idempotency_key_in_flight");
                assert!(answer.header("retry-after").is_some());
            }
            other => panic!("{other}: {:?}", answer.body),
        }
    }
    assert!(created >= 1);
    service.assert_failures_are_documented().await;
    assert_eq!(
        service.get("/v1/payments").await.json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_key_belongs_to_one_tenant_and_so_does_a_payment() {
    let service = Service::start();
    let acme = service.pay(ACME, "shared", order("a")).await;
    let globex = service.pay(GLOBEX, "shared", order("a")).await;
    assert_eq!((acme.status.as_u16(), globex.status.as_u16()), (201, 201));
    assert_ne!(acme.json()["id"], globex.json()["id"]);
    let path = globex.header("location").unwrap();
    service.get(path).await.problem(404, "payment_not_found");
    let listed = service
        .send(
            Method::GET,
            "/v1/payments",
            &[("authorization", GLOBEX)],
            "",
        )
        .await;
    assert_eq!(listed.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_with_another_body_is_refused() {
    let service = Service::start();
    assert_eq!(service.pay(ACME, "k", order("a")).await.status, 201);
    let problem = service
        .pay(ACME, "k", order("b"))
        .await
        .problem(422, "idempotency_key_reused");
    assert_eq!(problem["outcome"], "not_applied");
    let codes = service.assert_failures_are_documented().await;
    assert_eq!(Vec::from_iter(codes), ["idempotency_key_reused"]);
}

#[tokio::test]
async fn pages_go_forward_and_back_and_name_their_neighbours() {
    let service = Service::start();
    for n in 0..7 {
        let currency = if n % 2 == 0 { "EUR" } else { "USD" };
        let body =
            json!({ "amount": 1, "currency": currency, "reference": format!("r{n}") }).to_string();
        assert_eq!(service.pay(ACME, &format!("k{n}"), body).await.status, 201);
    }
    let references = |page: &serde_json::Value| -> Vec<String> {
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["reference"].as_str().unwrap().to_owned())
            .collect()
    };

    let answer = service.get("/v1/payments?limit=3").await;
    let first = answer.json();
    assert_eq!(references(&first), ["r6", "r5", "r4"]);
    assert_eq!(
        (&first["page"]["has_next"], &first["page"]["has_previous"]),
        (&json!(true), &json!(false))
    );
    let link = answer.header("link").unwrap();
    assert!(
        link.contains("rel=\"next\"") && link.contains("limit=3") && !link.contains("rel=\"prev\""),
        "{link}"
    );

    let after = first["page"]["end_cursor"].as_str().unwrap();
    let second = service
        .get(&format!("/v1/payments?limit=3&after={after}"))
        .await
        .json();
    assert_eq!(references(&second), ["r3", "r2", "r1"]);
    assert_eq!(
        (&second["page"]["has_next"], &second["page"]["has_previous"]),
        (&json!(true), &json!(true))
    );

    let after = second["page"]["end_cursor"].as_str().unwrap();
    let last = service
        .get(&format!("/v1/payments?limit=3&after={after}"))
        .await
        .json();
    assert_eq!(references(&last), ["r0"]);
    assert_eq!(last["page"]["has_next"], json!(false));

    let before = second["page"]["start_cursor"].as_str().unwrap();
    let back = service
        .get(&format!("/v1/payments?limit=3&before={before}"))
        .await
        .json();
    assert_eq!(references(&back), ["r6", "r5", "r4"]);

    let euros = service.get("/v1/payments?currency=EUR").await.json();
    assert_eq!(references(&euros), ["r6", "r4", "r2", "r0"]);
    assert_eq!(
        service.get("/v1/payments?currency=CHF").await.json()["page"]["end_cursor"],
        json!(null)
    );

    // `Link` leads to both ends, and keeps the filter.
    let link = service
        .get("/v1/payments?currency=EUR&limit=3")
        .await
        .header("link")
        .unwrap()
        .to_owned();
    assert!(
        link.ends_with("</v1/payments?currency=EUR&last=3>; rel=\"last\""),
        "{link}"
    );
    let end = service.get("/v1/payments?currency=EUR&last=3").await.json();
    assert_eq!(references(&end), ["r4", "r2", "r0"]);
    let both = service
        .get(&format!("/v1/payments?last=3&after={after}"))
        .await;
    assert_eq!(both.status, 400);
    assert_eq!(both.pointers(), ["/after", "/last"]);

    // A cursor of one list is a stranger in another.
    let foreign = service
        .get(&format!("/v1/payments?currency=EUR&after={after}"))
        .await;
    assert_eq!(foreign.status, 400, "{:?}", foreign.body);
    assert_eq!(foreign.pointers(), ["/after"]);
}

/// Runs `n` futures at the same time.
async fn futures<T, F: Future<Output = T>>(n: usize, make: impl Fn(usize) -> F) -> Vec<T> {
    let mut all: Vec<_> = (0..n).map(|n| Box::pin(make(n))).collect();
    let mut done: Vec<Option<T>> = (0..n).map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, slot) in all.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *slot = Some(value);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().map(Option::unwrap).collect()
}
