//! Simulated clients and workers that live through any number of deaths of the server.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::history::{History, PostedResult, Seen, What};
use crate::http::{Answer, request};
use crate::moments::{Moments, Phase};
use crate::seed::Dice;

/// The endpoints: the queue of the second one is purged now and then.
pub(crate) const ENDPOINTS: [&str; 2] = ["kept", "swept"];

/// What all threads share.
pub(crate) struct World {
    /// Where servers are. With several, calls go to one after the other.
    ports: Vec<u16>,
    turn: AtomicUsize,
    pub(crate) moments: Moments,
    pub(crate) history: History,
    /// Where the ends of the first endpoint's jobs are reported.
    pub(crate) webhook: String,
}

impl World {
    pub(crate) fn new(ports: Vec<u16>, webhook: String) -> Self {
        Self {
            ports,
            turn: AtomicUsize::new(0),
            moments: Moments::new(),
            history: History::default(),
            webhook,
        }
    }

    /// One call; an error when the server died before it had answered.
    fn call(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Answer> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let port = self.ports[turn % self.ports.len()];
        let answer = request(port, method, &format!("/v2/{target}"), headers, body);
        match answer {
            Ok(answer) if answer.status == 200 => {
                self.moments.acknowledge();
                Ok(answer)
            }
            // What several servers share may be away: then nothing is acknowledged, and nobody knows more.
            Ok(answer) if answer.status == 503 && self.ports.len() > 1 => {
                Err(io::Error::other(answer.body))
            }
            Ok(answer) => Ok(answer),
            Err(error) => {
                if self.ports.len() == 1 {
                    self.moments.until_up();
                }
                Err(error)
            }
        }
    }

    /// Looks at a job and enters what is seen.
    pub(crate) fn look(&self, endpoint: &str, job: &str) -> Option<Seen> {
        let from = self.history.tick();
        let answer = self
            .call("GET", &format!("{endpoint}/status/{job}"), &[], "")
            .ok()?;
        let seen = Seen::of(&answer.json());
        self.history.enter(from, job, What::Saw(seen.clone()));
        Some(seen)
    }
}

/// The input with this tag: white space, numbers and escapes that a parser would not give back.
pub(crate) fn input(tag: &str) -> String {
    format!(
        "{{ \"tag\":\"{tag}\", \"n\":1.50e+2,\"text\":\"\\u00e9 é\\/\" ,\"deep\":[ [1.0],{{}} ] }}"
    )
}

/// Submits, looks, cancels, retries and purges until the load is over.
pub(crate) fn client(world: &World, number: u64, mut dice: Dice) {
    let mut own: Vec<(&str, String)> = Vec::new();
    for count in 0.. {
        if world.moments.phase() != Phase::Load {
            return;
        }
        let endpoint = ENDPOINTS[usize::from(dice.percent(25))];
        match dice.below(100) {
            0..2 => purge(world),
            2..35 if !own.is_empty() => {
                let recent = own.len().saturating_sub(20);
                let chosen = recent + dice.below((own.len() - recent) as u64) as usize;
                let (endpoint, job) = &own[chosen];
                meddle(world, endpoint, job, &mut dice);
            }
            _ => {
                let tag = format!("{endpoint}-{number}-{count}");
                own.extend(submit(world, endpoint, &tag, &mut dice).map(|job| (endpoint, job)));
            }
        }
    }
}

/// Submits once; with an idempotency key again and again until the server says that it has it.
fn submit(world: &World, endpoint: &str, tag: &str, dice: &mut Dice) -> Option<String> {
    let low = if dice.percent(10) {
        ",\"policy\":{\"lowPriority\":true}"
    } else {
        ""
    };
    let webhook = if endpoint == ENDPOINTS[0] {
        format!(",\"webhook\":\"{}\"", world.webhook)
    } else {
        String::new()
    };
    let body = format!("{{\"input\":{}{low}{webhook}}}", input(tag));
    let keyed = dice.percent(50);
    let headers: &[(&str, &str)] = if keyed {
        &[("idempotency-key", tag)]
    } else {
        &[]
    };
    let call = if dice.percent(15) {
        "runsync?wait=1000"
    } else {
        "run"
    };
    loop {
        let from = world.history.tick();
        match world.call("POST", &format!("{endpoint}/{call}"), headers, &body) {
            Ok(answer) => {
                let answer = answer.json();
                let job = answer["id"].as_str().expect("an id").to_owned();
                world.history.enter(
                    from,
                    &job,
                    What::Submitted {
                        tag: tag.to_owned(),
                    },
                );
                let seen = Seen::of(&answer);
                // A known job of /run is answered with its state and nothing else.
                let shown = if call == "run" {
                    What::SawStatus(seen.status)
                } else {
                    What::Saw(seen)
                };
                world.history.enter(from, &job, shown);
                return Some(job);
            }
            Err(_) if keyed && world.moments.phase() != Phase::Over => {}
            Err(_) => return None,
        }
    }
}

