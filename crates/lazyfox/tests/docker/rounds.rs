//! Many starts leave nothing behind.

use lazyfox::providers::{Exit, Provider as _, Stop};

use crate::engine;
use crate::place::{Place, run_of};

#[tokio::test]
async fn two_hundred_rounds_leave_no_container_and_no_file() {
    const ROUNDS: usize = 40;
    const AT_ONCE: usize = 5;
    let (engine, place) = (engine::shared().await, Place::new());
    place.fifo("never");
    let mut run = place.open(&engine).await;
    for round in 0..ROUNDS {
        for n in 0..AT_ONCE {
            let mut spec = place.script("echo ready; read x < /shared/never");
            spec.worker = place.name(&format!("w-{round}-{n}"));
            run_of(&mut spec).mounts[0].read_only = n % 2 == 0;
            run.provider.start(spec).unwrap();
        }
        for _ in 0..AT_ONCE {
            assert_eq!(run.line().await, "ready");
        }
        for found in run.provider.list() {
            run.provider.stop(&found.worker, Stop::Now);
        }
        for _ in 0..AT_ONCE {
            assert_eq!(run.end().await.exit, Exit::Signal(9));
        }
        assert_eq!(run.provider.list(), []);
    }
    assert!(engine.containers(&place.label()).await.is_empty());
    assert_eq!(place.files(), 0);
}
