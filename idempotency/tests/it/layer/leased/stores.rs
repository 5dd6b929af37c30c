//! A store per test: a database of its own, memory, or a prefix of its own in one Redis.

use std::collections::HashMap;
use std::env;
use std::future::Future;
use std::sync::{Arc, Mutex};

use mainstay_errors::Error;
use mainstay_idempotency::LentLease;
use mainstay_idempotency::leased::{LeasedDb, LeasedStore, MemoryStore, RedisStore, Remote};
use redis::aio::ConnectionManager;
use sqlx::Pool;

use crate::db::TestDb;

/// What a remote system was asked to do, and how often. Its clones are one system.
#[derive(Clone, Default)]
pub struct Elsewhere(Arc<Mutex<HashMap<String, i64>>>);

impl Elsewhere {
    pub fn act(&self, name: &str) {
        *self.0.lock().unwrap().entry(name.to_owned()).or_default() += 1;
    }

    pub fn effects(&self, name: &str) -> i64 {
        self.0.lock().unwrap().get(name).copied().unwrap_or(0)
    }
}

pub trait TestStore: LeasedStore {
    /// One effect in one step: in the store's own database where it is one, else elsewhere.
    fn pay(
        lease: &mut LentLease<Self>,
        elsewhere: &Elsewhere,
        name: &str,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    fn effects(&self, elsewhere: &Elsewhere, name: &str) -> impl Future<Output = i64> + Send;
}

impl<D: TestDb + LeasedDb> TestStore for Pool<D> {
    async fn pay(lease: &mut LentLease<Self>, _: &Elsewhere, name: &str) -> Result<(), Error> {
        let name = name.to_owned();
        let step = lease.step("pay", |mut tx, _| async move {
            D::effect(&mut tx, &name).await.map_err(Error::internal)
        });
        Ok(step.await?)
    }

    async fn effects(&self, _: &Elsewhere, name: &str) -> i64 {
        D::effects(self, name).await
    }
}

pub async fn call<S: LeasedStore>(
    lease: &mut LentLease<S>,
    elsewhere: &Elsewhere,
    name: &str,
) -> Result<(), Error> {
    let called = lease.call("pay", Remote::HonoursKey, async |_| {
        elsewhere.act(name);
        Ok::<_, Error>(())
    });
    Ok(called.await?)
}

impl TestStore for MemoryStore {
    async fn pay(
        lease: &mut LentLease<Self>,
        elsewhere: &Elsewhere,
        name: &str,
    ) -> Result<(), Error> {
        call(lease, elsewhere, name).await
    }

    async fn effects(&self, elsewhere: &Elsewhere, name: &str) -> i64 {
        elsewhere.effects(name)
    }
}

impl TestStore for RedisStore {
    async fn pay(
        lease: &mut LentLease<Self>,
        elsewhere: &Elsewhere,
        name: &str,
    ) -> Result<(), Error> {
        call(lease, elsewhere, name).await
    }

    async fn effects(&self, elsewhere: &Elsewhere, name: &str) -> i64 {
        elsewhere.effects(name)
    }
}

/// Every test has a tenant of its own, so that they share a server.
pub async fn redis() -> RedisStore {
    let url = env::var("MAINSTAY_TEST_REDIS_URL")
        .expect("MAINSTAY_TEST_REDIS_URL must name a Redis server; tests/run provides one");
    let client = redis::Client::open(url).unwrap();
    RedisStore::new(ConnectionManager::new(client).await.unwrap())
}

/// One test, on each store.
macro_rules! on_each_store {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $name() {
                super::$name(mainstay_idempotency::leased::MemoryStore::new()).await;
            })*
        }
        mod redis {
            $(#[tokio::test] #[ignore = "needs MAINSTAY_TEST_REDIS_URL; tests/run provides it"]
            async fn $name() { super::$name(crate::layer::leased::stores::redis().await).await; })*
        }
        crate::db::on_each!($($name),*);
    };
}
pub(super) use on_each_store;
