//! What the server's answers to a transaction say of each entry, and of the server.

use redis::{ServerError, Value};

/// What became of a transaction.
#[derive(Debug, PartialEq)]
pub(super) enum Answers {
    /// It was run, and each entry has its result.
    Run(Vec<Entry>),
    /// It was not, as the server did not queue these entries, for these reasons.
    NotQueued(Vec<Option<String>>),
    /// It was not, or not as it has to be, and no entry is to blame.
    Down(String),
}

/// What became of an entry.
#[derive(Debug, PartialEq)]
pub(super) enum Entry {
    Appended,
    /// By its own fault.
    Wrong(String),
    /// By its own fault or that of the server's set-up.
    Refused(String),
    /// By no fault of its own.
    Down(String),
}

/// Reads the answers to MULTI, the entries, EXEC and, where there are to be replicas, WAIT.
pub(super) fn read(answers: Vec<Value>, entries: usize, replicas: u32) -> Answers {
    let mut answers = answers.into_iter();
    if let Some(Value::ServerError(error)) = answers.next() {
        return Answers::Down(said(&error));
    }
    let mut not_queued = Vec::with_capacity(entries);
    for answer in answers.by_ref().take(entries) {
        not_queued.push(match answer {
            Value::ServerError(error) if is_the_servers(&error) => {
                return Answers::Down(said(&error));
            }
            Value::ServerError(error) => Some(said(&error)),
            _ => None,
        });
    }
    if not_queued.iter().any(Option::is_some) {
        return Answers::NotQueued(not_queued);
    }
    let results = match answers.next() {
        Some(Value::Array(results)) => results,
        Some(Value::ServerError(error)) => return Answers::Down(said(&error)),
        _ => return Answers::Down("the transaction was not run".to_owned()),
    };
    if replicas > 0 {
        match answers.next() {
            Some(Value::Int(have)) if have >= i64::from(replicas) => {}
            Some(Value::ServerError(error)) => return Answers::Down(said(&error)),
            _ => return Answers::Down("too few replicas have it in time".to_owned()),
        }
    }
    Answers::Run(results.iter().map(entry).collect())
}

fn entry(result: &Value) -> Entry {
    match result {
        Value::ServerError(error) if error.code() == "WRONGTYPE" => Entry::Wrong(said(error)),
        // A script meets at its own command what keeps the server from writing.
        Value::ServerError(error) if is_the_servers(error) => Entry::Down(said(error)),
        Value::ServerError(error) => Entry::Refused(said(error)),
        _ => Entry::Appended,
    }
}

/// Texts of errors may repeat keys and users; codes do not.
fn said(error: &ServerError) -> String {
    format!("the server answered {}", error.code())
}

/// Whether the server would answer so whatever was asked of it.
fn is_the_servers(error: &ServerError) -> bool {
    match error.code() {
        "BUSY" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "MISCONF" | "NOAUTH" | "NOREPLICAS"
        | "OOM" | "READONLY" => true,
        // Of a command that the user may not run, in whichever version's words; of a key it is about that key.
        "NOPERM" => error
            .details()
            .is_some_and(|details| details.contains("permissions to run")),
        _ => false,
    }
}
