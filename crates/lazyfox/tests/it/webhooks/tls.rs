//! Receivers over TLS, whose certificates must be good.

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{finished, last_error, reaches};
use crate::http::guarded;
use crate::receiver::Receiver;
use crate::server::TestServer;

on_each_store!(
    a_certificate_that_nobody_vouches_for_is_refused,
    a_receiver_without_tls_is_no_receiver
);

/// A server with a certificate that it made itself; gives what its first handshake came to.
async fn self_signed() -> (u16, tokio::task::JoinHandle<std::io::Result<()>>) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).expect("it can be done");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("it can be done")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("it can be done");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("it goes on");
    let port = listener.local_addr().expect("it can be done").port();
    let handshake = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        acceptor.accept(stream).await.map(drop)
    });
    (port, handshake)
}

async fn a_certificate_that_nobody_vouches_for_is_refused(s: &TestServer) {
    let (port, handshake) = self_signed().await;
    let url = format!("https://localhost:{port}/hook");
    let id = finished(s, &url, r#"{"output":1}"#).await;
    let delivery = reaches(s, &id, "pending", 1).await;
    let error = last_error(&delivery);
    assert!(error.contains("invalid peer certificate"), "{error}");
    let ended = guarded("the handshake ends", handshake)
        .await
        .expect("it goes on");
    assert!(ended.is_err(), "nothing was sent to who cannot be verified");
}

async fn a_receiver_without_tls_is_no_receiver(s: &TestServer) {
    let receiver = Receiver::start().await;
    let url = receiver.url().replace("http:", "https:");
    let id = finished(s, &url, r#"{"output":1}"#).await;
    receiver.answer_anything("HTTP/1.1 200 OK\r\n\r\n").await;
    let delivery = reaches(s, &id, "pending", 1).await;
    let error = last_error(&delivery);
    assert!(error.starts_with("cannot connect: "), "{error}");
}
