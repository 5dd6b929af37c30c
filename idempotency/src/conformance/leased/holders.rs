//! What a holder may do, and what is left when it is gone.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::{LONG, SHORT, claim_of, held, ours, take_over};
use crate::leased::{LeasedStore, Retention, Taken, Work};
use crate::{Error, Recorded};

fn answer() -> Recorded {
    let mut headers = HeaderMap::new();
    headers.append("link", HeaderValue::from_static("<a>"));
    headers.append("link", HeaderValue::from_static("<b>"));
    Recorded {
        status: 201,
        headers,
        body: Bytes::from_static(b"\0\xff\n{}"),
    }
}

pub(super) async fn a_stale_token_changes_nothing<S: LeasedStore>(store: &S) -> Result<(), Error> {
    let claim = claim_of("stale", "k", "")?;
    let (stale, _) = ours(store, &claim, SHORT).await?;
    let (holder, _) = take_over(store, &claim, LONG).await?;
    assert!(!store.renew(&stale, LONG).await?);
    assert!(!store.append(&stale, b"entry", LONG).await?);
    assert!(!store.complete(&stale, &answer()).await?);
    assert!(!store.release(&stale).await?);
    assert!(!store.lose(&stale).await?);
    assert!(store.append(&holder, b"entry", SHORT).await?);
    let (holder, journal) = take_over(store, &claim, LONG).await?;
    assert_eq!(journal, b"entry", "nothing of the stale attempt's");
    assert!(store.complete(&holder, &answer()).await?);
    assert!(!store.complete(&holder, &answer()).await?, "done is done");
    assert!(!store.release(&holder).await?);
    assert!(!store.renew(&holder, LONG).await?);
    Ok(())
}

pub(super) async fn renewing_and_noting_keep_others_out<S: LeasedStore>(
    store: &S,
) -> Result<(), Error> {
    for by_renewing in [true, false] {
        let claim = claim_of("renewing", if by_renewing { "r" } else { "n" }, "")?;
        let (holder, _) = ours(store, &claim, SHORT).await?;
        // The lease may be over already: as long as nobody took over, the token decides.
        assert!(if by_renewing {
            store.renew(&holder, LONG).await?
        } else {
            store.append(&holder, b"e", LONG).await?
        });
        let found = store.claim(&claim, &Work::default(), LONG).await?;
        assert!(
            matches!(found, Taken::InFlight { left, .. } if left > LONG / 2),
            "{found:?}"
        );
    }
    Ok(())
}

pub(super) async fn what_was_noted_is_there_after_a_takeover<S: LeasedStore>(
    store: &S,
) -> Result<(), Error> {
    let claim = claim_of("noted", "k", "")?;
    let (holder, _) = ours(store, &claim, SHORT).await?;
    let every_byte: Vec<u8> = (0..=255).collect();
    assert!(store.append(&holder, &every_byte, SHORT).await?);
    assert!(store.append(&holder, b"\0more", SHORT).await?);
    let (holder, journal) = take_over(store, &claim, SHORT).await?;
    assert_eq!(journal, [&every_byte[..], b"\0more"].concat());
    assert!(store.append(&holder, b"!", SHORT).await?);
    let (_, journal) = take_over(store, &claim, LONG).await?;
    assert_eq!(journal, [&every_byte[..], b"\0more!"].concat());
    Ok(())
}

pub(super) async fn an_answer_comes_back_byte_for_byte<S: LeasedStore>(
    store: &S,
) -> Result<(), Error> {
    let claim = claim_of("answer", "k", "this")?;
    let (holder, _) = ours(store, &claim, LONG).await?;
    assert!(store.complete(&holder, &answer()).await?);
    for body in ["this", "that"] {
        let claim_again = claim_of("answer", "k", body)?;
        let found = store.claim(&claim_again, &Work::default(), LONG).await?;
        assert_eq!(
            found,
            Taken::Done {
                fingerprint: claim.fingerprint,
                recorded: answer()
            },
            "whose it is, the caller compares"
        );
    }
    Ok(())
}

