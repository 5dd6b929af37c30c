//! From the attributes to the implementation: checks what only the whole type can show, then writes
//! one match per method of `Fault`.

use std::collections::HashMap;

use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};

use syn::ext::IdentExt;
use syn::{
    Attribute, Data, DeriveInput, Error, Fields, Ident, Index, LitStr, Member, Result, Type,
};

use crate::attr::{self, OnVariant};
use crate::names;

/// A variant, or the one shape of a struct.
struct Case<'a> {
    /// What `match self` tests: `Self::Variant` or `Self`.
    path: TokenStream,
    name: &'a Ident,
    fields: &'a Fields,
    on: OnVariant,
    code: String,
    docs: String,
    ext: Vec<(Member, String)>,
    violations: Option<Member>,
    retry_after: Option<Member>,
}

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

/// Own descriptors, and those of the faults that variants delegate to.
fn catalog(own: &TokenStream, cases: &[Case<'_>]) -> TokenStream {
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

/// `ByConstraint` for types that name any constraint.
fn by_constraint(input: &DeriveInput, cases: &[Case<'_>]) -> Option<TokenStream> {
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

impl<'a> Case<'a> {
    fn new(
        path: TokenStream,
        name: &'a Ident,
        fields: &'a Fields,
        [attrs, on_enum]: [&[Attribute]; 2],
        on: OnVariant,
    ) -> Result<Self> {
        if let Some(span) = on.delegate {
            if let Some(other) = on.other {
                return Err(Error::new(
                    other,
                    "`delegate` takes everything from the field, so nothing else can stand beside it",
                ));
            }
            if fields.len() != 1 {
                return Err(Error::new(
                    span,
                    "`delegate` needs exactly one field, which is itself a Fault",
                ));
            }
        } else if on.category.is_none() {
            return Err(Error::new(
                name.span(),
                format!(
                    "`{name}` needs a category, such as `#[fault(not_found)]`, or `#[fault(delegate)]` to its field"
                ),
            ));
        }
        if let (Some(status), Some((category, _, class))) = (on.status, &on.category)
            && (status / 100 != *class)
        {
            return Err(Error::new(
                category.span(),
                format!(
                    "`{category}` answers with {class}xx, so its status cannot be {status}: choose another status or another category"
                ),
            ));
        }
        if let Some(span) = on.public
            && attr::prints_source(attrs, on_enum)
        {
            return Err(Error::new(
                span,
                "`public` would send the text of another error to clients, because of `#[error(transparent)]`: give the variant a text of its own",
            ));
        }
        if let Some(constraint) = &on.constraint
            && !fields.is_empty()
        {
            return Err(Error::new(
                constraint.span(),
                "only a variant without fields can be made from a constraint",
            ));
        }
        let code = on.code.as_ref().map_or_else(
            || names::snake_case(&name.unraw().to_string()),
            LitStr::value,
        );
        if on.delegate.is_none() && !attr::is_code(&code) {
            return Err(Error::new(
                name.span(),
                format!(
                    "`{code}` cannot be a code, which is at most 63 of a-z 0-9 _, starting with a letter: write `#[fault(code = \"..\")]`"
                ),
            ));
        }
        let mut case = Self {
            path,
            name,
            fields,
            on,
            code,
            docs: attr::docs(attrs),
            ext: Vec::new(),
            violations: None,
            retry_after: None,
        };
        case.read_fields()?;
        Ok(case)
    }

    fn read_fields(&mut self) -> Result<()> {
        for (at, field) in self.fields.iter().enumerate() {
            let on = attr::on_field(&field.attrs)?;
            let member = field
                .ident
                .clone()
                .map_or_else(|| Member::Unnamed(Index::from(at)), Member::Named);
            if let Some(span) = on
                .ext
                .as_ref()
                .map(|(span, _)| *span)
                .or(on.violations)
                .or(on.retry_after)
                && self.delegates()
            {
                return Err(Error::new(
                    span,
                    "`delegate` takes everything from the field, so nothing else can stand beside it",
                ));
            }
            if let Some((span, name)) = on.ext {
                let (span, name) = match (name, &field.ident) {
                    (Some(name), _) => (name.span(), name.value()),
                    (None, Some(ident)) => (ident.span(), ident.unraw().to_string()),
                    (None, None) => {
                        return Err(Error::new(
                            span,
                            "a field without a name needs one on the wire: `#[fault(ext = \"..\")]`",
                        ));
                    }
                };
                if let Some(refused) = names::extension_refused(&name) {
                    return Err(Error::new(span, refused));
                }
                if self.ext.iter().any(|(_, taken)| *taken == name) {
                    return Err(Error::new(
                        span,
                        format!("two fields would be sent as `{name}`"),
                    ));
                }
                self.ext.push((member.clone(), name));
            }
            if let Some(span) = on.violations
                && self.violations.replace(member.clone()).is_some()
            {
                return Err(Error::new(
                    span,
                    "one field of a variant can hold its violations",
                ));
            }
            if let Some(span) = on.retry_after
                && (self.retry_after.replace(member).is_some() || self.on.retry_after_ms.is_some())
            {
                return Err(Error::new(
                    span,
                    "one `retry_after` is enough: on the variant or on one field",
                ));
            }
        }
        if let (Some(pointer), Some(_)) = (&self.on.pointer, &self.violations) {
            return Err(Error::new(
                pointer.span(),
                "`pointer` makes the only violation: leave it out where a field holds them",
            ));
        }
        Ok(())
    }

    fn delegates(&self) -> bool {
        self.on.delegate.is_some()
    }

    /// The constant expression of this code's descriptor.
    fn descriptor(&self, owner: &Ident, type_base: Option<&LitStr>) -> TokenStream {
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

    /// One arm of a method: the field's own answer when the variant delegates, else `own`.
    fn arm(&self, method: &TokenStream, own: &TokenStream) -> TokenStream {
        if self.delegates() {
            self.bound(&self.first(), &quote!(__m::Fault::#method(field)))
        } else {
            let path = &self.path;
            quote!(#path { .. } => #own,)
        }
    }

    /// An arm that binds one field as `field`.
    fn bound(&self, member: &Member, value: &TokenStream) -> TokenStream {
        let path = &self.path;
        quote!(#path { #member: ref field, .. } => #value,)
    }

    fn first(&self) -> Member {
        let named = self
            .fields
            .iter()
            .next()
            .and_then(|field| field.ident.clone());
        named.map_or_else(|| Member::Unnamed(Index::from(0)), Member::Named)
    }

    fn extensions_arm(&self) -> TokenStream {
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

    fn violations_arm(&self) -> TokenStream {
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

    fn retry_arm(&self) -> TokenStream {
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

    fn retry_after_arm(&self) -> TokenStream {
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

/// The path of `mainstay-errors` in the crate that is being compiled: itself if it is a dependency,
/// else inside the facade.
fn find_crate() -> TokenStream {
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
