//! Jobs that kill the workers that run them.

use super::*;

/// Not to be given up for want of retries.
fn patient(poison_after: u32) -> Job {
    let mut job = queued();
    job.terms.retries_max = limits::RETRIES_MAX;
    job.terms.poison_after = poison_after;
    job
}

/// The job after a worker took it and was lost.
fn after(job: &Job, by: &str, lost: Event) -> Job {
    step(&taken(job, by, 10), lost, 20)
}

fn died(job: &Job, by: &str) -> Job {
    after(job, by, died_event(by, "left"))
}

fn dead(job: &Job) -> Vec<&str> {
    job.deaths.iter().map(|it| it.worker.as_str()).collect()
}

fn error(job: &Job) -> &str {
    job.state.end().unwrap().error.as_deref().unwrap()
}

#[test]
fn a_job_whose_workers_die_one_after_the_other_is_given_up_with_the_evidence() {
    let killed = "was killed by signal 9 (SIGKILL); its last output: a\nb";
    let first = after(&patient(2), "w1", died_event("w1", killed));
    assert_eq!((first.status(), first.retries), (Status::InQueue, 1));
    assert_eq!(dead(&first), ["w1"]);

    let event = died_event("w2", "exited with code 3");
    let last = apply(&taken(&first, "w2", 30), event, at(40)).unwrap();
    assert_eq!(last.job.status(), Status::Failed);
    assert_eq!(
        error(&last.job),
        "poison: 2 workers died in a row while they ran this job; 1: worker w1 was killed by signal 9 \
         (SIGKILL); its last output: a\nb; 2: worker w2 exited with code 3"
    );
    assert_eq!(last.job.retries, 1, "the second death was no retry");
    assert_eq!(last.job.barred, [worker("w1"), worker("w2")]);
    assert_eq!(
        last.effects,
        [
            Effect::ClearOutput,
            Effect::Count(Counter::Failed),
            Effect::Deliver
        ]
    );
}

#[test]
fn how_many_deaths_are_too_many_was_agreed() {
    let once = died(&patient(1), "w1");
    assert_eq!(
        error(&once),
        "poison: 1 worker died while it ran this job; 1: worker w1 left"
    );
    let mut job = patient(3);
    for by in ["w1", "w2"] {
        job = died(&job, by);
        assert_eq!(job.status(), Status::InQueue);
    }
    assert_eq!(died(&job, "w3").status(), Status::Failed);
}

#[test]
fn where_it_is_off_a_death_is_a_loss_like_any() {
    let mut job = patient(0);
    for (n, by) in ["w1", "w2", "w3"].into_iter().enumerate() {
        assert_eq!(job.retries as usize, n);
        job = died(&job, by);
    }
    assert_eq!((job.status(), job.deaths.len()), (Status::InQueue, 0));
    job.terms.retries_max = 3;
    assert_eq!(
        error(&died(&job, "w4")),
        "worker w4 left; gave up after 3 retries"
    );
}

#[test]
fn retries_that_are_used_up_end_a_job_before_the_deaths_do() {
    let mut job = queued();
    job.terms.retries_max = 0;
    let failed = died(&job, "w1");
    assert_eq!(error(&failed), "worker w1 left; automatic retries are off");
    assert_eq!(dead(&failed), ["w1"]);
}

#[test]
fn only_deaths_in_a_row_count() {
    let once = died(&patient(2), "w1");
    // The worker was silent, or asked for other work: no death, and the row is over.
    for quiet in [lost_event("w2"), Event::Clock] {
        let running = taken(&once, "w2", 30);
        let lost = step(&running, quiet, 30 + LEASE);
        assert_eq!((lost.status(), lost.retries), (Status::InQueue, 2));
        assert_eq!(dead(&lost), [""; 0]);
        let again = step(
            &taken(&lost, "w3", 90_000),
            died_event("w3", "left"),
            90_001,
        );
        assert_eq!(
            (again.status(), dead(&again)),
            (Status::InQueue, vec!["w3"])
        );
    }
    // What the server did says nothing of the job, for it or against it.
    for ours in [
        Event::Evict {
            worker: worker("w2"),
        },
        Event::HandBack {
            worker: worker("w2"),
            since: at(10),
        },
    ] {
        let back = after(&once, "w2", ours);
        assert_eq!((back.retries, dead(&back)), (1, vec!["w1"]));
        assert_eq!(died(&back, "w3").status(), Status::Failed);
    }
}

#[test]
fn a_retry_by_hand_begins_a_new_row() {
    let poisoned = died(&died(&patient(2), "w1"), "w2");
    let again = step(&poisoned, Event::Retry, 50);
    assert_eq!((dead(&again), again.retries), (vec![], 0));
    let third = died(&again, "w3");
    assert_eq!(
        (third.status(), dead(&third)),
        (Status::InQueue, vec!["w3"])
    );
}

#[test]
fn of_long_last_words_the_middle_is_left_out() {
    let limit = limits::DEATH_BYTES;
    let fits = "x".repeat(limit);
    assert_eq!(
        after(&patient(2), "w1", died_event("w1", &fits)).deaths[0].how,
        fits
    );

    let long = format!("exited with code 1: {}the reason", "é".repeat(limit));
    let job = after(&patient(2), "w1", died_event("w1", &long));
    let how = &job.deaths[0].how;
    assert!(how.len() <= limit && how.len() > limit - 4, "{}", how.len());
    assert!(how.starts_with("exited with code 1: é"));
    assert!(how.contains(" … ") && how.ends_with("éthe reason"));
}
