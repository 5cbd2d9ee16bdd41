//! `lazyfox serve`: endpoints from a configuration file, until a signal.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lazyfox_core::id::{EndpointId, WorkerId};
use listenfd::ListenFd;
use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::config::{self, Config, DEFAULTS, StoreKind};
use crate::guard::Guard;
use crate::providers::{Output, Source};
use crate::server::{self, Server};
use crate::signals::Signals;

/// Arguments of `lazyfox serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file [default: lazyfox.toml in this directory]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port to listen on; wins over server.listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Directory of the database and of the workers' files; wins over server.data
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where jobs are kept; wins over server.store
    #[arg(long, value_name = "KIND")]
    store: Option<StoreKind>,
    /// The database that several servers share, postgres://USER@HOST/DATABASE; wins over
    /// server.database_url and server.store
    #[arg(
        long,
        env = "LAZYFOX_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    database_url: Option<String>,
    /// Where workers reach this server; wins over server.worker_url
    #[arg(long, value_name = "URL")]
    worker_url: Option<String>,
    /// Print every setting with its default and its meaning, and exit
    #[arg(long)]
    print_config: bool,
}

/// Serves until SIGTERM, SIGINT or SIGHUP.
///
/// # Errors
/// Says what to change.
pub async fn main(args: Args) -> Result<ExitCode> {
    let mut stdout = std::io::stdout();
    if args.print_config {
        stdout.write_all(DEFAULTS.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = configured(&args)?;
    let mut signals = Signals::watch()?;
    let listener = match inherited()? {
        Some(listener) => listener,
        None => server::bind(&config.listen).await?,
    };
    let patience = Duration::from_millis(config.shutdown_ms);
    let guard = Guard::start(&config)?;
    let server = Server::start(config, listener, Clock::system(), Arc::new(ToLog)).await?;
    if let Some(key) = server::first_key(&server.app).await? {
        writeln!(
            stdout,
            "admin key (shown once, only its hash is kept): {key}"
        )?;
    }
    writeln!(stdout, "ready on http://{}", server.address())?;
    stdout.flush()?;
    signals.next().await;
    tracing::info!(
        "stopping; running jobs have {} s to finish",
        patience.as_secs()
    );
    server
        .stop(async {
            tokio::select! {
                () = tokio::time::sleep(patience) => {}
                () = signals.interrupt() => {}
            }
        })
        .await;
    guard.end().await;
    Ok(ExitCode::SUCCESS)
}

/// The socket that the service manager holds open for us (`LISTEN_FDS`), if it does. Connections wait in
/// it while the server is restarted; without it they are refused, and a worker whose post of a
/// finished result is refused does not try again.
fn inherited() -> Result<Option<TcpListener>> {
    let context = "the inherited socket (LISTEN_FDS) is not a TCP listener";
    let Some(listener) = ListenFd::from_env().take_tcp_listener(0).context(context)? else {
        return Ok(None);
    };
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    tracing::info!("listening on the inherited socket; server.listen and --listen are not used");
    Ok(Some(listener))
}

fn configured(args: &Args) -> Result<Config> {
    let default = PathBuf::from("lazyfox.toml");
    let mut config = match &args.config {
        Some(path) => Config::read(path)?,
        None if default.exists() => Config::read(&default)?,
        None => {
            anyhow::bail!(
                "there is no lazyfox.toml here; write one (`lazyfox serve --print-config` shows \
                 every setting), name it with --config, or try `lazyfox dev handler.py`"
            )
        }
    };
    if let Some(listen) = &args.listen {
        config.listen.clone_from(listen);
    }
    if let Some(data) = &args.data {
        config.data.clone_from(data);
    }
    if let Some(store) = args.store {
        config.store = store;
    }
    if let Some(url) = &args.database_url {
        config.use_database(url);
    }
    if let Some(url) = &args.worker_url {
        config.worker_url = Some(config::http_url("--worker-url", url)?);
    }
    if config.endpoints.is_empty() {
        tracing::warn!("the configuration has no [endpoints.NAME]: there is nothing to submit to");
    }
    Ok(config)
}

/// Workers' output goes to the log.
struct ToLog;

impl Output for ToLog {
    fn line(&self, endpoint: &EndpointId, worker: &WorkerId, _: Source, line: &str) {
        tracing::info!(target: "lazyfox::worker", { endpoint.id = %endpoint, worker.id = %worker }, "{line}");
    }
}
