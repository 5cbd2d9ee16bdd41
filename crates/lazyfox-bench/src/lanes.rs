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
use crate::report::{Summary, Times};
use crate::server::{Meter, Server, Site};

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

/// Measures each store so many times. The stores take turns, so that a busy neighbour disturbs all
/// of them alike; what comes back has their order.
pub(crate) async fn in_turn<T>(
    stores: &[String],
    rounds: u16,
    mut round: impl AsyncFnMut(&str, u16) -> Result<T>,
) -> Result<Vec<Vec<T>>> {
    let mut figures: Vec<Vec<T>> = stores.iter().map(|_| Vec::new()).collect();
    for number in 1..=rounds {
        for (store, figures) in stores.iter().zip(&mut figures) {
            figures.push(round(store, number).await?);
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
    let server = site.start_fresh(store, &[ENDPOINT.to_owned()]).await?;
    let lanes = open(&server, connections).await?;
    let mut lanes = warm_up(lanes, body).await?;
    let mut ended = 0;
    for lane in &mut lanes {
        ended += lane.lives();
        lane.times.iter_mut().for_each(Times::clear);
    }
    let meter = Meter::start(&server)?;
    let lanes = drive(lanes, body, Extent::For(length)).await?;
    let spent = meter.read()?;
    server.kill().await?;

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
        own_cpu_us: spent.own_cpu_s * 1e6 / lives,
        time: spent.time,
        ended: ended + measured,
    })
}

/// Opens the connections.
pub(crate) async fn open(server: &Server, connections: u16) -> Result<Vec<Lane>> {
    let mut lanes = Vec::new();
    for number in 0..connections {
        lanes.push(Lane {
            http: Connection::open(server.address).await?,
            worker: format!("w{number}"),
            submitted: String::new(),
            taken: String::new(),
            times: std::array::from_fn(|_| Times::default()),
        });
    }
    Ok(lanes)
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

/// One connection: a client and a worker in one.
pub(crate) struct Lane {
    http: Connection,
    worker: String,
    submitted: String,
    taken: String,
    times: [Times; CALLS.len()],
}

impl Lane {
    /// Jobs lived so far.
    fn lives(&self) -> usize {
        self.times[0].count()
    }

    /// One job from submit to status. Which job is taken is the server's choice, but there is
    /// always one: every lane has put one in before it takes one out.
    async fn live(&mut self, body: &[u8]) -> Result<()> {
        let Self {
            http,
            worker,
            submitted,
            taken,
            times,
        } = self;
        let mut clock = Instant::now();
        let mut lap = |call: usize| {
            let now = Instant::now();
            times[call].add(now - clock);
            clock = now;
        };
        http.post(format_args!("/v2/{ENDPOINT}/run"), body);
        read_id(http.expect_ok().await?, submitted)?;
        lap(0);
        take(http, worker, taken).await?;
        lap(1);
        done(http, worker, taken).await?;
        lap(2);
        http.get(format_args!("/v2/{ENDPOINT}/status/{submitted}"));
        http.expect_ok().await?;
        lap(3);
        Ok(())
    }
}
