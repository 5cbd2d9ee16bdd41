//! The tables become those of a later release while servers of this one run, and are replaced one by one.

use lazyfox_store::postgres::{Access, Format, PostgresStore, Trust};
use lazyfox_testing::shared;
use rustix::process::Signal;
use tokio::runtime::Builder;

use crate::process;
use crate::team::Team;

/// Acknowledgements between two steps.
const SOME: u64 = 300;

/// What a later release may do to the tables so that this one can go on: more columns, indexes and tables.
const LATER: &str = "
    ALTER TABLE lazyfox.jobs ADD COLUMN later text;
    ALTER TABLE lazyfox.inputs ADD COLUMN later integer NOT NULL DEFAULT 1;
    ALTER TABLE lazyfox.deliveries ADD COLUMN later text NOT NULL DEFAULT 'none';
    CREATE INDEX jobs_later ON lazyfox.jobs (endpoint, later) WHERE later IS NOT NULL;
    CREATE TABLE lazyfox.later (endpoint text PRIMARY KEY);";

/// As `lazyfox migrate` of the later release does it.
fn migrate(url: &str) {
    let access = Access::parse(url, None, Trust::System, 4).expect("it is a URL");
    let migrated = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(PostgresStore::migrate_further(&access, &[LATER]));
    assert_eq!(migrated, Ok(Format::NewerUsable(Format::KNOWN + 1)));
}

#[test]
fn servers_go_on_and_are_replaced_while_a_later_release_changes_the_tables() {
    let url = shared().database();
    let team = Team::new(&[url.clone(), url.clone(), url.clone()]);
    team.under_load(|world, servers, _| {
        world.moments.until_further(SOME);
        migrate(&url);
        world.moments.until_further(SOME);
        for (n, home) in team.homes.iter().enumerate() {
            if n == 0 {
                process::signal(servers[n].pid(), Signal::KILL);
                servers[n].gone();
            } else {
                assert!(servers[n].stop().success());
            }
            world.moments.until_further(50);
            servers[n] = home.serve();
            world.moments.until_further(SOME);
        }
    });
}
