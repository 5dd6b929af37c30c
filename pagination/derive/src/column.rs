//! `#[keyset(..)]` on a field: which column it is.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, Field, Ident, LitStr, Result, Type};

use crate::attr::once;

/// The constructors of `Column`.
const KINDS: [&str; 12] = [
    "bool",
    "i64",
    "u64",
    "f64",
    "decimal",
    "text",
    "bytes",
    "uuid",
    "timestamptz",
    "timestamp",
    "date",
    "time",
];

/// A field that may stand in an order.
pub(crate) struct KeyField<'f> {
    pub(crate) ident: &'f Ident,
    pub(crate) ty: &'f Type,
    column: Option<LitStr>,
    kind: Option<Ident>,
    joined: bool,
    /// The type has `#[sqlx(rename_all = "..")]`, so that the column is not called like the field.
    renamed: bool,
}

impl<'f> KeyField<'f> {
    /// The fields that have names.
    pub(crate) fn read(field: &'f Field, renamed: bool) -> Result<Option<Self>> {
        let Some(ident) = &field.ident else {
            return Ok(None);
        };
        let (mut column, mut kind, mut joined) = (None, None, false);
        for attr in &field.attrs {
            if attr.path().is_ident("keyset") {
                attr.parse_nested_meta(|meta| {
                    if meta.path.is_ident("column") {
                        once(&mut column, &meta)
                    } else if meta.path.is_ident("kind") {
                        let known: Ident = meta.value()?.parse()?;
                        if !KINDS.contains(&known.to_string().as_str()) {
                            let all = KINDS.join("`, `");
                            return Err(Error::new(
                                known.span(),
                                format!("no kind of column: write one of `{all}`"),
                            ));
                        }
                        kind = Some(known);
                        Ok(())
                    } else if meta.path.is_ident("joined") {
                        joined = true;
                        Ok(())
                    } else {
                        Err(meta.error("not a word of a field: write `column`, `kind` or `joined`"))
                    }
                })?;
            }
        }
        let column = column.or_else(|| sqlx_rename(field));
        Ok(Some(Self {
            ident,
            ty: &field.ty,
            column,
            kind,
            joined,
            renamed,
        }))
    }

    /// Its name, without the mark of a raw identifier.
    pub(crate) fn name(&self) -> String {
        let name = self.ident.to_string();
        name.strip_prefix("r#").map(str::to_owned).unwrap_or(name)
    }

    /// The column's name in the query's result.
    pub(crate) fn column(&self) -> Result<String> {
        match &self.column {
            Some(column) => Ok(column.value()),
            None if self.renamed => Err(Error::new(
                self.ident.span(),
                "`rename_all` gives this column another name: say it with `#[keyset(column = \"..\")]`",
            )),
            None => Ok(self.name()),
        }
    }

    pub(crate) fn is_option(&self) -> bool {
        let Type::Path(path) = self.ty else {
            return false;
        };
        path.path
            .segments
            .last()
            .is_some_and(|last| last.ident == "Option")
    }

    /// `Column::..("name")`, about whose NULLs nothing is said yet.
    pub(crate) fn declared(&self, krate: &TokenStream, name: &str) -> TokenStream {
        let ty = self.ty;
        let column = match &self.kind {
            Some(kind) => quote!(#krate::Column::#kind(#name)),
            None => quote_spanned!(ty.span()=> #krate::Column::of::<#ty>(#name)),
        };
        if self.joined {
            quote!(#column.joined())
        } else {
            column
        }
    }

    /// The field's value as a key.
    pub(crate) fn key(&self, krate: &TokenStream) -> TokenStream {
        let (ident, ty) = (self.ident, self.ty);
        let key = quote_spanned!(ty.span()=> #krate::KeyValue::to_key(&self.#ident));
        match &self.kind {
            Some(kind) => {
                let variant = variant(kind);
                quote!(#krate::Key::of_kind(#key, #krate::KeyKind::#variant))
            }
            None => key,
        }
    }
}

/// `Timestamptz` for `timestamptz`.
fn variant(kind: &Ident) -> Ident {
    let name = kind.to_string();
    let (first, rest) = name.split_at(name.len().min(1));
    Ident::new(
        &format!("{}{rest}", first.to_ascii_uppercase()),
        kind.span(),
    )
}

/// `#[sqlx(rename = "..")]`; what else stands there is sqlx' business.
fn sqlx_rename(field: &Field) -> Option<LitStr> {
    let mut found = None;
    for attr in field
        .attrs
        .iter()
        .filter(|attr| attr.path().is_ident("sqlx"))
    {
        // An attribute that cannot be read is reported by sqlx.
        let _ = attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("rename") {
                found = Some(meta.value()?.parse()?);
            } else if meta.input.peek(syn::Token![=]) {
                let _: syn::Expr = meta.value()?.parse()?;
            }
            Ok(())
        });
    }
    found
}
