//! Recorded workers of the public SDK, replayed: every request as it was sent, at the time it was
//! sent, and every answer held against what that version took for one.
//!
//! Only the ids of the jobs differ, which the server gives. The recordings hold no answers but their
//! status, so what a job came to is worked out from what the worker reported.

mod recording;

use std::collections::BTreeMap;

use lazyfox_core::id::WorkerId;
use serde_json::{Value, json};

use self::recording::{CANCELLED, CANCELLED_AT, Call, jobs_of};
use crate::http::{Connection, Reply, Request, until};
use crate::server::{Setup, TestServer, id_of, run};

struct Replay<'a> {
    s: &'a TestServer,
    names: &'static [&'static str],
    /// The server's id of each recorded job.
    ids: BTreeMap<&'static str, String>,
    given_out: usize,
    now: f64,
    /// Polls without an answer yet, and when the recorded worker had one.
    parked: Vec<(f64, &'a Call, Connection)>,
}

/// The server that was recorded gave no worker more jobs than it asked for.
fn recorded() -> Setup {
    Setup::sqlite().endpoint("prefetch = \"off\"")
}

async fn replay(s: &TestServer, version: &str, scenario: &str) {
    let calls = recording::read(version, scenario);
    let mut replay = Replay {
        s,
        names: jobs_of(scenario),
        ids: BTreeMap::new(),
        given_out: 0,
        now: 0.0,
        parked: Vec::new(),
    };
    for name in replay.names {
        let accepted = s.post(
            "/v2/endp01/run",
            json!({"input": {"name": name}}).to_string(),
        );
        replay.ids.insert(name, id_of(&accepted.await.ok()));
    }
    let cancels = scenario.ends_with("cancel");
    let mut cancelled = false;
    for call in &calls {
        if cancels && !cancelled && call.t >= CANCELLED_AT {
            cancelled = true;
            replay.move_to(CANCELLED_AT).await;
            replay.cancel().await;
        }
        replay.move_to(call.t).await;
        replay.send(call).await;
    }
    assert_eq!(cancelled, cancels);
    assert_eq!(replay.given_out, replay.names.len());
    replay.check_ends(&calls, cancels).await;
    // Whoever still waits is let go in time, and nothing of what ended changes.
    s.advance(60_000).await;
    for (_, call, mut poll) in std::mem::take(&mut replay.parked) {
        assert_eq!(poll.reply().await.status, 204, "{}", call.path);
    }
    replay.check_ends(&calls, cancels).await;
    replay.check_streams(&calls).await;
}

