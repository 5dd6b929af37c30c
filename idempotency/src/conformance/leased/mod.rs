//! The suite every store of leases must pass, ours and yours: [`all`] for the store, and [`steps`] for a database that
//! keeps leases beside the data they protect.

mod claims;
mod holders;
mod steps;

use std::time::Duration;

use sqlx::Pool;

use crate::leased::{Holder, LeasedDb, LeasedStore, Taken, Work};
use crate::store::Claim;
use crate::{Error, ErrorKind, Fingerprint, Key, Scope};

/// Runs every check on a store of its own.
///
/// # Errors
/// The store's own, where a check expected none.
///
/// # Panics
/// When the store breaks a promise.
pub async fn all<S: LeasedStore>(store: &S) -> Result<(), Error> {
    store.migrate().await?;
    store.migrate().await?;
    claims::a_claimed_key_is_in_flight(store).await?;
    claims::of_sixty_four_claims_one_wins(store).await?;
    claims::a_lease_that_is_over_is_taken_over_once(store).await?;
    claims::another_request_never_takes_over(store).await?;
    claims::a_key_in_two_scopes_is_two_keys(store).await?;
    claims::keys_that_look_alike_are_different_keys(store).await?;
    claims::known_keys_exist(store).await?;
    holders::a_stale_token_changes_nothing(store).await?;
    holders::renewing_and_noting_keep_others_out(store).await?;
    holders::what_was_noted_is_there_after_a_takeover(store).await?;
    holders::an_answer_comes_back_byte_for_byte(store).await?;
    holders::a_released_key_is_free_for_any_request(store).await?;
    holders::a_released_key_with_steps_is_taken_over_at_once(store).await?;
    holders::an_unknown_key_stays_so_until_it_is_reopened(store).await?;
    holders::abandoned_work_is_found_by_its_handler(store).await?;
    holders::an_answer_that_came_late_stays_as_long_as_any(store).await?;
    holders::what_is_in_the_middle_stays_longer(store).await
}

/// Runs the checks that need the database's transactions. After [`all`].
///
/// # Errors
/// The store's own, where a check expected none.
///
/// # Panics
/// When the store breaks a promise.
pub async fn steps<D: LeasedDb>(pool: &Pool<D>) -> Result<(), Error> {
    steps::a_stale_token_finds_no_row_to_lock(pool).await?;
    steps::a_step_in_progress_is_not_taken_over(pool).await?;
    steps::a_note_goes_with_its_transaction(pool).await
}

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(1);

fn claim_of(tenant: &str, key: impl AsRef<[u8]>, body: &str) -> Result<Claim, Error> {
    let key = Key::new(key).map_err(|error| Error::new(ErrorKind::InvalidId, error))?;
    Ok(Claim {
        scope: Scope::new(tenant, "", "leased conformance"),
        key,
        fingerprint: Fingerprint::new("POST", "/", body),
    })
}

/// Claims what must be free, and returns who holds it and the journal.
async fn ours<S: LeasedStore>(
    store: &S,
    claim: &Claim,
    lease: Duration,
) -> Result<(Holder, Vec<u8>), Error> {
    let taken = store.claim(claim, &Work::default(), lease).await?;
    let held = held(claim, taken);
    assert!(held.is_some(), "{claim:?} is free");
    held.ok_or_else(|| ErrorKind::Database.into())
}

fn held(claim: &Claim, taken: Taken) -> Option<(Holder, Vec<u8>)> {
    let Taken::Ours { token, journal } = taken else {
        return None;
    };
    let holder = Holder {
        scope: claim.scope,
        key: claim.key.clone(),
        token,
    };
    Some((holder, journal))
}

/// Claims the key again and again until the lease of its holder is over.
async fn take_over<S: LeasedStore>(
    store: &S,
    claim: &Claim,
    lease: Duration,
) -> Result<(Holder, Vec<u8>), Error> {
    loop {
        let taken = store.claim(claim, &Work::default(), lease).await?;
        if let Some(held) = held(claim, taken) {
            return Ok(held);
        }
        tokio::time::sleep(SHORT).await;
    }
}
