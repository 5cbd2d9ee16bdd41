//! The checker finds what it is there for: each of these histories breaks one promise.

use serde_json::json;

use super::*;

const TAG: &str = "kept-0-0";

/// Numbers the calls one after the other.
fn history(whats: Vec<What>) -> Vec<Entry> {
    let number = (0..).step_by(2);
    let entry = |(from, what): (u64, What)| Entry {
        from,
        to: from + 1,
        job: if matches!(what, What::Purged { .. }) {
            ""
        } else {
            "j"
        }
        .to_owned(),
        what,
    };
    number.zip(whats).map(entry).collect()
}

fn submitted() -> What {
    What::Submitted {
        tag: TAG.to_owned(),
    }
}

fn took() -> What {
    What::Took {
        worker: "w".to_owned(),
        input: load::input(TAG),
    }
}

fn posted(by: &str) -> What {
    What::Posted {
        worker: "w".to_owned(),
        result: PostedResult::Output(json!({"by": by})),
        acknowledged: true,
    }
}

fn failed() -> What {
    What::Posted {
        worker: "w".to_owned(),
        result: PostedResult::Error("broken".to_owned()),
        acknowledged: true,
    }
}

fn saw(status: &str, by: Option<&str>, error: Option<&str>) -> What {
    What::Saw(Seen {
        status: status.to_owned(),
        output: by.map(|by| json!({"by": by})),
        error: error.map(str::to_owned),
        worker: Some("w".to_owned()),
    })
}

fn completed(by: &str) -> What {
    saw("COMPLETED", Some(by), None)
}

#[track_caller]
fn check(whats: Vec<What>, expected: &[&str]) {
    let found = violations(&history(whats), &["j".to_owned()]);
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found} instead of {expected}");
    }
}

#[test]
fn ordinary_lives_are_fine() {
    check(vec![submitted(), took(), posted("w"), completed("w")], &[]);
    let failed_then_retried = vec![
        submitted(),
        took(),
        failed(),
        saw("FAILED", None, Some("broken")),
        What::Retried,
        took(),
        posted("w2"),
        completed("w2"),
    ];
    check(failed_then_retried, &[]);
    let cancelled = What::SawStatus("CANCELLED".to_owned());
    check(
        vec![
            submitted(),
            What::Cancelled,
            cancelled,
            saw("CANCELLED", None, None),
        ],
        &[],
    );
    let purge = What::Purged { endpoint: "kept" };
    check(vec![submitted(), purge, saw("CANCELLED", None, None)], &[]);
}

#[test]
fn lost_and_doubled_jobs_are_found() {
    let lived = history(vec![submitted(), took(), posted("w"), completed("w")]);
    assert_eq!(violations(&lived, &[]).len(), 1);
    assert_eq!(
        violations(&lived, &["j".to_owned(), "j".to_owned()]).len(),
        1
    );
    let mut doubled = lived;
    doubled[1].job = "k".to_owned();
    let found = violations(&doubled, &["j".to_owned(), "k".to_owned()]);
    assert!(
        found.iter().any(|text| text.contains("became")),
        "{found:?}"
    );
}

#[test]
fn changed_inputs_and_unfinished_jobs_are_found() {
    let input = load::input(TAG).replace("1.50e+2", "150.0");
    let other = What::Took {
        worker: "w".to_owned(),
        input,
    };
    check(
        vec![submitted(), other, posted("w"), completed("w")],
        &["another input"],
    );
    check(
        vec![submitted(), saw("IN_QUEUE", None, None)],
        &["did not end"],
    );
}

#[test]
fn ends_that_change_are_found() {
    let start = || {
        vec![
            submitted(),
            took(),
            posted("w"),
            posted("v"),
            completed("w"),
        ]
    };
    let after = |what| {
        let mut whats = start();
        whats.push(what);
        whats
    };
    check(after(completed("v")), &["and later"]);
    let twice = ["and later", "for no reason"];
    check(after(saw("FAILED", None, Some("x"))), &twice);
    let mut taken_again = after(took());
    taken_again.push(completed("w"));
    check(taken_again, &["and later"]);
    let cancelled = What::SawStatus("CANCELLED".to_owned());
    let undone = vec![
        submitted(),
        What::Cancelled,
        cancelled,
        took(),
        posted("w"),
        completed("w"),
    ];
    check(undone, &["and later", "and later"]);
    let not_retryable = vec![
        submitted(),
        took(),
        posted("w"),
        completed("w"),
        What::Retried,
        posted("v"),
        completed("v"),
    ];
    check(not_retryable, &["and later"]);
}

#[test]
fn ends_for_no_reason_and_ignored_results_are_found() {
    check(vec![submitted(), completed("w")], &["for no reason"]);
    check(
        vec![submitted(), saw("CANCELLED", None, None)],
        &["for no reason"],
    );
    let other_queue = What::Purged { endpoint: "swept" };
    check(
        vec![submitted(), other_queue, saw("CANCELLED", None, None)],
        &["for no reason"],
    );
    let late = What::Posted {
        worker: "w".to_owned(),
        result: PostedResult::TooLate,
        acknowledged: true,
    };
    let too_late = What::Saw(Seen {
        status: "COMPLETED".to_owned(),
        output: Some(json!("too late")),
        error: None,
        worker: None,
    });
    check(
        vec![submitted(), took(), late, too_late],
        &["for no reason"],
    );
    let working = saw("IN_PROGRESS", None, None);
    check(
        vec![submitted(), took(), posted("w"), working, completed("w")],
        &["was ignored"],
    );
}
