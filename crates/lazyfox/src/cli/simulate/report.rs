//! What came of each run, for people and for programs.

use lazyfox_core::scale::Scaler;
use lazyfox_core::simulate::{Outcome, Waits};
use serde_json::{Value, json};

use super::chart::chart;
use super::variant::Variant;
use crate::client::duration;

/// One run of the trace.
pub(super) struct Run<'a> {
    /// What is different about it, in the words of the command line.
    pub(super) name: &'a str,
    pub(super) variant: Variant,
    pub(super) outcome: Outcome,
}

const HEADER: [&str; 8] = [
    "SETTINGS",
    "WAITED p50",
    "p95",
    "LONGEST",
    "WORKERS",
    "STARTS",
    "WORKER TIME",
    "BUSY",
];

/// A table of all runs, and the workers of each over time.
pub(super) fn text(runs: &[Run]) -> String {
    let header = HEADER.map(str::to_owned);
    let rows: Vec<[String; 8]> = [header].into_iter().chain(runs.iter().map(row)).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in &rows {
        let [name, numbers @ ..] = row;
        let numbers = numbers.iter().enumerate().map(|(n, cell)| {
            let width = width(n + 1);
            format!("  {cell:>width$}")
        });
        let numbers: String = numbers.collect();
        text.push_str(&format!("{name:<width$}{numbers}\n", width = width(0)));
    }
    for run in runs {
        text.push_str(&format!("\n{}: {}\n", run.name, words(&run.variant)));
        text.push_str(&remarks(&run.outcome));
        text.push_str(&chart(&run.outcome));
    }
    text
}

fn row(run: &Run) -> [String; 8] {
    let Outcome {
        wait,
        worker_ms,
        busy_ms,
        ..
    } = run.outcome;
    let busy = match worker_ms {
        0 => "-".to_owned(),
        worker_ms => format!("{} %", busy_ms.saturating_mul(100) / worker_ms),
    };
    [
        run.name.to_owned(),
        duration(wait.p50_ms),
        duration(wait.p95_ms),
        duration(wait.max_ms),
        run.outcome.workers_most.to_string(),
        run.outcome.starts.to_string(),
        duration(worker_ms),
        busy,
    ]
}

/// What does not fit the table.
fn remarks(outcome: &Outcome) -> String {
    let mut text = String::new();
    let low = outcome.wait_low;
    if low.jobs > 0 {
        text.push_str(&format!(
            "{} of low priority waited {} (p50), {} (p95), {} at most\n",
            jobs(low.jobs),
            duration(low.p50_ms),
            duration(low.p95_ms),
            duration(low.max_ms)
        ));
    }
    if outcome.left > 0 {
        text.push_str(&format!(
            "{} never run: no worker is there, and none would be started\n",
            jobs(outcome.left)
        ));
    }
    text
}

fn jobs(n: u64) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} job{s}")
}

/// All settings in one line.
fn words(variant: &Variant) -> String {
    let settings = variant.world.settings;
    let scaler = match settings.scaler {
        Scaler::QueueDelay { ms } => format!("QUEUE_DELAY {}", duration(ms)),
        Scaler::RequestCount { per_worker } => format!("REQUEST_COUNT {per_worker}"),
    };
    let slots = match variant.world.slots {
        1 => String::new(),
        slots => format!(", {slots} jobs at once"),
    };
    format!(
        "{scaler}, {} to {} workers, idle timeout {}, start {}{slots}",
        settings.workers_min,
        settings.workers_max,
        duration(settings.idle_timeout_ms),
        duration(variant.world.start_ms)
    )
}

/// A document for each run, on a line of its own.
pub(super) fn lines_of_json(runs: &[Run]) -> String {
    runs.iter()
        .map(|run| format!("{}\n", document(run)))
        .collect()
}

fn document(run: &Run) -> Value {
    let (world, outcome) = (run.variant.world, &run.outcome);
    let settings = world.settings;
    let (scaler, scaler_value) = match settings.scaler {
        Scaler::QueueDelay { ms } => ("QUEUE_DELAY", json!(ms as f64 / 1000.0)),
        Scaler::RequestCount { per_worker } => ("REQUEST_COUNT", json!(per_worker)),
    };
    let steps = outcome.steps.iter();
    let steps: Vec<(u64, u32)> = steps.map(|step| (step.at_ms, step.workers)).collect();
    json!({
        "name": run.name,
        "settings": {
            "workers_min": settings.workers_min,
            "workers_max": settings.workers_max,
            "scaler": scaler,
            "scaler_value": scaler_value,
            "idle_timeout_ms": settings.idle_timeout_ms,
            "start_ms": world.start_ms,
            "slots": world.slots,
        },
        "wait": waits(&outcome.wait),
        "wait_low": waits(&outcome.wait_low),
        "served": outcome.served,
        "left": outcome.left,
        "starts": outcome.starts,
        "workers_most": outcome.workers_most,
        "worker_ms": outcome.worker_ms,
        "busy_ms": outcome.busy_ms,
        "ends_at_ms": outcome.ends_at_ms,
        "steps": steps,
    })
}

fn waits(waits: &Waits) -> Value {
    json!({
        "jobs": waits.jobs,
        "p50_ms": waits.p50_ms,
        "p95_ms": waits.p95_ms,
        "max_ms": waits.max_ms,
    })
}
