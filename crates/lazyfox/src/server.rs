//! A server from its start to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lazyfox_core::id::EndpointId;
use lazyfox_core::job::{State, Status};
use lazyfox_core::limits;
use lazyfox_core::time::Timestamp;
use lazyfox_store::memory::MemoryStore;
use lazyfox_store::postgres::PostgresStore;
use lazyfox_store::sqlite::SqliteStore;
use lazyfox_store::{Query, Store};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::api;
use crate::app::App;
use crate::charge;
use crate::clock::Clock;
use crate::config::{Auth, Config, StoreKind};
use crate::fleet::Enlisted;
use crate::heard::Heard;
use crate::logs::{self, Logs};
use crate::name::Kept;
use crate::passes;
use crate::providers::docker::Places;
use crate::providers::process::Hold;
use crate::providers::{Found, Output, Provider, Providers, Reports, Stop};
use crate::release;
use crate::secrets::ServerKey;
use crate::webhooks::Sender;
use crate::webhooks::lookup::SystemLookup;

/// How long a connection may take to send a request's head, which is also how long it may be idle.
/// Workers that find their idle connection closed at the moment of a post lose the result, and they drop
/// idle connections themselves after 15 s; so this is far longer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);
/// How long connections may take to send what they have when the server ends.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long webhooks that are under way may take to be answered when the server ends.
const LAST_TRIES: Duration = Duration::from_secs(2);
/// How long idle workers may take to exit by themselves when the server is stopped.
const LAST_EXITS: Duration = Duration::from_secs(3);
/// How long killed workers may take to be gone.
const LAST_ENDS: Duration = Duration::from_secs(5);
/// Jobs of workers of an earlier run that are read at once.
const RESUMED_AT_ONCE: usize = 500;
/// Pause after the system refused a connection, typically because there are too many.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long the database may take to hear that the server ends.
const LAST_BEAT: Duration = Duration::from_secs(2);

/// A running server.
pub struct Server {
    /// What its parts share.
    pub app: Arc<App>,
    address: SocketAddr,
    provider: Arc<dyn Provider>,
    passes: JoinSet<()>,
    accepting: tokio::task::JoinHandle<()>,
    ending: watch::Sender<bool>,
}

