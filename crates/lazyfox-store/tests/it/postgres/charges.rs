//! Who starts the workers of an endpoint: one server at a time, and none that does not know that it is over.
//!
//! Nobody waits: charges end because all times in the database are moved back.

use lazyfox_store::postgres::{PostgresStore, Spans};
use lazyfox_store::{Bid, Charge, Charges, Holder, Shared, Store};

use crate::world::*;

/// No charge ends by itself within a test.
const SPANS: Spans = Spans {
    lease_ms: 600_000,
    margin_ms: 1_000,
    beat_ms: 60_000,
    free_ms: 2_000,
};

struct Database {
    url: String,
}

impl Database {
    fn new() -> Self {
        Self {
            url: lazyfox_testing::shared().database(),
        }
    }

    async fn server(&self, name: &str) -> PostgresStore {
        postgres_of(&self.url, name).await.with_spans(SPANS)
    }

    fn sql(&self, text: &str) -> String {
        let (_, name) = self.url.rsplit_once('/').unwrap();
        let name = name.split('?').next().unwrap();
        lazyfox_testing::shared().psql(name, text)
    }

    /// As if so much time had passed.
    fn later(&self, ms: u64) {
        self.sql(&format!(
            "UPDATE lazyfox.servers SET seen_until = seen_until - {ms};
             UPDATE lazyfox.charges SET until = until - {ms}"
        ));
    }
}

async fn charge(server: &PostgresStore, endpoints: &[&str]) -> Shared {
    told(server, bid(endpoints)).await
}

async fn told(server: &PostgresStore, bid: Bid) -> Shared {
    match server.charge(bid).await.unwrap() {
        Charges::Shared(shared) => shared,
        Charges::Alone => panic!("a server on a database is never alone"),
    }
}

fn of<'s>(shared: &'s Shared, on: &str) -> &'s Charge {
    &shared.of[&endpoint(on)]
}

/// What an answer says of an endpoint: `here 1`, `there a`, `nobody`.
fn who(shared: &Shared, on: &str) -> String {
    match &of(shared, on).holder {
        Holder::Here { term } => format!("here {term}"),
        Holder::There(peer) => format!("there {}", peer.name),
        Holder::Nobody => "nobody".to_owned(),
    }
}

/// Workers of other servers.
fn elsewhere(shared: &Shared, on: &str) -> Vec<String> {
    let elsewhere = of(shared, on).elsewhere.iter();
    elsewhere
        .map(|it| format!("{} of {}", it.worker, it.server.name))
        .collect()
}

async fn enlist(server: &PostgresStore, on: &str, by: &str, term: u64) -> bool {
    let enlisted = server.enlist(&endpoint(on), &worker(by), Some(term)).await;
    enlisted.unwrap()
}

#[tokio::test]
async fn one_server_is_in_charge_and_the_other_knows_of_it() {
    let db = Database::new();
    let (a, b) = (db.server("a").await, db.server("b").await);
    let first = charge(&a, &["x", "y"]).await;
    assert_eq!(
        (who(&first, "x"), who(&first, "y")),
        ("here 1".into(), "here 1".into())
    );
    assert_eq!(first.for_ms, 599_000);
    assert_eq!(first.again_ms, 60_000);

    let seen = charge(&b, &["x", "z"]).await;
    assert_eq!(
        (who(&seen, "x"), who(&seen, "z")),
        ("there a".into(), "here 1".into())
    );
    let Holder::There(peer) = &of(&seen, "x").holder else {
        panic!("{seen:?}");
    };
    assert_eq!(
        (&*peer.machine, &*peer.url),
        ("machine", "http://127.0.0.1:1")
    );

    assert!(!enlist(&b, "x", "w1", 1).await);
    assert!(enlist(&a, "x", "w2", 1).await);
    let seen = charge(&b, &["x", "z"]).await;
    assert_eq!(elsewhere(&seen, "x"), ["w2 of a"]);
    assert!(seen.own.is_empty());
    let own = charge(&a, &["x", "y"]).await;
    assert_eq!(elsewhere(&own, "x"), [""; 0]);
    assert_eq!(own.own, [(endpoint("x"), worker("w2"))].into());

    // Nobody forgets another server's workers.
    b.unlist(&endpoint("x"), &worker("w2")).await.unwrap();
    assert_eq!(elsewhere(&charge(&b, &["x"]).await, "x"), ["w2 of a"]);
    a.unlist(&endpoint("x"), &worker("w2")).await.unwrap();
    assert_eq!(elsewhere(&charge(&b, &["x"]).await, "x"), [""; 0]);
}

