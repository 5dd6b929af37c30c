//! `#[derive(Keyset)]` for [`mainstay-pagination`](https://docs.rs/mainstay-pagination), which re-exports it and
//! explains it; this crate is not used on its own.

mod attr;
mod column;
mod expand;
mod locate;
mod order;

use proc_macro::TokenStream;

/// Declares the orders of a row type, so that each is checked against the row's own fields.
///
/// ```ignore
/// #[derive(sqlx::FromRow, mainstay_pagination::Keyset)]
/// #[keyset(name = "tickets.newest", order = "created_at desc, id desc", unique = "id")]
/// #[keyset(name = "tickets.by_priority", order = "priority desc nulls last, title, id")]
/// struct Ticket {
///     id: Uuid,
///     priority: Option<i32>,
///     created_at: UnixMicros,
///     title: String,
/// }
///
/// Ticket::NEWEST.select(..);           // the order, a `KeysetDef`
/// ticket.by_priority_keys();           // the row's place in it, `Keys`
/// <Ticket as Keyset>::ORDER;           // the first order is the type's own
/// ```
///
/// # On the type
///
/// One `#[keyset(..)]` an order:
///
/// | word | meaning |
/// |---|---|
/// | `name = "tickets.newest"` | the order's name, part of every cursor's fingerprint. The constant and the method are called after its last part: `NEWEST`, `newest_keys` |
/// | `order = "priority desc nulls last, id"` | fields, each with `asc` (which may be left out) or `desc`. An `Option` says `nulls first` or `nulls last`; another field must not |
/// | `unique = "id"` | the order's last field, unique in the list and never NULL: it breaks every tie. Orders that say none have that of the orders above them |
/// | `crate = "mainstay::pagination"` | the path of `mainstay-pagination`. Found in `Cargo.toml` by itself: `mainstay-pagination` if you depend on it, else `mainstay` |
///
/// # On a field
///
/// | `#[keyset(..)]` | meaning |
/// |---|---|
/// | `column = "title_key"` | the column's name in the query's result, if it is not the field's; `#[sqlx(rename = "..")]` is understood, too |
/// | `joined` | the column comes from another table than the unique one, see `Column::joined` |
/// | `kind = timestamptz` | what the column holds, where the field's type does not say it: any constructor of `Column` |
///
/// What a field's type says is in the trait `KeyValue`; a type of one's own implements it, or has a `kind`.
#[proc_macro_derive(Keyset, attributes(keyset))]
pub fn derive_keyset(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    expand::keyset(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
