//! The text of an order: `priority desc nulls last, id`.

/// A column of an order, as it was written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) field: String,
    pub(crate) descending: bool,
    pub(crate) nulls: Option<Nulls>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nulls {
    First,
    Last,
}

/// The columns, or what is wrong with the text.
pub(crate) fn parse(order: &str) -> Result<Vec<Term>, String> {
    order.split(',').map(term).collect()
}

fn term(text: &str) -> Result<Term, String> {
    let mut words = text.split_whitespace().peekable();
    let field = words
        .next()
        .ok_or("a column is missing: an order is `created_at desc, id desc`")?;
    let mut next = |word: &str| {
        words
            .next_if(|found| found.eq_ignore_ascii_case(word))
            .is_some()
    };
    let descending = next("desc");
    if !descending {
        next("asc");
    }
    let nulls = if next("nulls") {
        if next("first") {
            Some(Nulls::First)
        } else if next("last") {
            Some(Nulls::Last)
        } else {
            return Err(format!(
                "where are the NULLs of `{field}`? Write `nulls first` or `nulls last`"
            ));
        }
    } else {
        None
    };
    match words.next() {
        None => Ok(Term {
            field: field.to_owned(),
            descending,
            nulls,
        }),
        Some(word) => Err(format!(
            "`{word}` is out of place: a column is `{field}`, then `asc` or `desc`, then `nulls first` or `nulls last`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(field: &str, descending: bool, nulls: Option<Nulls>) -> Term {
        Term {
            field: field.into(),
            descending,
            nulls,
        }
    }

    #[test]
    fn orders_are_read_as_sql_has_them() {
        for (text, terms) in [
            ("id", vec![term("id", false, None)]),
            (
                " a DESC NULLS LAST,b asc nulls first , id  desc ",
                vec![
                    term("a", true, Some(Nulls::Last)),
                    term("b", false, Some(Nulls::First)),
                    term("id", true, None),
                ],
            ),
            ("a nulls first", vec![term("a", false, Some(Nulls::First))]),
        ] {
            assert_eq!(parse(text), Ok(terms), "{text}");
        }
    }

    #[test]
    fn what_is_out_of_place_is_named() {
        for (text, word) in [
            ("", "missing"),
            ("a,", "missing"),
            ("a descending", "`descending`"),
            ("a desc asc", "`asc`"),
            ("a nulls", "NULLs of `a`"),
            ("a last", "`last`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
