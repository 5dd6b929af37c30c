//! Names in a database's own quotes.

use std::fmt::{self, Formatter};

use crate::seek::Dialect;

/// An identifier in the database's quotes.
pub(crate) struct Quoted<'a>(pub(crate) Dialect, pub(crate) &'a str);

impl Quoted<'_> {
    pub(crate) fn write(&self, out: &mut String) {
        let quote = self.0.quote();
        out.push(quote);
        // A quote within the name is written twice.
        for (i, part) in self.1.split(quote).enumerate() {
            if i > 0 {
                out.push(quote);
                out.push(quote);
            }
            out.push_str(part);
        }
        out.push(quote);
    }
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.write(&mut out);
        f.write_str(&out)
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
