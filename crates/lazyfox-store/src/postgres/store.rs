//! The operations, each as what it needs to be read and what is done with it.

use bytes::Bytes;
use lazyfox_core::id::{DeliveryId, EndpointId, JobId, WorkerId};
use lazyfox_core::job::Event;
use lazyfox_core::time::Timestamp;
use lazyfox_core::traffic::Traffic;
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::Instant;

use super::PostgresStore;
use super::connect::Failure;
use super::group::Plan;
use super::load::Needs;
use super::row::Id;
use super::{charges, connect, deliveries, read, registers};
use crate::{
    Answer, Applied, Ask, Bid, Change, Charges, ChunksKept, DeliveryPage, DeliveryQuery, Drained,
    Due, Expired, Heartbeat, HolderEvent, Key, Leased, Loaded, NewJob, News, Outbox, Outgoing,
    Page, Parts, Place, Purged, Query, Redelivery, Release, Renewed, Settlement, Store, StoreError,
    Submitted, Survey, Watched, WebhookSecret,
};

/// How long a worker's result is held while the database is away: the worker waits for an answer longer
/// than that, and has no second chance after a few that say no.
const RESULT_HELD: Duration = Duration::from_secs(60);
/// What keeps a job or ends it looks further back than a poll.
const HELD_LATE_MS: u64 = 60_000;
/// Pause before it is tried again.
const RESULT_PAUSE: Duration = Duration::from_millis(200);

