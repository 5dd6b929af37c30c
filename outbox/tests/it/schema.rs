//! Outboxes on Postgres in schemas of their own, several in one database.

mod postgres {
    use std::{
        process::Stdio,
        time::{Duration, SystemTime},
    };

    use mainstay_outbox::{
        Admin, Bulk, ErrorKind, Event, Filter, MemorySink, Ordering, Outbox, OutboxConfig, Outcome,
        Relay, Retention, migrate_with_lanes, store::Migrate,
    };
    use sqlx::{PgPool, Postgres, postgres::PgPoolOptions};
    use tokio::{process::Command, time::timeout};
    use tokio_util::sync::CancellationToken;

    use crate::support::{Fresh, postgres, put, until};

    const SOON: Duration = Duration::from_secs(20);

    /// A schema of the database, as its users name it: in the address.
    async fn schema(database: &Fresh<Postgres>, name: &'static str) -> (PgPool, String) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE SCHEMA {name}")))
            .execute(&database.pool)
            .await
            .unwrap();
        let url = format!("{}?options=-csearch_path={name}", database.url());
        let pool = PgPoolOptions::new().max_connections(5);
        (pool.connect(&url).await.unwrap(), url)
    }

    fn event(name: &str) -> Event {
        Event::new("t")
            .subject(name)
            .key("k")
            .ordering(Ordering::PerKeyStrict)
    }

    /// What the program says.
    async fn program(url: &str, args: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_mainstay-outbox"))
            .args(args)
            .env("DATABASE_URL", url)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            said(&output.stderr)
        );
        said(&output.stdout)
    }

    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn outboxes_in_two_schemas_know_nothing_of_each_other() {
        let database = postgres().await;
        let (billing, billing_url) = schema(&database, "billing").await;
        let (shipping, shipping_url) = schema(&database, "shipping").await;
        // At once: each has a number of lanes of its own.
        let (one, two) = tokio::join!(
            migrate_with_lanes(&billing, 2),
            migrate_with_lanes(&shipping, 8)
        );
        one.unwrap();
        two.unwrap();
        let elsewhere: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_class
             WHERE relname LIKE 'mainstay%' AND relnamespace NOT IN ('billing'::regnamespace, 'shipping'::regnamespace)",
        )
        .fetch_one(&database.pool)
        .await
        .unwrap();
        assert_eq!(elsewhere, 0);
        let bare = Postgres::lanes(database.pool.clone()).await.unwrap_err();
        assert_eq!(bare.kind(), ErrorKind::NotMigrated);

        let mut relays = Vec::new();
        for (pool, name) in [(&billing, "b"), (&shipping, "s")] {
            let outbox = Outbox::new(OutboxConfig::default().source("/tests"));
            let announcer = outbox.announce(pool.clone());
            let sink = MemorySink::new().respond(|message| match message.subject() {
                Some("bad") => Outcome::reject("no"),
                _ => Outcome::Acked,
            });
            let relay = Relay::builder(pool.clone())
                .listen()
                .retention(Retention::Keep(Duration::from_secs(60)))
                .sink("*", sink.clone())
                .build()
                .await
                .unwrap()
                .spawn(CancellationToken::new());
            let delayed = event(&format!("{name}2")).not_before(SystemTime::UNIX_EPOCH);
            let events = vec![event(&format!("{name}1")), event("bad"), delayed];
            put(pool, &outbox, events).await;
            relays.push((pool, name, sink, relay, outbox, announcer));
        }
        for (pool, name, sink, ..) in &relays {
            let messages = timeout(SOON, sink.wait_for(2)).await.unwrap();
            let names: Vec<_> = messages.iter().filter_map(|one| one.subject()).collect();
            assert_eq!(names, [format!("{name}1"), format!("{name}2")]);
            let admin = Admin::new((*pool).clone());
            until("one is dead and nothing waits", async || {
                let lag = admin.lag().await.unwrap();
                (lag.pending, lag.later, lag.dead) == (0, 0, 1)
            })
            .await;
            assert_eq!(admin.verify().await.unwrap(), []);
        }
        for (.., relay, _, _) in relays {
            assert_eq!(relay.drain(SOON).await.unsettled, 0);
        }

        // What is done to the one is not done to the other.
        let ours = Admin::new(billing.clone());
        assert_eq!(ours.replay(Bulk::of(Filter::all())).await.unwrap(), 2);
        assert_eq!(ours.redrive(Filter::all()).await.unwrap(), 1);
        let theirs = Admin::new(shipping.clone()).lag().await.unwrap();
        assert_eq!((theirs.pending, theirs.dead), (0, 1));

        // The program goes by the address as well.
        let lag = program(&billing_url, &["lag"]).await;
        assert!(
            lag.contains("pending  3") && lag.contains("dead     0"),
            "{lag}"
        );
        let lag = program(&shipping_url, &["lag"]).await;
        assert!(
            lag.contains("pending  0") && lag.contains("dead     1"),
            "{lag}"
        );
        let said = program(&shipping_url, &["redrive", "--all", "--yes"]).await;
        assert_eq!(said, "1 redriven\n");
        assert_eq!(program(&shipping_url, &["verify"]).await, "all is well\n");
        assert_eq!(program(&shipping_url, &["migrate"]).await, "migrated\n");
        assert_eq!(Postgres::lanes(billing.clone()).await.unwrap(), 2);
        assert_eq!(Postgres::lanes(shipping.clone()).await.unwrap(), 8);
        billing.close().await;
        shipping.close().await;
        database.gone().await;
    }

    /// Locks that have only a number belong to the whole database.
    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn outboxes_in_two_schemas_do_not_wait_for_each_other() {
        let database = postgres().await;
        let (billing, _) = schema(&database, "billing").await;
        let (shipping, _) = schema(&database, "shipping").await;
        migrate_with_lanes(&shipping, 2).await.unwrap();

        // One that migrates for as long as it takes, and lets in delayed events meanwhile.
        let mut other = shipping.begin().await.unwrap();
        sqlx::query(
            "SELECT pg_advisory_xact_lock(hashtextextended('mainstay outbox migrations ' || current_schema(), 0)),
                 pg_advisory_xact_lock(7021786439153902592), pg_advisory_xact_lock(7021786439153902593)",
        )
        .execute(&mut *other)
        .await
        .unwrap();
        let migration = timeout(SOON, migrate_with_lanes(&billing, 2)).await;
        migration.expect("it need not wait").unwrap();

        let outbox = Outbox::new(OutboxConfig::default().source("/tests"));
        let sink = MemorySink::new();
        let relay = Relay::builder(billing.clone())
            .outbox(&outbox)
            .sink("*", sink.clone())
            .build()
            .await
            .unwrap()
            .spawn(CancellationToken::new());
        let due = event("delayed").not_before(SystemTime::UNIX_EPOCH);
        put(&billing, &outbox, vec![due, event("at once")]).await;
        until("what is due at once is delivered", async || {
            let messages = sink.messages();
            messages.iter().any(|one| one.subject() == Some("at once"))
        })
        .await;
        // Only who lets in delayed events waits, and only while the other does so, which is a statement.
        other.rollback().await.unwrap();
        timeout(SOON, sink.wait_for(2)).await.unwrap();
        relay.drain(SOON).await;
        billing.close().await;
        shipping.close().await;
        database.gone().await;
    }
}
