//! Partitions come while jobs do, and go with them: also while a session holds an old snapshot, and never in
//! anybody's way.

mod moving;

use lazyfox_core::id::JobId;
use lazyfox_core::job::Job;
use lazyfox_store::postgres::{Access, PostgresStore, Trust};
use lazyfox_store::{NewJob, Store, Submitted};

use crate::world::*;

/// So many jobs within an hour that partitions are made.
const MANY: usize = 300;
/// When those that ended are forgotten.
const LATER: u64 = 1_000_000 + 1_800_000;
/// After so long, a server looks in any case.
const AFTER: u64 = 600_000;

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
        postgres_of(&self.url, name).await
    }

    fn access(&self) -> Access {
        Access::parse(&self.url, None, Trust::System, 2).unwrap()
    }

    fn sql(&self, text: &str) -> String {
        lazyfox_testing::shared().psql(&self.url, text)
    }

    /// Partitions of a table by their times, in milliseconds after the start.
    fn parts_of(&self, table: &str) -> Vec<(i64, i64)> {
        let names = self.sql(&format!(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = 'lazyfox.{table}'::regclass AND c.relname ~ '[0-9]$'"
        ));
        let times = names.lines().map(|name| {
            let mut parts = name.rsplit('_').map(|it| it.parse::<i64>().unwrap());
            let to = parts.next().unwrap() - START.as_ms();
            (parts.next().unwrap() - START.as_ms(), to)
        });
        let mut times: Vec<(i64, i64)> = times.collect();
        times.sort_unstable();
        times
    }

    /// The same of all tables, which are alike.
    fn parts(&self) -> Vec<(i64, i64)> {
        let parts = self.parts_of("jobs");
        for table in ["inputs", "outputs", "chunks"] {
            assert_eq!(self.parts_of(table), parts, "{table}");
        }
        parts
    }

    /// How many jobs there are in each partition.
    fn jobs(&self) -> String {
        self.sql(
            "SELECT replace(tableoid::regclass::text, 'lazyfox.jobs_', ''), count(*)
             FROM lazyfox.jobs GROUP BY 1 ORDER BY 1",
        )
    }

    /// There is no partition from before this time.
    fn has_gone(&self, ms: i64) {
        let parts = self.parts();
        assert!(parts.iter().all(|(from, _)| *from > ms), "{parts:?}");
    }

    /// The size of the partitions of this name.
    fn bytes(&self, name: &str) -> u64 {
        let size = self.sql(&format!(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c
             WHERE c.relnamespace = 'lazyfox'::regnamespace AND c.relkind = 'r'
                 AND c.relname ~ '^(jobs|inputs|outputs|chunks)_{name}'"
        ));
        size.parse().unwrap()
    }
}

fn random(n: usize) -> [u8; 16] {
    let mut random = [0; 16];
    random[8..].copy_from_slice(&n.to_be_bytes());
    random
}

/// The id of a job that is submitted so many milliseconds after the start.
fn id_at(n: usize, ms: u64) -> JobId {
    JobId::new(at(ms), random(n), n.is_multiple_of(2))
}

fn job_at(n: usize, ms: u64) -> NewJob {
    let id = id_at(n, ms);
    NewJob {
        job: Job::submitted(id, endpoint("a"), terms(), false, at(ms)),
        ..job_with(id, "a", terms())
    }
}

async fn submit_many(store: &dyn Store, count: usize, ms: u64) {
    let all = (0..count).map(|n| store.submit(job_at(n, ms), at(ms)));
    for submitted in together(all.collect()).await {
        assert_eq!(submitted, Ok(Submitted::Accepted { taken: false }));
    }
}

