//! Rounds of passes over a store in memory, with a provider that only notes what it is asked.

use std::sync::Mutex;

use bytes::Bytes;
use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_core::job::{Job, Status};
use lazyfox_core::policy::Terms;
use lazyfox_store::memory::MemoryStore;
use lazyfox_store::{Ask, Extra, NewJob, Parts, Store};

use super::*;
use crate::charge::InCharge;
use crate::clock::Clock;
use crate::config::{Config, Endpoint};
use crate::failing::FailingStore;
use crate::fleet::Enlisted;
use crate::providers::{Exit, Found, ProcessRun, Release, Run, StartError, Stop, WorkerSpec};
use crate::secrets::ServerKey;

const START: Timestamp = Timestamp::from_ms(1_000_000);

#[derive(Default)]
struct Notes {
    started: Mutex<Vec<WorkerSpec>>,
    stopped: Mutex<Vec<(WorkerId, Stop)>>,
}

impl Provider for Notes {
    fn list(&self) -> Vec<Found> {
        Vec::new()
    }

    fn start(&self, spec: WorkerSpec) -> Result<(), StartError> {
        self.started.lock().unwrap().push(spec);
        Ok(())
    }

    fn stop(&self, worker: &WorkerId, how: Stop) {
        self.stopped.lock().unwrap().push((worker.clone(), how));
    }
}

fn endpoint() -> EndpointId {
    "ep".parse().unwrap()
}

fn worker(name: &str) -> WorkerId {
    name.parse().unwrap()
}

fn enlist(app: &App, name: &str) {
    app.fleet.enlist(Enlisted {
        worker: worker(name),
        endpoint: endpoint(),
        release: Release::default(),
        gpus: Vec::new(),
        started_at: START,
        why: String::new(),
        preparing: false,
    });
}

/// An app with one endpoint whose waiting jobs fail with the first start that does.
fn app() -> App {
    app_on(Arc::new(MemoryStore::new(START)))
}

fn app_on(store: Arc<dyn Store>) -> App {
    let settings = Endpoint {
        run: Some(Run::Process(ProcessRun {
            command: vec!["handler".to_owned()],
            ..ProcessRun::default()
        })),
        fail_after_starts: 1,
        ..Endpoint::shipped()
    };
    let config = Config {
        endpoints: [(endpoint(), settings)].into(),
        ..Config::empty()
    };
    let (key, clock) = (ServerKey::ephemeral(), Clock::manual(START));
    App::new(config, store, key, clock, "http://127.0.0.1:1")
}

async fn submitted(app: &App, n: u8) -> JobId {
    let id = JobId::new(START, [n; 16], false);
    let terms = Terms::agree(Default::default(), &Default::default()).unwrap();
    let new = NewJob {
        job: Job::submitted(id, endpoint(), terms, false, START),
        input: Bytes::from_static(b"1"),
        webhook: None,
        secrets: None,
        idempotency: None,
    };
    app.store.submit(new, START).await.unwrap();
    id
}

async fn job(app: &App, id: JobId) -> Job {
    let loaded = app.store.load(&endpoint(), id, Parts::default()).await;
    loaded.unwrap().unwrap().job
}

async fn status(app: &App, id: JobId) -> Status {
    job(app, id).await.status()
}

/// A worker that was started takes the job that waits.
async fn leased(app: &App, name: &str) {
    enlist(app, name);
    app.fleet.polled(&endpoint(), &worker(name), None, START);
    let ask = Ask {
        endpoint: endpoint(),
        worker: worker(name),
        count: 1,
        extra: Extra::default(),
        lease_ms: 3_600_000,
        disowns_before: None,
    };
    assert_eq!(app.store.lease(ask, START).await.unwrap().handouts.len(), 1);
}

fn ended(name: &str) -> Ended {
    Ended {
        worker: worker(name),
        endpoint: endpoint(),
        exit: Exit::Code(1),
        last_lines: vec!["ModuleNotFoundError: No module named 'torch'".to_owned()],
    }
}

#[tokio::test]
async fn a_start_that_fails_fails_the_jobs_that_waited_for_it_with_its_reason() {
    let app = app();
    let id = submitted(&app, 1).await;
    enlist(&app, "w1");
    ends::end_once(&app, &mut ended("w1").into()).await.unwrap();
    let job = job(&app, id).await;
    let error = job.state.end().unwrap().error.clone().unwrap();
    assert!(
        error.contains("exited with code 1") && error.contains("torch"),
        "{error}"
    );
}

#[tokio::test]
async fn whatever_of_an_end_the_store_fails_is_noted_when_it_answers() {
    for operation in ["apply_to_held", "sweep"] {
        let store = Arc::new(FailingStore::new(START));
        let app = app_on(store.clone());
        let id = submitted(&app, 1).await;
        enlist(&app, "w1");
        store.fail_next(operation);
        let mut end = ended("w1").into();
        ends::end_once(&app, &mut end).await.unwrap_err();
        assert!(store.has_failed(), "{operation}");
        assert_eq!(status(&app, id).await, Status::InQueue, "{operation}");
        ends::end_once(&app, &mut end).await.unwrap();
        assert_eq!(status(&app, id).await, Status::Failed, "{operation}");
    }
}

