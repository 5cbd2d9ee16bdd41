//! A worker's life: what is said of it, what it sees, and how its end is reported.

use lazyfox::providers::{Ended, Exit, Found, Provider as _, Pull, Release};
use lazyfox_core::time::Timestamp;

use crate::engine;
use crate::place::{Place, Said, run_of, write};

#[tokio::test]
async fn a_worker_is_started_heard_and_its_end_reported() {
    let (engine, place) = (engine::shared().await, Place::new());
    let fifo = place.fifo("go");
    let mut run = place.open(&engine).await;
    let script = "echo out; echo err >&2; read x < /shared/go; exit 3";
    let mut spec = place.script(script);
    let url = "http://127.0.0.1:8000/v2/ep/job-take/w-1?gpu=".to_owned();
    spec.env.push(("RUNPOD_WEBHOOK_GET_JOB".to_owned(), url));
    run.provider.start(spec).unwrap();
    let found = Found {
        worker: place.name("w-1"),
        endpoint: "ep".parse().unwrap(),
        started_at: Timestamp::from_ms(1_000),
        release: Release(7),
        gpus: Vec::new(),
    };
    assert_eq!(run.provider.list(), [found], "while it is being made");
    run.system("creating container").await;
    let started = run.system("started container").await;
    assert!(
        started.contains("(network host, server http://127.0.0.1:8000)"),
        "{started}"
    );
    assert_eq!(run.said.recv().await, Some(Said::Runs(place.name("w-1"))));
    // Of two streams the engine may hear the second first.
    let mut lines = [run.line().await, run.line().await];
    lines.sort();
    assert_eq!(lines, ["err", "out"]);
    assert_eq!(engine.containers(&place.label()).await.len(), 1);

    write(fifo, "go\n").await;
    let ended = run.end().await;
    assert_eq!(ended.exit, Exit::Code(3));
    assert_eq!(
        (ended.worker, ended.last_lines.len()),
        (place.name("w-1"), 2)
    );
    assert_eq!(run.provider.list(), []);
    assert!(engine.containers(&place.label()).await.is_empty());
    assert_eq!(place.files(), 0);
}

#[tokio::test]
async fn one_that_dies_at_once_is_heard_to_its_last_word() {
    let (engine, place) = (engine::shared().await, Place::new());
    let mut run = place.open(&engine).await;
    let script = place.script("printf 'Traceback\\nno end'; kill -9 $$");
    let (ended, lines) = run.run_out(script).await;
    let expected = Ended {
        worker: place.name("w-1"),
        endpoint: "ep".parse().unwrap(),
        exit: Exit::Signal(9),
        last_lines: vec!["Traceback".to_owned(), "no end".to_owned()],
    };
    assert_eq!(ended, expected);
    assert_eq!(lines, expected.last_lines);
}

#[tokio::test]
async fn output_is_heard_in_order_however_much_and_however_long_its_lines() {
    let (engine, place) = (engine::shared().await, Place::new());
    let mut run = place.open(&engine).await;
    // Beyond the size at which the engine begins a new file.
    let script = "x=xxxxxxxxxxxxxxxx; x=$x$x$x$x$x$x$x$x; x=$x$x$x$x$x$x$x$x; i=0; \
        while [ $i -lt 20000 ]; do echo $i $x; i=$((i+1)); done; \
        x=$x$x$x$x; x=$x$x$x$x$x$x$x$x; echo $x$x$x; exit 4";
    let (ended, lines) = run.run_out(place.script(script)).await;
    assert_eq!(ended.exit, Exit::Code(4));
    let number = |line: &String| line.split_once(' ')?.0.parse::<usize>().ok();
    let numbers: Vec<usize> = lines.iter().filter_map(number).collect();
    let step = numbers.windows(2).find(|pair| pair[0] >= pair[1]);
    assert_eq!(step, None, "of {}", numbers.len());
    assert_eq!(numbers.last(), Some(&19_999));
    let pieces: Vec<usize> = lines
        .iter()
        .filter(|it| !it.contains(' '))
        .map(String::len)
        .collect();
    assert_eq!(pieces, [16_384; 6], "a line of 96 KiB");
}

