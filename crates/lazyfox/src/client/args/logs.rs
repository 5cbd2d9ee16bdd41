//! The arguments of `logs`.

use clap::Args;

use super::path_segment;
use crate::when::When;

/// Arguments of `logs`.
#[derive(Args, Clone, Debug)]
pub struct LogsArgs {
    /// Name of the endpoint
    #[arg(value_parser = path_segment)]
    pub endpoint: String,

    /// Only of this worker
    #[arg(long, value_name = "WORKER", value_parser = path_segment)]
    pub worker: Option<String>,

    /// Only of this job
    #[arg(long, value_name = "JOB", value_parser = path_segment)]
    pub job: Option<String>,

    /// Only what workers wrote (worker), or what was done with them (system)
    #[arg(long, value_name = "SOURCE", hide_possible_values = true,
        value_parser = ["worker", "system"])]
    pub source: Option<String>,

    /// Go on with what comes, until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,

    /// Begin with the last so many lines, 0 to 5000 [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=5000))]
    pub tail: Option<u64>,

    /// Begin so long ago (90s, 15m, 2h, 3d), or at 2026-05-01T12:03:04Z
    #[arg(long, value_name = "TIME", value_parser = since, conflicts_with = "tail")]
    pub since: Option<String>,

    /// Print the lines alone and as they were written, whatever is in them
    #[arg(long, conflicts_with = "json")]
    pub raw: bool,
}

/// It is the server that reckons with it, by its own clock.
fn since(text: &str) -> Result<String, String> {
    When::parse(text).map(|_| text.to_owned())
}
