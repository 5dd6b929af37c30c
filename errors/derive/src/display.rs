//! What thiserror was told to print: enough of it to know whether a variant's text is another error's.
//!
//! A format string is read as thiserror reads it, and doubt goes against sending: an argument that mentions
//! the source at all counts as printing it.

use proc_macro2::{TokenStream, TokenTree};
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Fields, Ident, LitStr, Token};

/// How the source gets into the text of a variant, as it is written there. What stands on the enum holds for
/// the variants that have no `#[error(..)]` of their own.
pub(crate) fn prints_source(
    variant: &[Attribute],
    on_enum: &[Attribute],
    fields: &Fields,
) -> Option<String> {
    let own = |attr: &&Attribute| attr.path().is_ident("error");
    let mut attrs = variant.iter().filter(own).peekable();
    match attrs.peek() {
        Some(_) => attrs.find_map(|attr| printed(attr, fields)),
        None => on_enum
            .iter()
            .filter(own)
            .find_map(|attr| printed(attr, fields)),
    }
}

fn printed(attr: &Attribute, fields: &Fields) -> Option<String> {
    if attr
        .parse_args::<Ident>()
        .is_ok_and(|word| word == "transparent")
    {
        return Some("#[error(transparent)]".to_owned());
    }
    let mut sources = sources(fields);
    if sources.is_empty() {
        return None;
    }
    let Ok((format, args)) = attr.parse_args_with(format_and_args) else {
        // thiserror's other form, `fmt = path`: a function that is given every field.
        return Some("#[error(fmt = ..)]".to_owned());
    };
    // The whole holds the source.
    sources.push("self".to_owned());
    let named = named_args(args.clone());
    let of_source = |name: &String| sources.contains(name) && !named.contains(name);
    if let Some(name) = placeholders(&format).into_iter().find(of_source) {
        return Some(format!("{{{name}}}"));
    }
    sources
        .into_iter()
        .find(|source| mentions(args.clone(), source))
        .map(|source| match source.as_str() {
            "self" => source,
            _ => format!(".{source}"),
        })
}

fn format_and_args(input: ParseStream<'_>) -> syn::Result<(String, TokenStream)> {
    let format: LitStr = input.parse()?;
    input.parse::<Option<Token![,]>>()?;
    Ok((format.value(), input.parse()?))
}

/// The fields thiserror takes for a source, by name or by place.
fn sources(fields: &Fields) -> Vec<String> {
    fields
        .iter()
        .enumerate()
        .filter(|(_, field)| {
            let marked = field
                .attrs
                .iter()
                .any(|attr| attr.path().is_ident("source") || attr.path().is_ident("from"));
            marked || field.ident.as_ref().is_some_and(|name| name == "source")
        })
        .map(|(at, field)| match &field.ident {
            Some(name) => syn::ext::IdentExt::unraw(name).to_string(),
            None => at.to_string(),
        })
        .collect()
}

/// The names and numbers in the braces of a format string.
fn placeholders(format: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = format;
    while let Some((_, after)) = rest.split_once('{') {
        if let Some(after) = after.strip_prefix('{') {
            rest = after;
            continue;
        }
        let (inside, after) = after.split_once('}').unwrap_or((after, ""));
        let name = inside.split(':').next().unwrap_or_default().trim();
        found.push(name.strip_prefix("r#").unwrap_or(name).to_owned());
        rest = after;
    }
    found
}

/// The arguments that have a name of their own, which hides a field of that name.
fn named_args(args: TokenStream) -> Vec<String> {
    let parse = |input: ParseStream<'_>| {
        let mut names = Vec::new();
        while !input.is_empty() {
            if input.peek(Ident) && input.peek2(Token![=]) && !input.peek2(Token![==]) {
                names.push(input.parse::<Ident>()?.to_string());
            }
            while !input.is_empty() && !input.peek(Token![,]) {
                input.parse::<TokenTree>()?;
            }
            input.parse::<Option<Token![,]>>()?;
        }
        Ok(names)
    };
    parse.parse2(args).unwrap_or_default()
}

