//! A receiver of webhooks on this machine that answers at once, and an address where nobody does.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, mem};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::http::{Start, read_id, receive};

/// More connections at once than any server should need; those beyond it wait to be accepted.
const CONNECTIONS_MAX: usize = 1024;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// How often a waiting measurement looks; times of arrival do not depend on it.
const LOOK: Duration = Duration::from_millis(10);

/// Slowest rate worth waiting for, in deliveries per second.
const RATE_MIN: usize = 50;

/// On top of that: the pause of the server after a try that failed, twice.
const GRACE: Duration = Duration::from_secs(30);

/// Answers every POST with 200; dropping it closes its connections.
pub(crate) struct Receiver {
    /// Where it is.
    pub(crate) url: String,
    log: Arc<Mutex<Log>>,
    /// Held to be dropped with it.
    _accepting: JoinSet<()>,
}

/// What has arrived.
#[derive(Default)]
pub(crate) struct Deliveries {
    /// When the first byte of the first POST for each job was read.
    pub(crate) first_bytes: HashMap<String, Instant>,
    /// POSTs for a job that had one already.
    pub(crate) repeats: u64,
}

#[derive(Default)]
struct Log {
    deliveries: Deliveries,
    /// The first request that could not be read.
    fault: Option<anyhow::Error>,
}

impl Receiver {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("the receiver cannot listen")?;
        let url = format!("http://{}/done", listener.local_addr()?);
        let log = Arc::default();
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&log)));
        Ok(Self {
            url,
            log,
            _accepting: accepting,
        })
    }

    /// Waits until each of this many jobs has had a delivery.
    pub(crate) async fn wait_for(&self, jobs: usize) -> Result<()> {
        let limit = Duration::from_secs((jobs / RATE_MIN) as u64) + GRACE;
        let all = async {
            loop {
                {
                    let mut log = lock(&self.log);
                    if let Some(fault) = log.fault.take() {
                        return Err(fault);
                    }
                    let arrived = log.deliveries.first_bytes.len();
                    ensure!(arrived <= jobs, "{arrived} jobs were delivered, not {jobs}");
                    if arrived == jobs {
                        return Ok(());
                    }
                }
                sleep(LOOK).await;
            }
        };
        match timeout(limit, all).await {
            Ok(result) => result,
            Err(_) => {
                let arrived = lock(&self.log).deliveries.first_bytes.len();
                bail!("{arrived} of {jobs} deliveries have arrived after {limit:?}");
            }
        }
    }

    /// Ends it and returns what has arrived.
    pub(crate) fn stop(self) -> Result<Deliveries> {
        let Log { deliveries, fault } = mem::take(&mut *lock(&self.log));
        match fault {
            Some(fault) => Err(fault),
            None => Ok(deliveries),
        }
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Accepts for as long as the receiver is there.
async fn accept(listener: TcpListener, log: Arc<Mutex<Log>>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(serve(stream, Arc::clone(&log)));
            }
            Err(error) => {
                let fault = anyhow::Error::new(error).context("the receiver cannot accept");
                lock(&log).fault.get_or_insert(fault);
                return;
            }
        }
    }
}

/// Serves one connection until the server ends it.
async fn serve(mut stream: TcpStream, log: Arc<Mutex<Log>>) {
    if let Err(error) = answer(&mut stream, &log).await {
        // A server that is killed breaks off; a request that was cut is no delivery.
        if !error.chain().any(|cause| cause.is::<io::Error>()) {
            lock(&log).fault.get_or_insert(error);
        }
    }
}

async fn answer(stream: &mut TcpStream, log: &Mutex<Log>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4096);
    while let Some(message) = receive(stream, &mut buffer).await? {
        ensure!(message.start == Start::Post, "a webhook that is no POST");
        let mut id = String::new();
        read_id(message.body, &mut id)?;
        lock(log).deliveries.add(id, message.began);
        stream.write_all(ANSWER).await?;
    }
    Ok(())
}

impl Deliveries {
    fn add(&mut self, id: String, began: Instant) {
        match self.first_bytes.entry(id) {
            Entry::Vacant(place) => {
                place.insert(began);
            }
            Entry::Occupied(_) => self.repeats += 1,
        }
    }
}

/// A port of 127.0.0.1 where every connection is refused: bound, so that nobody else gets it, and
/// never listened on.
pub(crate) struct DeadPort(TcpSocket);

impl DeadPort {
    pub(crate) fn bind() -> Result<Self> {
        let socket = TcpSocket::new_v4().context("cannot create a socket")?;
        socket
            .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .context("cannot bind a port")?;
        Ok(Self(socket))
    }

    pub(crate) fn url(&self) -> Result<String> {
        Ok(format!("http://{}/done", self.0.local_addr()?))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::http::Connection;

    fn address(url: &str) -> SocketAddr {
        let url = url.strip_prefix("http://").unwrap();
        url.strip_suffix("/done").unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn deliveries_are_answered_and_counted_once_for_each_job() {
        let receiver = Receiver::start().await.unwrap();
        let address = address(&receiver.url);
        let mut connections = Vec::new();
        for _ in 0..3 {
            connections.push(Connection::open(address).await.unwrap());
        }
        let before = Instant::now();
        let large = "x".repeat(3_000_000);
        for id in ["a", "b", "a"] {
            for http in &mut connections {
                let body = format!(r#"{{"delayTime":1,"id":"{id}","output":"{large}"}}"#);
                http.post(format_args!("/done"), body.as_bytes());
                assert_eq!(http.expect_ok().await.unwrap(), b"");
            }
        }
        receiver.wait_for(2).await.unwrap();
        let deliveries = receiver.stop().unwrap();
        assert_eq!(deliveries.repeats, 7);
        assert!(deliveries.first_bytes["a"] >= before);
        assert!(deliveries.first_bytes["b"] > deliveries.first_bytes["a"]);
    }

    #[tokio::test]
    async fn what_breaks_off_is_no_delivery_and_what_is_no_webhook_is_a_fault() {
        let receiver = Receiver::start().await.unwrap();
        let mut stream = TcpStream::connect(address(&receiver.url)).await.unwrap();
        let half = b"POST /done HTTP/1.1\r\ncontent-length: 100\r\n\r\n{\"id\":\"a\"";
        stream.write_all(half).await.unwrap();
        stream.shutdown().await.unwrap();
        // It closes its side when it has seen that.
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        receiver.wait_for(0).await.unwrap();

        let mut http = Connection::open(address(&receiver.url)).await.unwrap();
        http.post(format_args!("/done"), b"{}");
        assert!(http.exchange().await.is_err());
        assert!(receiver.wait_for(0).await.is_err());
    }

    #[tokio::test]
    async fn nobody_answers_at_a_dead_port() {
        let dead = DeadPort::bind().unwrap();
        let address = address(&dead.url().unwrap());
        assert!(TcpStream::connect(address).await.is_err());
    }
}
