//! Databases that released versions have written: every later version must read them.
//!
//! A new format gets a fixture of its own before it is released, and the old ones stay as they are. To
//! write it, raise `NEWEST`, let `story` use what is new, and run
//! `LAZYFOX_WRITE_FIXTURE=1 cargo test -p lazyfox-store fixtures`: it makes
//! `tests/fixtures/format-N.db` and, as `format-N.txt`, what the test expects to read from it. Read
//! the text before you commit it. Neither file is written over.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use lazyfox_core::delivery::{Next, Try};
use lazyfox_core::id::{EndpointId, JobId};
use lazyfox_core::job::{Death, Event, Job};
use lazyfox_core::limits;
use lazyfox_core::policy::Terms;
use lazyfox_core::time::Timestamp;
use lazyfox_store::sqlite::{DATABASE, SqliteStore};
use lazyfox_store::{
    Access, Ask, Delivery, DeliveryQuery, Due, Extra, Key, Query, Settlement, Store, Survey,
    WebhookSecret,
};
use tempfile::TempDir;

use crate::world::*;

const NEWEST: u32 = 3;

const HOUR_MS: u64 = 3_600_000;

fn fixture(format: u32, kind: &str) -> PathBuf {
    let name = format!("tests/fixtures/format-{format}.{kind}");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[tokio::test]
async fn databases_of_every_format_are_read() {
    if std::env::var_os("LAZYFOX_WRITE_FIXTURE").is_some() {
        write_fixture().await;
    }
    for format in 1..=NEWEST {
        let dir = TempDir::new().unwrap();
        fs::copy(fixture(format, "db"), dir.path().join(DATABASE)).unwrap();
        let expected = fs::read_to_string(fixture(format, "txt")).unwrap();
        let found = describe(dir.path()).await;
        for (found, expected) in found.lines().zip(expected.lines()) {
            assert_eq!(found, expected, "format {format}");
        }
        assert_eq!(found.lines().count(), expected.lines().count());
    }
}

async fn write_fixture() {
    let dir = TempDir::new().unwrap();
    story(&SqliteStore::open(dir.path(), START).unwrap()).await;
    let (db, text) = (fixture(NEWEST, "db"), fixture(NEWEST, "txt"));
    File::create_new(&db).unwrap();
    fs::copy(dir.path().join(DATABASE), db).unwrap();
    // A copy, because to open it is to change it.
    File::create_new(&text).unwrap();
    fs::write(text, describe(dir.path()).await).unwrap();
}

/// Every state, every kind of payload, every column with something in it.
async fn story(store: &dyn Store) {
    story_of_deliveries(store).await;
    story_of_jobs(store).await;
    story_of_secrets_and_keys(store).await;
    story_of_workers(store).await;
}

async fn story_of_jobs(store: &dyn Store) {
    let on = endpoint("a");
    let odd = Terms {
        execution_timeout_ms: None,
        ttl_ms: 90_000_000,
        ttl_given: true,
        low_priority: true,
        retries_max: limits::RETRIES_MAX,
        poison_after: limits::POISON_AFTER_MAX,
        retention_ms: 1_000_000,
        retention_sync_ms: 2_000,
        ttl_expiry_forgets: true,
        webhook_on_cancel: true,
    };
    for n in 1..=6 {
        let mut new = webhooked(keyed(job(n), &format!("order {n}"), n));
        new.secrets = Some(vec![n; 4]);
        submit(store, new).await;
    }
    submit(store, job_with(id(7), "a", odd)).await;
    submit(store, job_with(sync_id(8), "a", terms())).await;
    submit(store, job_with(id(9), "other_endpoint-2", terms())).await;

    assert_eq!(take(store, "w1", 2, 10).await, [id(1), id(2)]);
    let chunks = vec![bytes("1"), bytes("\"two\"")];
    let kept = store.append_chunks(&on, id(1), &worker("w1"), chunks.clone());
    kept.await.unwrap();
    report(store, id(1), complete("w1"), "[1.0, {\"b\": null}]").await;
    change(store, id(2), lost("w1"), 500).await;
    assert_eq!(take(store, "w2", 2, 600).await, [id(2), id(3)]);
    change(store, id(2), lost("w2"), 2_500).await;
    report(store, id(3), fail("w2"), "\"trace\"").await;
    change(store, id(4), Event::Cancel, 2_600).await;
    assert_eq!(take(store, "w-3", 1, 3_000).await, [id(5)]);
    let kept = store.append_chunks(&on, id(5), &worker("w-3"), chunks);
    kept.await.unwrap();
    report(store, id(5), progress("w-3"), "\"half\"").await;
    change(store, id(7), Event::SetTtl { ms: 12_000 }, 4_000).await;
    store.expire(at(16_000), 99).await.unwrap();

    let [first, second] = [(1, 1), (3, 1)].map(|(n, number)| delivery_id(n, number));
    let first = due_of(store, first).await;
    settle(store, &first, 0, Next::Delivered, 20_000).await;
    let second = due_of(store, second).await;
    settle(store, &second, 0, Next::Again(at(30_000)), 20_000).await;
}

/// Job 10 is cancelled, and its webhook is to be told. The first delivery of job 11 is withdrawn, its second
/// one given up. That of job 12 arrived, and is tried once more.
async fn story_of_deliveries(store: &dyn Store) {
    let told = Terms {
        webhook_on_cancel: true,
        ..terms()
    };
    submit(store, webhooked(job_with(id(10), "a", told))).await;
    change(store, id(10), Event::Cancel, 5).await;
    for n in [11, 12] {
        submit(store, webhooked_at(job(n), "[2001:db8::1]:8080")).await;
    }
    assert_eq!(take(store, "w0", 2, 6).await, [id(11), id(12)]);
    change(store, id(11), fail("w0"), 10).await;
    report(store, id(12), complete("w0"), "12").await;
    let tried = async |due: &Due, round, next, made| {
        let settlement = Settlement {
            made,
            ..settlement(due, round, next, 40_000)
        };
        store.settle(vec![settlement]).await.unwrap();
    };
    let refused = Try {
        at: at(1_000),
        duration_ms: 3,
        status: None,
        answer: None,
        error: Some("connection refused".to_owned()),
    };
    let arrived = Try {
        at: at(1_100),
        duration_ms: 250,
        status: Some(200),
        answer: Some("\"angenommen, schönen Dank\"".to_owned()),
        error: None,
    };
    let gone = Try {
        at: at(1_200),
        status: Some(410),
        answer: Some(String::new()),
        error: Some("answered 410".to_owned()),
        ..arrived.clone()
    };
    let again = Next::Again(at(11_000));
    let first = due_of(store, delivery_id(11, 1)).await;
    tried(&first, 0, again, refused.clone()).await;
    change(store, id(11), Event::Retry, 1_050).await;
    assert_eq!(take(store, "w0", 1, 1_060).await, [id(11)]);
    change(store, id(11), complete("w0"), 1_150).await;
    let second = due_of(store, delivery_id(11, 2)).await;
    tried(&second, 0, Next::GaveUp, gone).await;

    let other = due_of(store, delivery_id(12, 1)).await;
    tried(&other, 0, Next::Delivered, arrived).await;
    redeliver(store, &[delivery_id(12, 1)], 1_300).await;
    let refused = Try {
        at: at(1_400),
        ..refused
    };
    tried(&other, 0, again, refused).await;
}

/// Job 13 killed two workers and 14 one; 15 runs, and 16 waits inside its worker.
async fn story_of_workers(store: &dyn Store) {
    let on = "workers";
    let patient = Terms {
        retries_max: limits::RETRIES_MAX,
        ..terms()
    };
    submit(store, job_with(id(13), on, patient)).await;
    for (by, how) in [
        ("w5", "was killed; its last output: a\n\\n\nb"),
        ("w6", "left"),
    ] {
        assert_eq!(take_on(store, on, by, 1, 5_000).await, [id(13)]);
        let gone = store.apply_to_held(&worker(by), gone(how, true), at(5_010));
        gone.await.unwrap();
    }
    submit(store, job_with(id(14), on, patient)).await;
    assert_eq!(take_on(store, on, "w7", 1, 5_020).await, [id(14)]);
    let gone = store.apply_to_held(&worker("w7"), gone("ran out of memory", true), at(5_030));
    gone.await.unwrap();
    for n in [15, 16] {
        submit(store, job_with(id(n), on, terms())).await;
    }
    // 14 is not for this one.
    let ask = Ask {
        extra: Extra {
            count: 1,
            ..Extra::default()
        },
        ..ask(on, "w7", 1)
    };
    let out = store.lease(ask, at(5_040)).await.unwrap().handouts;
    assert_eq!(out.len(), 2);
    for (fingerprint, ms) in [(1, 10), (2, 5_050)] {
        let released = store.release(&endpoint(on), [fingerprint; 32], at(ms));
        released.await.unwrap();
    }
    for on in [on, "without-jobs"] {
        let settings = Some(format!("{{\"workers_max\": {}.0}}", on.len()));
        store.set_override(&endpoint(on), settings).await.unwrap();
    }
}

async fn story_of_secrets_and_keys(store: &dyn Store) {
    for (n, on) in [(1, "a"), (2, "a"), (3, "other_endpoint-2")] {
        let secret = WebhookSecret {
            id: format!("secret{n}"),
            sealed: vec![n, 0, 255],
            created_at: at(n.into()),
            valid_until: None,
        };
        let added = store.add_webhook_secret(&endpoint(on), secret, at(86_400_000));
        added.await.unwrap();
    }
    for (n, access) in [
        (1, Access::Admin),
        (2, Access::ReadWrite),
        (3, Access::ReadOnly),
    ] {
        let key = Key {
            id: format!("key{n}"),
            label: format!("key number {n}, für \"ci\""),
            hash: [n; 32],
            access,
            endpoints: (n > 1).then(|| vec![endpoint("a"), endpoint("other_endpoint-2")]),
            created_at: at(n.into()),
            revoked_at: None,
        };
        store.add_key(key).await.unwrap();
    }
    store.revoke_key("key2", at(50)).await.unwrap();
}

/// Everything that can be read from a database, in words.
async fn describe(dir: &Path) -> String {
    let now = at(60_000);
    let store = SqliteStore::open(dir, now).unwrap();
    let mut text = String::new();
    let surveys = store.survey().await.unwrap();
    for survey in &surveys {
        let (endpoint, demand) = (&survey.endpoint, &survey.demand);
        let (queued, low, running) = (demand.queued, demand.queued_low, demand.running);
        let (holders, counters) = (&survey.holders, &survey.counters);
        writeln!(
            text,
            "endpoint {endpoint}: {queued} and {low} wait, {running} run, held by {holders:?}, \
             counted {counters:?}"
        )
        .unwrap();
        describe_jobs(&store, survey.endpoint.as_str(), &mut text).await;
    }
    for survey in &surveys {
        describe_deliveries(&store, &survey.endpoint, &mut text).await;
    }
    let next = outbox(&store, 0).await.next;
    writeln!(text, "first delivery due at {next}").unwrap();
    describe_keys(&store, &mut text).await;
    describe_endpoints(&store, &surveys, &mut text).await;
    let known = store.submit(keyed(job(99), "order 3", 3), now).await;
    writeln!(text, "the request of order 3 again: {known:?}").unwrap();
    for survey in &surveys {
        let ask = ask(survey.endpoint.as_str(), "w9", 99);
        for handout in store.lease(ask, now).await.unwrap().handouts {
            let (id, secrets) = (handout.job.id, handout.secrets);
            writeln!(text, "hands out {id} with the secrets {secrets:?}").unwrap();
        }
    }
    for (when, later) in [("an hour", HOUR_MS), ("two days", 48 * HOUR_MS)] {
        let gone = store.prune(now.plus_ms(later), 99).await.unwrap();
        writeln!(text, "{gone} jobs are forgotten after {when}").unwrap();
    }
    text
}

async fn describe_deliveries(store: &dyn Store, on: &EndpointId, text: &mut String) {
    let query = DeliveryQuery::of(on.clone());
    let listed = store.deliveries(query).await.unwrap().deliveries;
    let open = store.outbox(quiet(), Timestamp::NEVER).await.unwrap().due;
    for delivery in listed.iter().rev() {
        writeln!(text, "{}", describe_delivery(delivery)).unwrap();
        for due in &open {
            let sent = outgoing(store, due).await.unwrap();
            if sent.id == delivery.id {
                assert_eq!(
                    (sent.url, due.bytes),
                    (delivery.webhook.url.clone(), delivery.bytes)
                );
                writeln!(text, "  after {} tries of its round", sent.round).unwrap();
            }
        }
    }
    let secrets = store.webhook_secrets(on).await.unwrap();
    for secret in secrets {
        let (id, sealed) = (secret.id, secret.sealed);
        let (created_at, valid_until) = (secret.created_at, secret.valid_until);
        writeln!(
            text,
            "secret {id} of {on} is {sealed:?}, made {created_at}, valid until {valid_until:?}"
        )
        .unwrap();
    }
}

fn describe_delivery(delivery: &Delivery) -> String {
    let Delivery {
        id,
        state,
        webhook,
        bytes,
        created_at,
        due_at,
        tries,
    } = delivery;
    let (url, host) = (&webhook.url, &webhook.host);
    let mut text = format!(
        "delivery {id} {state} to {url}\n  host {host:?}, {bytes} bytes, created {created_at}, \
         due {due_at:?}"
    );
    for made in tries {
        let (at, ms, status) = (made.at, made.duration_ms, made.status);
        let (answer, error) = (&made.answer, &made.error);
        write!(
            text,
            "\n  tried at {at} for {ms} ms: status {status:?}, answer {answer:?}, error {error:?}"
        )
        .unwrap();
    }
    text
}

async fn describe_keys(store: &dyn Store, text: &mut String) {
    for key in store.keys().await.unwrap() {
        let (id, label, hash, access) = (key.id, key.label, key.hash, key.access);
        let (endpoints, created_at) = (key.endpoints, key.created_at);
        let revoked_at = key.revoked_at;
        writeln!(
            text,
            "key {id} {label:?} of the hash {hash:02x?} for {access:?} on {endpoints:?}, \
             made {created_at}, revoked {revoked_at:?}"
        )
        .unwrap();
    }
}

/// Earlier formats knew nothing of it, and say nothing.
async fn describe_endpoints(store: &dyn Store, surveys: &[Survey], text: &mut String) {
    for Survey { endpoint, .. } in surveys {
        let release = store.release(endpoint, [2; 32], at(60_000)).await.unwrap();
        if release.number > 1 {
            writeln!(text, "{endpoint} is at {release:?}").unwrap();
        }
    }
    for (endpoint, settings) in store.overrides().await.unwrap() {
        writeln!(text, "changed settings of {endpoint}: {settings}").unwrap();
    }
}

async fn describe_jobs(store: &dyn Store, on: &str, text: &mut String) {
    let query = Query {
        endpoint: endpoint(on),
        status: None,
        limit: 99,
        before: None,
    };
    for job in store.list(query).await.unwrap().jobs.iter().rev() {
        let loaded = store.load(&job.endpoint, job.id, ALL_PARTS).await.unwrap();
        let loaded = loaded.unwrap();
        assert_eq!(loaded.job, *job);
        writeln!(text, "{}", describe_job(job)).unwrap();
        writeln!(text, "  input {:?}", loaded.input.unwrap()).unwrap();
        if let Some(output) = loaded.output {
            writeln!(text, "  output {output:?}").unwrap();
        }
        let chunks = drain(store, on, job.id).await;
        if !chunks.is_empty() {
            writeln!(text, "  chunks {chunks:?}").unwrap();
        }
    }
}

async fn drain(store: &dyn Store, on: &str, job: JobId) -> Vec<bytes::Bytes> {
    let drained = store.drain(&endpoint(on), job, usize::MAX).await;
    drained.unwrap().unwrap().chunks
}

/// Field by field, so that a field that comes later does not change the text of earlier formats.
fn describe_job(job: &Job) -> String {
    let Job {
        id,
        endpoint,
        terms,
        has_webhook,
        created_at,
        queued_at,
        expires_at,
        expiry_is_hard,
        awaited,
        retries,
        barred,
        deaths,
        state,
    } = job;
    let mut text = format!(
        "{id} {} of {endpoint}\n  webhook {has_webhook}, awaited {awaited}, created {created_at}, \
         queued {queued_at}, expires {expires_at} hard {expiry_is_hard}, retries {retries}, \
         barred {barred:?}",
        job.status()
    );
    if let Some((worker, started_at)) = state.last_attempt() {
        write!(text, "\n  taken by {worker} at {started_at}").unwrap();
    }
    if let Some(end) = state.end() {
        let (at, forget_at, error) = (end.at, end.forget_at, &end.error);
        write!(
            text,
            "\n  ended {at}, forgotten {forget_at}, error {error:?}"
        )
        .unwrap();
    }
    write!(
        text,
        "\n  execution timeout {:?}, ttl {} given {}, low priority {}, retries up to {}, \
         retention {} and {}, forgets {}",
        terms.execution_timeout_ms,
        terms.ttl_ms,
        terms.ttl_given,
        terms.low_priority,
        terms.retries_max,
        terms.retention_ms,
        terms.retention_sync_ms,
        terms.ttl_expiry_forgets
    )
    .unwrap();
    if terms.webhook_on_cancel {
        text.push_str(", webhook on cancel");
    }
    if terms.poison_after > 0 {
        write!(text, ", poison after {}", terms.poison_after).unwrap();
    }
    for Death { worker, how } in deaths {
        write!(text, "\n  killed {worker}, which {how:?}").unwrap();
    }
    if job.waits_in_worker() {
        text.push_str("\n  waits in its worker");
    }
    text
}
