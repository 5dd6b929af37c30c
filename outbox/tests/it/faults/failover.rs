//! Another database answers in the place of the one that relays know, and no statement fails that could tell them.

use std::{fs, time::Duration};

use mainstay_outbox::{Admin, Event, MemorySink, Outbox, OutboxDb, store::Server as Identity};
use sqlx::{AssertSqlSafe, Pool, Postgres, Sqlite, pool::PoolOptions};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    programs::{Program, run},
    servers::Server,
};
use crate::{
    link::{Link, authority, through},
    support::{BeginImmediately, outbox, put, quick, sqlite, until},
};

const SOON: Duration = Duration::from_secs(20);

/// What these tests say to a database beside what the outbox says.
trait Statements: OutboxDb {
    async fn execute(conn: &mut Self::Connection, statement: String);

    async fn is_taken(pool: &Pool<Self>, id: i64) -> bool;

    /// The one id in the table.
    async fn only_id(pool: &Pool<Self>) -> i64;
}

macro_rules! statements {
    ($db:ty) => {
        impl Statements for $db {
            async fn execute(conn: &mut Self::Connection, statement: String) {
                let statement = AssertSqlSafe(statement);
                sqlx::raw_sql(statement).execute(conn).await.unwrap();
            }

            async fn is_taken(pool: &Pool<Self>, id: i64) -> bool {
                let count = "SELECT count(*) FROM mainstay_outbox_message WHERE id =";
                let count = sqlx::query_scalar(AssertSqlSafe(format!("{count} {id}")));
                let count: i64 = count.fetch_one(pool).await.unwrap();
                count > 0
            }

            async fn only_id(pool: &Pool<Self>) -> i64 {
                let id = sqlx::query_scalar("SELECT id FROM mainstay_outbox_message");
                id.fetch_one(pool).await.unwrap()
            }
        }
    };
}

statements!(Postgres);
#[cfg(feature = "mysql")]
statements!(sqlx::MySql);
statements!(Sqlite);

/// How these tests handle a kind of server.
trait Kind: Statements {
    const PROGRAM: Program;

    /// Makes the database of its outbox, where there is none yet.
    async fn create(server: &Server);

    /// Where that is.
    fn url(server: &Server) -> String;

    /// Makes `copy` what `server` is now, as a restored backup is, or a replica that got no further.
    async fn copy(server: &Server, copy: &mut Server);
}

impl Kind for Postgres {
    const PROGRAM: Program = Program::Postgres;

    async fn create(_: &Server) {}

    fn url(server: &Server) -> String {
        server.url()
    }

    async fn copy(server: &Server, copy: &mut Server) {
        copy.stop("-QUIT").await;
        let data = copy.folder().join("data");
        fs::remove_dir_all(&data).unwrap();
        let mut backup = copy.tool("pg_basebackup");
        backup.args(["-h", "127.0.0.1", "-U", "postgres", "--no-sync"]);
        backup.args(["--checkpoint=fast", "-p", &server.port().to_string()]);
        run(backup.arg("-D").arg(data));
        copy.start_again().await;
    }
}

#[cfg(feature = "mysql")]
impl Kind for sqlx::MySql {
    const PROGRAM: Program = Program::MariaDb;

    async fn create(server: &Server) {
        let admin = sqlx::MySqlPool::connect(&server.url()).await.unwrap();
        let create = sqlx::query("CREATE DATABASE outbox");
        create.execute(&admin).await.unwrap();
        admin.close().await;
    }

    fn url(server: &Server) -> String {
        server.url().replace("/mysql", "/outbox")
    }

    async fn copy(server: &Server, copy: &mut Server) {
        let client = |name: &str, server: &Server| {
            let mut client = server.tool(name);
            client.args(["--no-defaults", "-h", "127.0.0.1", "-u", "root"]);
            client.args(["-P", &server.port().to_string()]);
            client
        };
        let mut dump = client("mariadb-dump", server);
        dump.args(["--single-transaction", "--databases", "outbox"]);
        let mut dump = dump.stdout(std::process::Stdio::piped()).spawn().unwrap();
        run(client("mariadb", copy).stdin(dump.stdout.take().unwrap()));
        assert!(dump.wait().unwrap().success());
    }
}

/// Pools whose connections live so shortly that each statement has one of its own: where an address leads elsewhere, the next
/// statement goes there, and none breaks off.
fn fickle<Db: OutboxDb>() -> PoolOptions<Db> {
    PoolOptions::new().max_lifetime(Duration::from_millis(1))
}

