//! Lanes: connections that are a client and a worker in one, and live jobs as fast as they can.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::http::{Connection, read_id};
use crate::job::{ENDPOINT, done, take};
use crate::meter::{Meter, Postmaster};
use crate::report::{Summary, Times};
use crate::server::{Server, Site};

/// The calls of one life, in order.
pub(crate) const CALLS: [&str; 4] = ["run", "take", "done", "status"];

const WARM_UP: Duration = Duration::from_secs(1);

/// On top of the measured seconds: lives under way are finished, and a stuck server is noticed.
const GRACE: Duration = Duration::from_secs(60);

/// Slowest rate worth waiting for, in lives per second.
const RATE_MIN: u64 = 100;

/// One store with one number of connections, in one round.
pub(crate) struct Round {
    pub(crate) per_second: f64,
    pub(crate) calls: [Summary; CALLS.len()],
    pub(crate) server_cpu_us: f64,
    pub(crate) postgres_cpu_us: f64,
    pub(crate) own_cpu_us: f64,
    /// The measured time, which begins after the warm-up.
    pub(crate) time: Range<Instant>,
    /// Jobs that have ended by then, those of the warm-up with them.
    pub(crate) ended: usize,
}

/// How long lanes go on.
#[derive(Clone, Copy)]
pub(crate) enum Extent {
    For(Duration),
    Jobs(u64),
}

/// What is left to do, for tasks that share it.
pub(crate) enum Left {
    Until(Instant),
    Jobs(AtomicU64),
}

/// Measures each of these, such as stores, so many times. They take turns, so that a busy neighbour
/// disturbs all of them alike; what comes back has their order.
pub(crate) async fn in_turn<S, T>(
    subjects: &[S],
    rounds: u16,
    mut round: impl AsyncFnMut(&S, u16) -> Result<T>,
) -> Result<Vec<Vec<T>>> {
    let mut figures: Vec<Vec<T>> = subjects.iter().map(|_| Vec::new()).collect();
    for number in 1..=rounds {
        for (subject, figures) in subjects.iter().zip(&mut figures) {
            figures.push(round(subject, number).await?);
        }
    }
    Ok(figures)
}

/// Lives jobs with this body on a fresh server, which is killed at the end.
pub(crate) async fn round(
    site: &Site,
    store: &str,
    connections: u16,
    length: Duration,
    body: &Arc<[u8]>,
) -> Result<Round> {
    let servers = [site.start_fresh(store, &[ENDPOINT.to_owned()]).await?];
    let round = round_on(&servers, None, connections, length, body).await?;
    Server::kill_all(servers.into()).await?;
    Ok(round)
}

/// The same on servers that are there, over one PostgreSQL if there are several.
pub(crate) async fn round_on(
    servers: &[Server],
    postmaster: Option<Postmaster>,
    connections: u16,
    length: Duration,
    body: &Arc<[u8]>,
) -> Result<Round> {
    let lanes = open(servers, connections).await?;
    let mut lanes = warm_up(lanes, body).await?;
    let mut ended = 0;
    for lane in &mut lanes {
        ended += lane.lives();
        lane.times.iter_mut().for_each(Times::clear);
    }
    let meter = Meter::start_over(servers, postmaster)?;
    let lanes = drive(lanes, body, Extent::For(length)).await?;
    let spent = meter.read()?;

    let mut times: [Times; CALLS.len()] = std::array::from_fn(|_| Times::default());
    for mut lane in lanes {
        for (all, own) in times.iter_mut().zip(&mut lane.times) {
            all.append(own);
        }
    }
    let measured = times[0].count();
    let lives = measured as f64;
    Ok(Round {
        per_second: lives / spent.seconds(),
        calls: times.map(Times::summary),
        server_cpu_us: spent.server_cpu_s * 1e6 / lives,
        postgres_cpu_us: spent.postgres_cpu_s * 1e6 / lives,
        own_cpu_us: spent.own_cpu_s * 1e6 / lives,
        time: spent.time,
        ended: ended + measured,
    })
}