/// Takes jobs and completes them.
async fn end_many(store: &dyn Store, count: usize, ms: u64) {
    let mut taken = Vec::new();
    while taken.len() < count {
        let some = take(store, "w1", count - taken.len(), ms).await;
        assert!(!some.is_empty());
        taken.extend(some);
    }
    let on = endpoint("a");
    let all = taken.into_iter().map(|id| {
        let output = Some(bytes("\"done\""));
        store.apply(&on, id, complete("w1"), output, at(1_000_000))
    });
    for applied in together(all.collect()).await {
        assert!(applied.unwrap().changed().is_some());
    }
}

async fn forget_all(store: &dyn Store, ms: u64) {
    while store.prune(at(ms), 200).await.unwrap() > 0 {}
}

/// A partition with jobs in it, as it is in the middle of its time.
async fn filled(store: &dyn Store, db: &Database) {
    submit_many(store, MANY, 0).await;
    store.prune(at(1_000), 1).await.unwrap();
    assert_eq!(db.parts(), [(6_000, 126_000)]);
    submit_many(store, MANY, 10_000).await;
}

#[tokio::test]
async fn partitions_go_with_their_jobs_while_a_snapshot_is_held() {
    let db = Database::new();
    let store = db.server("here").await;
    store.prune(at(0), 1).await.unwrap();
    assert_eq!(db.parts(), []);
    submit_many(&store, MANY, 0).await;
    // Nobody looks again so soon.
    store.prune(at(9_999), 1).await.unwrap();
    assert_eq!(db.parts(), []);
    store.prune(at(10_000), 1).await.unwrap();
    assert_eq!(db.parts(), [(15_000, 135_000)]);
    let held = session(
        &db.url,
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current()",
    )
    .await;
    submit_many(&store, 2 * MANY, 20_000).await;
    store.prune(at(20_000), 1).await.unwrap();
    let parts = [(15_000, 135_000), (135_000, 255_000)];
    assert_eq!(db.parts(), parts);
    let first = format!("{}_{}", at(15_000).as_ms(), at(135_000).as_ms());
    assert_eq!(db.jobs(), format!("{first}|600\ndefault|300"));
    end_many(&store, 3 * MANY, 30_000).await;
    // They are over, but not yet forgotten.
    store.prune(at(146_000), 1).await.unwrap();
    assert_eq!(db.parts()[..2], parts);

    let before = db.bytes(&first);
    forget_all(&store, LATER).await;
    assert_eq!(db.jobs(), "");
    // Nothing of it can be cleared by a vacuum.
    db.sql("VACUUM lazyfox.jobs, lazyfox.inputs, lazyfox.outputs");
    assert!(
        db.bytes(&first) >= before && before > db.bytes("default"),
        "{before}"
    );
    store.prune(at(LATER + AFTER), 1).await.unwrap();
    db.has_gone(255_000);
    assert_eq!(db.bytes(&first), 0);
    let loose = "SELECT count(*) FROM pg_class WHERE relname ~ '_[0-9]+_[0-9]+$'
        AND NOT relispartition AND relkind = 'r'";
    assert_eq!(db.sql(loose), "0");
    held.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn what_is_left_of_a_partition_is_kept() {
    let db = Database::new();
    let store = db.server("here").await;
    filled(&store, &db).await;
    let last = |n: usize| id_at(MANY - n, 11_000);
    for n in [3, 2, 1] {
        submit(&store, job_at(MANY - n, 11_000)).await;
    }
    end_many(&store, 2 * MANY, 30_000).await;
    // One waits, one runs and streams, one has ended and is kept for longer.
    assert_eq!(take(&store, "w2", 2, 40_000).await, [last(3), last(2)]);
    let chunks = vec![bytes("1"), bytes("2")];
    let on = endpoint("a");
    let kept = store.append_chunks(&on, last(2), &worker("w2"), chunks.clone());
    kept.await.unwrap();
    let late = store
        .apply(&on, last(3), complete("w2"), Some(bytes("3")), at(LATER))
        .await;
    assert!(late.unwrap().changed().is_some());
    let mut before = Vec::new();
    for n in [1, 2, 3] {
        before.push(load(&store, last(n)).await.unwrap());
    }

    forget_all(&store, LATER).await;
    store.prune(at(LATER + AFTER), 1).await.unwrap();
    db.has_gone(126_000);
    assert_eq!(db.jobs(), "default|3");
    for (n, before) in (1..).zip(before) {
        assert_eq!(load(&store, last(n)).await, Some(before));
    }
    let drained = store.drain(&on, last(2), 100).await.unwrap().unwrap();
    assert_eq!(drained.chunks, chunks);
    assert_eq!(take(&store, "w3", 9, LATER).await, [last(1)]);
    let ended = store
        .apply(&on, last(1), complete("w3"), Some(bytes("1")), at(LATER))
        .await;
    assert!(ended.unwrap().changed().is_some());
    assert_eq!(output(&store, last(1)).await, Some(bytes("1")));
    let ended = store.apply(&on, last(2), fail("w2"), None, at(LATER)).await;
    assert!(ended.unwrap().changed().is_some());
    forget_all(&store, 2 * LATER).await;
    assert_eq!(db.jobs(), "");
    for table in ["inputs", "outputs", "chunks"] {
        assert_eq!(
            db.sql(&format!("SELECT count(*) FROM lazyfox.{table}")),
            "0"
        );
    }
}

#[tokio::test]
async fn a_partition_of_which_much_is_left_stays() {
    let db = Database::new();
    let store = db.server("here").await;
    filled(&store, &db).await;
    end_many(&store, MANY + MANY / 2, 30_000).await;
    forget_all(&store, LATER).await;
    store.prune(at(LATER + AFTER), 1).await.unwrap();
    assert_eq!(db.parts()[0], (6_000, 126_000));
    let name = format!("{}_{}", at(6_000).as_ms(), at(126_000).as_ms());
    assert_eq!(db.jobs(), format!("{name}|150"));
}

#[tokio::test]
async fn a_partition_with_large_payloads_stays() {
    let db = Database::new();
    let store = db.server("here").await;
    filled(&store, &db).await;
    for n in [1, 2] {
        let mut large = job_at(MANY + n, 11_000);
        large.input = vec![b'1'; 5 * 1024 * 1024].into();
        submit(&store, large).await;
    }
    end_many(&store, 2 * MANY, 30_000).await;
    forget_all(&store, LATER).await;
    store.prune(at(LATER + AFTER), 1).await.unwrap();
    assert_eq!(db.parts()[0], (6_000, 126_000));
    end_many(&store, 1, LATER).await;
    forget_all(&store, 2 * LATER).await;
    store.prune(at(2 * LATER + AFTER), 1).await.unwrap();
    db.has_gone(126_000);
    assert_eq!(db.jobs(), "default|1");
}

/// What a server that died between two steps leaves behind, or a submit that came so late.
#[tokio::test]
async fn what_came_into_a_partition_at_the_last_moment_is_kept() {
    let db = Database::new();
    let store = db.server("here").await;
    filled(&store, &db).await;
    let name = format!("{}_{}", at(6_000).as_ms(), at(126_000).as_ms());
    for table in ["jobs", "inputs", "outputs", "chunks"] {
        db.sql(&format!(
            "ALTER TABLE lazyfox.{table} DETACH PARTITION lazyfox.{table}_{name}"
        ));
    }
    assert_eq!(status(&store, id_at(7, 10_000)).await, None);
    let other = db.server("there").await;
    other.prune(at(20_000), 1).await.unwrap();
    assert_eq!(db.jobs(), "default|600");
    let found = load(&other, id_at(7, 10_000)).await.unwrap();
    assert_eq!(found.input, Some(input_of(id_at(7, 10_000))));
    assert_eq!(
        db.sql(&format!(
            "SELECT to_regclass('lazyfox.jobs_{name}') IS NULL"
        )),
        "t"
    );
}

#[tokio::test]
async fn several_servers_do_it_once() {
    let db = Database::new();
    let servers = [
        db.server("a").await,
        db.server("b").await,
        db.server("c").await,
    ];
    for (n, server) in servers.iter().enumerate() {
        let all = (0..MANY).map(|m| server.submit(job_at(n * MANY + m, 0), at(0)));
        for submitted in together(all.collect()).await {
            assert_eq!(submitted, Ok(Submitted::Accepted { taken: false }));
        }
    }
    for ms in (0..400_000).step_by(10_000) {
        let all = servers.iter().map(|server| server.prune(at(ms), 1));
        for pruned in together(all.collect()).await {
            pruned.unwrap();
        }
        let parts = db.parts();
        assert!(
            parts.windows(2).all(|pair| pair[0].1 <= pair[1].0),
            "{parts:?}"
        );
        // What is empty and past is gone, and what comes is there.
        assert!((1..=5).contains(&parts.len()), "{parts:?}");
        let to = parts.last().unwrap().1;
        assert!(
            to > i64::try_from(ms).unwrap() + 60_000,
            "{parts:?} at {ms}"
        );
    }
}

#[tokio::test]
async fn one_server_at_a_time_does_it() {
    let db = Database::new();
    let store = db.server("here").await;
    submit_many(&store, MANY, 0).await;
    let other = session(
        &db.url,
        "BEGIN; SELECT pg_advisory_xact_lock(x'6c617a79666f7802'::int8)",
    )
    .await;
    store.prune(at(1_000), 1).await.unwrap();
    assert_eq!(db.parts(), []);
    other.batch_execute("COMMIT").await.unwrap();
    store.prune(at(1_000 + AFTER), 1).await.unwrap();
    assert_eq!(db.parts(), [(606_000, 726_000)]);
}

#[tokio::test]
async fn a_session_in_the_way_is_not_waited_for() {
    let db = Database::new();
    let store = db.server("here").await;
    submit_many(&store, MANY, 0).await;
    let reads = "BEGIN; SELECT count(*) FROM lazyfox.jobs";
    let held = session(&db.url, reads).await;
    let began_at = std::time::Instant::now();
    for ms in [1_000, 1_000 + AFTER] {
        let all: Vec<_> = (0..20)
            .map(|n| store.submit(job_at(n + 1, ms), at(ms)))
            .collect();
        let (pruned, submitted) = tokio::join!(store.prune(at(ms), 1), together(all));
        assert_eq!(pruned, Ok(0));
        assert!(submitted.iter().all(Result::is_ok), "{submitted:?}");
    }
    let took = began_at.elapsed();
    assert!(took.as_secs() < 10, "{took:?}");
    assert_eq!(db.parts(), []);
    held.batch_execute("COMMIT").await.unwrap();
    store.prune(at(2 * AFTER + 1_000), 1).await.unwrap();
    assert_eq!(db.parts(), [(1_206_000, 1_326_000)]);
    submit_many(&store, MANY, 1_210_000).await;

    end_many(&store, 2 * MANY + 40, 1_220_000).await;
    let held = session(&db.url, reads).await;
    forget_all(&store, LATER).await;
    for n in [1, 2] {
        store.prune(at(LATER + n * AFTER), 1).await.unwrap();
    }
    assert_eq!(db.parts()[0], (1_206_000, 1_326_000));
    held.batch_execute("COMMIT").await.unwrap();
    store.prune(at(LATER + 3 * AFTER), 1).await.unwrap();
    db.has_gone(1_326_000);
}

/// A clock that is ahead, on another server.
#[tokio::test]
async fn a_job_from_the_future_only_delays_them() {
    let db = Database::new();
    let store = db.server("here").await;
    submit_many(&store, MANY, 0).await;
    submit(&store, job_at(1, 60_000)).await;
    store.prune(at(1_000), 1).await.unwrap();
    assert_eq!(db.parts(), []);
    store.prune(at(56_000), 1).await.unwrap();
    assert_eq!(db.parts(), [(61_000, 181_000)]);
}
