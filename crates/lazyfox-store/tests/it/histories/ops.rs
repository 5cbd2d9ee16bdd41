//! What can happen in a history. Jobs and deliveries are named by number, modulo how many there are.

use lazyfox_core::delivery::State;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Submit(New),
    Lease {
        on: usize,
        by: usize,
        count: usize,
        extra: usize,
        /// No hard end within this time may wait inside the worker.
        lasts_ms: u64,
        disowns: bool,
    },
    /// A worker takes a job and ends it.
    Run {
        on: usize,
        by: usize,
        what: What,
    },
    /// A worker ends the jobs that it has begun with.
    Finish {
        by: Busy,
        what: What,
    },
    Apply {
        job: usize,
        what: What,
        by: Speaker,
        output: Option<u8>,
        elsewhere: bool,
    },
    Expire {
        limit: usize,
    },
    Renew {
        by: Busy,
        jobs: Option<Vec<usize>>,
        /// Whether what it tells is written.
        begins: bool,
    },
    Held {
        by: Busy,
        how: Gone,
        begun: Vec<usize>,
    },
    Append {
        job: usize,
        by: Speaker,
        sizes: Vec<usize>,
    },
    Drain {
        job: usize,
        bytes_max: usize,
    },
    Sweep {
        on: usize,
        purge: bool,
        limit: usize,
    },
    Prune {
        limit: usize,
    },
    Outbox {
        /// In all and for each host; `None` is room for everything.
        bounds: Option<(usize, usize)>,
        /// A host that does not answer.
        silent: Option<usize>,
    },
    Settle {
        delivery: u64,
        how: Settled,
        /// Of another round than the present one.
        round: Option<u32>,
        keep_ms: u64,
    },
    Redeliver {
        deliveries: Vec<Named>,
        elsewhere: bool,
    },
    Deliveries(Search),
    Secret {
        on: usize,
        overlap_ms: u64,
    },
    Release {
        on: usize,
        fingerprint: u8,
    },
    Override {
        on: usize,
        settings: Option<u8>,
    },
    Wait {
        ms: u64,
    },
    Look {
        job: usize,
        page: usize,
    },
    Reopen,
}

#[derive(Clone, Debug)]
pub(crate) struct New {
    pub(crate) on: usize,
    pub(crate) sync: bool,
    pub(crate) low: bool,
    pub(crate) retries_max: u32,
    pub(crate) poison_after: u32,
    pub(crate) ttl: Ttl,
    pub(crate) short_run: bool,
    /// To which host.
    pub(crate) webhook: Option<usize>,
    pub(crate) on_cancel: bool,
    pub(crate) secrets: bool,
    pub(crate) key: Option<(u8, u8)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ttl {
    Long,
    Short,
    Hard,
    Forgets,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    HandBack,
    Begin,
    Progress,
    /// So much earlier it had begun, if that is known.
    Complete(Option<u64>),
    Fail(Option<u64>),
    Lost {
        died: bool,
    },
    Cancel,
    Retry,
    WaitEnded,
    SetTtl(u64),
}

/// Mostly the worker that has a right to speak, else any.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Speaker {
    Holder,
    Worker(usize),
}

/// Mostly a worker that holds something, else any.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Busy {
    Holding(usize),
    Any(usize),
}

/// How all jobs of a worker come to be without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    Evicted,
    Lost,
    Died,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Settled {
    Delivered,
    Again,
    GaveUp,
}

/// One delivery of all that there ever were, or what may be none.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Named {
    Delivery(u64),
    OfJob(usize, u32),
}

/// Which deliveries are looked for, and in pages of which size.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    pub(crate) on: usize,
    pub(crate) job: Option<usize>,
    pub(crate) state: Option<State>,
    /// Of jobs that ended within so much time before now.
    pub(crate) within_ms: Option<u64>,
    pub(crate) page: usize,
}

pub(crate) const HOSTS: [&str; 2] = ["x.example:443", "y.example:80"];
pub(crate) const ENDPOINTS: [&str; 2] = ["a", "b"];
pub(crate) const WORKERS: [&str; 4] = ["w1", "w2", "w3", "w4"];

