//! Runs a history on both stores side by side.

mod deliveries;
mod workers;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lazyfox_core::id::JobId;
use lazyfox_core::job::{Event, Job};
use lazyfox_core::limits;
use lazyfox_core::policy::Terms;
use lazyfox_core::time::Timestamp;
use lazyfox_store::memory::MemoryStore;
use lazyfox_store::postgres::Looks;
use lazyfox_store::sqlite::SqliteStore;
use lazyfox_store::{
    Applied, Expired, Heartbeat, Idempotency, NewJob, Query, Store, Submitted, Watched, Webhook,
};
use tempfile::TempDir;

use super::ledger::Ledger;
use super::ops::{ENDPOINTS, HOSTS, New, Op, Speaker, Ttl, WORKERS, What};
use crate::world::*;

/// Which store is compared with the one in memory.
#[derive(Clone)]
pub(crate) enum Durable {
    /// In a directory of its own.
    Sqlite(Arc<TempDir>),
    /// In the database of this URL.
    Postgres(String),
    /// The same, where the store looks for what nobody told it before every step.
    PostgresThatLooks(String),
}

impl Durable {
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(Arc::new(TempDir::new().unwrap()))
    }

    pub(crate) fn postgres() -> Self {
        Self::Postgres(lazyfox_testing::shared().database())
    }

    pub(crate) fn postgres_that_looks() -> Self {
        Self::PostgresThatLooks(lazyfox_testing::shared().database())
    }

    /// What it finds decides where later searches begin.
    async fn look(&self, store: &dyn Store, now: Timestamp) {
        if let Self::PostgresThatLooks(_) = self {
            let watched = Watched {
                queues: ENDPOINTS.iter().map(|it| endpoint(it)).collect(),
                ..Watched::default()
            };
            store.news(&|| watched.clone(), &|| now).await.unwrap();
        }
    }

    async fn open(&self, now: Timestamp) -> Box<dyn Store> {
        match self {
            Self::Sqlite(dir) => Box::new(SqliteStore::open(dir.path(), now).unwrap()),
            Self::Postgres(url) => {
                let looks = Looks {
                    surveys: Duration::ZERO,
                    ..Looks::default()
                };
                Box::new(postgres_at(url).await.with_looks(looks))
            }
            Self::PostgresThatLooks(url) => {
                let looks = Looks {
                    every: Duration::ZERO,
                    idle: Duration::ZERO,
                    lag: Duration::ZERO,
                    surveys: Duration::ZERO,
                };
                Box::new(postgres_at(url).await.with_looks(looks))
            }
        }
    }
}

pub(crate) async fn on_both(ops: &[Op], durable: Durable) {
    let mut replay = Replay::new(durable).await;
    for op in ops {
        let store = replay.stores()[1];
        replay.kept.look(store, replay.now).await;
        replay.step(op).await;
        let surveys = replay.both(async |store| store.survey().await).await;
        replay.ledger.check_survey(&surveys);
        replay.compare_deliveries().await;
    }
    replay.compare_everything().await;
    replay.reopen().await;
    replay.compare_everything().await;
}

struct Replay {
    kept: Durable,
    memory: MemoryStore,
    durable: Option<Box<dyn Store>>,
    now: Timestamp,
    /// Every id that was ever submitted, also those that were not accepted.
    ids: Vec<(JobId, usize)>,
    /// How many were added.
    secrets: u8,
    /// What each store calls a delivery, by the ledger's number of it.
    numbers: [BTreeMap<u64, u64>; 2],
    ledger: Ledger,
}

impl Replay {
    async fn new(kept: Durable) -> Self {
        Self {
            memory: MemoryStore::new(START),
            durable: Some(kept.open(START).await),
            kept,
            now: START,
            ids: Vec::new(),
            secrets: 0,
            numbers: Default::default(),
            ledger: Ledger::default(),
        }
    }

    fn stores(&self) -> [&dyn Store; 2] {
        [&self.memory, &**self.durable.as_ref().unwrap()]
    }

    /// Asks both stores and gives their common answer.
    async fn both<T: Debug, E: Debug>(&self, ask: impl AsyncFn(&dyn Store) -> Result<T, E>) -> T {
        let [memory, durable] = self.stores();
        let ours = ask(memory).await.unwrap();
        let theirs = ask(durable).await.unwrap();
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
        ours
    }

