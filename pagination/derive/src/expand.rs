//! From the declarations to a constant and a method each.

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, Ident, LitStr, Result};

use crate::attr::{self, Declared};
use crate::column::KeyField;
use crate::locate::find_crate;
use crate::order::{self, Nulls, Term};

/// A twin of `COLUMNS_MAX` in `mainstay-pagination`, whose own assertion it foretells.
const COLUMNS_MAX: usize = 8;

pub(crate) fn keyset(input: &DeriveInput) -> Result<TokenStream> {
    let on_type = attr::on_type(&input.attrs)?;
    let fields = fields(input)?;
    let krate = match on_type.path {
        Some(path) => path.into_token_stream(),
        None => find_crate(),
    };
    if on_type.orders.is_empty() {
        return Err(Error::new(
            input.ident.span(),
            "which order? Write `#[keyset(name = \"tickets.newest\", order = \"created_at desc, id desc\", unique = \"id\")]`",
        ));
    }
    let mut orders: Vec<Order> = Vec::new();
    let mut refused: Option<Error> = None;
    for declared in &on_type.orders {
        let order = Order::new(declared, &fields, &krate).and_then(|order| {
            let taken = orders.iter().any(|known| known.constant == order.constant);
            match taken {
                true => Err(Error::new(
                    declared.name.span(),
                    format!(
                        "`{}` is taken by another order of this type",
                        order.constant
                    ),
                )),
                false => Ok(order),
            }
        });
        match (order, &mut refused) {
            (Ok(order), _) => orders.push(order),
            (Err(error), Some(all)) => all.combine(error),
            (Err(error), none) => *none = Some(error),
        }
    }
    if let Some(refused) = refused {
        return Err(refused);
    }
    Ok(implementation(input, &krate, &orders))
}

fn fields(input: &DeriveInput) -> Result<Vec<KeyField<'_>>> {
    let named = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(named) => Some(named),
            Fields::Unnamed(_) | Fields::Unit => None,
        },
        Data::Enum(_) | Data::Union(_) => None,
    };
    let Some(named) = named else {
        return Err(Error::new(
            input.ident.span(),
            "a row is a struct with named fields",
        ));
    };
    let renamed = renames_all(input);
    let read = named
        .named
        .iter()
        .map(|field| KeyField::read(field, renamed));
    read.filter_map(Result::transpose).collect()
}

/// Whether sqlx is told to look for columns under other names than the fields'.
fn renames_all(input: &DeriveInput) -> bool {
    let mut found = false;
    for attr in input
        .attrs
        .iter()
        .filter(|attr| attr.path().is_ident("sqlx"))
    {
        // An attribute that cannot be read is reported by sqlx.
        let _ = attr.parse_nested_meta(|meta| {
            found |= meta.path.is_ident("rename_all");
            if meta.input.peek(syn::Token![=]) {
                let _: syn::Expr = meta.value()?.parse()?;
            }
            Ok(())
        });
    }
    found
}

/// An order that fits its type.
struct Order {
    constant: Ident,
    method: Ident,
    name: String,
    text: String,
    /// `KeysetDef::new(..)` and what follows.
    definition: TokenStream,
    keys: Vec<TokenStream>,
}

