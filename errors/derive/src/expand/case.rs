//! One variant with everything said about it, checked as far as the variant alone can show.

use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::{Attribute, Error, Fields, Ident, Index, LitStr, Member, Result};

use crate::attr::{self, OnVariant};
use crate::names;

/// A variant, or the one shape of a struct.
pub(super) struct Case<'a> {
    /// What `match self` tests: `Self::Variant` or `Self`.
    pub(super) path: TokenStream,
    pub(super) name: &'a Ident,
    pub(super) fields: &'a Fields,
    pub(super) on: OnVariant,
    pub(super) code: String,
    pub(super) docs: String,
    pub(super) ext: Vec<(Member, String)>,
    pub(super) violations: Option<Member>,
    pub(super) retry_after: Option<Member>,
}

impl<'a> Case<'a> {
    pub(super) fn new(
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

    pub(super) fn delegates(&self) -> bool {
        self.on.delegate.is_some()
    }

    /// The one field of a delegate.
    pub(super) fn first(&self) -> Member {
        let named = self
            .fields
            .iter()
            .next()
            .and_then(|field| field.ident.clone());
        named.map_or_else(|| Member::Unnamed(Index::from(0)), Member::Named)
    }
}
