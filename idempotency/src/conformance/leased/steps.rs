//! The token and the business write in one transaction.

use sqlx::Pool;

use super::{LONG, SHORT, claim_of, ours, take_over};
use crate::leased::{LeasedDb, LeasedStore, Taken, Work};
use crate::{Error, ErrorKind};

pub(super) async fn a_stale_token_finds_no_row_to_lock<D: LeasedDb>(
    pool: &Pool<D>,
) -> Result<(), Error> {
    let claim = claim_of("stale step", "k", "")?;
    let (stale, _) = ours(pool, &claim, SHORT).await?;
    let (holder, _) = take_over(pool, &claim, LONG).await?;
    for (holder, expected) in [(&stale, None), (&holder, Some(Vec::new()))] {
        let mut tx = D::begin(pool).await?;
        assert_eq!(D::lease_guard(&mut tx, holder, LONG).await?, expected);
        assert_eq!(
            D::lease_append(&mut tx, holder, b"e", LONG).await?,
            expected.is_some()
        );
        D::rollback(tx).await;
    }
    Ok(())
}

/// However long it takes, and although its lease is over. Nobody waits for it, except for a single writer's place.
pub(super) async fn a_step_in_progress_is_not_taken_over<D: LeasedDb>(
    pool: &Pool<D>,
) -> Result<(), Error> {
    let claim = claim_of("step in progress", "k", "")?;
    let (holder, _) = ours(pool, &claim, SHORT).await?;
    let mut tx = D::begin(pool).await?;
    assert!(D::lease_guard(&mut tx, &holder, LONG).await?.is_some());
    tokio::time::sleep(SHORT * 3).await;
    for _ in 0..3 {
        match pool.claim(&claim, &Work::default(), LONG).await {
            Ok(found) => assert!(matches!(found, Taken::InFlight { .. }), "{found:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
        }
    }
    assert!(D::lease_append(&mut tx, &holder, b"e", SHORT).await?);
    D::commit(tx).await?;
    let (_, journal) = take_over(pool, &claim, LONG).await?;
    assert_eq!(journal, b"e");
    Ok(())
}

pub(super) async fn a_note_goes_with_its_transaction<D: LeasedDb>(
    pool: &Pool<D>,
) -> Result<(), Error> {
    let claim = claim_of("note", "k", "")?;
    let (holder, _) = ours(pool, &claim, LONG).await?;
    for (commits, expected) in [(false, &b""[..]), (true, b"e")] {
        let mut tx = D::begin(pool).await?;
        assert!(D::lease_guard(&mut tx, &holder, LONG).await?.is_some());
        assert!(D::lease_append(&mut tx, &holder, b"e", LONG).await?);
        if commits {
            D::commit(tx).await?;
        } else {
            D::rollback(tx).await;
        }
        let mut tx = D::begin(pool).await?;
        let journal = D::lease_guard(&mut tx, &holder, LONG).await?;
        assert_eq!(journal.as_deref(), Some(expected));
        D::rollback(tx).await;
    }
    Ok(())
}
