//! From an order and a query to a page.

use std::fmt;
use std::hash::Hash;
use std::time::SystemTime;

use sqlx::{FromRow, QueryBuilder};

use crate::codec::CursorCodec;
use crate::cursor::{Cursor, CursorError};
use crate::database::{PageDb, PageSource};
use crate::error::PageError;
use crate::fingerprint::Fingerprint;
use crate::key::Key;
use crate::keyset::{KeysetDef, OrderColumn};
use crate::page::{Page, PageInfo, Probe};
use crate::request::{LimitError, PAGE_ROWS_MAX, PageDirection, PageRequest};
use crate::seek::{self, Strategy};
use crate::statement::{BEHIND, Base, Statement};

impl KeysetDef {
    /// Pages through the query that `base` writes, in this order.
    ///
    /// `base` writes a complete SELECT, without ORDER BY or LIMIT, whose result has this order's columns by
    /// their names. It is called once per range, so it must always write the same. What a client may choose
    /// goes in by `push_bind` (or [`PushKey`](crate::PushKey)), never by `push`.
    ///
    /// Name its columns rather than `SELECT *`: the databases cache prepared statements by text, and their
    /// result columns must stay the same under a migration.
    pub fn select<'a, D: PageDb>(&self, base: impl Fn(&mut QueryBuilder<D>) + 'a) -> Select<'a, D> {
        Select {
            order: *self,
            base: Box::new(base),
        }
    }
}

/// A query in an order, not bound yet: say what its cursors are bound to.
#[must_use]
pub struct Select<'a, D: PageDb> {
    order: KeysetDef,
    base: Box<Base<'a, D>>,
}

impl<'a, D: PageDb> Select<'a, D> {
    /// Binds cursors to whatever narrows the list: the endpoint, the tenant, the normalised filter. A
    /// cursor made under another binding is refused. See [`Fingerprint::of`].
    pub fn bind_to(self, binding: impl Hash) -> PageQuery<'a, D> {
        let fingerprint = Fingerprint::of(&self.order, binding);
        PageQuery {
            order: self.order,
            base: self.base,
            fingerprint,
            previous: Probe::Lazy,
            now: None,
        }
    }

    /// Binds cursors to the order only: for a list that is the same for every caller and has no filter.
    pub fn unbound(self) -> PageQuery<'a, D> {
        self.bind_to(())
    }
}

impl<D: PageDb> fmt::Debug for Select<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Select")
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

/// A query in an order, ready to be fetched.
#[must_use]
pub struct PageQuery<'a, D: PageDb> {
    order: KeysetDef,
    base: Box<Base<'a, D>>,
    fingerprint: Fingerprint,
    previous: Probe,
    now: Option<SystemTime>,
}

impl<D: PageDb> fmt::Debug for PageQuery<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageQuery")
            .field("order", &self.order)
            .field("fingerprint", &self.fingerprint)
            .field("previous", &self.previous)
            .finish_non_exhaustive()
    }
}

impl<D: PageDb> PageQuery<'_, D> {
    /// Whether to learn if there are rows on the side the page came from. Default: [`Probe::Lazy`].
    pub const fn previous(mut self, probe: Probe) -> Self {
        self.previous = probe;
        self
    }

    /// The time that cursors are checked against and stamped with, instead of the system's.
    pub const fn now(mut self, now: SystemTime) -> Self {
        self.now = Some(now);
        self
    }

    /// Fetches a page in one statement.
    ///
    /// `source` is `&Pool<D>` or `&mut D::Connection` (`&mut *tx`); within a REPEATABLE READ transaction
    /// all pages see one snapshot.
    ///
    /// # Errors
    /// Every [`PageError`].
    ///
    /// # Cancel safety
    /// The statement only reads; a dropped future leaves nothing behind.
    pub fn fetch<'e, T, S>(
        self,
        source: S,
        request: &PageRequest,
        codec: &'e CursorCodec,
    ) -> impl Future<Output = Result<Page<T>, PageError>> + Send + use<'e, T, S, D>
    where
        S: PageSource<D> + 'e,
        T: for<'r> FromRow<'r, D::Row>,
    {
        // Planned before the first await, so that the future need not hold (or be Send for) the closure.
        let plan = self.plan(request, codec);
        async move { plan?.fetch(source, codec).await }
    }

    /// Plans a page without fetching it: to look at its SQL and strategy.
    ///
    /// # Errors
    /// [`PageError::Limit`], [`PageError::Cursor`].
    pub fn plan(
        &self,
        request: &PageRequest,
        codec: &CursorCodec,
    ) -> Result<PagePlan<D>, PageError> {
        let rows = match request.limit() {
            0 => return Err(LimitError::Zero.into()),
            n if n > PAGE_ROWS_MAX => {
                return Err(LimitError::TooLarge { max: PAGE_ROWS_MAX }.into());
            }
            n => n,
        };
        let now = self.now.unwrap_or_else(system_time);
        let direction = request.direction();
        let anchor = match request.anchor() {
            Some(cursor) => {
                let refused = |source| PageError::Cursor { direction, source };
                let keys = codec
                    .decode(cursor, &self.order, self.fingerprint, now)
                    .map_err(refused)?;
                if !keys.iter().all(D::bindable) {
                    return Err(refused(CursorError::Malformed));
                }
                Some(keys)
            }
            None => None,
        };

        let walk = self.order.walk(direction);
        let seek = seek::plan(D::DIALECT, &walk, anchor.as_deref());
        let mut statement = Statement {
            base: &self.base,
            walk: &walk,
            anchor: anchor.as_deref().unwrap_or_default(),
            query: QueryBuilder::default(),
        };
        let behind = match (&anchor, self.previous) {
            (None, _) => Behind::Nothing,
            (Some(_), Probe::Lazy) => Behind::NotAsked,
            (Some(_), Probe::Exact) => Behind::InColumn,
        };
        match (&anchor, behind) {
            (Some(anchor), Behind::InColumn) => {
                let search = seek::plan_behind(D::DIALECT, &walk, anchor);
                statement.page_and_behind(&seek, rows + 1, &search);
            }
            _ => statement.page(&seek, rows + 1),
        }
        let Statement { query, .. } = statement;
        Ok(PagePlan {
            query,
            strategy: seek.strategy,
            order: self.order,
            fingerprint: self.fingerprint,
            direction,
            rows,
            behind,
            now,
        })
    }
}