impl Store for PostgresStore {
    fn submit(&self, new: NewJob, _now: Timestamp) -> Answer<'_, Submitted> {
        self.take_in(new)
    }

    fn gathers(&self) -> bool {
        true
    }

    fn lease(&self, ask: Ask, now: Timestamp) -> Answer<'_, Leased> {
        self.hand_out(ask, now)
    }

    fn apply(
        &self,
        endpoint: &EndpointId,
        job: JobId,
        event: Event,
        output: Option<Bytes>,
        now: Timestamp,
    ) -> Answer<'_, Applied> {
        let mut needs = Needs::job(job);
        match event {
            // What it withdraws.
            Event::Retry => needs.deliveries_of.extend([Id::from(job)]),
            Event::Take { .. }
            | Event::HandBack { .. }
            | Event::Renew { .. }
            | Event::Begin { .. }
            | Event::Progress { .. }
            | Event::Complete { .. }
            | Event::Fail { .. }
            | Event::Lost { .. }
            | Event::Evict { .. }
            | Event::Clock
            | Event::Cancel
            | Event::Purge
            | Event::Unservable { .. }
            | Event::WaitEnded
            | Event::SetTtl { .. } => {}
        }
        let is_result = matches!(event, Event::Complete { .. } | Event::Fail { .. });
        let on = endpoint.clone();
        Box::pin(async move {
            let until = Instant::now() + RESULT_HELD;
            loop {
                let bytes = output.as_ref().map_or(0, Bytes::len);
                let plan = Plan::of(needs.clone()).with_bytes(bytes);
                let (endpoint, event, output) = (on.clone(), event.clone(), output.clone());
                let applied = self.groups.call(&on, plan, move |engine| {
                    engine.apply(&endpoint, job, event.clone(), output.as_ref(), now)
                });
                match applied.await {
                    Err(StoreError::Unavailable(_) | StoreError::Unknown(_))
                        if is_result && Instant::now() < until =>
                    {
                        tokio::time::sleep(RESULT_PAUSE).await;
                    }
                    applied => return applied,
                }
            }
        })
    }

    fn expire(&self, now: Timestamp, limit: usize) -> Answer<'_, Expired> {
        Box::pin(self.expire_due(now, limit))
    }

    fn renew(&self, beat: Heartbeat, now: Timestamp) -> Answer<'_, Renewed> {
        Box::pin(async move {
            // What it holds it may have taken at another server.
            self.speaks(&beat.worker, &beat.endpoint);
            let on = self.endpoints_of(&beat.worker).await?;
            let endpoint = beat.endpoint.clone();
            let since = self.holds_since(&beat.worker, HELD_LATE_MS);
            let needs = Needs {
                held: [(beat.worker.clone(), since)].into(),
                held_on: on,
                ..Needs::default()
            };
            self.groups
                .call(&endpoint, Plan::of(needs), move |engine| {
                    Ok(engine.renew(&beat, now))
                })
                .await
        })
    }

    fn apply_to_held(
        &self,
        worker: &WorkerId,
        event: HolderEvent,
        now: Timestamp,
    ) -> Answer<'_, Vec<Change>> {
        let worker = worker.clone();
        Box::pin(async move {
            let on = self.endpoints_of(&worker).await?;
            let Some(endpoint) = on.first().cloned() else {
                return Ok(Vec::new());
            };
            let since = self.holds_since(&worker, HELD_LATE_MS);
            let needs = Needs {
                held: [(worker.clone(), since)].into(),
                held_on: on,
                ..Needs::default()
            };
            self.groups
                .call(&endpoint, Plan::of(needs), move |engine| {
                    engine.apply_to_held(&worker, &event, now)
                })
                .await
        })
    }

    fn append_chunks(
        &self,
        endpoint: &EndpointId,
        job: JobId,
        worker: &WorkerId,
        chunks: Vec<Bytes>,
    ) -> Answer<'_, ChunksKept> {
        let mut needs = Needs::job(job);
        needs.chunks.insert(job.into(), 0);
        let plan = Plan::of(needs).with_bytes(chunks.iter().map(Bytes::len).sum());
        let (on, worker) = (endpoint.clone(), worker.clone());
        self.groups.call(endpoint, plan, move |engine| {
            engine.append_chunks(&on, job, &worker, &chunks)
        })
    }

    fn drain(
        &self,
        endpoint: &EndpointId,
        job: JobId,
        bytes_max: usize,
    ) -> Answer<'_, Option<Drained>> {
        self.take_off(endpoint, job, bytes_max)
    }

    fn load(&self, endpoint: &EndpointId, job: JobId, parts: Parts) -> Answer<'_, Option<Loaded>> {
        self.loads.load(endpoint, job, parts)
    }

    fn list(&self, query: Query) -> Answer<'_, Page> {
        Box::pin(async move {
            connect::answer(&self.pool, || Box::pin(read::list(&self.pool, &query))).await
        })
    }

    fn sweep(
        &self,
        endpoint: &EndpointId,
        event: Event,
        limit: usize,
        now: Timestamp,
    ) -> Answer<'_, Vec<Change>> {
        let needs = Needs {
            waiting: Some((u64::MAX, limit)),
            ..Needs::default()
        };
        let on = endpoint.clone();
        self.groups.call(endpoint, Plan::of(needs), move |engine| {
            engine.sweep(&on, &event, limit, now)
        })
    }

    fn purge(
        &self,
        endpoint: &EndpointId,
        through: Option<u64>,
        limit: usize,
        now: Timestamp,
    ) -> Answer<'_, Purged> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            let through = match through {
                Some(through) => through,
                None => self.last_seq(&endpoint).await?,
            };
            let needs = Needs {
                waiting: Some((through, limit)),
                ..Needs::default()
            };
            let on = endpoint.clone();
            self.groups
                .call(&endpoint, Plan::of(needs), move |engine| {
                    engine.purge(&on, Some(through), limit, now)
                })
                .await
        })
    }

    fn survey(&self) -> Answer<'_, Vec<Survey>> {
        Box::pin(async move {
            let surveys = self.surveys.next(
                &self.pool,
                &self.knowledge,
                &self.floors,
                self.looks.surveys,
            );
            let surveys = surveys.await;
            surveys.map_err(Failure::into_error)
        })
    }

    fn place(&self, endpoint: &EndpointId, job: JobId) -> Answer<'_, Option<Place>> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            let from = self.floors.look_of(&endpoint);
            connect::answer(&self.pool, || {
                Box::pin(read::place(&self.pool, &endpoint, job, from))
            })
            .await
        })
    }

    fn prune(&self, now: Timestamp, limit: usize) -> Answer<'_, usize> {
        Box::pin(self.prune_over(now, limit))
    }

    fn outbox(&self, traffic: Traffic, now: Timestamp) -> Answer<'_, Outbox> {
        Box::pin(async move {
            if self.knowledge.nothing_open() {
                return Ok(Outbox {
                    next: Timestamp::NEVER,
                    ..Outbox::default()
                });
            }
            connect::answer(&self.pool, || {
                Box::pin(async {
                    deliveries::outbox(&self.pool, &self.server, traffic.clone(), now).await
                })
            })
            .await
        })
    }

    fn outgoing<'a>(&'a self, due: &'a Due, parts: Parts) -> Answer<'a, Option<Outgoing>> {
        Box::pin(async move {
            connect::answer(&self.pool, || {
                Box::pin(async { deliveries::outgoing(&self.pool, &self.server, due, parts).await })
            })
            .await
        })
    }

    fn settle(&self, settlements: Vec<Settlement>) -> Answer<'_, Vec<u64>> {
        let mut endpoints: BTreeMap<EndpointId, Vec<Settlement>> = BTreeMap::new();
        for settlement in settlements {
            let of = endpoints
                .entry(settlement.due.endpoint.clone())
                .or_default();
            of.push(settlement);
        }
        Box::pin(async move {
            let mut damaged = Vec::new();
            for (endpoint, settlements) in endpoints {
                let needs = Needs {
                    deliveries: settlements.iter().map(|it| it.due.number).collect(),
                    ..Needs::default()
                };
                let settled = self.groups.call(&endpoint, Plan::of(needs), move |engine| {
                    engine.settle(&settlements)
                });
                damaged.extend(settled.await?);
            }
            Ok(damaged)
        })
    }

    fn deliveries(&self, query: DeliveryQuery) -> Answer<'_, DeliveryPage> {
        Box::pin(async move {
            connect::answer(&self.pool, || {
                Box::pin(deliveries::list(&self.pool, &query))
            })
            .await
        })
    }

    fn redeliver(
        &self,
        endpoint: &EndpointId,
        deliveries: Vec<DeliveryId>,
        now: Timestamp,
    ) -> Answer<'_, Vec<Redelivery>> {
        let plan = Plan::of(Needs::redelivery(&deliveries));
        let on = endpoint.clone();
        self.groups.call(endpoint, plan, move |engine| {
            engine.redeliver(&on, &deliveries, now)
        })
    }

    fn webhook_secrets(&self, endpoint: &EndpointId) -> Answer<'_, Vec<WebhookSecret>> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            connect::answer(&self.pool, || {
                Box::pin(registers::secrets(&self.pool, &endpoint))
            })
            .await
        })
    }

    fn add_webhook_secret(
        &self,
        endpoint: &EndpointId,
        secret: WebhookSecret,
        previous_until: Timestamp,
    ) -> Answer<'_, ()> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            connect::answer(&self.pool, || {
                Box::pin(async {
                    registers::add_secret(&self.pool, &endpoint, &secret, previous_until).await
                })
            })
            .await
        })
    }

    fn release(
        &self,
        endpoint: &EndpointId,
        fingerprint: [u8; 32],
        now: Timestamp,
    ) -> Answer<'_, Release> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            connect::answer(&self.pool, || {
                Box::pin(async {
                    registers::release(&self.pool, &endpoint, &fingerprint, now).await
                })
            })
            .await
        })
    }

    fn set_override(&self, endpoint: &EndpointId, settings: Option<String>) -> Answer<'_, ()> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            connect::answer(&self.pool, || {
                Box::pin(async {
                    registers::set_override(&self.pool, &endpoint, settings.as_deref()).await
                })
            })
            .await?;
            let news = News {
                settings: true,
                ..News::default()
            };
            self.wire.told.add(news, Vec::new());
            Ok(())
        })
    }

    fn overrides(&self) -> Answer<'_, Vec<(EndpointId, String)>> {
        Box::pin(async move {
            connect::answer(&self.pool, || Box::pin(registers::overrides(&self.pool))).await
        })
    }

    fn news<'a>(
        &'a self,
        watched: &'a (dyn Fn() -> Watched + Send + Sync),
        now: &'a (dyn Fn() -> Timestamp + Send + Sync),
    ) -> Answer<'a, News> {
        Box::pin(async move {
            let looked_at = *self
                .looked_at
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let due = async {
                let Some(at) = looked_at else {
                    return;
                };
                tokio::time::sleep_until(at + self.looks.every).await;
                if !watched().someone {
                    tokio::time::sleep_until(at + self.looks.idle).await;
                }
            };
            tokio::select! {
                biased;
                () = due => {}
                (news, _) = self.wire.heard.next() => return Ok(news),
            }
            let news = self.look(watched(), now()).await;
            *self
                .looked_at
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            news.map_err(Failure::into_error)
        })
    }

    fn charge(&self, bid: Bid) -> Answer<'_, Charges> {
        Box::pin(async move {
            let shared = self
                .say_that_it_is_there(bid)
                .await
                .map_err(Failure::into_error)?;
            Ok(Charges::Shared(shared))
        })
    }

    fn enlist(
        &self,
        endpoint: &EndpointId,
        worker: &WorkerId,
        term: Option<u64>,
    ) -> Answer<'_, bool> {
        let (endpoint, worker) = (endpoint.clone(), worker.clone());
        Box::pin(async move {
            let (pool, server) = (&self.pool, &self.server);
            connect::answer(&self.pool, || {
                Box::pin(charges::enlist(pool, server, &endpoint, &worker, term))
            })
            .await
        })
    }

    fn unlist(&self, endpoint: &EndpointId, worker: &WorkerId) -> Answer<'_, ()> {
        let (endpoint, worker) = (endpoint.clone(), worker.clone());
        Box::pin(async move {
            let (pool, server) = (&self.pool, &self.server);
            connect::answer(&self.pool, || {
                Box::pin(charges::unlist(pool, server, &endpoint, &worker))
            })
            .await
        })
    }

    fn leave(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            // What is still being said comes before.
            let _saying = self.saying.lock().await;
            connect::answer(&self.pool, || {
                Box::pin(charges::leave(&self.pool, &self.server))
            })
            .await
        })
    }

    fn keys(&self) -> Answer<'_, Vec<Key>> {
        Box::pin(async move {
            connect::answer(&self.pool, || Box::pin(registers::keys(&self.pool))).await
        })
    }

    fn add_key(&self, key: Key) -> Answer<'_, ()> {
        Box::pin(async move {
            connect::answer(&self.pool, || {
                Box::pin(registers::add_key(&self.pool, &key))
            })
            .await
        })
    }

    fn revoke_key(&self, id: &str, now: Timestamp) -> Answer<'_, bool> {
        let id = id.to_owned();
        Box::pin(async move {
            connect::answer(&self.pool, || {
                Box::pin(registers::revoke_key(&self.pool, &id, now))
            })
            .await
        })
    }
}
