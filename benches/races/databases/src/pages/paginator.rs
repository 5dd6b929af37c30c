//! paginator-sqlx: keyset pages over one column, so that it is given the unique one. Without its count of all rows, which is on
//! unless it is asked not to.

use paginator_rs::{CursorValue, PaginationParams, PaginatorBuilder, PaginatorResponse};
use sqlx08::Row;

use super::{Contestant, LIMIT, Payment, Place, SELECT};

fn params(place: Place) -> PaginationParams {
    let builder = PaginatorBuilder::new()
        .per_page(LIMIT)
        .sort_by("id")
        .sort_asc();
    let builder = builder.disable_total_count();
    if place.after == 0 {
        builder.build()
    } else {
        builder
            .cursor_after("id", CursorValue::Int(place.after))
            .build()
    }
}

macro_rules! contestant {
    ($function:ident, $module:ident, $options:path, $row:path, $params:expr) => {
        impl<'r> sqlx08::FromRow<'r, $row> for Payment {
            fn from_row(row: &'r $row) -> Result<Self, sqlx08::Error> {
                Ok(Self {
                    id: row.try_get("id")?,
                    created_at: row.try_get("created_at")?,
                    amount: row.try_get("amount")?,
                })
            }
        }

        pub async fn $function(url: &str) -> Contestant {
            let options = <$options>::new()
                .max_connections(1)
                .test_before_acquire(false);
            let pool = options.connect(url).await.unwrap();
            Contestant::new(
                "paginator-sqlx 0.4, cursor of id alone",
                move |place: Place| {
                    let pool = pool.clone();
                    async move {
                        let params = params(place);
                        let page = paginator_sqlx::$module::paginate_query(
                            &pool,
                            SELECT,
                            $params(&params),
                        );
                        let page: PaginatorResponse<Payment> = page.await.unwrap();
                        assert!(page.meta.has_next);
                        super::ids(&page.data)
                    }
                },
            )
        }
    };
}

contestant!(
    postgres,
    postgres,
    sqlx08::postgres::PgPoolOptions,
    sqlx08::postgres::PgRow,
    Clone::clone
);
contestant!(
    mariadb,
    mysql,
    sqlx08::mysql::MySqlPoolOptions,
    sqlx08::mysql::MySqlRow,
    std::convert::identity
);
contestant!(
    sqlite,
    sqlite,
    sqlx08::sqlite::SqlitePoolOptions,
    sqlx08::sqlite::SqliteRow,
    std::convert::identity
);
