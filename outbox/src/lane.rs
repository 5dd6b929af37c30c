//! Lanes: which of a fixed number of queues a key belongs to. Pure, and its bytes are for ever.

/// Lanes of a fresh outbox: enough for a few dozen relays to share, few enough to probe in one statement.
pub(crate) const LANES_DEFAULT: u16 = 64;

/// The most lanes an outbox may have; every idle poll looks at each lane a relay holds.
pub(crate) const LANES_MAX: u16 = 1024;

/// The hash whose remainder by the number of lanes is the lane. Never negative.
///
/// FNV-1a over 64 bits, mixed so that its low bits depend on every byte. Changing it would split a key over two lanes
/// during a rolling deployment and lose the key's order: a golden test holds it.
pub(crate) fn key_hash(key: &[u8]) -> i64 {
    mixed(key.iter())
}

/// The number of the lock that writers of a key take under [`Ordering::PerKeyStrict`](crate::Ordering::PerKeyStrict).
///
/// Databases keep one space of such numbers for everybody, hence a prefix of our own. Two keys of one number only wait for
/// each other. Changing it would let two versions of a producer overtake each other during a rolling deployment.
pub(crate) fn key_lock(key: &[u8]) -> i64 {
    mixed(b"mainstay-outbox key lock\0".iter().chain(key))
}

fn mixed<'a>(bytes: impl Iterator<Item = &'a u8>) -> i64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for &byte in bytes {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    (hash >> 1) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_key_never_changes() {
        // Worked out by a second implementation.
        assert_eq!(key_hash(b""), 8529007325742898729);
        assert_eq!(key_hash(b"order-17"), 1927924024926376723);
        assert_eq!(key_hash(&[0, 255]), 1298232769632915850);
        assert_eq!(key_lock(b""), 5023857486318746252);
        assert_eq!(key_lock(b"order-17"), 1428208537398289453);
    }

    #[test]
    fn keys_spread_over_all_lanes() {
        let mut lanes = [0u32; 64];
        for n in 0..64_000u32 {
            let lane = key_hash(format!("order-{n}").as_bytes()) % 64;
            lanes[lane as usize] += 1;
        }
        assert!(
            lanes.iter().all(|&n| (800..1_200).contains(&n)),
            "{lanes:?}"
        );
    }
}
