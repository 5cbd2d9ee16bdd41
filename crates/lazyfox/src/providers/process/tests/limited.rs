//! What a worker may use, and which GPUs it sees.

use super::*;

/// A process that holds some 60 MiB until it is ended, and has said so.
const HOLDS: &str = "python3 -c \"
import signal
held = bytearray(b'x') * (60 << 20)
print('holds', flush=True)
signal.pause()\"";

const OVER_100_MIB: Exit = Exit::OutOfMemory {
    limit: Some(100 * 1024 * 1024),
};

impl Place {
    /// A script with a limit of memory, in MiB.
    fn limited(&self, script: &str, memory_mib: u64) -> WorkerSpec {
        let mut spec = self.script(script);
        if let Run::Process(run) = &mut spec.run {
            run.memory_bytes = Some(memory_mib * 1024 * 1024);
        }
        spec
    }
}

#[tokio::test]
async fn a_worker_that_holds_too_much_memory_is_ended_with_all_its_processes() {
    let place = Place::new();
    let fifo = place.fifo();
    let mut run = Served::open(&place).await;
    // Each of them alone is below, and one has left the group.
    let script = format!("exec 3> $FIFO; {HOLDS} & (cd /; setsid {HOLDS}) & wait");
    run.provider.start(place.limited(&script, 100)).unwrap();
    assert_eq!(read_to_end(fifo).await, "");
    let ended = run.end().await;
    assert_eq!(ended.exit, OVER_100_MIB);
    let text = ended.exit.to_string();
    assert_eq!(text, "ran out of memory (limit 100 MiB)");
    assert!(!place.workers().join("w-1").exists());
}

#[tokio::test]
async fn a_worker_below_its_limit_goes_on_and_one_that_is_stopped_did_not_run_out() {
    let place = Place::new();
    let mut run = Served::open(&place).await;
    let script = format!("{HOLDS}; echo never");
    run.provider.start(place.limited(&script, 100)).unwrap();
    assert_eq!(run.line().await, "ep w-1 holds");
    run.provider.stop(&worker("w-1"), Stop::Now);
    assert_eq!(run.end().await.exit, Exit::Signal(9));
}

#[tokio::test]
async fn a_worker_found_again_keeps_its_limit() {
    let place = Place::new();
    let fifo = place.fifo();
    let mut before = Served::open(&place).await;
    let script = format!("echo ready; read x < $FIFO; {HOLDS} & {HOLDS} & wait");
    before.provider.start(place.limited(&script, 100)).unwrap();
    before.line().await;
    drop(before);
    let mut after = Served::open(&place).await;
    write(fifo, "go\n").await;
    assert_eq!(after.end().await.exit, OVER_100_MIB);
}

#[tokio::test]
async fn each_process_may_open_so_many_files() {
    let place = Place::new();
    let fifo = place.fifo();
    let mut run = Served::open(&place).await;
    let mut spec = place.script("read x < $FIFO; ulimit -Hn; sh -c 'ulimit -Sn'");
    if let Run::Process(run) = &mut spec.run {
        run.open_files = Some(99);
    }
    run.provider.start(spec).unwrap();
    write(fifo, "go\n").await;
    assert_eq!(run.end().await.last_lines, ["99", "99"]);
}

#[tokio::test]
async fn a_limit_that_cannot_be_given_is_a_start_that_failed() {
    let place = Place::new();
    let run = Served::open(&place).await;
    let mut spec = place.script("sleep 1000");
    if let Run::Process(run) = &mut spec.run {
        run.open_files = Some(1 << 40);
    }
    let error = run.provider.start(spec).unwrap_err().to_string();
    assert!(error.contains("open_files cannot be"), "{error}");
    assert_eq!(run.provider.list(), []);
    assert!(!place.workers().join("w-1").exists());
}

#[tokio::test]
async fn a_worker_sees_its_gpus_and_without_any_none_where_they_are_given_out() {
    let place = Place::new();
    let script = "echo \"${CUDA_VISIBLE_DEVICES-all} $RUNPOD_GPU_COUNT\"";
    for (inventory, gpus, expected) in [
        (Inventory::known(&["0", "1"]), vec!["1"], "1 1"),
        (Inventory::known(&["0", "1"]), vec![], " 0"),
        (Inventory::new(None), vec![], "all "),
    ] {
        let mut run = Served::open_with(&place, inventory).await;
        let mut spec = place.script(script);
        spec.gpus = gpus.into_iter().map(str::to_owned).collect();
        assert_eq!(run.run_out(spec).await.1, [expected]);
    }
}
