//! The load tool of Lazyfox: it starts a server of its own, plays clients and workers over real
//! HTTP on this machine, and prints what it measured as Markdown.
//!
//! Figures are only worth comparing within one run: stores take turns in short rounds, so that a
//! busy neighbour disturbs all of them alike.

mod backlog;
mod cold_start;
mod database;
mod fleet;
mod http;
mod idle;
mod job;
mod lanes;
mod lives;
mod meter;
mod paced;
mod prefetch;
mod queues;
mod receiver;
mod report;
mod rows;
mod sdk;
mod server;
mod several;
mod single_caller;
mod wake;
mod webhooks;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(version, about, long_about = None)]
#[command(
    after_help = "Example: cargo build --release -p lazyfox -p lazyfox-bench && \
                        target/release/lazyfox-bench lives"
)]
struct Cli {
    #[command(flatten)]
    setup: Setup,
    #[command(subcommand)]
    command: Command,
}

/// What all measurements share.
#[derive(Args)]
struct Setup {
    /// The server to measure [default: the `lazyfox` beside this program]
    #[arg(long, value_name = "PATH", global = true)]
    lazyfox: Option<PathBuf>,

    /// Folder for a temporary data directory; it decides which disk is measured [default: the
    /// folder of this program]
    #[arg(long, value_name = "DIR", global = true)]
    dir: Option<PathBuf>,

    /// Threads of this tool; more than one only where cores are left over for them
    #[arg(long, value_name = "N", global = true, default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
}

#[derive(Subcommand)]
enum Command {
    /// Whole job lives per second: submit, take, report, ask for the status
    ///
    /// Every connection is a client and a worker: POST run, GET job-take (some job, not always its
    /// own), POST job-done, GET status of the job it submitted. Prints lives per second, the time
    /// of each call, CPU per life, and each store's ratio to the memory store; then what one
    /// durable submit costs a single caller beside one fdatasync on the same disk.
    Lives(lives::LivesArgs),

    /// Whole job lives per second: one server on SQLite, one over PostgreSQL, two over the same
    ///
    /// As in `lives`. With two servers the calls of a life go to one and the other in turn: run on
    /// the first, job-take on the second, job-done on the first, status on the second; half of the
    /// connections begin with the second. Every round has a fresh database. The CPU of PostgreSQL
    /// is that of all its processes, where it runs on this machine.
    Several(several::SeveralArgs),

    /// A long queue: submit rate, memory, time to restart after SIGKILL, cost of a take
    ///
    /// Fills the queue over 64 connections, kills the server, starts it again on the same data and
    /// counts that every accepted job is still there. Takes are timed one at a time, with one job
    /// in the queue and with the whole backlog.
    Backlog(backlog::BacklogArgs),

    /// What a server costs that has nothing to do: CPU and memory
    ///
    /// With `--database` it keeps its jobs in a PostgreSQL, and what it asks of that is counted:
    /// statements by pg_stat_statements, where PostgreSQL has it, and transactions by its own
    /// count, in which those of autovacuum are.
    Idle(idle::IdleArgs),

    /// How soon a parked worker gets a new job
    ///
    /// Workers wait in long polls while jobs are submitted at a fixed rate. Two times are taken for
    /// each job, both on this side of the wire: from sending the submit to the worker's answer
    /// (with the commit in it), and from the submit's answer to the worker's answer (what waking
    /// costs after the commit; 0 where the worker was first).
    ///
    /// With `--servers 2` two servers share a PostgreSQL. Jobs are submitted to one, and the polls
    /// are parked at the same one and at the other in turn.
    Wake(wake::WakeArgs),

    /// What becomes of the tables of PostgreSQL under full load: rows, dead rows, sizes
    ///
    /// One server lives jobs as in `lives`, and forgets them after `--retention`. Every 10 s the
    /// tables are looked at. Dead rows and sizes should level off after the first retention time;
    /// with `--pin-xmin` they cannot, because a transaction of somebody else stays open all the
    /// time.
    Rows(rows::RowsArgs),

    /// Jobs per second from end to end, beside other queues on the same PostgreSQL
    ///
    /// Callers submit a job each, wait until it is done, and submit the next one. Other queues are
    /// measured by a script that prints a line of JSON for each run (`peers/README.md`); it and our
    /// own figures take turns. Ours are over HTTP: `runsync`, and workers with a connection each.
    Queues(queues::QueuesArgs),