    fn job(&self, n: usize) -> Option<(JobId, usize)> {
        let n = n.checked_rem(self.ids.len())?;
        Some(self.ids[n])
    }

    fn speaker(&self, by: Speaker, job: JobId) -> &'static str {
        let holder = self.ledger.holder(job);
        match by {
            Speaker::Holder => WORKERS.into_iter().find(|w| holder == Some(worker(w))),
            Speaker::Worker(n) => Some(WORKERS[n]),
        }
        .unwrap_or(WORKERS[0])
    }

    async fn expire(&self, limit: usize) -> Expired {
        let now = self.now;
        let Durable::PostgresThatLooks(_) = self.kept else {
            return self
                .both(async |store| store.expire(now, limit).await)
                .await;
        };
        // What a look found may say less about the future.
        let [memory, durable] = self.stores();
        let ours = memory.expire(now, limit).await.unwrap();
        let theirs = durable.expire(now, limit).await.unwrap();
        assert_eq!(
            format!("{:?}", ours.changes),
            format!("{:?}", theirs.changes)
        );
        assert!(theirs.next <= ours.next && (theirs.next > now || ours.next <= now));
        ours
    }

    async fn step(&mut self, op: &Op) {
        let now = self.now;
        match *op {
            Op::Submit(ref new) => self.submit(new).await,
            Op::Lease {
                on,
                by,
                count,
                extra,
                lasts_ms,
                disowns,
            } => {
                let mut ask = self.ask(on, by, count);
                ask.extra.count = extra;
                ask.extra.not_expiring_before = now.plus_ms(lasts_ms);
                ask.disowns_before = disowns.then_some(now);
                self.lease(on, ask).await;
            }
            Op::Run { on, by, what } => self.run(on, by, what).await,
            Op::Finish { by, what } => self.finish(by, what).await,
            Op::Apply {
                job,
                what,
                by,
                output,
                elsewhere,
            } => {
                if let Some((id, on)) = self.job(job) {
                    let on = if elsewhere { 1 - on } else { on };
                    self.apply(on, id, what, by, output).await;
                }
            }
            Op::Expire { limit } => {
                let expired = self.expire(limit).await;
                self.ledger.expired(&expired, limit, now);
            }
            Op::Renew {
                by,
                ref jobs,
                begins,
            } => self.renew(by, jobs.as_deref(), begins).await,
            Op::Held { by, how, ref begun } => self.held(by, how, begun).await,
            Op::Append { job, by, ref sizes } => self.append(job, by, sizes).await,
            Op::Drain { job, bytes_max } => {
                if let Some((id, on)) = self.job(job) {
                    let on = endpoint(ENDPOINTS[on]);
                    self.both(async |store| store.drain(&on, id, bytes_max).await)
                        .await;
                }
            }
            Op::Sweep { on, purge, limit } => {
                let on = endpoint(ENDPOINTS[on]);
                let event = if purge {
                    Event::Purge
                } else {
                    Event::Unservable {
                        reason: "no worker starts".to_owned(),
                    }
                };
                let changes = self
                    .both(async |store| store.sweep(&on, event.clone(), limit, now).await)
                    .await;
                self.ledger.swept(&on, &changes, limit);
            }
            Op::Prune { limit } => self.prune(limit).await,
            Op::Outbox { bounds, silent } => self.outbox(bounds, silent).await,
            Op::Settle {
                delivery,
                how,
                round,
                keep_ms,
            } => self.settle(delivery, how, round, keep_ms).await,
            Op::Redeliver {
                ref deliveries,
                elsewhere,
            } => self.redeliver(deliveries, elsewhere).await,
            Op::Deliveries(ref search) => self.search(search).await,
            Op::Secret { on, overlap_ms } => self.add_secret(on, overlap_ms).await,
            Op::Release { on, fingerprint } => self.release(on, fingerprint).await,
            Op::Override { on, settings } => self.set_override(on, settings).await,
            Op::Wait { ms } => self.now = now.plus_ms(ms),
            Op::Look { job, page } => {
                if let Some((id, on)) = self.job(job) {
                    self.look(id, on).await;
                }
                self.compare_lists(page).await;
            }
            Op::Reopen => self.reopen().await,
        }
    }

    async fn submit(&mut self, new: &New) {
        let n = u8::try_from(self.ids.len()).unwrap();
        let id = JobId::new(self.now, [n; 16], new.sync);
        let terms = Terms {
            execution_timeout_ms: new.short_run.then_some(30_000),
            ttl_ms: match new.ttl {
                Ttl::Long => limits::TTL_MS,
                Ttl::Short | Ttl::Hard | Ttl::Forgets => 20_000,
            },
            ttl_given: matches!(new.ttl, Ttl::Hard | Ttl::Forgets),
            ttl_expiry_forgets: new.ttl == Ttl::Forgets,
            low_priority: new.low,
            retries_max: new.retries_max,
            poison_after: new.poison_after,
            webhook_on_cancel: new.on_cancel,
            ..terms()
        };
        let on = endpoint(ENDPOINTS[new.on]);
        let webhook = new.webhook.map(|host| Webhook {
            url: format!("https://{}/{n}", HOSTS[host]),
            host: HOSTS[host].to_owned(),
        });
        let new_job = NewJob {
            job: Job::submitted(id, on, terms, webhook.is_some(), self.now),
            input: input_of(id),
            webhook,
            secrets: new.secrets.then(|| vec![n, 0]),
            idempotency: new.key.map(|(key, fingerprint)| Idempotency {
                key: format!("key-{key}"),
                fingerprint: [fingerprint; 32],
            }),
        };
        self.ids.push((id, new.on));
        let now = self.now;
        let submitted = self
            .both(async |store| store.submit(new_job.clone(), now).await)
            .await;
        match submitted {
            Submitted::Accepted { .. } => self.ledger.accepted(&new_job),
            Submitted::Known(known, status) => self.ledger.check_known(&new_job, known, status),
            Submitted::Conflict(known) => self.ledger.check_conflict(&new_job, known),
        }
    }

    async fn apply(&mut self, on: usize, id: JobId, what: What, by: Speaker, output: Option<u8>) {
        let now = self.now;
        let by = worker(self.speaker(by, id));
        let event = match what {
            What::HandBack => Event::HandBack {
                worker: by,
                since: self.ledger.since(id).unwrap_or(now),
            },
            What::Begin => Event::Begin { worker: by },
            What::Progress => Event::Progress { worker: by },
            What::Complete(ago_ms) => Event::Complete {
                worker: by,
                began_at: ago_ms.map(|ms| before(now, ms)),
            },
            What::Fail(ago_ms) => Event::Fail {
                worker: by,
                error: "out of memory".to_owned(),
                began_at: ago_ms.map(|ms| before(now, ms)),
            },
            What::Lost { died } => Event::Lost {
                worker: by,
                how: "left".to_owned(),
                died,
            },
            What::Cancel => Event::Cancel,
            What::Retry => Event::Retry,
            What::WaitEnded => Event::WaitEnded,
            What::SetTtl(ms) => Event::SetTtl { ms },
        };
        // Only reports carry an output.
        let output = match what {
            What::Progress => Some(Bytes::from(format!("\"half of {}\"", output.unwrap_or(0)))),
            What::Complete(_) | What::Fail(_) => {
                output.map(|n| Bytes::from(format!("{{\"n\": {n}}}")))
            }
            _ => None,
        };
        let endpoint = endpoint(ENDPOINTS[on]);
        let applied = self
            .both(async |store| {
                store
                    .apply(&endpoint, id, event.clone(), output.clone(), now)
                    .await
            })
            .await;
        if applied != Applied::Unknown {
            self.ledger.check_known_on(id, &endpoint);
        }
        match applied {
            Applied::Changed(change) => self.ledger.changed(&change, &event, output),
            Applied::Refused(_, job) => self.ledger.check_unchanged(&job),
            Applied::Unknown => self.ledger.check_unknown(id, &endpoint),
        }
        if self.ids.iter().any(|&(known, n)| known == id && n == on) {
            self.look(id, on).await;
        }
    }

    async fn append(&self, job: usize, by: Speaker, sizes: &[usize]) {
        let Some((id, on)) = self.job(job) else {
            return;
        };
        let (on, by) = (endpoint(ENDPOINTS[on]), worker(self.speaker(by, id)));
        let chunks: Vec<Bytes> = sizes
            .iter()
            .enumerate()
            .map(|(n, &size)| Bytes::from(vec![b'a' + u8::try_from(n).unwrap(); size]))
            .collect();
        let kept = self
            .both(async |store| store.append_chunks(&on, id, &by, chunks.clone()).await)
            .await;
        let holds = self.ledger.holder(id) == Some(by);
        let expected = if holds {
            lazyfox_store::ChunksKept::Kept
        } else {
            lazyfox_store::ChunksKept::NotHolder
        };
        assert_eq!(kept, expected);
    }

    async fn prune(&mut self, limit: usize) {
        let now = self.now;
        let pruned = self.both(async |store| store.prune(now, limit).await).await;
        let forgotten = self.ledger.pruned(pruned, limit, now);
        let load = async |on, id| {
            self.both(async |store| store.load(&on, id, ALL_PARTS).await)
                .await
        };
        for (id, on) in forgotten {
            assert_eq!(load(on, id).await, None, "{id} was to be forgotten");
        }
        let mut left = Vec::new();
        for (id, on) in self.ledger.ended() {
            left.push(load(on, id).await.expect("no accepted job is lost").job);
        }
        for job in left {
            self.ledger.postponed(&job, now);
        }
    }

    /// One job, read from both and compared with what the ledger knows of it.
    async fn look(&self, id: JobId, on: usize) {
        let on = endpoint(ENDPOINTS[on]);
        let loaded = self
            .both(async |store| {
                let loaded = store.load(&on, id, ALL_PARTS).await?;
                Ok::<_, lazyfox_store::StoreError>(loaded.map(|mut loaded| {
                    loaded.job = without_lease(loaded.job);
                    loaded
                }))
            })
            .await;
        self.ledger.check_loaded(id, loaded.as_ref());
        let place = self.both(async |store| store.place(&on, id).await).await;
        self.ledger.check_place(id, place);
    }

    async fn compare_lists(&self, limit: usize) {
        for on in ENDPOINTS {
            self.both(async |store| {
                // Where a page begins is the store's own affair; the pages are not.
                let mut pages = Vec::new();
                let mut before = None;
                loop {
                    let query = Query {
                        endpoint: endpoint(on),
                        status: None,
                        limit,
                        before,
                    };
                    let page = store.list(query).await?;
                    let jobs = page.jobs.into_iter().map(without_lease);
                    pages.push(jobs.collect::<Vec<_>>());
                    before = page.next;
                    if before.is_none() {
                        return Ok::<_, lazyfox_store::StoreError>(pages);
                    }
                }
            })
            .await;
        }
    }

    async fn compare_everything(&mut self) {
        for &(id, on) in &self.ids {
            self.look(id, on).await;
        }
        self.compare_lists(3).await;
        self.compare_deliveries().await;
        self.compare_overrides().await;
        let surveys = self.both(async |store| store.survey().await).await;
        self.ledger.check_survey(&surveys);
    }

    /// What the end of a process takes away is taken from the memory store by hand: callers that
    /// wait, and leases, which begin anew.
    async fn reopen(&mut self) {
        self.durable = None;
        self.durable = Some(self.kept.open(self.now).await);
        if !matches!(self.kept, Durable::Sqlite(_)) {
            // The end of one server takes nothing away from the others.
            return;
        }
        for (id, on) in self.ledger.unfinished() {
            let event = Event::WaitEnded;
            let applied = self.memory.apply(&on, id, event.clone(), None, self.now);
            let change = applied.await.unwrap().changed().unwrap();
            self.ledger.changed(&change, &event, None);
        }
        for name in WORKERS {
            let beat = Heartbeat {
                worker: worker(name),
                endpoint: endpoint("a"),
                jobs: None,
                lease_ms: limits::LEASE_MS,
            };
            self.memory.renew(beat, self.now).await.unwrap();
        }
    }
}

/// This many milliseconds earlier.
fn before(now: Timestamp, ms: u64) -> Timestamp {
    Timestamp::from_ms(now.as_ms().saturating_sub_unsigned(ms))
}
