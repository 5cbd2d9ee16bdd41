//! Sends one webhook once. Who is due and what happens after a try is decided elsewhere.

pub mod lookup;
pub mod signature;
pub mod target;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use lazyfox_core::delivery::Outcome;
use lazyfox_core::id::EndpointId;
use lazyfox_core::limits;
use lazyfox_core::time::Timestamp;
use reqwest::Response;
use reqwest::header::RETRY_AFTER;
use rustix::io::Errno;

use self::lookup::{Guard, Lookup, Refused};
use self::signature::Signed;
use self::target::{Rules, Target};

/// Who posts.
pub const USER_AGENT: &str = concat!("Lazyfox/", env!("CARGO_PKG_VERSION"));
/// What is posted.
pub const CONTENT_TYPE: &str = "application/json";

/// How long a connection waits for its next use. Long enough while there is more to send; each takes a
/// file descriptor, and a post that meets the end of its connection is a lost try. Their number needs no
/// bound of its own: no more wait for a host than posts to it were under way at once.
const IDLE: Duration = Duration::from_secs(1);
/// How long connecting may go on, also when nobody waits for it any more: what found another connection
/// meanwhile leaves its own to the background.
const CONNECT: Duration = Duration::from_secs(10);

/// Posts to receivers.
#[derive(Clone)]
pub struct Sender {
    /// For http, without roots: a container that has none can still use it.
    plain: reqwest::Client,
    /// For https, or why there is none.
    secure: Result<reqwest::Client, String>,
    rules: Rules,
}

/// This machine has no connection left to give. Nothing was tried, and the receiver is not to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

/// A try to be made.
pub struct Post<'a> {
    /// Whose delivery it is.
    pub endpoint: &'a EndpointId,
    /// Where to.
    pub url: &'a str,
    /// By what the receiver knows it.
    pub signed: &'a Signed,
    /// What is sent.
    pub body: Bytes,
    /// When.
    pub now: Timestamp,
    /// How long it may take.
    pub timeout_ms: u64,
}

/// What a try came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// In short.
    pub outcome: Outcome,
    /// The first bytes of the answer's body, if there was an answer.
    pub answer: Option<String>,
}

impl Sender {
    /// A sender that follows no redirects and uses no proxy: where a webhook goes is where its
    /// submitter said, and nobody else.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(rules: Rules, lookup: Arc<dyn Lookup>) -> Result<Self> {
        // Another part of the process may have chosen already; then that choice stands.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            let guard = Guard {
                lookup: Arc::clone(&lookup),
                allow: rules.allow.clone(),
            };
            reqwest::Client::builder()
                .user_agent(USER_AGENT)
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .pool_idle_timeout(IDLE)
                .connect_timeout(CONNECT)
                .dns_resolver(Arc::new(guard))
        };
        let plain = builder().tls_certs_only([]).build();
        let secure = builder().build().map_err(|e| chain(&e));
        if let Err(why) = &secure {
            tracing::warn!(%why, "webhooks to https URLs will fail");
        }
        let plain = plain.context("cannot set up the webhook sender")?;
        Ok(Self {
            plain,
            secure,
            rules,
        })
    }

    /// Posts, and reads the answer up to its bound. Its status counts as soon as it is there: what comes
    /// after it, or does not come, changes nothing any more. `timeout` returns when the time is over.
    ///
    /// # Errors
    /// When this machine can open no further connection.
    pub async fn post(
        &self,
        post: Post<'_>,
        timeout: impl Future<Output = ()>,
    ) -> Result<Reply, Exhausted> {
        // Addresses in the URL are not looked up, so they are judged here, and again for each try: the
        // rules may have changed since the webhook was accepted.
        let target = match Target::parse(post.url, &self.rules) {
            Ok(target) => target,
            Err(e) => return Ok(Reply::unsent(e.to_string())),
        };
        let http = match &self.secure {
            Ok(secure) => secure,
            Err(why) if target.url().scheme() == "https" => {
                return Ok(Reply::unsent(why.clone()));
            }
            Err(_) => &self.plain,
        };
        let Post { signed, now, .. } = post;
        let request = http
            .post(target.url().clone())
            .header("content-type", CONTENT_TYPE)
            .header("webhook-id", &signed.id)
            .header("webhook-timestamp", &signed.timestamp)
            .header("webhook-signature", &signed.signature)
            .body(post.body);
        let mut timeout = std::pin::pin!(timeout);
        let sending = lookup::ENDPOINT.scope(post.endpoint.clone(), request.send());
        let sent = tokio::select! {
            sent = sending => sent,
            () = timeout.as_mut() => {
                let why = format!("no answer within {} s", post.timeout_ms as f64 / 1000.0);
                return Ok(Reply {
                    outcome: Outcome::Unanswered(why),
                    answer: None,
                });
            }
        };
        let response = match sent {
            Ok(response) => response,
            Err(e) if is_exhausted(&e) => return Err(Exhausted),
            Err(e) => return Ok(Reply::failed(e)),
        };
        let outcome = Outcome::Answered {
            status: response.status().as_u16(),
            retry_after_ms: retry_after_ms(&response, now),
        };
        let mut start = Vec::new();
        tokio::select! {
            () = read(response, &mut start) => {}
            () = timeout => {}
        }
        Ok(Reply {
            outcome,
            answer: Some(readable(&start)),
        })
    }
}

