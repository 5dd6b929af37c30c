//! The statement behind a [`Total`].

use sqlx::QueryBuilder;

use crate::database::{PageDb, PageSource};
use crate::error::PageError;
use crate::key::{Key, KeyKind};
use crate::keyset::OrderColumn;
use crate::statement::Base;
use crate::total::{ESTIMATE_ROWS_MAX, Total, TotalIs, TotalRows};

/// The column that carries the number.
const NUMBER: OrderColumn = OrderColumn::not_null("mainstay_count", KeyKind::I64);

/// A count that was asked for, as a statement of its own.
pub(crate) struct Count<D: PageDb> {
    query: QueryBuilder<D>,
    how: How,
}

#[derive(Clone, Copy)]
enum How {
    Exact,
    /// Counted up to one more than this.
    Capped(u32),
    Explain,
}

impl<D: PageDb> Count<D> {
    /// Nothing for [`Total::None`].
    pub(crate) fn new(total: Total, base: &Base<'_, D>) -> Option<Self> {
        let how = match (total, D::EXPLAIN_ROWS) {
            (Total::None, _) => return None,
            (Total::Exact, _) => How::Exact,
            (Total::Capped(cap), _) => How::Capped(cap),
            (Total::Estimated, Some(_)) => How::Explain,
            (Total::Estimated, None) => How::Capped(ESTIMATE_ROWS_MAX),
        };
        let mut query = QueryBuilder::default();
        query.push(match how {
            How::Exact => "SELECT COUNT(*) AS mainstay_count FROM (",
            How::Capped(_) => "SELECT COUNT(*) AS mainstay_count FROM (SELECT 1 AS one FROM (",
            How::Explain => D::EXPLAIN_ROWS.unwrap_or_default(),
        });
        base(&mut query);
        match how {
            How::Explain => {}
            How::Exact => drop(query.push("\n) AS page")),
            How::Capped(cap) => {
                query.push("\n) AS page LIMIT ");
                let rows = Key::I64(i64::from(cap) + 1);
                D::bind(&mut query, &rows, KeyKind::I64);
                query.push(") AS page");
            }
        }
        Some(Self { query, how })
    }

    /// Of a list that was read whole.
    pub(crate) fn of_all(&self, rows: usize) -> TotalRows {
        let count = u64::try_from(rows).unwrap_or(u64::MAX);
        match self.how {
            How::Capped(cap) => capped(count, cap),
            How::Exact | How::Explain => TotalRows {
                count,
                is: TotalIs::Exact,
            },
        }
    }

    pub(crate) async fn run<S: PageSource<D>>(
        self,
        source: &mut S,
    ) -> Result<TotalRows, PageError> {
        let rows = source.rows(self.query).await.map_err(PageError::database)?;
        if let How::Explain = self.how {
            return Ok(TotalRows {
                count: D::explained_rows(&rows)?,
                is: TotalIs::Estimated,
            });
        }
        let count = match rows.first().map(|row| D::read(row, &NUMBER)).transpose()? {
            Some(Key::I64(count)) => u64::try_from(count).unwrap_or_default(),
            _ => 0,
        };
        Ok(match self.how {
            How::Capped(cap) => capped(count, cap),
            How::Exact | How::Explain => TotalRows {
                count,
                is: TotalIs::Exact,
            },
        })
    }
}

fn capped(count: u64, cap: u32) -> TotalRows {
    let cap = u64::from(cap);
    if count > cap {
        TotalRows {
            count: cap,
            is: TotalIs::MoreThan,
        }
    } else {
        TotalRows {
            count,
            is: TotalIs::Exact,
        }
    }
}
