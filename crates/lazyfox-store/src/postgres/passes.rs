//! What is done for all endpoints at once: deadlines and forgetting.

use lazyfox_core::id::{EndpointId, JobId};
use lazyfox_core::job::Event;
use lazyfox_core::time::Timestamp;
use std::collections::BTreeMap;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::PostgresStore;
use super::group::Plan;
use super::load::Needs;
use super::row::{Id, column, endpoint_of, time, unsigned};
use super::set::{Became, Over};
use super::{connect, sql};
use crate::Expired;
use crate::engine::Result;

/// Jobs that are looked at in one pruning: callers wait behind it, and the next one goes on.
const LOOKED_MAX: usize = 1_000;

impl PostgresStore {
    /// A question outside of groups, tried again like them.
    async fn ask(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        connect::answer(&self.pool, || {
            Box::pin(async {
                let client = connect::client(&self.pool).await?;
                connect::rows(&client, sql, params).await
            })
        })
        .await
    }

    async fn rows<T>(
        &self,
        sql: &str,
        now: Timestamp,
        limit: usize,
        from: i64,
        of: impl Fn(&tokio_postgres::Row) -> Result<T>,
    ) -> Result<Vec<T>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.ask(sql, &[&now.as_ms(), &limit, &from]).await?;
        rows.iter().map(of).collect()
    }

    pub(super) async fn expire_due(&self, now: Timestamp, limit: usize) -> Result<Expired> {
        if let Some(next) = self.knowledge.nothing_due(now) {
            return Ok(Expired {
                changes: Vec::new(),
                next,
            });
        }
        let from = self.knowledge.floors().deadline;
        let due = self.rows(sql::DUE, now, limit, from, |row| {
            Ok((endpoint_of(column(row, 0)?)?, column::<Id>(row, 1)?.job()))
        });
        let mut endpoints: BTreeMap<EndpointId, Vec<(usize, JobId)>> = BTreeMap::new();
        for (place, (endpoint, job)) in due.await?.into_iter().enumerate() {
            endpoints.entry(endpoint).or_default().push((place, job));
        }
        let mut changes = Vec::new();
        for (endpoint, jobs) in endpoints {
            let needs = Needs {
                jobs: jobs.iter().map(|(_, job)| Id::from(*job)).collect(),
                ..Needs::default()
            };
            let on = endpoint.clone();
            let expired = self.groups.call(&endpoint, Plan::of(needs), move |engine| {
                let mut changes = Vec::new();
                for &(place, job) in &jobs {
                    let applied = engine.apply(&on, job, Event::Clock, None, now)?;
                    changes.extend(applied.changed().map(|change| (place, change)));
                }
                Ok(changes)
            });
            changes.extend(expired.await?);
        }
        changes.sort_by_key(|(place, _)| *place);
        Ok(Expired {
            changes: changes.into_iter().map(|(_, change)| change).collect(),
            next: self.next_deadline().await?,
        })
    }

    async fn next_deadline(&self) -> Result<Timestamp> {
        let from = self.knowledge.floors().deadline;
        let rows = self.ask(sql::NEXT_DEADLINE, &[&from, &i64::MAX]).await?;
        let next = rows.first().map(|row| column::<Option<i64>>(row, 0));
        Ok(next.transpose()?.flatten().map_or(Timestamp::NEVER, time))
    }

    pub(super) async fn last_seq(&self, endpoint: &EndpointId) -> Result<u64> {
        let rows = self.ask(sql::LAST_SEQ, &[&endpoint.as_str()]).await?;
        rows.first().map_or(Ok(0), |row| unsigned(row, 0))
    }

    /// Many rows of counts become one.
    async fn fold_counts(&self) -> Result<()> {
        for endpoint in self.groups.to_fold() {
            self.ask(sql::FOLD_COUNTS, &[&endpoint.as_str()]).await?;
        }
        Ok(())
    }

    pub(super) async fn prune_over(&self, now: Timestamp, limit: usize) -> Result<usize> {
        self.fold_counts().await?;
        let pruned = self.forget_over(now, limit).await?;
        self.groups.partitions.keep(&self.pool, now).await?;
        Ok(pruned)
    }

    async fn forget_over(&self, now: Timestamp, limit: usize) -> Result<usize> {
        if self.knowledge.nothing_over(now) {
            return Ok(0);
        }
        let (mut pruned, mut looked) = (0, 0);
        while pruned < limit && looked < LOOKED_MAX {
            let from = self.knowledge.floors().forget;
            let over = self.rows(sql::FORGETTABLE, now, limit - pruned, from, |row| {
                let over = Over {
                    id: column::<Id>(row, 1)?.job(),
                    seq: unsigned(row, 2)?,
                    has_webhook: column(row, 3)?,
                    key: None,
                    became: Became::Nothing,
                };
                Ok((endpoint_of(column(row, 0)?)?, over))
            });
            let mut endpoints: BTreeMap<EndpointId, Vec<Over>> = BTreeMap::new();
            for (endpoint, over) in over.await? {
                endpoints.entry(endpoint).or_default().push(over);
            }
            let mut handled = 0;
            for (endpoint, over) in endpoints {
                let (gone, seen) = self.prune_on(&endpoint, over, now).await?;
                pruned += gone;
                handled += seen;
            }
            // What is left is in the hands of another server.
            if handled == 0 {
                break;
            }
            looked += handled;
        }
        Ok(pruned)
    }

    /// How many were forgotten, and how many were looked at.
    async fn prune_on(
        &self,
        endpoint: &EndpointId,
        over: Vec<Over>,
        now: Timestamp,
    ) -> Result<(usize, usize)> {
        let needs = Needs {
            over,
            over_by: now,
            ..Needs::default()
        };
        let pruned = self.groups.call(endpoint, Plan::of(needs), move |engine| {
            let seen = engine.rows.over.len();
            Ok((engine.prune(now, seen)?, seen))
        });
        pruned.await
    }
}
