//! The pages: one for a code, one that lists them.

use std::fmt::Write;

use http::StatusCode;

use super::prose::{self, escape};
use crate::problem::{type_of, whole_seconds};
use crate::{Descriptor, Outcome, Registry, Retry};

/// The page of a code.
pub(super) fn page(registry: &Registry, descriptor: &Descriptor) -> String {
    let title = escape(&descriptor.title());
    let code = escape(descriptor.code());
    let status = registry.status_for(descriptor);
    let docs = prose::html(descriptor.docs());
    let mut facts = String::new();
    fact(&mut facts, "HTTP status", &escape(&in_words(status)));
    fact(
        &mut facts,
        "Category",
        &in_code(descriptor.category().as_str()),
    );
    fact(&mut facts, "Type", &in_code(&registry.type_for(descriptor)));
    if let Some(domain) = registry.domain_of(descriptor) {
        fact(&mut facts, "Domain", &in_code(domain));
    }
    for (name, value) in descriptor.headers() {
        fact(&mut facts, "Header", &in_code(&format!("{name}: {value}")));
    }
    let problem = descriptor
        .to_problem()
        .with_status(status)
        .with_default_type_base(registry.base());
    let example = escape(&serde_json::to_string_pretty(&problem).unwrap_or_default());
    let retry = descriptor.retry();
    let body = format!(
        "<nav><a href=\"./#{code}\">All problems</a></nav>\n\
         <header><p class=\"status s{class}\">{status}</p><h1>{title}</h1><p><code>{code}</code></p></header>\n\
         {docs}<section class=\"answers\">\n\
         <div><h2>May I try again?</h2><p>{retry_words}</p><p class=\"word\"><code>retry: {retry}</code></p></div>\n\
         <div><h2>Did it take effect?</h2><p>{outcome_words}</p><p class=\"word\"><code>outcome: {outcome}</code></p></div>\n\
         </section>\n\
         <p class=\"note\">This is what the code usually means. The <code>retry</code> and <code>outcome</code> of the \
         document you got are about your request, and count before it.</p>\n\
         <h2>Facts</h2>\n<dl>{facts}</dl>\n\
         <h2>The document</h2>\n<pre><code>{example}</code></pre>\n\
         <p class=\"note\">An occurrence may add <code>detail</code>, <code>request_id</code>, <code>errors</code> and \
         members of its own. Match on <code>code</code>, never on a text.</p>\n",
        class = status / 100,
        retry_words = escape(&retry_in_words(descriptor)),
        outcome = descriptor.outcome().as_str(),
        outcome_words = escape(outcome_in_words(descriptor.outcome())),
    );
    document(&descriptor.title(), &body)
}

/// The list of all codes, whose pages are at `below`.
pub(super) fn list(registry: &Registry, below: &str) -> String {
    let (general, own): (Vec<_>, Vec<_>) = registry
        .iter()
        .partition(|descriptor| descriptor.owner() == "mainstay_errors");
    let mut body = String::from(
        "<header><h1>Problems</h1><p>Every failure that this service answers with, by the <code>code</code> in its \
         document.</p></header>\n",
    );
    for (heading, codes) in [("Of this service", own), ("In general", general)] {
        if codes.is_empty() {
            continue;
        }
        body.push_str(&format!(
            "<h2>{heading}</h2>\n<div class=\"wide\"><table>\n<thead><tr><th>Code</th><th>Status</th><th>What it \
             means</th><th>May I try again?</th></tr></thead>\n<tbody>\n"
        ));
        for descriptor in codes {
            row(&mut body, registry, descriptor, below);
        }
        body.push_str("</tbody></table></div>\n");
    }
    document("Problems", &body)
}

fn row(body: &mut String, registry: &Registry, descriptor: &Descriptor, below: &str) {
    let code = escape(descriptor.code());
    // With `./` in front, a colon in a name does not look like a scheme (RFC 3986 §4.2).
    let link = escape(&type_of(&format!("./{below}"), descriptor.code()));
    let status = registry.status_for(descriptor);
    let first = descriptor.docs().split("\n\n").next().unwrap_or_default();
    let means = if first.is_empty() {
        escape(&descriptor.title())
    } else {
        prose::html(first)
    };
    body.push_str(&format!(
        "<tr id=\"{code}\"><td><a href=\"{link}\"><code>{code}</code></a></td><td class=\"s{class}\">{status}</td>\
         <td>{means}</td><td>{retry}</td></tr>\n",
        class = status / 100,
        retry = retry_in_short(descriptor.retry()),
    ));
}

fn fact(facts: &mut String, name: &str, value: &str) {
    facts.push_str(&format!("<dt>{name}</dt><dd>{value}</dd>"));
}

