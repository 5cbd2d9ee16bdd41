//! Workers: as many as the plan says, and none that should be gone.

use std::collections::HashSet;

use lazyfox_core::id::{EndpointId, WorkerId};
use lazyfox_core::job::Event;
use lazyfox_core::limits;
use lazyfox_core::scale::{self, Demand, Member, Phase, Plan, Reason, Room};
use lazyfox_core::time::Timestamp;
use lazyfox_store::{Elsewhere, StoreError, Survey};

use super::ends;
use crate::app::App;
use crate::charge::{self, Who};
use crate::config::Endpoint;
use crate::decisions::Inputs;
use crate::fleet::{Duty, Enlisted, Grace};
use crate::providers::{Provider, Release, Run, Stop, WorkerSpec};
use crate::worker_env;

/// Longest time between two looks while there are workers: their graces end without a wake-up.
const TICK_MS: u64 = 1_000;

const GRACE: Grace = Grace {
    release_ms: limits::RELEASE_GRACE_MS,
    stop_ms: limits::STOP_GRACE_MS,
};

/// An endpoint at one look.
struct Look<'a> {
    id: &'a EndpointId,
    settings: &'a Endpoint,
    /// What a worker is that is started with these settings.
    release: Release,
    demand: Demand,
    fleet: Vec<Member>,
    /// In which this server is in charge of it.
    term: u64,
    /// Workers of other servers. They are on their way out, and have their places until then.
    elsewhere: Vec<Member>,
}

impl Look<'_> {
    fn gpus_each(&self) -> usize {
        usize::try_from(self.settings.gpus).unwrap_or(usize::MAX)
    }

    /// It has workers on GPUs, more than its minimum, and no job that waits for one.
    fn is_spare(&self) -> bool {
        let kept = usize::try_from(self.settings.scale.workers_min).unwrap_or(usize::MAX);
        self.settings.gpus > 0 && self.demand.queued == 0 && self.fleet.len() > kept
    }
}

/// Looks at demand and fleet and acts on it. Returns when to look again.
///
/// # Errors
/// When the store cannot answer.
pub async fn scale_once(app: &App, provider: &dyn Provider) -> Result<Timestamp, StoreError> {
    write_begun(app).await?;
    let surveys = app.store.survey().await?;
    let holders: HashSet<WorkerId> = surveys.iter().flat_map(Survey::workers).collect();
    let is_managed = |endpoint: &EndpointId| {
        let settings = app.endpoint(endpoint);
        settings.is_some_and(|it| it.run.is_some())
    };
    app.fleet.retire_without(is_managed);
    app.fleet
        .retire_where(|endpoint| match app.charge.who(endpoint) {
            Who::There(_) => Some(format!("another server is in charge of {endpoint} now")),
            // As long as nobody else starts any, those that are there are needed.
            Who::Here | Who::Nobody => None,
        });
    charge::compare(app).await;
    app.decisions.forget_standing_but_of(|endpoint| {
        is_managed(endpoint) && app.charge.term(endpoint).is_some()
    });
    carry_out_duties(app, provider, &holders).await;
    let mut again_at = Timestamp::NEVER;
    if !app.is_closing() {
        // The releases first: of what changes in between, the older number costs a needless replacement, and
        // the newer one would keep a worker of the old command for ever.
        let releases = app.fleet.releases();
        let endpoints = app.endpoints.all();
        let managed = endpoints.iter().filter(|(_, it)| it.run.is_some());
        let mut looks: Vec<Look<'_>> = managed
            .filter_map(|(id, settings)| {
                let term = app.charge.term(id)?;
                let release = releases.get(id).copied().unwrap_or_default();
                Some(look(app, id, settings, release, term, &surveys))
            })
            .collect();
        // Who gave up a worker for a newer release gets its place back first.
        looks.sort_by_key(|look| !look.fleet.iter().any(|member| member.outdated));
        let mut short = Vec::new();
        for look in &looks {
            let plan = scale_endpoint(app, provider, look).await?;
            again_at = again_at.min(plan.again_at);
            if plan.throttled > 0 {
                short.push(look);
            }
        }
        make_room(app, &short, &looks);
    }
    let tick = if app.fleet.is_empty() {
        Timestamp::NEVER
    } else {
        app.now().plus_ms(TICK_MS)
    };
    Ok(again_at.min(tick))
}

