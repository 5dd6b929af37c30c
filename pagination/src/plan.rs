//! One page's statement before it is sent: what it says, and how its rows will be read.

use std::fmt;
use std::time::SystemTime;

use sqlx::{FromRow, QueryBuilder};

use crate::codec::CursorCodec;
use crate::count::Count;
use crate::database::{PageDb, PageSource};
use crate::error::PageError;
use crate::fingerprint::Fingerprint;
use crate::key::Key;
use crate::keyset::KeysetDef;
use crate::page::{Page, Probe};
use crate::reader::{Behind, Read, Reader};
use crate::request::PageDirection;
use crate::seek::{self, Strategy};
#[cfg(feature = "proof")]
use crate::seek::{Range, Then};
use crate::statement::{At, Base, Statement};
use crate::text::Text;

/// What a plan is made from: an order, the caller's query, and how a page of it is made.
#[derive(Clone, Copy)]
pub(crate) struct Outline<'q, 'a, D: PageDb> {
    pub(crate) order: &'q KeysetDef,
    pub(crate) base: &'q Base<'a, D>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) previous: Probe,
    pub(crate) cursors: bool,
    pub(crate) now: SystemTime,
}

/// Which rows, in keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'k> {
    pub(crate) direction: PageDirection,
    pub(crate) anchor: Option<&'k [Key]>,
    pub(crate) bound: Option<&'k [Key]>,
    pub(crate) rows: u32,
}

impl<D: PageDb> Outline<'_, '_, D> {
    pub(crate) fn plan(&self, piece: Piece<'_>) -> PagePlan<D> {
        let order = self.order.walk(piece.direction);
        let back = order.reversed();
        let seek = seek::plan(D::DIALECT, &order, piece.anchor, piece.bound);
        let (behind, search) = match (piece.anchor, self.previous) {
            (None, _) => (Behind::Nothing, None),
            (Some(_), Probe::Lazy) => (Behind::NotAsked, None),
            (Some(anchor), Probe::Exact) => {
                let search = seek::plan_behind(D::DIALECT, &back, anchor);
                (Behind::InColumn, Some(search))
            }
        };
        let branches = || {
            let search = search.iter().flat_map(|search| search.ranges.branches());
            seek.ranges.branches().chain(search)
        };
        let mut statement = Statement {
            base: self.base,
            anchor: At {
                order: &order,
                keys: piece.anchor.unwrap_or_default(),
                lateral: false,
            },
            bound: At {
                order: &back,
                keys: piece.bound.unwrap_or_default(),
                lateral: false,
            },
            // Room for all but very long queries, so that the text is allocated once.
            query: Text::new(QueryBuilder::new(String::with_capacity(
                768 * (branches().count() + 1),
            ))),
        };
        match &search {
            Some(search) => statement.page_and_behind(&seek, search, piece.rows + 1),
            None => statement.page(&seek, piece.rows + 1),
        }
        PagePlan {
            query: statement.query.finish(),
            strategy: seek.strategy,
            #[cfg(feature = "proof")]
            nulls_alone: branches().filter(|select| is_nulls(select)).count(),
            count: None,
            anchored: piece.anchor.is_some(),
            alone: piece.anchor.is_none() && piece.bound.is_none(),
            reading: Reading {
                order: *self.order,
                fingerprint: self.fingerprint,
                direction: piece.direction,
                rows: piece.rows,
                behind,
                cursors: self.cursors,
                now: self.now,
            },
        }
    }
}

/// Whether a select reads a block of NULLs.
#[cfg(feature = "proof")]
const fn is_nulls(select: &[Range]) -> bool {
    matches!(
        select,
        [Range {
            then: Then::IsNull,
            ..
        }]
    )
}

/// One page's statement, with its parameters, and how to read its rows.
#[must_use]
pub struct PagePlan<D: PageDb> {
    query: QueryBuilder<D>,
    strategy: Strategy,
    /// How many of its selects read a block of NULLs and nothing else.
    #[cfg(feature = "proof")]
    pub(crate) nulls_alone: usize,
    pub(crate) count: Option<Count<D>>,
    anchored: bool,
    /// Whether the page lies between no cursors.
    alone: bool,
    pub(crate) reading: Reading,
}

/// How the rows of a page become the page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) order: KeysetDef,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) direction: PageDirection,
    pub(crate) rows: u32,
    pub(crate) behind: Behind,
    /// Whether each row's cursor is made.
    pub(crate) cursors: bool,
    pub(crate) now: SystemTime,
}

impl<D: PageDb> fmt::Debug for PagePlan<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PagePlan")
            .field("sql", &self.query.sql().as_str())
            .field("strategy", &self.strategy)
            .field("direction", &self.reading.direction)
            .field("rows", &self.reading.rows)
            .finish_non_exhaustive()
    }
}

impl<D: PageDb> PagePlan<D> {
    /// The statement's text.
    #[must_use]
    pub fn sql(&self) -> String {
        self.query.sql().as_str().to_owned()
    }

    /// The form of the statement.
    #[must_use]
    pub const fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// The order it pages in.
    #[must_use]
    pub const fn order(&self) -> &KeysetDef {
        &self.reading.order
    }

    /// The most rows the page may have; one more is read.
    #[must_use]
    pub const fn rows(&self) -> u32 {
        self.reading.rows
    }

    /// Whether it begins at a cursor, rather than at an end of the list.
    #[must_use]
    pub const fn is_anchored(&self) -> bool {
        self.anchored
    }

    /// The statement with its parameters, for instance to put EXPLAIN before it.
    #[must_use]
    pub fn into_query(self) -> QueryBuilder<D> {
        self.query
    }

    /// Runs the statement and makes the page; with a [`Total`](crate::Total), counts afterwards.
    ///
    /// # Errors
    /// Every [`PageError`] except [`PageError::Limit`] and [`PageError::Cursor`].
    ///
    /// # Cancel safety
    /// The statements only read; a dropped future leaves nothing behind.
    pub async fn fetch<T, S>(self, mut source: S, codec: &CursorCodec) -> Result<Page<T>, PageError>
    where
        S: PageSource<D>,
        T: for<'r> FromRow<'r, D::Row>,
    {
        Ok(self.read(&mut source, codec).await?.page)
    }

    pub(crate) async fn read<T, S>(
        self,
        source: &mut S,
        codec: &CursorCodec,
    ) -> Result<Read<T>, PageError>
    where
        S: PageSource<D>,
        T: for<'r> FromRow<'r, D::Row>,
    {
        let Self {
            query,
            strategy,
            count,
            alone,
            reading,
            ..
        } = self;
        let found = source.rows(query).await.map_err(PageError::database)?;
        tracing::debug!(
            target: "mainstay_pagination",
            keyset = reading.order.name(),
            ?strategy,
            direction = ?reading.direction,
            limit = reading.rows,
            rows = found.len(),
            "page read"
        );
        let total = match count {
            None => None,
            // The list's only page.
            Some(count) if alone && found.len() <= usize::try_from(reading.rows).unwrap_or(0) => {
                Some(count.of_all(found.len()))
            }
            Some(count) => Some(count.run(source).await?),
        };
        let mut read: Read<T> = Reader { reading, codec }.page(found)?;
        read.page.total = total;
        Ok(read)
    }
}
