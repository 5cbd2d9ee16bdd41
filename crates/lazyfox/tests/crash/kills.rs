//! The promise of the README: what was accepted is never lost, however often the server dies.

use std::time::Instant;

use crate::after::{self, SentHome};
use crate::check;
use crate::load::{self, ENDPOINTS, World};
use crate::moments::Phase;
use crate::receiver::Receiver;
use crate::seed::{self, Dice};
use crate::server::Home;

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
    let world = World::new(vec![home.port()], receiver.url());
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
        let listed = after::drained(&server, world);
        world.moments.enter(Phase::Over);
        let history = world.history.entries();
        let found = check::violations(&history, &listed);
        assert!(found.is_empty(), "seed {seed}: {found:#?}");
        after::counted(&server, &history);
        let kept = after::listed(&server, ENDPOINTS[0]);
        after::all_arrived(&server, ENDPOINTS[0], &kept, &delivered);
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