/// Jobs that waited inside a worker and run for a while now: their execution timeout counts from here.
async fn write_begun(app: &App) -> Result<(), StoreError> {
    for (endpoint, worker, job) in app.fleet.begun(app.now()) {
        app.apply(&endpoint, job, Event::Begin { worker }, None)
            .await?;
    }
    Ok(())
}

/// Each duty is named once, so all are carried out, whatever the store says.
async fn carry_out_duties(app: &App, provider: &dyn Provider, holders: &HashSet<WorkerId>) {
    let init_timeout_ms = |endpoint: &EndpointId| {
        let settings = app.endpoints.last(endpoint);
        settings.map_or(limits::INIT_TIMEOUT_MS, |it| it.init_timeout_ms)
    };
    for duty in app.fleet.duties(holders, init_timeout_ms, GRACE, app.now()) {
        match duty {
            // The signal goes first: a poll that is answered before it would be asked anew.
            Duty::AskToStop(worker) => {
                provider.stop(&worker, Stop::Gently);
                say(app, &worker, "stopping", None);
            }
            Duty::Kill(worker, why) => {
                tracing::warn!(worker.id = %worker, why, "killing a worker");
                say(app, &worker, "killing", Some(why));
                app.evict(&worker).await;
                provider.stop(&worker, Stop::Now);
            }
        }
    }
}

fn look<'a>(
    app: &App,
    id: &'a EndpointId,
    settings: &'a Endpoint,
    release: Release,
    term: u64,
    surveys: &[Survey],
) -> Look<'a> {
    let survey = surveys.iter().find(|survey| survey.endpoint == *id);
    let holders: HashSet<WorkerId> = survey.into_iter().flat_map(Survey::workers).collect();
    Look {
        id,
        settings,
        release,
        demand: survey.map_or(Demand::default(), |survey| survey.demand),
        fleet: app.fleet.members(id, &holders),
        term,
        elsewhere: elsewhere(app, id),
    }
}

/// As the plan sees them: they exist, take no jobs that could be counted on, and say nothing about when the
/// next worker is due.
fn elsewhere(app: &App, endpoint: &EndpointId) -> Vec<Member> {
    let elsewhere = app.charge.elsewhere(endpoint).into_iter();
    let member = |it: Elsewhere| Member {
        worker: it.worker,
        started_at: Timestamp::from_ms(0),
        phase: Phase::Stopping,
        outdated: false,
        slots: 1,
    };
    let is_here = |it: &Elsewhere| app.fleet.about(&it.worker).is_some();
    elsewhere.filter(|it| !is_here(it)).map(member).collect()
}

/// Notes in a worker's log what is done with it and why: for this reason, or the one for which it is to go.
fn say(app: &App, worker: &WorkerId, what: &str, why: Option<&str>) {
    if let Some(about) = app.fleet.about(worker) {
        let why = why.or(about.retired.as_deref()).unwrap_or_default();
        app.logs
            .system(&about.endpoint, worker, &format!("{what}: {why}"));
    }
}

async fn scale_endpoint(
    app: &App,
    provider: &dyn Provider,
    look: &Look<'_>,
) -> Result<Plan, StoreError> {
    let Look {
        id,
        settings,
        demand,
        fleet,
        elsewhere,
        ..
    } = look;
    let now = app.now();
    let (starts, last_failure) = app.fleet.starts(id);
    let room = room(app, settings);
    let all = [fleet.as_slice(), elsewhere.as_slice()].concat();
    let plan = scale::plan(demand, &all, &settings.scale, &starts, Room(room), now);
    let inputs = Inputs {
        elsewhere: u32::try_from(elsewhere.len()).unwrap_or(u32::MAX),
        ..Inputs::of(*demand, fleet, starts, room)
    };
    if app.decisions.note(id, &plan, inputs, now) {
        tracing::info!(
            endpoint.id = %id, why = %plan.reason, want = plan.want, start = plan.start,
            stop = plan.stop.len(), throttled = plan.throttled, queued = demand.queued,
            queued_low = demand.queued_low, running = demand.running, starting = inputs.starting,
            idle = inputs.idle, busy = inputs.busy, stopping = inputs.stopping,
            elsewhere = inputs.elsewhere,
            outdated = inputs.outdated, failed = starts.failed_in_a_row, "scaling"
        );
    }
    let waits = demand.queued + demand.queued_low > 0;
    if matches!(plan.reason, Reason::GivenUp { .. })
        && settings.fail_after_starts > 0
        && waits
        && !app.fleet.serves(id)
    {
        // No start fails any more that could end them.
        ends::fail_waiting(app, id, &last_failure.unwrap_or_default()).await?;
    }
    for leave in &plan.stop {
        // It gets no more jobs from here on; when a later look finds it holding none, it is asked to
        // stop. A job that it took in between is thus never hit.
        app.fleet.retire(&leave.worker, &leave.why.to_string());
        app.wakes.scale.notify_one();
    }
    for _ in 0..plan.start {
        // The others would fail for the same reason.
        if !start(app, provider, look, &plan.reason.to_string()).await? {
            break;
        }
    }
    Ok(plan)
}

