//! Whatever is killed, paused or cut off: all that committed arrives, in order of its key, and nothing else does.

use std::{collections::HashSet, env, time::Duration};

use mainstay_outbox::{Admin, OutboxDb};
use sqlx::Pool;
use tokio::time::sleep;

use super::{Dice, broker::Broker, oracle::judge, relay, relay::Process, writers::Writers};
use crate::support::{on_each, outbox, until};

on_each![relays_that_are_killed_and_paused_lose_nothing_and_keep_the_order];

const RELAYS: usize = 3;
const LANES: u16 = 8;

#[expect(clippy::print_stdout, reason = "what kind of storm it was")]
async fn relays_that_are_killed_and_paused_lose_nothing_and_keep_the_order<Db: OutboxDb>(
    pool: Pool<Db>,
) {
    let kills: usize = env::var("MAINSTAY_TEST_KILLS").map_or(24, |kills| kills.parse().unwrap());
    let outbox = outbox(&pool, LANES).await;
    let broker = Broker::start().await;
    let mut relays: Vec<Process> = (0..RELAYS)
        .map(|_| Process::start(&pool, &broker.address))
        .collect();
    let writers = Writers::start(&pool, &outbox);
    let mut dice = Dice(17);
    let (mut pauses, mut outages) = (0, 0);
    for kill in 0..kills {
        // No test waits for this: it is the moment at which something happens to a relay.
        sleep(Duration::from_millis(50 + dice.roll(400))).await;
        let which = dice.roll(RELAYS as u64) as usize;
        match kill % 6 {
            // Long enough for others to take its lanes. It wakes as a zombie.
            2 => {
                pauses += 1;
                relays[which].signal("-STOP").await;
                sleep(relay::LEASE * 3 / 2).await;
                relays[which].signal("-CONT").await;
            }
            4 => {
                outages += 1;
                broker.set_down(true);
                sleep(Duration::from_millis(300)).await;
                broker.set_down(false);
            }
            _ => {
                let fresh = Process::start(&pool, &broker.address);
                std::mem::replace(&mut relays[which], fresh).kill().await;
            }
        }
    }
    let committed = writers.stop().await;
    broker.recover();
    let admin = Admin::new(pool.clone());
    until("all is delivered or dead", async || {
        admin.lag().await.unwrap().pending == 0
    })
    .await;
    for relay in relays {
        relay.kill().await;
    }
    let dead: HashSet<String> = dead(&admin).await;
    let verdict = judge(&committed, &broker.arrivals(), &dead);
    let [unheard, refused] = broker.failures();
    println!(
        "{}: {verdict:?}, {kills} faults of which {pauses} pauses and {outages} outages, {unheard} acks lost, {refused} refusals",
        Db::NAME
    );
    assert!(
        verdict.committed > 20 * kills && verdict.dead > 0 && verdict.repeated > 0 && refused > 0,
        "it was no storm"
    );
    // Each fault may repeat what its lanes had in flight; a lost ack one message, and what followed it.
    let window = relay::BATCH as usize * usize::from(LANES);
    let budget = kills * window + unheard * relay::BATCH as usize;
    assert!(verdict.repeated <= budget, "{} repeated", verdict.repeated);
}

pub async fn dead<Db: OutboxDb>(admin: &Admin<Db>) -> HashSet<String> {
    let letters = admin
        .dead(mainstay_outbox::Filter::all(), 10_000)
        .await
        .unwrap();
    letters
        .iter()
        .map(|letter| letter.message().id().to_string())
        .collect()
}
