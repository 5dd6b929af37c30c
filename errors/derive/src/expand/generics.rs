//! Types that stand for others.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{GenericParam, Generics, Type};

/// Whether a type or constant parameter stands anywhere in the type. A name that only looks like one costs a
/// bound that holds anyway.
pub(super) fn mentions_parameter(ty: &Type, generics: &Generics) -> bool {
    fn any(tokens: TokenStream, names: &[String]) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Group(group) => any(group.stream(), names),
            TokenTree::Ident(name) => names.contains(&name.to_string()),
            TokenTree::Punct(_) | TokenTree::Literal(_) => false,
        })
    }
    let names: Vec<_> = generics
        .params
        .iter()
        .filter_map(|param| match param {
            GenericParam::Type(param) => Some(param.ident.to_string()),
            GenericParam::Const(param) => Some(param.ident.to_string()),
            GenericParam::Lifetime(_) => None,
        })
        .collect();
    any(ty.to_token_stream(), &names)
}
