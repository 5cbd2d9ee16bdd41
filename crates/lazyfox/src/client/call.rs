//! One request to the server and its answer.

use std::error::Error as _;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
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

const EVENT_STREAM: &str = "text/event-stream";

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
    /// Below the server's address, made of checked names.
    pub(super) path: String,
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) body: Option<String>,
    pub(super) idempotency_key: Option<&'a str>,
    /// How long the server may hold the answer back.
    pub(super) wait: Duration,
}

impl Request<'_> {
    /// A call below `/v2/`.
    pub(super) fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path: format!("v2/{path}"),
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

    /// A call about the server itself.
    pub(super) fn admin(name: &str) -> Self {
        Self {
            path: format!("admin/{name}"),
            ..Self::post(String::new())
        }
    }
}

impl Server {
    pub(super) fn new(connection: &Connection) -> Result<Self, Failure> {
        let base = base_url(&connection.url)?;
        let builder = http(&base).user_agent(concat!("lazyfox/", env!("CARGO_PKG_VERSION")));
        let http = builder.build().map_err(|error| Failure::Unreachable {
            url: base.to_string(),
            reason: reason(&error),
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
        let limit = request.wait + ANSWER_TIMEOUT;
        let outgoing = self.outgoing(request)?.timeout(limit);
        let response = outgoing
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let response = self.accepted(response).await?;
        let body = response
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        match String::from_utf8(body.into()) {
            Ok(text) => Ok(Reply {
                text,
                url: self.base.to_string(),
            }),
            Err(_) => Err(self.not_understood("the answer is not UTF-8".to_owned())),
        }
    }

    /// Opens a stream of server-sent events, which lasts for as long as both sides want. `last` is the id of
    /// the event after which it should go on.
    pub(super) async fn open(
        &self,
        request: Request<'_>,
        last: Option<&str>,
    ) -> Result<EventStream, Failure> {
        let mut outgoing = self.outgoing(request)?.header(header::ACCEPT, EVENT_STREAM);
        if let Some(last) = last {
            outgoing = outgoing.header("Last-Event-ID", last);
        }
        let opened = async {
            let response = outgoing.send().await;
            self.accepted(response.map_err(|error| self.unreachable(&error))?)
                .await
        };
        let response = match tokio::time::timeout(ANSWER_TIMEOUT, opened).await {
            Ok(response) => response?,
            Err(_) => {
                return Err(Failure::Unreachable {
                    url: self.base.to_string(),
                    reason: "timed out".to_owned(),
                    perhaps_received: true,
                });
            }
        };
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|it| it.to_str().ok()).unwrap_or("");
        if content_type.starts_with(EVENT_STREAM) {
            Ok(EventStream(response))
        } else {
            let reason = format!("{content_type:?} came instead of {EVENT_STREAM}");
            Err(self.not_understood(reason))
        }
    }

    /// The response if it is a 200.
    async fn accepted(&self, response: reqwest::Response) -> Result<reqwest::Response, Failure> {
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(response);
        }
        let headers = response.headers().clone();
        let body = response
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        Err(refusal(status, &headers, &body))
    }

    fn outgoing(&self, request: Request<'_>) -> Result<reqwest::RequestBuilder, Failure> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{}", self.base.path(), request.path));
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(request.query);
        }
        let mut outgoing = self.http.request(request.method, url);
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
        Ok(outgoing)
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
        Failure::Unreachable {
            url: self.base.to_string(),
            reason: reason(error),
            perhaps_received: !error.is_connect(),
        }
    }

    /// A stream ended that should have gone on.
    pub(super) fn broke_off(&self, reason: &str) -> Failure {
        Failure::Unreachable {
            url: self.base.to_string(),
            reason: format!("the connection is lost: {reason}"),
            perhaps_received: false,
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

/// An answer that goes on.
pub(super) struct EventStream(reqwest::Response);

impl EventStream {
    /// The next bytes; `None` at the end, and the reason where there should be more.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        self.0.chunk().await.map_err(|error| reason(&error))
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

/// What reaches this URL in one step and says so when there is more than one.
pub(crate) fn http(url: &Url) -> reqwest::ClientBuilder {
    // Another part of the process may have chosen one already; any will do.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        // A redirected POST arrives as a GET without its body; better say where it points to.
        .redirect(reqwest::redirect::Policy::none());
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    if url.scheme() == "http" {
        // The system's certificates are not needed, and a minimal container has none, which
        // would otherwise end it here.
        builder = builder.tls_certs_only([]);
    }
    builder
}

/// Accepts what people type: without a scheme, with a slash at the end, or with the `/v2` that the
/// public SDKs want in their base URL.
fn base_url(text: &str) -> Result<Url, Failure> {
    let text = text.trim_end_matches('/');
    let text = text.strip_suffix("/v2").unwrap_or(text);
    http_url(&format!("{text}/"), "--url")
}

/// A URL with or without its scheme.
pub(super) fn http_url(text: &str, option: &str) -> Result<Url, Failure> {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let has_scheme = text
        .split_once("://")
        .is_some_and(|(scheme, _)| scheme.chars().all(is_letter));
    let full = if has_scheme {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    match Url::parse(&full) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        Ok(_) => Err(Failure::Usage(format!(
            "{option} {text}: only http and https are spoken"
        ))),
        Err(error) => Err(Failure::Usage(format!("{option} {text}: {error}"))),
    }
}

/// A proxy cannot know which machine is meant by such a name.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback_address = host
        .parse::<IpAddr>()
        .is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified());
    host == "localhost" || host.ends_with(".localhost") || is_loopback_address
}

/// The cause at the bottom: "connection refused" tells more than "error sending request".
pub(crate) fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
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
    fn urls_may_lack_their_scheme() {
        for (text, expected) in [
            ("localhost:3000/hook", "http://localhost:3000/hook"),
            ("a/?to=https://b", "http://a/?to=https://b"),
            ("https://a", "https://a/"),
        ] {
            assert_eq!(http_url(text, "--forward").unwrap().as_str(), expected);
        }
        assert!(http_url("ftp://a", "--forward").is_err());
    }

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
