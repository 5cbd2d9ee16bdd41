//! What is exported, imported or read while partitions go is complete, idempotency keys too.

use std::fmt::Write as _;

use lazyfox_core::job::{Event, Status};
use lazyfox_core::limits;
use lazyfox_store::moving::{Carrier, Record};
use lazyfox_store::postgres::Holdings;
use lazyfox_store::{Store, StoreError, Submitted};

use super::*;

#[tokio::test]
async fn one_key_is_one_job_on_several_servers() {
    let db = Database::new();
    let (a, b) = (db.server("a").await, db.server("b").await);
    for n in 0..40 {
        let key = format!("order {n}");
        let new = |m: usize| keyed(job_at(m, 0), &key, 1);
        let both = vec![a.submit(new(2 * n), at(0)), b.submit(new(2 * n + 1), at(0))];
        let mut said = String::new();
        for submitted in together(both).await {
            match submitted.unwrap() {
                Submitted::Accepted { .. } => said.push('+'),
                Submitted::Known(job, Status::InQueue) => write!(said, "{job}").unwrap(),
                other => panic!("{other:?}"),
            }
        }
        let (first, second) = (id_at(2 * n, 0), id_at(2 * n + 1, 0));
        assert!(
            said == format!("+{first}") || said == format!("{second}+"),
            "{said}"
        );
        let conflict = b.submit(keyed(job_at(999, 0), &key, 2), at(0)).await;
        assert!(
            matches!(conflict, Ok(Submitted::Conflict(_))),
            "{conflict:?}"
        );
    }
    assert_eq!(db.jobs(), "default|40");
    assert_eq!(db.sql("SELECT count(*) FROM lazyfox.idempotency"), "40");
    // With the jobs their keys are forgotten, and no others.
    end_many(&a, 30, 10).await;
    forget_all(&b, LATER).await;
    assert_eq!(db.sql("SELECT count(*) FROM lazyfox.idempotency"), "10");
    submit(&a, keyed(job_at(1_000, 0), "order 0", 2)).await;
    let known = a
        .submit(keyed(job_at(1_001, 0), "order 39", 1), at(0))
        .await;
    assert!(matches!(known, Ok(Submitted::Known(..))), "{known:?}");
}

/// Whoever comes while a partition goes waits, and sees everything in its new place: also an export, which
/// sees everything as of one moment.
#[tokio::test]
async fn nobody_misses_what_moves() {
    let db = Database::new();
    let store = db.server("here").await;
    filled(&store, &db).await;
    let name = format!("{}_{}", at(6_000).as_ms(), at(126_000).as_ms());
    let mut moves = "BEGIN".to_owned();
    for table in ["jobs", "inputs", "outputs", "chunks"] {
        let from = format!("lazyfox.{table}_{name}");
        write!(
            moves,
            "; ALTER TABLE lazyfox.{table} DETACH PARTITION {from};
             INSERT INTO lazyfox.{table} SELECT * FROM {from}; DROP TABLE {from}"
        )
        .unwrap();
    }
    let moving = session(&db.url, &moves).await;
    let ended = async {
        let waits = "SELECT count(DISTINCT pid) FROM pg_locks
            WHERE relation = 'lazyfox.jobs'::regclass AND NOT granted";
        loop {
            let row = moving.query_one(waits, &[]).await.unwrap();
            if row.get::<_, i64>(0) == 3 {
                break;
            }
        }
        moving.batch_execute("COMMIT").await.unwrap();
    };
    let cancelled = change(&store, id_at(8, 10_000), Event::Cancel, 20_000);
    let loaded = load(&store, id_at(7, 10_000));
    let (records, loaded, _, ()) = tokio::join!(exported(&db), loaded, cancelled, ended);
    assert!(loaded.is_some());
    let jobs = records.iter().filter(|it| matches!(it, Record::Job(_)));
    assert_eq!(jobs.count(), 2 * MANY);
}

async fn exported(db: &Database) -> Vec<Record> {
    let mut records = Vec::new();
    let mut each = |record| {
        records.push(record);
        Ok::<_, StoreError>(())
    };
    let holdings = Holdings::open(&db.access()).await.unwrap();
    holdings.each(&mut each).await.unwrap();
    records
}

struct Carried(std::vec::IntoIter<Record>);

impl Carrier<StoreError> for Carried {
    fn next(&mut self) -> Result<Option<Record>, StoreError> {
        Ok(self.0.next())
    }

    fn read_back(&mut self, _: Record) -> Result<(), StoreError> {
        Ok(())
    }

    fn confirm(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What is imported is as old as it was, and goes as what was submitted here.
#[tokio::test]
async fn an_import_has_a_partition_of_its_own() {
    let (from, to) = (Database::new(), Database::new());
    let old = from.server("old").await;
    for n in 0..4 {
        submit(&old, keyed(job_at(n, 0), &format!("order {n}"), 1)).await;
    }
    submit_many(&old, MANY, 10_000).await;
    let records = exported(&from).await;
    let holdings = Holdings::make(&to.access()).await.unwrap();
    let leases = Box::new(|_: &_| limits::LEASE_MS);
    let mut carried = Carried(records.into_iter());
    holdings
        .fill(leases, at(20_000), &mut carried)
        .await
        .unwrap();

    let part = (-START.as_ms(), 25_000);
    assert_eq!(to.parts(), [part]);
    assert_eq!(to.jobs(), format!("0_{}|304", at(25_000).as_ms()));
    let new = to.server("new").await;
    let known = new
        .submit(keyed(job_at(9, 30_000), "order 3", 1), at(30_000))
        .await;
    assert_eq!(known, Ok(Submitted::Known(id_at(3, 0), Status::InQueue)));
    let conflict = new
        .submit(keyed(job_at(9, 30_000), "order 3", 2), at(30_000))
        .await;
    assert_eq!(conflict, Ok(Submitted::Conflict(id_at(3, 0))));

    end_many(&new, MANY + 4, 30_000).await;
    forget_all(&new, LATER).await;
    new.prune(at(LATER + 600_000), 1).await.unwrap();
    assert_eq!(to.parts(), []);
    assert_eq!(to.sql("SELECT count(*) FROM lazyfox.idempotency"), "0");
    submit(&new, keyed(job_at(9, 30_000), "order 3", 2)).await;
}
