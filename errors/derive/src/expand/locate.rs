//! Where `mainstay-errors` is, seen from the crate that is being compiled.

use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::Ident;

/// The path of `mainstay-errors` in the crate that is being compiled: itself if it is a dependency,
/// else inside the facade.
pub(super) fn find_crate() -> TokenStream {
    let path = |found: FoundCrate, own: &str| {
        let name = match found {
            FoundCrate::Itself => own.to_owned(),
            FoundCrate::Name(name) => name,
        };
        Ident::new(&name, Span::call_site())
    };
    if let Ok(found) = crate_name("mainstay-errors") {
        let name = path(found, "mainstay_errors");
        return quote!(::#name);
    }
    if let Ok(found) = crate_name("mainstay") {
        let name = path(found, "mainstay");
        return quote!(::#name::errors);
    }
    quote!(::mainstay_errors)
}
