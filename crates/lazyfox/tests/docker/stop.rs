//! How workers are ended.

use lazyfox::providers::{Exit, Provider as _, Stop};

use crate::engine;
use crate::place::Place;

#[tokio::test]
async fn asked_gently_a_worker_ends_in_its_own_way() {
    let (engine, place) = (engine::shared().await, Place::new());
    place.fifo("never");
    let mut run = place.open(&engine).await;
    let script = "trap 'echo bye; exit 7' TERM; exec 3<>/shared/never; echo ready; read x <&3";
    run.provider.start(place.script(script)).unwrap();
    assert_eq!(run.line().await, "ready");
    run.provider.stop(&place.name("w-1"), Stop::Gently);
    let ended = run.end().await;
    assert_eq!(
        (ended.exit, run.line().await),
        (Exit::Code(7), "bye".to_owned())
    );
}

#[tokio::test]
async fn one_that_does_not_listen_is_killed_with_its_children() {
    let (engine, place) = (engine::shared().await, Place::new());
    let fifo = place.fifo("held");
    let mut run = place.open(&engine).await;
    // The child holds the pipe open: when it can be read to its end, no process has it any more.
    let script = "trap 'echo no' TERM; exec 3> /shared/held; (trap '' TERM; while :; do :; done) & \
        echo ready; while :; do read x < /dev/zero; done";
    let held = tokio::spawn(async move {
        let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(fifo));
        crate::place::within(read).await.unwrap().unwrap()
    });
    run.provider.start(place.script(script)).unwrap();
    assert_eq!(run.line().await, "ready");
    run.provider.stop(&place.name("w-1"), Stop::Now);
    // Once more is no error, and neither is one that is not alive.
    run.provider.stop(&place.name("w-1"), Stop::Now);
    run.provider.stop(&place.name("w-2"), Stop::Now);
    assert_eq!(run.end().await.exit, Exit::Signal(9));
    assert_eq!(held.await.unwrap(), "");
    assert!(engine.containers(&place.label()).await.is_empty());
}

#[tokio::test]
async fn gently_then_now() {
    let (engine, place) = (engine::shared().await, Place::new());
    place.fifo("never");
    let mut run = place.open(&engine).await;
    let script = "trap 'echo no' TERM; echo ready; while :; do read x < /shared/never; done";
    run.provider.start(place.script(script)).unwrap();
    assert_eq!(run.line().await, "ready");
    run.provider.stop(&place.name("w-1"), Stop::Gently);
    // The shell complains of what the signal interrupted, too.
    while run.line().await != "no" {}
    assert_eq!(run.provider.list().len(), 1);
    run.provider.stop(&place.name("w-1"), Stop::Now);
    assert_eq!(run.end().await.exit, Exit::Signal(9));
}

#[tokio::test]
async fn one_that_is_stopped_before_it_runs_never_does() {
    let (engine, place) = (engine::shared().await, Place::new());
    let mut run = place.open(&engine).await;
    run.provider.start(place.script("echo ran")).unwrap();
    run.provider.stop(&place.name("w-1"), Stop::Gently);
    let ended = run.end().await;
    let Exit::NotStarted(why) = ended.exit else {
        panic!("{:?}", ended.exit);
    };
    assert_eq!(why, "it was stopped before its container ran");
    assert!(engine.containers(&place.label()).await.is_empty());
}
