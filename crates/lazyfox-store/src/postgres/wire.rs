//! What servers tell each other: one connection of each that listens and speaks, apart from the pool.
//!
//! What a group changed is told after its commit, and what gathers while one message is on its way goes
//! into the next: `NOTIFY` takes a lock that all commits with one wait for, so no commit of a group has
//! one. A message that gets lost, because its server dies, costs a second: see [`super::pulse`].

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lazyfox_core::id::{EndpointId, JobId};
use tokio::sync::Notify;
use tokio_postgres::AsyncMessage;

use super::connect::{Access, Failure, failed};
use super::floors::Floors;
use super::row::endpoint_of;
use crate::News;
use crate::engine::Seq;

const CHANNEL: &str = "lazyfox";
/// A message of the database has less than 8000 bytes.
const MESSAGE_BYTES: usize = 7_800;
/// Jobs that are told one by one. Beyond that, whoever waits looks.
const JOBS_MAX: usize = 20_000;
/// Pause before a lost connection is made anew, doubled up to the second.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(1_000);
/// How long an answer may take before the connection is given up.
const ANSWER: Duration = Duration::from_secs(10);

/// What gathers, in one direction. Deadlines and deliveries are not told: whoever makes one sees to it, and
/// when that server dies the look finds them.
#[derive(Default)]
pub(super) struct Heap {
    news: Mutex<Gathered>,
    some: Notify,
}

#[derive(Default)]
struct Gathered {
    jobs: BTreeMap<EndpointId, HashSet<JobId>>,
    job_count: usize,
    queues: BTreeMap<EndpointId, u64>,
    heads: BTreeMap<EndpointId, Seq>,
    settings: bool,
    missed: bool,
}

impl Heap {
    fn news(&self) -> MutexGuard<'_, Gathered> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to what is there: news, and the first places where jobs wait that did not.
    pub(super) fn add(&self, news: News, heads: Vec<(EndpointId, Seq)>) {
        let mut gathered = self.news();
        for (endpoint, seq) in heads {
            let first = gathered.heads.entry(endpoint).or_insert(seq);
            *first = (*first).min(seq);
        }
        for (endpoint, job) in news.jobs {
            gathered.job(endpoint, job);
        }
        for (endpoint, count) in news.queues {
            let so_far = gathered.queues.entry(endpoint).or_default();
            *so_far = so_far.saturating_add(count);
        }
        gathered.settings |= news.settings;
        gathered.missed |= news.missed;
        drop(gathered);
        self.some.notify_one();
    }

    /// Waits for something, and takes all of it.
    pub(super) async fn next(&self) -> (News, BTreeMap<EndpointId, Seq>) {
        loop {
            let some = self.some.notified();
            let mut taken = std::mem::take(&mut *self.news());
            let heads = std::mem::take(&mut taken.heads);
            if let Some(news) = taken.into_news() {
                return (news, heads);
            }
            some.await;
        }
    }
}

impl Gathered {
    fn job(&mut self, endpoint: EndpointId, job: JobId) {
        if self.missed {
            return;
        }
        if self.jobs.entry(endpoint).or_default().insert(job) {
            self.job_count += 1;
        }
        if self.job_count > JOBS_MAX {
            self.jobs.clear();
            self.missed = true;
        }
    }

    fn into_news(self) -> Option<News> {
        let some = !self.jobs.is_empty() || !self.queues.is_empty() || self.settings || self.missed;
        let jobs = self
            .jobs
            .into_iter()
            .flat_map(|(endpoint, jobs)| jobs.into_iter().map(move |job| (endpoint.clone(), job)));
        some.then(|| News {
            jobs: jobs.collect(),
            queues: self.queues.into_iter().collect(),
            settings: self.settings,
            missed: self.missed,
            ..News::default()
        })
    }
}

/// News as messages: the sender in front, then a line for each thing.
fn messages(server: &str, news: &News, heads: &BTreeMap<EndpointId, Seq>) -> Vec<String> {
    let mut lines = Vec::new();
    for (flag, line) in [(news.settings, "s"), (news.missed, "m")] {
        if flag {
            lines.push(line.to_owned());
        }
    }
    for (endpoint, count) in &news.queues {
        let first = heads.get(endpoint).copied().unwrap_or_default();
        lines.push(format!("q {endpoint} {count} {first}"));
    }
    let mut on: Option<&EndpointId> = None;
    let mut messages = Vec::new();
    let mut message = server.to_owned();
    for line in lines {
        if message.len() + line.len() + 1 > MESSAGE_BYTES {
            messages.push(std::mem::replace(&mut message, server.to_owned()));
        }
        let _ = write!(message, "\n{line}");
    }
    for (endpoint, job) in &news.jobs {
        let text = job.to_string();
        if message.len() + text.len() + endpoint.as_str().len() + 5 > MESSAGE_BYTES {
            messages.push(std::mem::replace(&mut message, server.to_owned()));
            on = None;
        }
        if on != Some(endpoint) {
            let _ = write!(message, "\nj {endpoint}");
            on = Some(endpoint);
        }
        let _ = write!(message, " {text}");
    }
    if message.len() > server.len() {
        messages.push(message);
    }
    messages
}