    /// Webhooks: deliveries per second, what they cost the jobs, how late they come
    ///
    /// They go to a receiver within this tool, which answers 200 at once and notes when the first
    /// byte of each POST arrives. It shares the cores with the server, as the clients and workers
    /// do. POSTs for a job that had one already count as delivered again, and nowhere else.
    ///
    /// `drain`: connections as in `lives` end so many jobs as fast as they can, each with a
    /// webhook. Reported are the deliveries per second of what has not arrived when the last job
    /// has ended, until the last delivery, if that is a backlog of at least 1000; and of all of
    /// them, from the first delivery to the last.
    ///
    /// `cost`: `lives` without webhooks and with one on every job, in turn. The share lost is 1 -
    /// with / without. A server that puts deliveries off would look cheap, so the deliveries that
    /// arrive in the measured time and the backlog at its end stand beside it.
    ///
    /// `delay`: workers wait in long polls while jobs are submitted at a fixed rate, as in `wake`.
    /// Two times are taken for each job: to the first byte of its webhook from sending job-done
    /// (with the commit in it), and from the answer to job-done (0 where the webhook was first).
    /// The budget: p99 below 20 ms.
    ///
    /// `dead`: memory before so many jobs and after they have ended and had the first try of their
    /// webhooks, to a port of this machine where nobody listens; beside it the same without
    /// webhooks.
    Webhooks(webhooks::WebhooksArgs),

    /// From nothing to the first line of a handler
    ///
    /// Each round submits one job to an endpoint without a worker and waits until the worker that
    /// did it is gone; the kinds of workers take turns. A stand-in of this program is always among
    /// them. The parts, in ms:
    ///
    /// `start`: from sending the submit until the worker's program runs; with an image until its
    /// first line of Python. `import`: until the worker asks for its first job, by the server's
    /// clock. `take`: until the first line of the handler; the loops of the SDK are in it, up to
    /// 100 ms in some versions.
    ///
    /// `the server's own part`: `start`, with an image only until the engine is asked for it; and
    /// from the first poll to the answer: with the stand-in as the worker sees it, else until the
    /// hand-out of the job begins, since the SDK does not say when it has the answer. The budget:
    /// 50 ms.
    ColdStart(cold_start::ColdStartArgs),

    /// Jobs a second through one worker of the SDK, with jobs given ahead and without
    ///
    /// Jobs of a handler that does nothing are queued, and one unmodified worker takes them. The
    /// first seconds after its first job are left out. Hand-outs are counted by the line that the
    /// SDK writes after each. The budget: at least 500 jobs a second with SDK 1.12.0 and one slot.
    Prefetch(prefetch::PrefetchArgs),

    /// What many idle workers cost the server: CPU and memory
    ///
    /// Each simulated worker has three connections, as one of the SDK has: a poll for work, a poll
    /// for jobs to stop, and a heartbeat every 10 s. The budgets: below 5 % of a core, and below 40
    /// kB a worker.
    Fleet(fleet::FleetArgs),

    /// A worker, started by the server
    #[command(hide = true)]
    Worker,

    /// Runs the program of a worker that the server starts
    #[command(hide = true)]
    Exec {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    if let Command::Exec { command } = &cli.command {
        return sdk::exec(command);
    }
    let mut builder = match cli.setup.threads {
        // With one thread there is no stealing and no waking of each other to pay for.
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder
        .worker_threads(cli.setup.threads.into())
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        // Whatever ends first drops the rest, and a dropped server is a killed server.
        tokio::select! {
            result = measure(cli) => result,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            _ = terminate.recv() => anyhow::bail!("terminated"),
        }
    })
}

async fn measure(cli: Cli) -> Result<()> {
    if let Command::Worker = cli.command {
        return sdk::work().await;
    }
    let site = server::Site::new(cli.setup.lazyfox, cli.setup.dir)?;
    println!("{}", report::machine(&site.folder));
    match cli.command {
        Command::Lives(args) => lives::measure(&site, &args).await,
        Command::Several(args) => several::measure(&site, &args).await,
        Command::Backlog(args) => backlog::measure(&site, &args).await,
        Command::Idle(args) => idle::measure(&site, &args).await,
        Command::Wake(args) => wake::measure(&site, &args).await,
        Command::Rows(args) => rows::measure(&site, &args).await,
        Command::Queues(args) => queues::measure(&site, &args).await,
        Command::Webhooks(args) => webhooks::measure(&site, &args).await,
        Command::ColdStart(args) => cold_start::measure(&site, &args).await,
        Command::Prefetch(args) => prefetch::measure(&site, &args).await,
        Command::Fleet(args) => fleet::measure(&site, &args).await,
        // They measure nothing and were dealt with above.
        Command::Worker | Command::Exec { .. } => Ok(()),
    }
}
