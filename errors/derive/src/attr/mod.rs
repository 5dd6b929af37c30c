//! Reads `#[fault(..)]` into plain data, refusing what it does not understand with a message that says
//! what to write instead.

mod value;
mod variant;

use std::collections::HashSet;

use proc_macro2::Span;
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, ExprLit, Lit, LitStr, Result};

pub(crate) use self::variant::OnVariant;
use crate::names;

/// What stands on the type.
#[derive(Default)]
pub(crate) struct OnType {
    pub(crate) krate: Option<syn::Path>,
    pub(crate) type_base: Option<LitStr>,
    pub(crate) domain: Option<LitStr>,
    pub(crate) decode: Option<Span>,
    pub(crate) no_response: bool,
    pub(crate) no_status: bool,
    pub(crate) no_openapi: bool,
}

/// What stands on a field.
#[derive(Default)]
pub(crate) struct OnField {
    pub(crate) ext: Option<(Span, Option<LitStr>)>,
    pub(crate) violations: Option<Span>,
    pub(crate) retry_after: Option<Span>,
    pub(crate) default: Option<Span>,
}

const ON_TYPE: [&str; 7] = [
    "crate",
    "type_base",
    "domain",
    "decode",
    "no_response",
    "no_status",
    "no_openapi",
];
const ON_FIELD: [&str; 4] = ["ext", "violations", "retry_after", "default"];

/// Reads the attributes of an enum (no variant options) or of a struct (both).
pub(crate) fn on_type(attrs: &[Attribute], variant: Option<&mut OnVariant>) -> Result<OnType> {
    let mut on = OnType::default();
    let mut on_variant = variant;
    each(attrs, |meta, word| {
        match word {
            "crate" => on.krate = Some(meta.value()?.parse::<LitStr>()?.parse()?),
            "type_base" => on.type_base = Some(value::type_base(meta)?),
            "domain" => on.domain = Some(value::domain(meta)?),
            "decode" => on.decode = Some(meta.path.span()),
            "no_response" => on.no_response = true,
            "no_status" => on.no_status = true,
            "no_openapi" => on.no_openapi = true,
            _ => {
                return match on_variant.as_deref_mut() {
                    Some(on) => variant::read(on, meta, word),
                    None if variant::knows(word) => {
                        Err(meta.error(format!("`{word}` belongs on a variant, not on the enum")))
                    }
                    None => Err(unknown(meta, word, ON_TYPE, || known(&ON_TYPE))),
                };
            }
        }
        Ok(())
    })?;
    Ok(on)
}

/// Reads the attributes of a variant.
pub(crate) fn on_variant(attrs: &[Attribute]) -> Result<OnVariant> {
    let mut on = OnVariant::default();
    each(attrs, |meta, word| {
        if ON_TYPE.contains(&word) {
            return Err(meta.error(format!("`{word}` belongs on the enum, not on a variant")));
        }
        variant::read(&mut on, meta, word)
    })?;
    Ok(on)
}

/// Reads the attributes of a field.
pub(crate) fn on_field(attrs: &[Attribute]) -> Result<OnField> {
    let mut on = OnField::default();
    each(attrs, |meta, word| {
        let span = meta.path.span();
        match word {
            "ext" => {
                let name = if meta.input.peek(syn::Token![=]) {
                    Some(meta.value()?.parse()?)
                } else {
                    None
                };
                on.ext = Some((span, name));
            }
            "violations" => on.violations = Some(span),
            "retry_after" => on.retry_after = Some(span),
            "default" => on.default = Some(span),
            _ => return Err(unknown(meta, word, ON_FIELD, || known(&ON_FIELD))),
        }
        Ok(())
    })?;
    Ok(on)
}

/// The doc comment as text.
pub(crate) fn docs(attrs: &[Attribute]) -> String {
    let mut lines = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("doc")) {
        if let syn::Meta::NameValue(pair) = &attr.meta
            && let Expr::Lit(ExprLit {
                lit: Lit::Str(line),
                ..
            }) = &pair.value
        {
            let line = line.value();
            lines.push(
                line.strip_prefix(' ')
                    .unwrap_or(&line)
                    .trim_end()
                    .to_owned(),
            );
        }
    }
    lines.join("\n").trim().to_owned()
}

fn each(
    attrs: &[Attribute],
    mut read: impl FnMut(&ParseNestedMeta<'_>, &str) -> Result<()>,
) -> Result<()> {
    let mut said = HashSet::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("fault")) {
        attr.parse_nested_meta(|meta| {
            let word = meta
                .path
                .get_ident()
                .map(ToString::to_string)
                .unwrap_or_default();
            if word != "header" && !said.insert(word.clone()) {
                return Err(meta.error(format!("`{word}` is given already")));
            }
            read(&meta, &word)
        })?;
    }
    Ok(())
}

fn unknown<'a>(
    meta: &ParseNestedMeta<'_>,
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
    list: impl FnOnce() -> String,
) -> Error {
    meta.error(match names::nearest(word, known) {
        Some(near) => format!("`{word}` means nothing here; did you mean `{near}`?"),
        None => format!("`{word}` means nothing here; {}", list()),
    })
}

fn known(words: &[&str]) -> String {
    format!("known are: {}", words.join(", "))
}
