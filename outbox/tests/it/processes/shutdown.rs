//! Relays that are told to end under load: nothing is lost, and nothing comes twice.

use std::collections::HashSet;

use mainstay_outbox::{Admin, OutboxDb};
use sqlx::Pool;

use super::{broker::Broker, oracle::judge, relay::Process, storm::dead, writers::Writers};
use crate::support::{on_each, outbox, until};

on_each![relays_that_are_terminated_repeat_nothing];

const RELAYS: u16 = 2;
const ENDS: u16 = 6;

/// S1, and O5 of it: duplicates are of kills only.
async fn relays_that_are_terminated_repeat_nothing<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 8).await;
    let broker = Broker::start().await;
    broker.recover();
    let mut relays: Vec<Process> = (0..RELAYS)
        .map(|_| Process::start(&pool, &broker.address))
        .collect();
    let at_work = async |relays: u16| {
        until("the relays are at work", async || {
            Db::survey(pool.clone()).await.unwrap().relays == relays
        })
        .await;
    };
    at_work(RELAYS).await;
    let writers = Writers::start(&pool, &outbox);
    for end in 0..ENDS {
        let more = broker.arrivals().len() + 40;
        until("more is delivered", async || {
            broker.arrivals().len() >= more
        })
        .await;
        let fresh = Process::start(&pool, &broker.address);
        at_work(RELAYS + 1).await;
        let old = std::mem::replace(&mut relays[usize::from(end % RELAYS)], fresh);
        old.terminate().await;
    }
    let committed = writers.stop().await;
    let admin = Admin::new(pool.clone());
    until("all is delivered or dead", async || {
        admin.lag().await.unwrap().pending == 0
    })
    .await;
    for relay in relays {
        relay.terminate().await;
    }
    let dead: HashSet<String> = dead(&admin).await;
    let verdict = judge(&committed, &broker.arrivals(), &dead);
    assert_eq!(verdict.repeated, 0, "{verdict:?}");
}