pub(super) async fn a_released_key_is_free_for_any_request<S: LeasedStore>(
    store: &S,
) -> Result<(), Error> {
    let (first, _) = ours(store, &claim_of("released", "k", "this")?, LONG).await?;
    assert!(store.release(&first).await?);
    assert!(!store.renew(&first, LONG).await?, "it is given back");
    let that = claim_of("released", "k", "that")?;
    let (second, journal) = ours(store, &that, LONG).await?;
    assert!(journal.is_empty());
    assert!(
        second.token.number > first.token.number,
        "a spent token is never given again"
    );
    assert!(!store.complete(&first, &answer()).await?);
    let found = store.claim(&that, &Work::default(), LONG).await?;
    assert!(
        matches!(found, Taken::InFlight { fingerprint, .. } if fingerprint == that.fingerprint),
        "{found:?}"
    );
    Ok(())
}

pub(super) async fn a_released_key_with_steps_is_taken_over_at_once<S: LeasedStore>(
    store: &S,
) -> Result<(), Error> {
    let claim = claim_of("released with steps", "k", "this")?;
    let (holder, _) = ours(store, &claim, LONG).await?;
    assert!(store.append(&holder, b"step", LONG).await?);
    assert!(store.release(&holder).await?);
    let that = claim_of("released with steps", "k", "that")?;
    let found = store.claim(&that, &Work::default(), LONG).await?;
    assert!(
        matches!(found, Taken::InFlight { fingerprint, .. } if fingerprint == claim.fingerprint),
        "its steps are those of one request: {found:?}"
    );
    let (_, journal) = ours(store, &claim, LONG).await?;
    assert_eq!(journal, b"step");
    Ok(())
}

pub(super) async fn an_unknown_key_stays_so_until_it_is_reopened<S: LeasedStore>(
    store: &S,
) -> Result<(), Error> {
    let claim = claim_of("unknown", "k", "")?;
    let (holder, _) = ours(store, &claim, SHORT).await?;
    assert!(store.append(&holder, b"step", SHORT).await?);
    assert!(!store.reopen(&claim.scope, &claim.key).await?);
    assert!(store.lose(&holder).await?);
    assert!(!store.renew(&holder, LONG).await?);
    for _ in 0..2 {
        let found = store.claim(&claim, &Work::default(), LONG).await?;
        let fingerprint = claim.fingerprint;
        assert_eq!(found, Taken::Unknown { fingerprint });
        tokio::time::sleep(SHORT * 3).await;
    }
    assert!(store.reopen(&claim.scope, &claim.key).await?);
    let (again, journal) = ours(store, &claim, LONG).await?;
    assert_eq!(journal, b"step");
    assert!(again.token.number > holder.token.number);
    assert!(!store.reopen(&claim.scope, &claim.key).await?);
    Ok(())
}

pub(super) async fn abandoned_work_is_found_by_its_handler<S: LeasedStore>(
    store: &S,
) -> Result<(), Error> {
    let work = |handler: &str, input: &'static [u8]| Work {
        handler: handler.to_owned(),
        input: Bytes::from_static(input),
    };
    for (key, handler, lease) in [
        ("first", "pay", SHORT),
        ("second", "pay", SHORT * 2),
        ("live", "pay", LONG),
        ("other", "mail", SHORT),
        ("nobody", "", SHORT),
    ] {
        let claim = claim_of("abandoned", key, "")?;
        store.claim(&claim, &work(handler, b"\0in"), lease).await?;
    }
    let found = loop {
        let found = store.abandoned("pay", 10).await?;
        if found.len() >= 2 {
            break found;
        }
        tokio::time::sleep(SHORT).await;
    };
    let keys: Vec<_> = found
        .iter()
        .map(|found| found.claim.key.as_bytes())
        .collect();
    assert_eq!(
        keys,
        [&b"first"[..], b"second"],
        "those that waited longest first"
    );
    assert!(found.iter().all(|found| found.work == work("pay", b"\0in")));
    assert_eq!(store.abandoned("pay", 1).await?.len(), 1);
    assert!(store.abandoned("", 10).await?.is_empty());
    for found in found {
        let taken = store.claim(&found.claim, &found.work, LONG).await?;
        assert!(matches!(taken, Taken::Ours { .. }), "{taken:?}");
    }
    assert!(store.abandoned("pay", 10).await?.is_empty());
    Ok(())
}

