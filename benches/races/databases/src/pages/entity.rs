//! sea-orm's `cursor_by` over both columns, as its documentation shows it.

use sea_orm::entity::prelude::*;

use super::{Contestant, LIMIT, Place};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "payment")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub created_at: i64,
    pub amount: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

pub fn contestant(database: DatabaseConnection) -> Contestant {
    Contestant::new("sea-orm 2.0, cursor_by", move |place: Place| {
        let database = database.clone();
        async move {
            let mut cursor = Entity::find().cursor_by((Column::CreatedAt, Column::Id));
            if place.after > 0 {
                cursor.after((place.created_at(), place.after));
            }
            // One more says whether there is a next page.
            let rows = cursor
                .first(u64::from(LIMIT) + 1)
                .all(&database)
                .await
                .unwrap();
            rows.iter().take(LIMIT as usize).map(|row| row.id).collect()
        }
    })
}
