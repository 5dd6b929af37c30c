//! `FromProblem`: the way back, for the variants whose every field travels.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{DeriveInput, Error, Result, WherePredicate, parse_quote};

use super::case::{Back, Case, Way};
use super::generics::mentions_parameter;

/// The implementation, or why there is nothing to implement. `own` names the constant descriptor of each case.
pub(super) fn from_problem(
    input: &DeriveInput,
    cases: &[Case<'_>],
    own: &[TokenStream],
    decode: Span,
) -> Result<TokenStream> {
    if !cases.iter().any(Case::comes_back) {
        return Err(Error::new(
            decode,
            "no variant can come back from a document: each holds a field that is not sent. \
             Mark fields `ext`, `violations` or `retry_after`, or `default` where any value will do",
        ));
    }
    let mut bounds = Vec::new();
    let mut arms = Vec::new();
    let mut delegates = Vec::new();
    for (case, own) in cases.iter().zip(own).filter(|(case, _)| case.comes_back()) {
        let path = &case.path;
        for way in &case.ways {
            if mentions_parameter(way.ty, &input.generics) {
                bounds.push(bound(way));
            }
        }
        let members = case.ways.iter().map(|way| &way.member);
        if case.delegates() {
            let ty = case.ways.iter().map(|way| way.ty);
            delegates.push(quote! {
                #(if let ::core::option::Option::Some(field) = <#ty as __m::FromProblem>::from_problem(problem) {
                    return ::core::option::Option::Some(#path { #members: field });
                })*
            });
        } else {
            let values = case.ways.iter().map(Way::value);
            arms.push(quote! {
                if __m::__private::is_of(problem, &#own) {
                    return ::core::option::Option::Some(#path { #(#members: #values),* });
                }
            });
        }
    }

    let name = &input.ident;
    let mut generics = input.generics.clone();
    if !bounds.is_empty() {
        generics.make_where_clause().predicates.extend(bounds);
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics __m::FromProblem for #name #type_generics #where_clause {
            fn from_problem(problem: &__m::Problem) -> ::core::option::Option<Self> {
                #(#arms)*
                #(#delegates)*
                ::core::option::Option::None
            }
        }
    })
}

impl Case<'_> {
    /// Whether everything the variant holds travels, or is the delegate's own affair.
    fn comes_back(&self) -> bool {
        self.delegates() || !self.ways.iter().any(|way| matches!(way.back, Back::Stays))
    }
}

impl Way<'_> {
    /// The expression of the field's value, which may leave `from_problem` with nothing.
    fn value(&self) -> TokenStream {
        let ty = self.ty;
        match &self.back {
            Back::Ext(name) => quote!(__m::__private::member::<#ty>(problem, #name)?),
            Back::ExtOrDefault(name) => {
                quote!(__m::__private::member_or_default::<#ty>(problem, #name)?)
            }
            Back::Violations => quote!(__m::__private::violations::<#ty>(problem)),
            Back::RetryAfter => quote!(<#ty as __m::__private::Wait>::of(problem)?),
            Back::Default => quote!(<#ty as ::core::default::Default>::default()),
            Back::Stays => quote!(return ::core::option::Option::None),
        }
    }
}

/// What a type parameter must be for the way back, asked only of who goes it.
fn bound(way: &Way<'_>) -> WherePredicate {
    let ty = way.ty;
    match way.back {
        Back::Ext(_) => parse_quote!(#ty: __m::__private::DeserializeOwned),
        Back::ExtOrDefault(_) => {
            parse_quote!(#ty: __m::__private::DeserializeOwned + ::core::default::Default)
        }
        Back::Violations => parse_quote!(#ty: ::core::iter::FromIterator<__m::Violation>),
        Back::RetryAfter => parse_quote!(#ty: __m::__private::Wait),
        Back::Default | Back::Stays => parse_quote!(#ty: ::core::default::Default),
    }
}
