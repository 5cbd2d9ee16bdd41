//! The hosts that a URL names, asked one after the other, each for a while.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool_postgres::Connect;
use tokio::task::JoinHandle;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::connect::{CONNECT, Connection, HOST};

/// In the order of the URL, and the one that answered last.
pub(super) struct Hosts {
    each: Vec<Config>,
    tls: MakeRustlsConnect,
    last: AtomicUsize,
}

impl Hosts {
    pub(super) fn new(all: &Config, tls: MakeRustlsConnect) -> Self {
        let count = all.get_hosts().len().max(all.get_hostaddrs().len());
        Self {
            each: (0..count).map(|at| only(all, at)).collect(),
            tls,
            last: AtomicUsize::new(0),
        }
    }

    /// How long to wait until all have been asked, and a little more.
    pub(super) fn patience(&self) -> Duration {
        let count = u32::try_from(self.each.len()).unwrap_or(u32::MAX);
        let all = self.limit().saturating_mul(count);
        all.saturating_add(Duration::from_millis(500))
    }

    /// Where there is no other host, there is no hurry.
    fn limit(&self) -> Duration {
        match self.each.len() {
            0 | 1 => CONNECT,
            _ => HOST,
        }
    }

    /// A session with the one that answered last, or else the next one that does and is as it is wanted.
    ///
    /// Never ends where all are silent.
    pub(super) async fn first_that_answers(&self) -> Result<(Client, Connection), Error> {
        let last = self.last.load(Ordering::Relaxed);
        let mut error = None;
        for at in (0..self.each.len()).map(|n| (last + n) % self.each.len()) {
            let Some(config) = self.each.get(at) else {
                break;
            };
            match tokio::time::timeout(self.limit(), config.connect(self.tls.clone())).await {
                Ok(Ok(connected)) => {
                    self.last.store(at, Ordering::Relaxed);
                    return Ok(connected);
                }
                Ok(Err(why)) => error = Some(why),
                Err(_) => {}
            }
        }
        match error {
            Some(error) => Err(error),
            // The library has no error for that; who waits has a limit.
            None => pending().await,
        }
    }
}

/// Everything as it is, with one host.
fn only(all: &Config, at: usize) -> Config {
    let mut one = Config::new();
    if let Some(user) = all.get_user() {
        one.user(user);
    }
    if let Some(password) = all.get_password() {
        one.password(password);
    }
    if let Some(database) = all.get_dbname() {
        one.dbname(database);
    }
    if let Some(options) = all.get_options() {
        one.options(options);
    }
    if let Some(name) = all.get_application_name() {
        one.application_name(name);
    }
    match all.get_hosts().get(at) {
        Some(Host::Tcp(name)) => drop(one.host(name)),
        #[cfg(unix)]
        Some(Host::Unix(path)) => drop(one.host_path(path)),
        None => {}
    }
    if let Some(address) = all.get_hostaddrs().get(at) {
        one.hostaddr(*address);
    }
    let ports = all.get_ports();
    if let Some(port) = ports.get(at).or(ports.first()) {
        one.port(*port);
    }
    one.ssl_mode(all.get_ssl_mode())
        .ssl_negotiation(all.get_ssl_negotiation())
        .channel_binding(all.get_channel_binding())
        .target_session_attrs(all.get_target_session_attrs())
        .connect_timeout(CONNECT)
        .keepalives(all.get_keepalives())
        .keepalives_idle(all.get_keepalives_idle());
    if let Some(interval) = all.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = all.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    if let Some(timeout) = all.get_tcp_user_timeout() {
        one.tcp_user_timeout(*timeout);
    }
    one
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// For the pool.
pub(super) struct OneOf(pub(super) Arc<Hosts>);

impl Connect for OneOf {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        Box::pin(async {
            let (client, connection) = self.0.first_that_answers().await?;
            let driven = tokio::spawn(async {
                // Whoever uses the connection gets to know why it ended.
                let _ = connection.await;
            });
            Ok((client, driven))
        })
    }
}