/// One page's statement, with its parameters, and how to read its rows.
#[must_use]
pub struct PagePlan<D: PageDb> {
    query: QueryBuilder<D>,
    strategy: Strategy,
    order: KeysetDef,
    fingerprint: Fingerprint,
    direction: PageDirection,
    rows: u32,
    behind: Behind,
    now: SystemTime,
}

/// What is known of the side a page came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// The page begins at the list's end: there is nothing behind it.
    Nothing,
    NotAsked,
    InColumn,
}

impl<D: PageDb> fmt::Debug for PagePlan<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PagePlan")
            .field("sql", &self.query.sql().as_str())
            .field("strategy", &self.strategy)
            .field("direction", &self.direction)
            .field("rows", &self.rows)
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

    /// The statement with its parameters, for instance to put EXPLAIN before it.
    #[must_use]
    pub fn into_query(self) -> QueryBuilder<D> {
        self.query
    }

    /// Runs the statement and makes the page.
    ///
    /// # Errors
    /// Every [`PageError`] except [`PageError::Limit`] and [`PageError::Cursor`].
    ///
    /// # Cancel safety
    /// The statement only reads; a dropped future leaves nothing behind.
    pub async fn fetch<T, S>(self, source: S, codec: &CursorCodec) -> Result<Page<T>, PageError>
    where
        S: PageSource<D>,
        T: for<'r> FromRow<'r, D::Row>,
    {
        let Self {
            query,
            strategy,
            order,
            fingerprint,
            direction,
            rows,
            behind,
            now,
        } = self;
        let found = source.rows(query).await.map_err(PageError::database)?;
        tracing::debug!(
            target: "mainstay_pagination",
            keyset = order.name(),
            ?strategy,
            ?direction,
            limit = rows,
            rows = found.len(),
            "page read"
        );
        let reader = Reader {
            order,
            fingerprint,
            direction,
            rows,
            behind,
            now,
            codec,
        };
        reader.page(found)
    }
}

/// Turns rows into a page.
struct Reader<'a> {
    order: KeysetDef,
    fingerprint: Fingerprint,
    direction: PageDirection,
    rows: u32,
    behind: Behind,
    now: SystemTime,
    codec: &'a CursorCodec,
}

impl Reader<'_> {
    fn page<R, D, T>(&self, mut found: Vec<R>) -> Result<Page<T>, PageError>
    where
        D: PageDb<Row = R>,
        R: sqlx::Row<Database = D>,
        T: for<'r> FromRow<'r, R>,
    {
        let behind = match (self.behind, found.first()) {
            (Behind::InColumn, Some(row)) => D::is_some(row, BEHIND)?,
            _ => false,
        };
        // An empty page with a probe is one row of NULLs. (Not only its unique column: a row of the caller's
        // in which that is NULL must be reported, not dropped.)
        if let (Behind::InColumn, [row]) = (self.behind, found.as_slice())
            && D::is_blank(row)?
        {
            found.clear();
        }
        let ahead = self.cut::<D>(&mut found)?;
        if self.direction == PageDirection::Backward {
            found.reverse();
        }
        let cursor = |row: Option<&R>| row.map(|row| self.cursor::<D>(row)).transpose();
        let (start_cursor, end_cursor) = (cursor(found.first())?, cursor(found.last())?);
        let (has_previous, has_next) = match self.direction {
            PageDirection::Forward => (behind, ahead),
            PageDirection::Backward => (ahead, behind),
        };
        let items = found
            .iter()
            .map(T::from_row)
            .collect::<Result<_, _>>()
            .map_err(PageError::database)?;
        Ok(Page {
            items,
            info: PageInfo {
                has_next,
                has_previous,
                start_cursor,
                end_cursor,
            },
        })
    }

    /// Takes the row beyond the page away, and says whether there was one.
    fn cut<D: PageDb>(&self, found: &mut Vec<D::Row>) -> Result<bool, PageError> {
        if found.len() <= usize::try_from(self.rows).unwrap_or(usize::MAX) {
            return Ok(false);
        }
        if let (Some(beyond), Some(last)) = (found.pop(), found.last())
            && self.keys::<D>(&beyond)? == self.keys::<D>(last)?
        {
            return Err(PageError::NotUnique {
                order: self.order.name(),
            });
        }
        Ok(true)
    }

    fn cursor<D: PageDb>(&self, row: &D::Row) -> Result<Cursor, PageError> {
        let keys = self.keys::<D>(row)?;
        self.codec
            .encode(&keys, self.fingerprint, self.now)
            .map_err(|_| PageError::KeyTooLarge {
                order: self.order.name(),
            })
    }

    fn keys<D: PageDb>(&self, row: &D::Row) -> Result<Vec<Key>, PageError> {
        let read = |column: &OrderColumn| {
            let key = D::read(row, column)?;
            if key.is_null() && column.nulls().is_none() {
                return Err(PageError::NullKey {
                    column: column.name(),
                });
            }
            Ok(key)
        };
        self.order.columns().map(read).collect()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge: cursors expire by wall time, across instances; tests pass `now`"
)]
fn system_time() -> SystemTime {
    SystemTime::now()
}
