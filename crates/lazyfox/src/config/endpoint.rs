//! The settings of an endpoint, as the configuration says them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use lazyfox_core::limits;
use lazyfox_core::policy::Defaults;
use lazyfox_core::scale::{Scaler, Settings};
use serde::Deserialize;

use super::run::{Prefetch, Registries, RunTable};
use super::webhook::WebhookTable;
use super::{Endpoint, need, within};
use crate::providers::Pull;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EndpointTable {
    command: Option<Vec<String>>,
    working_dir: Option<PathBuf>,
    image: Option<String>,
    entrypoint: Option<Vec<String>>,
    mounts: Option<Vec<String>>,
    network: Option<String>,
    pull: Option<Pull>,
    registry: Option<String>,
    memory_mib: Option<u64>,
    shm_mib: Option<u64>,
    open_files: Option<u64>,
    gpus: Option<u32>,
    prefetch: Option<Prefetch>,
    env: Option<BTreeMap<String, String>>,
    workers_min: Option<u32>,
    workers_max: Option<u32>,
    scaler: Option<ScalerKind>,
    scaler_value: Option<u32>,
    idle_timeout_s: Option<u64>,
    surge: Option<u32>,
    give_up_after: Option<u32>,
    init_timeout_s: Option<u64>,
    execution_timeout_s: Option<u64>,
    ttl_s: Option<u64>,
    ttl_expiry: Option<TtlExpiry>,
    retention_s: Option<u64>,
    retention_sync_s: Option<u64>,
    retries_max: Option<u32>,
    poison_after: Option<u32>,
    lease_s: Option<u64>,
    fail_after_starts: Option<u32>,
    webhook: WebhookTable,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum ScalerKind {
    #[serde(rename = "QUEUE_DELAY")]
    QueueDelay,
    #[serde(rename = "REQUEST_COUNT")]
    RequestCount,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TtlExpiry {
    TimedOut,
    NotFound,
}

impl EndpointTable {
    pub(super) fn over(self, below: &Self) -> Self {
        let below = below.clone();
        Self {
            command: self.command.or(below.command),
            working_dir: self.working_dir.or(below.working_dir),
            image: self.image.or(below.image),
            entrypoint: self.entrypoint.or(below.entrypoint),
            mounts: self.mounts.or(below.mounts),
            network: self.network.or(below.network),
            pull: self.pull.or(below.pull),
            registry: self.registry.or(below.registry),
            memory_mib: self.memory_mib.or(below.memory_mib),
            shm_mib: self.shm_mib.or(below.shm_mib),
            open_files: self.open_files.or(below.open_files),
            gpus: self.gpus.or(below.gpus),
            prefetch: self.prefetch.or(below.prefetch),
            env: self.env.or(below.env),
            workers_min: self.workers_min.or(below.workers_min),
            workers_max: self.workers_max.or(below.workers_max),
            scaler: self.scaler.or(below.scaler),
            scaler_value: self.scaler_value.or(below.scaler_value),
            idle_timeout_s: self.idle_timeout_s.or(below.idle_timeout_s),
            surge: self.surge.or(below.surge),
            give_up_after: self.give_up_after.or(below.give_up_after),
            init_timeout_s: self.init_timeout_s.or(below.init_timeout_s),
            execution_timeout_s: self.execution_timeout_s.or(below.execution_timeout_s),
            ttl_s: self.ttl_s.or(below.ttl_s),
            ttl_expiry: self.ttl_expiry.or(below.ttl_expiry),
            retention_s: self.retention_s.or(below.retention_s),
            retention_sync_s: self.retention_sync_s.or(below.retention_sync_s),
            retries_max: self.retries_max.or(below.retries_max),
            poison_after: self.poison_after.or(below.poison_after),
            lease_s: self.lease_s.or(below.lease_s),
            fail_after_starts: self.fail_after_starts.or(below.fail_after_starts),
            webhook: self.webhook.over(below.webhook),
        }
    }

    pub(super) fn finish(self, base: &Path, registries: &Registries) -> Result<Endpoint> {
        let scale = self.scale()?;
        let run = RunTable {
            command: self.command,
            working_dir: self.working_dir,
            image: self.image,
            entrypoint: self.entrypoint,
            mounts: self.mounts,
            network: self.network,
            pull: self.pull,
            registry: self.registry,
            memory_mib: self.memory_mib,
            shm_mib: self.shm_mib,
            open_files: self.open_files,
        }
        .finish(base, registries)?;
        let fail_after_starts = need("fail_after_starts", self.fail_after_starts)?;
        let give_up_after = scale.give_up_after;
        ensure!(
            give_up_after == 0 || fail_after_starts <= give_up_after,
            "fail_after_starts is {fail_after_starts}, which is never reached: give_up_after is \
             {give_up_after}"
        );
        const WEEK_S: u64 = limits::TTL_MS_MAX / 1000;
        let execution_timeout_s =
            within("execution_timeout_s", self.execution_timeout_s, 0, WEEK_S)?;
        ensure!(
            execution_timeout_s == 0
                || execution_timeout_s * 1000 >= limits::EXECUTION_TIMEOUT_MS_MIN,
            "execution_timeout_s is {execution_timeout_s}, allowed are 0 (no limit) and 5 to {WEEK_S}"
        );
        let defaults = Defaults {
            execution_timeout_ms: (execution_timeout_s > 0).then_some(execution_timeout_s * 1000),
            ttl_ms: within("ttl_s", self.ttl_s, 10, WEEK_S)? * 1000,
            retention_ms: within("retention_s", self.retention_s, 1, 52 * WEEK_S)? * 1000,
            retention_sync_ms: within("retention_sync_s", self.retention_sync_s, 1, 52 * WEEK_S)?
                * 1000,
            retries_max: within("retries_max", self.retries_max, 0, limits::RETRIES_MAX)?,
            poison_after: within(
                "poison_after",
                self.poison_after,
                0,
                limits::POISON_AFTER_MAX,
            )?,
            ttl_expiry_forgets: need("ttl_expiry", self.ttl_expiry)? == TtlExpiry::NotFound,
            webhook_on_cancel: self.webhook.on_cancel()?,
        };
        Ok(Endpoint {
            run,
            gpus: within("gpus", self.gpus, 0, limits::GPUS_MAX)?,
            prefetch: need("prefetch", self.prefetch)?.checked()?,
            env: self.env.unwrap_or_default(),
            scale,
            defaults,
            lease_ms: within("lease_s", self.lease_s, limits::LEASE_MS_MIN / 1000, 3600)? * 1000,
            init_timeout_ms: within("init_timeout_s", self.init_timeout_s, 1, 86_400)? * 1000,
            fail_after_starts,
            webhooks: self.webhook.finish()?,
        })
    }

    fn scale(&self) -> Result<Settings> {
        let workers_min = need("workers_min", self.workers_min)?;
        let workers_max = need("workers_max", self.workers_max)?;
        ensure!(
            workers_min <= workers_max,
            "workers_min is {workers_min}, more than workers_max, which is {workers_max}"
        );
        let value = within("scaler_value", self.scaler_value, 1, 3600)?;
        let scaler = match need("scaler", self.scaler)? {
            ScalerKind::QueueDelay => Scaler::QueueDelay {
                ms: u64::from(value) * 1000,
            },
            ScalerKind::RequestCount => Scaler::RequestCount { per_worker: value },
        };
        let give_up_after = need("give_up_after", self.give_up_after)?;
        Ok(Settings {
            workers_min,
            workers_max,
            scaler,
            idle_timeout_ms: within("idle_timeout_s", self.idle_timeout_s, 0, 3600)? * 1000,
            surge: need("surge", self.surge)?,
            give_up_after,
        })
    }
}
