//! Sends one webhook once. Who is due and what happens after a try is decided elsewhere.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use lazyfox_core::delivery::{Outcome, TRY_TIMEOUT_MS};

/// Posts to receivers.
#[derive(Clone)]
pub struct Sender {
    /// For http, without roots: a container that has none can still use it.
    plain: reqwest::Client,
    /// For https, or why there is none.
    secure: Result<reqwest::Client, String>,
}

impl Sender {
    /// A sender that follows no redirects and uses no proxy: where a webhook goes is where its
    /// submitter said, and nobody else.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new() -> Result<Self> {
        // Another part of the process may have chosen already; then that choice stands.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("Lazyfox/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .timeout(Duration::from_millis(TRY_TIMEOUT_MS))
        };
        let plain = builder().tls_certs_only([]).build();
        let secure = builder().build().map_err(|e| chain(&e));
        if let Err(why) = &secure {
            tracing::warn!(%why, "webhooks to https URLs will fail");
        }
        let plain = plain.context("cannot set up the webhook sender")?;
        Ok(Self { plain, secure })
    }

    /// Posts a body. The answer's body is not read.
    pub async fn post(&self, url: &str, body: Bytes) -> Outcome {
        let http = match &self.secure {
            Ok(secure) => secure,
            Err(why) if url.starts_with("https:") => return Outcome::Failed(why.clone()),
            Err(_) => &self.plain,
        };
        let request = http
            .post(url)
            .header("content-type", "application/json")
            .body(body);
        match request.send().await {
            Ok(response) => Outcome::Answered(response.status().as_u16()),
            // Its URL often has a token in its query.
            Err(e) => Outcome::Failed(chain(&e.without_url())),
        }
    }
}

/// The error with its causes: the outermost alone only says that sending failed.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_went_wrong_does_not_tell_the_url() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        drop(taken);
        let sender = Sender::new().unwrap();
        for url in [
            format!("http://127.0.0.1:{port}/hook?token=s3cret"),
            "http://127.0.0.1:99999/hook?token=s3cret".to_owned(),
        ] {
            let Outcome::Failed(why) = sender.post(&url, Bytes::new()).await else {
                panic!("nobody listens there");
            };
            assert!(!why.contains("s3cret") && !why.contains("/hook"), "{why}");
        }
    }
}
