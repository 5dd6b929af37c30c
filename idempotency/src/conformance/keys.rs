//! Claim, record, look up, reap.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use sqlx::{Pool, Transaction};

use crate::store::{Claim, Claimed, IdempotencyDb, Inserted};
use crate::{Error, ErrorKind, Fingerprint, KEY_BYTES_MAX, Key, Recorded, Scope, Wait};

pub(super) const IDLE_MAX: Duration = Duration::from_secs(30);

fn claim_of(tenant: &str, key: impl AsRef<[u8]>, body: &str) -> Result<Claim, Error> {
    let key = Key::new(key).map_err(|error| Error::new(ErrorKind::InvalidId, error))?;
    Ok(Claim {
        scope: Scope::new(tenant, "", "conformance"),
        key,
        fingerprint: Fingerprint::new("POST", "/", body),
    })
}

fn answer(body: impl Into<Bytes>) -> Recorded {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("text/plain"));
    headers.append("link", HeaderValue::from_static("<a>"));
    headers.append("link", HeaderValue::from_static("<b>"));
    Recorded {
        status: 201,
        headers,
        body: body.into(),
    }
}

async fn claimed<D: IdempotencyDb>(
    pool: &Pool<D>,
    claim: &Claim,
) -> Result<(Transaction<'static, D>, Claimed), Error> {
    let mut tx = D::begin(pool).await?;
    let found = D::claim(&mut tx, claim, IDLE_MAX, Wait::No).await?;
    Ok((tx, found))
}

async fn done<D: IdempotencyDb>(
    pool: &Pool<D>,
    claim: &Claim,
    recorded: &Recorded,
) -> Result<(), Error> {
    let (mut tx, found) = claimed(pool, claim).await?;
    assert!(
        matches!(found, Claimed::Fresh { .. }),
        "{claim:?} is fresh, not {found:?}"
    );
    assert_eq!(D::record(&mut tx, claim, recorded).await?, Inserted::Stored);
    D::commit(tx).await
}

pub(super) async fn a_claim_that_is_recorded_is_found_byte_for_byte<D: IdempotencyDb>(
    pool: &Pool<D>,
) -> Result<(), Error> {
    let claim = claim_of("found", "k", "this")?;
    let recorded = answer(&b"\0\xff\n{}"[..]);
    assert_eq!(D::lookup(pool, &claim.scope, &claim.key).await?, None);
    done(pool, &claim, &recorded).await?;
    assert_eq!(
        D::lookup(pool, &claim.scope, &claim.key).await?,
        Some((claim.fingerprint, recorded.clone()))
    );
    // Also by another request: whose record it is, the caller compares.
    for body in ["this", "that"] {
        let (tx, found) = claimed(pool, &claim_of("found", "k", body)?).await?;
        assert_eq!(
            found,
            Claimed::Recorded {
                fingerprint: claim.fingerprint,
                recorded: recorded.clone()
            }
        );
        D::rollback(tx).await;
    }
    Ok(())
}

pub(super) async fn a_claim_that_is_rolled_back_leaves_nothing<D: IdempotencyDb>(
    pool: &Pool<D>,
) -> Result<(), Error> {
    let claim = claim_of("rolled back", "k", "")?;
    for by_drop in [false, true] {
        let (mut tx, found) = claimed(pool, &claim).await?;
        assert!(
            matches!(found, Claimed::Fresh { .. }),
            "free again after a rollback"
        );
        assert_eq!(
            D::record(&mut tx, &claim, &answer("")).await?,
            Inserted::Stored
        );
        if by_drop {
            drop(tx);
        } else {
            D::rollback(tx).await;
        }
    }
    assert_eq!(D::lookup(pool, &claim.scope, &claim.key).await?, None);
    // A drop queues the rollback; the key is free once the connection is used or returned.
    for _ in 0..100 {
        match claimed(pool, &claim).await {
            Ok((tx, Claimed::Fresh { now_ms })) => {
                assert!(
                    now_ms > 1_600_000_000_000,
                    "the database's clock, in milliseconds: {now_ms}"
                );
                D::rollback(tx).await;
                return Ok(());
            }
            Ok((tx, Claimed::InFlight)) => D::rollback(tx).await,
            Ok((_, other)) => assert!(
                matches!(other, Claimed::InFlight),
                "nothing was left, but {other:?}"
            ),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
        }
        tokio::task::yield_now().await;
    }
    assert!(
        claimed(pool, &claim).await.is_ok(),
        "a dropped transaction frees its key"
    );
    Ok(())
}

