//! What is static about the codes: descriptors, and the catalogue of them.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::ext::IdentExt;
use syn::{Ident, Type};

use super::case::Case;
use crate::attr::OnType;

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
    pub(super) fn descriptor(&self, owner: &Ident, on_type: &OnType) -> TokenStream {
        let Some((_, category, _)) = &self.on.category else {
            return quote!();
        };
        let on = &self.on;
        let variant = |name: &str| Ident::new(name, Span::call_site());
        let (category, code, docs) = (variant(category), &self.code, &self.docs);
        let owner = owner.unraw().to_string();
        let status = on.status.map(|status| quote!(.with_status(#status)));
        let title = on.title.as_ref().map(|title| quote!(.with_title(#title)));
        let retry = on.retry.map(|retry| {
            let retry = variant(retry);
            quote!(.with_retry(__m::Retry::#retry))
        });
        let wait = on
            .retry_after_ms
            .map(|ms| quote!(.with_retry_after(::core::time::Duration::from_millis(#ms))));
        let outcome = on.outcome.map(|outcome| {
            let outcome = variant(outcome);
            quote!(.with_outcome(__m::Outcome::#outcome))
        });
        // The variant's own `type` wins: it names what others defined.
        let type_uri = match (&on.type_uri, &on_type.type_base) {
            (Some(uri), _) => Some(quote!(.with_type(#uri))),
            (None, Some(base)) => Some(quote!(.with_type_base(#base))),
            (None, None) => None,
        };
        let domain = on_type
            .domain
            .as_ref()
            .map(|domain| quote!(.with_domain(#domain)));
        let headers = (!on.headers.is_empty()).then(|| {
            let pairs = on
                .headers
                .iter()
                .map(|(_, name, value)| quote!((#name, #value)));
            quote!(.with_headers(&[#(#pairs),*]))
        });
        quote! {
            __m::Descriptor::new(#code, __m::Category::#category)
                #status #title #retry #wait #outcome #type_uri #domain #headers
                .with_docs(#docs)
                .with_owner(::core::concat!(::core::module_path!(), "::", #owner))
        }
    }
}
