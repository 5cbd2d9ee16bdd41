//! The slow look that finds what nobody told: once a second one small statement, as long as a server
//! listens to others. What it finds also spares the passes of an idle server their questions.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Client, Pool};
use lazyfox_core::id::EndpointId;
use lazyfox_core::time::Timestamp;
use tokio::time::Instant;
use tokio_postgres::types::ToSql;

use super::connect::{self, Failure};
use super::floors::Floors;
use super::row::{Id, column, endpoint_of, time};
use super::set::Set;
use super::sql;
use crate::engine::{Result, Seq};
use crate::{News, Watched};

/// Time between two looks: the longest that a lost message is missed.
pub(super) const EVERY: Duration = Duration::from_millis(1_000);
/// What a look found is relied on for so long.
const FRESH: Duration = Duration::from_millis(1_500);
/// A look sees what is due within this time; what comes later is not known to be.
const AHEAD_MS: u64 = 10_000;
/// Another server's clock, or a commit that took its time, may give something a time that has passed already,
/// but not by more than this.
const LATE_MS: u64 = 5_000;
/// Time between two looks at all times.
const ALL_EVERY: Duration = Duration::from_secs(60);

/// What is known of the next things to do, at the latest look and by what this server did since.
#[derive(Default)]
pub(super) struct Knowledge {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    looked_at: Option<Instant>,
    known: Next,
    /// What this server committed since the look under way began: it may not be in what that finds.
    meanwhile: Next,
    /// Nothing has an earlier time, as far as is known. Dead entries of what is over are not walked over again
    /// and again.
    floors: Times,
    all_at: Option<Instant>,
}

/// The earliest deadline of what waits or runs, and the earliest end of a retention.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) deadline: i64,
    pub(super) forget: i64,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            deadline: i64::MIN,
            forget: i64::MIN,
        }
    }
}

/// The next things to do.
#[derive(Clone, Copy)]
struct Next {
    deadline: Timestamp,
    forget: Timestamp,
    deliveries_open: bool,
}

impl Default for Next {
    fn default() -> Self {
        Self {
            deadline: Timestamp::NEVER,
            forget: Timestamp::NEVER,
            deliveries_open: false,
        }
    }
}

impl Next {
    fn and(&mut self, more: Self) {
        self.deadline = self.deadline.min(more.deadline);
        self.forget = self.forget.min(more.forget);
        self.deliveries_open |= more.deliveries_open;
    }
}

impl Knowledge {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self) -> Option<Next> {
        let state = self.state();
        let looked_at = state.looked_at?;
        (looked_at.elapsed() < FRESH).then_some(state.known)
    }

    /// The next deadline, if none is due by now for sure.
    pub(super) fn nothing_due(&self, now: Timestamp) -> Option<Timestamp> {
        let next = self.fresh()?.deadline;
        (next > now).then_some(next)
    }

    /// Whether no record is over by now for sure.
    pub(super) fn nothing_over(&self, now: Timestamp) -> bool {
        self.fresh().is_some_and(|next| next.forget > now)
    }

    /// Whether no delivery is open for sure.
    pub(super) fn nothing_open(&self) -> bool {
        self.fresh().is_some_and(|next| !next.deliveries_open)
    }

    /// What a group of this server has just committed.
    pub(super) fn committed(&self, set: &Set) {
        let mut next = Next {
            deliveries_open: !set.deliveries.is_empty(),
            ..Next::default()
        };
        for entry in set.entries.values() {
            let deadline = entry.job.deadline();
            if entry.job.state.end().is_some() {
                next.forget = next.forget.min(deadline);
            } else {
                next.deadline = next.deadline.min(deadline);
            }
        }
        let mut state = self.state();
        state.known.and(next);
        state.meanwhile.and(next);
        state.floors.deadline = state.floors.deadline.min(next.deadline.as_ms());
        state.floors.forget = state.floors.forget.min(next.forget.as_ms());
    }

    /// Nothing is earlier.
    pub(super) fn floors(&self) -> Times {
        self.state().floors
    }

    fn begin(&self) -> Instant {
        let now = Instant::now();
        let mut state = self.state();
        state.meanwhile = Next::default();
        if state.all_at.is_none_or(|at| now >= at + ALL_EVERY) {
            state.all_at = Some(now);
            state.floors = Times::default();
        }
        now
    }

    fn looked(&self, began_at: Instant, now: Timestamp, mut found: Next) {
        let mut state = self.state();
        found.and(state.meanwhile);
        state.looked_at = Some(began_at);
        state.known = found;
        let late = now.as_ms().saturating_sub(LATE_MS.cast_signed());
        state.floors = Times {
            deadline: found.deadline.as_ms().min(late),
            forget: found.forget.as_ms().min(late),
        };
    }
}

