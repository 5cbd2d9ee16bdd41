//! The tables become those of a later release while servers of this one run, and are replaced one by one.

use lazyfox_testing::shared;
use rustix::process::Signal;

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
    CREATE TABLE lazyfox.later (endpoint text PRIMARY KEY);
    INSERT INTO lazyfox.format (number, needs, program)
    SELECT max(number) + 1, max(number), 'lazyfox of tomorrow' FROM lazyfox.format;";

#[test]
fn servers_go_on_and_are_replaced_while_a_later_release_changes_the_tables() {
    let url = shared().database();
    let team = Team::new(&[url.clone(), url.clone(), url.clone()]);
    team.under_load(|world, servers, _| {
        world.moments.until_further(SOME);
        shared().psql(&url, &format!("BEGIN; {LATER} COMMIT;"));
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
    let later = shared().psql(&url, "SELECT max(number) > 1 FROM lazyfox.format");
    assert_eq!(later, "t");
}
