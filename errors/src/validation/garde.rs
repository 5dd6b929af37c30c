//! From `garde::Report`.

use garde::Report;
use serde_json::Value;

use super::named;
use crate::{Violation, Violations};

/// Each error of the report as a violation of the body: where it is, under the code `invalid`, and nothing more.
///
/// garde gives its errors a text and no code. Its own texts hold no values, but those of custom rules and of an
/// `I18n` may, and they look the same: none is taken. [`Violations::from_garde_with_public_texts`] takes them.
///
/// The pointer has garde's names, which are the Rust fields' even where serde renames them. The keys of a map are the
/// client's own and stand in the pointer, cut at 64 bytes.
///
/// ```
/// use garde::Validate;
/// use mainstay_errors::Violations;
///
/// #[derive(Validate)]
/// struct NewOrder {
///     #[garde(range(min = 1))]
///     amount: i64,
/// }
///
/// // In a handler, after `Json(order): Json<NewOrder>`. A derived enum takes it on with
/// // `#[fault(delegate)] Invalid(#[from] Violations)`.
/// fn accept(order: &NewOrder) -> Result<(), Violations> {
///     order.validate().map_err(Violations::from)?;
///     Ok(())
/// }
///
/// let refused = accept(&NewOrder { amount: 0 }).unwrap_err();
/// assert_eq!(refused.as_slice()[0].to_string(), "body /amount invalid");
/// ```
impl From<Report> for Violations {
    fn from(report: Report) -> Self {
        report
            .iter()
            .map(|(path, _)| Violation::body(pointer(path), "invalid"))
            .collect()
    }
}

impl Violations {
    /// As `From<garde::Report>`, with the texts of the report as details.
    ///
    /// By calling this you declare them fit for clients and for the log: no rule of yours puts a value into its
    /// text. The texts that garde itself makes repeat limits, patterns and names of fields.
    #[must_use]
    #[cfg_attr(docsrs, doc(cfg(feature = "garde")))]
    pub fn from_garde_with_public_texts(report: &Report) -> Self {
        report
            .iter()
            .map(|(path, error)| {
                Violation::body(pointer(path), "invalid").with_detail(error.message().to_owned())
            })
            .collect()
    }
}

/// The path as an RFC 6901 pointer. garde shows the segments through serde alone, as pairs of kind and text.
fn pointer(path: &garde::Path) -> String {
    let Ok(Value::Array(segments)) = serde_json::to_value(path) else {
        return String::new();
    };
    segments
        .iter()
        .filter(|segment| segment.get(0).and_then(Value::as_str) != Some("none"))
        .filter_map(|segment| segment.get(1).and_then(Value::as_str))
        .map(named)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use garde::Validate;

    use super::*;
    use crate::{Fault, VIOLATIONS_MAX};

    const SECRET: &str = "hunter2-correct-horse";

    #[derive(Validate)]
    struct Account {
        #[garde(length(max = 3), ascii, custom(repeats_it))]
        password: String,
        #[garde(matches(password))]
        again: String,
        #[garde(email)]
        mail: String,
        #[garde(dive)]
        lines: Vec<Line>,
        #[garde(dive)]
        by_name: HashMap<String, Line>,
        #[garde(inner(inner(range(max = 9))))]
        grid: Vec<Vec<u8>>,
        #[garde(dive)]
        only: Option<Wrapper>,
    }

    #[derive(Validate)]
    struct Line {
        #[garde(range(min = 1))]
        count: i64,
    }

    #[derive(Validate)]
    struct Wrapper(#[garde(range(min = 1))] i64);

    fn repeats_it(value: &str, _: &()) -> garde::Result {
        Err(garde::Error::new(format!("{value} is a bad password")))
    }

    fn report() -> Report {
        let account = Account {
            password: SECRET.to_owned(),
            again: format!("{SECRET}!"),
            mail: format!("{SECRET}@@"),
            lines: vec![Line { count: 1 }, Line { count: 0 }],
            by_name: [("a/b~c".to_owned(), Line { count: 0 })].into(),
            grid: vec![vec![1], vec![2, 99]],
            only: Some(Wrapper(0)),
        };
        account.validate().unwrap_err()
    }

    #[test]
    fn paths_become_pointers() {
        let mut pointers: Vec<_> = Violations::from(report())
            .as_slice()
            .iter()
            .map(|violation| violation.pointer().to_owned())
            .collect();
        pointers.sort();
        assert_eq!(
            pointers,
            [
                "/again",
                "/by_name/a~1b~0c/count",
                "/grid/1/1",
                "/lines/1/count",
                "/mail",
                "/only/0",
                "/password",
                "/password",
            ]
        );
    }

    #[test]
    fn no_value_gets_out_of_a_report() {
        assert!(report().to_string().contains(SECRET));
        let violations = Violations::from(report());
        let sent = violations.to_problem().to_bytes();
        for text in [
            violations.to_string(),
            format!("{violations:?}"),
            String::from_utf8(sent.to_vec()).unwrap(),
        ] {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn texts_come_along_when_they_are_declared_public() {
        let mut report = Report::new();
        report.append(garde::Path::new("a").join(3), garde::Error::new("too odd"));
        let violations = Violations::from_garde_with_public_texts(&report);
        assert_eq!(
            violations.to_string().split(": ").nth(1),
            Some("body /a/3 invalid")
        );
        assert_eq!(violations.as_slice()[0].detail(), Some("too odd"));
    }

    #[test]
    fn a_report_of_the_whole_and_an_endless_one_are_taken() {
        let mut report = Report::new();
        report.append(garde::Path::empty(), garde::Error::new(""));
        assert_eq!(Violations::from(report).as_slice()[0].pointer(), "");
        let mut report = Report::new();
        for at in 0..5000_usize {
            report.append(
                garde::Path::new("k".repeat(5000)).join(at),
                garde::Error::new(""),
            );
        }
        let violations = Violations::from(report);
        assert_eq!(
            (violations.len(), violations.as_slice().len()),
            (5000, VIOLATIONS_MAX)
        );
        assert!(violations.as_slice()[7].pointer().ends_with("k/7"));
        assert!(violations.as_slice()[7].pointer().len() < 100);
    }
}
