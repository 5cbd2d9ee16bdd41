//! One request to the server and its answer.

use std::error::Error as _;
use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{self, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::args::{Connection, DEFAULT_URL};
use super::failure::Failure;
use super::job::Job;

/// A host that does not answer at all is reported after this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for an answer, on top of what the server was asked to hold it back. Generous, because a
/// submit may carry megabytes over a slow line.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How much of an answer that is no JSON is worth showing.
const FOREIGN_TEXT_CHARS: usize = 300;

/// The server as this client reaches it.
pub(super) struct Server {
    http: reqwest::Client,
    base: Url,
    authorization: Option<HeaderValue>,
}

/// One request: what differs from call to call.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    /// Below `/v2/`, made of checked names.
    pub(super) path: String,
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) body: Option<String>,
    pub(super) idempotency_key: Option<&'a str>,
    /// How long the server may hold the answer back.
    pub(super) wait: Duration,
}

impl Request<'_> {
    pub(super) fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            query: &[],
            body: None,
            idempotency_key: None,
            wait: Duration::ZERO,
        }
    }

    pub(super) fn post(path: String) -> Self {
        Self {
            method: Method::POST,
            ..Self::get(path)
        }
    }
}

impl Server {
    pub(super) fn new(connection: &Connection) -> Result<Self, Failure> {
        let base = base_url(&connection.url)?;
        // Another part of the process may have chosen one already; any will do.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("lazyfox/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            // A redirected POST arrives as a GET without its body; better say where it points to.
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        if base.scheme() == "http" {
            // The system's certificates are not needed, and a minimal container has none, which
            // would otherwise end it here.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(|error| Failure::Unreachable {
            url: base.to_string(),
            reason: deepest(&error),
            perhaps_received: false,
        })?;
        let authorization = match &connection.key {
            Some(key) if !key.is_empty() => {
                Some(header_value(&format!("Bearer {key}"), "the API key")?)
            }
            Some(_) | None => None,
        };
        Ok(Self {
            http,
            base,
            authorization,
        })
    }

    /// Sends the request and hands back the body of a 200.
    pub(super) async fn call(&self, request: Request<'_>) -> Result<Reply, Failure> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}v2/{}", self.base.path(), request.path));
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(request.query);
        }
        let mut outgoing = self
            .http
            .request(request.method, url)
            .timeout(request.wait + ANSWER_TIMEOUT);
        if let Some(value) = &self.authorization {
            outgoing = outgoing.header(header::AUTHORIZATION, value);
        }
        if let Some(key) = request.idempotency_key {
            let key = header_value(key, "--idempotency-key")?;
            outgoing = outgoing.header("Idempotency-Key", key);
        }
        if let Some(body) = request.body {
            outgoing = outgoing
                .header(header::CONTENT_TYPE, "application/json")
                .body(body);
        }
        let response = outgoing
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if status == 200 {
            return match String::from_utf8(body.into()) {
                Ok(text) => Ok(Reply {
                    text,
                    url: self.base.to_string(),
                }),
                Err(_) => Err(self.not_understood("the answer is not UTF-8".to_owned())),
            };
        }
        Err(refusal(status, &headers, &body))
    }

    /// The option that leads another command to this server; empty for the default address.
    pub(super) fn url_option(&self) -> String {
        let url = self.base.as_str().trim_end_matches('/');
        if url == DEFAULT_URL {
            String::new()
        } else {
            format!(" --url {url}")
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let reason = if error.is_timeout() {
            "timed out".to_owned()
        } else {
            deepest(error)
        };
        let perhaps_received = !error.is_connect();
        Failure::Unreachable {
            url: self.base.to_string(),
            reason,
            perhaps_received,
        }
    }

    fn not_understood(&self, reason: String) -> Failure {
        Failure::NotUnderstood {
            url: self.base.to_string(),
            reason,
        }
    }
}

/// The body of a 200.
pub(super) struct Reply {
    text: String,
    url: String,
}

impl Reply {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Reads the document, borrowing from it.
    pub(super) fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        serde_json::from_str(&self.text).map_err(|error| Failure::NotUnderstood {
            url: self.url.clone(),
            reason: error.to_string(),
        })
    }

    pub(super) fn job(&self) -> Result<Job<'_>, Failure> {
        self.parse()
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    error: String,
    code: Option<String>,
}

fn refusal(http_status: u16, headers: &header::HeaderMap, body: &[u8]) -> Failure {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let retry_after_s = header(header::RETRY_AFTER).and_then(|text| text.parse().ok());
    let (text, code) = match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => (body.error, body.code),
        // A proxy's page, most likely.
        Err(_) => match header(header::LOCATION) {
            Some(location) => (
                format!("the server sends us to {location}: set that as --url"),
                None,
            ),
            None => {
                let text = String::from_utf8_lossy(body);
                (text.trim().chars().take(FOREIGN_TEXT_CHARS).collect(), None)
            }
        },
    };
    let text = if text.is_empty() {
        "refused without a reason".to_owned()
    } else {
        text
    };
    Failure::Refused {
        http_status,
        code,
        text,
        retry_after_s,
    }
}

fn header_value(text: &str, name: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|_| {
        Failure::Usage(format!(
            "{name} has characters that cannot stand in an HTTP header"
        ))
    })
}

/// Accepts what people type: without a scheme, with a slash at the end, or with the `/v2` that the
/// public SDKs want in their base URL.
fn base_url(text: &str) -> Result<Url, Failure> {
    let text = text.trim_end_matches('/');
    let text = text.strip_suffix("/v2").unwrap_or(text);
    let full = if text.contains("://") {
        format!("{text}/")
    } else {
        format!("http://{text}/")
    };
    match Url::parse(&full) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        Ok(_) => Err(Failure::Usage(format!(
            "--url {text}: only http and https are spoken"
        ))),
        Err(error) => Err(Failure::Usage(format!("--url {text}: {error}"))),
    }
}

/// A proxy cannot know which machine is meant by such a name.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback_address = host
        .parse::<IpAddr>()
        .is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified());
    host == "localhost" || host.ends_with(".localhost") || is_loopback_address
}

/// The cause at the bottom: "connection refused" tells more than "error sending request".
fn deepest(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_reached_without_a_proxy() {
        for (url, expected) in [
            ("localhost:8000", true),
            ("http://fox.localhost", true),
            ("127.8.9.1", true),
            ("http://[::1]:8000/v2", true),
            ("localhost.example", false),
            ("https://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&base_url(url).unwrap()), expected, "{url}");
        }
    }
}
