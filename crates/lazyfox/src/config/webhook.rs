//! How an endpoint's webhooks are delivered.

use anyhow::{Result, ensure};
use lazyfox_core::delivery::Schedule;
use lazyfox_core::limits;
use serde::Deserialize;

use super::{need, within};

/// An endpoint's settings for its webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhooks {
    /// When they are tried, and how long they are kept.
    pub schedule: Schedule,
    /// Largest input and output together that are sent; above it, a link takes the output's place.
    pub body_bytes: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WebhookTable {
    tries: Option<u32>,
    pause_s: Option<u64>,
    growth: Option<f64>,
    pause_max_s: Option<u64>,
    jitter: Option<f64>,
    timeout_s: Option<u64>,
    on_cancel: Option<bool>,
    keep_s: Option<u64>,
    keep_failed_s: Option<u64>,
    body_bytes: Option<u64>,
}

impl WebhookTable {
    pub(super) fn over(self, below: Self) -> Self {
        Self {
            tries: self.tries.or(below.tries),
            pause_s: self.pause_s.or(below.pause_s),
            growth: self.growth.or(below.growth),
            pause_max_s: self.pause_max_s.or(below.pause_max_s),
            jitter: self.jitter.or(below.jitter),
            timeout_s: self.timeout_s.or(below.timeout_s),
            on_cancel: self.on_cancel.or(below.on_cancel),
            keep_s: self.keep_s.or(below.keep_s),
            keep_failed_s: self.keep_failed_s.or(below.keep_failed_s),
            body_bytes: self.body_bytes.or(below.body_bytes),
        }
    }

    pub(super) fn on_cancel(&self) -> Result<bool> {
        need("webhook.on_cancel", self.on_cancel)
    }

    pub(super) fn finish(self) -> Result<Webhooks> {
        const PAUSE_S_MAX: u64 = limits::WEBHOOK_PAUSE_MS_MAX / 1000;
        const TIMEOUT_S_MAX: u64 = limits::WEBHOOK_TIMEOUT_MS_MAX / 1000;
        const YEAR_S: u64 = 365 * 24 * 60 * 60;
        let seconds = |name: &str, value, min, max| -> Result<u64> {
            Ok(within(&format!("webhook.{name}"), value, min, max)? * 1000)
        };
        // Whole percents are as fine as anybody needs, and exact.
        let percent = |name: &str, value, min, max| -> Result<u32> {
            let value: f64 = within(&format!("webhook.{name}"), value, min, max)?;
            Ok((value * 100.0).round() as u32)
        };
        let schedule = Schedule {
            tries: within("webhook.tries", self.tries, 1, limits::WEBHOOK_TRIES_MAX)?,
            pause_ms: seconds("pause_s", self.pause_s, 1, PAUSE_S_MAX)?,
            growth_percent: percent("growth", self.growth, 1.0, 10.0)?,
            pause_ms_max: seconds("pause_max_s", self.pause_max_s, 1, PAUSE_S_MAX)?,
            jitter_percent: percent("jitter", self.jitter, 0.0, 1.0)?,
            timeout_ms: seconds("timeout_s", self.timeout_s, 1, TIMEOUT_S_MAX)?,
            keep_ms: seconds("keep_s", self.keep_s, 0, YEAR_S)?,
            keep_failed_ms: seconds("keep_failed_s", self.keep_failed_s, 0, YEAR_S)?,
        };
        ensure!(
            schedule.pause_ms <= schedule.pause_ms_max,
            "webhook.pause_s is {}, more than webhook.pause_max_s, which is {}",
            schedule.pause_ms / 1000,
            schedule.pause_ms_max / 1000
        );
        Ok(Webhooks {
            schedule,
            body_bytes: need("webhook.body_bytes", self.body_bytes)?,
        })
    }
}
