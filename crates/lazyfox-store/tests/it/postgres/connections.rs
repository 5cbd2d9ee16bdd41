//! What becomes of operations when the way to the database is not as it should be.

use std::sync::Arc;

use bytes::Bytes;
use lazyfox_core::job::Status;
use lazyfox_store::postgres::{Access, PostgresStore, Trust};
use lazyfox_store::{Answer, Parts, Store, StoreError};
use lazyfox_testing::{Options, Postgres, Proxy};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::task::JoinHandle;

use crate::world::*;

/// A database whose commits can be made to hang, as they do while a standby does not answer, and a store
/// that reaches it through a proxy.
struct Hanging {
    postgres: Postgres,
    proxy: Proxy,
    store: Arc<PostgresStore>,
}

impl Hanging {
    async fn new() -> Self {
        let postgres = Postgres::start(Options::default());
        let url = postgres.database();
        let proxy = Proxy::start(postgres.address());
        let store = Arc::new(postgres_at(&proxy.through(&url)).await);
        Self {
            postgres,
            proxy,
            store,
        }
    }

    async fn until_hung(&self, hung: &str) {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        while self.postgres.psql("postgres", sql) != hung {
            tokio::task::yield_now().await;
        }
    }

    /// Operations one after the other, until the commit of one hangs; then its connection is lost, and the
    /// commit happens before there is another.
    async fn lose_an_answer<T: Send + 'static>(
        &self,
        next: impl Fn(Arc<PostgresStore>, u8) -> Answer<'static, T>,
    ) -> (u8, JoinHandle<Result<T, StoreError>>) {
        self.postgres.commits_wait_for("nobody");
        // The setting takes a moment; whoever commits before it does is answered.
        for n in 1.. {
            let mut asked = tokio::spawn(next(Arc::clone(&self.store), n));
            tokio::select! {
                done = &mut asked => drop(done.unwrap().unwrap()),
                () = self.until_hung("1") => {
                    self.proxy.cut();
                    return (n, asked);
                }
            }
        }
        unreachable!("it takes less than 256 commits")
    }

    async fn go_on(&self) {
        self.postgres.commits_wait_for("");
        self.until_hung("0").await;
        self.proxy.restore();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_not_said_to_have_failed() {
    let hanging = Hanging::new().await;
    let (n, submitted) = hanging
        .lose_an_answer(|store, n| Box::pin(async move { store.submit(job(n), START).await }))
        .await;
    let outcome = submitted.await.unwrap();
    assert!(
        matches!(outcome, Err(StoreError::Unknown(_))),
        "{outcome:?}"
    );
    hanging.go_on().await;
    let found = hanging.store.load(&endpoint("a"), id(n), Parts::default());
    assert!(found.await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_out_whose_answer_is_lost_is_given_again() {
    let hanging = Hanging::new().await;
    for n in 1..=255 {
        submit(&*hanging.store, job(n)).await;
    }
    let (n, leased) = hanging
        .lose_an_answer(|store, _| {
            Box::pin(async move { store.lease(ask("a", "w", 2), at(1)).await })
        })
        .await;
    hanging.go_on().await;
    let given = leased.await.unwrap().unwrap().handouts;
    let ids: Vec<_> = given.iter().map(|it| it.job.id).collect();
    assert_eq!(ids, [id(2 * n - 1), id(2 * n)]);
    assert_eq!(given[0].input, input_of(ids[0]));
    assert_eq!(given[0].job.status(), Status::InProgress);
    assert_eq!(take(&*hanging.store, "w", 1, 2).await, [id(2 * n + 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_whose_answer_is_lost_are_handed_out_all_the_same() {
    let hanging = Hanging::new().await;
    submit(&*hanging.store, job(1)).await;
    take(&*hanging.store, "w", 1, 1).await;
    let chunk = |n: u8| Bytes::from(n.to_string());
    let chunks = (1..=255).map(chunk).collect();
    let appended = hanging
        .store
        .append_chunks(&endpoint("a"), id(1), &worker("w"), chunks);
    appended.await.unwrap();
    let (n, drained) = hanging
        .lose_an_answer(|store, _| {
            Box::pin(async move { store.drain(&endpoint("a"), id(1), 1).await })
        })
        .await;
    hanging.go_on().await;
    assert_eq!(drained.await.unwrap().unwrap().unwrap().chunks, [chunk(n)]);
    let next = hanging.store.drain(&endpoint("a"), id(1), 1).await;
    assert_eq!(next.unwrap().unwrap().chunks, [chunk(n + 1)]);
}

#[tokio::test]
async fn what_was_not_sent_is_said_not_to_have_happened() {
    let postgres = lazyfox_testing::shared();
    let proxy = Proxy::start(postgres.address());
    let store = postgres_at(&proxy.through(&postgres.database())).await;
    proxy.cut();
    let outcome = store.submit(job(1), START).await;
    assert!(
        matches!(outcome, Err(StoreError::Unavailable(_))),
        "{outcome:?}"
    );
}

/// As after a failover behind one address: the old primary is a standby for a while.
#[tokio::test]
async fn sessions_that_only_read_are_not_kept() {
    let postgres = lazyfox_testing::shared();
    let url = postgres.database();
    let store = postgres_at(&url).await;
    let name = url.rsplit('/').next().unwrap();
    submit(&store, job(1)).await;
    let sql = format!(
        "ALTER DATABASE {name} SET default_transaction_read_only = on;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    );
    postgres.psql("postgres", &sql);
    let outcome = store.submit(job(2), START).await;
    assert!(
        matches!(
            outcome,
            Err(StoreError::Unavailable(_) | StoreError::Unknown(_))
        ),
        "{outcome:?}"
    );
    // Those that were made meanwhile go on as they are, and no other comes while there are some.
    let sql = format!("ALTER DATABASE {name} SET default_transaction_read_only = off");
    postgres.psql("postgres", &sql);
    submit(&store, job(3)).await;
}

/// As after the machine of the first lost its power: nothing comes back.
#[tokio::test]
async fn a_host_that_says_nothing_keeps_nobody_from_the_next() {
    let postgres = lazyfox_testing::shared();
    let silent = Proxy::start(postgres.address());
    silent.stall();
    let url = postgres.database();
    let both = format!("{},{}", silent.address(), postgres.address());
    let url = url.replace(&postgres.address().to_string(), &both);
    let url = format!("{url}?target_session_attrs=read-write");
    submit(&postgres_at(&url).await, job(1)).await;
}

/// As behind PgBouncer in the modes in which it lends sessions: whoever asks hears of the same one, or of
/// another one each time.
#[tokio::test]
async fn connections_that_are_no_sessions_are_refused() {
    let postgres = lazyfox_testing::shared();
    for session in ["7", "(random() * 1e9)::int"] {
        let url = postgres.database();
        let database = url.rsplit('/').next().unwrap();
        let lent = format!(
            "CREATE SCHEMA lent;
             CREATE FUNCTION lent.pg_backend_pid() RETURNS int AS 'SELECT {session}' LANGUAGE sql;
             ALTER DATABASE {database} SET search_path = lent, pg_catalog"
        );
        postgres.psql(&url, &lent);
        let access = Access::parse(&url, None, Trust::System, 4).unwrap();
        let Err(StoreError::Open(text)) = PostgresStore::open(&access, "here".to_owned()).await
        else {
            panic!("it was opened");
        };
        assert!(text.contains("pool_mode = session"), "{text}");
    }
}

#[tokio::test]
async fn a_database_with_tls_and_a_password() {
    const PASSWORD: &str = "p@ss/w:rd ' ?";
    let postgres = Postgres::start(Options {
        tls: true,
        password: Some(PASSWORD.to_owned()),
        ..Options::default()
    });
    let url = postgres.database();
    let (_, after) = url.split_once('@').unwrap();
    let bare = format!("postgres://postgres@{after}");
    let ca = CertificateDer::from_pem_slice(postgres.ca_pem().as_bytes()).unwrap();
    let roots = || Trust::Roots(vec![ca.clone()]);
    let open = async |url: &str, password: Option<&str>, trust: Trust| {
        let password = password.map(str::to_owned);
        let access = Access::parse(url, password, trust, 4).unwrap();
        PostgresStore::open(&access, "here".to_owned()).await
    };
    let refused = async |url: &str, password: Option<&str>, trust: Trust, why: &str| {
        let Err(StoreError::Open(text)) = open(url, password, trust).await else {
            panic!("it was opened");
        };
        assert!(text.contains(why), "{text}");
        assert!(!text.contains(PASSWORD), "{text}");
    };

    let store = open(&bare, Some(PASSWORD), roots()).await.unwrap();
    submit(&store, job(1)).await;
    let store = open(&url, None, roots()).await.unwrap();
    let found = store.load(&endpoint("a"), id(1), Parts::default()).await;
    assert!(found.unwrap().is_some());

    refused(
        &bare,
        Some("wrong"),
        roots(),
        "password authentication failed",
    )
    .await;
    refused(&bare, None, roots(), "password missing").await;
    refused(&bare, Some(PASSWORD), Trust::System, "UnknownIssuer").await;
    let open_text = bare.replace("sslmode=require", "sslmode=disable");
    refused(&open_text, Some(PASSWORD), roots(), "no encryption").await;
}
