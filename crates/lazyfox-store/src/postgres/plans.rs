//! Plans are made once for each connection, whatever the tables look like at that moment. Each statement
//! must find its rows by the indexes that are meant for it: made while the tables are new, empty, or
//! full.

use std::collections::{BTreeMap, BTreeSet};

use lazyfox_core::time::Timestamp;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::sql;
use crate::Watched;
use crate::postgres::{Access, PostgresStore, Trust};

/// A statement, and the indexes that it is meant to use.
const PLANS: &[(&str, &str, &[&str])] = &[
    ("JOBS", sql::JOBS, &["jobs_pkey"]),
    ("HELD", sql::HELD, &["jobs_held"]),
    ("TAKEN", sql::TAKEN, &["inputs_pkey", "jobs_held"]),
    ("KEYS", sql::KEYS, &["idempotency_pkey", "jobs_pkey"]),
    ("WAITING", sql::WAITING, &["jobs_waiting"]),
    ("HEADS", sql::HEADS, &["inputs_pkey", "jobs_waiting"]),
    ("CHUNKS", sql::CHUNKS, &["chunks_pkey"]),
    ("INPUTS", sql::INPUTS, &["inputs_pkey"]),
    ("OVER", sql::OVER, &["jobs_pkey"]),
    (
        "DELIVERIES_OF",
        sql::DELIVERIES_OF,
        &["deliveries_of", "jobs_pkey"],
    ),
    (
        "DELIVERIES",
        sql::DELIVERIES,
        &["deliveries_pkey", "jobs_pkey"],
    ),
    ("UPDATE_JOBS", sql::UPDATE_JOBS, &["jobs_pkey"]),
    ("WIPE_SECRETS", sql::WIPE_SECRETS, &["inputs_pkey"]),
    ("REPLACE_OUTPUTS", sql::REPLACE_OUTPUTS, &["outputs_pkey"]),
    ("DELETE_OUTPUTS", sql::DELETE_OUTPUTS, &["outputs_pkey"]),
    ("DELETE_CHUNKS", sql::DELETE_CHUNKS, &["chunks_pkey"]),
    ("INSERT_CHUNKS", sql::INSERT_CHUNKS, &["chunks_pkey"]),
    (
        "INSERT_DELIVERIES",
        sql::INSERT_DELIVERIES,
        &["deliveries_of", "inputs_pkey", "jobs_pkey", "outputs_pkey"],
    ),
    (
        "UPDATE_DELIVERIES",
        sql::UPDATE_DELIVERIES,
        &["deliveries_pkey"],
    ),
    ("POSTPONE", sql::POSTPONE, &["jobs_pkey"]),
    ("FORGET", sql::FORGET[0], &["jobs_pkey"]),
    ("FORGET inputs", sql::FORGET[1], &["inputs_pkey"]),
    ("FORGET chunks", sql::FORGET[3], &["chunks_pkey"]),
    ("FORGET_KEYS", sql::FORGET_KEYS, &["idempotency_pkey"]),
    (
        "FORGET_DELIVERIES",
        sql::FORGET_DELIVERIES[0],
        &["deliveries_of", "tries_pkey"],
    ),
    (
        "FORGET_DELIVERIES after",
        sql::FORGET_DELIVERIES[1],
        &["deliveries_of"],
    ),
    (
        "DUE",
        sql::DUE,
        &["jobs_expiring", "jobs_running", "queues_pkey"],
    ),
    (
        "NEXT_DEADLINE",
        sql::NEXT_DEADLINE,
        &["jobs_expiring", "jobs_running", "queues_pkey"],
    ),
    (
        "FORGETTABLE",
        sql::FORGETTABLE,
        &["jobs_to_forget", "queues_pkey"],
    ),
    (
        "DEMAND",
        sql::DEMAND,
        &["jobs_running", "jobs_waiting", "queues_pkey"],
    ),
    ("HOLDERS", sql::HOLDERS, &["jobs_running", "queues_pkey"]),
    ("COUNTS", sql::COUNTS, &["counts_of", "queues_pkey"]),
    (
        "FOLD_COUNTS",
        sql::FOLD_COUNTS,
        &["counts_of", "queues_pkey"],
    ),
    ("PLACE", sql::PLACE, &["jobs_pkey", "jobs_waiting"]),
    (
        "LOAD",
        sql::LOAD,
        &["inputs_pkey", "jobs_pkey", "outputs_pkey"],
    ),
    ("LIST", sql::LIST, &["jobs_listed"]),
    ("LIST_END", sql::LIST_END, &["jobs_listed"]),
    ("LAST_SEQ", sql::LAST_SEQ, &["jobs_listed"]),
    ("HELD_ON", sql::HELD_ON, &["jobs_held", "queues_pkey"]),
    (
        "OPEN_DELIVERIES",
        sql::OPEN_DELIVERIES,
        &["deliveries_open", "queues_pkey"],
    ),
    ("CLAIM", sql::CLAIM, &["deliveries_pkey"]),
    (
        "OUTGOING",
        sql::OUTGOING,
        &[
            "deliveries_pkey",
            "inputs_pkey",
            "jobs_pkey",
            "outputs_pkey",
        ],
    ),
    (
        "LIST_DELIVERIES",
        sql::LIST_DELIVERIES,
        &["deliveries_pkey", "jobs_pkey"],
    ),
    (
        "LIST_DELIVERIES_END",
        sql::LIST_DELIVERIES_END,
        &["deliveries_pkey"],
    ),
    ("TRIES", sql::TRIES, &["tries_pkey"]),
    ("PULSE", sql::PULSE, PULSE),
    ("BEAT_AND_PULSE", sql::BEAT_AND_PULSE, PULSE),
];

