//! The slow look that finds what nobody told: once a second one small statement, as long as a server
//! listens to others, with what the server has to say about itself. What it finds also spares the passes
//! of an idle server their questions.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::Pool;
use lazyfox_core::id::EndpointId;
use lazyfox_core::time::Timestamp;
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::charges::{self, Spans, Word};
use super::connect::{self, Failure, failed};
use super::floors::Floors;
use super::row::{Id, column, endpoint_of, time};
use super::set::Set;
use super::sql;
use crate::engine::{Result, Seq};
use crate::{Bid, News, Shared, Watched};

type Fallible<T> = std::result::Result<T, Failure>;

/// How a server looks for what nobody told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looks {
    /// Time between two: the longest that a lost message is missed.
    pub every: Duration,
    /// The same while nobody waits for anything.
    pub idle: Duration,
    /// A job's place in the queue is given when it is written, and seen when that is committed: where
    /// looks begin follows so much later.
    pub lag: Duration,
    /// Shortest time between two surveys; more when they take long, unless it is zero.
    pub surveys: Duration,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            every: Duration::from_millis(1_000),
            idle: Duration::from_millis(1_250),
            lag: Duration::from_millis(2_000),
            surveys: Duration::from_millis(50),
        }
    }
}

/// What a look found is relied on for so long.
const FRESH: Duration = Duration::from_millis(1_500);
/// A look sees what is due within this time; what comes later is not known to be.
const AHEAD_MS: u64 = 10_000;
/// Another server's clock, or a commit that took its time, may give something a time that has passed
/// already, but not by more than this.
const LATE_MS: u64 = 5_000;
/// Time between two looks at all times.
const ALL_EVERY: Duration = Duration::from_secs(60);

/// What is known of the next things to do, at the latest look and by what this server did since.
#[derive(Default)]
pub(super) struct Knowledge {
    state: Mutex<State>,
    /// Whether tables that have grown are being looked at.
    analyzing: AtomicBool,
}

#[derive(Default)]
struct State {
    looked_at: Option<Instant>,
    known: Next,
    /// What this server committed since the look under way began: it may not be in what that finds.
    meanwhile: Next,
    /// Nothing has an earlier time, as far as is known. Dead entries of what is over are not walked over
    /// again and again.
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

/// Who looks.
pub(super) struct Looker {
    pub(super) pool: Pool,
    pub(super) knowledge: Arc<Knowledge>,
    pub(super) floors: Arc<Floors>,
    pub(super) lag: Duration,
}

impl Looker {
    /// Looks once.
    pub(super) async fn look(&self, watched: &Watched, now: Timestamp) -> Fallible<News> {
        let looked = connect::in_time(&self.pool, connect::ANSWER, async |client| {
            let asked = self.ask(watched, now);
            let rows = connect::rows(client, sql::PULSE, &asked.params()).await?;
            Ok((asked, rows))
        });
        let (asked, rows) = looked.await?;
        self.read(&asked, &rows)
    }

    /// The same, and says in the same statement that the server is there.
    pub(super) async fn look_and_say(
        &self,
        watched: &Watched,
        now: Timestamp,
        (server, spans, bid): (&str, Spans, &Bid),
    ) -> Fallible<(News, Shared)> {
        let is_news = |row: &Row| Ok::<_, Failure>(NEWS.contains(&column::<&str>(row, 0)?));
        let said = connect::in_time(&self.pool, spans.patience(), async |client| {
            let asked = self.ask(watched, now);
            let word = Word::new(server, spans, bid);
            let mut params = word.params();
            params.extend(asked.params());
            let (mut news, mut said) = (Vec::new(), Vec::new());
            for row in connect::rows(client, sql::BEAT_AND_PULSE, &params).await? {
                match is_news(&row)? {
                    true => news.push(row),
                    false => said.push(row),
                }
            }
            let shared = charges::understood(client, server, spans, bid, &said).await?;
            Ok((asked, news, shared))
        });
        let (asked, news, shared) = said.await?;
        Ok((self.read(&asked, &news)?, shared))
    }

