//! The drill is clean on a service that keeps its promises, and not on one whose promises are broken.

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use crate::service::{program, wait};

fn drill(arguments: &[&str]) -> (Option<i32>, String) {
    // A drill that is not clean keeps its data: here, where it goes away with the test.
    let folder = tempfile::tempdir().unwrap();
    let mut child = program(&["drill"])
        .args(arguments)
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = wait(&mut child, Duration::from_secs(150));
    let Output { stdout, stderr, .. } = child.wait_with_output().unwrap();
    (
        status.code(),
        format!(
            "{}{}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        ),
    )
}

#[test]
fn a_drill_on_sqlite_is_clean() {
    let (status, report) = drill(&["--seconds", "6"]);
    assert_eq!(status, Some(0), "{report}");
    assert!(report.contains("kills (SIGKILL)"), "{report}");
}

#[test]
#[ignore = "needs a server; tests/run brings it up"]
fn a_drill_on_postgres_is_clean() {
    let url = std::env::var("MAINSTAY_TEST_POSTGRES_URL").expect("run this test through tests/run");
    let (status, report) = drill(&["--seconds", "6", "--database-url", &url]);
    assert_eq!(status, Some(0), "{report}");
}

#[test]
fn a_key_for_each_attempt_is_found_out() {
    let (status, report) = drill(&["--seconds", "4", "--sabotage", "double-effect"]);
    assert_eq!(status, Some(1), "{report}");
    assert!(
        report.contains("payments exist again under the same reference"),
        "{report}"
    );
}

#[test]
fn a_consumer_that_loses_events_is_found_out() {
    let (status, report) = drill(&["--seconds", "4", "--sabotage", "lose-event"]);
    assert_eq!(status, Some(1), "{report}");
    assert!(report.contains("events were never applied"), "{report}");
}
