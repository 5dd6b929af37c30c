//! Where `mainstay-pagination` is, seen from the crate that is being compiled.

use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::Ident;

/// Itself if it is a dependency, else inside the facade.
pub(crate) fn find_crate() -> TokenStream {
    let path = |found: FoundCrate, own: &str| {
        let name = match found {
            FoundCrate::Itself => own.to_owned(),
            FoundCrate::Name(name) => name,
        };
        Ident::new(&name, Span::call_site())
    };
    if let Ok(found) = crate_name("mainstay-pagination") {
        let name = path(found, "mainstay_pagination");
        return quote!(::#name);
    }
    if let Ok(found) = crate_name("mainstay") {
        let name = path(found, "mainstay");
        return quote!(::#name::pagination);
    }
    quote!(::mainstay_pagination)
}