    /// Begins a look. With a connection at hand: the time until the database looks counts as passed.
    fn ask<'a>(&self, watched: &'a Watched, now: Timestamp) -> Asked<'a> {
        let began_at = self.knowledge.begin();
        let from = watched.queues.iter();
        let from = from.map(|endpoint| self.floors.look_from(endpoint, began_at).cast_signed());
        let ids = watched.jobs.iter().map(|(_, job)| Id::from(*job));
        Asked {
            watched,
            began_at,
            now,
            on: watched.jobs.iter().map(|(on, _)| on.as_str()).collect(),
            ids: ids.collect(),
            queues: watched.queues.iter().map(EndpointId::as_str).collect(),
            from: from.collect(),
            times: self.knowledge.floors(),
            until: now.plus_ms(AHEAD_MS).as_ms(),
        }
    }

    fn read(&self, asked: &Asked<'_>, rows: &[Row]) -> Fallible<News> {
        let mut news = News::default();
        let mut found = Next {
            deadline: time(asked.until),
            forget: time(asked.until),
            deliveries_open: false,
        };
        let mut grown: Vec<String> = Vec::new();
        let mut firsts: HashMap<EndpointId, Seq> = HashMap::new();
        let mut place = 0;
        for row in rows {
            let what: &str = column(row, 0)?;
            let endpoint = || -> Result<EndpointId> { endpoint_of(column(row, 1)?) };
            let number: Option<i64> = column(row, 6)?;
            let at = time(number.unwrap_or(asked.until));
            match what {
                "job" => {
                    let nth = usize::try_from(number.unwrap_or_default()).unwrap_or_default();
                    let job = asked.watched.jobs.get(nth.wrapping_sub(1));
                    news.jobs.extend(job.cloned());
                }
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
        news.deadlines = found.deadline <= asked.now;
        news.deliveries = found.deliveries_open;
        self.knowledge.looked(asked.began_at, asked.now, found);
        for endpoint in &asked.watched.queues {
            let first = firsts.get(endpoint).copied().unwrap_or(place);
            let looked = (asked.began_at, self.lag);
            self.floors.looked(endpoint, looked, first);
        }
        if !grown.is_empty() && !self.knowledge.analyzing.swap(true, Relaxed) {
            // Nobody waits for it: it may have to wait for a vacuum. The next look begins no other.
            let (pool, knowledge) = (self.pool.clone(), Arc::clone(&self.knowledge));
            tokio::spawn(async move {
                analyze(pool, grown).await;
                knowledge.analyzing.store(false, Relaxed);
            });
        }
        Ok(news)
    }
}

/// What the rows of a look are called.
const NEWS: [&str; 7] = [
    "job", "queue", "place", "deadline", "forget", "open", "grown",
];

/// What a look asks for.
struct Asked<'a> {
    watched: &'a Watched,
    began_at: Instant,
    now: Timestamp,
    on: Vec<&'a str>,
    ids: Vec<Id>,
    queues: Vec<&'a str>,
    from: Vec<i64>,
    times: Times,
    until: i64,
}

impl Asked<'_> {
    fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![
            &self.on,
            &self.ids,
            &self.queues,
            &self.from,
            &self.times.deadline,
            &self.times.forget,
            &self.until,
        ]
    }
}

/// A table that was vacuumed while it was empty is planned for as empty until the next vacuum, a minute
/// later or more: its statements would read all of it. With statistics, all connections plan anew.
async fn analyze(pool: Pool, grown: Vec<String>) {
    for table in grown {
        let analyze = format!("ANALYZE lazyfox.{table}");
        let analyzed = connect::in_time(&pool, connect::ANSWER, async |client| {
            client.batch_execute(&analyze).await.map_err(failed)
        });
        // An account that may not do so has to wait for the database's own vacuum.
        let _ = analyzed.await;
    }
}
