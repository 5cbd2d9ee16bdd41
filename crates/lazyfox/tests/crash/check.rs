//! Whether a history is one that the promises allow.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Entry, PostedResult, Seen, What};
use crate::load;

/// Everything that should not have happened. `listed` are the jobs that the server has in the end.
pub(crate) fn violations(history: &[Entry], listed: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let mut jobs: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in history.iter().filter(|entry| !entry.job.is_empty()) {
        jobs.entry(&entry.job).or_default().push(entry);
    }
    found.extend(missing(&jobs, listed));
    found.extend(tags(history));
    for (job, entries) in &jobs {
        let case = Case {
            job,
            entries,
            history,
        };
        found.extend(case.unfinished());
        found.extend(case.changed_ends());
        found.extend(case.unfounded_ends());
        found.extend(case.ignored_results());
    }
    found
}

fn missing(jobs: &BTreeMap<&str, Vec<&Entry>>, listed: &[String]) -> Vec<String> {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for job in listed {
        *times.entry(job).or_default() += 1;
    }
    let acknowledged = jobs.keys().filter(|job| times.get(**job) != Some(&1));
    let mut found: Vec<String> = acknowledged
        .map(|job| {
            format!(
                "{job} is known and listed {} times",
                times.get(job).unwrap_or(&0)
            )
        })
        .collect();
    let twice = times
        .iter()
        .filter(|(job, count)| **count > 1 && !jobs.contains_key(**job));
    found.extend(twice.map(|(job, count)| format!("{job} is listed {count} times")));
    found
}

/// One submit is one job, however often it was repeated, and its input arrives as it was sent.
fn tags(history: &[Entry]) -> Vec<String> {
    let mut found = Vec::new();
    let mut jobs: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for entry in history {
        let tag = match &entry.what {
            What::Submitted { tag } => tag.clone(),
            What::Took { input, .. } => {
                let value: serde_json::Value = serde_json::from_str(input).unwrap_or_default();
                let tag = value["tag"].as_str().unwrap_or_default().to_owned();
                if *input != load::input(&tag) {
                    found.push(format!("{} got another input: {input}", entry.job));
                }
                tag
            }
            What::Saw(_)
            | What::SawStatus(_)
            | What::Posted { .. }
            | What::Cancelled
            | What::Retried
            | What::Purged { .. } => continue,
        };
        jobs.entry(tag).or_default().insert(&entry.job);
    }
    let split = jobs.into_iter().filter(|(_, jobs)| jobs.len() > 1);
    found.extend(split.map(|(tag, jobs)| format!("the submit {tag} became {jobs:?}")));
    found
}

/// One job and what is known of it.
struct Case<'a> {
    job: &'a str,
    entries: &'a [&'a Entry],
    history: &'a [Entry],
}

impl Case<'_> {
    /// Every answer that shows its state. A worker that gets it sees it running.
    fn shown(&self) -> impl Iterator<Item = (&Entry, Shown<'_>)> {
        self.entries.iter().filter_map(|entry| {
            let (status, seen) = match &entry.what {
                What::Saw(seen) => (seen.status.as_str(), Some(seen)),
                What::SawStatus(status) => (status.as_str(), None),
                What::Took { .. } => ("IN_PROGRESS", None),
                What::Submitted { .. }
                | What::Posted { .. }
                | What::Cancelled
                | What::Retried
                | What::Purged { .. } => return None,
            };
            Some((*entry, Shown { status, seen }))
        })
    }

    fn seen(&self) -> impl Iterator<Item = (&Entry, &Seen)> {
        self.entries.iter().filter_map(|entry| match &entry.what {
            What::Saw(seen) => Some((*entry, seen)),
            _ => None,
        })
    }

    /// The last look at every job comes after the queue was drained.
    fn unfinished(&self) -> Vec<String> {
        let last = self.seen().max_by_key(|(entry, _)| entry.to);
        match last {
            Some((_, seen)) if seen.is_terminal() => Vec::new(),
            last => vec![format!("{} did not end: {last:?}", self.job)],
        }
    }

    /// A terminal state that somebody has seen stays, except through a retry.
    fn changed_ends(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (first, end) in self.shown().filter(|(_, shown)| shown.is_terminal()) {
            for (later, shown) in self.shown().filter(|(later, _)| later.from > first.to) {
                if !shown.agrees(&end) && !self.retried_between(first, later, end.status) {
                    found.push(format!("{} was {end:?}, and later {shown:?}", self.job));
                }
            }
        }
        found
    }

    fn retried_between(&self, first: &Entry, later: &Entry, status: &str) -> bool {
        let retryable = status == "FAILED" || status == "TIMED_OUT";
        let retries = self
            .entries
            .iter()
            .filter(|entry| entry.what == What::Retried);
        retryable
            && retries
                .into_iter()
                .any(|it| it.to > first.from && it.from < later.to)
    }

    /// Nothing ends for a reason that nobody gave.
    fn unfounded_ends(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (entry, seen) in self.seen() {
            let before = |other: &&&Entry| other.from < entry.to;
            let posted = |wanted: &PostedResult| {
                let mut earlier = self.entries.iter().filter(before);
                earlier
                    .any(|it| matches!(&it.what, What::Posted { result, .. } if result == wanted))
            };
            let founded = match seen.status.as_str() {
                "COMPLETED" => {
                    let output = seen.output.clone().unwrap_or_default();
                    posted(&PostedResult::Output(output))
                }
                "FAILED" => {
                    let error = seen.error.clone().unwrap_or_default();
                    error.contains("gave up after") || posted(&PostedResult::Error(error))
                }
                "CANCELLED" => {
                    let asked = self.entries.iter().filter(before);
                    let mut all = self.history.iter().filter(|it| it.from < entry.to);
                    asked.into_iter().any(|it| it.what == What::Cancelled)
                        || all.any(|it| match &it.what {
                            What::Purged { endpoint } => self.stood_in(endpoint),
                            _ => false,
                        })
                }
                "TIMED_OUT" => false,
                _ => true,
            };
            if !founded {
                found.push(format!("{} is {seen:?} for no reason", self.job));
            }
        }
        found
    }

    fn stood_in(&self, endpoint: &str) -> bool {
        self.entries.iter().any(|entry| match &entry.what {
            What::Submitted { tag } => tag.starts_with(endpoint),
            What::Took { input, .. } => input.contains(endpoint),
            _ => false,
        })
    }

    /// After its result was acknowledged, no worker is seen working on it.
    fn ignored_results(&self) -> Vec<String> {
        let mut found = Vec::new();
        for post in self.entries {
            let What::Posted {
                worker,
                acknowledged: true,
                ..
            } = &post.what
            else {
                continue;
            };
            let still = self.seen().filter(|(entry, seen)| {
                entry.from > post.to
                    && seen.status == "IN_PROGRESS"
                    && seen.worker.as_ref() == Some(worker)
            });
            found
                .extend(still.map(|_| format!("{}: the result of {worker} was ignored", self.job)));
        }
        found
    }
}

/// A state, and the rest of the job where the answer had it.
#[derive(Debug)]
struct Shown<'a> {
    status: &'a str,
    seen: Option<&'a Seen>,
}

impl Shown<'_> {
    fn is_terminal(&self) -> bool {
        !matches!(self.status, "IN_QUEUE" | "IN_PROGRESS")
    }

    fn agrees(&self, other: &Self) -> bool {
        let same = |a: &Seen, b: &Seen| a.output == b.output && a.error == b.error;
        let details = self.seen.zip(other.seen);
        self.status == other.status && details.is_none_or(|(a, b)| same(a, b))
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
