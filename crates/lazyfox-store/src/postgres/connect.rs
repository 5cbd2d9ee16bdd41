//! Connections to the database, and what its errors mean.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Client, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod,
    Runtime,
};
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::hosts::{Hosts, OneOf};
use crate::StoreError;

/// How long a caller waits for a free connection, and a connection for the database.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// How long one of several hosts may take until a session is there: TCP, TLS and login. One that accepts
/// connections and says nothing, or none of whose packets arrive, must not keep anybody from the next.
pub(super) const HOST: Duration = Duration::from_secs(2);
/// A statement that takes longer is ended by the database: its locks are in everybody's way.
const STATEMENT_MS: u32 = 15_000;
/// A transaction whose server fell silent is ended by the database after so long.
const IDLE_MS: u32 = 10_000;
/// How long an answer may take before the connection is given up.
pub(super) const ANSWER: Duration = Duration::from_secs(20);

/// Why a group did not happen.
#[derive(Debug)]
pub(super) enum Failure {
    /// The database said so, or fell silent.
    Database(tokio_postgres::Error),
    /// There is no connection.
    NoConnection(String),
    /// An operation failed for a reason of its own.
    Operation(StoreError),
    /// A commit was sent, and no answer to it came; nor did a later try get one.
    Unknown(String),
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Begin anew: somebody else was in the way.
    Again,
    /// The connection is lost. Whether a commit that was sent happened is not known.
    Reconnect,
    /// Nothing.
    GiveUp,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Operation(error)
    }
}

pub(super) fn failed(error: tokio_postgres::Error) -> Failure {
    Failure::Database(error)
}

impl Failure {
    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Self::Database(error) => match error.code() {
                Some(code) if is_clash(code) => Remedy::Again,
                Some(code) if is_away(code) => Remedy::Reconnect,
                Some(_) => Remedy::GiveUp,
                None => Remedy::Reconnect,
            },
            Self::NoConnection(_) => Remedy::Reconnect,
            Self::Operation(_) | Self::Unknown(_) => Remedy::GiveUp,
        }
    }

    /// The same where a commit may have happened.
    pub(super) fn into_unknown(self) -> Self {
        match self {
            Self::Database(error) => Self::Unknown(explained(&error)),
            Self::NoConnection(why) => Self::Unknown(why),
            Self::Operation(_) | Self::Unknown(_) => self,
        }
    }

    /// Whether one operation is to blame: without it the others of its group would have happened. Else to try
    /// each would only make them wait.
    pub(super) fn is_one_operations(&self) -> bool {
        match self {
            Self::Operation(_) => true,
            Self::NoConnection(_) | Self::Unknown(_) => false,
            // Data that the tables refuse.
            Self::Database(error) => error
                .code()
                .and_then(|code| code.code().get(..2))
                .is_some_and(|class| matches!(class, "22" | "23")),
        }
    }

    /// The same for a caller.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Operation(error) => error,
            Self::NoConnection(why) => StoreError::Unavailable(why),
            Self::Unknown(why) => StoreError::Unknown(why),
            Self::Database(error) => StoreError::Unavailable(explained(&error)),
        }
    }
}

/// Two transactions were in each other's way. A key that is there already is of a submission that committed
/// meanwhile: looked up first, it will be found.
fn is_clash(code: &SqlState) -> bool {
    [
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::UNIQUE_VIOLATION,
        SqlState::LOCK_NOT_AVAILABLE,
    ]
    .contains(code)
}

/// The server process on the other side ends, or does not serve. One that only reads is a standby, or a
/// primary that became one: whoever answers at the address next may write.
fn is_away(code: &SqlState) -> bool {
    if [
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ]
    .contains(code)
    {
        return true;
    }
    let class = code.code().get(..2);
    matches!(class, Some("08" | "57" | "53"))
        && *code != SqlState::QUERY_CANCELED
        && *code != SqlState::DISK_FULL
}

/// The words of the database with its code, without what was in the statement: values are never logged.
pub(super) fn explained(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!(
            "the database says: {} ({})",
            said.message(),
            said.code().code()
        ),
        None => {
            let mut text = format!("the database: {error}");
            let mut source = std::error::Error::source(error);
            while let Some(inner) = source {
                text = format!("{text}: {inner}");
                source = inner.source();
            }
            text
        }
    }
}