/// A second caller is told that the key is in flight, or cannot begin at all where there is one writer's place.
pub(super) async fn a_held_key_is_not_given_to_another<D: IdempotencyDb>(
    pool: &Pool<D>,
) -> Result<(), Error> {
    let claim = claim_of("held", "k", "this")?;
    let (mut holder, found) = claimed(pool, &claim).await?;
    assert!(matches!(found, Claimed::Fresh { .. }));
    for body in ["this", "that"] {
        match claimed(pool, &claim_of("held", "k", body)?).await {
            Ok((tx, found)) => {
                // A store that cannot tell what a key is held for says "in flight".
                let other = body == "that" && found == Claimed::OtherInFlight;
                assert!(other || found == Claimed::InFlight, "{body}: {found:?}");
                D::rollback(tx).await;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
        }
    }
    assert_eq!(
        D::record(&mut holder, &claim, &answer("first")).await?,
        Inserted::Stored
    );
    assert_eq!(
        D::lookup(pool, &claim.scope, &claim.key).await?,
        None,
        "nothing shows before the commit"
    );
    D::commit(holder).await?;
    let (tx, found) = claimed(pool, &claim).await?;
    assert!(
        matches!(found, Claimed::Recorded { .. }),
        "the commit shows at once"
    );
    D::rollback(tx).await;
    Ok(())
}

/// Claimed with its record: waits for who holds the key, and stands aside where there is a record.
pub(super) async fn a_key_that_is_claimed_last_is_recorded_once<D: IdempotencyDb>(
    pool: &Pool<D>,
) -> Result<(), Error> {
    for key in ["k", "01940000-0000-7000-8000-000000000000"] {
        let claim = claim_of("last", key, "")?;
        let mut tx = D::begin_unclaimed(pool, &claim, IDLE_MAX).await?;
        let (inserted, now_ms) =
            D::claim_and_record(&mut tx, &claim, &answer("first"), IDLE_MAX).await?;
        assert_eq!(inserted, Inserted::Stored);
        assert!(now_ms > 1_700_000_000_000, "{now_ms} is not a time");
        assert_eq!(
            D::lookup(pool, &claim.scope, &claim.key).await?,
            None,
            "nothing shows before the commit"
        );
        D::rollback(tx).await;
        assert_eq!(D::lookup(pool, &claim.scope, &claim.key).await?, None);

        let mut tx = D::begin_unclaimed(pool, &claim, IDLE_MAX).await?;
        D::claim_and_record(&mut tx, &claim, &answer("second"), IDLE_MAX).await?;
        D::commit(tx).await?;
        for body in ["", "another request"] {
            let again = claim_of("last", key, body)?;
            let mut tx = D::begin_unclaimed(pool, &again, IDLE_MAX).await?;
            let taken = D::claim_and_record(&mut tx, &again, &answer("third"), IDLE_MAX).await?;
            assert_eq!(taken.0, Inserted::Taken);
            D::rollback(tx).await;
        }
        let found = D::lookup(pool, &claim.scope, &claim.key).await?;
        assert_eq!(found, Some((claim.fingerprint, answer("second"))));
    }
    Ok(())
}

/// The index has the last word, and no record is written outside the transaction of its claim.
pub(super) async fn a_key_is_recorded_once<D: IdempotencyDb>(pool: &Pool<D>) -> Result<(), Error> {
    let claim = claim_of("once", "k", "")?;
    let (mut tx, _) = claimed(pool, &claim).await?;
    assert_eq!(
        D::record(&mut tx, &claim, &answer("first")).await?,
        Inserted::Stored
    );
    assert_eq!(
        D::record(&mut tx, &claim, &answer("second")).await?,
        Inserted::Taken
    );
    D::rollback(tx).await;
    assert_eq!(D::lookup(pool, &claim.scope, &claim.key).await?, None);
    Ok(())
}

pub(super) async fn keys_that_look_alike_are_different_keys<D: IdempotencyDb>(
    pool: &Pool<D>,
) -> Result<(), Error> {
    for key in LOOKALIKES {
        done(pool, &claim_of("alike", key, "")?, &answer(*key)).await?;
    }
    for key in LOOKALIKES {
        let claim = claim_of("alike", key, "")?;
        let found = D::lookup(pool, &claim.scope, &claim.key).await?;
        assert_eq!(
            found.map(|(_, recorded)| recorded.body),
            Some(Bytes::from_static(key.as_bytes())),
            "{key:?}"
        );
    }
    Ok(())
}

/// Bytes that collations, trimming, NUL-terminated strings and Unicode forms are known to merge.
pub(super) const LOOKALIKES: &[&str] = &[
    "abc",
    "ABC",
    "abc ",
    " abc",
    "\u{e1}bc",
    "a\u{301}bc",
    "stra\u{df}e",
    "strasse",
    "1",
    "01",
    "1.0",
    "a\u{200b}bc",
    "a\0",
    "a",
    "a\0b",
    "\0",
    "\u{ff21}",
    "A",
];

pub(super) async fn one_key_in_two_scopes_is_two_keys<D: IdempotencyDb>(
    pool: &Pool<D>,
) -> Result<(), Error> {
    for (tenant, body) in [("scope a", "of a"), ("scope b", "of b")] {
        done(pool, &claim_of(tenant, "k", "")?, &answer(body)).await?;
    }
    let claim = claim_of("scope a", "k", "")?;
    let found = D::lookup(pool, &claim.scope, &claim.key).await?;
    assert_eq!(
        found.map(|(_, recorded)| recorded.body),
        Some(Bytes::from_static(b"of a"))
    );
    Ok(())
}

pub(super) async fn the_largest_record_fits<D: IdempotencyDb>(pool: &Pool<D>) -> Result<(), Error> {
    let claim = claim_of("largest", vec![0xff; KEY_BYTES_MAX], "")?;
    let recorded = Recorded {
        status: 999,
        ..answer(vec![0; 1024 * 1024])
    };
    done(pool, &claim, &recorded).await?;
    let found = D::lookup(pool, &claim.scope, &claim.key).await?;
    assert!(
        found == Some((claim.fingerprint, recorded)),
        "a megabyte comes back as it went"
    );
    Ok(())
}

pub(super) async fn an_open_transaction_is_open<D: IdempotencyDb>(
    pool: &Pool<D>,
) -> Result<(), Error> {
    let claim = claim_of("open", "k", "")?;
    let (mut tx, _) = claimed(pool, &claim).await?;
    D::check_open(&mut tx).await?;
    D::record(&mut tx, &claim, &answer("")).await?;
    D::check_open(&mut tx).await?;
    D::commit(tx).await?;
    assert!(
        D::lookup(pool, &claim.scope, &claim.key).await?.is_some(),
        "checking changes nothing"
    );
    Ok(())
}

pub(super) async fn only_old_records_are_reaped<D: IdempotencyDb>(
    pool: &Pool<D>,
) -> Result<(), Error> {
    for key in ["a", "b", "c"] {
        done(pool, &claim_of("reap", key, "")?, &answer("")).await?;
    }
    assert_eq!(
        D::reap(pool, Duration::from_hours(1), 100).await?,
        0,
        "nothing is an hour old"
    );
    // The records of the other checks are here too: at most a batch goes at a time, and in the end all do.
    until_older_than_zero(pool).await?;
    assert_eq!(D::reap(pool, Duration::ZERO, 2).await?, 2);
    while D::reap(pool, Duration::ZERO, 5).await? > 0 {}
    let claim = claim_of("reap", "a", "")?;
    assert_eq!(D::lookup(pool, &claim.scope, &claim.key).await?, None);
    Ok(())
}

/// Keys with a time of their own, of the same day and of others: wherever a store keeps their records, each is one key.
pub(super) async fn a_key_with_a_time_is_a_key_like_any_other<D: IdempotencyDb>(
    pool: &Pool<D>,
) -> Result<(), Error> {
    // Version 7 UUIDs of 2022-02-22, of the day after it, and of sixteen days after it.
    const KEYS: [&str; 4] = [
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c073990",
        "017f2809-49b0-7cc3-98c4-dc0c0c07398f",
        "017f7548-79b0-7cc3-98c4-dc0c0c07398f",
    ];
    for key in KEYS {
        let claim = claim_of("timed", key, "this")?;
        assert_eq!(D::lookup(pool, &claim.scope, &claim.key).await?, None);
        let (mut tx, found) = claimed(pool, &claim).await?;
        assert!(matches!(found, Claimed::Fresh { .. }), "{key}: {found:?}");
        for inserted in [Inserted::Stored, Inserted::Taken] {
            assert_eq!(D::record(&mut tx, &claim, &answer(key)).await?, inserted);
        }
        D::rollback(tx).await;
        done(pool, &claim, &answer(key)).await?;
    }
    for key in KEYS {
        for body in ["this", "that"] {
            let claim = claim_of("timed", key, body)?;
            let (tx, found) = D::begin_claim(pool, &claim, IDLE_MAX, Wait::No).await?;
            if let Some(tx) = tx {
                D::rollback(tx).await;
            }
            let expected = Claimed::Recorded {
                fingerprint: claim_of("timed", key, "this")?.fingerprint,
                recorded: answer(key),
            };
            assert_eq!(found, expected, "{key} {body}");
            let (tx, found) = claimed(pool, &claim).await?;
            D::rollback(tx).await;
            assert_eq!(found, expected, "{key} {body}");
        }
    }
    let hour = Duration::from_hours(1);
    assert_eq!(
        D::empty_days(pool, hour).await?,
        0,
        "by when they were written, not by what they say"
    );
    let claim = claim_of("timed", KEYS[0], "this")?;
    assert!(D::lookup(pool, &claim.scope, &claim.key).await?.is_some());
    until_older_than_zero(pool).await?;
    while D::empty_days(pool, Duration::ZERO).await? > 0
        || D::reap(pool, Duration::ZERO, 1000).await? > 0
    {}
    assert_eq!(D::lookup(pool, &claim.scope, &claim.key).await?, None);
    Ok(())
}

/// Waits until the database's clock has moved past the last insert.
async fn until_older_than_zero<D: IdempotencyDb>(pool: &Pool<D>) -> Result<(), Error> {
    let claim = claim_of("clock", "k", "")?;
    let mut first = None;
    loop {
        let (tx, found) = claimed(pool, &claim).await?;
        D::rollback(tx).await;
        let Claimed::Fresh { now_ms } = found else {
            continue;
        };
        if now_ms > *first.get_or_insert(now_ms) + 1 {
            return Ok(());
        }
    }
}
