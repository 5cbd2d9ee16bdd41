//! Servers that share a database.

use std::path::PathBuf;

use lazyfox_testing::Postgres;
use tempfile::TempDir;

use crate::after::{self, SentHome};
use crate::check;
use crate::load::{self, World};
use crate::moments::Phase;
use crate::receiver::Receiver;
use crate::seed::{self, Dice};
use crate::server::{Home, Server};

const CLIENTS: u64 = 6;
const WORKERS: u64 = 6;

/// Nothing is forgotten while the test looks; a worker that vanished is noticed soon, and never so often
/// that a job is given up.
const CONFIG: &str = "
[defaults]
webhook.pause_s = 1
lease_s = 4
retries_max = 10
retention_s = 3600
retention_sync_s = 3600
[endpoints.kept]
[endpoints.swept]
";

/// What servers share, and what each has for itself.
pub(crate) struct Team {
    pub(crate) homes: Vec<Home>,
    _shared: TempDir,
}

impl Team {
    /// One server for each way to the database.
    pub(crate) fn new(urls: &[String]) -> Self {
        Self::with(urls, CONFIG)
    }

    pub(crate) fn with(urls: &[String], config: &str) -> Self {
        let shared = tempfile::tempdir().expect("a temporary folder");
        let key: PathBuf = shared.path().join("server.key");
        let homes = urls.iter().map(|url| {
            Home::new(&format!(
                "[server]\nauth = \"none\"\nwebhook_allow = [\"127.0.0.0/8\"]\n\
                 database_url = {url:?}\nkey_file = {key:?}\n{config}"
            ))
        });
        Self {
            homes: homes.collect(),
            _shared: shared,
        }
    }

    /// So many servers that reach the database directly.
    pub(crate) fn of(count: usize, postgres: &Postgres) -> Self {
        let url = postgres.database();
        Self::new(&vec![url; count])
    }

    pub(crate) fn serve(&self) -> Vec<Server<'_>> {
        self.homes.iter().map(Home::serve).collect()
    }

    /// Lets clients and workers work through all servers while `happens` does what it does, and checks what
    /// they saw. In the end all servers run.
    pub(crate) fn under_load<'a>(
        &'a self,
        happens: impl FnOnce(&World, &mut Vec<Server<'a>>, &mut Dice),
    ) {
        let seed = seed::of_this_run();
        eprintln!("{}={seed} repeats the choices of this run", seed::VARIABLE);
        let receiver = Receiver::open();
        let ports = self.homes.iter().map(Home::port).collect();
        let world = World::new(ports, receiver.url());
        let delivered = receiver.remember();
        let mut servers = self.serve();
        std::thread::scope(|scope| {
            let _sent_home = SentHome(&world.moments);
            let world = &world;
            let clients: Vec<_> = (0..CLIENTS)
                .map(|n| scope.spawn(move || load::client(world, n, Dice::new(seed, 1 + n))))
                .collect();
            for n in 0..WORKERS {
                scope.spawn(move || load::worker(world, n, Dice::new(seed, 100 + n)));
            }
            happens(world, &mut servers, &mut Dice::new(seed, 0));
            world.moments.enter(Phase::Drain);
            for client in clients {
                client.join().expect("the client saw nothing odd");
            }
            let listed = after::drained(&servers[0], world);
            world.moments.enter(Phase::Over);
            let history = world.history.entries();
            let found = check::violations(&history, &listed);
            assert!(found.is_empty(), "seed {seed}: {found:#?}");
            let last = servers.last().expect("there are some");
            after::counted(last, &history);
            let kept = after::listed(last, load::ENDPOINTS[0]);
            after::all_arrived(last, load::ENDPOINTS[0], &kept, &delivered);
            eprintln!(
                "{} jobs, {} acknowledgements, {} entries",
                listed.len(),
                world.moments.acknowledged(),
                history.len()
            );
        });
        for mut server in servers {
            assert!(server.stop().success());
        }
    }
}
