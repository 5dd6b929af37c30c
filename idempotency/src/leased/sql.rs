//! What the Leased protocol asks of a database with transactions.

use std::future::Future;
use std::time::Duration;

use sqlx::{Pool, Transaction};

use super::{Abandoned, Holder, LeasedStore, Retention, Taken, Token, Work};
use crate::store::Claim;
use crate::{Error, ErrorKind, Fingerprint, IdempotencyDb, Key, Recorded, Scope};

/// A database that keeps leases beside the data they protect, so that a step's effects, its token check and its note are
/// one transaction. Implemented for [`sqlx::Postgres`], [`sqlx::MySql`] and [`sqlx::Sqlite`]; a pool of it is a
/// [`LeasedStore`], whose methods these are.
#[expect(missing_docs, reason = "see LeasedStore")]
pub trait LeasedDb: IdempotencyDb {
    /// Locks the key's row for the transaction and returns its journal, if the token is the key's; waits for another
    /// transaction that has it locked. Bounds, on the server where the database can, how long the transaction may sit
    /// without a statement to `idle_max`.
    fn lease_guard(
        tx: &mut Transaction<'static, Self>,
        holder: &Holder,
        idle_max: Duration,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, Error>> + Send;

    /// As [`LeasedStore::append`], in the caller's transaction if there is one.
    fn lease_append(
        conn: &mut Self::Connection,
        holder: &Holder,
        entry: &[u8],
        lease: Duration,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    fn lease_claim(
        pool: &Pool<Self>,
        claim: &Claim,
        work: &Work,
        lease: Duration,
    ) -> impl Future<Output = Result<Taken, Error>> + Send;
    fn lease_now_ms(pool: &Pool<Self>) -> impl Future<Output = Result<u64, Error>> + Send;
    fn lease_exists(
        pool: &Pool<Self>,
        scope: &Scope,
        key: &Key,
    ) -> impl Future<Output = Result<bool, Error>> + Send;
    fn lease_renew(
        pool: &Pool<Self>,
        holder: &Holder,
        lease: Duration,
    ) -> impl Future<Output = Result<bool, Error>> + Send;
    fn lease_complete(
        pool: &Pool<Self>,
        holder: &Holder,
        recorded: &Recorded,
    ) -> impl Future<Output = Result<bool, Error>> + Send;
    fn lease_release(
        pool: &Pool<Self>,
        holder: &Holder,
    ) -> impl Future<Output = Result<bool, Error>> + Send;
    fn lease_lose(
        pool: &Pool<Self>,
        holder: &Holder,
    ) -> impl Future<Output = Result<bool, Error>> + Send;
    fn lease_reopen(
        pool: &Pool<Self>,
        scope: &Scope,
        key: &Key,
    ) -> impl Future<Output = Result<bool, Error>> + Send;
    fn lease_abandoned(
        pool: &Pool<Self>,
        handler: &str,
        max: u32,
    ) -> impl Future<Output = Result<Vec<Abandoned>, Error>> + Send;
    fn lease_reap(
        pool: &Pool<Self>,
        retention: Retention,
        batch_max: u32,
    ) -> impl Future<Output = Result<u64, Error>> + Send;
}

impl<D: LeasedDb> LeasedStore for Pool<D> {
    async fn migrate(&self) -> Result<(), Error> {
        D::migrate(self).await
    }
    async fn claim(&self, claim: &Claim, work: &Work, lease: Duration) -> Result<Taken, Error> {
        D::lease_claim(self, claim, work, lease).await
    }
    async fn now_ms(&self) -> Result<u64, Error> {
        D::lease_now_ms(self).await
    }
    async fn exists(&self, scope: &Scope, key: &Key) -> Result<bool, Error> {
        D::lease_exists(self, scope, key).await
    }
    async fn renew(&self, holder: &Holder, lease: Duration) -> Result<bool, Error> {
        D::lease_renew(self, holder, lease).await
    }
    async fn append(&self, holder: &Holder, entry: &[u8], lease: Duration) -> Result<bool, Error> {
        let mut conn = self
            .acquire()
            .await
            .map_err(|error| Error::new(ErrorKind::Unavailable, error))?;
        D::lease_append(&mut conn, holder, entry, lease).await
    }
    async fn complete(&self, holder: &Holder, recorded: &Recorded) -> Result<bool, Error> {
        D::lease_complete(self, holder, recorded).await
    }
    async fn release(&self, holder: &Holder) -> Result<bool, Error> {
        D::lease_release(self, holder).await
    }
    async fn lose(&self, holder: &Holder) -> Result<bool, Error> {
        D::lease_lose(self, holder).await
    }
    async fn reopen(&self, scope: &Scope, key: &Key) -> Result<bool, Error> {
        D::lease_reopen(self, scope, key).await
    }
    async fn abandoned(&self, handler: &str, max: u32) -> Result<Vec<Abandoned>, Error> {
        D::lease_abandoned(self, handler, max).await
    }
    async fn reap(&self, retention: Retention, batch_max: u32) -> Result<u64, Error> {
        D::lease_reap(self, retention, batch_max).await
    }
}

/// The `state` column.
pub(super) const CLAIMED: i64 = 0;
pub(super) const DONE: i64 = 1;
pub(super) const UNKNOWN: i64 = 2;

/// `fingerprint`, `state`, milliseconds left of the lease, `status`, `headers`, `body`.
pub(super) type Row = (
    Vec<u8>,
    i64,
    i64,
    Option<i64>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
);

/// What a row says to one who could not have it. A row that is free by now, or gone, was another's a moment ago.
pub(super) fn taken_by_another(row: Option<Row>, claim: &Claim) -> Result<Taken, Error> {
    let Some((fingerprint, state, left_ms, status, headers, body)) = row else {
        return Ok(Taken::InFlight {
            fingerprint: claim.fingerprint,
            left: Duration::ZERO,
        });
    };
    let fingerprint = Fingerprint::from_bytes(&fingerprint).ok_or(ErrorKind::Corrupt)?;
    Ok(match state {
        CLAIMED => Taken::InFlight {
            fingerprint,
            left: Duration::from_millis(left_ms.try_into().unwrap_or(0)),
        },
        DONE => {
            let (Some(status), Some(headers), Some(body)) = (status, headers, body) else {
                return Err(ErrorKind::Corrupt.into());
            };
            let recorded = Recorded::decode(status, &headers, body)
                .map_err(|reason| Error::new(ErrorKind::Corrupt, reason))?;
            Taken::Done {
                fingerprint,
                recorded,
            }
        }
        UNKNOWN => Taken::Unknown { fingerprint },
        _ => Taken::InFlight {
            fingerprint: claim.fingerprint,
            left: Duration::ZERO,
        },
    })
}

pub(super) fn ours((token, journal): (i64, Vec<u8>)) -> Taken {
    Taken::Ours {
        token: Token {
            number: token.cast_unsigned(),
            run: "".into(),
        },
        journal,
    }
}

/// As the `token` column has it.
pub(super) fn number(holder: &Holder) -> i64 {
    holder.token.number.cast_signed()
}

/// `scope`, `key`, `fingerprint`, `handler`, `input`.
pub(super) type AbandonedRow = (Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>);

/// A row that cannot be read is told and passed over: it must not keep the others from being taken up.
pub(super) fn abandoned(rows: Vec<AbandonedRow>) -> Vec<Abandoned> {
    rows.into_iter()
        .filter_map(|(scope, key, fingerprint, handler, input)| {
            let read = || {
                Some(Abandoned {
                    claim: Claim {
                        scope: Scope::from_bytes(&scope)?,
                        key: Key::new(key).ok()?,
                        fingerprint: Fingerprint::from_bytes(&fingerprint)?,
                    },
                    work: Work {
                        handler: String::from_utf8(handler).ok()?,
                        input: input.into(),
                    },
                })
            };
            let work = read();
            if work.is_none() {
                tracing::error!("a row of abandoned work cannot be read");
            }
            work
        })
        .collect()
}
