//! From `validator::ValidationErrors`.

use std::borrow::Cow;

use serde_json::Value;
use validator::{ValidationError, ValidationErrors, ValidationErrorsKind};

use super::named;
use crate::{Violation, Violations};

/// Each error as a violation of the body: where it is, its code, the text and the limits that its author wrote.
///
/// `ValidationErrors` holds every rejected value, in the parameter `value` and for `must_match` in `other`, and
/// prints it. What is taken cannot hold one:
///
/// - `code` and `message` when they are literals, as all that the derive makes are. One that was put together at
///   run time may repeat the value: the code becomes `invalid`, the text is left out.
/// - Of the rules `range` and `length`, the limits `min`, `max`, `equal`, `exclusive_min` and `exclusive_max` when they
///   are numbers. Not any other parameter: nothing tells one of a custom rule from a copy of the value.
///
/// [`Violations::from_validator_with_public_texts`] takes more.
///
/// The pointer has validator's names, which are the Rust fields' even where serde renames them. Of a map, validator
/// gives the number of the entry instead of its key. `__all__`, which is about a struct as a whole, points to that.
///
/// ```
/// use mainstay_errors::Violations;
/// use validator::Validate;
///
/// #[derive(Validate)]
/// struct NewOrder {
///     #[validate(range(min = 1, message = "order at least one"))]
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
/// assert_eq!(refused.as_slice()[0].to_string(), "body /amount range: order at least one");
/// ```
impl From<ValidationErrors> for Violations {
    fn from(errors: ValidationErrors) -> Self {
        collect(&errors, literal_only)
    }
}

impl Violations {
    /// As `From<ValidationErrors>`, with each code, text and parameter of a rule, however it was made.
    ///
    /// By calling this you declare them fit for clients and for the log: no rule of yours puts a value into them.
    /// The parameters `value` and `other` are values, and are left out even so.
    #[must_use]
    #[cfg_attr(docsrs, doc(cfg(feature = "validator")))]
    pub fn from_validator_with_public_texts(errors: &ValidationErrors) -> Self {
        collect(errors, all_but_values)
    }
}

/// What is at a pointer, from the error found there.
type Take = fn(String, &ValidationError) -> Violation;

/// Where validator puts the errors of a struct as a whole, and of a list that is no field of anything.
const WHOLE: [&str; 2] = ["__all__", "_tmp_validator"];

/// How deep a report is followed. serde_json reads no request deeper.
const DEPTH_MAX: usize = 128;

fn collect(errors: &ValidationErrors, take: Take) -> Violations {
    let mut found = Violations::new();
    of_struct(errors, "", take, DEPTH_MAX, &mut found);
    found
}

fn of_struct(
    errors: &ValidationErrors,
    at: &str,
    take: Take,
    depth: usize,
    found: &mut Violations,
) {
    let Some(depth) = depth.checked_sub(1) else {
        found.push(Violation::body(at.to_owned(), "invalid"));
        return;
    };
    // The map has no order of its own; equal requests are to have equal answers.
    let mut fields: Vec<_> = errors.errors().iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    for (name, kind) in fields {
        let at = if WHOLE.contains(&name.as_ref()) {
            at.to_owned()
        } else {
            format!("{at}{}", named(name))
        };
        match kind {
            ValidationErrorsKind::Field(errors) => {
                found.extend(errors.iter().map(|error| take(at.clone(), error)));
            }
            ValidationErrorsKind::Struct(errors) => of_struct(errors, &at, take, depth, found),
            ValidationErrorsKind::List(entries) => {
                for (index, errors) in entries {
                    of_struct(errors, &format!("{at}/{index}"), take, depth, found);
                }
            }
        }
    }
}

fn literal_only(at: String, error: &ValidationError) -> Violation {
    let code = match error.code {
        Cow::Borrowed(code) => code,
        Cow::Owned(_) => "invalid",
    };
    let mut violation = Violation::body(at, code);
    if let Some(Cow::Borrowed(message)) = error.message {
        violation = violation.with_detail(message);
    }
    // A custom rule may name any copy of the value so; these two are validator's own.
    if !matches!(code, "range" | "length") {
        return violation;
    }
    let value = error.params.get("value");
    for name in ["min", "max", "equal", "exclusive_min", "exclusive_max"] {
        let Some(limit) = error.params.get(name).filter(|limit| limit.is_number()) else {
            continue;
        };
        // A value that equals a limit is refused by an exclusive one alone: elsewhere it is a copy.
        if name.starts_with("exclusive_") || value != Some(limit) {
            violation = violation.with_param(name, limit.clone());
        }
    }
    violation
}

