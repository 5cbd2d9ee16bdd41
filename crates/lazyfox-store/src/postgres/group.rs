//! Operations of concurrent callers are carried out in groups, one endpoint's at a time: read, decide,
//! write, commit, answer. A group is taken as soon as one can be carried out; a lone caller never waits
//! for company. And nobody suffers for the company they had: when an operation fails for a reason of its
//! own, the others are run again without it.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Client, Object, Pool};
use lazyfox_core::id::EndpointId;
use tokio::time::Instant;

use super::connect::{self, Failure, Remedy};
use super::floors::{Floors, Search};
use super::lanes::Lanes;
use super::load::{self, Needs};
use super::partitions::Partitions;
use super::pulse::Knowledge;
use super::row::Id;
use super::set::{NEW_FROM, Set};
use super::wire::Wire;
use super::write;
use crate::engine::{Engine, Seq};
use crate::work::{Asked, Work, work};
use crate::{Answer, StoreError};

/// Most operations in one commit.
const GROUP_MAX: usize = 256;
/// Payload bytes after which a group is closed: one huge body should not keep many small ones waiting.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Groups of one endpoint that are under way at once: while one is committed, the next is read.
const GROUPS_AT_ONCE: usize = 2;
/// With so many operations waiting, a further group is begun beside one that is under way.
const SECOND_FROM: usize = 24;
/// Waiting jobs that are read for one group at the most. A poll that passes over so many gives up.
const HEADS_MAX: usize = 2_048;
/// Time between two foldings of counts.
const FOLD_EVERY: Duration = Duration::from_secs(2);
/// How often groups that clash begin anew.
const CLASHES_MAX: u32 = 10;

/// Everything groups need.
pub(super) struct Groups {
    pub(super) pool: Pool,
    pub(super) wire: Arc<Wire>,
    pub(super) knowledge: Arc<Knowledge>,
    floors: Arc<Floors>,
    pub(super) partitions: Partitions,
    lanes: Lanes<Call>,
    /// Endpoints that are known to be in the list of those that had a job.
    queues: Mutex<HashSet<EndpointId>>,
    counted: Mutex<Counted>,
}

/// Endpoints whose ends this server has counted since the counts were folded.
struct Counted {
    on: HashSet<EndpointId>,
    folded_at: Instant,
}

struct Call {
    needs: Needs,
    /// What it needs beyond that when it may have happened already.
    again: Needs,
    bytes: usize,
    submits: bool,
    work: Box<dyn Work<Set>>,
}

/// What is known of earlier tries of a group.
#[derive(Clone, Debug, Default)]
struct Tried {
    may_have_happened: bool,
    /// Whether a commit was sent to which no answer came.
    open: bool,
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
    pub(super) fn new(
        pool: Pool,
        wire: Arc<Wire>,
        knowledge: Arc<Knowledge>,
        floors: Arc<Floors>,
    ) -> Self {
        Self {
            pool,
            wire,
            knowledge,
            floors,
            partitions: Partitions::default(),
            lanes: Lanes::new(GROUPS_AT_ONCE, SECOND_FROM),
            queues: Mutex::default(),
            counted: Mutex::new(Counted {
                on: HashSet::new(),
                folded_at: Instant::now(),
            }),
        }
    }