impl<'a> Replay<'a> {
    async fn move_to(&mut self, t: f64) {
        if t > self.now {
            // Milliseconds of a recording of half a minute.
            let ms = (t * 1_000.0) as u64 - (self.now * 1_000.0) as u64;
            self.s.advance(ms).await;
            self.now = t;
        }
        let (over, parked): (Vec<_>, Vec<_>) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|(end, ..)| *end <= t);
        self.parked = parked;
        for (_, call, mut poll) in over {
            if call.is_idle_poll() {
                // The recording server was less patient than this one, so its worker is gone by now.
                if !poll.is_silent() {
                    assert_eq!(poll.reply().await.status, 204, "{}", call.path);
                }
            } else {
                let reply = poll.reply().await;
                self.check(call, &reply);
            }
        }
        self.settle().await;
    }

    /// Waits until the server has noticed who is gone.
    async fn settle(&self) {
        let worker: WorkerId = "pod0001".parse().expect("a worker's name");
        let (fleet, open) = (&self.s.app().fleet, self.parked.len());
        until("the server notices who is gone", || {
            fleet.parked(&worker) <= open
        })
        .await;
    }

    async fn send(&mut self, call: &'a Call) {
        let mut path = call.path.clone();
        if let Some(job) = call.job() {
            path = path.replace(&format!("/{job}"), &format!("/{}", self.ids[job]));
        }
        let mut query = call.query.clone();
        if let Some((_, named)) = query.clone().split_once("job_id=") {
            let named = named.split('&').next().expect("the first part of a text");
            let ours: Vec<&str> = named
                .split("%2C")
                .map(|name| self.ids[name].as_str())
                .collect();
            query = query.replace(named, &ours.join("%2C"));
        }
        let target = format!("{path}?{query}");
        let mut request = match call.method.as_str() {
            "GET" => Request::get(target),
            _ => Request::post(target, &call.body),
        };
        for (name, value) in &call.headers {
            if !["host", "content-length"].contains(&name.to_ascii_lowercase().as_str()) {
                request = request.header(name, value);
            }
        }
        let mut connection = self.s.open(&request).await;
        let at_once = call.dt.is_some_and(|seconds| seconds < 0.1);
        if at_once {
            let reply = connection.reply().await;
            self.check(call, &reply);
        } else {
            // Whether it waits yet or not, it is before all that follows.
            self.s.get("/healthz").await.ok();
            self.parked.push((call.ends_at(), call, connection));
        }
    }

    async fn cancel(&self) {
        let target = format!("/v2/endp01/cancel/{}", self.ids[CANCELLED]);
        assert_eq!(self.s.post(target, "").await.ok()["status"], "CANCELLED");
    }

    /// What the SDK takes for an answer of this kind.
    fn check(&mut self, call: &Call, reply: &Reply) {
        assert_eq!(
            Some(reply.status),
            call.status,
            "{} at {}: {}",
            call.path,
            call.t,
            reply.text()
        );
        let body = reply.json();
        match call.kind() {
            "job-take" => self.check_job(&body),
            "job-take-batch" => {
                let jobs = body.as_array().expect("an array");
                let size = call
                    .query
                    .split("batch_size=")
                    .nth(1)
                    .expect("the size of a batch");
                let size: usize = size
                    .split('&')
                    .next()
                    .and_then(|n| n.parse().ok())
                    .expect("a number");
                assert!((1..=size).contains(&jobs.len()), "{body}");
                jobs.iter().for_each(|job| self.check_job(job));
            }
            "job-stop" => assert_eq!(body, json!({"jobsToStop": [self.ids[CANCELLED]]})),
            _ => assert!(body.is_object(), "{body}"),
        }
    }

    fn check_job(&mut self, job: &Value) {
        let name = self.names[self.given_out];
        self.given_out += 1;
        assert_eq!(*job, json!({"id": self.ids[name], "input": {"name": name}}));
    }

    async fn check_ends(&self, calls: &[Call], cancels: bool) {
        for name in self.names {
            let id = &self.ids[name];
            let of_job = |call: &&Call| call.job() == Some(name);
            let last = calls.iter().filter(of_job).rfind(|call| call.is_final());
            let job = self.s.get(format!("/v2/endp01/status/{id}")).await.ok();
            assert_eq!(job.get("retries"), None, "{job}");
            if cancels && *name == CANCELLED {
                assert_eq!(job["status"], "CANCELLED");
                assert_eq!(job.get("output"), None, "what came later is ignored: {job}");
                continue;
            }
            let report = &last.expect("every other job was reported").body;
            let report = report.replace("NaN", "null").replace("Infinity", "null");
            let report: Value =
                serde_json::from_str(&report).expect("a report is JSON but for these");
            let null = Value::Null;
            let output = report.get("output").unwrap_or(&null);
            assert_eq!(job.get("output").unwrap_or(&null), output, "{name}");
            match (
                report.get("error"),
                job.get("error").and_then(Value::as_str),
            ) {
                (None, None) => assert_eq!(job["status"], "COMPLETED", "{name}"),
                (Some(Value::String(theirs)), Some(ours)) => assert_eq!(theirs, ours),
                (Some(theirs), Some(ours)) => {
                    assert_eq!(serde_json::from_str(ours).ok().as_ref(), Some(theirs));
                }
                (theirs, ours) => panic!("{name}: {theirs:?} became {ours:?}"),
            }
            if report.get("error").is_some() {
                assert_eq!(job["status"], "FAILED", "{name}");
            }
        }
    }

    /// The stream of each job is what its worker sent, in that order.
    async fn check_streams(&self, calls: &[Call]) {
        for (name, id) in &self.ids {
            let chunks = calls
                .iter()
                .filter(|call| call.kind() == "job-stream" && call.job() == Some(name));
            let chunks: Vec<Value> = chunks
                .map(|call| serde_json::from_str(&call.body).expect("a chunk is JSON"))
                .collect();
            let stream = self.s.get(format!("/v2/endp01/stream/{id}")).await.ok();
            assert_eq!(stream["stream"], json!(chunks), "{name}");
        }
    }
}

macro_rules! recordings {
    ($($module:ident => $version:literal,)*) => {$(
        mod $module {
            use super::*;

            #[tokio::test]
            async fn sync() {
                run(recorded(), async |s| replay(s, $version, "sync").await).await;
            }

            #[tokio::test]
            async fn generator_with_aggregate() {
                run(recorded(), async |s| replay(s, $version, "gen_agg").await).await;
            }

            #[tokio::test]
            async fn generator_without_aggregate() {
                run(recorded(), async |s| replay(s, $version, "agen_noagg").await).await;
            }

            #[tokio::test]
            async fn refresh_by_configuration() {
                run(recorded(), async |s| replay(s, $version, "refresh_cfg").await).await;
            }

            #[tokio::test]
            async fn four_slots_and_a_cancel() {
                run(recorded(), async |s| replay(s, $version, "async_conc4_cancel").await).await;
            }
        }
    )*};
}

recordings! {
    sdk_1_6_2 => "1.6.2",
    sdk_1_7_13 => "1.7.13",
    sdk_1_12_0 => "1.12.0",
    sdk_2_0_0rc2 => "2.0.0rc2",
}
