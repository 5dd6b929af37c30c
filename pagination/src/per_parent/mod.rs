//! The first rows of many lists in one statement: nested lists without a query per parent.

mod group;
mod plan;

use std::fmt;
use std::hash::Hash;
use std::time::SystemTime;

use sqlx::{FromRow, QueryBuilder};

pub use self::plan::ParentsPlan;

use self::group::{Children, Group, groups};
use crate::codec::CursorCodec;
use crate::cursor::{Cursor, CursorError};
use crate::database::{PageDb, PageSource, PushKey};
use crate::error::PageError;
use crate::fingerprint::Fingerprint;
use crate::key::Key;
use crate::keyset::KeysetDef;
use crate::page::Page;
use crate::plan::Reading;
use crate::reader::Behind;
use crate::request::PageDirection;
use crate::seek::Dialect;
use crate::select::{checked_rows, system_time};
use crate::text::Text;
use crate::words::OrderBy;

/// How many parents one statement has at most; for more there are several, one after another.
pub const PARENTS_MAX: usize = 100;

type Base<'a, D> = dyn Fn(&mut QueryBuilder<D>, Parent<'_>) + Send + Sync + 'a;
type Bind<'a> = dyn Fn(&Key) -> Fingerprint + Send + Sync + 'a;

/// The parent in whose list the query is to look.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'k>(Option<&'k Key>);

impl Parent<'_> {
    /// Writes the parent's key, to be compared with a column of the children.
    pub fn push<D: PageDb>(self, query: &mut QueryBuilder<D>) {
        match self.0 {
            Some(key) => query.push_key(key.clone()),
            None => query.push("mainstay_parent.parent"),
        };
    }
}

impl KeysetDef {
    /// Pages through the query that `base` writes for each of several parents, in one statement.
    ///
    /// Postgres gets a LATERAL join over the parents' keys, the others a select per parent, joined by UNION ALL:
    /// either way each parent's rows are searched for where its page begins, and the cost is parents × rows. (A window
    /// function would read all children.)
    ///
    /// ```
    /// use mainstay_pagination::{Column, Cursor, CursorCodec, KeysetDef, Page, Parent};
    /// use sqlx::{Connection, Executor, FromRow, QueryBuilder, Sqlite, SqliteConnection};
    ///
    /// const OLDEST: KeysetDef = KeysetDef::new("comments.oldest").unique_asc(Column::i64("id").not_null());
    ///
    /// #[derive(FromRow)]
    /// struct Comment { id: i64 }
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let mut connection = SqliteConnection::connect("sqlite::memory:").await?;
    /// # connection.execute("CREATE TABLE comment (id INTEGER PRIMARY KEY, post INT); CREATE INDEX i ON comment (post, id);
    /// #     INSERT INTO comment VALUES (1, 7), (2, 8), (3, 7), (4, 7), (5, 8)").await?;
    /// # let codec = CursorCodec::unsigned();
    /// let comments = OLDEST
    ///     .per_parent(|q: &mut QueryBuilder<Sqlite>, post: Parent| {
    ///         q.push("SELECT id FROM comment WHERE post = ");
    ///         post.push(q);
    ///     })
    ///     .bind_to("comments");
    /// let parents: [(i64, Option<Cursor>); 2] = [(7, None), (8, None)];
    /// let pages: Vec<Page<Comment>> = comments.fetch(&mut connection, parents, 2, &codec).await?;
    /// assert_eq!(pages[0].items[1].id, 3);
    /// assert!(pages[0].info.has_next && !pages[1].info.has_next);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn per_parent<'a, D: PageDb>(
        &self,
        base: impl Fn(&mut QueryBuilder<D>, Parent<'_>) + Send + Sync + 'a,
    ) -> PerParent<'a, D> {
        PerParent {
            order: *self,
            base: Box::new(base),
        }
    }
}

/// A query per parent, not bound yet.
#[must_use]
pub struct PerParent<'a, D: PageDb> {
    order: KeysetDef,
    base: Box<Base<'a, D>>,
}

impl<D: PageDb> fmt::Debug for PerParent<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerParent")
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

impl<'a, D: PageDb> PerParent<'a, D> {
    /// Binds cursors to what narrows the lists, as [`Select::bind_to`](crate::Select::bind_to) does, and each to its
    /// parent. A list of one parent that is bound to `(binding, Key::from(parent))` has the same cursors: the first
    /// page comes from here and the next ones from there.
    pub fn bind_to(self, binding: impl Hash + Send + Sync + 'a) -> ParentsQuery<'a, D> {
        let order = self.order;
        ParentsQuery {
            order,
            base: self.base,
            bind: Box::new(move |parent| Fingerprint::of(&order, (&binding, parent))),
            now: None,
        }
    }
}

/// A query per parent, ready to be fetched.
#[must_use]
pub struct ParentsQuery<'a, D: PageDb> {
    order: KeysetDef,
    base: Box<Base<'a, D>>,
    bind: Box<Bind<'a>>,
    now: Option<SystemTime>,
}

