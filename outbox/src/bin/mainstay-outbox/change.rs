//! Commands that change something: they count first, and ask.

use std::io::{self, BufRead, IsTerminal, Write};

use mainstay_outbox::{Admin, Bulk, Error, Filter, OutboxDb};
use serde_json::json;

use crate::{
    Answer, Failure,
    args::{BulkDead, BulkKept, How},
    progress::Progress,
    table::printable,
};

/// Where counting stops what a change would meet: a person wants to know the number, and waits for it.
const COUNT_MAX: u64 = 5_000;

pub(crate) async fn redrive<Db: OutboxDb>(
    admin: &Admin<Db>,
    args: &BulkDead,
) -> Result<Answer, Failure> {
    let filter = args.which.filter_to_change(args.cause)?;
    let found = admin.count_to_redrive(filter.clone(), COUNT_MAX);
    if let Some(answer) = before(&args.how, "redrive", "dead letters", found).await? {
        return Ok(answer);
    }
    let moved = admin.redrive(bulk(filter, &args.how)).await?;
    Ok(Answer::new(
        json!({ "redriven": moved }),
        format!("{moved} redriven"),
    ))
}

pub(crate) async fn discard<Db: OutboxDb>(
    admin: &Admin<Db>,
    args: &BulkDead,
) -> Result<Answer, Failure> {
    let filter = args.which.filter_to_change(args.cause)?;
    let found = admin.count_dead(filter.clone(), COUNT_MAX);
    if let Some(answer) = before(&args.how, "discard for ever", "dead letters", found).await? {
        return Ok(answer);
    }
    let done = admin.discard(bulk(filter, &args.how)).await?;
    Ok(Answer::new(
        json!({ "discarded": done.discarded, "released": done.released }),
        format!("{} discarded, {} released", done.discarded, done.released),
    ))
}

pub(crate) async fn replay<Db: OutboxDb>(
    admin: &Admin<Db>,
    args: &BulkKept,
) -> Result<Answer, Failure> {
    let filter = args.which.filter_to_change(None)?;
    let found = admin.count_delivered(filter.clone(), COUNT_MAX);
    if let Some(answer) = before(&args.how, "replay", "deliveries", found).await? {
        return Ok(answer);
    }
    let moved = admin.replay(bulk(filter, &args.how)).await?;
    Ok(Answer::new(
        json!({ "replayed": moved }),
        format!("{moved} replayed"),
    ))
}

pub(crate) async fn pause<Db: OutboxDb>(
    admin: &Admin<Db>,
    pattern: &str,
) -> Result<Answer, Failure> {
    let news = admin.pause(pattern).await?;
    let said = if news { "paused" } else { "was paused already" };
    Ok(Answer::new(
        json!({ "pattern": pattern, "changed": news }),
        format!("{} {said}", printable(pattern)),
    ))
}

pub(crate) async fn resume<Db: OutboxDb>(
    admin: &Admin<Db>,
    pattern: &str,
) -> Result<Answer, Failure> {
    let news = admin.resume(pattern).await?;
    let said = if news { "resumed" } else { "was not paused" };
    Ok(Answer::new(
        json!({ "pattern": pattern, "changed": news }),
        format!("{} {said}", printable(pattern)),
    ))
}

/// What is said before anything is done: the count of a dry run, or nothing when it may be done. What nobody is told is not
/// counted: it may take as long as the change.
async fn before(
    how: &How,
    verb: &str,
    what: &str,
    found: impl Future<Output = Result<u64, Error>>,
) -> Result<Option<Answer>, Failure> {
    if how.yes && !how.dry_run {
        return Ok(None);
    }
    let found = found.await?;
    let meant = how.limit.map_or(found, |limit| found.min(limit));
    let more = if meant == COUNT_MAX { " or more" } else { "" };
    if how.dry_run {
        let answer = Answer::new(
            json!({ "dry_run": true, "found": meant, "at_least": !more.is_empty() }),
            format!("would {verb}: {meant}{more} {what}"),
        );
        return Ok(Some(answer));
    }
    if meant == 0 {
        return Ok(None);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::NotConfirmed);
    }
    let mut err = io::stderr().lock();
    write!(err, "{verb} {meant}{more} {what}? Type yes: ")?;
    err.flush()?;
    let mut said = String::new();
    io::stdin().lock().read_line(&mut said)?;
    if said.trim() == "yes" {
        Ok(None)
    } else {
        Err(Failure::NotConfirmed)
    }
}

fn bulk(filter: Filter, how: &How) -> Bulk {
    let mut bulk = Bulk::of(filter).per_second(how.per_second);
    if let Some(limit) = how.limit {
        bulk = bulk.limit(limit);
    }
    if io::stderr().is_terminal() {
        let mut progress = Progress::new(io::stderr());
        bulk = bulk.on_progress(move |done| progress.show(done));
    }
    bulk
}
