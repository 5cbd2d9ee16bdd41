//! A client of PostgreSQL, with TLS where the URL asks for it, and bounds for whatever is waited
//! for.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::task::JoinHandle;
use tokio_postgres::config::Config;
use tokio_postgres::{Client, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Bound of every wait: far more than anything takes on a busy machine.
pub(crate) const GUARD: Duration = Duration::from_secs(60);

/// Awaits something that must happen.
pub(crate) async fn guarded<F: Future>(what: &str, wait: F) -> F::Output {
    match tokio::time::timeout(GUARD, wait).await {
        Ok(output) => output,
        Err(_) => panic!("waited {GUARD:?} in vain: {what}"),
    }
}

pub(crate) struct Session {
    pub(crate) client: Client,
    /// Ends with the connection.
    pub(crate) connection: JoinHandle<Result<(), Error>>,
}

impl Session {
    /// The first field of the only row.
    pub(crate) async fn ask(&self, sql: &str) -> String {
        let rows = guarded(sql, self.client.query(sql, &[])).await.expect(sql);
        assert_eq!(rows.len(), 1, "{sql}");
        rows[0].get(0)
    }

    pub(crate) async fn run(&self, sql: &str) -> Result<(), Error> {
        guarded(sql, self.client.batch_execute(sql)).await
    }
}

pub(crate) async fn connect(url: &str) -> Result<Session, Error> {
    let (client, connection) = guarded(url, tokio_postgres::connect(url, NoTls)).await?;
    Ok(Session {
        client,
        connection: tokio::spawn(connection),
    })
}

/// Connects over TLS and believes only what this authority signed.
pub(crate) async fn connect_tls(config: &Config, authority: &str) -> Result<Session, Error> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(authority.as_bytes()).expect("it is PEM");
    roots.add(certificate).expect("it is a certificate");
    let provider = rustls::crypto::ring::default_provider();
    let tls = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("ring knows them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connected = config.connect(MakeRustlsConnect::new(tls));
    let (client, connection) = guarded("a connection over TLS", connected).await?;
    Ok(Session {
        client,
        connection: tokio::spawn(connection),
    })
}
