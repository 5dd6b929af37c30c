//! [`Violations`](crate::Violations) from the reports of others, without the values they hold.
//!
//! Such a report was made to be read where it was made: it repeats the rejected value, or may, in a parameter or in
//! a text that somebody formatted. A value that was rejected may be a password, and a violation goes to the client,
//! into the log and into a recorded response. So a conversion takes what cannot hold one, and the rest only through
//! a method by whose name the caller declares it public.

#[cfg(feature = "garde")]
mod garde;
#[cfg(feature = "validator")]
mod validator;

use crate::violation::segment;

/// The most of one name in a pointer, in bytes. Names of fields are short; a key of a map is the client's own text.
const NAME_BYTES_MAX: usize = 64;

/// One more segment of a pointer: a field, or the key of a map, cut like the names that `Json` repeats.
fn named(name: &str) -> String {
    let end = name.floor_char_boundary(NAME_BYTES_MAX);
    segment(name.get(..end).unwrap_or_default())
}
