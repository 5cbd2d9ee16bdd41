//! A cluster does what a real server does, because it is one.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use lazyfox_testing::{Authority, Mode, Options, Postgres, shared};
use tokio_postgres::config::{ChannelBinding, Config, SslMode};
use tokio_postgres::error::SqlState;

use crate::client::{connect, connect_tls, guarded};
use crate::process::Process;

#[tokio::test]
async fn every_database_is_new_and_empty() {
    let [one, other] = [shared().database(), shared().database()];
    let session = connect(&one).await.unwrap();
    session.run("CREATE TABLE foxes (name text)").await.unwrap();
    let tables = "SELECT count(*)::text FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(session.ask(tables).await, "1");
    assert_eq!(connect(&other).await.unwrap().ask(tables).await, "0");
    assert_eq!(shared().psql(&one, tables), "1");
    assert_eq!(shared().psql(&other, tables), "0");
}

#[test]
fn psql_answers_in_lines_and_fields() {
    let rows = "SELECT n, 'fox' FROM generate_series(1, 2) AS n ORDER BY n";
    assert_eq!(shared().psql("postgres", rows), "1|fox\n2|fox");
    let refused = catch_unwind(|| shared().psql("postgres", "SELECT missing"));
    let said = refused.unwrap_err().downcast::<String>().unwrap();
    assert!(said.contains("column \"missing\" does not exist"), "{said}");
}

#[tokio::test]
async fn a_restart_keeps_the_data_and_the_port() {
    let postgres = Postgres::start(Options::default());
    let url = postgres.database();
    let session = connect(&url).await.unwrap();
    let table = "CREATE TABLE foxes AS SELECT 'Reynard' AS name";
    session.run(table).await.unwrap();
    let first = postgres.pid();

    postgres.restart(Mode::Fast);
    assert_ne!(postgres.pid(), first);
    let session = connect(&url).await.unwrap();
    assert_eq!(session.ask("SELECT name FROM foxes").await, "Reynard");

    // As in a crash, also of what is only in memory.
    session.run("UPDATE foxes SET name = 'Todd'").await.unwrap();
    session.run("BEGIN; DELETE FROM foxes").await.unwrap();
    postgres.stop(Mode::Immediate);
    let ended = guarded("the end of the connection", session.connection).await;
    assert!(ended.unwrap().is_err());
    assert!(TcpStream::connect(postgres.address()).is_err());
    assert!(connect(&url).await.is_err());

    postgres.start_again();
    let session = connect(&url).await.unwrap();
    assert_eq!(session.ask("SELECT name FROM foxes").await, "Todd");
}

#[test]
fn settings_are_those_that_were_asked_for() {
    let fast = shared();
    assert_eq!(fast.psql("postgres", "SHOW fsync"), "off");
    assert_eq!(fast.psql("postgres", "SHOW synchronous_commit"), "on");
    assert_eq!(fast.psql("postgres", "SHOW server_encoding"), "UTF8");

    let within = tempfile::tempdir().unwrap();
    // The server may run as another account, which has to get there.
    fs::set_permissions(within.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let durable = Postgres::start(Options {
        durable: true,
        max_connections: 33,
        within: Some(within.path().to_owned()),
        settings: vec![
            ("search_path".into(), "foxes, \"it's\"".into()),
            ("password_encryption".into(), "md5".into()),
        ],
        ..Options::default()
    });
    let url = durable.url();
    assert_eq!(durable.psql(&url, "SHOW fsync"), "on");
    assert_eq!(durable.psql(&url, "SHOW full_page_writes"), "on");
    assert_eq!(durable.psql(&url, "SHOW synchronous_commit"), "on");
    assert_eq!(durable.psql(&url, "SHOW max_connections"), "33");
    assert_eq!(durable.directory().parent(), Some(within.path()));
    assert_eq!(durable.psql(&url, "SHOW search_path"), "foxes, \"it's\"");
    assert_eq!(durable.psql(&url, "SHOW password_encryption"), "md5");
}

#[tokio::test]
async fn tls_needs_the_authority_and_the_password() {
    let password = "fox's p@ss/word?";
    let postgres = Postgres::start(Options {
        tls: true,
        password: Some(password.into()),
        ..Options::default()
    });
    let url = postgres.database();
    let mut config: Config = url.parse().unwrap();
    assert_eq!(config.get_password(), Some(password.as_bytes()));
    // Bound to the certificate: the client has seen the one that the server has.
    config.channel_binding(ChannelBinding::Require);

    let session = connect_tls(&config, &postgres.ca_pem()).await.unwrap();
    let sql = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(session.ask(sql).await, "true");
    assert_eq!(
        postgres.psql(&url, "SELECT 'by the socket'"),
        "by the socket"
    );

    let stranger = connect_tls(&config, &Authority::new().pem()).await;
    let error = format!("{:?}", stranger.err().unwrap());
    assert!(error.contains("InvalidCertificate"), "{error}");

    config.password("wrong");
    let refused = connect_tls(&config, &postgres.ca_pem())
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), Some(&SqlState::INVALID_PASSWORD));

    config.password(password).ssl_mode(SslMode::Disable);
    config.channel_binding(ChannelBinding::Disable);
    let plain = connect_tls(&config, &postgres.ca_pem())
        .await
        .err()
        .unwrap();
    let code = Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
    assert_eq!(plain.code(), code, "{plain:?}");
}

#[tokio::test]
async fn a_password_is_asked_for_without_tls_too() {
    let postgres = Postgres::start(Options {
        password: Some("known".into()),
        ..Options::default()
    });
    let url = postgres.url();
    connect(&url).await.unwrap();
    let refused = connect(&url.replace("known", "guessed")).await.err();
    assert_eq!(refused.unwrap().code(), Some(&SqlState::INVALID_PASSWORD));
}

#[test]
fn nothing_is_left_of_a_test_that_panics() {
    let found = Mutex::new(None);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let postgres = Postgres::start(Options::default());
        let server = Process::find(postgres.pid());
        *found.lock().unwrap() = Some((server, postgres.directory().to_owned()));
        panic!("as a test does that fails");
    }));
    assert!(outcome.is_err());
    let (server, directory) = found.into_inner().unwrap().expect("it was started");
    server.expect("it ran").until_ended("the server");
    assert!(!directory.exists());
}

#[test]
fn a_server_that_does_not_start_says_why() {
    let outcome = catch_unwind(|| {
        Postgres::start(Options {
            settings: vec![("foxes".into(), "many".into())],
            ..Options::default()
        })
    });
    let said = outcome.err().unwrap().downcast::<String>().unwrap();
    let reason = "unrecognized configuration parameter \"foxes\"";
    assert!(said.contains(reason), "{said}");
}
