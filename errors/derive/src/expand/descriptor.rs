//! What is static about the codes: descriptors, and the catalogue of them.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Ident, LitStr, Type};

use super::case::Case;

/// Own descriptors, and those of the faults that variants delegate to.
pub(super) fn catalog(own: &TokenStream, cases: &[Case<'_>]) -> TokenStream {
    let delegates: Vec<&Type> = cases
        .iter()
        .filter(|case| case.delegates())
        .filter_map(|case| case.fields.iter().next())
        .map(|field| &field.ty)
        .collect();
    if delegates.is_empty() {
        return quote!(&#own);
    }
    quote! {{
        const PARTS: &[&[__m::Descriptor]] = &[&#own, #(<#delegates as __m::Fault>::CATALOG),*];
        const ALL: [__m::Descriptor; __m::__private::catalog_len(PARTS)] = __m::__private::catalog_join(PARTS);
        &ALL
    }}
}

impl Case<'_> {
    /// The constant expression of this code's descriptor.
    pub(super) fn descriptor(&self, owner: &Ident, type_base: Option<&LitStr>) -> TokenStream {
        let Some((_, category, _)) = &self.on.category else {
            return quote!();
        };
        let (category, code, docs) = (
            Ident::new(category, Span::call_site()),
            &self.code,
            &self.docs,
        );
        let owner = owner.to_string();
        let status = self.on.status.map(|status| quote!(.with_status(#status)));
        let title = self
            .on
            .title
            .as_ref()
            .map(|title| quote!(.with_title(#title)));
        let retry = self.on.retry.map(|retry| {
            let retry = Ident::new(retry, Span::call_site());
            quote!(.with_retry(__m::Retry::#retry))
        });
        let wait = self
            .on
            .retry_after_ms
            .map(|ms| quote!(.with_retry_after(::core::time::Duration::from_millis(#ms))));
        let outcome = self.on.outcome.map(|outcome| {
            let outcome = Ident::new(outcome, Span::call_site());
            quote!(.with_outcome(__m::Outcome::#outcome))
        });
        let type_base = type_base.map(|base| quote!(.with_type_base(#base)));
        quote! {
            __m::Descriptor::new(#code, __m::Category::#category)
                #status #title #retry #wait #outcome #type_base
                .with_docs(#docs)
                .with_owner(::core::concat!(::core::module_path!(), "::", #owner))
        }
    }
}