type Stream = <MakeRustlsConnect as MakeTlsConnect<tokio_postgres::Socket>>::Stream;

/// What drives a connection.
pub(super) type Connection = tokio_postgres::Connection<tokio_postgres::Socket, Stream>;

/// Where the database is, and how to get there.
#[derive(Clone)]
pub struct Access {
    /// What was asked for, with the password.
    config: tokio_postgres::Config,
    hosts: Arc<Hosts>,
    /// How many connections.
    connections: usize,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A configuration shows no password.
        f.debug_struct("Access")
            .field("config", &self.config)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

/// How the other side of an encrypted connection is known.
#[derive(Clone, Debug)]
pub enum Trust {
    /// By these certificates.
    Roots(Vec<rustls::pki_types::CertificateDer<'static>>),
    /// By those of this machine.
    System,
}

impl Access {
    /// Reads a URL such as `postgres://user@host/database?sslmode=require`. Of connections there are to be
    /// two at least.
    ///
    /// # Errors
    /// Says what is wrong with it, without its password.
    pub fn parse(
        url: &str,
        password: Option<String>,
        trust: Trust,
        connections: usize,
    ) -> Result<Self, StoreError> {
        let open = |why: String| StoreError::Open(format!("the database URL {why}"));
        let mut config: tokio_postgres::Config = url
            .parse()
            .map_err(|e: tokio_postgres::Error| open(format!("cannot be read: {}", reason(&e))))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(open("names no host".to_owned()));
        }
        if let Some(password) = password {
            config.password(password);
        }
        if config.get_application_name().is_none() {
            config.application_name("lazyfox");
        }
        config
            .connect_timeout(CONNECT)
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(ANSWER);
        let tls = MakeRustlsConnect::new(tls_config(trust)?);
        Ok(Self {
            hosts: Arc::new(Hosts::new(&config, tls)),
            config,
            connections,
        })
    }

    /// Where that is, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        let ports = self.config.get_ports();
        let hosts = self.config.get_hosts().iter().enumerate();
        let hosts = hosts.map(|(at, host)| match (host, ports.get(at).or(ports.first())) {
            (Host::Tcp(name), Some(port)) => format!("{name}:{port}"),
            (Host::Tcp(name), None) => name.clone(),
            #[cfg(unix)]
            (Host::Unix(path), _) => path.display().to_string(),
        });
        let hosts: Vec<String> = hosts.collect();
        let database = self.config.get_dbname().unwrap_or("its default database");
        format!("{} ({database})", hosts.join(", "))
    }

    /// A connection of its own, beside the pool.
    pub(super) async fn connect(&self) -> Result<(tokio_postgres::Client, Connection), Failure> {
        let connected =
            tokio::time::timeout(self.hosts.patience(), self.hosts.first_that_answers());
        match connected.await {
            Ok(connected) => connected.map_err(failed),
            Err(_) => Err(Failure::NoConnection("no host answers".to_owned())),
        }
    }

    pub(super) fn pool(&self) -> Result<Pool, StoreError> {
        let manager = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let patience = self.hosts.patience();
        let hosts = OneOf(Arc::clone(&self.hosts));
        let manager = Manager::from_connect(self.config.clone(), hosts, manager);
        Pool::builder(manager)
            .max_size(self.connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT))
            .create_timeout(Some(patience))
            .recycle_timeout(Some(CONNECT))
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(async move {
                    client
                        .batch_execute(&settings())
                        .await
                        .map_err(HookError::Backend)
                })
            }))
            .build()
            .map_err(|e| StoreError::Open(format!("no pool of connections: {e}")))
    }
}

/// Plans are made once for each connection, some of them while the tables are empty, and must be good when
/// there are a million rows: every statement goes by an index, whatever the table looks like at the time.
fn settings() -> String {
    format!(
        "SET statement_timeout = {STATEMENT_MS}; \
         SET idle_in_transaction_session_timeout = {IDLE_MS}; \
         SET synchronous_commit = on; SET jit = off; SET plan_cache_mode = force_generic_plan; \
         SET enable_seqscan = off; SET enable_bitmapscan = off; \
         SET enable_hashjoin = off; SET enable_mergejoin = off"
    )
}

