//! One variant with everything said about it, checked as far as the variant alone can show.

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt;
use syn::{Attribute, Error, Field, Fields, Ident, Index, LitStr, Member, Result, Type};

use super::rules;
use crate::attr::{self, OnField, OnVariant};
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
    /// What becomes of each field when the document is read, in the order of the fields.
    pub(super) ways: Vec<Way<'a>>,
    /// The first field that says `default`.
    pub(super) default: Option<Span>,
}

/// A field and how it comes back.
pub(super) struct Way<'a> {
    pub(super) member: Member,
    pub(super) ty: &'a Type,
    pub(super) back: Back,
}

/// Where a field's value comes from when the document is read.
pub(super) enum Back {
    /// The extension member of this name.
    Ext(String),
    /// The same, or the default where there is none.
    ExtOrDefault(String),
    Violations,
    RetryAfter,
    Default,
    /// Nowhere: it was not sent.
    Stays,
}

impl<'a> Case<'a> {
    pub(super) fn new(
        path: TokenStream,
        name: &'a Ident,
        fields: &'a Fields,
        [attrs, on_enum]: [&[Attribute]; 2],
        on: OnVariant,
    ) -> Result<Self> {
        rules::of_variant(name, fields, [attrs, on_enum], &on)?;
        let code = on.code.as_ref().map_or_else(
            || names::snake_case(&name.unraw().to_string()),
            LitStr::value,
        );
        if on.delegate.is_none() && !names::is_code(&code) {
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
            ways: Vec::new(),
            default: None,
        };
        for (at, field) in fields.iter().enumerate() {
            let member = field
                .ident
                .clone()
                .map_or_else(|| Member::Unnamed(Index::from(at)), Member::Named);
            case.read_field(field, &member)?;
        }
        if let (Some(pointer), Some(_)) = (&case.on.pointer, &case.violations) {
            return Err(Error::new(
                pointer.span(),
                "`pointer` makes the only violation: leave it out where a field holds them",
            ));
        }
        Ok(case)
    }

    fn read_field(&mut self, field: &'a Field, member: &Member) -> Result<()> {
        let on = attr::on_field(&field.attrs)?;
        let ext = on.ext.as_ref().map(|(span, _)| *span);
        if let Some(span) = ext.or(on.violations).or(on.retry_after).or(on.default)
            && self.delegates()
        {
            return Err(Error::new(
                span,
                "`delegate` takes everything from the field, so nothing else can stand beside it",
            ));
        }
        if let Some(span) = on.default {
            if ext.is_none() && (on.violations.is_some() || on.retry_after.is_some()) {
                return Err(Error::new(
                    span,
                    "`default` is for a field that is not sent, or for an `ext` member that may be missing; \
                     violations may be none, and a wait that may be missing is an `Option<Duration>`",
                ));
            }
            self.default.get_or_insert(span);
        }
        let ext = self.read_ext(field, member, &on)?;
        if let Some(span) = on.violations
            && self.violations.replace(member.clone()).is_some()
        {
            return Err(Error::new(
                span,
                "one field of a variant can hold its violations",
            ));
        }
        if let Some(span) = on.retry_after
            && (self.retry_after.replace(member.clone()).is_some()
                || self.on.retry_after_ms.is_some())
        {
            return Err(Error::new(
                span,
                "one `retry_after` is enough: on the variant or on one field",
            ));
        }
        self.ways.push(Way {
            member: member.clone(),
            ty: &field.ty,
            back: match (ext, on.default) {
                (Some(name), None) => Back::Ext(name),
                (Some(name), Some(_)) => Back::ExtOrDefault(name),
                (None, Some(_)) => Back::Default,
                (None, None) if on.violations.is_some() => Back::Violations,
                (None, None) if on.retry_after.is_some() => Back::RetryAfter,
                (None, None) => Back::Stays,
            },
        });
        Ok(())
    }

    /// The name of the extension member that the field is sent as.
    fn read_ext(&mut self, field: &Field, member: &Member, on: &OnField) -> Result<Option<String>> {
        let Some((span, name)) = &on.ext else {
            return Ok(None);
        };
        let (span, name) = match (name, &field.ident) {
            (Some(name), _) => (name.span(), name.value()),
            (None, Some(ident)) => (ident.span(), ident.unraw().to_string()),
            (None, None) => {
                return Err(Error::new(
                    *span,
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
        self.ext.push((member.clone(), name.clone()));
        Ok(Some(name))
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
