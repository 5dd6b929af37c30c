//! Names in a database's own quotes.

use std::fmt::{self, Formatter, Write};

use crate::seek::Dialect;

/// An identifier in the database's quotes.
pub(crate) struct Quoted<'a>(pub(crate) Dialect, pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let quote = self.0.quote();
        f.write_char(quote)?;
        for (i, part) in self.1.split(quote).enumerate() {
            if i > 0 {
                f.write_char(quote)?;
                f.write_char(quote)?;
            }
            f.write_str(part)?;
        }
        f.write_char(quote)
    }
}

impl Dialect {
    const fn quote(self) -> char {
        match self {
            Self::Postgres | Self::Sqlite => '"',
            Self::Mysql => '`',
        }
    }
}
