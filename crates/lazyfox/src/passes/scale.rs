//! Workers: as many as the plan says, and none that should be gone.

use lazyfox_core::id::{EndpointId, WorkerId};
use lazyfox_core::limits;
use lazyfox_core::scale::{self, Demand, Leave, Room};
use lazyfox_core::time::Timestamp;
use lazyfox_store::{StoreError, Survey};

use super::ends;
use crate::app::App;
use crate::clock;
use crate::config::Endpoint;
use crate::fleet::{Duty, Grace};
use crate::providers::{Provider, Release, Stop, WorkerSpec};
use crate::worker_env;

/// Longest time between two looks while there are workers: their graces end without a wake-up.
const TICK_MS: u64 = 1_000;

const GRACE: Grace = Grace {
    release_ms: limits::RELEASE_GRACE_MS,
    stop_ms: limits::STOP_GRACE_MS,
};

/// Looks at demand and fleet and acts on it. Returns when to look again.
///
/// # Errors
/// When the store cannot answer.
pub async fn scale_once(app: &App, provider: &dyn Provider) -> Result<Timestamp, StoreError> {
    let surveys = app.store.survey().await?;
    let holders: Vec<WorkerId> = surveys.iter().flat_map(Survey::workers).collect();
    carry_out_duties(app, provider, &holders).await;
    let mut again_at = Timestamp::NEVER;
    if !app.is_closing() {
        for (id, settings) in app.endpoints.all().iter() {
            if settings.run.is_some() {
                let survey = surveys.iter().find(|survey| survey.endpoint == *id);
                again_at = again_at.min(scale_endpoint(app, provider, id, settings, survey).await?);
            }
        }
    }
    let tick = if app.fleet.is_empty() {
        Timestamp::NEVER
    } else {
        app.now().plus_ms(TICK_MS)
    };
    Ok(again_at.min(tick))
}

/// Each duty is named once, so all are carried out, whatever the store says.
async fn carry_out_duties(app: &App, provider: &dyn Provider, holders: &[WorkerId]) {
    let init_timeout_ms = |endpoint: &EndpointId| {
        let settings = app.endpoint(endpoint);
        settings.map_or(limits::INIT_TIMEOUT_MS, |it| it.init_timeout_ms)
    };
    for duty in app.fleet.duties(holders, init_timeout_ms, GRACE, app.now()) {
        match duty {
            // The signal goes first: a poll that is answered before it would be asked anew.
            Duty::AskToStop(worker) => provider.stop(&worker, Stop::Gently),
            Duty::Kill(worker, why) => {
                tracing::warn!(worker.id = %worker, why, "killing a worker");
                app.evict(&worker).await;
                provider.stop(&worker, Stop::Now);
            }
        }
    }
}

async fn scale_endpoint(
    app: &App,
    provider: &dyn Provider,
    id: &EndpointId,
    settings: &Endpoint,
    survey: Option<&Survey>,
) -> Result<Timestamp, StoreError> {
    let now = app.now();
    let demand = survey.map_or(Demand::default(), |survey| survey.demand);
    let holders: Vec<WorkerId> = survey.into_iter().flat_map(Survey::workers).collect();
    let fleet = app.fleet.members(id, &holders);
    let starts = app.fleet.failed_starts(id);
    let room = Room::UNLIMITED;
    let plan = scale::plan(&demand, &fleet, &settings.scale, &starts, room, now);
    if plan.start > 0 || !plan.stop.is_empty() {
        tracing::info!(
            endpoint.id = %id, start = plan.start, stop = plan.stop.len(),
            queued = demand.queued, running = demand.running, workers = fleet.len(),
            reason = plan.reason.as_str(), why = %plan.reason, "scaling"
        );
    }
    for Leave { worker, why } in &plan.stop {
        // It gets no more jobs from here on; when a later look finds it holding none, it is asked to
        // stop. A job that it took in between is thus never hit.
        app.fleet.retire(worker, &why.to_string());
        app.wakes.scale.notify_one();
    }
    for _ in 0..plan.start {
        start(app, provider, id, settings, now).await?;
    }
    Ok(plan.again_at)
}

async fn start(
    app: &App,
    provider: &dyn Provider,
    id: &EndpointId,
    settings: &Endpoint,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(run) = settings.run.clone() else {
        return Ok(());
    };
    let name = format!("wk{}", clock::random_name::<12>());
    let worker: WorkerId = name
        .parse()
        .expect("lower-case letters and digits are a name");
    let spec = WorkerSpec {
        endpoint: id.clone(),
        worker: worker.clone(),
        run,
        gpus: Vec::new(),
        release: Release::default(),
        env: worker_env::variables(app, id, settings, &worker),
        server_host: worker_env::server_host(app),
    };
    tracing::info!(worker.id = %worker, endpoint.id = %id, "starting a worker");
    // Known before it runs: it may ask for work before start returns.
    app.fleet.managed(id, &worker, now);
    if let Err(e) = provider.start(spec) {
        app.fleet.ended(&worker);
        ends::start_failed(app, id, e.to_string()).await?;
    }
    Ok(())
}
