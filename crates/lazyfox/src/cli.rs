//! The command line.

mod key;
mod migrate;
mod moving;
mod place;
mod simulate;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{self, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::app::JOBS;
use crate::{client, dev, serve, worker};

const HELP: &str = "\
Start here:
  lazyfox dev handler.py                     serve one handler on this machine
  lazyfox serve --config lazyfox.toml        serve several endpoints
  lazyfox runsync hello '{\"name\": \"fox\"}'    run a job and wait for its result

Clients written for Runpod Serverless work with the URL http://127.0.0.1:8000/v2/ENDPOINT.";

/// A self-hosted serverless job platform: a durable queue, and workers that start when there is work
#[derive(Debug, Parser)]
#[command(name = "lazyfox", version, after_help = HELP, subcommand_required = true)]
pub struct Cli {
    #[command(flatten)]
    connection: client::Connection,
    /// What the server logs to standard error: error, warn, info, debug (which adds a line for each
    /// step of each job) or trace
    #[arg(
        long,
        global = true,
        env = "LAZYFOX_LOG",
        value_name = "LEVEL",
        help_heading = "Log"
    )]
    log: Option<LevelFilter>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve one Python handler, with its environment made from the requirements.txt beside it
    Dev(dev::Args),
    /// Serve the endpoints of a configuration file
    Serve(serve::Args),
    /// Do jobs by running a command for each, or by posting them to an HTTP server
    Worker(worker::Args),
    /// Make, list and revoke API keys
    Key(key::Args),
    /// Make the tables of a PostgreSQL database, or bring them up to date
    Migrate(migrate::Args),
    /// Write everything that a store holds into a file, to move to another store
    Export(moving::ExportArgs),
    /// Fill an empty store from such a file
    Import(moving::ImportArgs),
    /// Run a trace of jobs through the scaling rules, to see what settings would have done
    Simulate(simulate::Args),
    #[command(flatten)]
    Client(client::ClientCommand),
}

/// Runs the command that the arguments ask for.
pub async fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Dev(args) => {
            log(
                cli.log.unwrap_or(LevelFilter::INFO),
                LevelFilter::INFO,
                Style::Terse,
            );
            dev::main(args).await
        }
        Command::Serve(args) => {
            let level = cli.log.unwrap_or(LevelFilter::INFO);
            // Thousands of lines a second help nobody; whoever wants them asks for debug.
            let jobs = if level >= LevelFilter::DEBUG {
                level
            } else {
                level.min(LevelFilter::WARN)
            };
            log(level, jobs, Style::Full);
            serve::main(args).await
        }
        Command::Worker(args) => {
            let level = cli.log.unwrap_or(LevelFilter::INFO);
            // A server that started it puts the times to its lines itself.
            let style = if worker::is_managed() {
                Style::Terse
            } else {
                Style::Full
            };
            log(level, level, style);
            worker::main(args).await
        }
        Command::Key(args) => key::main(args).await,
        Command::Migrate(args) => migrate::main(args).await,
        Command::Export(args) => moving::export(args).await,
        Command::Import(args) => moving::import(args).await,
        Command::Simulate(args) => simulate::main(&args, cli.connection.json),
        Command::Client(command) => return client::main(command, cli.connection).await,
    };
    result.unwrap_or_else(|e| {
        eprintln!("error: {e:#}");
        ExitCode::from(2)
    })
}

#[derive(PartialEq, Eq)]
enum Style {
    /// For a person who watches: no times, no modules.
    Terse,
    /// For a file.
    Full,
}

fn log(level: LevelFilter, jobs: LevelFilter, style: Style) {
    let filter = Targets::new()
        .with_target("lazyfox", level)
        .with_target(JOBS, jobs);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colours());
    let registry = tracing_subscriber::registry().with(filter);
    match style {
        Style::Terse => registry
            .with(
                lines
                    .without_time()
                    .with_target(false)
                    .fmt_fields(terse_fields()),
            )
            .init(),
        Style::Full => registry.with(lines).init(),
    }
}

/// Colours are for eyes: in a file they are noise, and <https://no-color.org> says how to refuse them.
fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty())
}

/// Names that can be told by their looks stand alone.
fn terse_fields() -> impl for<'w> FormatFields<'w> + 'static {
    format::debug_fn(|writer, field, value| match field.name() {
        "message" | "worker.id" | "endpoint.id" | "job.id" => write!(writer, "{value:?}"),
        name => write!(writer, "{name}={value:?}"),
    })
    .delimited(" ")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_fit_together() {
        super::Cli::command().debug_assert();
    }
}
