//! The settings that a trace is run with.

use anyhow::{Result, bail, ensure};
use clap::{Args, Parser as _, ValueEnum};
use lazyfox_core::limits;
use lazyfox_core::scale::{Scaler, Settings};
use lazyfox_core::simulate::World;

use super::seconds::thousandths;

/// How long a start takes unless said otherwise: an interpreter and a small model.
const START_MS: u64 = 10_000;
/// Largest value of a scaler, as in the configuration.
const VALUE_MAX: u64 = 3600;

/// What is to be different from the settings to begin with.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Change {
    /// Workers that are always kept [default: 0]
    #[arg(long, value_name = "N")]
    workers_min: Option<u32>,
    /// Workers that are never exceeded [default: 3]
    #[arg(long, value_name = "N")]
    workers_max: Option<u32>,
    /// What makes the endpoint grow [default: QUEUE_DELAY]
    #[arg(long, value_enum)]
    scaler: Option<ScalerKind>,
    /// Seconds that the oldest job waits, or jobs a worker [default: 4]
    #[arg(long, value_name = "N", value_parser = thousandths)]
    scaler_value: Option<u64>,
    /// How long a worker without work stays, in seconds [default: 5]
    #[arg(long, value_name = "S", value_parser = thousandths)]
    idle_timeout: Option<u64>,
    /// How long a worker takes from its start to its first job, in seconds [default: 10]
    #[arg(long, value_name = "S", value_parser = thousandths)]
    start_time: Option<u64>,
    /// How long a job runs, in seconds, where the trace does not say it
    #[arg(long, value_name = "S", value_parser = thousandths)]
    run_time: Option<u64>,
    /// Jobs that a worker takes at once [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    slots: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ScalerKind {
    #[value(name = "QUEUE_DELAY")]
    QueueDelay,
    #[value(name = "REQUEST_COUNT")]
    RequestCount,
}

/// The options of a `--compare`, read as if they stood on the command line.
#[derive(clap::Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Compared {
    #[command(flatten)]
    change: Change,
}

impl Change {
    /// Reads `scaler=REQUEST_COUNT,scaler-value=2`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        ensure!(
            text.split(',').all(|option| option.contains('=')),
            "each part should be OPTION=VALUE, such as scaler-value=2"
        );
        let options = text.split(',').map(|option| format!("--{}", option.trim()));
        match Compared::try_parse_from(options) {
            Ok(compared) => Ok(compared.change),
            Err(e) => {
                let text = e.to_string();
                let first = text.lines().next().unwrap_or_default();
                bail!("{}", first.strip_prefix("error: ").unwrap_or(first));
            }
        }
    }
}

/// One way to run the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) world: World,
    /// How long a job runs where the trace does not say it.
    pub(super) run_ms: Option<u64>,
}

impl Variant {
    pub(super) fn of(settings: Settings) -> Self {
        let world = World {
            start_ms: START_MS,
            slots: 1,
            settings,
        };
        Self {
            world,
            run_ms: None,
        }
    }

    /// These settings with a change.
    ///
    /// # Errors
    /// Names the option and what it may be.
    pub(super) fn with(self, change: &Change) -> Result<Self> {
        let Self { world, run_ms } = self;
        let settings = world.settings;
        let workers_min = change.workers_min.unwrap_or(settings.workers_min);
        let workers_max = change.workers_max.unwrap_or(settings.workers_max);
        ensure!(
            workers_min <= workers_max,
            "--workers-min is {workers_min}, more than --workers-max, which is {workers_max}"
        );
        let settings = Settings {
            workers_min,
            workers_max,
            scaler: scaler(settings.scaler, change)?,
            idle_timeout_ms: change.idle_timeout.unwrap_or(settings.idle_timeout_ms),
            ..settings
        };
        let world = World {
            start_ms: change.start_time.unwrap_or(world.start_ms),
            slots: change.slots.unwrap_or(world.slots),
            settings,
        };
        let run_ms = change.run_time.or(run_ms);
        Ok(Self { world, run_ms })
    }
}

/// A value belongs to its scaler: seconds of one are not jobs of the other.
fn scaler(now: Scaler, change: &Change) -> Result<Scaler> {
    let (kind_now, value_now) = match now {
        Scaler::QueueDelay { ms } => (ScalerKind::QueueDelay, ms),
        Scaler::RequestCount { per_worker } => {
            (ScalerKind::RequestCount, u64::from(per_worker) * 1000)
        }
    };
    let kind = change.scaler.unwrap_or(kind_now);
    let kept = if kind == kind_now {
        value_now
    } else {
        u64::from(limits::SCALER_VALUE) * 1000
    };
    let value = change.scaler_value.unwrap_or(kept);
    match kind {
        ScalerKind::QueueDelay => {
            ensure!(
                (1..=VALUE_MAX * 1000).contains(&value),
                "--scaler-value of QUEUE_DELAY is seconds, from 0.001 to {VALUE_MAX}"
            );
            Ok(Scaler::QueueDelay { ms: value })
        }
        ScalerKind::RequestCount => {
            let jobs = u32::try_from(value / 1000).unwrap_or(u32::MAX);
            ensure!(
                value.is_multiple_of(1000) && (1..=VALUE_MAX).contains(&u64::from(jobs)),
                "--scaler-value of REQUEST_COUNT is jobs, a whole number from 1 to {VALUE_MAX}"
            );
            Ok(Scaler::RequestCount { per_worker: jobs })
        }
    }
}