const PULSE: &[&str] = &[
    "chunks_pkey",
    "deliveries_open",
    "jobs_expiring",
    "jobs_pkey",
    "jobs_running",
    "jobs_to_forget",
    "jobs_waiting",
    "queues_pkey",
];

/// Jobs of one endpoint in all states, half of them with a delivery; those that wait are few.
const FILL: &str = "
INSERT INTO lazyfox.queues VALUES ('e'), ('f');
INSERT INTO lazyfox.jobs (endpoint, id, status, low_priority, created_at, queued_at, expires_at,
    expiry_is_hard, awaited, retries, worker, started_at, lease_until, ended_at, forget_at,
    deadline, has_secrets, ttl, ttl_given, retries_max, retention, retention_sync,
    ttl_expiry_forgets, webhook_on_cancel, poison_after)
SELECT 'e', md5(n::text)::uuid, status, false, n, n, n, false, false, 0,
    CASE status WHEN 'IN_QUEUE' THEN NULL ELSE 'w' || n % 100 END,
    CASE status WHEN 'IN_QUEUE' THEN NULL ELSE n END,
    CASE status WHEN 'IN_PROGRESS' THEN n END,
    CASE status WHEN 'COMPLETED' THEN n END, CASE status WHEN 'COMPLETED' THEN n END,
    CASE status WHEN 'COMPLETED' THEN NULL ELSE n END,
    false, 1, false, 0, 1, 1, false, false, 0
FROM (SELECT n, CASE WHEN n % 100 = 0 THEN 'IN_QUEUE' WHEN n % 100 < 3 THEN 'IN_PROGRESS'
                ELSE 'COMPLETED' END AS status FROM generate_series(1, 5000) n) t;
INSERT INTO lazyfox.idempotency SELECT endpoint, seq::text, id, repeat('x', 32)::bytea
FROM lazyfox.jobs;
INSERT INTO lazyfox.inputs SELECT endpoint, id, 'x' FROM lazyfox.jobs;
INSERT INTO lazyfox.outputs SELECT endpoint, id, 'x' FROM lazyfox.jobs;
INSERT INTO lazyfox.chunks SELECT endpoint, id, 1, 'x' FROM lazyfox.jobs;
INSERT INTO lazyfox.deliveries (endpoint, id, n, host, bytes, state, created_at, due_at, keep_until)
SELECT endpoint, id, 1, 'h', 1, CASE due WHEN true THEN 'pending' ELSE 'delivered' END, 1,
    CASE due WHEN true THEN 1 END, 1
