//! What every part of a running server shares, and the one place where a changed job is made known.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_core::job::{Event, Status};
use lazyfox_core::limits;
use lazyfox_core::scale::Scaler;
use lazyfox_core::time::Timestamp;
use lazyfox_core::traffic::{Bounds, Traffic};
use lazyfox_store::{Applied, Change, HolderEvent, Loaded, Store, StoreError, Survey};
use tokio::sync::watch;

use crate::changes::Changes;
use crate::charge::InCharge;
use crate::clock::Clock;
use crate::config::{Config, Endpoint, StoreKind};
use crate::decisions::Decisions;
use crate::endpoints::Endpoints;
use crate::fleet::Fleet;
use crate::keyring::KeyRing;
use crate::listeners::Listeners;
use crate::logs::Logs;
use crate::providers::gpus::Inventory;
use crate::secrets::ServerKey;
use crate::signing::Signing;
use crate::wake::Wakes;

/// Where log lines of single jobs go: thousands a second on a busy server, so `serve` leaves them out
/// unless asked.
pub const JOBS: &str = "lazyfox::jobs";

/// A running server's parts.
pub struct App {
    /// The configuration; its endpoints are in `endpoints`.
    pub config: Config,
    /// The endpoints' settings as they are now.
    pub endpoints: Endpoints,
    /// Where jobs are kept.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Clock,
    /// Who waits for what.
    pub wakes: Wakes,
    /// The workers, as far as this server knows them.
    pub fleet: Fleet,
    /// What this server is in charge of.
    pub charge: InCharge,
    /// What the scaler decided lately.
    pub decisions: Decisions,
    /// The GPUs of this machine.
    pub gpus: Arc<Inventory>,
    /// The server's secret.
    pub key: ServerKey,
    /// The API keys.
    pub keys: KeyRing,
    /// What deliveries are signed with.
    pub signing: Signing,
    /// Which deliveries are under way, and which hosts do not answer.
    pub traffic: Mutex<Traffic>,
    /// Who listens to deliveries.
    pub listeners: Listeners,
    /// What workers say; a whole server keeps it.
    pub logs: Arc<Logs>,
    /// Where workers reach this server.
    pub worker_url: String,
    /// Where clients reach this server.
    pub public_url: String,
    /// Whether the server is being stopped.
    pub closing: watch::Sender<bool>,
}

impl App {
    /// The parts of a server that has just come up. `own_url` is where it is reached, unless the
    /// configuration knows better.
    #[must_use]
    pub fn new(
        mut config: Config,
        store: Arc<dyn Store>,
        key: ServerKey,
        clock: Clock,
        own_url: &str,
    ) -> Self {
        let url = |configured: &Option<String>| configured.as_deref().unwrap_or(own_url).to_owned();
        let bounds = Bounds {
            in_all: config.webhooks_at_once,
            per_host: config.webhooks_per_host,
            bytes: limits::WEBHOOKS_BYTES,
        };
        Self {
            store,
            logs: Arc::new(Logs::none(clock.clone())),
            clock,
            wakes: Wakes::default(),
            fleet: Fleet::default(),
            charge: InCharge::new(config.store != StoreKind::Postgres),
            decisions: Decisions::default(),
            gpus: Arc::new(Inventory::new(config.gpus.names())),
            key,
            keys: KeyRing::default(),
            signing: Signing::default(),
            traffic: Mutex::new(Traffic::new(bounds)),
            listeners: Listeners::default(),
            worker_url: url(&config.worker_url),
            public_url: url(&config.public_url),
            closing: watch::Sender::new(false),
            endpoints: Endpoints::new(std::mem::take(&mut config.endpoints)),
            config,
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// An endpoint's settings.
    #[must_use]
    pub fn endpoint(&self, id: &EndpointId) -> Option<Arc<Endpoint>> {
        self.endpoints.get(id)
    }

    /// How long a lease of the endpoint's jobs is, also when the endpoint is not there any more.
    #[must_use]
    pub fn lease_ms(&self, endpoint: &EndpointId) -> u64 {
        let settings = self.endpoints.last(endpoint);
        settings.map_or(limits::LEASE_MS, |it| it.lease_ms)
    }

    /// Which deliveries are under way, and which hosts do not answer.
    pub fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One endpoint's jobs in numbers, if it ever had any, and who holds them.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn survey(
        &self,
        endpoint: &EndpointId,
    ) -> Result<(Option<Survey>, HashSet<WorkerId>), StoreError> {
        let surveys = self.store.survey().await?;
        let survey = surveys.into_iter().find(|it| it.endpoint == *endpoint);
        let holders = survey.iter().flat_map(Survey::workers).collect();
        Ok((survey, holders))
    }

    /// Takes up what was changed of endpoints by an earlier run, or by another server.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn take_up_changes(&self) -> Result<(), StoreError> {
        let mut kept: BTreeMap<EndpointId, Changes> = BTreeMap::new();
        for (endpoint, text) in self.store.overrides().await? {
            match serde_json::from_str(&text) {
                Ok(changes) => drop(kept.insert(endpoint, changes)),
                Err(error) => {
                    tracing::error!(endpoint.id = %endpoint, %error, "changed settings are not understood");
                    let as_before = self.endpoints.changes(&endpoint);
                    kept.insert(endpoint, as_before);
                }
            }
        }
        let taken_back = self.endpoints.all();
        let taken_back = taken_back.keys().filter(|it| !kept.contains_key(*it));
        let changes = taken_back.map(|endpoint| (endpoint.clone(), Changes::default()));
        for (endpoint, changes) in changes.chain(kept.clone()) {
            if self.endpoints.changes(&endpoint) != changes {
                self.endpoints.change(&endpoint, changes);
                self.wakes.scale.notify_one();
            }
        }
        Ok(())
    }

