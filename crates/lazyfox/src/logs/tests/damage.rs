//! What kills, full disks and people do to logs.

use std::fs;

use super::*;

#[tokio::test]
async fn a_half_line_of_a_kill_is_left_out() {
    let scene = Scene::new(1 << 20);
    scene.say("w", "whole");
    scene.say("w", "half");
    scene.logs.close().await;
    let (name, bytes) = scene.files().pop().unwrap();
    let file = scene.dir.path().join("logs/ep").join(name);
    // Any cut within the last line, its end included.
    let first = bytes.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    let mut scene = scene;
    for end in first..bytes.len() {
        fs::write(&file, &bytes[..end]).unwrap();
        scene = scene.restart().await;
        assert_eq!(scene.texts(Begin::After(0)).await, ["whole"], "{end}");
        scene.say("w", "next");
        assert_eq!(scene.texts(Begin::After(0)).await, ["whole", "next"]);
        scene.logs.close().await;
    }
    // Nothing of a line at all.
    fs::write(&file, b"").unwrap();
    let scene = scene.restart().await;
    scene.say("w", "next");
    assert_eq!(scene.texts(Begin::After(0)).await, ["next"]);
}

#[tokio::test]
async fn files_that_somebody_deleted_are_missing_and_nothing_more() {
    let scene = Scene::new(16 * 1024);
    for n in 0..100 {
        scene.say("w", &n.to_string());
    }
    let all = scene.texts(Begin::After(0)).await;
    let files = scene.files();
    let gone = files[1].1.iter().filter(|&&byte| byte == b'\n').count();
    let dir = scene.dir.path().join("logs/ep");
    fs::remove_file(dir.join(&files[1].0)).unwrap();
    fs::write(dir.join("notes.txt"), "of somebody").unwrap();
    let mut reader = scene.reader(Begin::After(0)).await;
    let (texts, missed) = rest(&mut reader).await;
    assert_eq!((texts.len(), missed), (all.len() - gone, 1));
    let scene = scene.restart().await;
    assert_eq!(scene.texts(Begin::Tail(1)).await, ["99"]);
}

#[tokio::test]
async fn what_comes_too_fast_is_left_out_and_counted() {
    let scene = Scene::new(64 << 20);
    // All at once, so that the writer cannot take any of it meanwhile.
    let worker: WorkerId = "w".parse().unwrap();
    let mut waiting = queue::Waiting::default();
    let line = |text: &str| Line {
        at: START,
        endpoint: ep(),
        worker: worker.clone(),
        job: None,
        source: Source::Worker,
        text: text.to_owned(),
    };
    waiting.lines.push(line("before"));
    for _ in 0..3 {
        waiting
            .dropped
            .entry(worker.clone())
            .or_default()
            .add(&line("x"));
    }
    scene.logs.queue.hold(ep(), waiting);
    scene.say("w", "one more");
    let marker = "4 lines are missing here: written faster than they could be kept";
    assert_eq!(scene.texts(Begin::After(0)).await, ["before", marker]);
    scene.say("w", "after");
    assert_eq!(scene.texts(Begin::Tail(2)).await, [marker, "after"]);
}

#[tokio::test]
async fn a_disk_that_takes_nothing_costs_lines_and_says_how_many() {
    let scene = Scene::new(1 << 20);
    // Where the directory should be made there is a file.
    let logs = scene.dir.path().join("logs");
    fs::write(&logs, "in the way").unwrap();
    scene.say("w1", "lost");
    assert_eq!(scene.texts(Begin::After(0)).await, [""; 0]);
    scene.say("w1", "lost too");
    scene.say("w2", "and this");
    assert_eq!(scene.texts(Begin::After(0)).await, [""; 0]);
    fs::remove_file(&logs).unwrap();
    scene.say("w1", "kept");
    let expected = [
        "2 lines are missing here: the disk did not take them",
        "1 line is missing here: the disk did not take them",
        "kept",
    ];
    assert_eq!(scene.texts(Begin::After(0)).await, expected);
    scene.say("w1", "next");
    let tail = scene.texts(Begin::Tail(2)).await;
    assert_eq!(tail, ["kept", "next"], "it is said once");
}

#[tokio::test]
async fn numbers_go_up_even_if_the_clock_goes_back_or_the_log_is_gone() {
    let scene = Scene::new(1 << 20);
    scene.say("w", "before");
    let before = scene.reader(Begin::Tail(0)).await.position();
    scene.clock.set_back(60_000);
    scene.say("w", "after");
    let after = scene.reader(Begin::Tail(0)).await.position();
    assert_eq!(after, before + 1);
    scene.clock.advance(120_000);
    scene.logs.close().await;
    fs::remove_dir_all(scene.dir.path().join("logs")).unwrap();
    let scene = scene.restart().await;
    scene.say("w", "anew");
    assert_eq!(scene.texts(Begin::After(after)).await, ["anew"]);
}
