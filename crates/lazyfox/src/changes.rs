//! Numbers of an endpoint that can be changed while the server runs. They take effect at once, survive a
//! restart, and win over the configuration until they are taken back.

use std::ops::RangeInclusive;

use lazyfox_core::limits;
use lazyfox_core::scale::{Scaler, Settings};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::Endpoint;

/// What was changed, and what it is now. The names are the public contract's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Changes {
    #[serde(skip_serializing_if = "Option::is_none")]
    workers_min: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workers_max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scaler_type: Option<ScalerType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scaler_value: Option<u32>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_timeout: Option<u32>,
}

/// The scalers, as the public contract spells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ScalerType {
    /// By how long jobs wait.
    QueueDelay,
    /// By how many there are.
    RequestCount,
}

/// The names of what can be changed, for messages.
const NAMES: &str = "workersMin, workersMax, scalerType, scalerValue and idleTimeout";

impl Changes {
    /// Adds what a document asks for: a value, or `null` for what the configuration says.
    ///
    /// # Errors
    /// Names the field and what is allowed.
    pub fn then(mut self, document: &Map<String, Value>) -> Result<Self, String> {
        for (name, value) in document {
            match name.as_str() {
                "workersMin" => self.workers_min = number(name, value, 0..=limits::WORKERS_MOST)?,
                "workersMax" => self.workers_max = number(name, value, 0..=limits::WORKERS_MOST)?,
                "scalerType" => self.scaler_type = scaler_type(value)?,
                "scalerValue" => self.scaler_value = number(name, value, 1..=3600)?,
                "idleTimeout" => self.idle_timeout = number(name, value, 0..=3600)?,
                _ => return Err(format!("{name:?} cannot be changed, {NAMES} can")),
            }
        }
        Ok(self)
    }

    /// Lays the changes over an endpoint's settings.
    pub fn apply(&self, endpoint: &mut Endpoint) {
        let scale = &mut endpoint.scale;
        let (scaler_type, scaler_value) = scaler_of(scale);
        scale.workers_min = self.workers_min.unwrap_or(scale.workers_min);
        scale.workers_max = self.workers_max.unwrap_or(scale.workers_max);
        scale.scaler = scaler(
            self.scaler_type.unwrap_or(scaler_type),
            self.scaler_value.unwrap_or(scaler_value),
        );
        if let Some(seconds) = self.idle_timeout {
            scale.idle_timeout_ms = u64::from(seconds) * 1000;
        }
    }

    /// Whether the changed settings make sense.
    ///
    /// # Errors
    /// Names the fields.
    pub fn check(&self, endpoint: &Endpoint) -> Result<(), String> {
        let Settings {
            workers_min,
            workers_max,
            ..
        } = endpoint.scale;
        // A paused endpoint has none, whatever is kept otherwise.
        if workers_min > workers_max && workers_max > 0 {
            return Err(format!(
                "workersMin is {workers_min}, more than workersMax, which is {workers_max}"
            ));
        }
        Ok(())
    }

    /// Whether nothing is changed.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A scaler in the words of the public contract.
#[must_use]
pub fn scaler_of(settings: &Settings) -> (ScalerType, u32) {
    match settings.scaler {
        Scaler::QueueDelay { ms } => {
            let seconds = u32::try_from(ms / 1000).unwrap_or(u32::MAX);
            (ScalerType::QueueDelay, seconds)
        }
        Scaler::RequestCount { per_worker } => (ScalerType::RequestCount, per_worker),
    }
}

fn scaler(scaler_type: ScalerType, value: u32) -> Scaler {
    match scaler_type {
        ScalerType::QueueDelay => Scaler::QueueDelay {
            ms: u64::from(value) * 1000,
        },
        ScalerType::RequestCount => Scaler::RequestCount { per_worker: value },
    }
}

impl ScalerType {
    /// As the public contract spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueDelay => "QUEUE_DELAY",
            Self::RequestCount => "REQUEST_COUNT",
        }
    }
}

