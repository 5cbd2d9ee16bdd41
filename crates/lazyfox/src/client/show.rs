//! What a person sees of a job.

use std::fmt::Write as _;

use serde_json::value::RawValue;

use super::call::Reply;
use super::console::Console;
use super::failure::Failure;
use super::job::Job;
use super::pretty::pretty;
use super::times::{duration, utc};

/// Prints a job: the server's document for scripts, a page for people.
pub(super) fn show(reply: &Reply, console: &mut Console) -> Result<(), Failure> {
    if console.json {
        return console.document(reply.text());
    }
    let page = page(&reply.job()?);
    console.text(page.trim_end())
}

fn page(job: &Job<'_>) -> String {
    let mut page = String::new();
    let mut field = |name: &str, value: &str| {
        writeln!(page, "{name:<10} {}", printable(value)).expect("writing to a string cannot fail");
    };
    field("id", &job.id);
    field("status", &job.status);
    if let Some(ms) = job.delay_time {
        field("delay", &duration(ms));
    }
    if let Some(ms) = job.execution_time {
        field("execution", &duration(ms));
    }
    for (name, time) in [
        ("created", job.created_at),
        ("started", job.started_at),
        ("completed", job.completed_at),
    ] {
        if let Some(ms) = time {
            field(name, &format!("{} UTC", utc(ms)));
        }
    }
    if let Some(worker) = &job.worker_id {
        field("worker", worker);
    }
    if let Some(retries) = job.retries {
        field("retries", &retries.to_string());
    }
    if let Some(error) = job.error() {
        field("error", &error.message);
        if let Some(traceback) = &error.traceback {
            page.push('\n');
            page.push_str(&printable(traceback.trim_end()));
            page.push('\n');
        }
    }
    if let Some(output) = job.output {
        page.push('\n');
        page.push_str(&bare(output));
        page.push('\n');
    }
    page
}

/// A JSON value for the eye: a text without its quotes and escapes, anything else indented.
pub(super) fn bare(value: &RawValue) -> String {
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) => printable(&text),
        // Not a string.
        Err(_) => pretty(value.get()),
    }
}

/// The text with control characters made visible: what a handler returns must not be able to move
/// the cursor or rename the window of whoever looks at it.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let hidden = c.is_control() && c != '\n' && c != '\t';
            let escaped = hidden.then(|| c.escape_default());
            let plain = (!hidden).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}