#[tokio::test]
async fn what_is_over_passes_on_and_its_last_holder_starts_nothing() {
    let db = Database::new();
    let (a, b) = (db.server("a").await, db.server("b").await);
    charge(&a, &["x"]).await;
    assert!(enlist(&a, "x", "w1", 1).await);
    assert_eq!(who(&charge(&b, &["x"]).await, "x"), "there a");
    db.later(570_000);
    let soon = charge(&b, &["x"]).await;
    assert_eq!(who(&soon, "x"), "there a");
    // It comes again when that ends, and not only when it is its time.
    assert!(soon.again_ms <= 30_001, "{}", soon.again_ms);

    db.sql(
        "UPDATE lazyfox.charges SET until = until - 40000;
            UPDATE lazyfox.servers SET seen_until = seen_until - 40000 WHERE server = 'a'",
    );
    // It is over, whether somebody else has it or not.
    assert!(!enlist(&a, "x", "w2", 1).await);
    let taken = charge(&b, &["x"]).await;
    assert_eq!(who(&taken, "x"), "here 2");
    assert_eq!(elsewhere(&taken, "x"), ["w1 of a"]);
    assert!(!enlist(&a, "x", "w2", 1).await);
    assert!(!enlist(&b, "x", "w3", 1).await);
    assert!(enlist(&b, "x", "w3", 2).await);
    let back = charge(&a, &["x"]).await;
    assert_eq!(who(&back, "x"), "there b");
    assert_eq!(elsewhere(&back, "x"), ["w3 of b"]);
}

#[tokio::test]
async fn an_earlier_term_of_the_same_server_is_over_too() {
    let db = Database::new();
    let (a, b) = (db.server("a").await, db.server("b").await);
    charge(&a, &["x"]).await;
    for (server, term) in [(&b, 2), (&a, 3)] {
        db.later(700_000);
        // The first word after such a silence takes nothing.
        charge(server, &["x"]).await;
        assert_eq!(
            who(&charge(server, &["x"]).await, "x"),
            format!("here {term}")
        );
    }
    assert!(!enlist(&a, "x", "w1", 1).await);
    assert!(enlist(&a, "x", "w1", 3).await);
}

#[tokio::test]
async fn servers_share_what_is_new() {
    let db = Database::new();
    let (a, b) = (db.server("a").await, db.server("b").await);
    charge(&a, &["x"]).await;
    charge(&b, &["x"]).await;
    let all = ["x", "p", "q", "r", "s"];
    let of_a = charge(&a, &all).await;
    let mine = |shared: &Shared| -> Vec<String> {
        let here = all.iter().filter(|it| who(shared, it).starts_with("here"));
        here.map(|it| (*it).to_owned()).collect()
    };
    // Three of five, and one it has already.
    assert_eq!(mine(&of_a), ["x", "p", "q"]);
    let of_b = charge(&b, &all).await;
    assert_eq!(mine(&of_b), ["r", "s"]);
    assert_eq!(who(&of_b, "x"), "there a");

    // A third server comes: its share is one, as that of the second is two.
    let c = db.server("c").await;
    assert_eq!(mine(&charge(&c, &all).await), [""; 0]);
    assert_eq!(mine(&charge(&a, &all).await), ["x", "q"]);
    assert_eq!(mine(&charge(&c, &all).await), ["p"]);
    assert_eq!(mine(&charge(&b, &all).await), ["r", "s"]);
}

/// Of how many endpoints an answer says that this server has them.
fn has(shared: &Shared) -> usize {
    let here = |charge: &&Charge| matches!(charge.holder, Holder::Here { .. });
    shared.of.values().filter(here).count()
}

