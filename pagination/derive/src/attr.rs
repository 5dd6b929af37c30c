//! `#[keyset(..)]` on a type: the orders it has.

use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Attribute, Error, LitStr, Path, Result};

/// What the type says.
#[derive(Default)]
pub(crate) struct OnType {
    pub(crate) orders: Vec<Declared>,
    pub(crate) path: Option<Path>,
}

/// One order, as it was written.
pub(crate) struct Declared {
    pub(crate) name: LitStr,
    pub(crate) order: LitStr,
    pub(crate) unique: LitStr,
}

pub(crate) fn on_type(attrs: &[Attribute]) -> Result<OnType> {
    let mut found = OnType::default();
    // The unique column of all orders that name none.
    let mut common: Option<LitStr> = None;
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("keyset")) {
        let (mut name, mut order, mut unique, mut path) = (None, None, None, None);
        attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                once(&mut name, &meta)
            } else if meta.path.is_ident("order") {
                once(&mut order, &meta)
            } else if meta.path.is_ident("unique") {
                once(&mut unique, &meta)
            } else if meta.path.is_ident("crate") {
                once(&mut path, &meta)
            } else {
                Err(meta.error("not a word of an order: write `name`, `order` and `unique`"))
            }
        })?;
        if let Some(path) = path {
            found.path = Some(path.parse()?);
        }
        common = common.or_else(|| unique.clone());
        if name.is_none() && order.is_none() {
            continue;
        }
        let missing = |word: &str, example: &str| {
            let message = format!("an order needs its {word}: write `{example}`");
            Error::new(attr.span(), message)
        };
        found.orders.push(Declared {
            name: name.ok_or_else(|| missing("name", "name = \"tickets.newest\""))?,
            order: order.ok_or_else(|| missing("order", "order = \"created_at desc, id desc\""))?,
            unique: unique
                .or_else(|| common.clone())
                .ok_or_else(|| missing("unique column", "unique = \"id\""))?,
        });
    }
    Ok(found)
}

pub(crate) fn once(slot: &mut Option<LitStr>, meta: &ParseNestedMeta<'_>) -> Result<()> {
    let value = meta.value()?.parse()?;
    if slot.replace(value).is_some() {
        return Err(meta.error("given twice"));
    }
    Ok(())
}