fn all_but_values(at: String, error: &ValidationError) -> Violation {
    let mut violation = Violation::body(at, error.code.clone());
    if let Some(message) = &error.message {
        violation = violation.with_detail(message.clone());
    }
    let mut params: Vec<(_, &Value)> = error
        .params
        .iter()
        .filter(|(name, _)| !matches!(name.as_ref(), "value" | "other"))
        .collect();
    // Those that are beyond the bound are always the same.
    params.sort_by_key(|(name, _)| *name);
    params
        .into_iter()
        .fold(violation, |violation, (name, value)| {
            violation.with_param(name.clone(), value.clone())
        })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use validator::Validate;

    use super::*;
    use crate::{Fault, VIOLATIONS_MAX};

    const SECRET: &str = "hunter2-correct-horse";
    const PIN: i64 = 80_517_263;

    #[derive(Validate)]
    #[validate(schema(function = "whole", skip_on_field_errors = false))]
    struct Account {
        #[validate(length(max = 3, message = "too long"), custom(function = "repeats_it"))]
        password: String,
        #[validate(must_match(other = "password"), does_not_contain(pattern = "hunter2"))]
        again: String,
        #[validate(email, url(code = "no_url"))]
        mail: String,
        #[validate(
            range(min = 1, exclusive_max = 10_000),
            custom(function = "repeats_number")
        )]
        pin: i64,
        #[validate(nested)]
        lines: Vec<Line>,
        #[validate(nested)]
        first: Line,
    }

    #[derive(Validate, Clone)]
    struct Line {
        #[validate(range(exclusive_min = 0))]
        count: i64,
    }

    fn repeats_it(value: &str) -> Result<(), ValidationError> {
        let mut error =
            ValidationError::new("known").with_message(format!("{value} is a bad password").into());
        error.code = format!("bad_{value}").into();
        error.add_param("min".into(), &value);
        error.add_param("max".into(), &[value]);
        error.add_param("tried".into(), &HashMap::from([(value, 1)]));
        error.add_param(value.to_owned().into(), &1);
        Err(error)
    }

    fn repeats_number(value: i64) -> Result<(), ValidationError> {
        let mut error = ValidationError::new("odd");
        error.add_param("max".into(), &value);
        Err(error)
    }

    fn whole(_: &Account) -> Result<(), ValidationError> {
        Err(ValidationError::new("inconsistent"))
    }

    fn errors() -> ValidationErrors {
        let account = Account {
            password: SECRET.to_owned(),
            again: format!("{SECRET}!"),
            mail: format!("{SECRET}@@"),
            pin: PIN,
            lines: vec![Line { count: 1 }, Line { count: 0 }],
            first: Line { count: 0 },
        };
        account.validate().unwrap_err()
    }

    #[test]
    fn errors_become_violations_with_what_their_author_wrote() {
        let violations = Violations::from(errors());
        let sent = serde_json::to_string_pretty(violations.as_slice()).unwrap();
        insta::assert_snapshot!(sent);
    }

    #[test]
    fn no_value_gets_out_of_a_report() {
        assert!(errors().to_string().contains(SECRET));
        let violations = Violations::from(errors());
        let sent = violations.to_problem().to_bytes();
        for text in [
            violations.to_string(),
            format!("{violations:?}"),
            String::from_utf8(sent.to_vec()).unwrap(),
        ] {
            assert!(!text.contains("hunter2"), "{text}");
            assert!(!text.contains(&PIN.to_string()), "{text}");
        }
    }

    #[test]
    fn values_stay_behind_even_when_texts_are_public() {
        let mut error = ValidationError::new("odd").with_message("very".to_owned().into());
        error.add_param("step".into(), &"weekly");
        error.add_param("value".into(), &SECRET);
        error.add_param("other".into(), &SECRET);
        let mut errors = ValidationErrors::new();
        errors.add("every", error);
        let violations = Violations::from_validator_with_public_texts(&errors);
        let expected = Violation::body("/every", "odd")
            .with_detail("very")
            .with_param("step", "weekly");
        assert_eq!(violations.as_slice(), [expected]);
    }

    #[test]
    fn a_list_that_is_the_whole_body_has_pointers_of_its_own() {
        let lines = [Line { count: 1 }, Line { count: 0 }];
        let errors = lines.as_slice().validate().unwrap_err();
        assert_eq!(Violations::from(errors).as_slice()[0].pointer(), "/1/count");
    }

    #[test]
    fn an_endless_or_bottomless_report_is_bounded() {
        let mut many = ValidationErrors::new();
        for _ in 0..5000 {
            many.add("all", ValidationError::new("bad"));
        }
        let violations = Violations::from(many);
        assert_eq!(
            (violations.len(), violations.as_slice().len()),
            (5000, VIOLATIONS_MAX)
        );

        let mut deep = ValidationErrors::new();
        deep.add("leaf", ValidationError::new("bad"));
        for _ in 0..2000 {
            let kind = ValidationErrorsKind::Struct(Box::new(deep));
            deep = ValidationErrors([("n~/".into(), kind)].into());
        }
        let violations = Violations::from(deep);
        assert_eq!(violations.len(), 1);
        assert_eq!(
            violations.as_slice()[0].pointer(),
            "/n~0~1".repeat(DEPTH_MAX)
        );
    }
}
