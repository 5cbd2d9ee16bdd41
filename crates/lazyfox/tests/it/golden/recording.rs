//! The recordings: what was sent, when, and what it was answered.

use serde::Deserialize;

/// One recorded request.
#[derive(Deserialize)]
pub(super) struct Call {
    /// Seconds since the recording began.
    pub(super) t: f64,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
    /// What it was answered, and after how many seconds; nothing when the recording ended before.
    pub(super) status: Option<u16>,
    pub(super) dt: Option<f64>,
}

impl Call {
    /// `job-take`, `job-done`, …
    pub(super) fn kind(&self) -> &str {
        self.path.split('/').nth(3).expect("a call of a worker")
    }

    /// The job of a report.
    pub(super) fn job(&self) -> Option<&str> {
        self.path.split('/').nth(5)
    }

    pub(super) fn is_final(&self) -> bool {
        self.kind() == "job-done" && !self.body.contains("\"status\": \"IN_PROGRESS\"")
    }

    /// Whether the worker waited for the answer in vain.
    pub(super) fn is_idle_poll(&self) -> bool {
        self.status.is_none_or(|status| status == 204)
    }

    pub(super) fn ends_at(&self) -> f64 {
        self.t + self.dt.unwrap_or(f64::INFINITY)
    }
}

/// The jobs of each recording, in the order in which they were given out.
pub(super) fn jobs_of(scenario: &str) -> &'static [&'static str] {
    match scenario {
        "sync" => &[
            "echo-1",
            "raise-1",
            "error-1",
            "errobj-1",
            "none-1",
            "empty-1",
            "str-1",
            "nan-1",
            "progress-1",
            "refresh-1",
        ],
        "gen_agg" => &["g1", "g2", "g3"],
        "agen_noagg" => &["ag1"],
        "refresh_cfg" => &["r1"],
        "async_conc4_cancel" => &["a0", "a1", "a2", "a3", "a4", "a5"],
        other => panic!("no such recording: {other}"),
    }
}

/// In the recordings with a cancel, this job was cancelled at this time.
pub(super) const CANCELLED: &str = "a1";
pub(super) const CANCELLED_AT: f64 = 6.0;

/// Reads a recording.
pub(super) fn read(version: &str, scenario: &str) -> Vec<Call> {
    let path = format!(
        "{}/tests/it/golden/{version}_{scenario}.jsonl",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a recorded request"))
        .collect()
}
