//! Images are pulled: seldom enough, with an account, once for many, and not for nobody.

use lazyfox::providers::{ContainerRun, Exit, Provider as _, Pull, RegistryLogin, Stop};

use crate::engine::{self, Engine};
use crate::place::{Place, Said, Served, run_of, within};
use crate::registry::{Pace, Registry};

fn of(registry: &Registry) -> ContainerRun {
    ContainerRun {
        image: registry.image(),
        ..ContainerRun::default()
    }
}

fn login(password: &str) -> RegistryLogin {
    RegistryLogin {
        server: "127.0.0.1".to_owned(),
        username: "robot".to_owned(),
        password: password.to_owned(),
    }
}

/// What was said, but lines of workers.
fn system(run: &mut Served) -> Vec<String> {
    let said = run.all_said().into_iter();
    let lines = said.filter_map(|said| match said {
        Said::System(_, line) => Some(line),
        Said::Line(..) | Said::Runs(_) => None,
    });
    lines.collect()
}

async fn not_started(run: &mut Served) -> String {
    match run.end().await.exit {
        Exit::NotStarted(why) => why,
        exit => panic!("{exit:?}"),
    }
}

#[tokio::test]
async fn an_image_that_is_not_here_is_pulled_and_how_far_it_is_is_said() {
    let (engine, place) = (engine::shared().await, Place::new());
    let script = "echo $OF_IMAGE $NO_PROXY";
    let registry = Registry::start(script, None, Pace::Slow).await;
    let mut run = place.open(&engine).await;
    run.provider
        .start(place.worker("w-1", of(&registry)))
        .unwrap();
    let image = registry.image();
    assert_eq!(run.system("pulling").await, format!("pulling {image}"));
    let progress = run.system("pulling").await;
    assert!(
        progress.starts_with(&format!("pulling {image}: 0 of 1 layers, ")),
        "{progress}"
    );
    assert!(progress.ends_with(" MB"), "{progress}");
    let pulled = run.system("pulled").await;
    assert!(
        pulled.starts_with(&format!("pulled {image} in ")),
        "{pulled}"
    );
    assert_eq!(run.line().await, "1 a.example,127.0.0.1");
    assert_eq!(run.end().await.exit, Exit::Code(0));

    // Now it is here.
    run.all_said();
    let (ended, _) = run.run_out(place.worker("w-2", of(&registry))).await;
    assert_eq!(ended.exit, Exit::Code(0));
    assert_eq!(registry.layers_given(), 1);
}

#[tokio::test]
async fn a_tag_that_moved_is_noticed_by_those_that_always_pull() {
    let (engine, place) = (engine::shared().await, Place::new());
    let registry = Registry::start("echo old", None, Pace::Fast).await;
    let mut run = place.open(&engine).await;
    let (_, lines) = run.run_out(place.worker("w-1", of(&registry))).await;
    assert_eq!(lines, ["old"]);
    registry.move_tag("echo new");
    let (_, lines) = run.run_out(place.worker("w-2", of(&registry))).await;
    assert_eq!(lines, ["old"], "it is here");
    let mut spec = place.worker("w-3", of(&registry));
    run_of(&mut spec).pull = Pull::Always;
    let (_, lines) = run.run_out(spec).await;
    assert_eq!(lines, ["new"]);
}

#[tokio::test]
async fn an_account_is_used_whatever_its_password_is_made_of_and_shown_nowhere() {
    // In base64 each of these becomes a letter that base64url does not have, wherever it stands.
    let password = "~~~???>>>öö~a?b>/+=:\"\\";
    let account = format!("robot:{password}");
    let (engine, place) = (engine::shared().await, Place::new());
    let registry = Registry::start("echo pulled", Some(&account), Pace::Fast).await;
    let mut run = place.open(&engine).await;
    for (name, login) in [("w-1", None), ("w-2", Some(login("wr0ng-secret")))] {
        let mut spec = place.worker(name, of(&registry));
        run_of(&mut spec).registry = login;
        run.provider.start(spec).unwrap();
        let why = not_started(&mut run).await;
        assert!(
            why.starts_with(&format!("image {}: ", registry.image())),
            "{why}"
        );
        assert!(
            why.contains("credentials") || why.contains("unauthorized"),
            "{why}"
        );
        let said = system(&mut run).join("\n");
        assert!(!said.contains("wr0ng-secret"), "{said}");
    }
    let mut spec = place.worker("w-3", of(&registry));
    run_of(&mut spec).registry = Some(login(password));
    let (ended, lines) = run.run_out(spec).await;
    assert_eq!(
        (ended.exit, lines),
        (Exit::Code(0), vec!["pulled".to_owned()])
    );
    let label = place.label();
    assert!(engine.containers(&label).await.is_empty());
}

#[tokio::test]
async fn a_registry_that_does_not_answer_fails_the_start() {
    let (engine, place) = (engine::shared().await, Place::new());
    let mut run = place.open(&engine).await;
    let mut spec = place.script("");
    run_of(&mut spec).image = "127.0.0.1:1/team/none:1".to_owned();
    run_of(&mut spec).pull = Pull::Missing;
    run.provider.start(spec).unwrap();
    let why = not_started(&mut run).await;
    assert!(why.starts_with("image 127.0.0.1:1/team/none:1: "), "{why}");
    assert!(why.contains("connection refused"), "{why}");
}

/// A worker whose image is held back.
async fn pulling(engine: &Engine, place: &Place) -> (Registry, Served) {
    let mut registry = Registry::start("echo ran", None, Pace::Held).await;
    let run = place.open(engine).await;
    let taken_on = run.provider.start(place.worker("w-1", of(&registry)));
    taken_on.expect("it is taken on");
    within(registry.begun.recv())
        .await
        .expect("the registry lives");
    (registry, run)
}

#[tokio::test]
async fn workers_share_one_pull_of_an_image() {
    let (engine, place) = (engine::shared().await, Place::new());
    let (mut registry, mut run) = pulling(&engine, &place).await;
    let manifests = registry.manifests_given();
    run.all_said();
    for name in ["w-2", "w-3"] {
        run.provider
            .start(place.worker(name, of(&registry)))
            .unwrap();
        run.system("pulling").await;
    }
    // One that does not wait any longer does not end it for the others.
    run.provider.stop(&place.name("w-1"), Stop::Now);
    assert_eq!(
        not_started(&mut run).await,
        "it was stopped before its container ran"
    );
    registry.let_go();
    for _ in 0..2 {
        assert_eq!(run.end().await.exit, Exit::Code(0));
    }
    within(registry.over.recv()).await.unwrap();
    assert_eq!(
        (registry.layers_given(), registry.manifests_given()),
        (1, manifests)
    );
}

#[tokio::test]
async fn a_pull_that_nobody_waits_for_is_ended() {
    let (engine, place) = (engine::shared().await, Place::new());
    let (mut registry, mut run) = pulling(&engine, &place).await;
    run.provider.stop(&place.name("w-1"), Stop::Gently);
    assert_eq!(
        not_started(&mut run).await,
        "it was stopped before its container ran"
    );
    // The engine hung up, or this would be held for ever.
    within(registry.over.recv()).await.unwrap();
    assert_eq!(run.provider.list(), []);
}
