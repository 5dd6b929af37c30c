//! Whole lists, a page at a time in memory.

use std::collections::VecDeque;

use futures_util::stream::{Stream, try_unfold};
use sqlx::FromRow;

use crate::codec::CursorCodec;
use crate::database::{PageDb, PageSource};
use crate::error::PageError;
use crate::key::Keys;
use crate::page::Page;
use crate::plan::Piece;
use crate::reader::Read;
use crate::request::{PageDirection, PageRequest};
use crate::select::{PageQuery, checked_rows};

impl<'a, D: PageDb> PageQuery<'a, D> {
    /// All pages from the request's place on, one after another, none of them empty.
    ///
    /// The request says how large they are, in which direction to go, after which cursor to begin and, if it has
    /// two, before which to end. The `end_cursor` of a page (walking backward: its `start_cursor`) is where to
    /// resume. From a pool, each page takes a connection and gives it back; within a REPEATABLE READ transaction
    /// (`&mut *tx`) all pages are of one snapshot. A [`total`](Self::total) is counted for the first page only.
    ///
    /// # Errors
    /// Every [`PageError`]; the stream ends with it.
    ///
    /// # Cancel safety
    /// Nothing but reads, and nothing is read ahead: the stream can be dropped or left alone between any two
    /// polls. At most one page is held.
    pub fn pages<'e, T, S>(
        self,
        source: S,
        request: &PageRequest,
        codec: &'e CursorCodec,
    ) -> impl Stream<Item = Result<Page<T>, PageError>> + Send + use<'a, 'e, T, S, D>
    where
        S: PageSource<D> + 'e,
        T: for<'r> FromRow<'r, D::Row>,
    {
        try_unfold(Walker::new(self, source, request, codec), Walker::next)
    }

    /// All rows from the request's place on, in the order of the walk: the list's own, or from its end if the
    /// request is a backward one.
    ///
    /// The request's limit is how many rows are fetched at a time. To resume a walk that was broken off, walk
    /// [`pages`](Self::pages), which have cursors.
    ///
    /// # Errors
    /// Every [`PageError`]; the stream ends with it.
    ///
    /// # Cancel safety
    /// Nothing but reads: the stream can be dropped or left alone between any two polls. At most one page is held.
    pub fn rows<'e, T, S>(
        self,
        source: S,
        request: &PageRequest,
        codec: &'e CursorCodec,
    ) -> impl Stream<Item = Result<T, PageError>> + Send + use<'a, 'e, T, S, D>
    where
        S: PageSource<D> + 'e,
        T: for<'r> FromRow<'r, D::Row> + Send,
    {
        let walker = Walker::new(self, source, request, codec);
        try_unfold(
            (walker, VecDeque::new()),
            |(mut walker, mut held)| async move {
                if held.is_empty() {
                    let Some((page, next)) = walker.next().await? else {
                        return Ok(None);
                    };
                    walker = next;
                    held = page.items.into();
                }
                let row = match walker.direction {
                    PageDirection::Forward => held.pop_front(),
                    PageDirection::Backward => held.pop_back(),
                };
                Ok(row.map(|row| (row, (walker, held))))
            },
        )
    }
}

/// A walk between two pages.
struct Walker<'a, 'e, D: PageDb, S> {
    query: PageQuery<'a, D>,
    source: S,
    codec: &'e CursorCodec,
    direction: PageDirection,
    /// In keys, which do not expire however long a page takes; none at the end.
    at: Result<Option<Place>, PageError>,
}

/// Where a walk goes on.
struct Place {
    anchor: Option<Keys>,
    bound: Option<Keys>,
    rows: u32,
}

impl<'a, 'e, D: PageDb, S: PageSource<D>> Walker<'a, 'e, D, S> {
    fn new(
        query: PageQuery<'a, D>,
        source: S,
        request: &PageRequest,
        codec: &'e CursorCodec,
    ) -> Self {
        Self {
            at: begin(&query, request, codec),
            direction: request.direction(),
            query,
            source,
            codec,
        }
    }

    async fn next<T>(mut self) -> Result<Option<(Page<T>, Self)>, PageError>
    where
        T: for<'r> FromRow<'r, D::Row>,
    {
        let Some(Place {
            anchor,
            bound,
            rows,
        }) = self.at?
        else {
            return Ok(None);
        };
        let plan = self.query.page(Piece {
            direction: self.direction,
            anchor: anchor.as_deref(),
            bound: bound.as_deref(),
            rows,
        });
        let Read { page, ahead, end } = plan.read(&mut self.source, self.codec).await?;
        if page.items.is_empty() {
            return Ok(None);
        }
        self.query = self.query.total(crate::Total::None);
        self.at = Ok(match end {
            Some(keys) if ahead => Some(Place {
                anchor: Some(keys),
                bound,
                rows,
            }),
            _ => None,
        });
        Ok(Some((page, self)))
    }
}

fn begin<D: PageDb>(
    query: &PageQuery<'_, D>,
    request: &PageRequest,
    codec: &CursorCodec,
) -> Result<Option<Place>, PageError> {
    let (anchor, bound) = query.places(request, codec)?;
    Ok(Some(Place {
        anchor,
        bound,
        rows: checked_rows(request.limit())?,
    }))
}