fn in_code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

fn in_words(status: u16) -> String {
    let reason = StatusCode::from_u16(status).ok();
    let reason = reason.and_then(|status| status.canonical_reason());
    format!("{status} {}", reason.unwrap_or_default())
}

fn retry_in_words(descriptor: &Descriptor) -> String {
    let mut words = match descriptor.retry() {
        Retry::Never => "Never: the same request fails the same way. Change it first.",
        Retry::Backoff => {
            "Yes, later: wait before each attempt, longer every time and not all clients at once."
        }
        Retry::After(_) => "Yes, later, and not before the time that the document names.",
        Retry::SameKeyOnly => {
            "Only under the idempotency key of the first attempt: the work may have been done already."
        }
        Retry::Transaction => {
            "Yes: run the whole unit of work again, from its first read. Never the failed step alone."
        }
        Retry::AfterAuth => "Yes, with fresh credentials.",
        Retry::AfterStateChange => {
            "Only once something has changed the state that stands in the way."
        }
    }
    .to_owned();
    if let Some(wait) = descriptor.retry_after() {
        let seconds = whole_seconds(wait);
        let unit = if seconds == 1 { "second" } else { "seconds" };
        // Writing to a string cannot fail.
        let _ = write!(words, " Wait {seconds} {unit} first.");
    }
    words
}

const fn retry_in_short(retry: Retry) -> &'static str {
    match retry {
        Retry::Never => "Never",
        Retry::Backoff | Retry::After(_) => "Yes, later",
        Retry::SameKeyOnly => "Only under the same key",
        Retry::Transaction => "The whole unit of work",
        Retry::AfterAuth => "With fresh credentials",
        Retry::AfterStateChange => "After a change of state",
    }
}

const fn outcome_in_words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::NotApplied => "No. Nothing of the request took effect.",
        Outcome::Applied => "Yes. The request took effect, though the answer is an error.",
        Outcome::Unknown => {
            "Nobody knows. It may have: read back what became of it, or try again under the same idempotency key."
        }
    }
}

fn document(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

const STYLE: &str = "\
:root{color-scheme:light dark;--paper:#fff;--ink:#1c2128;--dim:#59636e;--line:#d8dee4;--tint:#f4f6f8;--link:#0a58ca;--warm:#8a4600;--hot:#b42318}
@media(prefers-color-scheme:dark){:root{--paper:#14181d;--ink:#e4e8ec;--dim:#9aa4af;--line:#313943;--tint:#1d232a;--link:#7cb7ff;--warm:#f0b567;--hot:#ff8a80}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.6 system-ui,sans-serif;overflow-wrap:break-word}
main{max-width:58rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
main>p,main>ul,main>ol{max-width:42rem}
a{color:var(--link)}
nav{margin-bottom:2rem;font-size:.9rem}
h1{font-size:2rem;line-height:1.2;margin:.15rem 0}
h2{font-size:1.1rem;margin:2.5rem 0 .6rem}
h3{font-size:1rem;margin:1.5rem 0 .4rem}
header{margin-bottom:1.75rem}
header p{margin:.25rem 0;color:var(--dim)}
code,pre{font:.9em/1.5 ui-monospace,monospace}
pre{background:var(--tint);border:1px solid var(--line);border-radius:.5rem;padding:1rem;overflow-x:auto}
.status{font-weight:600;letter-spacing:.04em}
header .s4,td.s4{color:var(--warm)}
header .s5,td.s5{color:var(--hot)}
.answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(16rem,1fr));gap:1rem;margin:2rem 0 1rem}
.answers div{background:var(--tint);border:1px solid var(--line);border-radius:.5rem;padding:1rem 1.25rem}
.answers h2{margin:0 0 .4rem}
.answers p{margin:.4rem 0}
.word,.note{color:var(--dim);font-size:.9rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.4rem 1.5rem;margin:0}
dt{color:var(--dim)}
dd{margin:0;min-width:0}
.wide{overflow-x:auto}
table{border-collapse:collapse;table-layout:fixed;width:100%;min-width:46rem;font-size:.95rem}
th:nth-child(1){width:17rem}
th:nth-child(2){width:4.5rem}
th:nth-child(4){width:11rem}
th{text-align:left;color:var(--dim);font-weight:600;font-size:.85rem}
th,td{padding:.55rem 1rem .55rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td p,td ul{margin:0}
td:nth-child(2){font-variant-numeric:tabular-nums}
tr:target{background:var(--tint);outline:2px solid var(--link)}
@media print{.answers div,pre{break-inside:avoid}}";