impl Order {
    fn new(declared: &Declared, fields: &[KeyField<'_>], krate: &TokenStream) -> Result<Self> {
        let Declared {
            name,
            order,
            unique,
        } = declared;
        let wrong = |message: String| Error::new(order.span(), message);
        let terms = order::parse(&order.value()).map_err(wrong)?;
        if terms.len() > COLUMNS_MAX {
            return Err(wrong(format!("an order has at most {COLUMNS_MAX} columns")));
        }
        let (constant, method) = names(name)?;
        let full_name = name.value();
        let mut definition = quote!(#krate::KeysetDef::new(#full_name));
        let mut keys = Vec::new();
        // That a type which is not spelt `Option` is none either.
        let mut checks = TokenStream::new();
        for (i, term) in terms.iter().enumerate() {
            let earlier = terms.get(..i).unwrap_or_default();
            if earlier.iter().any(|known| known.field == term.field) {
                return Err(wrong(format!(
                    "`{}` stands in this order twice",
                    term.field
                )));
            }
            let field = find(fields, &term.field).map_err(wrong)?;
            let last = i + 1 == terms.len();
            if last {
                is_unique(term, field, unique)?;
            }
            let column = column(term, field, krate).map_err(|message| match message {
                Refused::Here(message) => wrong(message),
                Refused::There(error) => error,
            })?;
            let step = match (last, term.descending) {
                (true, true) => quote!(unique_desc),
                (true, false) => quote!(unique_asc),
                (false, true) => quote!(desc),
                (false, false) => quote!(asc),
            };
            definition.extend(quote!(.#step(#column)));
            keys.push(field.key(krate));
            if !field.is_option() {
                let (ty, name) = (field.ty, field.name());
                let message = format!("`{name}` may be NULL: write its type as an `Option`");
                checks.extend(quote_spanned!(ty.span()=>
                    ::core::assert!(!<#ty as #krate::KeyValue>::NULLABLE, #message);
                ));
            }
        }
        Ok(Self {
            constant,
            method,
            name: full_name,
            text: order.value(),
            definition: quote!({ #checks #definition }),
            keys,
        })
    }
}

/// `NEWEST` and `newest_keys` for `tickets.newest`.
fn names(name: &LitStr) -> Result<(Ident, Ident)> {
    let full = name.value();
    let last = full.rsplit('.').next().unwrap_or_default();
    let letters = last.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !letters || !last.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(Error::new(
            name.span(),
            format!(
                "`{last}`, the last part of the name, also names a constant: use letters, digits and `_`"
            ),
        ));
    }
    Ok((
        Ident::new(&last.to_ascii_uppercase(), name.span()),
        format_ident!("{}_keys", last.to_ascii_lowercase(), span = name.span()),
    ))
}

fn find<'f, 'a>(
    fields: &'f [KeyField<'a>],
    name: &str,
) -> std::result::Result<&'f KeyField<'a>, String> {
    fields
        .iter()
        .find(|field| field.name() == name)
        .ok_or_else(|| {
            let all: Vec<_> = fields.iter().map(KeyField::name).collect();
            format!("no field `{name}`; there are `{}`", all.join("`, `"))
        })
}

/// The last column breaks every tie: it is the one that was said to be unique, and never NULL.
fn is_unique(last: &Term, field: &KeyField<'_>, unique: &LitStr) -> Result<()> {
    let name = unique.value();
    if last.field != name {
        return Err(Error::new(
            unique.span(),
            format!(
                "the order ends with `{}`, so rows that tie there have no order: end it with `{name}`",
                last.field
            ),
        ));
    }
    if field.is_option() {
        return Err(Error::new(
            field.ty.span(),
            format!("`{name}` breaks ties, so it is never NULL: it cannot be an `Option`"),
        ));
    }
    Ok(())
}

/// Where a refusal points.
enum Refused {
    /// To the order's text.
    Here(String),
    There(Error),
}

fn column(
    term: &Term,
    field: &KeyField<'_>,
    krate: &TokenStream,
) -> std::result::Result<TokenStream, Refused> {
    let name = field.column().map_err(Refused::There)?;
    let declared = field.declared(krate, &name);
    let field_name = &term.field;
    match (field.is_option(), term.nulls) {
        (true, Some(Nulls::First)) => Ok(quote!(#declared.nulls_first())),
        (true, Some(Nulls::Last)) => Ok(quote!(#declared.nulls_last())),
        (false, None) => Ok(quote!(#declared.not_null())),
        (true, None) => Err(Refused::Here(format!(
            "`{field_name}` is an `Option`: write `nulls first` or `nulls last` after it, since databases disagree"
        ))),
        (false, Some(_)) => Err(Refused::Here(format!(
            "`{field_name}` is never NULL, being no `Option`: leave `nulls` out"
        ))),
    }
}

fn implementation(input: &DeriveInput, krate: &TokenStream, orders: &[Order]) -> TokenStream {
    let (name, vis) = (&input.ident, &input.vis);
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    let items = orders.iter().map(|order| {
        let Order {
            constant,
            method,
            name,
            text,
            definition,
            keys,
        } = order;
        let of_order = format!("The order `{name}`: {text}.");
        let of_keys = format!("The row's place in the order `{name}`.");
        quote! {
            #[doc = #of_order]
            #vis const #constant: #krate::KeysetDef = #definition;

            #[doc = #of_keys]
            #[must_use]
            #vis fn #method(&self) -> #krate::Keys {
                <#krate::Keys as ::core::convert::From<_>>::from([#(#keys),*])
            }
        }
    });
    let own = orders.first().map(
        |Order {
             constant, method, ..
         }| {
            quote! {
                #[automatically_derived]
                impl #generics #krate::Keyset for #name #arguments #bounds {
                    const ORDER: #krate::KeysetDef = Self::#constant;

                    fn keys(&self) -> #krate::Keys {
                        self.#method()
                    }
                }
            }
        },
    );
    quote! {
        #[automatically_derived]
        #[allow(dead_code, reason = "an order may serve for its constant or for its method alone")]
        impl #generics #name #arguments #bounds {
            #(#items)*
        }
        #own
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn expanded(input: &DeriveInput) -> std::result::Result<String, String> {
        match keyset(input) {
            Ok(tokens) => Ok(tokens.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn columns_that_sqlx_renames_are_known_or_asked_for() {
        let renamed = expanded(&parse_quote! {
            #[sqlx(type_name = "x")]
            #[keyset(name = "newest", order = "created_at, id", unique = "id", crate = "p")]
            struct Ticket { id: i64, #[sqlx(default, rename = "createdAt")] created_at: i64 }
        });
        assert!(renamed.unwrap().contains("\"createdAt\""));

        let unknown = expanded(&parse_quote! {
            #[sqlx(rename_all = "camelCase")]
            #[keyset(name = "newest", order = "created_at, id", unique = "id", crate = "p")]
            struct Ticket { #[keyset(column = "id")] id: i64, created_at: i64 }
        });
        assert!(
            unknown
                .unwrap_err()
                .contains("`#[keyset(column = \"..\")]`")
        );
    }

    #[test]
    fn nine_columns_are_too_many() {
        let refused = expanded(&parse_quote! {
            #[keyset(name = "x", order = "a, b, c, d, e, f, g, h, i", unique = "i", crate = "p")]
            struct Row { a: i64 }
        });
        assert_eq!(refused.unwrap_err(), "an order has at most 8 columns");
    }
}