#[tokio::test]
async fn a_worker_that_ends_while_the_server_stops_is_no_death() {
    for (closing, deaths) in [(false, 1), (true, 0)] {
        let app = app();
        let id = submitted(&app, 1).await;
        leased(&app, "w1").await;
        app.closing.send_replace(closing);
        ends::end_once(&app, &mut ended("w1").into()).await.unwrap();
        let job = job(&app, id).await;
        assert_eq!((job.status(), job.deaths.len()), (Status::InQueue, deaths));
    }
}

#[tokio::test]
async fn a_start_that_fails_beside_a_worker_that_serves_fails_no_job() {
    let app = app();
    let id = submitted(&app, 1).await;
    enlist(&app, "w1");
    app.fleet.polled(&endpoint(), &worker("w1"), None, START);
    enlist(&app, "w2");
    ends::end_once(&app, &mut ended("w2").into()).await.unwrap();
    assert_eq!(status(&app, id).await, Status::InQueue);
}

#[tokio::test]
async fn a_job_starts_a_worker_with_the_environment_of_the_sdk() {
    let app = app();
    let provider = Notes::default();
    submitted(&app, 1).await;
    scale::scale_once(&app, &provider).await.unwrap();
    scale::scale_once(&app, &provider).await.unwrap();
    let started = provider.started.lock().unwrap();
    assert_eq!(started.len(), 1, "the one that starts counts");
    let url = started[0]
        .env
        .iter()
        .find(|(name, _)| name == "RUNPOD_WEBHOOK_GET_JOB");
    let expected = format!(
        "http://127.0.0.1:1/v2/ep/job-take/{}?gpu=",
        started[0].worker
    );
    assert_eq!(url.map(|(_, url)| url.as_str()), Some(expected.as_str()));
}

/// While it starts the first worker, the configuration is read again and has another command.
struct Reloading<'a> {
    app: &'a App,
    notes: Notes,
}

impl Provider for Reloading<'_> {
    fn list(&self) -> Vec<Found> {
        Vec::new()
    }

    fn start(&self, spec: WorkerSpec) -> Result<(), StartError> {
        if spec.release == Release(1) {
            let settings = Endpoint {
                run: Some(Run::Process(ProcessRun {
                    command: vec!["newer".to_owned()],
                    ..ProcessRun::default()
                })),
                ..Endpoint::shipped()
            };
            self.app
                .endpoints
                .configure([(endpoint(), settings)].into());
            self.app.fleet.release(&endpoint(), Release(2));
        }
        self.notes.start(spec)
    }

    fn stop(&self, worker: &WorkerId, how: Stop) {
        self.notes.stop(worker, how);
    }
}

#[tokio::test]
async fn a_worker_of_the_older_command_never_has_the_number_of_the_newer() {
    let app = app();
    let mut settings = app.endpoints.configured(&endpoint()).unwrap();
    settings.scale.workers_min = 2;
    app.endpoints.configure([(endpoint(), settings)].into());
    app.fleet.release(&endpoint(), Release(1));
    let provider = Reloading {
        app: &app,
        notes: Notes::default(),
    };
    scale::scale_once(&app, &provider).await.unwrap();
    let started = provider.notes.started.lock().unwrap();
    assert_eq!(started.len(), 2);
    for spec in &*started {
        let Run::Process(run) = &spec.run else {
            panic!("a process was asked for");
        };
        assert_eq!(
            (spec.release, run.command[0].as_str()),
            (Release(1), "handler")
        );
    }
}

#[tokio::test]
async fn a_worker_that_is_killed_loses_its_jobs_without_a_retry() {
    let app = app();
    let provider = Notes::default();
    let id = submitted(&app, 1).await;
    leased(&app, "w1").await;
    let cancelled = JobId::new(START, [9; 16], false);
    app.fleet.must_let_go(&worker("w1"), cancelled, START);
    app.clock.advance(10_000);
    scale::scale_once(&app, &provider).await.unwrap();
    assert_eq!(
        provider.stopped.lock().unwrap()[0],
        (worker("w1"), Stop::Now)
    );
    let job = job(&app, id).await;
    assert_eq!((job.status(), job.retries), (Status::InQueue, 0));
    assert_eq!(job.barred, [worker("w1")]);
}

#[tokio::test]
async fn who_is_not_known_to_be_in_charge_starts_nothing() {
    let store = Arc::new(FailingStore::new(START));
    let app = App {
        charge: InCharge::new(false),
        ..app_on(store.clone())
    };
    let provider = Notes::default();
    submitted(&app, 1).await;
    store.fail_next("charge");
    crate::charge::renew(&app, true).await.unwrap_err();
    scale::scale_once(&app, &provider).await.unwrap();
    assert_eq!(provider.started.lock().unwrap().len(), 0);
    assert!(!app.could_start(&endpoint()));
    // This store has no other servers.
    crate::charge::renew(&app, true).await.unwrap();
    store.fail_next("enlist");
    scale::scale_once(&app, &provider).await.unwrap_err();
    assert_eq!(provider.started.lock().unwrap().len(), 0);
    scale::scale_once(&app, &provider).await.unwrap();
    assert_eq!(provider.started.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_worker_that_gives_way_to_another_server_is_no_failed_start() {
    let app = App {
        charge: InCharge::new(false),
        ..app()
    };
    let id = submitted(&app, 1).await;
    enlist(&app, "w1");
    ends::end_once(&app, &mut ended("w1").into()).await.unwrap();
    assert_eq!(status(&app, id).await, Status::InQueue);
    assert_eq!(app.fleet.starts(&endpoint()), Default::default());
}
