//! Workers of an earlier run of the server are found again, and nobody else's are touched.

use std::collections::HashMap;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use lazyfox::providers::{Exit, Provider as _, Release, Stop};

use crate::engine::{self, Engine};
use crate::image;
use crate::place::{Place, Said, write};

#[tokio::test]
async fn a_running_worker_goes_on_and_each_of_its_lines_is_said_once() {
    let (engine, place) = (engine::shared().await, Place::new());
    let [first, second, third] = ["a", "b", "c"].map(|name| place.fifo(name));
    let mut run = place.open(&engine).await;
    let script = "echo one; read x < /shared/a; echo two; read x < /shared/b; echo three; \
        read x < /shared/c; exit 5";
    let mut spec = place.script(script);
    spec.gpus = Vec::new();
    run.provider.start(spec).unwrap();
    assert_eq!(run.line().await, "one");
    let found = run.provider.list();
    assert_eq!(found[0].release, Release(7));
    drop(run);

    // While there is no server.
    write(first, "go\n").await;
    let mut run = place.open(&engine).await;
    assert_eq!(run.provider.list(), found);
    write(second, "go\n").await;
    assert_eq!(
        run.line().await,
        "two",
        "it was written while there was no server"
    );
    assert_eq!(run.line().await, "three");
    write(third, "go\n").await;
    let ended = run.end().await;
    assert_eq!(ended.exit, Exit::Code(5));
    assert_eq!(ended.last_lines, ["one", "two", "three"]);
    assert!(engine.containers(&place.label()).await.is_empty());
    assert_eq!(place.files(), 0);
}

#[tokio::test]
async fn one_that_ended_meanwhile_is_reported_with_its_exit_and_last_lines() {
    let (engine, place) = (engine::shared().await, Place::new());
    let fifo = place.fifo("go");
    let mut run = place.open(&engine).await;
    run.provider
        .start(place.script("echo one; read x < /shared/go; echo two; exit 6"))
        .unwrap();
    assert_eq!(run.line().await, "one");
    drop(run);
    let container = engine
        .containers(&place.label())
        .await
        .remove(0)
        .id
        .unwrap();
    write(fifo, "go\n").await;
    let docker = engine.docker().await;
    let mut gone = docker.wait_container(&container, None);
    let _ = crate::place::within(futures_util::StreamExt::next(&mut gone)).await;

    let mut run = place.open(&engine).await;
    assert_eq!(run.provider.list(), []);
    let ended = run.end().await;
    assert_eq!(
        (ended.worker, ended.exit),
        (place.name("w-1"), Exit::Code(6))
    );
    assert_eq!(ended.last_lines, ["one", "two"]);
    let said = run.all_said();
    assert_eq!(said, [Said::Line(place.name("w-1"), "two".to_owned())]);
    assert!(engine.containers(&place.label()).await.is_empty());
}

async fn make(engine: &Engine, name: &str, labels: &[(&str, &str)]) -> String {
    let labels = labels
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()));
    let body = ContainerCreateBody {
        image: Some(image::SMALL.to_owned()),
        cmd: Some(vec!["/bin/sh".to_owned()]),
        labels: Some(labels.collect::<HashMap<_, _>>()),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    let made = engine
        .docker()
        .await
        .create_container(Some(options), body)
        .await;
    made.expect("it is made").id
}

#[tokio::test]
async fn half_made_ones_are_removed_and_those_of_others_left_alone() {
    let (engine, place) = (engine::shared().await, Place::new());
    let mut run = place.open(&engine).await;
    // The first start gives the directory its id.
    run.run_out(place.script("exit 0")).await;
    drop(run);
    let label = place.label();
    let (_, server) = label.split_once('=').unwrap();
    let labels = |server: &'static str, worker: &'static str| {
        [
            ("dev.lazyfox.server", server),
            ("dev.lazyfox.worker", worker),
            ("dev.lazyfox.endpoint", "ep"),
            ("dev.lazyfox.release", "0"),
            ("dev.lazyfox.gpus", ""),
            ("dev.lazyfox.started_at", "1"),
        ]
    };
    let own = labels("", "half").map(|(name, value)| {
        let is_server = name == "dev.lazyfox.server";
        (name, if is_server { server } else { value })
    });
    make(&engine, "lazyfox-half", &own).await;
    let other = make(&engine, "lazyfox-other", &labels("another", "other")).await;
    let plain = make(&engine, "lazyfox-plain", &[]).await;

    let mut run = place.open(&engine).await;
    assert_eq!(run.provider.list(), []);
    assert!(engine.containers(&label).await.is_empty());
    assert!(
        run.ends.try_recv().is_err(),
        "whoever asked for it never heard that it started"
    );
    run.provider.stop(&place.name("other"), Stop::Now);
    let docker = engine.docker().await;
    for left in [other, plain] {
        let remove = RemoveContainerOptionsBuilder::new().force(true).build();
        docker
            .remove_container(&left, Some(remove))
            .await
            .expect("it is still there");
    }
}