/// Its key was claimed long before, and perhaps given back: what counts is when the answer was recorded.
pub(super) async fn an_answer_that_came_late_stays_as_long_as_any<S: LeasedStore>(
    store: &S,
) -> Result<(), Error> {
    let hour = Duration::from_hours(1);
    let mut ended = Duration::from_millis(50);
    loop {
        let keys = ["slow", "released"].map(|key| format!("{key} {}", ended.as_millis()));
        let claims = [
            claim_of("late", &keys[0], "")?,
            claim_of("late", &keys[1], "")?,
        ];
        let (slow, _) = ours(store, &claims[0], LONG).await?;
        let (released, _) = ours(store, &claims[1], LONG).await?;
        assert!(store.release(&released).await?);
        tokio::time::sleep(ended * 2).await;
        let (again, _) = ours(store, &claims[1], LONG).await?;
        let recorded_ms = store.now_ms().await?;
        for holder in [&slow, &again] {
            assert!(store.complete(holder, &answer()).await?);
        }
        let unfinished = hour;
        while store.reap(Retention { ended, unfinished }, 1000).await? > 0 {}
        let mut known = true;
        for claim in &claims {
            known &= store.exists(&claim.scope, &claim.key).await?;
        }
        // On a machine that was held up in between, they may be old enough by now.
        let in_time = u128::from(store.now_ms().await? - recorded_ms) < ended.as_millis();
        if in_time {
            assert!(known, "an answer of this moment goes as if it were old");
            return Ok(());
        }
        ended *= 2;
    }
}

pub(super) async fn what_is_in_the_middle_stays_longer<S: LeasedStore>(
    store: &S,
) -> Result<(), Error> {
    let work = Work {
        handler: "nobody runs it".into(),
        input: Bytes::new(),
    };
    let (ended, unfinished) = (
        ["done", "released", "untouched"],
        ["stepped", "handled", "unknown"],
    );
    for key in ["live"].iter().chain(&ended).chain(&unfinished) {
        let claim = claim_of("reap", key, "")?;
        let lease = if *key == "live" { LONG } else { SHORT };
        let work = if *key == "handled" {
            work.clone()
        } else {
            Work::default()
        };
        let taken = store.claim(&claim, &work, lease).await?;
        let taken = held(&claim, taken);
        assert!(taken.is_some(), "{key} is new");
        let Some((holder, _)) = taken else { continue };
        match *key {
            "done" => assert!(store.complete(&holder, &answer()).await?),
            "released" => assert!(store.release(&holder).await?),
            "stepped" => assert!(store.append(&holder, b"step", SHORT).await?),
            "unknown" => assert!(store.lose(&holder).await?),
            _ => {}
        }
    }
    let hour = Duration::from_hours(1);
    let keep = |ended, unfinished| Retention { ended, unfinished };
    assert_eq!(
        store.reap(keep(hour, Duration::ZERO), 1000).await?,
        0,
        "nothing is an hour old, and nothing unfinished goes before what is done"
    );
    tokio::time::sleep(SHORT * 5).await;
    // A store may leave forgetting to its server.
    let at_once = store.reap(keep(Duration::ZERO, hour), 1).await?;
    assert!(at_once <= 1, "a batch is no larger than it may be");
    while store.reap(keep(Duration::ZERO, hour), 1000).await? > 0 {}
    let known = async |key: &str| {
        let claim = claim_of("reap", key, "")?;
        store.exists(&claim.scope, &claim.key).await
    };
    for key in ["live"].iter().chain(&unfinished) {
        assert!(known(key).await?, "{key} stays");
    }
    if at_once > 0 {
        for key in ended {
            assert!(!known(key).await?, "{key} goes");
        }
        while store
            .reap(keep(Duration::ZERO, Duration::ZERO), 1000)
            .await?
            > 0
        {}
        for key in unfinished {
            assert!(!known(key).await?, "{key} goes at last");
        }
    }
    assert!(known("live").await?, "a live lease is nobody's to delete");
    Ok(())
}
