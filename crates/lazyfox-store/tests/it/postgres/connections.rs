//! What becomes of operations when the way to the database is not as it should be.

use std::sync::Arc;

use lazyfox_store::postgres::{Access, PostgresStore, Trust};
use lazyfox_store::{Parts, Store, StoreError};
use lazyfox_testing::{Options, Postgres, Proxy};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::world::*;

/// A database whose commits wait for a standby that there is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_not_said_to_have_failed() {
    let postgres = Postgres::start(Options::default());
    let url = postgres.database();
    let proxy = Proxy::start(postgres.address());
    let store = Arc::new(postgres_at(&proxy.through(&url)).await);
    submit(&*store, job(1)).await;
    let standby = |name: &str| {
        let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'");
        postgres.psql("postgres", &set);
        postgres.psql("postgres", "SELECT pg_reload_conf()");
    };
    standby("nobody");
    // The setting takes a moment; whoever commits before it does is answered.
    let mut next = 2;
    let (waiting, submitted) = loop {
        let (asked, n) = (Arc::clone(&store), next);
        let mut submitted = tokio::spawn(async move { asked.submit(job(n), START).await });
        let waits = async {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            while postgres.psql("postgres", sql) == "0" {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            done = &mut submitted => drop(done.unwrap().unwrap()),
            () = waits => break (n, submitted),
        }
        next += 1;
    };
    proxy.cut();
    let outcome = submitted.await.unwrap();
    assert!(
        matches!(outcome, Err(StoreError::Unknown(_))),
        "{outcome:?}"
    );
    standby("");
    proxy.restore();
    let found = store
        .load(&endpoint("a"), id(waiting), Parts::default())
        .await;
    assert!(found.unwrap().is_some());
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
