//! From the rows of a page's statement to the page.

use sqlx::FromRow;

use crate::codec::CursorCodec;
use crate::cursor::Cursor;
use crate::database::PageDb;
use crate::error::PageError;
use crate::key::{Key, Keys};
use crate::page::{Page, PageInfo};
use crate::plan::Reading;
use crate::request::PageDirection;
use crate::statement::BEHIND;

/// What is known of the side a page came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// The page begins at the list's end: there is nothing behind it.
    Nothing,
    NotAsked,
    InColumn,
}

/// A page, and where the walk goes on.
pub(crate) struct Read<T> {
    pub(crate) page: Page<T>,
    /// Whether there are more rows in the walk's direction.
    pub(crate) ahead: bool,
    /// The keys of the row walked last.
    pub(crate) end: Option<Keys>,
}

/// Turns rows into a page.
pub(crate) struct Reader<'a> {
    pub(crate) reading: Reading,
    pub(crate) codec: &'a CursorCodec,
}

impl Reader<'_> {
    pub(crate) fn page<R, D, T>(&self, mut found: Vec<R>) -> Result<Read<T>, PageError>
    where
        D: PageDb<Row = R>,
        R: sqlx::Row<Database = D>,
        T: for<'r> FromRow<'r, R>,
    {
        let Reading {
            direction, behind, ..
        } = self.reading;
        let before = match (behind, found.first()) {
            (Behind::InColumn, Some(row)) => D::is_some(row, BEHIND)?,
            _ => false,
        };
        // An empty page with a probe is one row of NULLs. (Not only its unique column: a row of the caller's
        // in which that is NULL must be reported, not dropped.)
        if let (Behind::InColumn, [row]) = (behind, found.as_slice())
            && D::is_blank(row)?
        {
            found.clear();
        }
        let ahead = self.cut::<D>(&mut found)?;
        let keys = |row: Option<&R>| row.map(|row| self.keys::<D>(row)).transpose();
        let (near, end) = (keys(found.first())?, keys(found.last())?);
        let cursor = |keys: &Option<Keys>| keys.as_deref().map(|k| self.cursor(k)).transpose();
        let (mut start_cursor, mut end_cursor) = (cursor(&near)?, cursor(&end)?);
        let (has_previous, has_next) = match direction {
            PageDirection::Forward => (before, ahead),
            PageDirection::Backward => (ahead, before),
        };
        if direction == PageDirection::Backward {
            found.reverse();
            std::mem::swap(&mut start_cursor, &mut end_cursor);
        }
        let cursors = if self.reading.cursors {
            let of = |row: &R| self.cursor(&self.keys::<D>(row)?);
            found.iter().map(of).collect::<Result<_, _>>()?
        } else {
            Vec::new()
        };
        let items = found
            .iter()
            .map(T::from_row)
            .collect::<Result<_, _>>()
            .map_err(PageError::database)?;
        Ok(Read {
            page: Page {
                items,
                info: PageInfo {
                    has_next,
                    has_previous,
                    start_cursor,
                    end_cursor,
                },
                total: None,
                cursors,
            },
            ahead,
            end,
        })
    }

    /// Takes the row beyond the page away, and says whether there was one.
    fn cut<D: PageDb>(&self, found: &mut Vec<D::Row>) -> Result<bool, PageError> {
        if found.len() <= usize::try_from(self.reading.rows).unwrap_or(usize::MAX) {
            return Ok(false);
        }
        if let (Some(beyond), Some(last)) = (found.pop(), found.last())
            && self.keys::<D>(&beyond)? == self.keys::<D>(last)?
        {
            return Err(PageError::NotUnique {
                order: self.reading.order.name(),
            });
        }
        Ok(true)
    }

    fn cursor(&self, keys: &[Key]) -> Result<Cursor, PageError> {
        self.codec
            .encode(keys, self.reading.fingerprint, self.reading.now)
            .map_err(|_| PageError::KeyTooLarge {
                order: self.reading.order.name(),
            })
    }

    fn keys<D: PageDb>(&self, row: &D::Row) -> Result<Keys, PageError> {
        let mut keys = Keys::new();
        for column in self.reading.order.columns() {
            let key = D::read(row, column)?;
            // As an anchor it would find nothing, which looks like the list's end.
            if !D::bindable(&key) {
                return Err(PageError::key_type(
                    column,
                    "a value that cannot be asked for",
                ));
            }
            if key.is_null() && column.nulls().is_none() {
                return Err(PageError::NullKey {
                    column: column.name(),
                });
            }
            keys.push(key);
        }
        Ok(keys)
    }
}
