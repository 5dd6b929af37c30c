//! The statements that a relay and an enqueuing transaction send, counted between them and the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use results::Measure;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Arrived, ours};
use crate::servers::Postgres;

#[derive(Default)]
struct Seen {
    /// Executions, and simple queries.
    statements: AtomicU64,
    /// Those whose text speaks of it.
    notifications: AtomicU64,
}

pub async fn count(messages: u64) {
    let mut database = Postgres::create().await.unwrap();
    (ours::BATCH_1000.fill)(&database, messages).await;
    let direct = database.options.clone();
    let seen = Arc::new(Seen::default());
    database.options = through(&direct, Arc::clone(&seen)).await;

    let arrived = Arrived::default();
    let worker = tokio::spawn((ours::BATCH_1000.run)(&database, arrived.clone()));
    assert!(
        arrived
            .wait(messages, std::time::Duration::from_secs(60))
            .await
    );
    // What has arrived is settled by a statement more.
    tokio::time::sleep(super::SETTLING).await;
    let statements = seen.statements.load(Ordering::Relaxed) as f64 / messages as f64;
    worker.abort();

    // A producer's transaction says nothing to listeners, by itself or through a trigger.
    let mut conn = database.options.connect().await.unwrap();
    let mut tx = sqlx::Connection::begin(&mut conn).await.unwrap();
    ours::outbox()
        .enqueue(&mut tx, ours::event(7))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let triggers: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE p.prosrc LIKE '%tify%'")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    let notifications = seen.notifications.load(Ordering::Relaxed) as f64 + triggers as f64;
    println!("  {statements:.4} statements a message, {notifications} notifications");
    results::keep(Measure::new(
        "relay",
        "statements",
        statements,
        "per message",
    ));
    results::keep(Measure::new(
        "relay",
        "notifications",
        notifications,
        "notifications",
    ));
    drop(conn);
    database.options = direct;
    database.drop().await;
}

async fn through(server: &PgConnectOptions, seen: Arc<Seen>) -> PgConnectOptions {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = (server.get_host().to_owned(), server.get_port());
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect((target.0.as_str(), target.1))
                .await
                .unwrap();
            client.set_nodelay(true).unwrap();
            server.set_nodelay(true).unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let seen = Arc::clone(&seen);
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            tokio::spawn(async move {
                let mut waiting: Vec<u8> = Vec::new();
                let mut buffer = vec![0; 1 << 16];
                let mut started = false;
                while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                    waiting.extend_from_slice(&buffer[..read]);
                    look(&mut waiting, &mut started, &seen);
                    if to_server.write_all(&buffer[..read]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    server
        .clone()
        .host("127.0.0.1")
        .port(port)
        .ssl_mode(sqlx::postgres::PgSslMode::Disable)
}

/// Takes whole messages off: a letter, four bytes of length that count themselves, and the rest. The first has no letter.
fn look(waiting: &mut Vec<u8>, started: &mut bool, seen: &Seen) {
    loop {
        let letter = usize::from(*started);
        let Some(length) = waiting.get(letter..letter + 4) else {
            return;
        };
        let length = letter + u32::from_be_bytes(length.try_into().unwrap()) as usize;
        if waiting.len() < length {
            return;
        }
        let message: Vec<u8> = waiting.drain(..length).collect();
        if *started && matches!(message[0], b'E' | b'Q') {
            seen.statements.fetch_add(1, Ordering::Relaxed);
        }
        let text = message.to_ascii_lowercase();
        if text.windows(6).any(|word| word == b"notify") {
            seen.notifications.fetch_add(1, Ordering::Relaxed);
        }
        *started = true;
    }
}
