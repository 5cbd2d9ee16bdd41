//! What is looked at when the load is over.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use crate::history::{Entry, Seen, What};
use crate::load::{ENDPOINTS, World};
use crate::moments::{Moments, Phase};
use crate::receiver::Remembered;
use crate::server::{DEADLINE, Server};

/// Ends the threads when a check fails, or they would keep the test from ending.
pub(crate) struct SentHome<'a>(pub(crate) &'a Moments);

impl Drop for SentHome<'_> {
    fn drop(&mut self) {
        self.0.enter(Phase::Over);
    }
}

/// Waits for the end of every job and looks at it once more.
pub(crate) fn drained(server: &Server<'_>, world: &World) -> Vec<String> {
    let started = Instant::now();
    let mut all = Vec::new();
    for endpoint in ENDPOINTS {
        let jobs = listed(server, endpoint);
        for job in &jobs {
            let target = format!("{endpoint}/status-sync/{job}?wait=60000");
            let seen = Seen::of(&server.json("GET", &target, ""));
            assert!(seen.is_terminal(), "{job} does not end: {seen:?}");
            assert!(started.elapsed() < 2 * DEADLINE, "the queue does not drain");
            world.look(endpoint, job);
        }
        all.extend(jobs);
    }
    all
}

/// The jobs of an endpoint, the newest first.
pub(crate) fn listed(server: &Server<'_>, endpoint: &str) -> Vec<String> {
    let mut jobs = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = server.json("GET", &format!("{endpoint}/requests?limit=100{cursor}"), "");
        let requests = page["requests"].as_array().expect("a list");
        jobs.extend(
            requests
                .iter()
                .map(|job| job["id"].as_str().expect("an id").to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return jobs,
        }
    }
}

/// What `/health` counts is what happened: the ends that cannot be undone, each once.
pub(crate) fn counted(server: &Server<'_>, history: &[Entry]) {
    let mut last: BTreeMap<&str, &Seen> = BTreeMap::new();
    for entry in history {
        if let What::Saw(seen) = &entry.what {
            last.insert(&entry.job, seen);
        }
    }
    for (status, counter) in [("COMPLETED", "completed"), ("CANCELLED", "cancelled")] {
        let happened = last.values().filter(|seen| seen.status == status).count();
        let counts = ENDPOINTS.map(|endpoint| {
            let health = server.json("GET", &format!("{endpoint}/health"), "");
            health["jobs"][counter]
                .as_u64()
                .unwrap_or_else(|| panic!("no {counter}: {health}"))
        });
        assert_eq!(counts.iter().sum::<u64>(), happened as u64, "{counter}");
    }
}

/// Every job of an endpoint that ended by itself has reported that end, and no id has reported two.
pub(crate) fn all_arrived(server: &Server<'_>, endpoint: &str, jobs: &[String], seen: &Remembered) {
    let started = Instant::now();
    let pending = format!("{endpoint}/deliveries?state=pending&limit=1");
    while server.json("GET", &pending, "")["deliveries"] != Value::Array(Vec::new()) {
        assert!(started.elapsed() < DEADLINE, "deliveries do not end");
    }
    let mut by_id: BTreeMap<String, String> = BTreeMap::new();
    for delivery in seen.all() {
        let known = by_id
            .entry(delivery.id.clone())
            .or_insert_with(|| delivery.body.clone());
        assert_eq!(*known, delivery.body, "one id, two ends");
    }
    let bodies: Vec<Value> = by_id
        .values()
        .map(|body| serde_json::from_str(body).expect("a delivery is JSON"))
        .collect();
    for job in jobs {
        let end = server.json("GET", &format!("{endpoint}/status/{job}"), "");
        let reported = bodies.iter().any(|body| {
            let same = |field: &str| body[field] == end[field];
            same("id") && same("status") && same("output") && same("error") && same("completedAt")
        });
        let is_due = end["status"] != "CANCELLED";
        assert_eq!(reported, is_due, "{end}");
    }
    eprintln!("{} deliveries of {} ends", seen.all().len(), by_id.len());
}
