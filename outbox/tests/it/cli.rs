//! The program for operators, run as they run it.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use mainstay_outbox::{Admin, Event, MemorySink, OutboxDb, Outcome};
use serde_json::Value;
use sqlx::{Connection, Executor, MySqlConnection, PgConnection, Pool, SqliteConnection};
use tokio_util::sync::CancellationToken;

use crate::support::{outbox, postgres, put, quick, sqlite, until};

/// What a run of the program said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| {
            panic!("no JSON: {error}\n{}\n{}", self.out, self.err);
        })
    }
}

/// Runs the program with its database in the environment, without a terminal.
async fn run(url: &str, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay-outbox"));
    command
        .args(args)
        .env("DATABASE_URL", url)
        .env("USER", "ada")
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// An outbox with two letters of `hooks.a` and `hooks.b`, and three messages that wait, in one lane.
async fn furnished<Db: OutboxDb>(pool: &Pool<Db>) {
    let outbox = outbox(pool, 1).await;
    let event = |topic: &str, key: &str| {
        Event::new("made")
            .topic(topic)
            .key(key)
            .header("x-tenant", "secret-header")
            .bytes("text/plain", "secret-payload")
    };
    let relay = quick(pool, &outbox)
        .sink(
            "*",
            MemorySink::new().respond(|_| Outcome::reject("no such hook")),
        )
        .build()
        .await
        .unwrap()
        .spawn(CancellationToken::new());
    put(
        pool,
        &outbox,
        vec![event("hooks.a", "k1"), event("hooks.b", "k2")],
    )
    .await;
    let admin = Admin::new(pool.clone());
    until("both are dead", async || {
        admin.lag().await.unwrap().dead == 2
    })
    .await;
    relay.drain(Duration::from_secs(5)).await;
    put(
        pool,
        &outbox,
        vec![event("t", "k3"), event("t", "k3"), event("u", "k4")],
    )
    .await;
}

/// Without what differs from run to run: ids, times, ages.
fn settled(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(settled),
        Value::Object(members) => {
            for (name, member) in members {
                let differs = name.ends_with("_seconds")
                    || name.ends_with("_at")
                    || ["id", "time", "at", "since", "owner"].contains(&name.as_str());
                if differs && !member.is_null() {
                    *member = Value::String(format!("<{name}>"));
                } else {
                    settled(member);
                }
            }
        }
        _ => {}
    }
}

