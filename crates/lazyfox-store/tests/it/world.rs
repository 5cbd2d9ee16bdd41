//! Jobs, workers and short ways to say what happens to them.

mod hooks;

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_core::job::{Event, Job, State, Status};
use lazyfox_core::limits;
use lazyfox_core::policy::{Asked, Defaults, Terms};
use lazyfox_core::time::Timestamp;
use lazyfox_store::memory::MemoryStore;
use lazyfox_store::postgres::{Access, PostgresStore, Trust};
use lazyfox_store::sqlite::SqliteStore;
use lazyfox_store::{
    Answer, Applied, Ask, Bid, Change, Extra, HolderEvent, Idempotency, Loaded, NewJob, Parts,
    Store, StoreError, Submitted,
};
use tempfile::TempDir;

pub(crate) use self::hooks::*;

pub(crate) const START: Timestamp = Timestamp::from_ms(1_800_000_000_000);

/// This many milliseconds after the start.
pub(crate) fn at(ms: u64) -> Timestamp {
    START.plus_ms(ms)
}

pub(crate) fn endpoint(name: &str) -> EndpointId {
    name.parse().unwrap()
}

pub(crate) fn worker(name: &str) -> WorkerId {
    name.parse().unwrap()
}

/// The id of test job number `n`.
pub(crate) fn id(n: u8) -> JobId {
    JobId::new(START, [n; 16], false)
}

/// Where a byte is too little.
pub(crate) fn nth_id(n: usize) -> JobId {
    let mut random = [0; 16];
    random[8..].copy_from_slice(&n.to_be_bytes());
    JobId::new(START, random, false)
}

pub(crate) fn sync_id(n: u8) -> JobId {
    JobId::new(START, [n; 16], true)
}

pub(crate) fn terms() -> Terms {
    Terms::agree(Asked::default(), &Defaults::default()).unwrap()
}

pub(crate) fn low() -> Terms {
    Terms {
        low_priority: true,
        ..terms()
    }
}

/// A job of endpoint `a`, submitted at the start, with default terms and an input of its own.
pub(crate) fn job(n: u8) -> NewJob {
    job_with(id(n), "a", terms())
}

pub(crate) fn job_with(id: JobId, on: &str, terms: Terms) -> NewJob {
    NewJob {
        job: Job::submitted(id, endpoint(on), terms, false, START),
        input: input_of(id),
        webhook: None,
        secrets: None,
        idempotency: None,
    }
}

/// Key order, spaces and number spelling that any re-serialising would change.
pub(crate) fn input_of(id: JobId) -> Bytes {
    Bytes::from(format!("{{\"z\": 1.0e2,  \"a\": \"{id}\"}}"))
}

pub(crate) fn keyed(mut new: NewJob, key: &str, fingerprint: u8) -> NewJob {
    new.idempotency = Some(Idempotency {
        key: key.to_owned(),
        fingerprint: [fingerprint; 32],
    });
    new
}

pub(crate) fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

pub(crate) fn ask(on: &str, by: &str, count: usize) -> Ask {
    Ask {
        endpoint: endpoint(on),
        worker: worker(by),
        count,
        extra: Extra::default(),
        lease_ms: limits::LEASE_MS,
        disowns_before: None,
    }
}

pub(crate) fn complete(by: &str) -> Event {
    Event::Complete {
        worker: worker(by),
        began_at: None,
    }
}

pub(crate) fn progress(by: &str) -> Event {
    Event::Progress { worker: worker(by) }
}

pub(crate) fn fail(by: &str) -> Event {
    Event::Fail {
        worker: worker(by),
        error: "out of memory".to_owned(),
        began_at: None,
    }
}

pub(crate) fn lost(by: &str) -> Event {
    Event::Lost {
        worker: worker(by),
        how: "exited with code 1".to_owned(),
        died: false,
    }
}

/// The end of a worker.
pub(crate) fn gone(how: &str, died: bool) -> HolderEvent {
    HolderEvent::Lost {
        how: how.to_owned(),
        died,
        begun: Vec::new(),
    }
}

/// A job as reads give it: leases are no part of what is kept.
pub(crate) fn without_lease(mut job: Job) -> Job {
    if let State::Running(attempt) = &mut job.state {
        attempt.lease_until = attempt.started_at;
    }
    job
}

/// A store under test, with the short ways.
pub(crate) struct Subject {
    store: Box<dyn Store>,
    _dir: Option<TempDir>,
}

pub(crate) async fn memory() -> Subject {
    Subject {
        store: Box::new(MemoryStore::new(START)),
        _dir: None,
    }
}

