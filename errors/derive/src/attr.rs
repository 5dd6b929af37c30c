//! Reads `#[fault(..)]` into plain data, refusing what it does not understand with a message that says
//! what to write instead.

use proc_macro2::Span;
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, ExprLit, ExprPath, Ident, Lit, LitInt, LitStr, Result};

use crate::names;

/// What stands on the type.
#[derive(Default)]
pub(crate) struct OnType {
    pub(crate) krate: Option<syn::Path>,
    pub(crate) type_base: Option<LitStr>,
    pub(crate) no_response: bool,
}

/// What stands on a variant.
#[derive(Default)]
pub(crate) struct OnVariant {
    pub(crate) category: Option<(Ident, &'static str, u16)>,
    pub(crate) delegate: Option<Span>,
    pub(crate) code: Option<LitStr>,
    pub(crate) public: Option<Span>,
    pub(crate) title: Option<LitStr>,
    pub(crate) status: Option<u16>,
    pub(crate) retry: Option<&'static str>,
    pub(crate) retry_after_ms: Option<u64>,
    pub(crate) outcome: Option<&'static str>,
    pub(crate) pointer: Option<LitStr>,
    pub(crate) constraint: Option<LitStr>,
    /// Any of the above but `delegate`, to refuse them beside it.
    pub(crate) other: Option<Span>,
}

/// What stands on a field.
#[derive(Default)]
pub(crate) struct OnField {
    pub(crate) ext: Option<(Span, Option<LitStr>)>,
    pub(crate) violations: Option<Span>,
    pub(crate) retry_after: Option<Span>,
}

const ON_TYPE: [&str; 3] = ["crate", "type_base", "no_response"];
const ON_VARIANT: [&str; 10] = [
    "delegate",
    "code",
    "public",
    "title",
    "status",
    "retry",
    "retry_after",
    "outcome",
    "pointer",
    "constraint",
];

/// Reads the attributes of an enum (no variant options) or of a struct (both).
pub(crate) fn on_type(attrs: &[Attribute], variant: Option<&mut OnVariant>) -> Result<OnType> {
    let mut on = OnType::default();
    let mut variant = variant;
    each(attrs, |meta, word| {
        match word {
            "crate" => on.krate = Some(meta.value()?.parse::<LitStr>()?.parse()?),
            "type_base" => on.type_base = Some(meta.value()?.parse()?),
            "no_response" => on.no_response = true,
            _ => {
                return match variant.as_deref_mut() {
                    Some(variant) => variant_word(variant, meta, word),
                    None if is_variant_word(word) => {
                        Err(meta.error(format!("`{word}` belongs on a variant, not on the enum")))
                    }
                    None => Err(unknown(meta, word, ON_TYPE)),
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
        variant_word(&mut on, meta, word)
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
            _ => return Err(unknown(meta, word, ["ext", "violations", "retry_after"])),
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

/// Whether thiserror was told to print the source in this variant's place. What stands on the enum holds for
/// the variants that have no `#[error(..)]` of their own.
pub(crate) fn prints_source(variant: &[Attribute], on_enum: &[Attribute]) -> bool {
    if variant.iter().any(|attr| attr.path().is_ident("error")) {
        is_transparent(variant)
    } else {
        is_transparent(on_enum)
    }
}

fn is_transparent(attrs: &[Attribute]) -> bool {
    attrs
        .iter()
        .filter(|attr| attr.path().is_ident("error"))
        .any(|attr| {
            attr.parse_args::<Ident>()
                .is_ok_and(|word| word == "transparent")
        })
}

fn each(
    attrs: &[Attribute],
    mut read: impl FnMut(&ParseNestedMeta<'_>, &str) -> Result<()>,
) -> Result<()> {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("fault")) {
        attr.parse_nested_meta(|meta| {
            let word = meta
                .path
                .get_ident()
                .map(ToString::to_string)
                .unwrap_or_default();
            read(&meta, &word)
        })?;
    }
    Ok(())
}

fn variant_word(on: &mut OnVariant, meta: &ParseNestedMeta<'_>, word: &str) -> Result<()> {
    let span = meta.path.span();
    if word == "delegate" {
        on.delegate = Some(span);
        return Ok(());
    }
    on.other.get_or_insert(span);
    match word {
        "code" => on.code = Some(code(meta)?),
        "public" => on.public = Some(span),
        "title" => on.title = Some(meta.value()?.parse()?),
        "status" => {
            let status = meta.value()?.parse::<LitInt>()?;
            on.status = Some(status.base10_parse()?);
        }
        "retry" => on.retry = Some(choice(meta, "retry", &names::RETRIES)?),
        "retry_after" => {
            let text: LitStr = meta.value()?.parse()?;
            let wait = names::milliseconds(&text.value()).ok_or_else(|| {
                Error::new(
                    text.span(),
                    "write a whole number and a unit: \"250ms\", \"2s\", \"5m\" or \"1h\"",
                )
            })?;
            on.retry_after_ms = Some(wait);
        }
        "outcome" => on.outcome = Some(choice(meta, "outcome", &names::OUTCOMES)?),
        "pointer" => {
            let pointer: LitStr = meta.value()?.parse()?;
            if !pointer.value().starts_with('/') {
                return Err(Error::new(
                    pointer.span(),
                    "a JSON pointer starts with `/`, such as \"/email\"",
                ));
            }
            on.pointer = Some(pointer);
        }
        "constraint" => on.constraint = Some(meta.value()?.parse()?),
        _ => {
            let found = names::CATEGORIES.iter().find(|(name, ..)| *name == word);
            let Some((_, variant, class)) = found else {
                let known = names::CATEGORIES
                    .iter()
                    .map(|(name, ..)| *name)
                    .chain(ON_VARIANT);
                return Err(unknown(meta, word, known));
            };
            if let Some((before, ..)) = &on.category {
                return Err(meta.error(format!(
                    "a variant has one category, and this one is `{before}` already"
                )));
            }
            on.category = Some((Ident::new(word, span), variant, *class));
        }
    }
    Ok(())
}

fn code(meta: &ParseNestedMeta<'_>) -> Result<LitStr> {
    let code: LitStr = meta.value()?.parse()?;
    if is_code(&code.value()) {
        Ok(code)
    } else {
        Err(Error::new(
            code.span(),
            "a code is at most 63 of a-z 0-9 _, starting with a letter: clients match on it",
        ))
    }
}

/// What clients can match on.
pub(crate) fn is_code(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// One of a few words, bare or in quotes.
fn choice(
    meta: &ParseNestedMeta<'_>,
    option: &str,
    known: &[(&'static str, &'static str)],
) -> Result<&'static str> {
    let value: Expr = meta.value()?.parse()?;
    let word = match &value {
        Expr::Path(ExprPath { path, .. }) => path.get_ident().map(ToString::to_string),
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => Some(text.value()),
        _ => None,
    };
    let found = word.and_then(|word| known.iter().find(|(name, _)| *name == word));
    found.map(|(_, variant)| *variant).ok_or_else(|| {
        let words: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        Error::new(
            value.span(),
            format!("`{option}` is one of: {}", words.join(", ")),
        )
    })
}

fn is_variant_word(word: &str) -> bool {
    ON_VARIANT.contains(&word) || names::CATEGORIES.iter().any(|(name, ..)| *name == word)
}

fn unknown<'a>(
    meta: &ParseNestedMeta<'_>,
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Error {
    let known: Vec<_> = known.into_iter().collect();
    meta.error(match names::nearest(word, known.iter().copied()) {
        Some(near) => format!("`{word}` means nothing here; did you mean `{near}`?"),
        None => format!(
            "`{word}` means nothing here; known are: {}",
            known.join(", ")
        ),
    })
}
