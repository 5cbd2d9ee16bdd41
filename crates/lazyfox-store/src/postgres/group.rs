//! Operations of concurrent callers are carried out in groups, one endpoint's at a time: read, decide, write,
//! commit, answer. A group is taken as soon as one can be carried out; a lone caller never waits for company.
//! And nobody suffers for the company they had: when an operation fails for a reason of its own, the others
//! are run again without it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Client, Object, Pool};
use lazyfox_core::id::EndpointId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::connect::{self, Failure, Remedy};
use super::load::{self, Needs};
use super::pulse::Knowledge;
use super::set::{NEW_FROM, Set};
use super::wire::Wire;
use super::write;
use crate::engine::Engine;
use crate::{Answer, StoreError};

/// Most operations in one commit.
const GROUP_MAX: usize = 256;
/// Payload bytes after which a group is closed: one huge body should not keep many small ones waiting.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Groups of one endpoint that are under way at once: while one is committed, the next is read.
const GROUPS_AT_ONCE: usize = 2;
/// With so many operations waiting, a further group is begun beside one that is under way.
const SECOND_FROM: usize = 16;
/// Waiting jobs that are read for one group at the most. A poll that passes over so many gives up.
const HEADS_MAX: usize = 2_048;
/// How long an operation is tried anew where the database is away.
const PATIENCE: Duration = Duration::from_secs(4);
/// Pause before that.
const PAUSE: Duration = Duration::from_millis(50);
/// How often groups that clash begin anew.
const CLASHES_MAX: u32 = 10;

/// Everything groups need.
pub(super) struct Groups {
    pub(super) pool: Pool,
    pub(super) wire: Arc<Wire>,
    pub(super) knowledge: Arc<Knowledge>,
    lanes: Mutex<HashMap<EndpointId, Lane>>,
    /// Endpoints that are known to be in the list of those that had a job.
    queues: Mutex<HashSet<EndpointId>>,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Call>,
    under_way: usize,
}

struct Call {
    needs: Needs,
    /// What it needs beyond that when it may have happened already.
    again: Needs,
    bytes: usize,
    submits: bool,
    work: Box<dyn Work>,
}

/// One caller's operation: run on a set, and once more when that came to nothing; answered after the commit.
trait Work: Send {
    fn run(&mut self, engine: &mut Engine<Set>) -> Result<(), StoreError>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Pending<F, T> {
    run: F,
    /// What the last run came to.
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Work for Pending<F, T>
where
    F: Fn(&mut Engine<Set>) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn run(&mut self, engine: &mut Engine<Set>) -> Result<(), StoreError> {
        let result = (self.run)(engine);
        let outcome = result.as_ref().map(|_| ()).map_err(StoreError::clone);
        self.result = Some(result);
        outcome
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let unanswered = || StoreError::Unavailable("the operation was not run".to_owned());
        let Self { result, reply, .. } = *self;
        let answer = committed.and_then(|()| result.unwrap_or_else(|| Err(unanswered())));
        // A caller that went away took its own precautions.
        let _ = reply.send(answer);
    }
}

/// What an operation is, beside what it does.
pub(super) struct Plan {
    pub(super) needs: Needs,
    pub(super) again: Needs,
    /// Size of its payload.
    pub(super) bytes: usize,
    /// Whether it brings a job.
    pub(super) submits: bool,
}

impl Plan {
    pub(super) fn of(needs: Needs) -> Self {
        Self {
            needs,
            again: Needs::default(),
            bytes: 0,
            submits: false,
        }
    }

    pub(super) fn with_bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }
}

