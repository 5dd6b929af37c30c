//! One statement for many parents before it is sent, and how its rows become their pages.

use std::fmt;

use sqlx::{FromRow, QueryBuilder};

use super::group::Children;
use crate::codec::CursorCodec;
use crate::database::{PageDb, PageSource};
use crate::error::PageError;
use crate::key::{Key, KeyKind};
use crate::keyset::OrderColumn;
use crate::page::{Page, PageInfo};
use crate::plan::Reading;
use crate::reader::Reader;

/// The column that tells whose row it is, after the caller's own.
const PARENT: OrderColumn = OrderColumn::not_null("mainstay_parent", KeyKind::I64);

/// The statement of up to [`PARENTS_MAX`](crate::PARENTS_MAX) parents, and how its rows become their pages.
#[must_use]
pub struct ParentsPlan<D: PageDb> {
    /// None if no parent can have children.
    pub(super) query: Option<QueryBuilder<D>>,
    /// The position of each number's parent.
    pub(super) numbers: Vec<usize>,
    pub(super) children: Vec<Children>,
    pub(super) reading: Reading,
}

impl<D: PageDb> fmt::Debug for ParentsPlan<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParentsPlan")
            .field("sql", &self.sql())
            .finish_non_exhaustive()
    }
}

impl<D: PageDb> ParentsPlan<D> {
    /// The statement's text; empty if there is nothing to ask.
    #[must_use]
    pub fn sql(&self) -> String {
        let query = self.query.as_ref();
        query.map_or_else(String::new, |query| query.sql().as_str().to_owned())
    }

    /// The statement with its parameters, for instance to put EXPLAIN before it.
    #[must_use]
    pub fn into_query(self) -> Option<QueryBuilder<D>> {
        self.query
    }

    pub(super) async fn read<T, S>(
        self,
        source: &mut S,
        codec: &CursorCodec,
    ) -> Result<Vec<Page<T>>, PageError>
    where
        S: PageSource<D>,
        T: for<'r> FromRow<'r, D::Row>,
    {
        let rows = match self.query {
            Some(query) => source.rows(query).await.map_err(PageError::database)?,
            None => Vec::new(),
        };
        tracing::debug!(
            target: "mainstay_pagination",
            keyset = self.reading.order.name(),
            parents = self.children.len(),
            limit = self.reading.rows,
            rows = rows.len(),
            "pages of parents read"
        );
        let mut found: Vec<Vec<D::Row>> = self.children.iter().map(|_| Vec::new()).collect();
        for row in rows {
            let Key::I64(number) = D::read(&row, &PARENT)? else {
                continue;
            };
            let position = usize::try_from(number)
                .ok()
                .and_then(|n| self.numbers.get(n));
            if let Some(list) = position.and_then(|position| found.get_mut(*position)) {
                list.push(row);
            }
        }
        let page = |(child, rows): (&Children, Vec<D::Row>)| {
            if rows.is_empty() {
                return Ok(Page {
                    items: vec![],
                    info: PageInfo::default(),
                    total: None,
                    cursors: vec![],
                });
            }
            let reading = Reading {
                fingerprint: child.fingerprint,
                ..self.reading
            };
            Ok(Reader { reading, codec }.page(rows)?.page)
        };
        self.children.iter().zip(found).map(page).collect()
    }
}
