//! A store that moves: every kind of record there and back, all at once or not at all.

mod full;

use lazyfox_core::id::EndpointId;
use lazyfox_core::job::State;
use lazyfox_core::limits;
use lazyfox_store::moving::{Carrier, Record};
use lazyfox_store::postgres::{self, Access, Trust};
use lazyfox_store::sqlite::{self, SqliteStore};
use lazyfox_store::{Key, LeaseMs, Store, StoreError};
use tempfile::TempDir;

use self::full::{fill, seen};
use crate::world::*;

/// When an import is.
const MOVED: u64 = 5_000_000;

/// A store that can be opened, and looked at as a whole.
enum Home {
    Sqlite(TempDir),
    Postgres(String),
}

impl Home {
    fn sqlite() -> Self {
        Self::Sqlite(TempDir::new().unwrap())
    }

    fn postgres() -> Self {
        Self::Postgres(lazyfox_testing::shared().database())
    }

    async fn open(&self) -> Box<dyn Store> {
        match self {
            Self::Sqlite(dir) => {
                Box::new(SqliteStore::open_with_leases(dir.path(), at(MOVED), leases()).unwrap())
            }
            Self::Postgres(url) => Box::new(postgres_at(url).await),
        }
    }

    fn access(url: &str) -> Access {
        Access::parse(url, None, Trust::System, 2).unwrap()
    }

    async fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        let mut each = |record| {
            records.push(record);
            Ok::<_, StoreError>(())
        };
        match self {
            Self::Sqlite(dir) => {
                let mut holdings = sqlite::Holdings::open(dir.path()).unwrap();
                holdings.each(&mut each).unwrap();
            }
            Self::Postgres(url) => {
                let holdings = postgres::Holdings::open(&Self::access(url)).await.unwrap();
                holdings.each(&mut each).await.unwrap();
            }
        }
        records
    }

    async fn fill(&self, carrier: &mut Carried) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(dir) => sqlite::Holdings::open(dir.path())?.fill(carrier),
            Self::Postgres(url) => {
                let holdings = postgres::Holdings::make(&Self::access(url)).await?;
                holdings.fill(leases(), at(MOVED), carrier).await
            }
        }
    }
}

/// Endpoint `b` has leases of its own.
fn leases() -> LeaseMs {
    Box::new(|on: &EndpointId| {
        if on.as_str() == "b" {
            7_000
        } else {
            limits::LEASE_MS
        }
    })
}

/// Records on their way, and how they come back.
struct Carried {
    records: std::vec::IntoIter<Record>,
    back: Vec<Record>,
    /// What is said at the end.
    end: Result<(), StoreError>,
}

impl Carried {
    fn of(records: Vec<Record>) -> Self {
        Self {
            records: records.into_iter(),
            back: Vec::new(),
            end: Ok(()),
        }
    }
}

impl Carrier<StoreError> for Carried {
    fn next(&mut self) -> Result<Option<Record>, StoreError> {
        Ok(self.records.next())
    }

    fn read_back(&mut self, record: Record) -> Result<(), StoreError> {
        self.back.push(record);
        Ok(())
    }

    fn confirm(&mut self) -> Result<(), StoreError> {
        self.end.clone()
    }
}

/// Records have no equality: payloads are compared with all the rest, as text.
fn texts(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|record| format!("{record:#?}"))
        .collect()
}

fn kinds(records: &[Record]) -> [usize; 6] {
    let mut kinds = [0; 6];
    for record in records {
        let kind = match record {
            Record::Job(_) => 0,
            Record::Delivery(_) => 1,
            Record::Counters(_) => 2,
            Record::Endpoint(_) => 3,
            Record::Secret(..) => 4,
            Record::Key(_) => 5,
        };
        kinds[kind] += 1;
    }
    kinds
}

/// Fills one store, carries all to the other, and looks at both in every way that a server has.
async fn moves(from: Home, to: Home) {
    fill(&*from.open().await).await;
    let records = from.records().await;
    assert_eq!(kinds(&records), [14, 5, 2, 2, 3, 3]);
    let mut carried = Carried::of(records.clone());
    to.fill(&mut carried).await.unwrap();
    assert_eq!(texts(&carried.back), texts(&records));
    assert_eq!(texts(&to.records().await), texts(&records));
    assert_eq!(texts(&from.records().await), texts(&records));

    let (old, new) = (from.open().await, to.open().await);
    assert_eq!(seen(&*new).await, seen(&*old).await);
    leases_are_new(&*new).await;
    the_queue_goes_on(&*new).await;
}

