//! The arguments of the commands about workers.

use clap::Args;

use super::path_segment;

/// Arguments of `workers`.
#[derive(Args, Clone, Debug)]
pub struct WorkersArgs {
    /// Name of the endpoint
    #[arg(value_parser = path_segment)]
    pub endpoint: String,

    /// Show so many of the workers that have ended
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub stopped: u32,
}

/// Arguments of `scaler`.
#[derive(Args, Clone, Debug)]
pub struct ScalerArgs {
    /// Name of the endpoint
    #[arg(value_parser = path_segment)]
    pub endpoint: String,

    /// Workers that are always kept
    #[arg(long, value_name = "N", help_heading = "Change")]
    pub workers_min: Option<u32>,

    /// Workers that are never exceeded; 0 pauses the endpoint
    #[arg(long, value_name = "N", help_heading = "Change")]
    pub workers_max: Option<u32>,

    /// What makes it grow
    #[arg(long, value_name = "SCALER", help_heading = "Change",
        value_parser = ["QUEUE_DELAY", "REQUEST_COUNT"])]
    pub scaler: Option<String>,

    /// Seconds of waiting (QUEUE_DELAY), or jobs for each worker (REQUEST_COUNT)
    #[arg(long, value_name = "N", help_heading = "Change")]
    pub scaler_value: Option<u32>,

    /// How long a worker without work stays, in seconds
    #[arg(long, value_name = "S", help_heading = "Change")]
    pub idle_timeout: Option<u32>,

    /// Take back what was changed, but for what is given with it
    #[arg(long, help_heading = "Change")]
    pub unset: bool,

    /// Forget starts that failed, so that the next one is tried at once
    #[arg(long, help_heading = "Change", conflicts_with_all = ["unset", "workers_min",
        "workers_max", "scaler", "scaler_value", "idle_timeout"])]
    pub reset: bool,

    /// Show so many decisions, at most 100
    #[arg(long, value_name = "N", default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..=100))]
    pub limit: u32,
}