/// A copy draws ids that the relay has seen from the original, and takes its place.
async fn takes_over<Db: Kind>(shares: bool) {
    let Some(server) = Server::start(Db::PROGRAM).await else {
        return;
    };
    let mut copy = Server::start(Db::PROGRAM).await.unwrap();
    Db::create(&server).await;
    let link = Link::to(authority(&server.url())).await;
    let url = through(&Db::url(&server), &link);
    let pool = fickle::<Db>().connect(&url).await.unwrap();
    let outbox = outbox(&pool, 1).await;
    let sink = MemorySink::new();
    let mut relay = quick(&pool, &outbox)
        .lease(Duration::from_secs(60))
        .sweep_interval(Duration::from_secs(3_600))
        .sink("*", sink.clone());
    if shares {
        relay = relay.shared_connections();
    }
    let relay = relay.build().await.unwrap().spawn(CancellationToken::new());
    let admin = Admin::new(pool.clone());
    let settled = async || admin.lag().await.unwrap().pending == 0;
    put(&pool, &outbox, vec![Event::new("before")]).await;
    timeout(SOON, sink.wait_for(1)).await.unwrap();
    until("it is settled", settled).await;
    Db::copy(&server, &mut copy).await;
    let elsewhere = Pool::<Db>::connect(&Db::url(&copy)).await.unwrap();
    put(&elsewhere, &outbox, vec![Event::new("on the copy")]).await;
    let id = Db::only_id(&elsewhere).await;

    // What the copy never hears of: more than the ids that a Postgres leaves out as it recovers, as the copy has.
    put(&pool, &outbox, vec![Event::new("lost"); 64]).await;
    timeout(SOON, sink.wait_for(65)).await.unwrap();
    passed(&pool, &outbox, &sink, id).await;
    let seen = sink.messages().len();

    link.turn_to(authority(&copy.url()));
    let messages = timeout(SOON, sink.wait_for(seen + 1)).await;
    let messages = messages.expect("it is found, and the sweep is an hour away");
    assert_eq!(messages[seen].event_type(), "on the copy");
    put(&pool, &outbox, vec![Event::new("after")]).await;
    timeout(SOON, sink.wait_for(seen + 2)).await.unwrap();
    until("all is settled", settled).await;
    assert_eq!(relay.drain(SOON).await.unsettled, 0);
    assert_eq!(sink.messages().len(), seen + 2);
    elsewhere.close().await;
    pool.close().await;
}

/// The file is open, and a dump from when nothing was in it is read into it. There are marks on SQLite up to what may
/// not go.
#[tokio::test]
async fn what_is_written_after_a_restore_into_a_file_is_found_at_once() {
    let database = sqlite().await;
    let pool = database.pool.clone();
    let outbox = outbox(&pool, 1).await;
    Admin::new(pool.clone()).pause("paused").await.unwrap();
    let sink = MemorySink::new();
    let relay = quick(&pool, &outbox)
        .lease(Duration::from_secs(60))
        .sweep_interval(Duration::from_secs(3_600))
        .sink("*", sink.clone());
    let relay = relay.build().await.unwrap().spawn(CancellationToken::new());
    let before = identity(&pool).await;
    put(&pool, &outbox, vec![Event::new("lost"); 8]).await;
    put(&pool, &outbox, vec![Event::new("lost").topic("paused")]).await;
    timeout(SOON, sink.wait_for(8)).await.unwrap();
    passed(&pool, &outbox, &sink, 1).await;
    assert_eq!(identity(&pool).await, before);
    let seen = sink.messages().len();

    let mut restore = pool.begin_immediately().await;
    let tables =
        "SELECT sql FROM sqlite_schema WHERE tbl_name = 'mainstay_outbox_message' ORDER BY rowid";
    let tables: Vec<String> = sqlx::query_scalar(tables)
        .fetch_all(&mut *restore)
        .await
        .unwrap();
    let drop = "DROP TABLE mainstay_outbox_message".to_owned();
    for statement in std::iter::once(drop).chain(tables) {
        Sqlite::execute(&mut restore, statement).await;
    }
    let event = Event::new("restored");
    outbox.enqueue(&mut restore, event).await.unwrap();
    restore.commit().await.unwrap();
    assert_eq!(Sqlite::only_id(&pool).await, 1);
    let messages = timeout(SOON, sink.wait_for(seen + 1)).await;
    let messages = messages.expect("it is found, and the sweep is an hour away");
    assert_eq!(messages[seen].event_type(), "restored");
    assert_eq!(relay.drain(SOON).await.unsettled, 0);
    database.gone().await;
}