pub(crate) fn history() -> impl Strategy<Value = Vec<Op>> {
    vec(op(), 1..130)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        18 => new().prop_map(Op::Submit),
        12 => lease(),
        14 => run(),
        6 => finish(),
        20 => apply(),
        4 => limit().prop_map(|limit| Op::Expire { limit }),
        6 => (busy(), prop::option::weighted(0.8, vec(any_job(), 0..3)), any::<bool>())
            .prop_map(|(by, jobs, begins)| Op::Renew { by, jobs, begins }),
        4 => held(),
        5 => (any_job(), speaker(), vec(1..9_usize, 0..4))
            .prop_map(|(job, by, sizes)| Op::Append { job, by, sizes }),
        3 => (any_job(), 0..12_usize).prop_map(|(job, bytes_max)| Op::Drain { job, bytes_max }),
        2 => (endpoint(), any::<bool>(), limit())
            .prop_map(|(on, purge, limit)| Op::Sweep { on, purge, limit }),
        4 => limit().prop_map(|limit| Op::Prune { limit }),
        4 => outbox(),
        12 => settle(),
        6 => redeliver(),
        3 => search().prop_map(Op::Deliveries),
        1 => (endpoint(), wait()).prop_map(|(on, overlap_ms)| Op::Secret { on, overlap_ms }),
        2 => (endpoint(), 0..3_u8)
            .prop_map(|(on, fingerprint)| Op::Release { on, fingerprint }),
        1 => (endpoint(), any::<Option<u8>>())
            .prop_map(|(on, settings)| Op::Override { on, settings }),
        10 => wait().prop_map(|ms| Op::Wait { ms }),
        3 => (any_job(), 1..5_usize).prop_map(|(job, page)| Op::Look { job, page }),
        2 => Just(Op::Reopen),
    ]
}

fn new() -> impl Strategy<Value = New> {
    let ttl = prop_oneof![
        5 => Just(Ttl::Long),
        1 => Just(Ttl::Short),
        1 => Just(Ttl::Hard),
        1 => Just(Ttl::Forgets),
    ];
    let flags = (
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.4),
        prop::bool::weighted(0.3),
    );
    let key = prop::option::weighted(0.2, (0..3_u8, 0..2_u8));
    let webhook = prop::option::weighted(0.8, 0..HOSTS.len());
    let losses = (select(vec![0, 1, 2, 9]), 0..4_u32);
    let all = (endpoint(), flags, webhook, losses, ttl, key);
    all.prop_map(|(on, flags, webhook, losses, ttl, key)| {
        let (retries_max, poison_after) = losses;
        let (sync, low, short_run, on_cancel, secrets) = flags;
        New {
            on,
            sync,
            low,
            retries_max,
            poison_after,
            ttl,
            short_run,
            webhook,
            on_cancel,
            secrets,
            key,
        }
    })
}

fn outbox() -> impl Strategy<Value = Op> {
    let bounds = prop::option::of((1..5_usize, 1..3_usize));
    let silent = prop::option::weighted(0.3, 0..HOSTS.len());
    (bounds, silent).prop_map(|(bounds, silent)| Op::Outbox { bounds, silent })
}

fn settle() -> impl Strategy<Value = Op> {
    let round = prop::option::weighted(0.2, 0..3_u32);
    (0..40_u64, settled(), round, wait()).prop_map(|(delivery, how, round, keep_ms)| Op::Settle {
        delivery,
        how,
        round,
        keep_ms,
    })
}

fn redeliver() -> impl Strategy<Value = Op> {
    let named = prop_oneof![
        4 => (0..40_u64).prop_map(Named::Delivery),
        1 => (any_job(), 0..4_u32).prop_map(|(job, number)| Named::OfJob(job, number)),
    ];
    let elsewhere = prop::bool::weighted(0.05);
    (vec(named, 0..3), elsewhere).prop_map(|(deliveries, elsewhere)| Op::Redeliver {
        deliveries,
        elsewhere,
    })
}

