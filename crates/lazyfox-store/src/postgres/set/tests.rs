use lazyfox_core::job::{Event, apply};
use lazyfox_core::policy::{Asked, Defaults, Terms};

use super::*;

const NOW: Timestamp = Timestamp::from_ms(1_000);

fn endpoint() -> EndpointId {
    "a".parse().unwrap()
}

fn found(seq: Seq) -> Found {
    let terms = Terms::agree(Asked::default(), &Defaults::default()).unwrap();
    let id = JobId::new(NOW, [u8::try_from(seq).unwrap(); 16], false);
    Found {
        seq,
        job: Job::submitted(id, endpoint(), terms, false, NOW),
        has_secrets: false,
        has_output: false,
    }
}

/// Others may have taken it, or ended it, since it was read.
#[test]
fn what_was_read_by_its_key_is_told_and_not_worked_on() {
    let mut set = Set::default();
    set.add_key(found(1), "key".to_owned(), [7; 32]);
    let (job, fingerprint) = set.by_idempotency_key(&endpoint(), "key").unwrap().unwrap();
    assert_eq!((job, fingerprint), (found(1).job, [7; 32]));
    assert_eq!(set.live().count(), 0);
    assert!(set.by_seq(1).unwrap().is_none());

    // Where it was locked as well, that is how it is.
    let take = Event::Take {
        worker: "w".parse().unwrap(),
        lease_ms: 1_000,
        waits: false,
    };
    let taken = Found {
        job: apply(&found(1).job, take, NOW).unwrap().job,
        ..found(1)
    };
    set.add(taken);
    let (job, _) = set.by_idempotency_key(&endpoint(), "key").unwrap().unwrap();
    assert_eq!(job.status(), Status::InProgress);
}

#[test]
fn after_a_try_that_may_have_happened_all_that_waits_is_named() {
    let mut set = Set::default();
    let seq = set.add(found(1));
    assert_eq!(set.returned(false), []);
    assert_eq!(set.news(false), News::default());
    assert_eq!(set.returned(true), [(endpoint(), seq)]);
    assert_eq!(set.news(true).queues, [(endpoint(), 1)]);
}
