//! `lazyfox dev handler.py`: one handler, one command, the same API as in production.

mod changes;
mod terminal;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lazyfox_core::id::EndpointId;
use lazyfox_core::reach::AllowList;
use lazyfox_core::scale::Settings;

use self::terminal::Terminal;
use crate::client;
use crate::clock::Clock;
use crate::config::{Auth, Config, Endpoint};
use crate::guard::Guard;
use crate::providers::{ProcessRun, Run};
use crate::python_env;
use crate::server::{self, Server};
use crate::signals::{End, Signals};
use crate::webhooks::target::Rules;

/// How long running jobs may take to finish when nobody is there to end the wait: the time that a server
/// has by default.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long workers wait for another server when this one was killed: no other one would keep them.
const ABANDONED_MS: u64 = 5_000;

const HELP: &str = "\
Examples:
  lazyfox dev handler.py
  lazyfox dev handler.py --send '{\"input\": {\"name\": \"fox\"}}' | jq .output
  lazyfox dev handler.py --send @test_input.json --env MODEL=small

The handler is an ordinary one for the public `runpod` Python SDK. What it needs stands in the
requirements.txt beside it. Its working directory is made anew for each worker and shows the
files beside the handler; new files go with the worker.";

/// Arguments of `lazyfox dev`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The handler: a Python file that calls runpod.serverless.start
    #[arg(value_name = "HANDLER.PY")]
    handler: PathBuf,
    /// Run this one job, print it as JSON, and exit: 0 when it completed, else 1
    #[arg(long, value_name = "JSON|@FILE")]
    send: Option<String>,
    /// Name of the endpoint [default: the name of the handler's directory]
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Address and port to listen on [default: 127.0.0.1:8000, with --send any free port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Directory of the database and of the Python environment [default: .lazyfox beside the handler]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Most workers at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    workers_max: u32,
    /// How long a worker without work stays, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    idle_timeout: u64,
    /// Added to the worker's environment; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// The Python to make the environment with; one inside a virtual environment is used as it is
    #[arg(long, value_name = "PROGRAM")]
    python: Option<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("it should be KEY=VALUE".to_owned()),
    }
}

/// Serves one handler until Ctrl-C, or runs one job.
///
/// # Errors
/// Says what to change.
pub async fn main(args: Args) -> Result<ExitCode> {
    let handler = handler(&args.handler)?;
    let dir = handler
        .parent()
        .context("the handler has no directory")?
        .to_path_buf();
    // Before the environment is made: that may take minutes, and then the port is still taken.
    let listener = server::bind(listen(&args)).await?;
    let (config, endpoint) = configured(&args, &handler, &dir).await?;
    let mut signals = Signals::watch()?;
    let data = config.data.clone();
    let guard = Guard::start(&config)?;
    let server = Server::start(
        config,
        listener,
        Clock::system(),
        Arc::new(Terminal::default()),
    )
    .await?;
    let key = server::first_key(&server.app).await?;
    let url = format!("http://{}", server.address());

    let mut end = None;
    let code = if let Some(input) = args.send {
        tokio::select! {
            code = client::run_one(&url, key.as_deref(), endpoint.as_str(), &input) => code,
            signal = signals.next() => ExitCode::from(128 + end.insert(signal).number()),
        }
    } else {
        welcome(&url, key.as_deref(), &endpoint, &data, &dir);
        end = tokio::select! {
            signal = signals.next() => Some(signal),
            never = changes::follow(&server.app, &endpoint, &handler) => match never {},
        };
        ExitCode::SUCCESS
    };
    if let Some(end) = end {
        // The terminal may be gone, and then nothing can be written.
        let _ = writeln!(std::io::stderr(), "{}", stopping(end));
    }
    server.stop(patience(end, &mut signals)).await;
    guard.end().await;
    Ok(code)
}

fn stopping(end: End) -> String {
    match end {
        End::Interrupt => "Stopping: running jobs may finish. Ctrl-C again ends them.".to_owned(),
        End::Terminate | End::Hangup => {
            format!(
                "Stopping: running jobs have {} s to finish.",
                PATIENCE.as_secs()
            )
        }
    }
}

/// Returns when running jobs had their time. Who pressed Ctrl-C can do it again; nobody else is there to
/// end the wait.
async fn patience(end: Option<End>, signals: &mut Signals) {
    let limit = match end {
        Some(End::Terminate | End::Hangup) => PATIENCE,
        Some(End::Interrupt) | None => Duration::MAX,
    };
    let _ = tokio::time::timeout(limit, signals.next()).await;
}

