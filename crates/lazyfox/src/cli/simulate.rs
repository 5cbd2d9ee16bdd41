//! `lazyfox simulate`: what settings would have done with the jobs of a trace. Nothing is started, and no
//! server is asked.

mod chart;
mod report;
mod seconds;
mod trace;
mod variant;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use lazyfox_core::id::EndpointId;
use lazyfox_core::scale::Settings;
use lazyfox_core::simulate::simulate;

use self::report::Run;
use self::trace::Rows;
use self::variant::{Change, Variant};
use crate::config::Config;

const HELP: &str = "\
The trace is a CSV file with a header line. Its columns are `at`, when a job came, in seconds or as
a time such as 2026-05-01T12:03:04Z; `run`, for how many seconds it runs; and `low`, whether it is
of low priority. The last two may be left out.

Examples:
  lazyfox simulate --trace jobs.csv --start-time 20 --workers-max 5
  lazyfox simulate --trace jobs.csv --compare scaler-value=1 \\
    --compare scaler=REQUEST_COUNT,scaler-value=2,workers-min=1
  lazyfox simulate --trace - --run-time 8 --config lazyfox.toml --endpoint sdxl";

/// Arguments of `lazyfox simulate`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// The jobs; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// A configuration file whose settings are the ones to begin with
    #[arg(long, value_name = "FILE", requires = "endpoint")]
    config: Option<PathBuf>,
    /// The endpoint in it
    #[arg(long, value_name = "NAME", requires = "config")]
    endpoint: Option<EndpointId>,
    #[command(flatten)]
    change: Change,
    /// Other settings to run the same jobs with, such as `scaler=REQUEST_COUNT,scaler-value=2`: the
    /// options above without their dashes; may be given several times
    #[arg(long, value_name = "OPTION=VALUE,…")]
    compare: Vec<String>,
}

/// Runs the trace with each of the settings and prints what came of it.
///
/// # Errors
/// Says what to change.
pub(super) fn main(args: &Args, json: bool) -> Result<ExitCode> {
    let base = Variant::of(settings(args)?).with(&args.change)?;
    let mut variants = vec![("as given", base)];
    for text in &args.compare {
        let variant = Change::parse(text).and_then(|change| base.with(&change));
        variants.push((
            text.as_str(),
            variant.with_context(|| format!("--compare {text}"))?,
        ));
    }
    let rows = rows(args)?;
    let mut runs = Vec::new();
    for (name, variant) in variants {
        let outcome = simulate(&rows.trace(variant.run_ms)?, &variant.world);
        runs.push(Run {
            name,
            variant,
            outcome,
        });
    }
    let text = if json {
        report::lines_of_json(&runs)
    } else {
        report::text(&runs)
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has read enough.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e).context("cannot print"),
        Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
    }
}

/// The settings to begin with.
fn settings(args: &Args) -> Result<Settings> {
    let (Some(path), Some(id)) = (&args.config, &args.endpoint) else {
        return Ok(Settings::default());
    };
    let config = Config::read(path)?;
    let endpoint = config.endpoints.get(id).with_context(|| {
        let known: Vec<&str> = config.endpoints.keys().map(EndpointId::as_str).collect();
        let known = known.join(", ");
        format!(
            "--endpoint {id} is not in {}: it has {known}",
            path.display()
        )
    })?;
    Ok(endpoint.scale)
}

fn rows(args: &Args) -> Result<Rows> {
    let (name, reader): (_, Box<dyn BufRead>) = if args.trace.as_os_str() == "-" {
        ("standard input".to_owned(), Box::new(io::stdin().lock()))
    } else {
        let name = args.trace.display().to_string();
        let file = File::open(&args.trace).with_context(|| format!("cannot read {name}"))?;
        (name, Box::new(BufReader::new(file)))
    };
    let rows = Rows::read(reader).with_context(|| format!("in the trace {name}"))?;
    ensure!(!rows.is_empty(), "in the trace {name}: there are no jobs");
    Ok(rows)
}

#[cfg(test)]
mod tests;
