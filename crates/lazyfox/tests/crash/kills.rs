//! The promise of the README: what was accepted is never lost, however often the server dies.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::check;
use crate::history::{History, Seen, What};
use crate::load::{self, ENDPOINTS, World};
use crate::moments::{Moments, Phase};
use crate::receiver::Receiver;
use crate::seed::{self, Dice};
use crate::server::{DEADLINE, Home, Server};
use crate::webhooks;

const KILLS: usize = 20;
const CLIENTS: u64 = 6;
const WORKERS: u64 = 6;

/// Most acknowledgements in one life of the server.
const LIFE_MAX: u64 = 400;

/// Nothing is forgotten while the test looks; a worker that vanished is noticed soon, and never so often
/// that a job is given up.
const CONFIG: &str = "
[server]
auth = \"none\"
webhook_allow = [\"127.0.0.0/8\"]
[defaults]
webhook.pause_s = 1
lease_s = 4
retries_max = 10
retention_s = 3600
retention_sync_s = 3600
[endpoints.kept]
[endpoints.swept]
";

#[test]
fn nothing_acknowledged_is_lost_over_twenty_kills_under_load() {
    let seed = seed::of_this_run();
    eprintln!("{}={seed} repeats the choices of this run", seed::VARIABLE);
    let started = Instant::now();
    let home = Home::new(CONFIG);
    let receiver = Receiver::open();
    let world = World {
        port: home.port(),
        moments: Moments::new(),
        history: History::default(),
        webhook: receiver.url(),
    };
    let delivered = receiver.remember();
    std::thread::scope(|scope| {
        let _sent_home = SentHome(&world.moments);
        let mut server = home.serve();
        let mut dice = Dice::new(seed, 0);
        let world = &world;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| scope.spawn(move || load::client(world, n, Dice::new(seed, 1 + n))))
            .collect();
        for n in 0..WORKERS {
            scope.spawn(move || load::worker(world, n, Dice::new(seed, 100 + n)));
        }
        for _ in 0..KILLS {
            world
                .moments
                .is_up(server.pid(), Some(1 + dice.below(LIFE_MAX)));
            world.moments.until_down();
            server.gone();
            server = home.serve();
        }
        world.moments.is_up(server.pid(), None);
        world.moments.enter(Phase::Drain);
        for client in clients {
            client.join().expect("the client saw nothing odd");
        }
        let listed = drained(&server, world);
        world.moments.enter(Phase::Over);
        let history = world.history.entries();
        let found = check::violations(&history, &listed);
        assert!(found.is_empty(), "seed {seed}: {found:#?}");
        counted(&server, &history);
        let kept = self::listed(&server, ENDPOINTS[0]);
        webhooks::all_arrived(&server, ENDPOINTS[0], &kept, &delivered);
        assert!(server.stop().success());
        eprintln!(
            "{} jobs, {} acknowledgements, {} entries in {:?}",
            listed.len(),
            world.moments.acknowledged(),
            history.len(),
            started.elapsed()
        );
    });
}

/// Ends the threads when a check fails, or they would keep the test from ending.
struct SentHome<'a>(&'a Moments);

impl Drop for SentHome<'_> {
    fn drop(&mut self) {
        self.0.enter(Phase::Over);
    }
}

/// Waits for the end of every job and looks at it once more.
fn drained(server: &Server<'_>, world: &World) -> Vec<String> {
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

fn listed(server: &Server<'_>, endpoint: &str) -> Vec<String> {
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
fn counted(server: &Server<'_>, history: &[crate::history::Entry]) {
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
