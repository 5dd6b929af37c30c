//! Every statement that a list can send.

use crate::PageDirection::{Backward, Forward};
use crate::database::PageDb;
use crate::key::Key;
use crate::plan::{PagePlan, Piece};
use crate::select::PageQuery;

impl<D: PageDb> PageQuery<'_, D> {
    /// One plan for each statement that this query can send, whatever the cursors: both directions, from the end or
    /// from a cursor, up to the other end or to a cursor, and for each nullable column a cursor with a value and one
    /// with NULL. With k nullable columns these are 2·(1 + 2ᵏ)² at most, so that a cache of prepared statements holds
    /// them (sqlx keeps 100 per connection). The page size is a parameter and makes no other text.
    ///
    /// `row` is a row's keys without NULL, to stand for a cursor's: any values of the right kinds, or a row from the
    /// middle of the list if the plans are to be looked at.
    ///
    /// A text is chosen once per page before anything is sent, from which of the cursor's keys are NULL; there is no
    /// other way to a text.
    #[must_use]
    pub fn statements(&self, row: &[Key]) -> Vec<PagePlan<D>> {
        let places = self.places_of(row);
        let mut plans: Vec<PagePlan<D>> = Vec::new();
        let mut known = std::collections::HashSet::new();
        for direction in [Forward, Backward] {
            for anchor in &places {
                for bound in &places {
                    let plan = self.page(Piece {
                        direction,
                        anchor: anchor.as_deref(),
                        bound: bound.as_deref(),
                        rows: 20,
                    });
                    if known.insert(plan.sql()) {
                        plans.push(plan);
                    }
                }
            }
        }
        plans
    }

    /// No cursor, and one for each choice of NULLs.
    fn places_of(&self, row: &[Key]) -> Vec<Option<Vec<Key>>> {
        let nullable: Vec<bool> = self
            .order()
            .columns()
            .map(|column| column.nulls().is_some())
            .collect();
        let choices = 1_usize << nullable.iter().filter(|nullable| **nullable).count();
        let mut places = vec![None];
        for choice in 0..choices {
            let mut rest = choice;
            let key = |(key, nullable): (&Key, &bool)| {
                if !nullable {
                    return key.clone();
                }
                let null = rest & 1 == 1;
                rest >>= 1;
                if null { Key::Null } else { key.clone() }
            };
            places.push(Some(row.iter().zip(&nullable).map(key).collect()));
        }
        places
    }
}
