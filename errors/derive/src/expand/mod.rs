//! From the attributes to the implementation: checks what only the whole type can show, then writes
//! what is derived.

mod case;
mod constraint;
mod descriptor;
mod locate;
mod methods;

use std::collections::HashMap;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Ident, Result};

use self::case::Case;
use self::constraint::by_constraint;
use self::descriptor::catalog;
use self::locate::find_crate;
use crate::attr::{self, OnVariant};

pub(crate) fn fault(input: &DeriveInput) -> Result<TokenStream> {
    let mut cases = Vec::new();
    let on_type = match &input.data {
        Data::Enum(data) => {
            let on_type = attr::on_type(&input.attrs, None)?;
            let mut refused: Option<Error> = None;
            for variant in &data.variants {
                let name = &variant.ident;
                let case = attr::on_variant(&variant.attrs).and_then(|on| {
                    Case::new(
                        quote!(Self::#name),
                        name,
                        &variant.fields,
                        [&variant.attrs, &input.attrs],
                        on,
                    )
                });
                match (case, &mut refused) {
                    (Ok(case), _) => cases.push(case),
                    (Err(error), Some(all)) => all.combine(error),
                    (Err(error), none) => *none = Some(error),
                }
            }
            if let Some(refused) = refused {
                return Err(refused);
            }
            on_type
        }
        Data::Struct(data) => {
            let mut on = OnVariant::default();
            let on_type = attr::on_type(&input.attrs, Some(&mut on))?;
            cases.push(Case::new(
                quote!(Self),
                &input.ident,
                &data.fields,
                [&input.attrs, &[]],
                on,
            )?);
            on_type
        }
        Data::Union(data) => {
            return Err(Error::new(
                data.union_token.span,
                "a union cannot be an error: derive Fault on an enum or a struct",
            ));
        }
    };
    refuse_repeats(&cases)?;

    let krate = on_type.krate.map_or_else(find_crate, |path| quote!(#path));
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let descriptors: Vec<_> = cases
        .iter()
        .map(|case| case.descriptor(name, on_type.type_base.as_ref()))
        .collect();
    let own = cases
        .iter()
        .zip(&descriptors)
        .filter(|(case, _)| !case.delegates())
        .map(|(_, descriptor)| descriptor);
    let catalog = catalog(&quote!([#(#own),*]), &cases);

    let descriptor = cases.iter().zip(&descriptors).map(|(case, own)| {
        case.arm(
            &quote!(descriptor),
            &quote!({ const OWN: __m::Descriptor = #own; &OWN }),
        )
    });
    let detail = cases.iter().map(|case| {
        let text = match case.on.public {
            Some(_) => quote!(::core::option::Option::Some(__m::Public::new(
                ::std::string::ToString::to_string(self)
            ))),
            None => quote!(::core::option::Option::None),
        };
        case.arm(&quote!(detail), &text)
    });
    let extensions = cases.iter().map(Case::extensions_arm);
    let violations = cases.iter().map(Case::violations_arm);
    let retry = cases.iter().map(Case::retry_arm);
    let retry_after = cases.iter().map(Case::retry_after_arm);
    let outcome = cases.iter().map(|case| {
        case.arm(
            &quote!(outcome),
            &quote!(__m::Fault::descriptor(self).outcome()),
        )
    });
    let by_constraint = by_constraint(input, &cases);
    let response = (!on_type.no_response).then(|| {
        quote!(__m::__fault_response! { [#impl_generics] [#name #type_generics] [#where_clause] })
    });

    Ok(quote! {
        const _: () = {
            use #krate as __m;

            #[automatically_derived]
            impl #impl_generics __m::Fault for #name #type_generics #where_clause {
                const CATALOG: &'static [__m::Descriptor] = #catalog;

                fn descriptor(&self) -> &'static __m::Descriptor {
                    match *self { #(#descriptor)* }
                }
                fn detail(&self) -> ::core::option::Option<__m::Public<'_>> {
                    match *self { #(#detail)* }
                }
                fn extensions(&self, out: &mut __m::Members) {
                    match *self { #(#extensions)* }
                }
                fn violations(&self) -> &[__m::Violation] {
                    match *self { #(#violations)* }
                }
                fn retry(&self) -> __m::Retry {
                    match *self { #(#retry)* }
                }
                fn retry_after(&self) -> ::core::option::Option<::core::time::Duration> {
                    match *self { #(#retry_after)* }
                }
                fn outcome(&self) -> __m::Outcome {
                    match *self { #(#outcome)* }
                }
            }
            #by_constraint
            #response
        };
    })
}

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
