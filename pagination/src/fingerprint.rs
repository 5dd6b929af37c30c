//! What a cursor is bound to: the order it was made for and whatever the list was narrowed by.
//!
//! A cursor of one tenant, filter or endpoint must not be taken by another: it would return a wrong page
//! with a straight face. So each cursor carries 8 bytes of SHA-256 over the order's definition and the
//! caller's binding. This is a guard against mix-ups, not authorization: the query itself must still
//! select only what the caller may see.

use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};

use crate::keyset::{Direction, KeysetDef, Nulls};

/// The first 8 bytes of SHA-256 over an order and a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub(crate) [u8; 8]);

impl Fingerprint {
    /// Of an order and of everything that narrows the list: endpoint, tenant, filter.
    ///
    /// Hash the *meaning*, not the spelling: `status=a,b` and `status=b,a` are one filter, so sort and
    /// normalise first. Leave out the page size and the cursor: both may change between pages.
    ///
    /// Numbers fed by `Hash` are taken in a fixed width and byte order, and `Hash` of std's types is
    /// prefix-free, so `("ab", "c")` and `("a", "bc")` differ. A type whose `Hash` changes makes old
    /// cursors foreign ([`CursorError::WrongQuery`](crate::CursorError::WrongQuery)), never wrong.
    ///
    /// One thing is out of reach: slices, vectors and arrays of integers wider than a byte hand over their
    /// memory as it is, so instances that differ in byte order (or, for `usize`, in width) do not take each
    /// other's cursors. If yours do, give such lists as text.
    #[must_use]
    pub fn of(order: &KeysetDef, binding: impl Hash) -> Self {
        let mut hasher = Fixed(Sha256::new());
        hasher.write(b"mainstay.cursor.1");
        order.name().hash(&mut hasher);
        for column in order.columns() {
            column.name().hash(&mut hasher);
            column.kind().as_str().hash(&mut hasher);
            hasher.write_u8(match column.direction() {
                Direction::Asc => b'a',
                Direction::Desc => b'd',
            });
            hasher.write_u8(match column.nulls() {
                None => b'-',
                Some(Nulls::First) => b'f',
                Some(Nulls::Last) => b'l',
            });
        }
        // Ends the columns: no column name starts with this byte.
        hasher.write_u8(0xfe);
        binding.hash(&mut hasher);
        let digest: [u8; 32] = hasher.0.finalize().into();
        let (head, _) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
        Self(*head)
    }
}

/// Feeds SHA-256 with the same bytes on every platform.
struct Fixed(Sha256);

macro_rules! little_endian {
    ($($method:ident: $int:ty as $wide:ty),* $(,)?) => {$(
        fn $method(&mut self, value: $int) {
            self.0.update((value as $wide).to_le_bytes());
        }
    )*};
}

impl Hasher for Fixed {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    little_endian! {
        write_u16: u16 as u16, write_u32: u32 as u32, write_u64: u64 as u64, write_u128: u128 as u128,
        write_i16: i16 as i16, write_i32: i32 as i32, write_i64: i64 as i64, write_i128: i128 as i128,
        write_usize: usize as u64, write_isize: isize as i64,
    }

    fn finish(&self) -> u64 {
        0 // never asked for: the digest is taken from the field
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Column;

    const A: KeysetDef = KeysetDef::new("a").unique_asc(Column::i64("id").not_null());

    #[test]
    fn the_order_and_every_part_of_the_binding_count() {
        let of = |order: KeysetDef, tenant: &str, currency: Option<&str>| {
            Fingerprint::of(&order, (tenant, currency))
        };
        let base = of(A, "acme", None);
        assert_eq!(base, of(A, "acme", None));
        let others = [
            of(A, "globex", None),
            of(A, "acme", Some("EUR")),
            of(A, "acme", Some("")),
            of(
                KeysetDef::new("b").unique_asc(Column::i64("id").not_null()),
                "acme",
                None,
            ),
            of(
                KeysetDef::new("a").unique_desc(Column::i64("id").not_null()),
                "acme",
                None,
            ),
            of(
                KeysetDef::new("a").unique_asc(Column::uuid("id").not_null()),
                "acme",
                None,
            ),
            of(
                KeysetDef::new("a")
                    .asc(Column::i64("n").nulls_last())
                    .unique_asc(Column::i64("id").not_null()),
                "acme",
                None,
            ),
        ];
        for other in others {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(
            Fingerprint::of(&A, ("ab", "c")),
            Fingerprint::of(&A, ("a", "bc"))
        );
        assert_ne!(
            Fingerprint::of(&A, ("", "a")),
            Fingerprint::of(&A, ("a", ""))
        );
    }

    #[test]
    fn its_bytes_are_fixed() {
        assert_eq!(
            Fingerprint::of(&A, ("acme", Some("EUR"), 7_usize)).0,
            GOLDEN
        );
    }

    /// SHA-256, computed outside this program, of `mainstay.cursor.1`, `a\xff`, `id\xff`, `i64\xff`, `a-`, `\xfe`,
    /// `acme\xff`, 1 and `EUR\xff`, 7 (numbers as 8 bytes, little endian).
    const GOLDEN: [u8; 8] = [17, 29, 129, 210, 77, 143, 118, 54];
}
