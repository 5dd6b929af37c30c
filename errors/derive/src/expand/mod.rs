//! From the attributes to the implementation: reads each variant, checks them together, then writes what is
//! derived.

mod case;
mod constraint;
mod decode;
mod descriptor;
mod generics;
mod locate;
mod methods;
mod rules;
mod together;

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote};
use syn::{Data, DeriveInput, Error, Result};

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
    together::check(input, &cases, &on_type)?;

    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let names: Vec<_> = (0..cases.len())
        .map(|at| format_ident!("__OWN_{at}").into_token_stream())
        .collect();
    let own = || {
        let cases = cases.iter().zip(&names);
        cases.filter(|(case, _)| !case.delegates())
    };
    let constants = own().map(|(case, constant)| {
        let descriptor = case.descriptor(name, &on_type);
        quote!(const #constant: __m::Descriptor = #descriptor;)
    });
    let listed = own().map(|(_, constant)| constant);
    let catalog = catalog(&quote!([#(#listed),*]), &cases);
    let from_problem = on_type
        .decode
        .map(|decode| decode::from_problem(input, &cases, &names, decode))
        .transpose()?;

    let descriptor = cases
        .iter()
        .zip(&names)
        .map(|(case, own)| case.arm(&quote!(descriptor), &quote!(&#own)));
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
    let wires = [
        (!on_type.no_response, quote!(__fault_response)),
        (!on_type.no_status, quote!(__fault_status)),
        (!on_type.no_openapi, quote!(__fault_openapi)),
    ];
    // Each writes nothing where its feature is off.
    let wires = wires.iter().filter(|(wanted, _)| *wanted).map(
        |(_, wire)| quote!(__m::#wire! { [#impl_generics] [#name #type_generics] [#where_clause] }),
    );
    let krate = match &on_type.krate {
        Some(path) => path.to_token_stream(),
        None => find_crate(),
    };

    Ok(quote! {
        const _: () = {
            use #krate as __m;

            #(#constants)*

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
            #from_problem
            #by_constraint
            #(#wires)*
        };
    })
}