/// Until claims begin behind this id, which is free: until a row that is put there is passed over for one that came with it.
async fn passed<Db: Statements>(pool: &Pool<Db>, outbox: &Outbox<Db>, sink: &MemorySink, id: i64) {
    // On MariaDB a mark waits five seconds, twice.
    let deadline = Instant::now() + 3 * SOON;
    for nth in 0.. {
        assert!(Instant::now() < deadline, "the mark never passed {id}");
        until("the id is free", async || !Db::is_taken(pool, id).await).await;
        let [low, high] = ["low", "high"].map(|name| format!("{name} {nth}"));
        let mut tx = pool.begin_immediately().await;
        let event = Event::new("probe").subject(&low);
        outbox.enqueue(&mut tx, event).await.unwrap();
        let update = "UPDATE mainstay_outbox_message SET id =";
        Db::execute(&mut tx, format!("{update} {id} WHERE subject = '{low}'")).await;
        let event = Event::new("probe").subject(&high);
        outbox.enqueue(&mut tx, event).await.unwrap();
        tx.commit().await.unwrap();
        outbox.waker().notify_after_commit();
        let came = |name: &str| {
            let messages = sink.messages();
            messages.iter().any(|of| of.subject() == Some(name))
        };
        until("the higher one came", async || came(&high)).await;
        if !came(&low) {
            return;
        }
    }
}

async fn identity<Db: OutboxDb>(pool: &Pool<Db>) -> Identity {
    Db::survey(pool.clone()).await.unwrap().server.unwrap()
}

mod postgres {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs the programs of Postgres; tests/run sees to them"]
    async fn what_a_copy_writes_in_its_originals_place_is_found_over_connections_of_a_relays_own() {
        takes_over::<Postgres>(false).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs the programs of Postgres; tests/run sees to them"]
    async fn what_a_copy_writes_in_its_originals_place_is_found_over_shared_connections() {
        takes_over::<Postgres>(true).await;
    }

    #[tokio::test]
    #[ignore = "needs the programs of Postgres; tests/run sees to them"]
    async fn a_server_is_another_one_after_a_restart_and_in_a_copy() {
        let Some(mut server) = Server::start(Program::Postgres).await else {
            return;
        };
        let pool = Pool::<Postgres>::connect(&server.url()).await.unwrap();
        outbox(&pool, 1).await;
        let before = identity(&pool).await;
        assert_eq!(identity(&pool).await, before);
        let mut copy = Server::start(Program::Postgres).await.unwrap();
        Postgres::copy(&server, &mut copy).await;
        let elsewhere = Pool::<Postgres>::connect(&copy.url()).await.unwrap();
        assert!(!identity(&elsewhere).await.is_still(&before));
        server.stop("-KILL").await;
        server.start_again().await;
        assert!(!identity(&pool).await.is_still(&before));
        elsewhere.close().await;
        pool.close().await;
    }
}

#[cfg(feature = "mysql")]
mod mariadb {
    use sqlx::{MySql, MySqlPool};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs the programs of a server; tests/run sees to them"]
    async fn what_a_copy_writes_in_its_originals_place_is_found_over_shared_connections() {
        takes_over::<MySql>(true).await;
    }

    #[tokio::test]
    #[ignore = "needs the programs of a server; tests/run sees to them"]
    async fn a_server_is_another_one_after_a_restart_and_in_a_copy() {
        let Some(mut server) = Server::start(Program::MariaDb).await else {
            return;
        };
        MySql::create(&server).await;
        let pool = MySqlPool::connect(&MySql::url(&server)).await.unwrap();
        outbox(&pool, 1).await;
        let before = identity(&pool).await;
        let mut copy = Server::start(Program::MariaDb).await.unwrap();
        MySql::copy(&server, &mut copy).await;
        let elsewhere = MySqlPool::connect(&MySql::url(&copy)).await.unwrap();
        assert!(!identity(&elsewhere).await.is_still(&before));
        // It tells its start to the second.
        until("it has run for long enough", async || {
            let now = sqlx::query_scalar("SELECT CAST(unix_timestamp() AS SIGNED)");
            let now: i64 = now.fetch_one(&pool).await.unwrap();
            now > before.started_micros / 1_000_000 + 1
        })
        .await;
        assert!(identity(&pool).await.is_still(&before));
        server.stop("-KILL").await;
        server.start_again().await;
        assert!(!identity(&pool).await.is_still(&before));
        elsewhere.close().await;
        pool.close().await;
    }
}