/// Each running job has the lease that its endpoint grants, from the import (or the start) on.
async fn leases_are_new(store: &dyn Store) {
    let first = at(MOVED + 7_000);
    let early = at(MOVED + 6_999);
    assert_eq!(store.expire(early, 100).await.unwrap().changes, vec![]);
    let expired = store.expire(first, 100).await.unwrap();
    let lost: Vec<_> = expired.changes.iter().map(|it| it.job.id).collect();
    assert_eq!(lost, [id(31), id(32)]);
    assert_eq!(expired.next, at(MOVED + limits::LEASE_MS));
}

/// Jobs go out in the order in which they came, and what comes now is behind them.
async fn the_queue_goes_on(store: &dyn Store) {
    submit(store, job(90)).await;
    let taken = take(store, "w90", 10, MOVED + 8_000).await;
    assert_eq!(taken, [3, 1, 5, 6, 90, 2].map(id));
    let seqs = store.list(lazyfox_store::Query {
        endpoint: endpoint("a"),
        status: None,
        limit: 1,
        before: None,
    });
    assert_eq!(seqs.await.unwrap().jobs[0].id, id(90));
    // And so do deliveries.
    report(store, id(3), complete("w90"), "1").await;
    assert_eq!(deliveries(store).await[0].id, delivery_id(3, 1));
}

#[tokio::test]
async fn all_goes_from_sqlite_to_postgres() {
    moves(Home::sqlite(), Home::postgres()).await;
}

#[tokio::test]
async fn all_goes_from_postgres_to_sqlite() {
    moves(Home::postgres(), Home::sqlite()).await;
}

#[tokio::test]
async fn all_goes_from_sqlite_to_sqlite() {
    moves(Home::sqlite(), Home::sqlite()).await;
}

#[tokio::test]
async fn all_goes_from_postgres_to_postgres() {
    moves(Home::postgres(), Home::postgres()).await;
}

#[tokio::test]
async fn a_store_with_anything_in_it_is_not_filled() {
    for home in [Home::sqlite(), Home::postgres()] {
        let key = Key {
            id: "k1".to_owned(),
            label: String::new(),
            hash: [1; 32],
            access: lazyfox_store::Access::Admin,
            endpoints: None,
            created_at: START,
            revoked_at: None,
        };
        home.open().await.add_key(key).await.unwrap();
        let refused = home.fill(&mut Carried::of(Vec::new())).await;
        let Err(StoreError::Open(why)) = refused else {
            panic!("{refused:?}");
        };
        assert!(why.contains("is not empty (API keys: 1)"), "{why}");
    }
}

#[tokio::test]
async fn what_is_not_confirmed_is_not_kept() {
    let from = Home::sqlite();
    fill(&*from.open().await).await;
    let records = from.records().await;
    for home in [Home::sqlite(), Home::postgres()] {
        let no = StoreError::Corrupt("no".to_owned());
        let mut carried = Carried::of(records.clone());
        carried.end = Err(no.clone());
        assert_eq!(home.fill(&mut carried).await, Err(no));
        assert_eq!(carried.back.len(), records.len());
        assert_eq!(texts(&home.records().await), Vec::<String>::new());

        // The same, when it breaks off in the middle: two jobs cannot have one place.
        let mut twice = records.clone();
        twice.insert(5, records[0].clone());
        assert!(home.fill(&mut Carried::of(twice)).await.is_err());
        assert_eq!(texts(&home.records().await), Vec::<String>::new());

        home.fill(&mut Carried::of(records.clone())).await.unwrap();
        assert_eq!(texts(&home.records().await), texts(&records));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_of_one_moment() {
    let home = Home::postgres();
    let store = home.open().await;
    for n in 1..=40 {
        submit(&*store, job(n)).await;
    }
    let Home::Postgres(url) = &home else {
        unreachable!()
    };
    let holdings = postgres::Holdings::open(&Home::access(url)).await.unwrap();
    let mut statuses = Vec::new();
    let mut each = |record| {
        if let Record::Job(record) = record {
            if statuses.is_empty() {
                // Another server goes on beside this, while most is still to be read.
                tokio::task::block_in_place(|| {
                    tokio::runtime::Handle::current().block_on(async {
                        assert_eq!(take(&*store, "w1", 40, 0).await.len(), 40);
                        submit(&*store, job(50)).await;
                    });
                });
            }
            statuses.push(record.kept.job.state);
        }
        Ok::<_, StoreError>(())
    };
    holdings.each(&mut each).await.unwrap();
    assert_eq!(statuses, vec![State::Queued; 40]);
}