FROM (SELECT endpoint, id, seq % 100 = 0 AS due FROM lazyfox.jobs WHERE seq % 2 = 0) t;
INSERT INTO lazyfox.tries (endpoint, number, try, at, duration)
SELECT endpoint, number, 1, 1, 1 FROM lazyfox.deliveries";

const TABLES: &str =
    "lazyfox.jobs, lazyfox.inputs, lazyfox.outputs, lazyfox.chunks, lazyfox.deliveries,
    lazyfox.tries, lazyfox.queues, lazyfox.idempotency";

/// Of each table a partition for half of what fills it; the other half is in the default one.
fn parts() -> String {
    let parts = ["jobs", "inputs", "outputs", "chunks"].map(|table| {
        format!(
            "CREATE TABLE lazyfox.{table}_low PARTITION OF lazyfox.{table} FOR VALUES
             FROM (MINVALUE) TO ('80000000-0000-0000-0000-000000000000')"
        )
    });
    parts.join(";")
}

/// Which index of a partitioned table each index of a partition belongs to.
async fn parents(client: &Client) -> BTreeMap<String, String> {
    let sql = "SELECT c.relname::text, p.relname::text FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
        WHERE c.relkind = 'i'";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn said(client: &Client, sql: &str) -> String {
    let mut lines = String::new();
    for message in client.simple_query(sql).await.unwrap() {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            lines.push_str(row.get(0).unwrap_or_default());
            lines.push('\n');
        }
    }
    lines
}

/// What a plan reads, and how.
async fn scans(
    client: &Client,
    sql: &str,
    parents: &BTreeMap<String, String>,
) -> (BTreeSet<String>, String) {
    let statement = client.prepare(sql).await.unwrap();
    let params = statement.params().iter().map(|of| match *of {
        // Without one, all partitions are left out of the plan.
        Type::UUID => "'00000000-0000-0000-0000-000000000000'",
        _ => "NULL",
    });
    let params: Vec<&str> = params.collect();
    let params = match params.len() {
        0 => String::new(),
        _ => format!("({})", params.join(", ")),
    };
    let explain = format!("DEALLOCATE ALL; PREPARE p AS {sql}; EXPLAIN EXECUTE p{params}");
    let plan = said(client, &explain).await;
    let words: Vec<&str> = plan.split_whitespace().collect();
    let mut scans = BTreeSet::new();
    for pair in words.windows(4) {
        match pair {
            // There is no other way to read a sequence.
            ["Seq", "Scan", "on", "jobs_seq"] => {}
            // These are small.
            ["Seq", "Scan", "on", "servers" | "charges" | "workers"] => {}
            ["Seq", "Scan", "on", table] => drop(scans.insert(format!("all of {table}"))),
            // Small ones.
            ["Scan", "using", index, _]
                if ["pg_", "servers_", "charges_", "workers_"]
                    .iter()
                    .any(|it| index.starts_with(it)) => {}
            ["Scan", "using", index, _] | ["Backward", "using", index, _] => {
                let index = parents.get(*index).map_or(*index, String::as_str);
                scans.insert(index.to_owned());
            }
            _ => {}
        }
    }
    (scans, plan)
}

/// By the index of the partitioned table, whichever partition it is in.
async fn wrong(client: &Client, when: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let parents = parents(client).await;
    for (name, sql, indexes) in PLANS {
        let (scans, plan) = scans(client, sql, &parents).await;
        let meant: BTreeSet<String> = indexes.iter().map(|it| (*it).to_owned()).collect();
        // What has a key is looked up by all of it, and nothing is read from end to end.
        let lines = plan.lines().zip(plan.lines().skip(1));
        let full = lines.into_iter().any(|(scan, condition)| {
            let key = scan.contains("_pkey on") && !scan.contains("using chunks_");
            scan.contains(" using ")
                && !scan.contains("queues_pkey")
                && !["pg_", "servers_", "charges_", "workers_"]
                    .iter()
                    .any(|it| scan.contains(&format!("using {it}")))
                && !(condition.contains("Index Cond") && (!key || condition.contains(" AND ")))
        });
        if scans != meant || full {
            wrong.push(format!("{name} {when}: {scans:?}\n{plan}"));
        }
    }
    wrong
}

