//! `workers`: what each worker of an endpoint does, and why those that are gone went.

use std::borrow::Cow;

use lazyfox_core::time::Timestamp;
use serde::Deserialize;

use super::args::WorkersArgs;
use super::call::{Request, Server};
use super::console::Console;
use super::failure::{Failure, Outcome};
use super::show::printable;
use super::table::{Table, short};
use super::times::{roughly, utc};
use crate::clock::Clock;

/// Longest reason in the table; all of it is in the JSON document.
const REASON_CHARS: usize = 90;
/// Lines of a worker's output that are shown under its end.
const LINES: usize = 5;

const HEADER: [&str; 7] = ["WORKER", "STATUS", "VERSION", "UP", "GPUS", "JOB", "WHY"];
const WIDTHS: [usize; 7] = [14, 12, 7, 6, 4, 4, 0];
const GONE_HEADER: [&str; 4] = ["STOPPED (UTC)", "WORKER", "VERSION", "WHY"];
const GONE_WIDTHS: [usize; 4] = [19, 14, 7, 0];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Workers<'a> {
    #[serde(borrow)]
    workers: Vec<Worker<'a>>,
    #[serde(borrow)]
    stopped: Vec<Stopped<'a>>,
    summary: Summary,
    #[serde(borrow)]
    last_start_failure: Option<Cow<'a, str>>,
    #[serde(borrow)]
    charge: Option<Charge<'a>>,
}

/// Who starts the workers, where several servers share a database.
#[derive(Deserialize)]
pub(super) struct Charge<'a> {
    here: bool,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

impl Charge<'_> {
    /// What to know of it, if another server was the one to ask.
    pub(super) fn note(&self) -> Option<String> {
        (!self.here).then(|| printable(&self.text))
    }
}

#[derive(Deserialize)]
struct Summary {
    #[serde(default)]
    throttled: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Worker<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    version: Option<u64>,
    started_at: i64,
    #[serde(default)]
    is_external: bool,
    #[serde(default)]
    gpus: Vec<String>,
    #[serde(default)]
    jobs: Vec<String>,
    #[serde(default)]
    jobs_waiting_inside: u64,
    #[serde(borrow)]
    why_started: Option<Cow<'a, str>>,
    #[serde(borrow)]
    step: Option<Cow<'a, str>>,
    #[serde(borrow)]
    note: Option<Cow<'a, str>>,
    #[serde(borrow)]
    machine: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stopped<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    version: u64,
    ended_at: i64,
    #[serde(borrow)]
    why_stopped: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(default)]
    last_lines: Vec<String>,
}

/// Prints the workers that are there, and the last ones that are gone.
pub(super) async fn workers(
    args: &WorkersArgs,
    server: &Server,
    console: &mut Console,
    clock: &Clock,
) -> Result<Outcome, Failure> {
    let endpoint = &args.endpoint;
    let reply = server
        .call(Request::get(format!("{endpoint}/workers")))
        .await?;
    if console.json {
        console.document(reply.text())?;
        return Ok(Outcome::Fine);
    }
    let all: Workers<'_> = reply.parse()?;
    let now = clock.now();
    if all.workers.is_empty() {
        console.note(&format!("{endpoint} has no worker now"));
    } else {
        let rows = all.workers.iter().map(|it| row(it, now));
        Table::new(HEADER, WIDTHS).print(rows, console)?;
    }
    if let Some(note) = all.charge.as_ref().and_then(Charge::note) {
        console.note(&note);
    }
    if all.summary.throttled > 0 {
        let n = all.summary.throttled;
        console.note(&format!("{n} more wanted, and no GPU is free for them"));
    }
    if let Some(why) = &all.last_start_failure {
        console.note(&format!("the last start failed: {}", printable(why)));
    }
    gone(args, &all.stopped, console)?;
    Ok(Outcome::Fine)
}

fn row(worker: &Worker<'_>, now: Timestamp) -> [String; 7] {
    let jobs = match (worker.jobs.as_slice(), worker.jobs_waiting_inside) {
        ([], 0) => String::new(),
        ([one], 0) => printable(one),
        (jobs, waiting) => format!("{} ({waiting} wait inside)", jobs.len()),
    };
    let why = [&worker.step, &worker.note, &worker.why_started];
    let why = why.into_iter().flatten().next();
    let why = match (why, &worker.machine) {
        (None, Some(machine)) => Some(format!("of another server, on {machine}")),
        (why, _) => why.map(ToString::to_string),
    };
    let why = match why {
        Some(why) => short(&why, REASON_CHARS),
        None if worker.is_external => "started by somebody else".to_owned(),
        None => String::new(),
    };
    let up_ms = now.ms_since(Timestamp::from_ms(worker.started_at));
    [
        printable(&worker.id),
        printable(&worker.status),
        worker.version.map(|it| it.to_string()).unwrap_or_default(),
        roughly(up_ms),
        printable(&worker.gpus.join(",")),
        jobs,
        why,
    ]
}

fn gone(args: &WorkersArgs, stopped: &[Stopped<'_>], console: &mut Console) -> Result<(), Failure> {
    let limit = usize::try_from(args.stopped).unwrap_or(usize::MAX);
    let mut table = Table::new(GONE_HEADER, GONE_WIDTHS);
    for (n, it) in stopped.iter().take(limit).enumerate() {
        if n == 0 {
            console.text("")?;
        }
        let row = [
            utc(it.ended_at),
            printable(&it.id),
            it.version.to_string(),
            short(&it.why_stopped, REASON_CHARS),
        ];
        table.print([row], console)?;
        // What one said that was not asked to go is what everybody wants to know next.
        if it.status == "UNHEALTHY" {
            let first = it.last_lines.len().saturating_sub(LINES);
            for line in it.last_lines.iter().skip(first) {
                console.text(&format!("    | {}", printable(line)))?;
            }
        }
    }
    Ok(())
}