impl Reply {
    fn unsent(why: String) -> Self {
        Self {
            outcome: Outcome::Unsent(bounded(why)),
            answer: None,
        }
    }

    fn failed(e: reqwest::Error) -> Self {
        if let Some(refused) = causes(&e).find_map(|e| e.downcast_ref::<Refused>()) {
            return Self::unsent(refused.to_string());
        }
        let connecting = e.is_connect();
        // Its URL often has a token in its query.
        let e = e.without_url();
        let why = if connecting {
            format!("cannot connect: {}", deepest(&e))
        } else {
            format!("no answer: {}", deepest(&e))
        };
        Self {
            outcome: Outcome::Unanswered(bounded(why)),
            answer: None,
        }
    }
}

/// Whether there was no file descriptor or no port left for a connection.
fn is_exhausted(e: &reqwest::Error) -> bool {
    let mut causes = causes(e).filter_map(|e| e.downcast_ref::<std::io::Error>());
    causes.any(|e| {
        let errno = e.raw_os_error().map(Errno::from_raw_os_error);
        errno.is_some_and(|it| [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL].contains(&it))
    })
}

/// Reads an answer's body up to its bound and keeps its start. A connection whose answer is longer is not
/// used again.
async fn read(mut response: Response, start: &mut Vec<u8>) {
    let mut bytes = 0;
    while bytes < limits::WEBHOOK_ANSWER_BYTES
        && let Ok(Some(piece)) = response.chunk().await
    {
        bytes += piece.len();
        let room = limits::WEBHOOK_ANSWER_BYTES_KEPT.saturating_sub(start.len());
        start.extend_from_slice(piece.get(..room).unwrap_or(&piece));
    }
}

/// Text as far as it is text, for people: whole characters, no controls.
fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    // The cut may have gone through a character.
    let text = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
    let printable = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
    text.chars().map(printable).collect()
}

/// `Retry-After` in seconds or as a date.
fn retry_after_ms(response: &Response, now: Timestamp) -> Option<u64> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1000));
    }
    let date: SystemTime = httpdate::parse_http_date(text).ok()?;
    let ms = date.duration_since(UNIX_EPOCH).ok()?.as_millis();
    let at = Timestamp::from_ms(i64::try_from(ms).unwrap_or(i64::MAX));
    Some(at.ms_since(now))
}

fn bounded(mut text: String) -> String {
    if text.len() > limits::WEBHOOK_ERROR_BYTES {
        text.truncate(text.floor_char_boundary(limits::WEBHOOK_ERROR_BYTES));
        text.push('…');
    }
    text
}

/// The error with its causes: the outermost alone only says that sending failed.
fn chain(e: &(dyn Error + 'static)) -> String {
    let texts: Vec<String> = causes(e).map(ToString::to_string).collect();
    texts.join(": ")
}

/// The last cause: what it was that failed.
fn deepest(e: &(dyn Error + 'static)) -> String {
    causes(e)
        .last()
        .map_or_else(String::new, ToString::to_string)
}

fn causes<'a>(e: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(e), |cause| {
        let cause: &'a (dyn Error + 'static) = *cause;
        cause.source()
    })
}

#[cfg(test)]
mod tests;
