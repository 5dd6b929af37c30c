//! A running `payments serve`, and a client that takes nothing for granted.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub const ACME: &str = "Bearer dev-acme";
pub const GLOBEX: &str = "Bearer dev-globex";
pub const WEBHOOK_SECRET: &str = "whsec_bWFpbnN0YXkgbWFpbnN0YXkgbWFpbnN0YXkgISE=";

/// The program, with an environment that says nothing but what a test adds.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_payments"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars() {
        if name.starts_with("PAYMENTS_") || name == "DATABASE_URL" || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// `payments serve` on a free port, with its database in `folder`.
pub fn serve(folder: &Path) -> Command {
    let database = format!("sqlite://{}", folder.join("payments.db").display());
    let mut command = program(&["serve"]);
    command
        .env("PAYMENTS_ADDR", "127.0.0.1:0")
        .env("DATABASE_URL", database);
    command
}

/// The service as a child process on a database of its own.
pub struct Service {
    child: Child,
    pub base: String,
    client: Client<HttpConnector, Full<Bytes>>,
    failed: Mutex<BTreeSet<Failure>>,
    folder: tempfile::TempDir,
}

/// What was asked, and the status and code it failed with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Failure {
    method: String,
    path: String,
    status: u16,
    code: String,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// A problem document with everything that one of ours carries; returns it.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let body = self.json();
        assert_eq!(self.status, status, "{body}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{body}"
        );
        assert_eq!(body["status"], status, "{body}");
        assert_eq!(body["code"], code, "{body}");
        for member in ["type", "title", "retry", "outcome", "request_id"] {
            assert!(body[member].is_string(), "{member} is missing in {body}");
        }
        assert_eq!(
            body["request_id"].as_str(),
            self.header("x-request-id"),
            "{body}"
        );
        body
    }

    /// The pointers of a problem's violations.
    pub fn pointers(&self) -> Vec<String> {
        let body = self.json();
        let errors = body["errors"].as_array().cloned().unwrap_or_default();
        errors
            .iter()
            .map(|error| error["pointer"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

impl Service {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = serve(folder.path())
            .env("PAYMENTS_WEBHOOK_SECRET", WEBHOOK_SECRET)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let base = line
            .trim()
            .strip_prefix("listening on ")
            .unwrap_or_else(|| {
                let mut log = String::new();
                let _ = std::fs::File::open(folder.path().join("log"))
                    .and_then(|mut file| file.read_to_string(&mut log));
                panic!("the first line was {line:?}; the log: {log}")
            });
        Self {
            child,
            base: base.to_owned(),
            // A connection for each request: the service closes the one on which it refused a body unread, and a pool
            // would now and then hand that one out once more.
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build_http(),
            failed: Mutex::default(),
            folder,
        }
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let method_name = method.to_string();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self
            .client
            .request(request.body(Full::new(body.into())).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let answer = Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        };
        if answer.status.as_u16() >= 400 {
            let failure = Failure {
                method: method_name.to_lowercase(),
                path: path.split('?').next().unwrap().to_owned(),
                status: answer.status.as_u16(),
                code: answer.json()["code"].as_str().unwrap().to_owned(),
            };
            self.failed.lock().unwrap().insert(failure);
        }
        answer
    }

    /// Every code that this service has answered with so far is an example of its operation in `/openapi.json`, and
    /// every one of them has a page. Returns the codes. (What was asked of no operation has none: 404 and 405.)
    pub async fn assert_failures_are_documented(&self) -> BTreeSet<String> {
        let interface = self.get("/openapi.json").await.json();
        let failed = self.failed.lock().unwrap().clone();
        let mut codes = BTreeSet::new();
        for failure in failed {
            let page = format!("/problems/{}", failure.code);
            assert_eq!(self.get(&page).await.status, 200, "{page}");
            let paths = interface["paths"].as_object().unwrap();
            let operation = paths
                .iter()
                .find(|(template, _)| is_at(template, &failure.path))
                .and_then(|(_, item)| item.get(&failure.method));
            let Some(operation) = operation else {
                assert!(matches!(failure.status, 404 | 405), "{failure:?}");
                continue;
            };
            let response = &operation["responses"][failure.status.to_string()];
            let content = &response["content"]["application/problem+json"];
            let example = &content["examples"][&failure.code]["value"];
            assert_eq!(
                (&example["status"], &example["code"]),
                (&failure.status.into(), &failure.code.as_str().into()),
                "{failure:?} is not in {response:#}"
            );
            codes.insert(failure.code);
        }
        codes
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[("authorization", ACME)], "")
            .await
    }

    pub async fn pay(&self, token: &str, key: &str, body: impl Into<Bytes>) -> Answer {
        let headers = [
            ("authorization", token),
            ("idempotency-key", key),
            ("content-type", "application/json"),
        ];
        self.send(Method::POST, "/v1/payments", &headers, body)
            .await
    }

    /// Asks it to end and returns its exit status.
    pub fn terminate(mut self) -> std::process::ExitStatus {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        wait(&mut self.child, Duration::from_secs(20))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a path is one of a template such as `/v1/payments/{id}`.
fn is_at(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) =
        (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template
            .iter()
            .zip(path)
            .all(|(of, is)| *of == is || of.starts_with('{'))
}

/// Waits for a child, at the longest for `patience`.
#[allow(
    clippy::disallowed_methods,
    reason = "another process is waited for: there is no clock to pause"
)]
pub fn wait(child: &mut Child, patience: Duration) -> std::process::ExitStatus {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(
            Instant::now() < deadline,
            "the program did not end in {patience:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A payment's body.
pub fn order(reference: &str) -> String {
    serde_json::json!({ "amount": 1250, "currency": "EUR", "reference": reference }).to_string()
}