#[tokio::test]
async fn workers_have_what_they_are_promised_and_nothing_of_the_server() {
    let (engine, place) = (engine::shared().await, Place::new());
    let mut run = place.open(&engine).await;
    let (_, lines) = run.run_out(place.script("export -p")).await;
    let names = lines.iter().filter_map(|line| line.strip_prefix("export "));
    let mut names: Vec<&str> = names.collect();
    // What the shell and the engine set themselves.
    let own = |name: &str| {
        [
            "HOME",
            "HOSTNAME",
            "OLDPWD",
            "PATH",
            "PWD",
            "TERM",
            "container",
        ]
        .contains(&name)
    };
    names.retain(|line| !own(line.split('=').next().unwrap_or_default()));
    let expected = [
        "NO_PROXY='127.0.0.1'",
        "NVIDIA_VISIBLE_DEVICES='void'",
        "PROMISED='yes and no'",
        "PYTHONUNBUFFERED='1'",
        "no_proxy='127.0.0.1'",
    ];
    assert_eq!(names, expected, "{lines:?}");
}

#[tokio::test]
async fn entry_points_and_commands_overrule_the_images_and_ends_of_children_are_noted() {
    let (engine, place) = (engine::shared().await, Place::new());
    let mut run = place.open(&engine).await;
    let mut spec = place.script("");
    run_of(&mut spec).entrypoint = Some(vec!["/bin/sh".to_owned(), "-c".to_owned()]);
    // The first process of the container is one that waits for children.
    run_of(&mut spec).command = Some(vec!["read x < /proc/1/comm; echo $x $$".to_owned()]);
    let (_, lines) = run.run_out(spec).await;
    let (first, own) = lines[0].split_once(' ').unwrap();
    assert!(
        ["docker-init", "tini", "podman-init"].contains(&first),
        "{first}"
    );
    assert_ne!(own, "1");
}

#[tokio::test]
async fn a_container_that_cannot_be_made_or_started_says_why_and_leaves_nothing() {
    let (engine, place) = (engine::shared().await, Place::new());
    let mut run = place.open(&engine).await;
    let check = async |run: &mut crate::place::Served, spec, words: &[&str]| {
        let (ended, lines) = run.run_out(spec).await;
        let Exit::NotStarted(why) = ended.exit else {
            panic!("{:?}", ended.exit);
        };
        assert!(words.iter().all(|word| why.contains(word)), "{why}");
        assert_eq!(lines, [""; 0]);
        assert!(engine.containers(&place.label()).await.is_empty());
    };

    // Made, but a directory cannot be mounted where a file is.
    let mut spec = place.script("");
    run_of(&mut spec).mounts[0].to = "/bin/sh".into();
    check(&mut run, spec, &["image lazyfox-test-small:1: ", "mount"]).await;

    let mut spec = place.script("");
    let missing = place.shared().join("missing");
    run_of(&mut spec).mounts[0].from.clone_from(&missing);
    check(
        &mut run,
        spec,
        &["image lazyfox-test-small:1: ", missing.to_str().unwrap()],
    )
    .await;
    assert!(!missing.exists(), "the engine made a directory");

    let mut spec = place.script("");
    run_of(&mut spec).image = "lazyfox-test-none:1".to_owned();
    run_of(&mut spec).pull = Pull::Never;
    check(
        &mut run,
        spec,
        &["image lazyfox-test-none:1: ", "pull is \"never\""],
    )
    .await;
    assert_eq!(place.files(), 0);

    // That a program is not there is found out by the first process of the container.
    let mut spec = place.script("");
    run_of(&mut spec).command = Some(vec!["/no/such/program".to_owned()]);
    let (ended, lines) = run.run_out(spec).await;
    assert_eq!(ended.exit, Exit::Code(127));
    assert!(lines[0].contains("/no/such/program"), "{lines:?}");
}

#[tokio::test]
async fn without_an_engine_a_start_says_where_one_was_looked_for() {
    let place = Place::new();
    let engine = crate::engine::Engine::nowhere();
    let mut run = place.open(&engine).await;
    let (ended, _) = run.run_out(place.script("")).await;
    let Exit::NotStarted(why) = ended.exit else {
        panic!("{:?}", ended.exit);
    };
    let expected = format!("the container engine at {} does not answer", engine.host());
    assert!(why.starts_with(&expected), "{why}");
}

#[tokio::test]
async fn a_network_in_which_the_server_is_out_of_reach_is_refused() {
    let (engine, place) = (engine::shared().await, Place::new());
    let run = place.open(&engine).await;
    let mut spec = place.script("");
    run_of(&mut spec).network = Some("jobs".to_owned());
    let why = run.provider.start(spec).unwrap_err().to_string();
    assert!(why.contains("server.worker_url"), "{why}");
    assert_eq!(run.provider.list(), []);
    assert!(!place.data().exists(), "nothing was asked of an engine");
}