#[tokio::test]
async fn who_has_more_than_its_share_gives_idle_endpoints_up_for_a_server_that_comes() {
    let db = Database::new();
    let (a, b) = (db.server("a").await, db.server("b").await);
    let all = ["t", "u", "v", "w", "x"];
    assert_eq!(has(&charge(&a, &all).await), 5);
    for on in ["t", "u", "v"] {
        assert!(enlist(&a, on, "w1", 1).await);
    }
    assert_eq!(has(&charge(&b, &all).await), 0);
    // Those without workers only; the share of two servers is three each.
    let kept = charge(&a, &all).await;
    assert_eq!(
        ["t", "u", "v", "w", "x"].map(|on| who(&kept, on)),
        ["here 1", "here 1", "here 1", "nobody", "nobody"].map(str::to_owned)
    );
    let came = charge(&b, &all).await;
    assert_eq!(
        (who(&came, "w"), who(&came, "x")),
        ("here 2".into(), "here 2".into())
    );
    for _ in 0..3 {
        assert_eq!(has(&charge(&a, &all).await), 3);
        assert_eq!(has(&charge(&b, &all).await), 2);
    }
}

#[tokio::test]
async fn what_nobody_takes_comes_back_and_is_not_given_up_again_soon() {
    let db = Database::new();
    let (a, b) = (db.server("a").await, db.server("b").await);
    charge(&a, &["w", "x"]).await;
    charge(&b, &["y", "z"]).await;
    db.later(2_001);
    assert_eq!(has(&charge(&b, &["y", "z"]).await), 2);
    // Who has what it wants is given nothing.
    assert_eq!(has(&charge(&a, &["w", "x"]).await), 2);
    // This one wants what another server has; the one that gives cannot know.
    let c = db.server("c").await;
    charge(&c, &["y", "z"]).await;
    assert_eq!(has(&charge(&a, &["w", "x"]).await), 1);
    charge(&c, &["y", "z"]).await;
    for _ in 0..3 {
        assert_eq!(has(&charge(&a, &["w", "x"]).await), 2);
    }
}

#[tokio::test]
async fn what_stays_free_is_anybodys() {
    let db = Database::new();
    let (a, b) = (db.server("a").await, db.server("b").await);
    charge(&a, &["x"]).await;
    charge(&b, &["x"]).await;
    let all = ["x", "p", "q"];
    let shared = charge(&a, &all).await;
    assert_eq!(
        (who(&shared, "p"), who(&shared, "q")),
        ("here 1".into(), "nobody".into())
    );
    // The other one has no use for it.
    db.sql("UPDATE lazyfox.charges SET until = until - 2000 WHERE endpoint = 'q'");
    let shared = charge(&a, &all).await;
    assert_eq!(who(&shared, "q"), "here 1");
}

#[tokio::test]
async fn who_leaves_gives_everything_back_at_once() {
    let db = Database::new();
    let (a, b) = (db.server("a").await, db.server("b").await);
    charge(&a, &["x", "y"]).await;
    assert!(enlist(&a, "x", "w1", 1).await);
    charge(&b, &["x", "y"]).await;
    // It still has a worker, and starts no other.
    charge(&a, &[]).await;
    assert!(!enlist(&a, "x", "w2", 1).await);
    let taken = charge(&b, &["x", "y"]).await;
    assert_eq!(
        (who(&taken, "x"), who(&taken, "y")),
        ("here 2".into(), "here 2".into())
    );
    assert_eq!(elsewhere(&taken, "x"), ["w1 of a"]);

    a.unlist(&endpoint("x"), &worker("w1")).await.unwrap();
    a.leave().await.unwrap();
    assert_eq!(elsewhere(&charge(&b, &["x"]).await, "x"), [""; 0]);
    assert_eq!(db.sql("SELECT server FROM lazyfox.servers").trim(), "b");
    b.leave().await.unwrap();
    assert_eq!(who(&charge(&a, &["x"]).await, "x"), "here 3");
}

