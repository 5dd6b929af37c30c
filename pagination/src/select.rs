//! From an order and a query to a page.

use std::fmt;
use std::hash::Hash;
use std::time::SystemTime;

use sqlx::{FromRow, QueryBuilder};

use crate::codec::CursorCodec;
use crate::count::Count;
use crate::cursor::{Cursor, CursorError};
use crate::database::{PageDb, PageSource};
use crate::error::PageError;
use crate::fingerprint::Fingerprint;
use crate::key::Keys;
use crate::keyset::KeysetDef;
use crate::page::{Page, Probe};
use crate::plan::{Outline, PagePlan, Piece};
use crate::request::{LimitError, PAGE_ROWS_MAX, PageRequest};
use crate::statement::Base;
use crate::total::Total;

impl KeysetDef {
    /// Pages through the query that `base` writes, in this order.
    ///
    /// `base` writes a complete SELECT, without ORDER BY or LIMIT, whose result has this order's columns by
    /// their names. It is called once per select of the statement (and per page of a stream), so it must always
    /// write the same. What a client may choose
    /// goes in by `push_bind` (or [`PushKey`](crate::PushKey)), never by `push`.
    ///
    /// Name its columns rather than `SELECT *`: the databases cache prepared statements by text, and their
    /// result columns must stay the same under a migration.
    pub fn select<'a, D: PageDb>(
        &self,
        base: impl Fn(&mut QueryBuilder<D>) + Send + Sync + 'a,
    ) -> Select<'a, D> {
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
            total: Total::None,
            cursors: false,
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
    total: Total,
    cursors: bool,
    now: Option<SystemTime>,
}

impl<D: PageDb> fmt::Debug for PageQuery<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageQuery")
            .field("order", &self.order)
            .field("fingerprint", &self.fingerprint)
            .field("previous", &self.previous)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

impl<'a, D: PageDb> PageQuery<'a, D> {
    /// Whether to learn if there are rows on the side the page came from. Default: [`Probe::Lazy`].
    pub const fn previous(mut self, probe: Probe) -> Self {
        self.previous = probe;
        self
    }

    /// Whether to say how many rows the whole list has. Default: [`Total::None`].
    pub const fn total(mut self, total: Total) -> Self {
        self.total = total;
        self
    }

    /// Makes a cursor for each row ([`Page::cursors`]), not only for the first and the last.
    pub const fn cursors(mut self) -> Self {
        self.cursors = true;
        self
    }

    /// The time that cursors are checked against and stamped with, instead of the system's.
    pub const fn now(mut self, now: SystemTime) -> Self {
        self.now = Some(now);
        self
    }

    /// Fetches a page in one statement (and one more if a [`total`](Self::total) is asked for).
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
        let rows = checked_rows(request.limit())?;
        let (anchor, bound) = self.places(request, codec)?;
        Ok(self.page(Piece {
            direction: request.direction(),
            anchor: anchor.as_deref(),
            bound: bound.as_deref(),
            rows,
        }))
    }

    pub(crate) fn page(&self, piece: Piece<'_>) -> PagePlan<D> {
        let mut plan = self.outline().plan(piece);
        plan.count = Count::new(self.total, &*self.base);
        plan
    }

    /// The keys of the request's anchor and of its bound.
    pub(crate) fn places(
        &self,
        request: &PageRequest,
        codec: &CursorCodec,
    ) -> Result<(Option<Keys>, Option<Keys>), PageError> {
        let direction = request.direction();
        let now = self.now.unwrap_or_else(system_time);
        let parameter = |direction| request.preset().cursor_parameter(direction);
        Ok((
            self.keys(codec, request.anchor(), parameter(direction), now)?,
            self.keys(codec, request.bound(), parameter(direction.reversed()), now)?,
        ))
    }

    pub(crate) const fn order(&self) -> &KeysetDef {
        &self.order
    }

    fn outline(&self) -> Outline<'_, 'a, D> {
        Outline {
            order: &self.order,
            base: &*self.base,
            fingerprint: self.fingerprint,
            previous: self.previous,
            cursors: self.cursors,
            now: self.now.unwrap_or_else(system_time),
        }
    }

    /// A cursor's keys; a refusal names the parameter.
    fn keys(
        &self,
        codec: &CursorCodec,
        cursor: Option<&Cursor>,
        parameter: &'static str,
        now: SystemTime,
    ) -> Result<Option<Keys>, PageError> {
        let Some(cursor) = cursor else {
            return Ok(None);
        };
        let refused = |source| PageError::Cursor { parameter, source };
        let keys = codec
            .decode(cursor, &self.order, self.fingerprint, now)
            .map_err(refused)?;
        if !keys.iter().all(D::bindable) {
            return Err(refused(CursorError::Malformed));
        }
        Ok(Some(keys))
    }
}

/// The page size, if it is one.
pub(crate) const fn checked_rows(rows: u32) -> Result<u32, LimitError> {
    match rows {
        0 => Err(LimitError::Zero),
        n if n > PAGE_ROWS_MAX => Err(LimitError::TooLarge { max: PAGE_ROWS_MAX }),
        n => Ok(n),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge: cursors expire by wall time, across instances; tests pass `now`"
)]
pub(crate) fn system_time() -> SystemTime {
    SystemTime::now()
}