/// Opens the connections: each lane has one to every server, and uses one of them at a time.
pub(crate) async fn open(servers: &[Server], lanes: u16) -> Result<Vec<Lane>> {
    let mut opened = Vec::new();
    for number in 0..lanes {
        let mut connections = Vec::new();
        for server in servers {
            connections.push(Connection::open(server.address).await?);
        }
        opened.push(Lane {
            connections,
            first: usize::from(number),
            worker: format!("w{number}"),
            submitted: String::new(),
            taken: String::new(),
            times: std::array::from_fn(|_| Times::default()),
            counter: None,
        });
    }
    Ok(opened)
}

/// Lets all lanes live jobs for a moment, because the first ones are slower.
pub(crate) async fn warm_up(lanes: Vec<Lane>, body: &Arc<[u8]>) -> Result<Vec<Lane>> {
    drive(lanes, body, Extent::For(WARM_UP)).await
}

/// Lets all lanes live jobs; no job is under way when this returns.
pub(crate) async fn drive(lanes: Vec<Lane>, body: &Arc<[u8]>, extent: Extent) -> Result<Vec<Lane>> {
    let (left, limit) = match extent {
        Extent::For(length) => (Left::Until(Instant::now() + length), length),
        Extent::Jobs(jobs) => (
            Left::Jobs(AtomicU64::new(jobs)),
            Duration::from_secs(jobs / RATE_MIN),
        ),
    };
    let left = Arc::new(left);
    let mut tasks = JoinSet::new();
    for mut lane in lanes {
        let (left, body) = (Arc::clone(&left), Arc::clone(body));
        tasks.spawn(async move {
            while left.claim() {
                lane.live(&body).await?;
            }
            anyhow::Ok(lane)
        });
    }
    let all = async {
        let mut lanes = Vec::new();
        while let Some(lane) = tasks.join_next().await {
            lanes.push(lane.context("a lane panicked")??);
        }
        Ok(lanes)
    };
    timeout(limit + GRACE, all)
        .await
        .context("the server does not answer any more")?
}

impl Left {
    /// Whether there is one more to do; the caller does it.
    pub(crate) fn claim(&self) -> bool {
        match self {
            Self::Until(end) => Instant::now() < *end,
            Self::Jobs(left) => left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                })
                .is_ok(),
        }
    }
}

/// A client and a worker in one. Where there are several servers, the calls of a life go to one
/// after the other, and of two servers each is the first for half of the lanes.
pub(crate) struct Lane {
    connections: Vec<Connection>,
    first: usize,
    worker: String,
    submitted: String,
    taken: String,
    times: [Times; CALLS.len()],
    counter: Option<Arc<AtomicU64>>,
}

impl Lane {
    /// Counts lives here from now on, instead of keeping the times of all calls.
    pub(crate) fn count_in(&mut self, counter: &Arc<AtomicU64>) {
        self.counter = Some(Arc::clone(counter));
    }

    /// Jobs lived so far.
    fn lives(&self) -> usize {
        self.times[0].count()
    }

    /// One job from submit to status. Which job is taken is the server's choice, but there is
    /// always one: every lane has put one in before it takes one out.
    async fn live(&mut self, body: &[u8]) -> Result<()> {
        let Self {
            connections,
            first,
            worker,
            submitted,
            taken,
            times,
            counter,
        } = self;
        let servers = connections.len();
        let server = |call: usize| (*first + call) % servers;
        let mut clock = Instant::now();
        let mut lap = |call: usize| {
            let now = Instant::now();
            times[call].add(now - clock);
            clock = now;
        };
        let http = &mut connections[server(0)];
        http.post(format_args!("/v2/{ENDPOINT}/run"), body);
        read_id(http.expect_ok().await?, submitted)?;
        lap(0);
        take(&mut connections[server(1)], worker, taken).await?;
        lap(1);
        done(&mut connections[server(2)], worker, taken).await?;
        lap(2);
        let http = &mut connections[server(3)];
        http.get(format_args!("/v2/{ENDPOINT}/status/{submitted}"));
        http.expect_ok().await?;
        lap(3);
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
            times.iter_mut().for_each(Times::clear);
        }
        Ok(())
    }
}
