//! Leases in Redis, and a Redis that is killed.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mainstay_idempotency::leased::{Claimed, LeasedStore, Leases, RedisStore, Work};
use mainstay_idempotency::store::Claim;
use mainstay_idempotency::{Fingerprint, Key, Scope, conformance};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio::time::Instant;
use uuid::Uuid;

fn claim_of(key: &str) -> Claim {
    Claim {
        scope: Scope::new("t", "", "redis"),
        key: Key::new(key).unwrap(),
        fingerprint: Fingerprint::new("POST", "/", ""),
    }
}

/// A server of the test's own, which may be killed.
struct Server {
    port: u16,
    home: PathBuf,
    keeps: bool,
    child: Child,
}

impl Server {
    fn start(keeps: bool) -> Self {
        let home = std::env::temp_dir().join(format!("mainstay-redis-{}", Uuid::new_v4()));
        std::fs::create_dir(&home).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = Self::spawn(port, &home, keeps);
        Self {
            port,
            home,
            keeps,
            child,
        }
    }

    fn spawn(port: u16, home: &PathBuf, keeps: bool) -> Child {
        let (yes, port) = (if keeps { "yes" } else { "no" }, port.to_string());
        Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", yes, "--appendfsync", "always", "--dir"])
            .arg(home)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed")
    }

    fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::spawn(self.port, &self.home, self.keeps);
    }

    async fn store(&self) -> RedisStore {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let config = ConnectionManagerConfig::new().set_number_of_retries(100);
        let manager = ConnectionManager::new_with_config(client, config).await;
        RedisStore::new(manager.unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        _ = std::fs::remove_dir_all(&self.home);
    }
}

/// The connection learns of the restart by an error or two.
async fn until_back(store: &RedisStore) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while store.now_ms().await.is_err() {
        assert!(Instant::now() < deadline, "the server is back");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
#[ignore = "needs redis-server; tests/run provides it"]
async fn redis_passes_the_suite_of_leases() {
    let server = Server::start(false);
    conformance::leased::all(&server.store().await)
        .await
        .unwrap();
}

#[tokio::test]
#[ignore = "needs redis-server; tests/run provides it"]
async fn a_redis_that_remembers_keeps_claims_through_a_kill() {
    let mut server = Server::start(true);
    let store = server.store().await;
    let leases = Leases::new(store.clone());
    let Claimed::Run(lease) = leases
        .claim(&claim_of("k"), &Work::default())
        .await
        .unwrap()
    else {
        panic!("new");
    };
    server.kill_and_restart();
    until_back(&store).await;
    let found = leases.claim(&claim_of("k"), &Work::default()).await;
    assert!(matches!(found, Ok(Claimed::InFlight { .. })), "{found:?}");
    lease.release().await.unwrap();
    assert!(matches!(
        leases.claim(&claim_of("k"), &Work::default()).await,
        Ok(Claimed::Run(_))
    ));
}

/// What "once while remembered" means: the key runs again. Its first holder at least can do nothing more.
#[tokio::test]
#[ignore = "needs redis-server; tests/run provides it"]
async fn a_redis_that_forgets_fences_the_holders_of_before() {
    let mut server = Server::start(false);
    let store = server.store().await;
    let taken = |store: RedisStore| async move {
        let leases = Leases::new(store);
        match leases.claim(&claim_of("k"), &Work::default()).await {
            Ok(Claimed::Run(lease)) => lease,
            other => panic!("new: {other:?}"),
        }
    };
    let before = taken(store.clone()).await;
    server.kill_and_restart();
    until_back(&store).await;
    assert!(
        !store
            .renew(before.holder(), Duration::from_secs(1))
            .await
            .unwrap()
    );
    let after = taken(store.clone()).await;
    let mut forged = before.holder().clone();
    forged.token.number = after.holder().token.number;
    assert!(
        !store.renew(&forged, Duration::from_secs(1)).await.unwrap(),
        "the same number of another run is another token"
    );
    assert!(
        store
            .renew(after.holder(), Duration::from_secs(1))
            .await
            .unwrap()
    );
}
