//! One of several servers fails, or the database does, in the middle of the load.

use std::time::Instant;

use lazyfox_testing::{Mode, Options, Postgres, Proxy, shared};
use rustix::process::Signal;

use crate::http::request;
use crate::process;
use crate::server::DEADLINE;
use crate::team::Team;

/// Acknowledgements between two failures.
const SOME: u64 = 300;

#[test]
fn servers_that_are_killed_one_after_the_other_lose_nothing() {
    let team = Team::of(3, shared());
    team.under_load(|world, servers, dice| {
        for round in 0..9 {
            world.moments.until_further(1 + dice.below(SOME));
            let n = round % servers.len();
            process::signal(servers[n].pid(), Signal::KILL);
            servers[n].gone();
            // The others go on without it.
            world.moments.until_further(50);
            servers[n] = team.homes[n].serve();
        }
    });
}

#[test]
fn a_database_that_is_restarted_or_crashes_loses_nothing() {
    let postgres = Postgres::start(Options::default());
    let team = Team::of(2, &postgres);
    team.under_load(|world, _, _| {
        for mode in [Mode::Fast, Mode::Immediate, Mode::Fast, Mode::Immediate] {
            world.moments.until_further(SOME);
            postgres.restart(mode);
        }
        world.moments.until_further(SOME);
    });
}

#[test]
fn sessions_that_are_ended_again_and_again_lose_nothing() {
    let postgres = Postgres::start(Options::default());
    let team = Team::of(2, &postgres);
    team.under_load(|world, _, _| {
        for _ in 0..25 {
            world.moments.until_further(40);
            postgres.psql(
                "postgres",
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE application_name = 'lazyfox'",
            );
        }
        world.moments.until_further(SOME);
    });
}

#[test]
fn a_server_without_connections_recovers_by_itself() {
    let postgres = Postgres::start(Options {
        max_connections: 60,
        ..Options::default()
    });
    let team = Team::of(2, &postgres);
    team.under_load(|world, _, _| {
        world.moments.until_further(SOME);
        // Others take every connection that there is, and those of the servers are ended.
        let mut others = Vec::new();
        for _ in 0..3 {
            others.extend(postgres_sessions(&postgres));
            postgres.psql(
                "postgres",
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE application_name = 'lazyfox'",
            );
        }
        drop(others);
        world.moments.until_further(SOME);
    });
}

/// As many idle sessions as the server lets in.
fn postgres_sessions(postgres: &Postgres) -> Vec<std::net::TcpStream> {
    let connect = || std::net::TcpStream::connect(postgres.address());
    (0..40).filter_map(|_| connect().ok()).collect()
}

#[test]
fn a_server_that_stood_still_or_was_cut_off_does_no_harm() {
    let postgres = shared();
    let proxy = Proxy::start(postgres.address());
    let direct = postgres.database();
    let team = Team::new(&[direct.clone(), proxy.through(&direct)]);
    team.under_load(|world, servers, _| {
        for _ in 0..2 {
            world.moments.until_further(SOME);
            process::signal(servers[0].pid(), Signal::STOP);
            // Callers of the other one go on until each of them waits for this one.
            world.moments.until_further(3);
            process::signal(servers[0].pid(), Signal::CONT);
            world.moments.until_further(SOME);
            proxy.cut();
            // Results are held until the database is back, so the workers soon all wait.
            world.moments.until_further(10);
            proxy.restore();
        }
        world.moments.until_further(SOME);
    });
}

#[test]
fn without_its_database_a_server_says_503_and_when_to_come_again() {
    let postgres = shared();
    let proxy = Proxy::start(postgres.address());
    let team = Team::new(&[proxy.through(&postgres.database())]);
    let mut servers = team.serve();
    let server = &mut servers[0];
    let job = server.json("POST", "kept/run", "{\"input\":1}");
    proxy.cut();
    let started = Instant::now();
    let refused = server.call("POST", "kept/run", "{\"input\":2}");
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(started.elapsed() < DEADLINE / 2);
    proxy.restore();
    let status = loop {
        let answer = server.call(
            "GET",
            &format!("kept/status/{}", job["id"].as_str().expect("an id")),
            "",
        );
        if answer.status == 200 {
            break answer.json();
        }
        assert!(started.elapsed() < DEADLINE, "it does not recover");
    };
    assert_eq!(status["status"], "IN_QUEUE");
    assert!(server.stop().success());
}

/// Where a standby does not answer, everything can be read and no commit ends.
#[test]
fn a_server_whose_commits_hang_is_not_ready() {
    let postgres = Postgres::start(Options::default());
    let team = Team::of(1, &postgres);
    let mut servers = team.serve();
    let port = team.homes[0].port();
    let until_ready_is = |status: u16| {
        let started = Instant::now();
        loop {
            let answer = request(port, "GET", "/readyz", &[], "").expect("it answers");
            if answer.status == status {
                return answer;
            }
            assert!(started.elapsed() < DEADLINE, "{}", answer.body);
            std::thread::yield_now();
        }
    };
    until_ready_is(200);
    postgres.commits_wait_for("nobody");
    let answer = until_ready_is(503);
    let why = "the database has kept nothing of this server for";
    assert!(answer.body.contains(why), "{}", answer.body);
    postgres.commits_wait_for("");
    until_ready_is(200);
    assert!(servers[0].stop().success());
}
