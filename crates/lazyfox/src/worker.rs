//! `lazyfox worker`: a worker that needs no SDK. It does each job by running a command, or by posting it to
//! an HTTP server beside it.
//!
//! It speaks to its server as the public SDK does and is started in the same way: by a server, or by anybody
//! with the environment that a server made for it. Read `service` for the loop, `exec` and `http` for how
//! a job is done, `report` for how its result is handed in, `watchdog` for what happens when the worker is
//! killed.

mod exec;
mod held;
mod http;
mod job;
mod lines;
mod output;
mod pause;
mod process;
mod report;
mod server;
mod service;
mod settings;
mod signs;
mod watchdog;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use lazyfox_core::limits;
use reqwest::Url;

use self::exec::Exec;
use self::held::Held;
use self::http::{Http, Ready, Started, Target};
use self::process::Program;
use self::server::Server;
use self::service::{Handler, Service};
use self::settings::Settings;
use self::watchdog::Watchdog;
use crate::clock::Clock;
use crate::providers::process::environment::{MARKER, find_program};
use crate::signals::Signals;

const HELP: &str = "\
Examples:
  lazyfox worker --exec python3 resize.py
  lazyfox worker --concurrency 4 --exec ./transcode
  lazyfox worker --http http://127.0.0.1:9000/predict --health /health --start ./server --port 9000

--exec and --start take all words that follow, so they come last.

A command gets the job as JSON on its standard input ({\"id\": …, \"input\": …}) and prints its
output: JSON, or text. Exit code 0 completes the job, any other fails it with the last lines of
standard error. LAZYFOX_JOB_ID and LAZYFOX_ENDPOINT are in its environment.

A server gets the input as the body of a POST, with the job's id in X-Job-Id. A 2xx completes the
job with the body as its output, anything else fails it.

The worker is the `command` of an endpoint, or runs anywhere with the environment that
`lazyfox worker-env ENDPOINT` prints. SIGTERM lets it finish what it has; a second one stops that too.";

/// Arguments of `lazyfox worker`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = HELP,
    override_usage = "\
lazyfox worker [OPTIONS] --exec <CMD>...
       lazyfox worker [OPTIONS] --http <URL> [--health <PATH>] [--start <CMD>...]",
    group = clap::ArgGroup::new("way").required(true).args(["exec", "http", watchdog::OPTION])
)]
pub struct Args {
    /// Run this command for each job
    #[arg(long, value_name = "CMD", num_args = 1.., allow_hyphen_values = true)]
    exec: Vec<OsString>,
    /// Post each job to this URL
    #[arg(long, value_name = "URL")]
    http: Option<Url>,
    /// Take jobs only once this path of the server answers 2xx [default: once its port is open]
    #[arg(long, value_name = "PATH", requires = "http")]
    health: Option<String>,
    /// Run the server itself: its end is the worker's, and the worker's is its
    #[arg(long, value_name = "CMD", num_args = 1.., allow_hyphen_values = true, requires = "http")]
    start: Vec<OsString>,
    /// Jobs at a time
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=limits::BATCH_MAX as i64))]
    concurrency: u32,
    /// Largest output of a job, in bytes; the server has a limit of its own
    #[arg(long, value_name = "BYTES", default_value_t = limits::RESULT_BYTES as u64,
        value_parser = clap::value_parser!(u64).range(1..=limits::CONFIGURED_BYTES_MAX as u64))]
    output_limit: u64,
    /// Be the process that ends what a dead worker leaves running
    #[arg(long, hide = true)]
    watchdog: bool,
}

/// Whether a server started this process, and has its log.
#[must_use]
pub fn is_managed() -> bool {
    std::env::var_os(MARKER).is_some()
}

/// Works until a signal.
///
/// # Errors
/// Says what is missing, or why no more jobs can be done.
pub async fn main(args: Args) -> Result<ExitCode> {
    if args.watchdog {
        watchdog::watch()?;
        return Ok(ExitCode::SUCCESS);
    }
    let settings = Settings::from_environment(|name| std::env::var(name).ok())?;
    let mut signals = Signals::watch()?;
    let clock = Clock::system();
    let handler = tokio::select! {
        handler = handler(&args, &settings, &clock) => handler?,
        signal = signals.next() => return Ok(ExitCode::from(128 + signal.number())),
    };
    let concurrency = usize::try_from(args.concurrency)?;
    tracing::info!(
        worker.id = %settings.worker, endpoint.id = %settings.endpoint, concurrency, "taking jobs"
    );
    let service = Arc::new(Service {
        server: Arc::new(Server::new(settings)?),
        handler,
        held: Arc::new(Held::default()),
        clock,
        concurrency,
    });
    let code = service.serve(&mut signals).await;
    service.handler.close().await;
    code
}

async fn handler(args: &Args, settings: &Settings, clock: &Clock) -> Result<Handler> {
    let output_bytes_max = usize::try_from(args.output_limit)?;
    let Some(url) = &args.http else {
        return Ok(Handler::Exec(Exec {
            program: program("--exec", &args.exec)?,
            output_bytes_max,
            watchdog: Arc::new(Watchdog::start()?),
        }));
    };
    let target = target(url, args.health.as_deref())?;
    let client = crate::client::http(url)
        .build()
        .context("cannot make an HTTP client")?;
    let started = match args.start.as_slice() {
        [] => None,
        words => {
            let program = program("--start", words)?;
            let watchdog = Arc::new(Watchdog::start()?);
            let started = Started::start(&program, settings, &watchdog);
            let path = program.path.display();
            Some(started.with_context(|| format!("cannot run {path}"))?)
        }
    };
    let ready = Ready::new(client.clone(), target, settings.init_timeout, clock.clone());
    ready
        .wait(started.as_ref())
        .await
        .map_err(anyhow::Error::msg)?;
    let http = Http::new(client, url.clone(), ready, output_bytes_max, started);
    Ok(Handler::Http(Box::new(http)))
}

/// What shows that the server at this URL is up.
fn target(url: &Url, health: Option<&str>) -> Result<Target> {
    if !matches!(url.scheme(), "http" | "https") {
        bail!("--http is {url}, only http and https are spoken");
    }
    let host = url.host_str().context("--http has no host")?;
    match health {
        Some(path) => {
            let health = url.join(path);
            let health = health.with_context(|| format!("--health is {path:?}"))?;
            Ok(Target::Health(health))
        }
        None => Ok(Target::Port(
            host.trim_matches(['[', ']']).to_owned(),
            url.port_or_known_default().unwrap_or(80),
        )),
    }
}

/// The program that these words mean. It is looked for once, before any job is taken: a worker that can
/// run nothing would fail one job after the other.
fn program(option: &str, words: &[OsString]) -> Result<Program> {
    let (name, arguments) = words
        .split_first()
        .with_context(|| format!("{option} needs a command"))?;
    let name_text = name
        .to_str()
        .with_context(|| format!("the command of {option} is not UTF-8"))?;
    let environment = std::env::vars_os().collect();
    let here = std::env::current_dir().context("cannot tell the current directory")?;
    let path = find_program(name_text, &here, &environment).with_context(|| {
        let quoted = arguments.is_empty() && name_text.contains(' ') && !Path::new(name).exists();
        let hint = if quoted {
            "; its words are given one by one, without quotes around them all"
        } else {
            ""
        };
        format!("cannot run the command of {option}{hint}")
    })?;
    Ok(Program {
        path,
        arguments: arguments.to_vec(),
    })
}