pub(crate) async fn sqlite() -> Subject {
    let dir = TempDir::new().unwrap();
    Subject {
        store: Box::new(SqliteStore::open(dir.path(), START).unwrap()),
        _dir: Some(dir),
    }
}

pub(crate) async fn postgres() -> Subject {
    let store = postgres_at(&lazyfox_testing::shared().database()).await;
    Subject {
        store: Box::new(store),
        _dir: None,
    }
}

/// A server's store in this database.
pub(crate) async fn postgres_at(url: &str) -> PostgresStore {
    postgres_of(url, "here").await
}

/// A session of somebody else.
pub(crate) async fn session(url: &str, begin: &str) -> tokio_postgres::Client {
    let connected = tokio_postgres::connect(url, tokio_postgres::NoTls).await;
    let (client, connection) = connected.unwrap();
    tokio::spawn(connection);
    client.batch_execute(begin).await.unwrap();
    client
}

/// That of a server of this name.
pub(crate) async fn postgres_of(url: &str, server: &str) -> PostgresStore {
    let access = Access::parse(url, None, Trust::System, CONNECTIONS).unwrap();
    let store = PostgresStore::open(&access, server.to_owned()).await;
    store.unwrap()
}

/// A server asks to be in charge of these.
pub(crate) fn bid(endpoints: &[&str]) -> Bid {
    Bid {
        endpoints: endpoints.iter().map(|name| endpoint(name)).collect(),
        machine: "machine".to_owned(),
        url: "http://127.0.0.1:1".to_owned(),
        version: "1.2.3".to_owned(),
        abandoned_ms: 60_000,
        succeeds: None,
        at_once: false,
    }
}

/// A few: many tests share a cluster.
const CONNECTIONS: usize = 4;

impl Deref for Subject {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

pub(crate) async fn submit(store: &dyn Store, new: NewJob) {
    let at = new.job.created_at;
    assert_eq!(
        store.submit(new, at).await,
        Ok(Submitted::Accepted { taken: false })
    );
}

/// The jobs that a poll on endpoint `a` is answered with.
pub(crate) async fn take(store: &dyn Store, by: &str, count: usize, ms: u64) -> Vec<JobId> {
    take_on(store, "a", by, count, ms).await
}

pub(crate) async fn take_on(
    store: &dyn Store,
    on: &str,
    by: &str,
    count: usize,
    ms: u64,
) -> Vec<JobId> {
    let leased = store.lease(ask(on, by, count), at(ms)).await.unwrap();
    assert!(leased.lost.is_empty());
    leased.handouts.into_iter().map(|h| h.job.id).collect()
}

pub(crate) async fn apply(store: &dyn Store, job: JobId, event: Event, ms: u64) -> Applied {
    let on = endpoint("a");
    store.apply(&on, job, event, None, at(ms)).await.unwrap()
}

/// Applies an event that must change the job.
pub(crate) async fn change(store: &dyn Store, job: JobId, event: Event, ms: u64) -> Change {
    match apply(store, job, event.clone(), ms).await {
        Applied::Changed(change) => change,
        other => panic!("{event:?} came to {other:?}"),
    }
}

/// Reports a result that must be accepted.
pub(crate) async fn report(store: &dyn Store, job: JobId, event: Event, output: &'static str) {
    let on = endpoint("a");
    let at = at(1_000);
    let applied = store.apply(&on, job, event, Some(bytes(output)), at).await;
    assert!(matches!(applied, Ok(Applied::Changed(_))), "{applied:?}");
}

pub(crate) async fn load(store: &dyn Store, job: JobId) -> Option<Loaded> {
    let parts = Parts {
        output: true,
        input: true,
    };
    store.load(&endpoint("a"), job, parts).await.unwrap()
}

pub(crate) async fn status(store: &dyn Store, job: JobId) -> Option<Status> {
    load(store, job).await.map(|loaded| loaded.job.status())
}

pub(crate) async fn output(store: &dyn Store, job: JobId) -> Option<Bytes> {
    load(store, job).await.unwrap().output
}

/// Polls all at once, so that they wait for the writer together. Answers in the order given.
pub(crate) async fn together<T>(mut answers: Vec<Answer<'_, T>>) -> Vec<Result<T, StoreError>> {
    let mut results: Vec<Option<Result<T, StoreError>>> = answers.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (answer, result) in answers.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(ready) = Pin::new(answer).poll(context)
            {
                *result = Some(ready);
            }
        }
        if results.iter().all(Option::is_some) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    results.into_iter().map(Option::unwrap).collect()
}
