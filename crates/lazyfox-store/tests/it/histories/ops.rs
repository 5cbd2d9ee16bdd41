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
        disowns: bool,
    },
    /// A worker takes a job and ends it.
    Run {
        on: usize,
        by: usize,
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
        by: usize,
        jobs: Option<Vec<usize>>,
    },
    Held {
        by: usize,
        evict: bool,
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
    Progress,
    Complete,
    Fail,
    Lost,
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
        14 => new().prop_map(Op::Submit),
        10 => lease(),
        14 => run(),
        20 => apply(),
        4 => limit().prop_map(|limit| Op::Expire { limit }),
        3 => (0..WORKERS.len(), prop::option::of(vec(any_job(), 0..3)))
            .prop_map(|(by, jobs)| Op::Renew { by, jobs }),
        2 => (0..WORKERS.len(), any::<bool>()).prop_map(|(by, evict)| Op::Held { by, evict }),
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
    let all = (endpoint(), flags, webhook, 0..3_u32, ttl, key);
    all.prop_map(|(on, flags, webhook, retries_max, ttl, key)| {
        let (sync, low, short_run, on_cancel, secrets) = flags;
        New {
            on,
            sync,
            low,
            retries_max,
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
    (endpoint(), 0..WORKERS.len(), 0..4_usize, disowns).prop_map(|(on, by, count, disowns)| {
        Op::Lease {
            on,
            by,
            count,
            disowns,
        }
    })
}

fn run() -> impl Strategy<Value = Op> {
    let what = prop_oneof![1 => Just(What::Complete), 2 => Just(What::Fail)];
    (endpoint(), 0..WORKERS.len(), what).prop_map(|(on, by, what)| Op::Run { on, by, what })
}

fn apply() -> impl Strategy<Value = Op> {
    let what = prop_oneof![
        1 => Just(What::HandBack),
        2 => Just(What::Progress),
        4 => Just(What::Complete),
        4 => Just(What::Fail),
        3 => Just(What::Lost),
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
