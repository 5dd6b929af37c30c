//! The suite every store must pass, ours and yours: `all(&pool).await` on a database of its own.
//!
//! Each check is a statement about [`IdempotencyDb`]; it fails by panicking with that statement. They use keys of their
//! own, so one database serves them all.

mod inbox;
mod keys;
pub mod leased;

use sqlx::Pool;

use crate::store::IdempotencyDb;
use crate::{Error, migrate};

/// Runs every check.
///
/// # Errors
/// The store's own, where a check expected none.
///
/// # Panics
/// When the store breaks a promise.
pub async fn all<D: IdempotencyDb>(pool: &Pool<D>) -> Result<(), Error> {
    let (one, two) = futures_util::future::join(migrate(pool), migrate(pool)).await;
    one.and(two)?;
    migrate(pool).await?;
    keys::a_claim_that_is_recorded_is_found_byte_for_byte(pool).await?;
    keys::a_claim_that_is_rolled_back_leaves_nothing(pool).await?;
    keys::a_held_key_is_not_given_to_another(pool).await?;
    keys::a_key_is_recorded_once(pool).await?;
    keys::a_key_that_is_claimed_last_is_recorded_once(pool).await?;
    keys::keys_that_look_alike_are_different_keys(pool).await?;
    keys::one_key_in_two_scopes_is_two_keys(pool).await?;
    keys::the_largest_record_fits(pool).await?;
    keys::an_open_transaction_is_open(pool).await?;
    inbox::a_message_is_first_once_per_consumer(pool).await?;
    inbox::a_rolled_back_message_is_first_again(pool).await?;
    inbox::messages_that_look_alike_are_different_messages(pool).await?;
    inbox::concurrent_deliveries_apply_one(pool).await?;
    keys::only_old_records_are_reaped(pool).await?;
    keys::a_key_with_a_time_is_a_key_like_any_other(pool).await?;
    inbox::only_old_messages_are_reaped(pool).await
}
