//! What happens to deliveries, on both stores.

use lazyfox_core::delivery::{Next, Try};
use lazyfox_core::id::DeliveryId;
use lazyfox_core::time::Timestamp;
use lazyfox_core::traffic::{Bounds, Traffic};
use lazyfox_store::{
    Delivery, DeliveryQuery, Due, Outbox, Outgoing, Settlement, Store, StoreError, WebhookSecret,
};

use super::super::ledger::Asked;
use super::super::ops::{ENDPOINTS, HOSTS, Named, Search, Settled};
use super::Replay;
use crate::world::*;

/// What no store calls a delivery.
const UNKNOWN: u64 = 1_000_000;

impl Replay {
    /// All that is open and all that is listed.
    pub(super) async fn compare_deliveries(&mut self) {
        self.ledger.check_reports();
        for on in ENDPOINTS {
            let query = DeliveryQuery::of(endpoint(on));
            let listed = self
                .both(async |store| pages(store, query.clone()).await)
                .await;
            self.ledger.check_deliveries(&query, &listed.concat());
        }
        let never = Timestamp::from_ms(i64::MAX - 1);
        self.ask_outbox(ROOM, None, never).await;
    }

    pub(super) async fn outbox(&mut self, bounds: Option<(usize, usize)>, silent: Option<usize>) {
        let bounds = bounds.map_or(ROOM, |(in_all, per_host)| Bounds {
            in_all,
            per_host,
            ..ROOM
        });
        self.ask_outbox(bounds, silent.map(|n| HOSTS[n]), self.now)
            .await;
    }

    async fn ask_outbox(&mut self, bounds: Bounds, silent: Option<&'static str>, now: Timestamp) {
        let mut traffic = Traffic::new(bounds);
        let silent = silent.map(|host| (host, silence(&mut traffic, host, now)));
        let [ours, theirs] = [0, 1];
        let (outbox, sent) = self.outbox_of(ours, &traffic, now).await;
        let same = self.outbox_of(theirs, &traffic, now).await;
        assert_eq!((&outbox, &sent), (&same.0, &same.1));
        let asked = Asked {
            bounds,
            silent,
            now,
        };
        self.ledger.check_outbox(&outbox, &asked);
        for (due, outgoing) in outbox.due.iter().chain(&outbox.held).zip(&sent) {
            self.ledger.check_outgoing(due.number, Some(outgoing));
        }
    }

    /// A store's outbox in the numbers of the ledger, and all that is sent. What a store calls a delivery is
    /// its own affair; after a restart it may call another one as it called one that is forgotten.
    async fn outbox_of(
        &mut self,
        which: usize,
        traffic: &Traffic,
        now: Timestamp,
    ) -> (Outbox, Vec<Outgoing>) {
        let mut sent = Vec::new();
        let store = self.stores()[which];
        let mut outbox = store.outbox(traffic.clone(), now).await.unwrap();
        let mut names = Vec::new();
        for due in outbox.due.iter_mut().chain(&mut outbox.held) {
            let outgoing = store.outgoing(due, ALL_PARTS).await.unwrap();
            let outgoing = outgoing.expect("what is due can be sent");
            let number = self.ledger.number(outgoing.id);
            names.push((number, due.number));
            due.number = number;
            sent.push(outgoing);
        }
        self.numbers[which].extend(names);
        (outbox, sent)
    }

