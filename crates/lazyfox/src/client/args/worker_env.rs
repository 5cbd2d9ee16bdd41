//! The arguments of `worker-env`.

use clap::{Args, ValueEnum};

use super::path_segment;

/// Arguments of `worker-env`.
#[derive(Args, Clone, Debug)]
pub struct WorkerEnvArgs {
    /// Name of the endpoint
    #[arg(value_parser = path_segment)]
    pub endpoint: String,

    /// Name of the worker, which no other may have at the same time [default: a new one]
    #[arg(long, value_name = "NAME")]
    pub worker: Option<String>,

    /// Where the worker reaches the server [default: the server's worker_url]
    #[arg(long, value_name = "URL")]
    pub worker_url: Option<String>,

    /// For a shell to evaluate, for an env file of docker or systemd, or one JSON object
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = EnvFormat::Env)]
    pub format: EnvFormat,
}

/// How an environment is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EnvFormat {
    /// `export NAME='value'` lines.
    Env,
    /// `NAME=value` lines.
    Docker,
    /// One object.
    Json,
}