/// Whether the arguments mention this field at all: as `.source` or `.0`, or by the name thiserror binds it to.
fn mentions(args: TokenStream, member: &str) -> bool {
    let mut after_dot = false;
    let mut tokens = args.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let here = match &token {
            TokenTree::Group(group) => mentions(group.stream(), member),
            TokenTree::Ident(name) => {
                let name = name.to_string();
                let names_an_argument =
                    matches!(tokens.peek(), Some(TokenTree::Punct(next)) if next.as_char() == '=');
                let name = name.strip_prefix("r#").unwrap_or(&name);
                !names_an_argument && (name == member || name.strip_prefix('_') == Some(member))
            }
            // `.0.1` is one dot and one number.
            TokenTree::Literal(number) => {
                after_dot && number.to_string().split('.').next() == Some(member)
            }
            TokenTree::Punct(_) => false,
        };
        if here {
            return true;
        }
        after_dot = matches!(&token, TokenTree::Punct(dot) if dot.as_char() == '.');
    }
    false
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn found(variant: &syn::Variant) -> Option<String> {
        prints_source(&variant.attrs, &[], &variant.fields)
    }

    #[test]
    fn a_text_that_prints_its_source_is_found() {
        let variants: [syn::Variant; 20] = [
            parse_quote!(
                #[error(transparent)]
                V(
                    #[from]
                    E
                )
            ),
            parse_quote!(
                #[error("{0}")]
                V(
                    #[from]
                    E
                )
            ),
            parse_quote!(
                #[error("{0:?}")]
                V(
                    #[source]
                    E
                )
            ),
            parse_quote!(
                #[error("a {1:>8} b")]
                V(
                    u8,
                    #[source]
                    E
                )
            ),
            parse_quote!(
                #[error("{source}")]
                V { source: E }
            ),
            parse_quote!(
                #[error("{{}} {cause:#}")]
                V {
                    #[source]
                    cause: E
                }
            ),
            parse_quote!(
                #[error("{r#move}")]
                V {
                    #[source]
                    r#move: E
                }
            ),
            parse_quote!(
                #[error("{}", .0)]
                V(
                    #[from]
                    E
                )
            ),
            parse_quote!(
                #[error("{}", .0.to_string())]
                V(
                    #[from]
                    E
                )
            ),
            parse_quote!(
                #[error("{}", .0.0)]
                V(
                    #[from]
                    E
                )
            ),
            parse_quote!(
                #[error("{}", short(.source))]
                V { source: E }
            ),
            parse_quote!(
                #[error("{x}", x = .source.message())]
                V { source: E }
            ),
            parse_quote!(
                #[error("{source }")]
                V { source: E }
            ),
            parse_quote!(
                #[error("{}", _0)]
                V(
                    #[from]
                    E
                )
            ),
            parse_quote!(
                #[error("{}", source.to_string())]
                V { source: E }
            ),
            // A function is given every field.
            parse_quote!(
                #[error(fmt = ::core::fmt::Display::fmt)]
                V(
                    #[from]
                    E
                )
            ),
            parse_quote!(
                #[error(fmt = shown)]
                V { id: u64, source: E }
            ),
            parse_quote!(
                #[error("{self:?}")]
                V { source: E }
            ),
            parse_quote!(
                #[error("{}", describe(self))]
                V { source: E }
            ),
            parse_quote!(
                #[error("{:?}", self)]
                V(
                    #[source]
                    E
                )
            ),
        ];
        for variant in &variants {
            assert!(found(variant).is_some(), "{}", quote::quote!(#variant));
        }
    }

    #[test]
    fn a_text_of_its_own_is_left_alone() {
        let variants: [syn::Variant; 10] = [
            parse_quote!(
                #[error("order {0}")]
                V(
                    u64,
                    #[source]
                    E
                )
            ),
            parse_quote!(
                #[error("{{0}}")]
                V(
                    #[source]
                    E
                )
            ),
            parse_quote!(
                #[error("{0}")]
                V(String)
            ),
            parse_quote!(
                #[error("order {id}")]
                V { id: u64, source: E }
            ),
            parse_quote!(
                #[error("{source}", source = "the provider")]
                V { source: E }
            ),
            parse_quote!(
                #[error("{}", .id.to_string())]
                V { id: u64, source: E }
            ),
            parse_quote!(
                #[error("{:.1}", .1)]
                V(
                    #[source]
                    E,
                    f64
                )
            ),
            parse_quote!(
                #[error("source")]
                V { source: E }
            ),
            parse_quote!(
                #[error(fmt = shown)]
                V { id: u64 }
            ),
            parse_quote!(
                #[error("{self:?}")]
                V(u64)
            ),
        ];
        for variant in &variants {
            assert_eq!(found(variant), None, "{}", quote::quote!(#variant));
        }
    }

    #[test]
    fn what_stands_on_the_enum_holds_where_a_variant_is_silent() {
        let silent: syn::Variant = parse_quote!(V(
            #[from]
            E
        ));
        let spoken: syn::Variant = parse_quote!(
            #[error("x")]
            V(
                #[from]
                E
            )
        );
        let on_enum: [Attribute; 1] = [parse_quote!(#[error("{0}")])];
        assert!(prints_source(&silent.attrs, &on_enum, &silent.fields).is_some());
        assert!(prints_source(&spoken.attrs, &on_enum, &spoken.fields).is_none());
    }
}
