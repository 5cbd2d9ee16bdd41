//! What the scaler decided lately, with what it saw.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lazyfox_core::id::EndpointId;
use lazyfox_core::scale::{Demand, Member, Phase, Plan, Reason, Starts};
use lazyfox_core::time::Timestamp;

/// Decisions that are kept of each endpoint.
const KEPT: usize = 200;

/// The decisions of all endpoints.
#[derive(Default)]
pub struct Decisions {
    lines: Mutex<HashMap<EndpointId, Line>>,
}

#[derive(Default)]
struct Line {
    kept: VecDeque<Decision>,
    standing: Option<Standing>,
}

/// How things stand after the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Workers that there is no room for.
    pub throttled: u32,
    /// Why so many are started, or none.
    pub reason: Reason,
    /// When time alone changes the plan.
    pub again_at: Timestamp,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// What.
    pub plan: Plan,
    /// From what.
    pub inputs: Inputs,
}

/// What the scaler saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// What waited and ran.
    pub demand: Demand,
    /// Workers that were starting.
    pub starting: u32,
    /// Workers without a job.
    pub idle: u32,
    /// Workers with one.
    pub busy: u32,
    /// Workers that were stopping.
    pub stopping: u32,
    /// Of all these, those of an older release.
    pub outdated: u32,
    /// Beside these, workers of other servers.
    pub elsewhere: u32,
    /// How starts went.
    pub starts: Starts,
    /// Workers that there was room for; `None` where nothing limits them.
    pub room: Option<u32>,
}

impl Inputs {
    /// Counts a fleet.
    #[must_use]
    pub fn of(demand: Demand, fleet: &[Member], starts: Starts, room: Option<u32>) -> Self {
        let mut inputs = Self {
            demand,
            starts,
            room,
            ..Self::default()
        };
        for member in fleet {
            inputs.outdated += u32::from(member.outdated);
            match member.phase {
                Phase::Starting => inputs.starting += 1,
                Phase::Idle { .. } => inputs.idle += 1,
                Phase::Busy { .. } => inputs.busy += 1,
                Phase::Stopping => inputs.stopping += 1,
            }
        }
        inputs
    }
}

impl Decisions {
    fn lines(&self) -> MutexGuard<'_, HashMap<EndpointId, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a plan. Kept are those that do something, and those that have another reason than the one
    /// before; true for these.
    pub fn note(&self, endpoint: &EndpointId, plan: &Plan, inputs: Inputs, at: Timestamp) -> bool {
        let mut lines = self.lines();
        let line = lines.entry(endpoint.clone()).or_default();
        let before = line.standing.replace(Standing {
            throttled: plan.throttled,
            reason: plan.reason,
            again_at: plan.again_at,
        });
        let same = before.is_some_and(|it| it.reason.as_str() == plan.reason.as_str());
        if plan.start == 0 && plan.stop.is_empty() && same {
            return false;
        }
        if line.kept.len() == KEPT {
            line.kept.pop_front();
        }
        line.kept.push_back(Decision {
            at,
            plan: plan.clone(),
            inputs,
        });
        true
    }

    /// Endpoints that are not scaled (any more) stand nowhere; what was decided stays.
    pub fn forget_standing_but_of(&self, is_scaled: impl Fn(&EndpointId) -> bool) {
        for (endpoint, line) in self.lines().iter_mut() {
            if !is_scaled(endpoint) {
                line.standing = None;
            }
        }
    }

    /// How things stand.
    #[must_use]
    pub fn standing(&self, endpoint: &EndpointId) -> Option<Standing> {
        self.lines().get(endpoint).and_then(|line| line.standing)
    }

    /// The last decisions, the newest first.
    #[must_use]
    pub fn last(&self, endpoint: &EndpointId, limit: usize) -> Vec<Decision> {
        let lines = self.lines();
        let line = lines.get(endpoint);
        line.into_iter()
            .flat_map(|line| line.kept.iter().rev().take(limit).cloned())
            .collect()
    }
}