/// Looks at a job, and may cancel or retry it.
fn meddle(world: &World, endpoint: &str, job: &str, dice: &mut Dice) {
    let Some(seen) = world.look(endpoint, job) else {
        return;
    };
    let from = world.history.tick();
    if seen.status == "FAILED" && dice.percent(60) {
        let answer = world.call("POST", &format!("{endpoint}/retry/{job}"), &[], "");
        // Another client is never faster: jobs are their submitter's.
        assert!(answer.is_err() || answer.is_ok_and(|it| it.json()["status"] == "IN_QUEUE"));
        world.history.enter(from, job, What::Retried);
    } else if dice.percent(25) {
        let answer = world.call("POST", &format!("{endpoint}/cancel/{job}"), &[], "");
        world.history.enter(from, job, What::Cancelled);
        if let Ok(answer) = answer {
            let status = answer.json()["status"]
                .as_str()
                .expect("a status")
                .to_owned();
            world.history.enter(from, job, What::SawStatus(status));
        }
    }
}

fn purge(world: &World) {
    let from = world.history.tick();
    let endpoint = ENDPOINTS[1];
    let _ = world.call("POST", &format!("{endpoint}/purge-queue"), &[], "");
    world.history.enter(from, "", What::Purged { endpoint });
}

/// Takes jobs and reports them, each under a name of its own: one that had a job and lost it would never
/// get it again.
pub(crate) fn worker(world: &World, number: u64, mut dice: Dice) {
    let endpoint = ENDPOINTS[usize::from(number % 2 == 1)];
    for count in 0.. {
        if world.moments.phase() == Phase::Over {
            return;
        }
        let name = format!("w{number}-{count}");
        let from = world.history.tick();
        let target = format!("{endpoint}/job-take/{name}?&job_in_progress=0");
        let Ok(answer) = world.call("GET", &target, &[], "") else {
            continue;
        };
        // 204 is an empty poll, 429 a server that stops.
        if answer.status == 200 {
            let (job, input) = taken(&answer.body);
            let took = What::Took {
                worker: name.clone(),
                input,
            };
            world.history.enter(from, &job, took);
            work(world, endpoint, &name, &job, &mut dice);
        }
    }
}

fn taken(body: &str) -> (String, String) {
    #[derive(serde::Deserialize)]
    struct Job<'a> {
        id: String,
        #[serde(borrow)]
        input: &'a RawValue,
    }
    let job: Job<'_> = serde_json::from_str(body).expect("a job is JSON");
    (job.id, job.input.get().to_owned())
}

fn work(world: &World, endpoint: &str, name: &str, job: &str, dice: &mut Dice) {
    // Dies with the job: its lease brings it back.
    if dice.percent(4) {
        return;
    }
    let target = format!("{endpoint}/job-done/{name}/{job}?&isStream=false");
    if dice.percent(20) {
        let body = json!({"status": "IN_PROGRESS", "output": {"half": name}});
        let _ = world.call("POST", &target, &[], &body.to_string());
    }
    let (body, result) = if dice.percent(10) {
        let error = format!("broken by {name}");
        (json!({"error": error}), PostedResult::Error(error))
    } else {
        let output = json!({"by": name});
        (json!({"output": output}), PostedResult::Output(output))
    };
    while !post(world, &target, name, job, &body, result.clone()) {
        // The public SDK drops its result here; a worker behind a proxy may send it again.
        if dice.percent(50) {
            return;
        }
    }
    if dice.percent(30) {
        world.look(endpoint, job);
    }
    if dice.percent(10) {
        let body = json!({"output": "too late"});
        post(world, &target, name, job, &body, PostedResult::TooLate);
    }
}

/// Reports an end; false when there was no answer.
fn post(
    world: &World,
    target: &str,
    name: &str,
    job: &str,
    body: &Value,
    result: PostedResult,
) -> bool {
    let from = world.history.tick();
    let answer = world.call("POST", target, &[], &body.to_string());
    if let Ok(answer) = &answer {
        assert_eq!(
            answer.status, 200,
            "a worker would lose its result: {}",
            answer.body
        );
    }
    let acknowledged = answer.is_ok();
    let posted = What::Posted {
        worker: name.to_owned(),
        result,
        acknowledged,
    };
    world.history.enter(from, job, posted);
    acknowledged
}
