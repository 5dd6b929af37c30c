//! Who gets a key.

use futures_util::future::join_all;

use super::{LONG, SHORT, claim_of, held, ours, take_over};
use crate::Error;
use crate::conformance::keys::LOOKALIKES;
use crate::leased::{LeasedStore, Taken, Work};

pub(super) async fn a_claimed_key_is_in_flight<S: LeasedStore>(store: &S) -> Result<(), Error> {
    let claim = claim_of("claimed", "k", "this")?;
    let (_, journal) = ours(store, &claim, LONG).await?;
    assert!(journal.is_empty(), "a new key has no steps behind it");
    for body in ["this", "that"] {
        let found = store
            .claim(&claim_of("claimed", "k", body)?, &Work::default(), LONG)
            .await?;
        assert!(
            matches!(found, Taken::InFlight { fingerprint, left }
                if fingerprint == claim.fingerprint && left <= LONG && left > LONG / 2),
            "in flight, for whom and how long: {found:?}"
        );
    }
    Ok(())
}

pub(super) async fn of_sixty_four_claims_one_wins<S: LeasedStore>(store: &S) -> Result<(), Error> {
    let claim = claim_of("sixty-four", "k", "")?;
    assert_eq!(winners(store, &claim, 64).await?, 1);
    Ok(())
}

async fn winners<S: LeasedStore>(
    store: &S,
    claim: &crate::store::Claim,
    attempts: usize,
) -> Result<usize, Error> {
    let attempts = (0..attempts).map(|_| {
        let (store, claim) = (store.clone(), claim.clone());
        tokio::spawn(async move { store.claim(&claim, &Work::default(), LONG).await })
    });
    let mut winners = 0;
    for attempt in join_all(attempts).await {
        let taken = match attempt {
            Ok(Err(busy)) if busy.kind() == crate::ErrorKind::Busy => continue,
            Ok(taken) => taken?,
            Err(error) => return Err(Error::new(crate::ErrorKind::Unavailable, error)),
        };
        match taken {
            Taken::Ours { .. } => winners += 1,
            other => assert!(matches!(other, Taken::InFlight { .. }), "{other:?}"),
        }
    }
    Ok(winners)
}

pub(super) async fn a_lease_that_is_over_is_taken_over_once<S: LeasedStore>(
    store: &S,
) -> Result<(), Error> {
    let claim = claim_of("over", "k", "")?;
    let (first, _) = ours(store, &claim, SHORT).await?;
    let (second, _) = take_over(store, &claim, SHORT).await?;
    assert!(
        second.token.number > first.token.number,
        "tokens grow: {first:?} {second:?}"
    );
    loop {
        let winners = winners(store, &claim, 8).await?;
        assert!(winners <= 1, "{winners} took over");
        if winners == 1 {
            return Ok(());
        }
    }
}

pub(super) async fn another_request_never_takes_over<S: LeasedStore>(
    store: &S,
) -> Result<(), Error> {
    let claim = claim_of("another", "k", "this")?;
    ours(store, &claim, SHORT).await?;
    let that = claim_of("another", "k", "that")?;
    // Over for certain when the same request could take it.
    take_over(store, &claim, SHORT).await?;
    take_over(store, &claim, SHORT).await?;
    let found = store.claim(&that, &Work::default(), LONG).await?;
    assert!(
        matches!(found, Taken::InFlight { fingerprint, .. } if fingerprint == claim.fingerprint),
        "{found:?}"
    );
    take_over(store, &claim, LONG).await?;
    Ok(())
}

pub(super) async fn a_key_in_two_scopes_is_two_keys<S: LeasedStore>(
    store: &S,
) -> Result<(), Error> {
    ours(store, &claim_of("scope a", "k", "")?, LONG).await?;
    ours(store, &claim_of("scope b", "k", "")?, LONG).await?;
    Ok(())
}

pub(super) async fn keys_that_look_alike_are_different_keys<S: LeasedStore>(
    store: &S,
) -> Result<(), Error> {
    for key in LOOKALIKES {
        let claim = claim_of("alike", key, "")?;
        let taken = store.claim(&claim, &Work::default(), LONG).await?;
        assert!(held(&claim, taken).is_some(), "{key:?}");
    }
    Ok(())
}

pub(super) async fn known_keys_exist<S: LeasedStore>(store: &S) -> Result<(), Error> {
    let claim = claim_of("exists", "k", "")?;
    assert!(!store.exists(&claim.scope, &claim.key).await?);
    let (holder, _) = ours(store, &claim, LONG).await?;
    assert!(store.exists(&claim.scope, &claim.key).await?);
    assert!(store.release(&holder).await?);
    assert!(
        !store.exists(&claim.scope, &claim.key).await?,
        "released before anything had happened"
    );
    assert!(store.now_ms().await? > 1_600_000_000_000, "in milliseconds");
    Ok(())
}