/// How many more workers the machine's GPUs are enough for; `None` where none are needed.
fn room(app: &App, settings: &Endpoint) -> Option<u32> {
    let each = usize::try_from(settings.gpus).unwrap_or(usize::MAX);
    if each == 0 {
        return None;
    }
    let used = app.fleet.gpus_used();
    let free = app.gpus.free(used.iter().map(String::as_str)).len();
    Some(u32::try_from(free / each).unwrap_or(u32::MAX))
}

/// Endpoints find too few free GPUs: an idle worker of another one, which has no use for it now, goes
/// before its time, where that helps the first of them that can be helped. One that needs more than there
/// are stands in nobody's way.
fn make_room(app: &App, short: &[&Look<'_>], looks: &[Look<'_>]) {
    let used = app.fleet.gpus_used();
    let free = app.gpus.free(used.iter().map(String::as_str)).len();
    let gpus_of = |looks: &[&Look<'_>], is: fn(&Phase) -> bool| -> usize {
        let of_one = |look: &&Look<'_>| {
            look.gpus_each() * look.fleet.iter().filter(|it| is(&it.phase)).count()
        };
        looks.iter().map(of_one).sum()
    };
    let all: Vec<&Look<'_>> = looks.iter().collect();
    let coming = free + gpus_of(&all, |phase| matches!(phase, Phase::Stopping));
    for needy in short {
        let needed = needy.gpus_each();
        if coming >= needed {
            return;
        }
        let spare: Vec<&Look<'_>> = looks
            .iter()
            .filter(|it| it.id != needy.id && it.is_spare())
            .collect();
        let idle = gpus_of(&spare, |phase| matches!(phase, Phase::Idle { .. }));
        if coming + idle < needed {
            continue;
        }
        let idle = spare.iter().flat_map(|look| &look.fleet);
        let idle = idle.filter_map(|member| match member.phase {
            Phase::Idle { since } => Some((since, &member.worker)),
            Phase::Starting | Phase::Busy { .. } | Phase::Stopping => None,
        });
        if let Some((_, worker)) = idle.min() {
            app.fleet
                .retire(worker, &format!("idle, and {} needs its GPUs", needy.id));
            app.wakes.scale.notify_one();
        }
        return;
    }
}

/// Starts a worker; false when it could not be.
async fn start(
    app: &App,
    provider: &dyn Provider,
    look: &Look<'_>,
    why: &str,
) -> Result<bool, StoreError> {
    let Look {
        id,
        settings,
        release,
        term,
        ..
    } = *look;
    let Some(run) = settings.run.clone() else {
        return Ok(false);
    };
    let used = app.fleet.gpus_used();
    let used = used.iter().map(String::as_str);
    let Some(gpus) = app.gpus.assign(settings.gpus, used) else {
        return Ok(false);
    };
    let worker = worker_env::new_worker();
    // Other servers know of it before it is there.
    if !charge::enlist(app, id, &worker, term).await? {
        return Ok(false);
    }
    tracing::info!(worker.id = %worker, endpoint.id = %id, %release, why, "starting a worker");
    // Known before it runs: it may ask for work before start returns.
    app.fleet.enlist(Enlisted {
        worker: worker.clone(),
        endpoint: id.clone(),
        release,
        gpus: gpus.clone(),
        started_at: app.now(),
        why: why.to_owned(),
        preparing: matches!(run, Run::Container(_)),
    });
    let spec = WorkerSpec {
        endpoint: id.clone(),
        worker: worker.clone(),
        run,
        gpus,
        release,
        env: worker_env::variables(app, id, settings, &worker),
        server_host: worker_env::server_host(app),
    };
    app.logs.system(id, &worker, &format!("starting: {why}"));
    if let Err(e) = provider.start(spec) {
        app.logs.ended(id, &worker, &format!("did not start: {e}"));
        ends::not_started(app, id, &worker, e.to_string()).await?;
        return Ok(false);
    }
    Ok(true)
}
