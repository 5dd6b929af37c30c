//! What cursors take from the heap: the text of one that is made, and nothing to read one.

use std::time::{Duration, UNIX_EPOCH};

use allocation_counter::measure;
use mainstay_pagination::{
    Column, Cursor, CursorCodec, CursorError, Fingerprint, Key, KeyRing, KeysetDef,
};
use uuid::Uuid;

const NEWEST: KeysetDef = KeysetDef::new("newest")
    .desc(Column::timestamptz("created_at").not_null())
    .unique_desc(Column::uuid("id").not_null());

#[test]
fn a_cursor_is_made_with_one_allocation_and_read_with_none() {
    let ring = KeyRing::new(1, [7; 32]).unwrap();
    let keys = [Key::Micros(1), Key::Uuid(Uuid::nil())];
    let list = Fingerprint::of(&NEWEST, "list");
    for codec in [
        CursorCodec::unsigned(),
        CursorCodec::hmac_sha256(ring.clone()).ttl(Duration::from_secs(60)),
        #[cfg(feature = "aead")]
        CursorCodec::aead(&ring),
    ] {
        let cursor = codec.encode(&keys, list, UNIX_EPOCH).unwrap();
        let encode = measure(|| drop(codec.encode(&keys, list, UNIX_EPOCH)));
        let decode = measure(|| drop(codec.decode(&cursor, &NEWEST, list, UNIX_EPOCH)));
        assert_eq!(
            (encode.count_total, decode.count_total),
            (1, 0),
            "{codec:?}"
        );
        assert!(encode.bytes_total <= 120, "{}", encode.bytes_total);
    }
}

#[test]
fn a_megabyte_that_is_no_cursor_costs_nothing() {
    let long = Cursor::new("A".repeat(1 << 20));
    let codec = CursorCodec::unsigned();
    let list = Fingerprint::of(&NEWEST, "list");
    let mut read = None;
    let refuse = measure(|| read = Some(codec.decode(&long, &NEWEST, list, UNIX_EPOCH)));
    assert_eq!(
        (read, refuse.count_total),
        (Some(Err(CursorError::TooLong)), 0)
    );
}