impl Server {
    /// Opens the store, finds the workers of an earlier run, and serves.
    ///
    /// # Errors
    /// When the store cannot be opened, or the address is not fit for the configuration.
    pub async fn start(
        config: Config,
        listener: TcpListener,
        clock: Clock,
        output: Arc<dyn Output>,
    ) -> Result<Self> {
        let address = listener
            .local_addr()
            .context("cannot tell the address to listen on")?;
        config.check_address(address)?;
        let now = clock.now();
        // At the same time, because a large store takes its time to open, and the guard of an earlier
        // server waits for somebody who takes charge of its workers.
        let workers_dir = config.workers_dir()?;
        let name = crate::name::new();
        let ((store, key), hold) =
            tokio::try_join!(open_store(&config, now, &name), Hold::take(&workers_dir))?;
        let own_url = reachable(address);
        let logs = Logs::open(&config.data.join("logs"), config.logs_bytes, clock.clone())?;
        let logs = Arc::new(logs);
        let app = Arc::new(App {
            logs: Arc::clone(&logs),
            ..App::new(config, store, key, clock.clone(), &own_url)
        });
        let (ends, ended) = tokio::sync::mpsc::unbounded_channel();
        let (late, found_late) = tokio::sync::mpsc::unbounded_channel();
        let heard = Heard {
            app: Arc::downgrade(&app),
            on: Arc::new(logs::Kept { logs, on: output }),
        };
        let reports = Reports {
            output: Arc::new(heard),
            ended: ends,
            late,
        };
        let provider = open_providers(&app, hold, reports, clock).await?;
        app.take_up_changes().await?;
        come_in(&app, &name).await?;
        for found in provider.list() {
            take_over(&app, &*provider, found).await;
        }
        resume(&app).await?;
        for endpoint in app.endpoints.all().keys() {
            let (store, key) = (&*app.store, &app.key);
            app.signing.make_first(store, key, endpoint, now).await?;
        }
        let rules = app.config.webhook_rules.clone();
        let sender = Sender::new(rules, Arc::new(SystemLookup::default()))?;
        let mut passes = passes::start(&app, &provider, ended, sender);
        passes.spawn(take_over_late(
            Arc::clone(&app),
            Arc::clone(&provider),
            found_late,
        ));
        let ending = watch::Sender::new(false);
        let router = api::router(Arc::clone(&app));
        let accepting = tokio::spawn(accept(listener, router, ending.subscribe()));
        Ok(Self {
            app,
            address,
            provider,
            passes,
            accepting,
            ending,
        })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether anybody holds a job that a worker of this server runs.
    async fn works(&self) -> bool {
        let managed = self.app.fleet.all_managed();
        let surveys = self.app.store.survey().await.unwrap_or_default();
        let mut holders = surveys.iter().flat_map(|survey| &survey.holders);
        holders.any(|(worker, _)| managed.contains(worker))
    }

    /// Stops: no new jobs and no new waits, callers that wait get the present state, running jobs may
    /// finish until `patience` is over, then workers are ended and their jobs wait again.
    pub async fn stop(mut self, patience: impl Future<Output = ()>) {
        self.app.closing.send_replace(true);
        self.app.listeners.close();
        self.app.fleet.retire_all("the server is being stopped");
        self.app.wakes.scale.notify_one();
        self.app.wakes.charge.notify_one();
        tokio::select! {
            () = self.until_quiet() => {
                // Asked to stop, most are gone in a moment, and their cleanup has run.
                let _ = tokio::time::timeout(LAST_EXITS, self.until_gone()).await;
            }
            () = patience => tracing::info!("ending workers that still run"),
        }
        self.end_workers().await;
        // Who follows hears of the last end, and then of the end of it all.
        let _ = tokio::time::timeout(LAST_WORDS, self.until_ends_noted()).await;
        self.app.logs.close().await;
        self.ending.send_replace(true);
        // What is under way and not noted is sent again by the next server.
        self.app.traffic().close();
        let _ = tokio::join!(
            tokio::time::timeout(LAST_WORDS * 2, &mut self.accepting),
            tokio::time::timeout(LAST_TRIES, until_delivered(&self.app)),
        );
        self.passes.shutdown().await;
        if let Ok(Err(e)) = tokio::time::timeout(LAST_BEAT, charge::leave(&self.app)).await {
            tracing::warn!(error = %e, "other servers find out by themselves that this one is gone");
        }
        // The store's last reference goes with the app: its thread commits what it was given.
    }

    async fn until_gone(&self) {
        while !self.provider.list().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_ends_noted(&self) {
        while !self.app.fleet.all_managed().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_quiet(&self) {
        // Results are told to the scale pass too, which takes one of two wake-ups; so look anyway.
        while self.works().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn end_workers(&self) {
        for Found {
            endpoint, worker, ..
        } in self.provider.list()
        {
            let logs = &self.app.logs;
            logs.system(&endpoint, &worker, "killing: the server is being stopped");
        }
        let gone = async {
            // Again and again: the scale pass may have been about to start one.
            loop {
                let found = self.provider.list();
                if found.is_empty() {
                    break;
                }
                for Found { worker, .. } in found {
                    self.app.evict(&worker).await;
                    self.provider.stop(&worker, Stop::Now);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(LAST_ENDS, gone).await.is_err() {
            tracing::warn!("some workers are not gone yet; the next start will find them");
        }
    }
}

async fn until_delivered(app: &App) {
    while app.traffic().under_way() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn open_providers(
    app: &App,
    hold: Hold,
    reports: Reports,
    clock: Clock,
) -> Result<Arc<dyn Provider>> {
    let (data, gpus) = (&app.config.data, Arc::clone(&app.gpus));
    let engine = Places::of(app.config.docker_host.as_deref(), |name| {
        std::env::var(name).ok()
    });
    let now = move || clock.now();
    let providers = Providers::open(hold, data, gpus, engine, reports, now).await?;
    Ok(Arc::new(providers))
}

/// Finds out what this server is in charge of, and which releases that are. Where several servers share the
/// store, the earlier run's charges are this one's: that run is dead, or the data directory could not be
/// had.
async fn come_in(app: &App, name: &str) -> Result<()> {
    if app.charge.is_alone() {
        release::settle(app).await?;
        return Ok(());
    }
    let kept = Kept::read(&app.config.data)?;
    if let Some(earlier) = &kept.earlier {
        app.charge.succeed(earlier.clone());
    }
    charge::renew(app, true).await?;
    kept.write(name)
}

/// A worker of an earlier run goes on, if there is still a use for it.
async fn take_over(app: &App, provider: &dyn Provider, found: Found) {
    let settings = app.endpoint(&found.endpoint).filter(|it| it.run.is_some());
    let goes_on = settings.is_some() && app.config.keep_workers;
    let (worker, endpoint) = (found.worker.clone(), found.endpoint.clone());
    let age_ms = app.now().ms_since(found.started_at);
    let young = settings.is_some_and(|it| age_ms < it.init_timeout_ms);
    let found = Enlisted {
        worker: found.worker,
        endpoint: found.endpoint,
        release: found.release,
        gpus: found.gpus,
        started_at: found.started_at,
        why: "an earlier run of the server started it".to_owned(),
        preparing: false,
    };
    app.fleet.adopt(found, young, app.now());
    if goes_on {
        tracing::info!(worker.id = %worker, "found a worker of an earlier run");
        let text = "found again by a server that was started anew";
        app.logs.system(&endpoint, &worker, text);
        return;
    }
    tracing::info!(worker.id = %worker, "ending a worker of an earlier run");
    let text = "killing: it is of an earlier run of the server";
    app.logs.system(&endpoint, &worker, text);
    // Known until it is gone: it has its place, and its GPUs, until then.
    app.fleet
        .retire(&worker, "it is of an earlier run of the server");
    app.evict(&worker).await;
    provider.stop(&worker, Stop::Now);
}

/// Workers that go on hold the jobs that they held.
async fn resume(app: &App) -> Result<()> {
    for survey in app.store.survey().await? {
        if !survey
            .workers()
            .any(|worker| app.fleet.about(&worker).is_some())
        {
            continue;
        }
        let (mut held, mut before) = (Vec::new(), None);
        loop {
            let query = Query {
                endpoint: survey.endpoint.clone(),
                status: Some(Status::InProgress),
                limit: RESUMED_AT_ONCE,
                before,
            };
            let page = app.store.list(query).await?;
            held.extend(page.jobs);
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        // The oldest first, as the worker got them.
        for job in held.into_iter().rev() {
            if let State::Running(attempt) = job.state {
                let (worker, since) = (&attempt.worker, attempt.started_at);
                app.fleet.took(worker, job.id, !attempt.begun, since);
            }
        }
    }
    Ok(())
}

/// Workers that were found when their container engine was back.
async fn take_over_late(
    app: Arc<App>,
    provider: Arc<dyn Provider>,
    mut found: tokio::sync::mpsc::UnboundedReceiver<Found>,
) {
    while let Some(found) = found.recv().await {
        take_over(&app, &*provider, found).await;
        app.wakes.scale.notify_one();
    }
}

/// Opens what is kept, and the key to its secrets.
async fn open_store(
    config: &Config,
    now: Timestamp,
    name: &str,
) -> Result<(Arc<dyn Store>, ServerKey)> {
    match config.store {
        StoreKind::Memory => Ok((Arc::new(MemoryStore::new(now)), ServerKey::ephemeral())),
        StoreKind::Postgres => {
            let database = config.database.as_ref().context(
                "server.store is \"postgres\" and server.database_url is empty; name the database, \
                 or start with --database-url",
            )?;
            let key_path = config.key_path();
            let key = ServerKey::load(&key_path)?;
            let access = database.access()?;
            let store = PostgresStore::open(&access, name.to_owned()).await?;
            if !store.is_server_key(key.hash()).await? {
                bail!(
                    "{} is not the key of the other servers over the database at {}: s3Configs, \
                     webhook secrets and workers' tokens of one would mean nothing to the other; \
                     copy their file server.key, or name it as server.key_file (docs/postgresql.md)",
                    key_path.display(),
                    access.place()
                );
            }
            Ok((Arc::new(store), key))
        }
        StoreKind::Sqlite => {
            let data = config.data.clone();
            let key_path = config.key_path();
            let endpoints = config.endpoints.clone();
            let lease_ms = move |id: &EndpointId| {
                let settings = endpoints.get(id);
                settings.map_or(limits::LEASE_MS, |it| it.lease_ms)
            };
            let open = move || -> Result<(Arc<dyn Store>, ServerKey)> {
                let store = SqliteStore::open_with_leases(&data, now, Box::new(lease_ms))?;
                Ok((Arc::new(store), ServerKey::load(&key_path)?))
            };
            tokio::task::spawn_blocking(open)
                .await
                .context("opening the store broke off")?
        }
    }
}

/// Where workers on this machine reach an address that is listened on.
fn reachable(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => format!("http://127.0.0.1:{}", v4.port()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => format!("http://[::1]:{}", v6.port()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => format!("http://{address}"),
    }
}

/// Binds an address, or says why not.
///
/// # Errors
/// When it is not an address, or is in use.
pub async fn bind(listen: &str) -> Result<TcpListener> {
    TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}; choose another address with --listen ADDRESS:PORT")
    })
}

async fn accept(listener: TcpListener, router: Router, mut ending: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ending.wait_for(|ending| *ending) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(serve(stream, router.clone(), ending.clone()));
            }
            Err(e) => {
                tracing::warn!(error = %e, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_WORDS, all).await;
}

async fn serve(stream: TcpStream, router: Router, mut ending: watch::Receiver<bool>) {
    // Small answers must not wait for an acknowledgement; if it cannot be set they do.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        router
            .clone()
            .oneshot(api::collapse_slashes(request.map(Body::new)))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = ending.wait_for(|ending| *ending) => None,
    };
    // Errors of a connection are the peer's going away; what that means for a job was decided where
    // its answer was dropped.
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// Makes the first admin key of a store that has none; `None` when keys are not used or exist.
///
/// # Errors
/// When the store cannot answer.
pub async fn first_key(app: &App) -> Result<Option<String>> {
    if app.config.auth == Auth::None || !app.store.keys().await?.is_empty() {
        return Ok(None);
    }
    let access = lazyfox_store::Access::Admin;
    let (text, key) = crate::keyring::make("made at the first start", access, None, app.now());
    app.store.add_key(key).await?;
    Ok(Some(text))
}