/// Looks once.
pub(super) async fn look(
    pool: &Pool,
    knowledge: &Knowledge,
    floors: &Floors,
    watched: &Watched,
    now: Timestamp,
) -> std::result::Result<News, Failure> {
    let client = connect::client(pool).await?;
    let on: Vec<&str> = watched.jobs.iter().map(|(on, _)| on.as_str()).collect();
    let ids: Vec<Id> = watched.jobs.iter().map(|(_, job)| Id::from(*job)).collect();
    let queues: Vec<&str> = watched.queues.iter().map(EndpointId::as_str).collect();
    let began_at = knowledge.begin();
    let from = watched.queues.iter();
    let from: Vec<i64> = from
        .map(|endpoint| floors.look_from(endpoint, began_at).cast_signed())
        .collect();
    let times = knowledge.floors();
    let until = now.plus_ms(AHEAD_MS);
    let params: &[&(dyn ToSql + Sync)] = &[
        &on,
        &ids,
        &queues,
        &from,
        &times.deadline,
        &times.forget,
        &until.as_ms(),
    ];
    let rows = connect::rows(&client, sql::PULSE, params).await?;
    let mut news = News::default();
    let mut found = Next {
        deadline: until,
        forget: until,
        deliveries_open: false,
    };
    let mut grown: Vec<&str> = Vec::new();
    let mut firsts: HashMap<EndpointId, Seq> = HashMap::new();
    let mut place = 0;
    for row in &rows {
        let what: &str = column(row, 0)?;
        let endpoint = || -> Result<EndpointId> { endpoint_of(column(row, 1)?) };
        let number: Option<i64> = column(row, 3)?;
        let at = number.map_or(until, time);
        match what {
            "job" => news.jobs.push((endpoint()?, column::<Id>(row, 2)?.job())),
            "queue" => {
                news.queues.push((endpoint()?, News::ANY));
                if let Some(first) = number {
                    firsts.insert(endpoint()?, first.cast_unsigned());
                }
            }
            "place" => place = number.unwrap_or_default().cast_unsigned(),
            "deadline" => found.deadline = at,
            "forget" => found.forget = at,
            "grown" => grown.push(column(row, 1)?),
            _ => found.deliveries_open = true,
        }
    }
    news.deadlines = found.deadline <= now;
    news.deliveries = found.deliveries_open;
    knowledge.looked(began_at, now, found);
    for endpoint in &watched.queues {
        let first = firsts.get(endpoint).copied().unwrap_or(place);
        floors.looked(endpoint, began_at, first);
    }
    analyze(&client, &grown).await;
    Ok(news)
}

/// A table that was vacuumed while it was empty is planned for as empty until the next vacuum, a minute later
/// or more: its statements would read all of it. With statistics, all connections plan anew.
async fn analyze(client: &Client, grown: &[&str]) {
    for table in grown {
        // An account that may not do so has to wait for the database's own vacuum.
        let analyze = format!("ANALYZE lazyfox.{table}");
        let _ = client.batch_execute(&analyze).await;
    }
}