    /// Whether one more worker of the endpoint may come if a job waits for a while. A scaler that counts
    /// jobs has started all that it wants.
    #[must_use]
    pub fn could_start(&self, endpoint: &EndpointId) -> bool {
        let Some(settings) = self.endpoint(endpoint).filter(|it| it.run.is_some()) else {
            return false;
        };
        let (starts, _) = self.fleet.starts(endpoint);
        let throttled = self
            .decisions
            .standing(endpoint)
            .is_some_and(|it| it.throttled > 0);
        let elsewhere = self.charge.elsewhere(endpoint).len();
        let elsewhere = u32::try_from(elsewhere).unwrap_or(u32::MAX);
        let workers = self.fleet.managed_of(endpoint).saturating_add(elsewhere);
        self.charge.term(endpoint).is_some()
            && matches!(settings.scale.scaler, Scaler::QueueDelay { .. })
            && starts.failed_in_a_row == 0
            && !throttled
            && workers < settings.scale.workers_max
    }

    /// Whether the server is being stopped: no new jobs, no new waits.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Returns when the server begins to stop.
    pub async fn closed(&self) {
        // The sender is in self.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Lets an event happen to a job and makes it known.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn apply(
        &self,
        endpoint: &EndpointId,
        job: JobId,
        event: Event,
        output: Option<Bytes>,
    ) -> Result<Applied, StoreError> {
        let reports_end = matches!(event, Event::Complete { .. } | Event::Fail { .. });
        let came = output.clone();
        let applied = self
            .store
            .apply(endpoint, job, event, output, self.now())
            .await?;
        if let Applied::Changed(change) = &applied {
            if reports_end && change.job.status().is_terminal() {
                // What came with the report is all the output there is now: nobody has to read it again.
                self.wakes.ended(job, || Loaded {
                    job: change.job.clone(),
                    output: came,
                    input: None,
                });
                self.note_but_for_callers(change);
            } else {
                self.note(std::slice::from_ref(change));
            }
        }
        Ok(applied)
    }

    /// Takes its jobs from a worker that is about to be ended. When the store cannot do it now, they are
    /// lost with the worker's end, which is noted until it could be.
    pub async fn evict(&self, worker: &WorkerId) {
        match self
            .store
            .apply_to_held(worker, HolderEvent::Evict, self.now())
            .await
        {
            Ok(changes) => self.note(&changes),
            Err(e) => {
                tracing::error!(worker.id = %worker, error = %e, "its jobs are lost with its end");
            }
        }
    }

    /// Makes changes known to those who wait for them: callers, polls, passes, and the worker that
    /// has to let go.
    pub fn note(&self, changes: &[Change]) {
        for change in changes {
            self.wakes.job(change.job.id);
            self.note_but_for_callers(change);
        }
    }

    /// Makes a change known to all but those who watch the job.
    fn note_but_for_callers(&self, change: &Change) {
        let now = self.now();
        let job = &change.job;
        if let Some(holder) = &change.holder
            && change.before == Status::InProgress
            && job.status() != Status::InProgress
        {
            self.fleet.freed(holder, now);
            if job.barred.contains(holder) {
                let runs = self.fleet.must_let_go(holder, job.id, now);
                // A job that can wait again must not wait for a worker that may not have it.
                if runs && job.status() != Status::Cancelled {
                    let why = if job.status() == Status::TimedOut {
                        "its job ran out of time"
                    } else {
                        "its work was taken from it"
                    };
                    self.fleet.retire_managed(holder, why);
                }
            }
            tracing::debug!(
                target: JOBS,
                { job.id = %job.id, worker.id = %holder, status = %job.status() },
                "the worker's hold on the job ended"
            );
            self.wakes.scale.notify_one();
        }
        if job.status() == Status::InQueue {
            // All of them: the first to come may be one that must not have this job.
            self.wakes.queue(&job.endpoint).notify_waiters();
            self.wakes.scale.notify_one();
            self.wakes.deadlines.notify_one();
        }
        if job.status().is_terminal() && job.has_webhook {
            self.wakes.outbox.notify_one();
        }
        if job.status().is_terminal() && change.before != job.status() {
            tracing::info!(
                target: JOBS,
                { job.id = %job.id, endpoint.id = %job.endpoint, status = %job.status() },
                "job ended"
            );
        }
    }
}