/// What a message says, unless it is one's own; where jobs wait is told to the floors. What is not
/// understood, of a later release perhaps, may be anything.
fn read(server: &str, message: &str, floors: &Floors) -> Option<News> {
    let mut lines = message.split('\n');
    if lines.next() == Some(server) {
        return None;
    }
    let mut news = News::default();
    for line in lines {
        let mut words = line.split(' ');
        let understood = match words.next() {
            Some("s") => {
                news.settings = true;
                Some(())
            }
            Some("q") => words.next().zip(words.next()).and_then(|(name, count)| {
                let queue = (endpoint_of(name).ok()?, count.parse().ok()?);
                floors.told(&queue.0, words.next()?.parse().ok()?);
                news.queues.push(queue);
                Some(())
            }),
            Some("j") => words.next().and_then(|name| {
                let endpoint = endpoint_of(name).ok()?;
                for word in words {
                    news.jobs.push((endpoint.clone(), word.parse().ok()?));
                }
                Some(())
            }),
            Some(_) | None => None,
        };
        news.missed |= understood.is_none();
    }
    if news.missed {
        floors.missed();
    }
    Some(news)
}

/// Both directions.
pub(super) struct Wire {
    /// What this server did.
    pub(super) told: Heap,
    /// What the others did.
    pub(super) heard: Heap,
    floors: Arc<Floors>,
}

impl Wire {
    pub(super) fn new(floors: Arc<Floors>) -> Self {
        Self {
            floors,
            told: Heap::default(),
            heard: Heap::default(),
        }
    }
}

/// Listens and speaks for ever, over one connection after the other.
pub(super) async fn run(wire: Arc<Wire>, access: Access, server: String) {
    let mut pause = PAUSE;
    let mut unsent = Vec::new();
    loop {
        let since = tokio::time::Instant::now();
        // What went wrong is told by those who need the database for more than this.
        let _ = over_one(&wire, &access, &server, &mut unsent).await;
        pause = if since.elapsed() > PAUSE_MAX {
            PAUSE
        } else {
            (pause * 2).min(PAUSE_MAX)
        };
        tokio::time::sleep(pause).await;
    }
}

async fn over_one(
    wire: &Wire,
    access: &Access,
    server: &str,
    unsent: &mut Vec<String>,
) -> Result<(), Failure> {
    let (client, mut connection) = access.connect().await?;
    let driven = async {
        loop {
            match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(message))) => {
                    if let Some(news) = read(server, message.payload(), &wire.floors) {
                        wire.heard.add(news, Vec::new());
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(failed(e)),
                None => return Err(Failure::NoConnection("it was closed".to_owned())),
            }
        }
    };
    let spoken = async {
        let listen = format!("LISTEN {CHANNEL}");
        client.batch_execute(&listen).await.map_err(failed)?;
        // Whatever was said before this was not heard.
        wire.floors.missed();
        let missed = News {
            missed: true,
            ..News::default()
        };
        wire.heard.add(missed, Vec::new());
        let notify = "SELECT pg_notify($1, message) FROM unnest($2::text[]) AS message";
        let notify = client.prepare(notify).await.map_err(failed)?;
        loop {
            if unsent.is_empty() {
                let (news, heads) = wire.told.next().await;
                *unsent = messages(server, &news, &heads);
            }
            let said = async { client.query(&notify, &[&CHANNEL, &*unsent]).await };
            match tokio::time::timeout(ANSWER, said).await {
                Ok(said) => said.map_err(failed)?,
                Err(_) => return Err(Failure::NoConnection("no answer".to_owned())),
            };
            unsent.clear();
        }
    };
    tokio::select! {
        ended = driven => ended,
        ended = spoken => ended,
    }
}

#[cfg(test)]
mod tests {
    use lazyfox_core::time::Timestamp;

    use super::*;

    #[test]
    fn what_is_told_is_heard_by_others_only() {
        let endpoint: EndpointId = "a".parse().unwrap();
        let jobs = (0..1_000_u64).map(|n| {
            let mut random = [0; 16];
            random[8..].copy_from_slice(&n.to_be_bytes());
            let id = JobId::new(Timestamp::from_ms(1), random, n % 2 == 0);
            (endpoint.clone(), id)
        });
        let told = News {
            jobs: jobs.collect(),
            queues: vec![(endpoint.clone(), 3)],
            settings: true,
            ..News::default()
        };
        let heads = BTreeMap::from([(endpoint.clone(), 7)]);
        let messages = messages("one", &told, &heads);
        let floors = Floors::default();
        let search = floors.begin(&endpoint);
        floors.found(&endpoint, &search, Some(100));
        assert!(messages.len() > 1);
        let mut heard = News::default();
        for message in &messages {
            assert!(message.len() < 8_000);
            assert_eq!(read("one", message, &floors), None);
            let news = read("other", message, &floors).unwrap();
            heard.jobs.extend(news.jobs);
            heard.queues.extend(news.queues);
            heard.settings |= news.settings;
            heard.missed |= news.missed;
        }
        assert_eq!(heard, told);
        assert_eq!(floors.begin(&endpoint).from, 7);
    }

    #[test]
    fn what_is_not_understood_may_be_anything() {
        let missed = |message: &str| read("one", message, &Floors::default()).unwrap().missed;
        assert!(missed("other\nx 1"));
        assert!(missed("other\nj a not-a-job"));
        assert!(missed("other\nq a 1"));
    }
}