impl<D: PageDb> fmt::Debug for ParentsQuery<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParentsQuery")
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

impl<D: PageDb> ParentsQuery<'_, D> {
    /// The time that cursors are checked against and stamped with, instead of the system's.
    pub const fn now(mut self, now: SystemTime) -> Self {
        self.now = Some(now);
        self
    }

    /// Fetches each parent's first `rows` rows, or the first behind its cursor: a page per parent, in the order of the
    /// parents, in one statement per [`PARENTS_MAX`] of them.
    ///
    /// `has_next` is exact; `has_previous` is not asked for and false. The parents' keys are of one type; a parent
    /// that is NULL has no children.
    ///
    /// # Errors
    /// Every [`PageError`]; one refused cursor refuses them all.
    ///
    /// # Cancel safety
    /// The statements only read; a dropped future leaves nothing behind.
    pub fn fetch<'e, T, S, K, P>(
        &self,
        source: S,
        parents: P,
        rows: u32,
        codec: &'e CursorCodec,
    ) -> impl Future<Output = Result<Vec<Page<T>>, PageError>> + Send + use<'e, T, S, K, P, D>
    where
        S: PageSource<D> + 'e,
        T: for<'r> FromRow<'r, D::Row> + Send,
        P: IntoIterator<Item = (K, Option<Cursor>)>,
        K: Into<Key>,
    {
        let plans = self.plans(parents, rows, codec);
        async move {
            let mut source = source;
            let mut pages = Vec::new();
            for plan in plans? {
                pages.extend(plan.read(&mut source, codec).await?);
            }
            Ok(pages)
        }
    }

    /// Plans the statements without sending them: to look at their SQL.
    ///
    /// The number of parents with and without a cursor is rounded up to a power of two, so that few texts are prepared.
    ///
    /// # Errors
    /// [`PageError::Limit`], [`PageError::Cursor`].
    pub fn plans<K: Into<Key>>(
        &self,
        parents: impl IntoIterator<Item = (K, Option<Cursor>)>,
        rows: u32,
        codec: &CursorCodec,
    ) -> Result<Vec<ParentsPlan<D>>, PageError> {
        let rows = checked_rows(rows)?;
        let now = self.now.unwrap_or_else(system_time);
        let mut children = Vec::new();
        for (parent, cursor) in parents {
            children.push(self.children(parent.into(), cursor.as_ref(), codec, now)?);
        }
        let plan = |children: &[Children]| self.plan(children.to_vec(), rows, now);
        Ok(children.chunks(PARENTS_MAX).map(plan).collect())
    }

    fn children(
        &self,
        parent: Key,
        cursor: Option<&Cursor>,
        codec: &CursorCodec,
        now: SystemTime,
    ) -> Result<Children, PageError> {
        let fingerprint = (self.bind)(&parent);
        let refused = |source| PageError::Cursor {
            parameter: PageDirection::Forward.cursor_parameter(),
            source,
        };
        let anchor = match cursor {
            None => None,
            Some(cursor) => Some(
                codec
                    .decode(cursor, &self.order, fingerprint, now)
                    .map_err(refused)?,
            ),
        };
        if !anchor.iter().all(|keys| keys.iter().all(D::bindable)) {
            return Err(refused(CursorError::Malformed));
        }
        Ok(Children {
            parent,
            fingerprint,
            anchor,
        })
    }

    fn plan(&self, children: Vec<Children>, rows: u32, now: SystemTime) -> ParentsPlan<D> {
        let order = self.order.walk(PageDirection::Forward);
        let mut query = QueryBuilder::<D>::new("SELECT page.* FROM (");
        let mut numbers = Vec::new();
        for group in groups(&children) {
            let from = numbers.len();
            numbers.extend(&group);
            let members: Vec<&Children> = group.iter().filter_map(|i| children.get(*i)).collect();
            let text = Group {
                base: &*self.base,
                order: &order,
                members: &members,
                from,
                rows,
            };
            query = match D::DIALECT {
                Dialect::Postgres => text.lateral(query),
                Dialect::Sqlite | Dialect::Mysql => text.union(query),
            };
        }
        let found = !numbers.is_empty();
        let mut text = Text::new(query);
        text.push(") AS page ORDER BY page.mainstay_parent")
            .push(OrderBy::all(D::DIALECT, &order).continued());
        let query = text.finish();
        ParentsPlan {
            query: found.then_some(query),
            numbers,
            children,
            reading: Reading {
                order: self.order,
                fingerprint: Fingerprint::of(&self.order, ()),
                direction: PageDirection::Forward,
                rows,
                behind: Behind::NotAsked,
                cursors: false,
                now,
            },
        }
    }
}
