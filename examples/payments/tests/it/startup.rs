//! A start that cannot succeed says why in one line and ends with status 1.

use std::{process::Stdio, time::Duration};

use crate::service::{Service, serve, wait};

/// Runs `payments serve` to its end and returns what it said on standard error.
fn failing_start(environment: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut child = serve(folder.path())
        .env("RUST_LOG", "off")
        .envs(environment.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = wait(&mut child, Duration::from_secs(30));
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[tokio::test]
async fn a_port_in_use_is_said_in_one_line() {
    let service = Service::start();
    let taken = service.base.strip_prefix("http://").unwrap().to_owned();
    let said = failing_start(&[("PAYMENTS_ADDR", &taken)]);
    assert!(said.contains(&taken), "{said}");
}

#[test]
fn a_database_that_cannot_be_reached_is_said_in_one_line_without_its_password() {
    for url in [
        "sqlite:///no/such/folder/payments.db",
        "postgres://someone:hunter2@127.0.0.1:1/payments",
        "mysql://root@127.0.0.1/x",
        "nonsense",
    ] {
        let said = failing_start(&[("DATABASE_URL", url)]);
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_variable_that_cannot_be_used_is_named() {
    for (variable, value) in [
        ("PAYMENTS_ADDR", "here"),
        ("PAYMENTS_TENANTS", "token-without-tenant"),
        ("PAYMENTS_WEBHOOK_SECRET", "whsec_short"),
        ("PAYMENTS_CURSOR_KEY", "short"),
        ("PAYMENTS_OUTBOX_LEASE_SECONDS", "0"),
        ("PAYMENTS_EVENTS_URL", "http://127.0.0.1/events"), // and no secret to sign with
    ] {
        let said = failing_start(&[(variable, value)]);
        assert!(said.contains("PAYMENTS_"), "{variable}: {said}");
        assert!(!said.contains("token-without-tenant"), "{said}");
    }
}
