//! `requests`: the jobs of an endpoint as a table, page after page.

use std::borrow::Cow;

use serde::Deserialize;

use super::args::RequestsArgs;
use super::call::{Request, Server};
use super::console::Console;
use super::failure::{Failure, Outcome};
use super::job::Job;
use super::show::printable;
use super::times::{duration, utc};

/// The most a server hands out in one answer.
const PAGE: u64 = 100;

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
    let mut left = if args.all { u64::MAX } else { args.limit };
    let mut cursor: Option<String> = None;
    let mut table = Table {
        widths: [0, 11, 19, 10, 10, 0, 0],
        has_header: false,
    };
    loop {
        let limit = left.min(PAGE).to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(args.status.as_deref().map(|status| ("status", status)));
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let request = Request {
            query: &query,
            ..Request::get(format!("{}/requests", args.endpoint))
        };
        let reply = server.call(request).await?;
        let page: Page<'_> = reply.parse()?;
        if console.json {
            console.document(reply.text())?;
        } else {
            table.print(&page.requests, console)?;
        }
        left = left.saturating_sub(page.requests.len() as u64);
        let next = page
            .next
            .filter(|next| !next.is_empty() && cursor.as_deref() != Some(next));
        let Some(next) = next else {
            return Ok(Outcome::Fine);
        };
        if left == 0 {
            if console.err_is_terminal && !console.json {
                console.note("there are more: ask with a higher --limit, or --all");
            }
            return Ok(Outcome::Fine);
        }
        cursor = Some(next.into_owned());
    }
}

/// Column widths that fit most pages from the start and only grow, so that the pages of one listing
/// line up.
struct Table {
    widths: [usize; COLUMNS],
    has_header: bool,
}

impl Table {
    fn print(&mut self, jobs: &[Job<'_>], console: &mut Console) -> Result<(), Failure> {
        let mut rows: Vec<[String; COLUMNS]> = Vec::with_capacity(jobs.len() + 1);
        if !std::mem::replace(&mut self.has_header, true) {
            rows.push(HEADER.map(str::to_owned));
        }
        rows.extend(jobs.iter().map(row));
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &rows {
            let cells: Vec<String> = row
                .iter()
                .zip(self.widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            console.text(cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

fn row(job: &Job<'_>) -> [String; COLUMNS] {
    let error = job.error().map(|error| {
        let line = printable(error.first_line());
        let mut short: String = line.chars().take(ERROR_CHARS).collect();
        if short.len() < line.len() {
            short.push('…');
        }
        short
    });
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