impl Groups {
    pub(super) fn new(pool: Pool, wire: Arc<Wire>, knowledge: Arc<Knowledge>) -> Self {
        Self {
            pool,
            wire,
            knowledge,
            lanes: Mutex::default(),
            queues: Mutex::default(),
        }
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<EndpointId, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an operation in the next group of its endpoint. It may run more than once, each time on a set to
    /// which nothing of the run before has happened.
    pub(super) fn call<'a, T: Send + 'static>(
        self: &'a Arc<Self>,
        endpoint: &EndpointId,
        plan: Plan,
        run: impl Fn(&mut Engine<Set>) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'a, T> {
        let (reply, answer) = oneshot::channel();
        let call = Call {
            needs: plan.needs,
            again: plan.again,
            bytes: plan.bytes,
            submits: plan.submits,
            work: Box::new(Pending {
                run,
                result: None,
                reply,
            }),
        };
        let endpoint = endpoint.clone();
        Box::pin(async move {
            self.enter(endpoint, call);
            let stopped = || StoreError::Unavailable("the store is shut down".to_owned());
            answer.await.map_err(|_| stopped())?
        })
    }

    fn enter(self: &Arc<Self>, endpoint: EndpointId, call: Call) {
        let mut lanes = self.lanes();
        let lane = match lanes.get_mut(&endpoint) {
            Some(lane) => lane,
            None => lanes.entry(endpoint.clone()).or_default(),
        };
        lane.waiting.push_back(call);
        let begins = lane.under_way == 0
            || (lane.under_way < GROUPS_AT_ONCE && lane.waiting.len() >= SECOND_FROM);
        if begins {
            lane.under_way += 1;
            tokio::spawn(Arc::clone(self).work(endpoint));
        }
    }

    /// Carries out groups until nothing waits.
    async fn work(self: Arc<Self>, endpoint: EndpointId) {
        loop {
            // Whoever is about to call gets the chance to be in this group.
            tokio::task::yield_now().await;
            let group = {
                let mut lanes = self.lanes();
                let Some(lane) = lanes.get_mut(&endpoint) else {
                    return;
                };
                let group = lane.next_group();
                if group.is_empty() {
                    lane.under_way -= 1;
                    if lane.under_way == 0 {
                        lanes.remove(&endpoint);
                    }
                    return;
                }
                group
            };
            self.carry_out(&endpoint, group).await;
        }
    }

    /// All in one commit; where that fails by the fault of one, each in a commit of its own.
    async fn carry_out(&self, endpoint: &EndpointId, mut group: Vec<Call>) {
        let committed = self.commit(endpoint, &mut group).await;
        let own = committed.as_ref().is_err_and(Failure::is_one_operations);
        if group.len() == 1 || !own {
            return answer(group, committed);
        }
        for call in group {
            let mut alone = vec![call];
            let committed = self.commit(endpoint, &mut alone).await;
            answer(alone, committed);
        }
    }

    /// Tries until it happened, or cannot.
    async fn commit(&self, endpoint: &EndpointId, group: &mut [Call]) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        let (mut clashes, mut may_have_happened) = (0, false);
        loop {
            let failure = match self.attempt(endpoint, group, may_have_happened).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            match failure.remedy() {
                Remedy::Again if clashes < CLASHES_MAX => {
                    clashes += 1;
                    may_have_happened = true;
                }
                Remedy::Reconnect if Instant::now() < until => {
                    may_have_happened = true;
                    tokio::time::sleep(PAUSE).await;
                }
                Remedy::Again | Remedy::Reconnect | Remedy::GiveUp => return Err(failure),
            }
        }
    }

    async fn attempt(
        &self,
        endpoint: &EndpointId,
        group: &mut [Call],
        may_have_happened: bool,
    ) -> Result<(), Failure> {
        let client = connect::client(&self.pool).await?;
        let attempt = self.transaction(&client, endpoint, group, may_have_happened);
        let outcome = tokio::time::timeout(connect::ANSWER, attempt).await;
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => {
                let usable = !client.is_closed() && failure.remedy() != Remedy::Reconnect;
                if !usable || client.batch_execute("ROLLBACK").await.is_err() {
                    drop(Object::take(client));
                }
                Err(failure)
            }
            Err(_) => {
                drop(Object::take(client));
                let why = "the database did not answer within 20 s".to_owned();
                Err(Failure::NoConnection(why))
            }
        }
    }

    async fn transaction(
        &self,
        client: &Client,
        endpoint: &EndpointId,
        group: &mut [Call],
        may_have_happened: bool,
    ) -> Result<(), Failure> {
        let mut needs = Needs::default();
        let mut submits = false;
        for call in group.iter() {
            needs.and(&call.needs);
            submits |= call.submits;
            if may_have_happened {
                needs.and(&call.again);
            }
        }
        let reads = !needs.is_nothing();
        let mut set = if reads {
            load::load(client, endpoint, &needs, true).await?
        } else {
            Set::default()
        };
        let set = loop {
            let read = set.waiting();
            let mut engine = engine(set);
            for call in group.iter_mut() {
                call.work.run(&mut engine)?;
            }
            engine.flush_counters()?;
            if !engine.rows.ran_dry || read < needs.heads || needs.heads >= HEADS_MAX {
                break engine.rows;
            }
            // There may be more behind those that were passed over.
            needs.heads = (needs.heads * 8).min(HEADS_MAX);
            set = load::load(client, endpoint, &needs, false).await?;
        };
        let new_queue = submits && !self.queues().contains(endpoint);
        write::commit(client, endpoint, &set, !reads, new_queue).await?;
        if new_queue {
            self.queues().insert(endpoint.clone());
        }
        self.knowledge.committed(&set);
        self.wire.told.add(set.news());
        Ok(())
    }

    fn queues(&self) -> MutexGuard<'_, HashSet<EndpointId>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn engine(set: Set) -> Engine<Set> {
    let live: Vec<_> = set.live().map(|(seq, job)| (seq, job.clone())).collect();
    let chunks: Vec<_> = set.chunk_bytes().collect();
    Engine::over(set, live.into_iter(), chunks.into_iter(), NEW_FROM)
}

impl Lane {
    fn next_group(&mut self) -> Vec<Call> {
        let mut group = Vec::new();
        let mut bytes = 0;
        while group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
            let Some(call) = self.waiting.pop_front() else {
                break;
            };
            bytes += call.bytes;
            group.push(call);
        }
        group
    }
}

fn answer(group: Vec<Call>, committed: Result<(), Failure>) {
    let committed = committed.map_err(Failure::into_error);
    for call in group {
        call.work.answer(committed.clone());
    }
}