#[tokio::test]
async fn every_statement_goes_by_its_index_whatever_the_tables_look_like() {
    let url = lazyfox_testing::shared().database();
    let access = Access::parse(&url, None, Trust::System, 2).unwrap();
    let store = PostgresStore::open(&access, "plans".to_owned())
        .await
        .unwrap();
    let client = store.pool.get().await.unwrap();
    let mut all = wrong(&client, "when new").await;
    client.batch_execute(&parts()).await.unwrap();
    all.extend(wrong(&client, "with a partition").await);
    client.batch_execute(FILL).await.unwrap();
    all.extend(wrong(&client, "when filled").await);
    let analyze = format!("VACUUM ANALYZE {TABLES}");
    client.batch_execute(&analyze).await.unwrap();
    all.extend(wrong(&client, "when full").await);
    client
        .batch_execute(&format!("TRUNCATE {TABLES}"))
        .await
        .unwrap();
    all.extend(wrong(&client, "when emptied").await);
    // Tables that the planner knows to be empty grow again.
    client.batch_execute(&analyze).await.unwrap();
    client.batch_execute(FILL).await.unwrap();
    let now = Timestamp::from_ms(0);
    store.looker().look(&Watched::default(), now).await.unwrap();
    all.extend(wrong(&client, "when grown").await);
    assert!(all.is_empty(), "{}", all.join("\n"));
}

/// What has the keys of jobs in its second parameter, and can do without the others.
const BY_KEY: &[(&str, &str)] = &[
    ("JOBS", sql::JOBS),
    ("KEYS", sql::KEYS),
    ("CHUNKS", sql::CHUNKS),
    ("INPUTS", sql::INPUTS),
    ("OVER", sql::OVER),
    ("DELIVERIES_OF", sql::DELIVERIES_OF),
    ("WIPE_SECRETS", sql::WIPE_SECRETS),
    ("DELETE_OUTPUTS", sql::DELETE_OUTPUTS),
    ("DELETE_CHUNKS", sql::DELETE_CHUNKS),
    ("POSTPONE", sql::POSTPONE),
    ("FORGET", sql::FORGET[0]),
    ("FORGET inputs", sql::FORGET[1]),
    ("FORGET chunks", sql::FORGET[3]),
    ("LOAD", sql::LOAD),
];

#[tokio::test]
async fn what_has_a_key_is_looked_up_in_one_partition() {
    let url = lazyfox_testing::shared().database();
    let access = Access::parse(&url, None, Trust::System, 2).unwrap();
    let store = PostgresStore::open(&access, "plans".to_owned())
        .await
        .unwrap();
    let client = store.pool.get().await.unwrap();
    client.batch_execute(&parts()).await.unwrap();
    client.batch_execute(FILL).await.unwrap();
    for (name, sql) in BY_KEY {
        let key = if *name == "KEYS" { "seq::text" } else { "id" };
        let some = format!(
            "SELECT array_agg(k)::text FROM (SELECT {key} AS k FROM lazyfox.jobs_low LIMIT 3) t"
        );
        let some = said(&client, &some).await;
        let some = some.trim();
        let more = client.prepare(sql).await.unwrap().params().len() - 2;
        let more = ", NULL".repeat(more);
        let plan = said(
            &client,
            &format!(
                "DEALLOCATE ALL; BEGIN; PREPARE p AS {sql};
                 EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) EXECUTE p('e', '{some}'{more}); ROLLBACK"
            ),
        )
        .await;
        let scans = plan.lines().filter(|line| line.contains("Scan using"));
        for scan in scans.clone().filter(|scan| scan.contains("_default ")) {
            assert!(scan.contains("(never executed)"), "{name}:\n{plan}");
        }
        let mut read = scans.filter(|scan| scan.contains("_low "));
        let is_read = read.any(|scan| !scan.contains("(never executed)"));
        assert!(is_read, "{name}:\n{plan}");
    }
}
