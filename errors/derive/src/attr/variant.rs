//! The words on a variant.

use proc_macro2::Span;
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Ident, LitStr, Result};

use super::{unknown, value};
use crate::names;

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
    pub(crate) type_uri: Option<LitStr>,
    /// Where it was written, name, value.
    pub(crate) headers: Vec<(LitStr, String, String)>,
    pub(crate) pointer: Option<LitStr>,
    pub(crate) constraint: Option<LitStr>,
    /// Any of the above but `delegate`, to refuse them beside it.
    pub(crate) other: Option<Span>,
}

const WORDS: [&str; 12] = [
    "delegate",
    "code",
    "public",
    "title",
    "status",
    "retry",
    "retry_after",
    "outcome",
    "type",
    "header",
    "pointer",
    "constraint",
];

pub(super) fn read(on: &mut OnVariant, meta: &ParseNestedMeta<'_>, word: &str) -> Result<()> {
    let span = meta.path.span();
    if word == "delegate" {
        on.delegate = Some(span);
        return Ok(());
    }
    on.other.get_or_insert(span);
    match word {
        "code" => on.code = Some(value::code(meta)?),
        "public" => on.public = Some(span),
        "title" => on.title = Some(meta.value()?.parse()?),
        "status" => on.status = Some(value::status(meta)?),
        "retry" => on.retry = Some(value::choice(meta, "retry", &names::RETRIES)?),
        "retry_after" => on.retry_after_ms = Some(value::wait_ms(meta)?),
        "outcome" => on.outcome = Some(value::choice(meta, "outcome", &names::OUTCOMES)?),
        "type" => on.type_uri = Some(value::type_uri(meta)?),
        "header" => on.headers.push(value::header(meta)?),
        "pointer" => on.pointer = Some(value::pointer(meta)?),
        "constraint" => on.constraint = Some(meta.value()?.parse()?),
        _ => {
            let found = names::CATEGORIES.iter().find(|(name, ..)| *name == word);
            let Some((_, variant, class)) = found else {
                return Err(unknown(meta, word, words(), || {
                    let categories: Vec<_> = categories().collect();
                    format!(
                        "a category is one of: {}; the other words are: {}",
                        categories.join(", "),
                        WORDS.join(", ")
                    )
                }));
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

/// Whether a variant may say this word.
pub(super) fn knows(word: &str) -> bool {
    words().any(|known| known == word)
}

fn words() -> impl Iterator<Item = &'static str> {
    categories().chain(WORDS)
}

fn categories() -> impl Iterator<Item = &'static str> {
    names::CATEGORIES.iter().map(|(name, ..)| *name)
}
