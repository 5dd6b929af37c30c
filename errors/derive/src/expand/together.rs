//! What only all variants together can show.

use std::collections::HashMap;

use syn::{Data, DeriveInput, Error, Generics, Ident, Result};

use super::case::Case;
use super::generics::mentions_parameter;
use crate::attr::OnType;

/// Refuses variants that do not go together, or not with what the type says.
pub(super) fn check(input: &DeriveInput, cases: &[Case<'_>], on_type: &OnType) -> Result<()> {
    refuse_repeats(cases)?;
    refuse_generic_delegates(cases, &input.generics)?;
    refuse_idle_words(input, cases, on_type)
}

/// Codes and constraints, of which each means one variant.
fn refuse_repeats(cases: &[Case<'_>]) -> Result<()> {
    let mut codes: HashMap<&str, &Ident> = HashMap::new();
    let mut constraints: HashMap<String, &Ident> = HashMap::new();
    for case in cases.iter().filter(|case| !case.delegates()) {
        if let Some(before) = codes.insert(&case.code, case.name) {
            let message = format!(
                "the code `{}` is taken by `{before}`: clients tell errors apart by it, so write `#[fault(code = \"..\")]`",
                case.code
            );
            return Err(Error::new(case.name.span(), message));
        }
        if let Some(constraint) = &case.on.constraint
            && let Some(before) = constraints.insert(constraint.value(), case.name)
        {
            return Err(Error::new(
                constraint.span(),
                format!("this constraint means `{before}` already"),
            ));
        }
    }
    Ok(())
}

/// A constant, such as the catalogue, cannot be made of a type that is not known yet.
fn refuse_generic_delegates(cases: &[Case<'_>], generics: &Generics) -> Result<()> {
    let mut fields = cases
        .iter()
        .filter(|case| case.delegates())
        .flat_map(|case| case.fields);
    match fields.find(|field| mentions_parameter(&field.ty, generics)) {
        Some(field) => Err(Error::new_spanned(
            &field.ty,
            "the catalogue lists the codes before a type parameter is known: `delegate` to a type without one",
        )),
        None => Ok(()),
    }
}

/// Words that are right by themselves and would do nothing here.
fn refuse_idle_words(input: &DeriveInput, cases: &[Case<'_>], on_type: &OnType) -> Result<()> {
    let undecoded = cases.iter().find_map(|case| case.default);
    if let (Some(span), None) = (undecoded, on_type.decode) {
        return Err(Error::new(
            span,
            "`default` says what decoding puts here: write `#[fault(decode)]` on the type",
        ));
    }
    let typed = cases.iter().find_map(|case| case.on.type_uri.as_ref());
    if let (Some(uri), Some(_), Data::Struct(_)) = (typed, &on_type.type_base, &input.data) {
        return Err(Error::new(
            uri.span(),
            "`type` is the whole of it: leave out `type_base`",
        ));
    }
    Ok(())
}