    pub(super) async fn settle(
        &mut self,
        delivery: u64,
        how: Settled,
        round: Option<u32>,
        keep_ms: u64,
    ) {
        let (status, next) = match how {
            Settled::Delivered => (Some(204), Next::Delivered),
            Settled::Again => (Some(503), Next::Again(self.now.plus_ms(10_000))),
            Settled::GaveUp => (None, Next::GaveUp),
        };
        // The last one is one too many.
        let number = delivery % (self.ledger.deliveries_ever() + 1) + 1;
        let known = self.ledger.due(number);
        let settlement = Settlement {
            due: known.clone().unwrap_or(Due {
                number,
                endpoint: endpoint(ENDPOINTS[0]),
                host: HOSTS[0].into(),
                bytes: 0,
                due_at: self.now,
            }),
            round: round.unwrap_or(self.ledger.round(number)),
            made: Try {
                at: self.now,
                duration_ms: keep_ms,
                status,
                answer: status.map(|status| format!("{status}!")),
                error: (next != Next::Delivered).then(|| "no".to_owned()),
            },
            next,
            keep_until: self.now.plus_ms(keep_ms),
        };
        self.ledger.settled(&settlement);
        for (store, numbers) in self.stores().into_iter().zip(&self.numbers) {
            let due = Due {
                number: known.as_ref().map_or(UNKNOWN, |_| numbers[&number]),
                ..settlement.due.clone()
            };
            let settlement = Settlement {
                due: due.clone(),
                ..settlement.clone()
            };
            assert_eq!(store.settle(vec![settlement]).await, Ok(vec![]));
            // Whoever still has it in hand.
            let outgoing = store.outgoing(&due, ALL_PARTS).await.unwrap();
            self.ledger.check_outgoing(number, outgoing.as_ref());
        }
    }

    /// On the endpoint of the first.
    pub(super) async fn redeliver(&mut self, deliveries: &[Named], elsewhere: bool) {
        let ids = deliveries.iter().filter_map(|&named| match named {
            Named::Delivery(n) => self.ledger.delivery(n),
            Named::OfJob(n, number) => self.job(n).map(|(job, _)| DeliveryId { job, number }),
        });
        let ids: Vec<_> = ids.collect();
        let of = |job| self.ids.iter().find(|(id, _)| *id == job).unwrap().1;
        let on = ids.first().map_or(0, |id| of(id.job));
        let on = endpoint(ENDPOINTS[if elsewhere { 1 - on } else { on }]);
        let now = self.now;
        let became = self
            .both(async |store| store.redeliver(&on, ids.clone(), now).await)
            .await;
        self.ledger.redelivered(&on, &ids, &became, now);
    }

    pub(super) async fn search(&mut self, search: &Search) {
        let mut query = DeliveryQuery::of(endpoint(ENDPOINTS[search.on]));
        query.job = search.job.and_then(|n| self.job(n)).map(|(job, _)| job);
        query.state = search.state;
        if let Some(ms) = search.within_ms {
            let from = self.now.as_ms() - i64::try_from(ms).unwrap();
            query.created = Timestamp::from_ms(from)..self.now;
        }
        query.limit = search.page;
        let found = self
            .both(async |store| pages(store, query.clone()).await)
            .await;
        let (_, full) = found.split_last().unwrap();
        assert!(full.iter().all(|page| page.len() == search.page));
        self.ledger.check_deliveries(&query, &found.concat());
    }

    pub(super) async fn add_secret(&mut self, on: usize, overlap_ms: u64) {
        let (on, now) = (endpoint(ENDPOINTS[on]), self.now);
        self.secrets += 1;
        let secret = WebhookSecret {
            id: format!("secret{}", self.secrets),
            sealed: vec![self.secrets],
            created_at: now,
            valid_until: None,
        };
        let until = now.plus_ms(overlap_ms);
        self.both(async |store| store.add_webhook_secret(&on, secret.clone(), until).await)
            .await;
        let secrets = self
            .both(async |store| store.webhook_secrets(&on).await)
            .await;
        assert_eq!(secrets[0], secret);
        let before = secrets.get(1).map(|it| it.valid_until);
        assert!(secrets.len() <= 2 && before.is_none_or(|it| it == Some(until)));
    }
}

/// Page by page. Where a page begins is the store's own affair; the pages are not.
async fn pages(
    store: &dyn Store,
    mut query: DeliveryQuery,
) -> Result<Vec<Vec<Delivery>>, StoreError> {
    let mut pages = Vec::new();
    loop {
        let page = store.deliveries(query.clone()).await?;
        pages.push(page.deliveries);
        query.before = page.next;
        if query.before.is_none() {
            return Ok(pages);
        }
    }
}
