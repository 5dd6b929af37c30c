//! `ByConstraint`: which variant a database constraint means.

use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

use super::case::Case;

/// `ByConstraint` for types that name any constraint.
pub(super) fn by_constraint(input: &DeriveInput, cases: &[Case<'_>]) -> Option<TokenStream> {
    let arms: Vec<_> = cases
        .iter()
        .filter_map(|case| {
            let (path, constraint) = (&case.path, case.on.constraint.as_ref()?);
            // Braces fit a variant of any shape.
            Some(quote!(#constraint => ::core::option::Option::Some(#path {}),))
        })
        .collect();
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    (!arms.is_empty()).then(|| {
        quote! {
            #[automatically_derived]
            impl #impl_generics __m::ByConstraint for #name #type_generics #where_clause {
                fn by_constraint(constraint: &str) -> ::core::option::Option<Self> {
                    match constraint {
                        #(#arms)*
                        _ => ::core::option::Option::None,
                    }
                }
            }
        }
    })
}