/// The documents are for programs: a member that is renamed or gone is a visible act. `UPDATE_GOLDEN=1` writes them anew.
fn golden(name: &str, said: &Said) {
    let mut value = said.json();
    settled(&mut value);
    let text = format!("{value:#}\n");
    let file = format!(
        "{}/tests/it/golden/cli/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(std::path::Path::new(&file).parent().unwrap()).unwrap();
        std::fs::write(&file, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, expected, "{file}");
}

async fn the_documents_are_golden<Db: OutboxDb>(pool: Pool<Db>, url: String) {
    furnished(&pool).await;
    for (name, args) in [
        ("lag", &["lag"][..]),
        ("lag_by_topic", &["lag", "--by-topic"]),
        ("lanes", &["lanes"]),
        ("peek", &["peek", "-n", "2"]),
        ("dead", &["dead", "--topic", "hooks.*"]),
        ("dead_payload", &["dead", "--key", "k1", "--payload"]),
        ("verify", &["verify"]),
        ("redrive_dry_run", &["redrive", "--all", "--dry-run"]),
        ("redrive", &["redrive", "--topic", "hooks.a", "--yes"]),
        ("discard", &["discard", "--cause", "rejected", "-y"]),
        ("replay", &["replay", "--all", "--yes"]),
        ("pause", &["pause", "hooks.*"]),
        ("paused", &["paused"]),
        ("resume", &["resume", "hooks.*"]),
        ("audit", &["audit"]),
        ("migrate", &["migrate"]),
    ] {
        let said = run(&url, &[&["--json"], args].concat()).await;
        assert_eq!(said.code, 0, "{name}: {}", said.err);
        golden(name, &said);
    }
}

async fn people_are_told_in_words<Db: OutboxDb>(pool: Pool<Db>, url: String) {
    furnished(&pool).await;
    for (args, parts) in [
        (&["lag"][..], &["pending  3", "dead     2"][..]),
        (&["lag", "--by-topic"], &["t      2", "u      1"]),
        (&["lanes"], &["verdict", "unowned"]),
        (&["peek", "--topic", "u"], &["waits for", "due"]),
        (&["dead"], &["no such hook", "hooks.b", "k2"]),
        (&["dead", "--until", "1h"], &["no dead letters"]),
        (
            &["peek", "--payload", "-n", "1"],
            &["x-tenant: secret-header", "secret-payload"],
        ),
        (&["verify"], &["all is well"]),
        (&["paused"], &["nothing is paused"]),
        (&["audit"], &["nothing was done"]),
    ] {
        let said = run(&url, args).await;
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        for part in parts {
            assert!(said.out.contains(part), "{args:?}: {}", said.out);
        }
        let shown = args.contains(&"--payload");
        assert_eq!(said.out.contains("secret"), shown, "{args:?}: {}", said.out);
    }
}

async fn nothing_is_changed_unless_it_is_meant<Db: OutboxDb>(pool: Pool<Db>, url: String) {
    furnished(&pool).await;
    for (args, code, err) in [
        (&["discard", "--all"][..], 4, "--yes"),
        (&["redrive", "--topic", "hooks.a"], 4, "--yes"),
        (&["discard", "--yes"], 2, "--all"),
        (&["discard", "--all", "--topic", "t", "--yes"], 2, "--topic"),
        (&["pause", "a*b"], 1, "topic pattern"),
        (&["dead", "--since", "yesterday"], 2, "RFC 3339"),
        (&["redrive", "--all", "--per-second", "0"], 2, "per-second"),
    ] {
        let said = run(&url, args).await;
        assert_eq!(said.code, code, "{args:?}: {}", said.err);
        assert!(said.err.contains(err), "{args:?}: {}", said.err);
        assert_eq!(said.out, "");
    }
    let lag = Admin::new(pool).lag().await.unwrap();
    assert_eq!((lag.pending, lag.dead, lag.paused), (3, 2, 0));
}

async fn what_fails_is_an_exit_code<Db: OutboxDb>(pool: Pool<Db>, url: String) {
    let bare = run(&url, &["verify"]).await;
    assert_eq!(bare.code, 3, "{}", bare.err);
    assert!(bare.out.contains("run migrate"), "{}", bare.out);
    for args in [&["lag"][..], &["audit"], &["replay", "--all", "--yes"]] {
        let bare = run(&url, args).await;
        assert_eq!((bare.code, bare.out.as_str()), (1, ""), "{args:?}");
        let said = "error: the outbox's tables are missing or old: run migrate\n";
        assert_eq!(bare.err, said, "{args:?}");
    }
    let migrated = run(&url, &["migrate", "--lanes", "2"]).await;
    assert_eq!(migrated.code, 0, "{}", migrated.err);
    let other = run(&url, &["migrate", "--lanes", "3"]).await;
    assert_eq!(other.code, 1);
    assert!(other.err.contains("2 lanes"), "{}", other.err);
    let well = run(&url, &["health"]).await;
    assert_eq!((well.code, well.out.as_str()), (0, "ok\n"));
    let outbox = outbox(&pool, 2).await;
    put(&pool, &outbox, vec![Event::new("t")]).await;
    let ill = run(&url, &["health", "--json"]).await;
    assert_eq!(ill.code, 3);
    assert_eq!(ill.json()["reasons"][0]["reason"], "no_relay");
    newer(&url).await;
    for args in [&["lag"][..], &["redrive", "--all", "--yes"], &["migrate"]] {
        let old = run(&url, args).await;
        assert_eq!(old.code, 1, "{args:?}: {}", old.out);
        assert!(old.err.contains("newer code"), "{args:?}: {}", old.err);
    }
    let found = run(&url, &["verify", "--json"]).await;
    assert_eq!(found.code, 3, "{}", found.err);
    assert_eq!(found.json()["findings"][0]["check"], "schema");
}

/// As if newer code had migrated.
async fn newer(url: &str) {
    let newer = "INSERT INTO mainstay_outbox_migrations (version) VALUES (99)";
    match url.split_once(':').unwrap().0 {
        "sqlite" => {
            let mut conn = SqliteConnection::connect(url).await.unwrap();
            conn.execute(newer).await.unwrap();
        }
        "postgres" => {
            let mut conn = PgConnection::connect(url).await.unwrap();
            conn.execute(newer).await.unwrap();
        }
        _ => {
            let mut conn = MySqlConnection::connect(url).await.unwrap();
            conn.execute(newer).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_address_that_leads_nowhere_is_a_failure_without_its_password() {
    for (url, code, err) in [
        ("", 2, "DATABASE_URL"),
        ("oracle://u:hunter2@h/d", 2, "oracle"),
        ("sqlite:///nowhere/at/all.db", 1, "unable to open"),
        ("postgres://u:hunter2@127.0.0.1:1/d", 1, "error"),
    ] {
        let said = run(url, &["lag"]).await;
        assert_eq!(said.code, code, "{url}: {}", said.err);
        assert!(
            said.err.contains(err) && !said.err.contains("hunter2"),
            "{}",
            said.err
        );
        assert_eq!(said.err.matches(err).count(), 1, "{}", said.err);
    }
}

macro_rules! on_each {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test] async fn $case() {
                let database = super::sqlite().await;
                super::$case(database.pool.clone(), database.url()).await;
            })+
        }
        mod postgres {
            $(#[tokio::test]
            #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
            async fn $case() {
                let database = super::postgres().await;
                super::$case(database.pool.clone(), database.url()).await;
                database.gone().await;
            })+
        }
        #[cfg(feature = "mysql")]
        mod mariadb {
            $(#[tokio::test]
            #[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
            async fn $case() {
                let database = crate::support::mariadb().await;
                super::$case(database.pool.clone(), database.url()).await;
                database.gone().await;
            })+
        }
    };
}
on_each!(
    the_documents_are_golden,
    people_are_told_in_words,
    nothing_is_changed_unless_it_is_meant,
    what_fails_is_an_exit_code,
);