#[tokio::test]
async fn who_succeeds_a_dead_server_has_all_of_it_at_once() {
    let db = Database::new();
    let (a, b, c) = (
        db.server("a").await,
        db.server("b").await,
        db.server("c").await,
    );
    charge(&a, &["x", "y"]).await;
    assert!(enlist(&a, "x", "w1", 1).await);
    let succeeding = Bid {
        succeeds: Some("a".to_owned()),
        ..bid(&["x", "y"])
    };
    let shared = told(&b, succeeding).await;
    assert_eq!(
        (who(&shared, "x"), who(&shared, "y")),
        ("here 2".into(), "here 2".into())
    );
    assert_eq!(shared.own, [(endpoint("x"), worker("w1"))].into());
    assert_eq!(elsewhere(&shared, "x"), [""; 0]);
    assert!(!enlist(&a, "x", "w2", 1).await);
    assert_eq!(elsewhere(&charge(&c, &["x"]).await, "x"), ["w1 of b"]);
}

#[tokio::test]
async fn workers_of_a_dead_server_count_until_they_must_be_gone() {
    let db = Database::new();
    for (abandoned_ms, counted_ms) in [(60_000, 70_000), (0, 3_610_000)] {
        let (a, b) = (db.server("a").await, db.server("b").await);
        told(
            &a,
            Bid {
                abandoned_ms,
                ..bid(&["x"])
            },
        )
        .await;
        a.enlist(&endpoint("x"), &worker("w1"), None).await.unwrap();
        db.later(600_000 + counted_ms - 30_000);
        charge(&b, &["x"]).await;
        assert_eq!(elsewhere(&charge(&b, &["x"]).await, "x"), ["w1 of a"]);
        db.sql("UPDATE lazyfox.servers SET seen_until = seen_until - 30000 WHERE server = 'a'");
        assert_eq!(elsewhere(&charge(&b, &["x"]).await, "x"), [""; 0]);
        assert_eq!(db.sql("SELECT worker FROM lazyfox.workers").trim(), "");
        assert_eq!(db.sql("SELECT server FROM lazyfox.servers").trim(), "b");
        // Should it be alive after all, it says so again, and that it has a worker.
        charge(&a, &["x"]).await;
        a.enlist(&endpoint("x"), &worker("w1"), None).await.unwrap();
        assert_eq!(elsewhere(&charge(&b, &["x"]).await, "x"), ["w1 of a"]);
        a.unlist(&endpoint("x"), &worker("w1")).await.unwrap();
        a.leave().await.unwrap();
        b.leave().await.unwrap();
    }
}

#[tokio::test]
async fn after_a_failure_of_the_database_each_gets_back_what_it_had() {
    let db = Database::new();
    let (a, b) = (db.server("a").await, db.server("b").await);
    charge(&a, &["x", "y"]).await;
    charge(&b, &["x", "y"]).await;
    // Nobody could say anything for so long.
    db.later(700_000);
    let first = charge(&b, &["x", "y"]).await;
    assert_eq!(
        (who(&first, "x"), who(&first, "y")),
        ("nobody".into(), "nobody".into())
    );
    let shared = charge(&a, &["x", "y"]).await;
    assert_eq!(
        (who(&shared, "x"), who(&shared, "y")),
        ("here 1".into(), "here 1".into())
    );
    // But not for ever.
    db.later(700_000);
    charge(&b, &["x"]).await;
    assert_eq!(who(&charge(&b, &["x"]).await, "x"), "here 2");
}

#[tokio::test]
async fn a_start_and_a_change_of_hands_at_the_same_time_are_told_apart() {
    let db = Database::new();
    let b = db.server("b").await;
    for n in 0..20 {
        let (on, name) = (format!("x{n}"), format!("a{n}"));
        let (a, end_of_a) = (db.server(&name).await, db.server(&name).await);
        assert_eq!(who(&charge(&a, &[&on]).await, &on), "here 1");
        let takes = async {
            loop {
                let shared = charge(&b, &[&on]).await;
                if who(&shared, &on) == "here 2" {
                    return elsewhere(&shared, &on);
                }
            }
        };
        let starts = async {
            let mut started = Vec::new();
            for worker in 0.. {
                let worker = format!("w{worker}");
                if !enlist(&a, &on, &worker, 1).await {
                    return started;
                }
                started.push(format!("{worker} of {name}"));
            }
            unreachable!("they are refused in the end");
        };
        let ends = charge(&end_of_a, &[]);
        let (mut started, mut known, _) = tokio::join!(starts, takes, ends);
        started.sort();
        known.sort();
        assert_eq!(started, known, "round {n}");
    }
}
