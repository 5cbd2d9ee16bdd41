//! What can happen in a history. Jobs and deliveries are named by number, modulo how many there are.

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
        limit: usize,
    },
    Settle {
        delivery: u64,
        how: Settled,
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
    pub(crate) webhook: bool,
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

pub(crate) const ENDPOINTS: [&str; 2] = ["a", "b"];
pub(crate) const WORKERS: [&str; 4] = ["w1", "w2", "w3", "w4"];

pub(crate) fn history() -> impl Strategy<Value = Vec<Op>> {
    vec(op(), 1..90)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        14 => new().prop_map(Op::Submit),
        14 => lease(),
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
        3 => limit().prop_map(|limit| Op::Outbox { limit }),
        5 => (0..12_u64, settled()).prop_map(|(delivery, how)| Op::Settle { delivery, how }),
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
        prop::bool::weighted(0.5),
        prop::bool::weighted(0.3),
    );
    let key = prop::option::weighted(0.2, (0..3_u8, 0..2_u8));
    (endpoint(), flags, 0..3_u32, ttl, key).prop_map(|(on, flags, retries_max, ttl, key)| {
        let (sync, low, short_run, webhook, secrets) = flags;
        New {
            on,
            sync,
            low,
            retries_max,
            ttl,
            short_run,
            webhook,
            secrets,
            key,
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

fn apply() -> impl Strategy<Value = Op> {
    let what = prop_oneof![
        1 => Just(What::HandBack),
        2 => Just(What::Progress),
        4 => Just(What::Complete),
        4 => Just(What::Fail),
        3 => Just(What::Lost),
        2 => Just(What::Cancel),
        3 => Just(What::Retry),
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
