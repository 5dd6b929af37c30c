//! The text of a statement while it is written.
//!
//! `QueryBuilder` takes each word through the formatting machinery; a statement has dozens. They are put together
//! here and handed over with each parameter.

use std::fmt;

use sqlx::QueryBuilder;

use crate::database::PageDb;
use crate::key::{Key, KeyKind};

/// What can be written into a statement.
pub(crate) trait Words {
    fn write(self, out: &mut String);
}

impl Words for &str {
    fn write(self, out: &mut String) {
        out.push_str(self);
    }
}

/// Text that `QueryBuilder` need not look for padding of.
struct Verbatim<'a>(&'a str);

impl fmt::Display for Verbatim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A statement and the words since its last parameter.
pub(crate) struct Text<D: PageDb> {
    query: QueryBuilder<D>,
    words: String,
}

impl<D: PageDb> Text<D> {
    /// Goes on writing a statement.
    pub(crate) fn new(query: QueryBuilder<D>) -> Self {
        Self {
            query,
            words: String::with_capacity(512),
        }
    }

    pub(crate) fn push(&mut self, words: impl Words) -> &mut Self {
        words.write(&mut self.words);
        self
    }

    pub(crate) fn bind(&mut self, key: &Key, kind: KeyKind) {
        D::bind(self.builder(), key, kind);
    }

    /// The statement as it is so far, for somebody else to write to.
    pub(crate) fn builder(&mut self) -> &mut QueryBuilder<D> {
        self.query.push(Verbatim(&self.words));
        self.words.clear();
        &mut self.query
    }

    pub(crate) fn finish(mut self) -> QueryBuilder<D> {
        self.builder();
        self.query
    }
}
