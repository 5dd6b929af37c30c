//! The outbox on MySQL and MariaDB: arguments of conditions. There are no numbered parameters here, so each is added as often
//! as it is named.

use sqlx::{Arguments, Encode, MySql, Type, mysql::MySqlArguments};

use super::super::Select;

/// Those of the conditions that all rows have in common.
pub(super) fn add_select(
    arguments: &mut MySqlArguments,
    select: &Select,
) -> Result<(), sqlx::Error> {
    let topic = select.topic.as_ref().map(|topic| topic.as_bytes().to_vec());
    add_twice(arguments, topic.clone())?;
    add(arguments, select.prefix)?;
    add_twice(arguments, topic)?;
    add_twice(arguments, select.key.clone())?;
    add_twice(arguments, select.event_id)?;
    add_twice(arguments, select.since_micros)?;
    add_twice(arguments, select.until_micros)
}

pub(super) fn add_twice<'q, T>(arguments: &mut MySqlArguments, value: T) -> Result<(), sqlx::Error>
where
    T: Clone + Encode<'q, MySql> + Type<MySql>,
{
    add(arguments, value.clone())?;
    add(arguments, value)
}

pub(super) fn add<'q, T>(arguments: &mut MySqlArguments, value: T) -> Result<(), sqlx::Error>
where
    T: Encode<'q, MySql> + Type<MySql>,
{
    arguments.add(value).map_err(sqlx::Error::Encode)
}
