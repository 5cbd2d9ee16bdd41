//! Random histories, replayed on the memory store and on a durable one that is closed and opened again
//! now and then. Every answer must be the same, and a ledger that knows only the promises looks on.
//!
//! More cases than usual: `PROPTEST_CASES=5000 cargo test -p lazyfox-store histories`.

mod ledger;
mod ops;
mod replay;

use self::replay::Durable;
use proptest::prelude::*;
use proptest::test_runner::Config;

/// Enough to find each of the faults that were put into the stores on purpose, in a few seconds.
const CASES: u32 = 48;

fn config() -> Config {
    let cases = std::env::var("PROPTEST_CASES").ok();
    Config {
        cases: cases.map_or(CASES, |text| text.parse().unwrap()),
        // The shrunk history that is printed on a failure becomes a test of its own.
        failure_persistence: None,
        max_shrink_iters: 400,
        ..Config::default()
    }
}

fn replay(ops: &[ops::Op], durable: Durable) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(replay::on_both(ops, durable));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn sqlite_does_what_memory_does(ops in ops::history()) {
        replay(&ops, Durable::sqlite());
    }

    #[test]
    fn postgres_does_what_memory_does(ops in ops::history()) {
        replay(&ops, Durable::postgres());
    }

    #[test]
    fn postgres_does_so_when_it_looks_at_every_step(ops in ops::history()) {
        replay(&ops, Durable::postgres_that_looks());
    }
}