    /// Endpoints whose counts are worth folding by now.
    pub(super) fn to_fold(&self) -> HashSet<EndpointId> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.on.is_empty() || counted.folded_at.elapsed() < FOLD_EVERY {
            return HashSet::new();
        }
        counted.folded_at = Instant::now();
        std::mem::take(&mut counted.on)
    }

    /// Runs an operation in the next group of its endpoint. It may run more than once, each time on a set
    /// to which nothing of the run before has happened.
    pub(super) fn call<'a, T: Send + 'static>(
        self: &'a Arc<Self>,
        endpoint: &EndpointId,
        plan: Plan,
        run: impl Fn(&mut Engine<Set>) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'a, T> {
        self.ask(endpoint, plan, work(run))
    }

    pub(super) fn ask<'a, T: Send + 'static>(
        self: &'a Arc<Self>,
        endpoint: &EndpointId,
        plan: Plan,
        (work, answer): Asked<Set, T>,
    ) -> Answer<'a, T> {
        let call = Call {
            needs: plan.needs,
            again: plan.again,
            bytes: plan.bytes,
            submits: plan.submits,
            work,
        };
        let endpoint = endpoint.clone();
        Box::pin(async move {
            if self.lanes.enter(&endpoint, call) {
                tokio::spawn(Arc::clone(self).work(endpoint));
            }
            let stopped = || {
                let why = "the operation was given up: the store is shut down, or has a defect";
                StoreError::Unavailable(why.to_owned())
            };
            answer.await.map_err(|_| stopped())?
        })
    }

    /// Carries out groups until nothing waits.
    async fn work(self: Arc<Self>, endpoint: EndpointId) {
        let _at_work = AtWork(&self, &endpoint);
        loop {
            // Whoever is about to call gets the chance to be in this group.
            tokio::task::yield_now().await;
            let Some(group) = self.lanes.next(&endpoint, next_group) else {
                return;
            };
            self.carry_out(&endpoint, group).await;
        }
    }

    /// All in one commit; where that fails by the fault of one, each in a commit of its own.
    async fn carry_out(&self, endpoint: &EndpointId, mut group: Vec<Call>) {
        let mut tried = Tried::default();
        let committed = self.commit(endpoint, &mut group, &mut tried).await;
        let own = committed.as_ref().is_err_and(Failure::is_one_operations);
        if group.len() == 1 || !own {
            return answer(group, committed);
        }
        for call in group {
            let mut alone = vec![call];
            let committed = self.commit(endpoint, &mut alone, &mut tried.clone()).await;
            answer(alone, committed);
        }
    }

    /// Tries until it happened, or cannot.
    async fn commit(
        &self,
        endpoint: &EndpointId,
        group: &mut [Call],
        tried: &mut Tried,
    ) -> Result<(), Failure> {
        let until = Instant::now() + connect::PATIENCE;
        let mut clashes = 0;
        loop {
            let sent = AtomicBool::new(false);
            let attempt = self.attempt(endpoint, group, &sent, tried);
            let failure = match attempt.await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            tried.open |= sent.into_inner() && failure.remedy() == Remedy::Reconnect;
            match failure.remedy() {
                Remedy::Again if clashes < CLASHES_MAX => {
                    clashes += 1;
                    tried.may_have_happened = true;
                }
                Remedy::Reconnect if Instant::now() < until => {
                    tried.may_have_happened = true;
                    tokio::time::sleep(connect::PAUSE).await;
                }
                Remedy::Again | Remedy::Reconnect | Remedy::GiveUp if tried.open => {
                    return Err(failure.into_unknown());
                }
                Remedy::Again | Remedy::Reconnect | Remedy::GiveUp => return Err(failure),
            }
        }
    }

    async fn attempt(
        &self,
        endpoint: &EndpointId,
        group: &mut [Call],
        sent: &AtomicBool,
        tried: &Tried,
    ) -> Result<(), Failure> {
        let client = Lent(Some(connect::client(&self.pool).await?));
        let search = self.floors.begin(endpoint);
        let attempt = self.transaction(client.get()?, endpoint, group, (&search, sent), tried);
        let outcome = tokio::time::timeout(connect::ANSWER, attempt).await;
        if !matches!(outcome, Ok(Ok(()))) {
            self.floors.undone(endpoint, &search);
        }
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => {
                let usable = failure.remedy() != Remedy::Reconnect;
                if !usable || !rolled_back(client.get()?).await {
                    client.give_up();
                }
                Err(failure)
            }
            Err(_) => {
                client.give_up();
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
        (search, sent): (&Search, &AtomicBool),
        tried: &Tried,
    ) -> Result<(), Failure> {
        let may_have_happened = tried.may_have_happened;
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
        let set = if reads {
            load::load(client, endpoint, &needs, search.from, true).await?
        } else {
            Set::default()
        };
        let set = run(client, endpoint, group, (set, needs), (search.from, tried)).await?;
        let new_queue = submits && !self.queues().contains(endpoint);
        sent.store(true, Ordering::Relaxed);
        let mut heads = write::commit(client, endpoint, &set, !reads, new_queue).await?;
        heads.extend(set.returned(may_have_happened));
        for (on, seq) in &heads {
            self.floors.told(on, *seq);
        }
        self.floors.found(endpoint, search, set.first);
        if new_queue {
            self.queues().insert(endpoint.clone());
        }
        self.knowledge.committed(&set);
        if !set.counts.is_empty() {
            let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
            counted
                .on
                .extend(set.counts.iter().map(|(on, ..)| on.clone()));
        }
        self.partitions.committed(&set);
        self.wire.told.add(set.news(may_have_happened), heads);
        Ok(())
    }

    fn queues(&self) -> MutexGuard<'_, HashSet<EndpointId>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the operations, on more than was read at first where that was too little.
async fn run(
    client: &Client,
    endpoint: &EndpointId,
    group: &mut [Call],
    (mut set, mut needs): (Set, Needs),
    (from, tried): (Seq, &Tried),
) -> Result<Set, Failure> {
    loop {
        set.unanswered = tried.open;
        let read = set.waiting();
        let mut engine = engine(set);
        let ran = group.iter_mut().try_for_each(|it| it.work.run(&mut engine));
        let unread = engine.rows.unread.map(Id::from);
        if ran.is_err() && group.len() == 1 && unread.is_some_and(|id| needs.inputs.insert(id)) {
            // Those that it passed over were so large that the one that it can have was not read.
            set = load::load(client, endpoint, &needs, from, false).await?;
            continue;
        }
        ran?;
        for call in group.iter_mut() {
            call.work.look(&engine);
        }
        engine.flush_counters()?;
        if !engine.rows.ran_dry || read < needs.heads || needs.heads >= HEADS_MAX {
            return Ok(engine.rows);
        }
        // There may be more behind those that were passed over.
        needs.heads = (needs.heads * 8).min(HEADS_MAX);
        set = load::load(client, endpoint, &needs, from, false).await?;
    }
}

/// A connection for one attempt. After a panic in the middle of a transaction nobody else may have it.
struct Lent(Option<Client>);

impl Lent {
    fn get(&self) -> Result<&Client, Failure> {
        let gone = || Failure::NoConnection("the connection was given up".to_owned());
        self.0.as_ref().ok_or_else(gone)
    }

    fn give_up(mut self) {
        self.0.take().map(Object::take);
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.take().map(Object::take);
        }
    }
}