fn search() -> impl Strategy<Value = Search> {
    let job = prop::option::weighted(0.3, any_job());
    let state = prop::option::of(select(State::ALL.to_vec()));
    let within_ms = prop::option::of(wait());
    (endpoint(), job, state, within_ms, 1..4_usize).prop_map(|(on, job, state, within_ms, page)| {
        Search {
            on,
            job,
            state,
            within_ms,
            page,
        }
    })
}

fn lease() -> impl Strategy<Value = Op> {
    let disowns = prop::bool::weighted(0.15);
    let counts = (0..4_usize, prop_oneof![1 => Just(0_usize), 1 => 0..5_usize]);
    let all = (endpoint(), 0..WORKERS.len(), counts, wait(), disowns);
    all.prop_map(|(on, by, (count, extra), lasts_ms, disowns)| Op::Lease {
        on,
        by,
        count,
        extra,
        lasts_ms,
        disowns,
    })
}

fn held() -> impl Strategy<Value = Op> {
    let how = select(vec![Gone::Evicted, Gone::Lost, Gone::Died, Gone::Died]);
    (busy(), how, prop_oneof![Just(vec![]), vec(any_job(), 1..3)])
        .prop_map(|(by, how, begun)| Op::Held { by, how, begun })
}

fn run() -> impl Strategy<Value = Op> {
    let what = prop_oneof![1 => Just(What::Complete(None)), 2 => Just(What::Fail(None))];
    (endpoint(), 0..WORKERS.len(), what).prop_map(|(on, by, what)| Op::Run { on, by, what })
}

fn finish() -> impl Strategy<Value = Op> {
    let what = prop::option::of(0..3_000_u64).prop_map(What::Complete);
    (busy(), what).prop_map(|(by, what)| Op::Finish { by, what })
}

fn apply() -> impl Strategy<Value = Op> {
    let what = prop_oneof![
        1 => Just(What::HandBack),
        2 => Just(What::Begin),
        2 => Just(What::Progress),
        4 => prop::option::of(0..3_000_u64).prop_map(What::Complete),
        4 => prop::option::of(0..3_000_u64).prop_map(What::Fail),
        4 => any::<bool>().prop_map(|died| What::Lost { died }),
        2 => Just(What::Cancel),
        5 => Just(What::Retry),
        1 => Just(What::WaitEnded),
        1 => (0..80_000_u64).prop_map(What::SetTtl),
    ];
    let output = prop::option::weighted(0.7, any::<u8>());
    let elsewhere = prop::bool::weighted(0.05);
    (any_job(), what, speaker(), output, elsewhere).prop_map(
        |(job, what, by, output, elsewhere)| Op::Apply {
            job,
            what,
            by,
            output,
            elsewhere,
        },
    )
}

fn any_job() -> impl Strategy<Value = usize> {
    0..40_usize
}

fn endpoint() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0), 1 => Just(1)]
}

fn speaker() -> impl Strategy<Value = Speaker> {
    prop_oneof![
        4 => Just(Speaker::Holder),
        1 => (0..WORKERS.len()).prop_map(Speaker::Worker),
    ]
}

fn busy() -> impl Strategy<Value = Busy> {
    prop_oneof![
        4 => (0..WORKERS.len()).prop_map(Busy::Holding),
        1 => (0..WORKERS.len()).prop_map(Busy::Any),
    ]
}

fn limit() -> impl Strategy<Value = usize> {
    prop_oneof![1 => 0..3_usize, 3 => Just(99)]
}

fn settled() -> impl Strategy<Value = Settled> {
    select(vec![Settled::Delivered, Settled::Again, Settled::GaveUp])
}

/// Around the lengths that mean something: a moment, a lease, a retention, a day.
fn wait() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0..2_000_u64,
        3 => 5_000..45_000_u64,
        1 => 60_000..2_000_000_u64,
        1 => Just(90_000_000_u64),
    ]
}
