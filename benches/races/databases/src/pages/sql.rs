//! Statements by hand: those that mainstay sends, which seek, and OFFSET.

use mainstay_pagination::PageDb;
use sqlx::{AssertSqlSafe, MySqlPool, PgPool, SqlitePool};

use super::{Contestant, LIMIT, Payment, Place, codec, ids, payments, request};

/// The text of a page, with `?` or `$n` where it has parameters.
fn text<D: PageDb>(place: Place) -> String {
    let codec = codec();
    let plan = payments::<D>().plan(&request(&codec, place), &codec);
    plan.unwrap().sql()
}

const FIRST: Place = Place { after: 0 };
const LATER: Place = Place { after: 6 };
const MORE: i64 = LIMIT as i64 + 1;

macro_rules! contestants {
    ($function:ident, $pool:ty, $database:ty, $seek:expr, $offset:literal) => {
        pub fn $function(pool: &$pool) -> Vec<Contestant> {
            let (first, later): (&'static str, &'static str) = (
                text::<$database>(FIRST).leak(),
                text::<$database>(LATER).leak(),
            );
            let seek = {
                let pool = pool.clone();
                move |place: Place| {
                    let pool = pool.clone();
                    async move {
                        let text = if place.after == 0 { first } else { later };
                        let mut query = sqlx::query_as::<_, Payment>(AssertSqlSafe(text));
                        if place.after > 0 {
                            for value in $seek(place.created_at(), place.after) {
                                query = query.bind(value);
                            }
                        }
                        let mut rows = query.bind(MORE).fetch_all(&pool).await.unwrap();
                        // One more says whether there is a next page.
                        rows.truncate(LIMIT as usize);
                        ids(&rows)
                    }
                }
            };
            let offset = {
                let pool = pool.clone();
                move |place: Place| {
                    let pool = pool.clone();
                    async move {
                        let query = sqlx::query_as::<_, Payment>($offset)
                            .bind(MORE)
                            .bind(place.after);
                        let mut rows = query.fetch_all(&pool).await.unwrap();
                        rows.truncate(LIMIT as usize);
                        ids(&rows)
                    }
                }
            };
            vec![
                Contestant::new("by hand", seek),
                Contestant::new("OFFSET", offset),
            ]
        }
    };
}

contestants!(
    postgres,
    PgPool,
    sqlx::Postgres,
    |created_at, id| vec![created_at, id],
    "SELECT id, created_at, amount FROM payment ORDER BY created_at, id LIMIT $1 OFFSET $2"
);
contestants!(
    mariadb,
    MySqlPool,
    sqlx::MySql,
    |created_at, id| vec![created_at, id, created_at],
    "SELECT id, created_at, amount FROM payment ORDER BY created_at, id LIMIT ? OFFSET ?"
);
contestants!(
    sqlite,
    SqlitePool,
    sqlx::Sqlite,
    |created_at, id| vec![created_at, id, MORE, created_at, MORE],
    "SELECT id, created_at, amount FROM payment ORDER BY created_at, id LIMIT ? OFFSET ?"
);
