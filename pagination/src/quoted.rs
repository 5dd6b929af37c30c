//! Names in a database's own quotes.

use std::fmt::{self, Formatter};

use crate::seek::Dialect;

/// An identifier in the database's quotes.
pub(crate) struct Quoted<'a>(pub(crate) Dialect, pub(crate) &'a str);

impl Quoted<'_> {
    pub(crate) fn write(&self, out: &mut String) {
        let quote = self.0.quote();
        out.push_str(quote);
        // Names are a few bytes, which a search through `str` makes a ceremony of.
        if self.1.bytes().any(|byte| [byte] == *quote.as_bytes()) {
            // A quote within the name is written twice.
            out.push_str(&self.1.replace(quote, &quote.repeat(2)));
        } else {
            out.push_str(self.1);
        }
        out.push_str(quote);
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
    const fn quote(self) -> &'static str {
        match self {
            Self::Postgres | Self::Sqlite => "\"",
            Self::Mysql => "`",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_within_a_name_does_not_end_it() {
        for (dialect, name, quoted) in [
            (Dialect::Postgres, "id", r#""id""#),
            (Dialect::Sqlite, r#"a" OR "b"#, r#""a"" OR ""b""#),
            (Dialect::Postgres, r#"""#, "\"\"\"\""),
            (Dialect::Mysql, "a`b\"", "`a``b\"`"),
            (Dialect::Mysql, "", "``"),
        ] {
            assert_eq!(Quoted(dialect, name).to_string(), quoted);
        }
    }
}
