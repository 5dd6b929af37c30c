//! The servers behind the URLs are what they claim to be: each is greeted in its own protocol.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(10);

fn url(server: &str) -> String {
    let variable = format!("MAINSTAY_TEST_{server}_URL");
    std::env::var(&variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: run this test through tests/run"))
}

/// Connects to the host and port of a URL, says `greeting` and returns what comes back until it contains `expected`.
async fn greet(url: &str, greeting: &[u8], expected: &str) -> String {
    let address = url
        .rsplit('@')
        .next()
        .unwrap()
        .rsplit("//")
        .next()
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    let mut heard = Vec::new();
    let conversation = async {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(greeting).await.unwrap();
        while !String::from_utf8_lossy(&heard).contains(expected) {
            assert_ne!(
                stream.read_buf(&mut heard).await.unwrap(),
                0,
                "{address} hung up after {:?}",
                String::from_utf8_lossy(&heard)
            );
        }
    };
    timeout(PATIENCE, conversation)
        .await
        .unwrap_or_else(|_| panic!("{address} never said {expected}"));
    String::from_utf8_lossy(&heard).into_owned()
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn postgres_answers_a_query() {
    use sqlx::{Connection, PgConnection};
    let mut connection = PgConnection::connect(&url("POSTGRES")).await.unwrap();
    let version: String = sqlx::query_scalar("SELECT version()")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(version.starts_with("PostgreSQL"), "{version}");
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn mariadb_introduces_itself() {
    greet(&url("MARIADB"), b"", "MariaDB").await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn redis_answers_a_ping() {
    greet(&url("REDIS"), b"PING\r\n", "+PONG").await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn nats_has_jetstream() {
    greet(&url("NATS"), b"", "\"jetstream\":true").await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn rabbitmq_opens_an_amqp_connection() {
    greet(&url("RABBITMQ"), b"AMQP\x00\x00\x09\x01", "RabbitMQ").await;
}