fn number(name: &str, value: &Value, allowed: RangeInclusive<u32>) -> Result<Option<u32>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let number = value.as_u64().and_then(|it| u32::try_from(it).ok());
    match number.filter(|it| allowed.contains(it)) {
        Some(number) => Ok(Some(number)),
        None => Err(format!(
            "{name} is {value}, allowed are whole numbers from {} to {}, and null",
            allowed.start(),
            allowed.end()
        )),
    }
}

fn scaler_type(value: &Value) -> Result<Option<ScalerType>, String> {
    match value.as_str() {
        None if value.is_null() => Ok(None),
        Some("QUEUE_DELAY") => Ok(Some(ScalerType::QueueDelay)),
        Some("REQUEST_COUNT") => Ok(Some(ScalerType::RequestCount)),
        Some(_) | None => Err(format!(
            "scalerType is {value}, allowed are \"QUEUE_DELAY\", \"REQUEST_COUNT\" and null"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn then(changes: Changes, text: &str) -> Result<Changes, String> {
        changes.then(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn changes_are_added_and_taken_back() {
        let changes = then(
            Changes::default(),
            r#"{"workersMax":7,"scalerType":"REQUEST_COUNT"}"#,
        );
        let changes = then(changes.unwrap(), r#"{"scalerValue":2,"idleTimeout":60}"#).unwrap();
        let mut endpoint = Endpoint::shipped();
        changes.apply(&mut endpoint);
        assert_eq!(endpoint.scale.workers_max, 7);
        assert_eq!(
            endpoint.scale.scaler,
            Scaler::RequestCount { per_worker: 2 }
        );
        assert_eq!(endpoint.scale.idle_timeout_ms, 60_000);

        let all = r#"{"workersMax":null,"scalerType":null,"scalerValue":null,"idleTimeout":null}"#;
        let changes = then(changes, all).unwrap();
        assert!(changes.is_none());
        let mut endpoint = Endpoint::shipped();
        changes.apply(&mut endpoint);
        assert_eq!(endpoint.scale, Endpoint::shipped().scale);
    }

    #[test]
    fn what_is_kept_reads_back_the_same() {
        let text = r#"{"workersMin":1,"workersMax":0,"scalerType":"QUEUE_DELAY","idleTimeout":0}"#;
        let changes = then(Changes::default(), text).unwrap();
        assert_eq!(serde_json::to_string(&changes).unwrap(), text);
        assert_eq!(serde_json::from_str::<Changes>(text).unwrap(), changes);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        for (text, parts) in [
            (r#"{"workersMax":-1}"#, ["workersMax is -1", "0 to"]),
            (
                r#"{"workersMax":1.5}"#,
                ["workersMax is 1.5", "whole numbers"],
            ),
            (r#"{"scalerValue":0}"#, ["scalerValue is 0", "1 to 3600"]),
            (
                r#"{"idleTimeout":"5"}"#,
                ["idleTimeout is \"5\"", "0 to 3600"],
            ),
            (
                r#"{"scalerType":"MAGIC"}"#,
                ["scalerType is \"MAGIC\"", "QUEUE_DELAY"],
            ),
            (
                r#"{"image":"x"}"#,
                ["\"image\" cannot be changed", "workersMin"],
            ),
        ] {
            let error = then(Changes::default(), text).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn a_minimum_above_the_maximum_is_refused_unless_it_pauses() {
        let check = |text: &str| {
            let changes = then(Changes::default(), text).unwrap();
            let mut endpoint = Endpoint::shipped();
            changes.apply(&mut endpoint);
            changes.check(&endpoint)
        };
        assert!(
            check(r#"{"workersMin":4}"#)
                .unwrap_err()
                .contains("workersMin is 4")
        );
        assert_eq!(check(r#"{"workersMin":2,"workersMax":0}"#), Ok(()));
        assert_eq!(check(r#"{"workersMin":3}"#), Ok(()));
    }
}
