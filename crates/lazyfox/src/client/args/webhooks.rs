//! The arguments of the commands about webhooks.

use clap::Args;

use super::{ListArgs, path_segment};
use crate::when::{When, milliseconds};

/// Arguments of `deliveries`.
#[derive(Args, Clone, Debug)]
pub struct DeliveriesArgs {
    /// Name of the endpoint
    #[arg(value_parser = path_segment)]
    pub endpoint: String,

    /// Only those of this job, with every try and what the receiver answered
    #[arg(long, value_name = "JOB", value_parser = path_segment)]
    pub job: Option<String>,

    /// Only those in this state: pending (will be tried), delivered, failed (given up) or withdrawn
    /// (the job was retried)
    #[arg(long, value_name = "STATE", hide_possible_values = true,
        value_parser = ["pending", "delivered", "failed", "withdrawn"])]
    pub state: Option<String>,

    /// How many.
    #[command(flatten)]
    pub list: ListArgs,
}

/// Arguments of `redeliver`.
#[derive(Args, Clone, Debug)]
pub struct RedeliverArgs {
    /// Name of the endpoint
    #[arg(value_parser = path_segment)]
    pub endpoint: String,

    /// Id of one delivery, as `deliveries` shows it
    #[arg(value_parser = path_segment)]
    pub delivery: Option<String>,

    /// All that were made since then: so long ago (90s, 15m, 2h, 3d), or 2026-05-01T12:03:04Z
    #[arg(long, value_name = "TIME", value_parser = When::parse, conflicts_with = "delivery")]
    pub since: Option<When>,

    /// And before then [default: now]
    #[arg(long, value_name = "TIME", value_parser = When::parse,
        requires = "since", conflicts_with = "delivery")]
    pub until: Option<When>,

    /// Of these, the ones in this state: failed, delivered, pending or all [default: failed]
    #[arg(long, value_name = "STATE", hide_possible_values = true,
        requires = "since", conflicts_with = "delivery",
        value_parser = ["failed", "delivered", "pending", "all"])]
    pub state: Option<String>,
}

/// Arguments of `listen`.
#[derive(Args, Clone, Debug)]
pub struct ListenArgs {
    /// Name of the endpoint
    #[arg(value_parser = path_segment)]
    pub endpoint: String,

    /// Post every webhook to this URL as well
    #[arg(long, value_name = "URL")]
    pub forward: Option<String>,
}

/// Arguments of `webhook-secret`.
#[derive(Args, Clone, Debug)]
pub struct WebhookSecretArgs {
    /// Name of the endpoint
    #[arg(value_parser = path_segment)]
    pub endpoint: String,

    /// Make a new secret and print it; needs an admin key
    #[arg(long)]
    pub new: bool,

    /// How long the previous secret stays valid, at most 7d [default: 24h]
    #[arg(long, value_name = "DURATION", requires = "new", value_parser = milliseconds)]
    pub overlap: Option<u64>,
}
