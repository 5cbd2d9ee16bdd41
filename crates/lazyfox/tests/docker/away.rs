//! The engine ends and comes back while workers run.

use lazyfox::providers::{Exit, Provider as _};

use crate::engine::Engine;
use crate::place::{Place, write};

#[tokio::test]
async fn a_worker_that_outlives_its_engine_is_heard_on_and_its_end_seen() {
    let place = Place::new();
    let [first, second] = ["a", "b"].map(|name| place.fifo(name));
    let mut engine = Engine::start(&["--live-restore"]).await;
    let mut run = place.open(&engine).await;
    let script = "echo one; read x < /shared/a; echo two; read x < /shared/b; exit 8";
    run.provider.start(place.script(script)).unwrap();
    assert_eq!(run.line().await, "one");

    engine.end();
    run.system("does not answer").await;
    assert_eq!(run.provider.list().len(), 1, "nobody saw it end");
    assert!(run.ends.try_recv().is_err());
    engine.run().await;
    run.system("is back").await;
    write(first, "go\n").await;
    assert_eq!(run.line().await, "two");

    // Found again by the next server, although the engine is away when that starts.
    drop(run);
    engine.end();
    let mut run = place.open(&engine).await;
    assert_eq!(run.provider.list(), []);
    engine.run().await;
    let late = crate::place::within(run.late.recv()).await.unwrap();
    assert_eq!(late.worker, place.name("w-1"));
    assert_eq!(run.provider.list(), [late]);
    write(second, "go\n").await;
    let ended = run.end().await;
    assert_eq!(ended.exit, Exit::Code(8));
    assert_eq!(ended.last_lines, ["one", "two"]);
    assert!(engine.containers(&place.label()).await.is_empty());
}

#[tokio::test]
async fn a_worker_that_ends_with_its_engine_is_reported_when_that_is_back() {
    let place = Place::new();
    place.fifo("never");
    let mut engine = Engine::start(&[]).await;
    let mut run = place.open(&engine).await;
    let script = "trap 'exit 0' TERM; exec 3<>/shared/never; echo one; read x <&3";
    run.provider.start(place.script(script)).unwrap();
    assert_eq!(run.line().await, "one");
    engine.end();
    run.system("does not answer").await;
    assert_eq!(run.provider.list().len(), 1);
    assert!(run.ends.try_recv().is_err(), "an end that nobody saw");
    engine.run().await;
    let ended = run.end().await;
    assert_eq!(
        (ended.exit, ended.last_lines),
        (Exit::Code(0), vec!["one".to_owned()])
    );
    assert!(engine.containers(&place.label()).await.is_empty());
    assert_eq!(place.files(), 0);
}
