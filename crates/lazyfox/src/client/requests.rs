//! `requests`: the jobs of an endpoint as a table, page after page.

use std::borrow::Cow;

use serde::Deserialize;

use super::args::RequestsArgs;
use super::call::Server;
use super::console::Console;
use super::failure::{Failure, Outcome};
use super::job::Job;
use super::pages::Pages;
use super::show::printable;
use super::table::{Table, short};
use super::times::{duration, utc};

/// Longest piece of an error in the table: a row must fit a wide terminal.
const ERROR_CHARS: usize = 60;

const HEADER: [&str; COLUMNS] = [
    "ID",
    "STATUS",
    "CREATED (UTC)",
    "DELAY",
    "EXECUTION",
    "WORKER",
    "ERROR",
];
const WIDTHS: [usize; COLUMNS] = [0, 11, 19, 10, 10, 0, 0];
const COLUMNS: usize = 7;

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    requests: Vec<Job<'a>>,
    #[serde(borrow)]
    next: Option<Cow<'a, str>>,
}

/// Prints up to the wanted number of jobs.
pub(super) async fn requests(
    args: &RequestsArgs,
    server: &Server,
    console: &mut Console,
) -> Result<Outcome, Failure> {
    let path = format!("{}/requests", args.endpoint);
    let filters = args.status.iter().map(|status| ("status", status.as_str()));
    let mut pages = Pages::new(server, path, filters.collect(), args.list.wanted());
    let mut table = Table::new(HEADER, WIDTHS);
    while let Some(reply) = pages.next().await? {
        let page: Page<'_> = reply.parse()?;
        if console.json {
            console.document(reply.text())?;
        } else {
            table.print(page.requests.iter().map(row), console)?;
        }
        pages.go_on(page.requests.len(), page.next.as_deref(), console);
    }
    Ok(Outcome::Fine)
}

fn row(job: &Job<'_>) -> [String; COLUMNS] {
    let error = job
        .error()
        .map(|error| short(error.first_line(), ERROR_CHARS));
    [
        printable(&job.id),
        printable(&job.status),
        job.created_at.map(utc).unwrap_or_default(),
        job.delay_time.map(duration).unwrap_or_default(),
        job.execution_time.map(duration).unwrap_or_default(),
        job.worker_id.as_deref().map(printable).unwrap_or_default(),
        error.unwrap_or_default(),
    ]
}
