//! The service, how it is started, and how it is asked.

use std::env;
use std::io;
use std::process::{self, Stdio};
use std::str::FromStr;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use http::{HeaderName, StatusCode};
use mainstay_errors::{Category, Error, Problem};
use mainstay_idempotency::leased::{LeasedDb, Leases};
use mainstay_idempotency::{IdemTx, IdempotencyLayer, LentLease, Scope, Wait};
use sqlx::{ConnectOptions, Connection, Pool};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use uuid::Uuid;

use crate::db::TestDb;

/// Set in the service's process only, to the name of its database.
pub const SERVICE: &str = "MAINSTAY_TEST_SERVICE";
const SERVICE_URL: &str = "MAINSTAY_TEST_SERVICE_URL";

const LISTENING: &str = "service listening on ";
const HOLDING: &str = "service holding";

/// The scope of [`crate::app::App`], so that this process can ask for the same keys.
pub async fn serve<D: TestDb + LeasedDb>() {
    let options =
        <D::Connection as Connection>::Options::from_str(&env::var(SERVICE_URL).unwrap()).unwrap();
    let pool = Pool::<D>::connect_with(options).await.unwrap();
    let idempotency = IdempotencyLayer::<D>::local(pool.clone())
        .scope(|_| Ok::<_, Problem>(Scope::new("acme", "", "pay")))
        .wait(Wait::Up(Duration::from_secs(2)));
    let leased = IdempotencyLayer::leased(Leases::new(pool).lease_time(LEASE_TIME))
        .scope(|_| Ok::<_, Problem>(Scope::new("acme", "", "steps")));
    let router = Router::new()
        .route("/pay", post(pay::<D>))
        .route_layer(idempotency)
        .merge(
            Router::new()
                .route("/steps", post(steps::<D>))
                .route_layer(leased),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{LISTENING}{}", listener.local_addr().unwrap().port());
    axum::serve(listener, router).await.unwrap();
}

/// Two statements, so that there is something to be killed between. Each run has an answer of its own.
async fn pay<D: TestDb>(mut tx: IdemTx<D>, body: String) -> (StatusCode, String) {
    for half in ["debit", "credit"] {
        let name = format!("{body} {half}");
        if D::effect(&mut tx, &name).await.is_err() {
            return (StatusCode::SERVICE_UNAVAILABLE, String::new());
        }
    }
    if body.starts_with("hold") {
        println!("\n{HOLDING}");
        if body.starts_with("hold busy") {
            _ = D::raw(&mut tx, "select pg_sleep(60)").await;
        }
        std::future::pending::<()>().await;
    }
    (StatusCode::CREATED, Uuid::new_v4().to_string())
}

/// Over before the next process is up; and short enough to run out under a living holder on a busy machine.
const LEASE_TIME: Duration = Duration::from_millis(100);

pub const STEPS: [&str; 3] = ["reserve", "charge", "ship"];

/// Each step has an effect of its own. The answer is what each returned to the process that ran it.
async fn steps<D: TestDb + LeasedDb>(
    mut lease: LentLease<Pool<D>>,
    body: String,
) -> Result<(StatusCode, String), Error> {
    let mut answer = Vec::new();
    for name in STEPS {
        let effect = format!("{body} {name}");
        let done = lease.step(name, async move |mut tx: IdemTx<D>, _| {
            let busy = |_| Problem::new(Category::Unavailable, "not_now");
            D::effect(&mut tx, &effect).await.map_err(busy)?;
            Ok::<_, Problem>(format!("{}-{}", process::id(), Uuid::new_v4().simple()))
        });
        answer.push(done.await?);
    }
    Ok((StatusCode::CREATED, answer.join(" ")))
}

/// The service's process. Dropped, it is killed.
pub struct Service {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pub port: u16,
}

impl Service {
    pub async fn start<D: TestDb>(pool: &Pool<D>, more: &str) -> Self {
        let mut url = pool.connect_options().to_url_lossy().to_string();
        if !more.is_empty() {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(more);
        }
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "processes::the_service_that_others_kill",
                "--nocapture",
            ])
            .env(SERVICE, D::NAME)
            .env(SERVICE_URL, url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut service = Self {
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
            port: 0,
        };
        let line = service.line(LISTENING).await;
        service.port = line.parse().unwrap();
        service
    }

    /// Until a handler holds its transaction.
    pub async fn holding(&mut self) {
        self.line(HOLDING).await;
    }

    async fn line(&mut self, start: &str) -> String {
        let found = async {
            loop {
                let line = self.lines.next_line().await.unwrap();
                let line = line.expect("the service has ended");
                if let Some(at) = line.find(start) {
                    return line[at + start.len()..].to_owned();
                }
            }
        };
        timeout(Duration::from_secs(30), found)
            .await
            .unwrap_or_else(|_| panic!("no {start:?}"))
    }

    /// SIGKILL, and nothing of it is left.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub replayed: bool,
    pub body: String,
}

/// One request on a connection of its own. What is cut off before its end is an error.
pub async fn ask(port: u16, path: &str, key: &str, body: &str) -> io::Result<Answer> {
    let asking = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nidempotency-key: \"{key}\"\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        read(&answer).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    };
    timeout(Duration::from_secs(10), asking).await?
}

fn read(answer: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header = |name: HeaderName| {
        lines
            .clone()
            .filter_map(|line| line.split_once(": "))
            .find(|(known, _)| *known == name.as_str())
            .map(|(_, value)| value)
    };
    let length: usize = header(http::header::CONTENT_LENGTH)?.parse().ok()?;
    (body.len() == length).then(|| Answer {
        status,
        replayed: header(HeaderName::from_static("idempotent-replayed")).is_some(),
        body: body.to_owned(),
    })
}
