//! One match per method of `Fault`, one arm per variant.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::Member;

use super::case::Case;

impl Case<'_> {
    /// One arm of a method: the field's own answer when the variant delegates, else `own`.
    pub(super) fn arm(&self, method: &TokenStream, own: &TokenStream) -> TokenStream {
        if self.delegates() {
            self.bound(&self.first(), &quote!(__m::Fault::#method(field)))
        } else {
            let path = &self.path;
            quote!(#path { .. } => #own,)
        }
    }

    /// An arm that binds one field as `field`.
    pub(super) fn bound(&self, member: &Member, value: &TokenStream) -> TokenStream {
        let path = &self.path;
        quote!(#path { #member: ref field, .. } => #value,)
    }

    pub(super) fn extensions_arm(&self) -> TokenStream {
        if self.delegates() {
            return self.bound(&self.first(), &quote!(__m::Fault::extensions(field, out)));
        }
        let path = &self.path;
        let bindings: Vec<_> = (0..self.ext.len())
            .map(|at| format_ident!("field_{at}"))
            .collect();
        let members = self.ext.iter().map(|(member, _)| member);
        let names = self.ext.iter().map(|(_, name)| name);
        let used = self.ext.is_empty().then(|| quote!(let _ = out;));
        quote! {
            #path { #(#members: ref #bindings,)* .. } => {
                #used
                // The names were checked when this compiled; a value that is not JSON is left out.
                #(let _ = out.insert(#names, #bindings);)*
            }
        }
    }

    pub(super) fn violations_arm(&self) -> TokenStream {
        if let Some(member) = &self.violations {
            return self.bound(member, &quote!(__m::Fault::violations(field)));
        }
        let own = match &self.on.pointer {
            Some(pointer) => {
                let code = &self.code;
                quote!({
                    static OWN: [__m::Violation; 1] =
                        [__m::Violation::from_static(__m::Location::Body, #pointer, #code)];
                    &OWN
                })
            }
            None => quote!(&[]),
        };
        self.arm(&quote!(violations), &own)
    }

    pub(super) fn retry_arm(&self) -> TokenStream {
        let fixed = quote!(__m::Fault::descriptor(self).retry());
        match &self.retry_after {
            Some(_) => self.arm(&quote!(retry), &quote! {
                match (#fixed, __m::Fault::retry_after(self)) {
                    (__m::Retry::Backoff, ::core::option::Option::Some(wait)) => __m::Retry::After(wait),
                    (advice, _) => advice,
                }
            }),
            None => self.arm(&quote!(retry), &fixed),
        }
    }

    pub(super) fn retry_after_arm(&self) -> TokenStream {
        match &self.retry_after {
            Some(member) => self.bound(
                member,
                &quote!(::core::convert::Into::<
                    ::core::option::Option<::core::time::Duration>,
                >::into(*field)),
            ),
            None => self.arm(
                &quote!(retry_after),
                &quote!(__m::Fault::descriptor(self).retry_after()),
            ),
        }
    }
}