/// Sees to it that a panic costs the callers of one group their answer, and not the endpoint its lane.
struct AtWork<'a>(&'a Arc<Groups>, &'a EndpointId);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tokio::spawn(Arc::clone(self.0).work(self.1.clone()));
        }
    }
}

async fn rolled_back(client: &Client) -> bool {
    let undo = client.batch_execute("ROLLBACK");
    let undone = tokio::time::timeout(connect::CONNECT, undo).await;
    undone.is_ok_and(|undone| undone.is_ok())
}

fn engine(set: Set) -> Engine<Set> {
    let live: Vec<_> = set.live().map(|(seq, job)| (seq, job.clone())).collect();
    let chunks: Vec<_> = set.chunk_bytes().collect();
    Engine::over(set, live.into_iter(), chunks.into_iter(), NEW_FROM)
}

fn next_group(waiting: &mut VecDeque<Call>) -> Vec<Call> {
    let mut group = Vec::new();
    let mut bytes = 0;
    while group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
        let Some(call) = waiting.pop_front() else {
            break;
        };
        bytes += call.bytes;
        group.push(call);
    }
    group
}

fn answer(group: Vec<Call>, committed: Result<(), Failure>) {
    let committed = committed.map_err(Failure::into_error);
    for call in group {
        call.work.answer(committed.clone());
    }
}

#[cfg(test)]
mod tests {
    use lazyfox_core::id::JobId;
    use lazyfox_core::time::Timestamp;

    use super::super::{Access, PostgresStore, Trust};
    use super::*;

    #[tokio::test]
    async fn a_panic_costs_its_own_group_alone() {
        let url = lazyfox_testing::shared().database();
        let access = Access::parse(&url, None, Trust::System, 2).unwrap();
        let store = PostgresStore::open(&access, "here".to_owned()).await;
        let groups = Arc::clone(&store.unwrap().groups);
        let endpoint: EndpointId = "a".parse().unwrap();
        let job = JobId::new(Timestamp::from_ms(0), [0; 16], false);
        let plan = || Plan::of(Needs::job(job));
        let panics = groups.call::<()>(&endpoint, plan(), |_| panic!("a defect"));
        assert!(matches!(panics.await, Err(StoreError::Unavailable(_))));
        let next = groups.call(&endpoint, plan(), |_| Ok(7));
        let next = tokio::time::timeout(connect::ANSWER, next).await;
        assert_eq!(next, Ok(Ok(7)));
        // And no transaction is left open for whoever comes next.
        for client in [groups.pool.get().await, groups.pool.get().await] {
            let client = client.unwrap();
            let said = connect::said(&client, "SELECT now() = statement_timestamp()").await;
            assert_eq!(said.unwrap(), "t");
        }
    }
}
