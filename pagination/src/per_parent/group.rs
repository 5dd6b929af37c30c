//! The text for parents whose pages begin in the same way.

use sqlx::QueryBuilder;

use super::{Base, Parent};
use crate::database::{PageDb, PushKey};
use crate::fingerprint::Fingerprint;
use crate::key::{Key, Keys};
use crate::keyset::Walk;
use crate::seek;
use crate::statement::{At, Statement};
use crate::text::Text;

/// A parent and where its page begins.
#[derive(Clone, Debug)]
pub(super) struct Children {
    pub(super) parent: Key,
    pub(super) fingerprint: Fingerprint,
    pub(super) anchor: Option<Keys>,
}

impl Children {
    /// What decides the text: whether there is a cursor, and which of its keys are NULL.
    fn state(&self) -> Option<Vec<bool>> {
        let anchor = self.anchor.as_deref()?;
        Some(anchor.iter().map(Key::is_null).collect())
    }
}

/// The positions of the children by state, without parents that have none.
pub(super) fn groups(children: &[Children]) -> Vec<Vec<usize>> {
    let mut groups: Vec<(Option<Vec<bool>>, Vec<usize>)> = Vec::new();
    for (i, child) in children
        .iter()
        .enumerate()
        .filter(|(_, c)| !c.parent.is_null())
    {
        let state = child.state();
        match groups.iter_mut().find(|(known, _)| *known == state) {
            Some((_, members)) => members.push(i),
            None => groups.push((state, vec![i])),
        }
    }
    groups.sort();
    groups.into_iter().map(|(_, members)| members).collect()
}

/// Parents whose pages begin in the same way.
pub(super) struct Group<'g, 'a, D: PageDb> {
    pub(super) base: &'g Base<'a, D>,
    pub(super) order: &'g Walk,
    pub(super) members: &'g [&'g Children],
    /// The number of the first.
    pub(super) from: usize,
    pub(super) rows: u32,
}

impl<D: PageDb> Group<'_, '_, D> {
    /// A row of VALUES per parent, and the page once for all of them.
    pub(super) fn lateral(&self, mut query: QueryBuilder<D>) -> QueryBuilder<D> {
        let Some(first) = self.members.first() else {
            return query;
        };
        let keys = first.anchor.as_deref().unwrap_or_default();
        query.push(if self.from == 0 { "" } else { " UNION ALL " });
        query.push("SELECT page.*, mainstay_parent.nr AS mainstay_parent FROM (VALUES ");
        for i in 0..self.members.len().next_power_of_two() {
            // What fills the list up to a power of two has no number and is passed over.
            let number = match self.members.get(i) {
                Some(_) => i64::try_from(self.from + i).unwrap_or(-1),
                None => -1,
            };
            let child = self.members.get(i).unwrap_or(first);
            query.push(if i == 0 { "(" } else { ", (" });
            query
                .push_key(number)
                .push(", ")
                .push_key(child.parent.clone());
            let anchor = child.anchor.as_deref().unwrap_or_default();
            for (key, column) in anchor.iter().zip(self.order.iter()) {
                if !key.is_null() {
                    query.push(", ");
                    D::bind(&mut query, key, column.kind());
                }
            }
            query.push(")");
        }
        query.push(") AS mainstay_parent(nr, parent");
        for i in (0..keys.len()).filter(|i| keys.get(*i).is_some_and(|key| !key.is_null())) {
            query.push(", k").push(i);
        }
        query.push(") CROSS JOIN LATERAL (");
        query = self.page(query, Parent(None), first, self.rows + 1);
        query.push(") AS page WHERE mainstay_parent.nr >= 0");
        query
    }

    /// A select per parent.
    pub(super) fn union(&self, mut query: QueryBuilder<D>) -> QueryBuilder<D> {
        for i in 0..self.members.len().next_power_of_two() {
            // What fills the list up to a power of two reads no row.
            let (child, rows) = match (self.members.get(i), self.members.first()) {
                (Some(child), _) => (child, self.rows + 1),
                (None, Some(first)) => (first, 0),
                (None, None) => continue,
            };
            query.push(if self.from + i == 0 {
                ""
            } else {
                " UNION ALL "
            });
            query.push("SELECT page.*, ");
            query.push_key(i64::try_from(self.from + i).unwrap_or(-1));
            query.push(" AS mainstay_parent FROM (");
            query = self.page(query, Parent(Some(&child.parent)), child, rows);
            query.push(") AS page");
        }
        query
    }

    fn page(
        &self,
        query: QueryBuilder<D>,
        parent: Parent<'_>,
        child: &Children,
        rows: u32,
    ) -> QueryBuilder<D> {
        let back = self.order.reversed();
        let seek = seek::plan(D::DIALECT, self.order, child.anchor.as_deref(), None);
        let mut statement = Statement {
            base: &|query| (self.base)(query, parent),
            anchor: At {
                order: self.order,
                keys: child.anchor.as_deref().unwrap_or_default(),
                lateral: parent.0.is_none(),
            },
            bound: At {
                order: &back,
                keys: &[],
                lateral: false,
            },
            query: Text::new(query),
        };
        statement.page(&seek, rows);
        statement.query.finish()
    }
}