fn reason(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn tls_config(trust: Trust) -> Result<rustls::ClientConfig, StoreError> {
    let mut roots = rustls::RootCertStore::empty();
    match trust {
        Trust::Roots(certificates) => {
            for certificate in certificates {
                roots.add(certificate).map_err(|e| {
                    StoreError::Open(format!("a root certificate for the database: {e}"))
                })?;
            }
        }
        // Some of a machine's may be unreadable, or none be there: that matters where one is needed.
        Trust::System => {
            let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| StoreError::Open(format!("no encryption for the database: {e}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A free connection.
pub(super) async fn client(pool: &Pool) -> Result<Client, Failure> {
    pool.get().await.map_err(|e| match e {
        PoolError::Backend(e) => Failure::Database(e),
        PoolError::PostCreateHook(HookError::Backend(e)) => Failure::Database(e),
        PoolError::Timeout(_) => Failure::NoConnection(
            "no connection to the database within 5 s: all are busy, or it does not answer"
                .to_owned(),
        ),
        other => Failure::NoConnection(format!("no connection to the database: {other}")),
    })
}

/// How often each of two connections is asked whose session it is.
const SESSIONS_ASKED: usize = 4;

/// Whether a connection is a session of its own. Where something in between lends one session to many
/// connections, as PgBouncer does in the modes `transaction` and `statement`, none of them keeps its settings
/// and statements, and most of what a server wants fails.
///
/// It is found out by who answers: two connections are then one session, or one is two.
pub(super) async fn sessions_are_lent(pool: &Pool) -> Result<bool, Failure> {
    let pair = [client(pool).await?, client(pool).await?];
    let mut sessions = [BTreeSet::new(), BTreeSet::new()];
    for _ in 0..SESSIONS_ASKED {
        for (client, its) in pair.iter().zip(&mut sessions) {
            its.insert(said(client, "SELECT pg_backend_pid()").await?);
        }
    }
    let [one, other] = &sessions;
    Ok(one.len() > 1 || other.len() > 1 || one == other)
}

/// The one word that answers this, asked without a prepared statement.
pub(super) async fn said(client: &Client, sql: &str) -> Result<String, Failure> {
    let answer = client.simple_query(sql).await.map_err(failed)?;
    let said = answer.iter().find_map(|it| match it {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    let none = || StoreError::Corrupt(format!("the database does not answer {sql}"));
    Ok(said.ok_or_else(none)?)
}

/// One try of a read.
pub(super) type Asking<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// How long what fails is tried anew where the database is away.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// Pause before that.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// Asks until there is an answer, or none is to be had. For what may be asked twice.
pub(super) async fn again<'a, T>(
    pool: &Pool,
    ask: impl Fn() -> Asking<'a, T>,
) -> Result<T, Failure> {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answer = tokio::time::timeout(ANSWER, ask()).await;
        let failure = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(failure)) => failure,
            Err(_) => {
                // What falls silent may stay so for as long as something in between keeps it open. One of
                // those that are free now is it, and the others go the same way: new ones are made.
                pool.retain(|_, _| false);
                Failure::NoConnection("the database did not answer within 20 s".to_owned())
            }
        };
        if failure.remedy() == Remedy::GiveUp || tokio::time::Instant::now() >= until {
            return Err(failure);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks once. A connection that does not answer in time may never do so, and would be given to the next one
/// who asks.
pub(super) async fn in_time<T>(
    pool: &Pool,
    patience: Duration,
    ask: impl AsyncFnOnce(&mut Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut client = client(pool).await?;
    match tokio::time::timeout(patience, ask(&mut client)).await {
        Ok(answer) => answer,
        Err(_) => {
            drop(Object::take(client));
            let why = "the database did not answer in time".to_owned();
            Err(Failure::NoConnection(why))
        }
    }
}

/// The same as [`again`] for a caller.
pub(super) async fn answer<'a, T>(
    pool: &Pool,
    ask: impl Fn() -> Asking<'a, T>,
) -> Result<T, StoreError> {
    again(pool, ask).await.map_err(Failure::into_error)
}

/// The rows of a statement, which is prepared once for each connection.
pub(super) async fn rows(
    client: &Client,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, Failure> {
    let statement = client.prepare_cached(sql).await.map_err(failed)?;
    client.query(&statement, params).await.map_err(failed)
}

/// The row of a statement that gives one at the most.
pub(super) async fn row(
    client: &Client,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Option<Row>, Failure> {
    let rows = rows(client, sql, params).await?;
    Ok(rows.into_iter().next())
}
