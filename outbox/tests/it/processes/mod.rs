//! Relays in processes of their own, killed and paused over and over while writers write and the broker fails.
//!
//! A relay is this test program, started again: [`the_relay_that_others_kill`] relays when its environment says so and is
//! an empty test otherwise. `MAINSTAY_TEST_KILLS=500` kills more often than an ordinary run.

pub mod broker;
mod last_attempt;
pub mod oracle;
mod relay;
mod shutdown;
mod storm;
pub mod writers;

use relay::{RELAY, serve};
use sqlx::{Postgres, Sqlite};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_that_others_kill() {
    let Ok(database) = std::env::var(RELAY) else {
        return;
    };
    match database.as_str() {
        "SQLite" => serve::<Sqlite>().await,
        "PostgreSQL" => serve::<Postgres>().await,
        #[cfg(feature = "mysql")]
        "MySQL" => serve::<sqlx::MySql>().await,
        other => panic!("no relay over {other}"),
    }
}

/// SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % sides
    }
}