fn handler(path: &Path) -> Result<PathBuf> {
    let found = path
        .canonicalize()
        .with_context(|| format!("there is no handler {}", path.display()))?;
    if found.is_dir() {
        bail!(
            "{} is a directory; name the Python file in it",
            path.display()
        );
    }
    Ok(found)
}

async fn configured(args: &Args, handler: &Path, dir: &Path) -> Result<(Config, EndpointId)> {
    let data = match &args.data {
        Some(data) => std::path::absolute(data)?,
        None => dir.join(".lazyfox"),
    };
    // Inputs and outputs are nobody else's business.
    let mut private = std::fs::DirBuilder::new();
    let made = private.recursive(true).mode(0o700).create(&data);
    made.with_context(|| {
        format!(
            "cannot make {}; name another directory with --data",
            data.display()
        )
    })?;
    // Nothing in there belongs into the user's repository.
    std::fs::write(data.join(".gitignore"), "*\n").with_context(|| {
        format!(
            "cannot write in {}; name another directory with --data",
            data.display()
        )
    })?;
    let envs = data.join("python");
    let python = python(handler.to_path_buf(), envs, args.python.clone()).await?;

    let endpoint = endpoint(args, handler, dir)?;
    let listen = listen(args);
    let loopback = ["127.", "localhost:", "[::1]:"]
        .iter()
        .any(|own| listen.starts_with(own));
    let shipped = Endpoint::shipped();
    let settings = Endpoint {
        run: Some(Run::Process(ProcessRun {
            command: vec![
                python.display().to_string(),
                "-u".to_owned(),
                handler.display().to_string(),
            ],
            working_dir: dir.to_path_buf(),
            ..ProcessRun::default()
        })),
        env: args.env.iter().cloned().collect(),
        scale: Settings {
            workers_max: args.workers_max,
            idle_timeout_ms: args.idle_timeout.saturating_mul(1000),
            ..shipped.scale
        },
        // Somebody is watching: better the reason now than a job that waits.
        fail_after_starts: 1,
        ..shipped
    };
    let empty = Config::empty();
    let shipped_rules = empty.webhook_rules.clone();
    let config = Config {
        listen: listen.to_owned(),
        data,
        keep_workers: false,
        abandoned_ms: ABANDONED_MS,
        auth: if loopback { Auth::None } else { Auth::Keys },
        // What is developed against runs beside it.
        webhook_rules: Rules {
            allow: AllowList::parse(["127.0.0.0/8", "::1"])?,
            ..shipped_rules
        },
        endpoints: BTreeMap::from([(endpoint.clone(), settings)]),
        ..empty
    };
    Ok((config, endpoint))
}

fn listen(args: &Args) -> &str {
    match (&args.listen, &args.send) {
        (Some(listen), _) => listen,
        (None, Some(_)) => "127.0.0.1:0",
        (None, None) => "127.0.0.1:8000",
    }
}

async fn python(handler: PathBuf, envs_dir: PathBuf, python: Option<String>) -> Result<PathBuf> {
    let prepare = move || {
        let request = python_env::Request {
            handler: &handler,
            requirements: None,
            envs_dir: &envs_dir,
            python: python.as_deref(),
        };
        python_env::prepare(&request, |line| eprintln!("{line}"))
    };
    let prepared = tokio::task::spawn_blocking(prepare)
        .await
        .context("the preparation broke off")??;
    Ok(prepared.python)
}

fn endpoint(args: &Args, handler: &Path, dir: &Path) -> Result<EndpointId> {
    if let Some(name) = &args.endpoint {
        return name
            .parse()
            .map_err(|e| anyhow::anyhow!("--endpoint {name:?} {e}"));
    }
    let names = [dir.file_name(), handler.file_stem()];
    let fit = names
        .into_iter()
        .flatten()
        .find_map(|name| name.to_str()?.parse().ok());
    fit.context("the directory's name is not fit for an endpoint; choose one with --endpoint NAME")
}

fn welcome(url: &str, key: Option<&str>, endpoint: &EndpointId, data: &Path, dir: &Path) {
    let input = if dir.join("test_input.json").exists() {
        format!("@{}", dir.join("test_input.json").display())
    } else {
        "{\"input\": {\"name\": \"fox\"}}".to_owned()
    };
    let auth = key
        .map(|key| format!(" \\\n    -H 'Authorization: Bearer {key}'"))
        .unwrap_or_default();
    eprintln!(
        "\n  Endpoint  {url}/v2/{endpoint}\n  Data      {}\n\n  Try it:\n\n  \
         curl -s {url}/v2/{endpoint}/runsync{auth} \\\n    \
         -H 'Content-Type: application/json' -d '{input}'\n\n  \
         The first job starts a worker. When the handler is saved, the next job gets a\n  \
         new one. Ctrl-C stops.\n",
        data.display()
    );
}
