//! The calls of a worker to its server.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use reqwest::header;
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use super::job::{Job, jobs};
use super::pause::Trouble;
use super::settings::Settings;
use crate::client::{http, reason};

/// How the server knows what it can expect of this worker: `Runtime` in core reads both.
const AGENT: &str = concat!("lazyfox-worker/", env!("CARGO_PKG_VERSION"));
const VERSION: &str = concat!("lazyfox-", env!("CARGO_PKG_VERSION"));

/// Longer than any server of this kind holds a call for work or for stops.
const POLL_TIMEOUT: Duration = Duration::from_secs(90);
/// For a large result over a slow line. A server that is stuck is asked again after it.
const DONE_TIMEOUT: Duration = Duration::from_secs(300);
/// Connections that were idle for longer may be closed by what stands between.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// How much of a refusal is worth showing.
const REFUSAL_CHARS: usize = 300;

/// The server, spoken to as one worker.
pub(super) struct Server {
    http: reqwest::Client,
    pub(super) settings: Settings,
}

impl Server {
    pub(super) fn new(settings: Settings) -> Result<Self> {
        let http = http(&settings.take_url)
            .user_agent(AGENT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build()
            .context("cannot make an HTTP client")?;
        Ok(Self { http, settings })
    }

    /// Asks for at most this many jobs, and waits for the first. `idle` says that this worker works on
    /// nothing, which a server takes as a proof.
    pub(super) async fn take(&self, count: usize, idle: bool) -> Result<Vec<Job>, Trouble> {
        let mut url = match count {
            0 | 1 => self.settings.take_url.clone(),
            _ => self.settings.take_batch_url.clone(),
        };
        if count > 1 {
            add(&mut url, "batch_size", &count.to_string());
        }
        add(&mut url, "job_in_progress", if idle { "0" } else { "1" });
        match self.poll(url).await? {
            Some(body) => jobs(&body).map_err(|text| Trouble { status: None, text }),
            None => Ok(Vec::new()),
        }
    }

    /// Waits to hear which jobs are over; `None` when there was nothing to hear.
    pub(super) async fn stops(&self) -> Result<Option<Vec<String>>, Trouble> {
        #[derive(Deserialize)]
        struct Stops {
            #[serde(rename = "jobsToStop")]
            jobs: Vec<String>,
        }
        let Some(body) = self.poll(self.settings.stop_url.clone()).await? else {
            return Ok(None);
        };
        let stops: Stops = serde_json::from_slice(&body).map_err(|e| Trouble {
            status: None,
            text: format!("the jobs to stop cannot be read: {e}"),
        })?;
        Ok(Some(stops.jobs))
    }

    /// A sign of life that names all jobs that this worker works on.
    pub(super) async fn ping(&self, jobs: &[String]) -> Result<(), Trouble> {
        let mut url = self.settings.ping_url.clone();
        if !jobs.is_empty() {
            add(&mut url, "job_id", &jobs.join(","));
        }
        add(&mut url, "runpod_version", VERSION);
        let timeout = self.settings.ping_interval * 2;
        answered(self.dressed(self.http.get(url)).timeout(timeout)).await?;
        Ok(())
    }

    /// Hands in the result of a job.
    pub(super) async fn done(&self, job: &str, body: Bytes) -> Result<(), Trouble> {
        let mut url = self.settings.done_url(job);
        add(&mut url, "isStream", "false");
        let request = self.http.post(url).body(body);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        answered(self.dressed(request).timeout(DONE_TIMEOUT)).await?;
        Ok(())
    }

    async fn poll(&self, url: Url) -> Result<Option<Bytes>, Trouble> {
        let request = self.dressed(self.http.get(url)).timeout(POLL_TIMEOUT);
        let response = answered(request).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let body = response.bytes().await.map_err(|e| no_answer(&e))?;
        Ok((!body.is_empty()).then_some(body))
    }

    fn dressed(&self, request: RequestBuilder) -> RequestBuilder {
        request.header(header::AUTHORIZATION, self.settings.token.clone())
    }
}

fn add(url: &mut Url, name: &str, value: &str) {
    url.query_pairs_mut().append_pair(name, value);
}

/// Sends a request; anything but a 2xx is trouble.
async fn answered(request: RequestBuilder) -> Result<Response, Trouble> {
    let response = request.send().await.map_err(|e| no_answer(&e))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.bytes().await.unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    let text: String = text.trim().chars().take(REFUSAL_CHARS).collect();
    Err(Trouble {
        status: Some(status.as_u16()),
        text: format!("HTTP {status} {text}").trim_end().to_owned(),
    })
}

fn no_answer(error: &reqwest::Error) -> Trouble {
    Trouble {
        status: None,
        text: reason(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::scripted::{Answer, Scripted, json, refused};
    use crate::worker::settings::tests::{environment, read};

    async fn scripted(answers: Vec<Answer>) -> (Scripted, Server) {
        let scripted = Scripted::start(answers).await;
        let settings = read(&environment(&scripted.url)).unwrap();
        (scripted, Server::new(settings).unwrap())
    }

    #[tokio::test]
    async fn calls_say_who_asks_and_what_is_at_hand() {
        let (scripted, server) = scripted(vec![
            refused(204, ""),
            json(r#"[{"id":"a","input":1},{"id":"b","input":2}]"#),
            json("{}"),
            json("{}"),
            json(r#"{"jobsToStop":["a"]}"#),
            refused(204, ""),
        ])
        .await;
        assert_eq!(server.take(1, true).await.unwrap(), []);
        assert_eq!(server.take(3, false).await.unwrap().len(), 2);
        server.ping(&[]).await.unwrap();
        server
            .ping(&["a".to_owned(), "b".to_owned()])
            .await
            .unwrap();
        assert_eq!(server.stops().await.unwrap(), Some(vec!["a".to_owned()]));
        assert_eq!(server.stops().await.unwrap(), None);
        let seen = scripted.requests();
        let lines: Vec<&str> = seen.iter().map(|it| it.line.as_str()).collect();
        let version = concat!(
            "runpod_version=lazyfox-",
            env!("CARGO_PKG_VERSION"),
            " HTTP/1.1"
        );
        let expected = [
            "GET /v2/fox/job-take/w?gpu=&job_in_progress=0 HTTP/1.1",
            "GET /v2/fox/job-take-batch/w?gpu=&batch_size=3&job_in_progress=1 HTTP/1.1",
            &format!("GET /v2/fox/ping/w?gpu=&{version}"),
            &format!("GET /v2/fox/ping/w?gpu=&job_id=a%2Cb&{version}"),
            "GET /v2/fox/job-stop/w?gpu= HTTP/1.1",
            "GET /v2/fox/job-stop/w?gpu= HTTP/1.1",
        ];
        assert_eq!(lines, expected);
        for it in &seen {
            assert_eq!(it.header("authorization"), Some("secret"));
            assert_eq!(it.header("user-agent"), Some(AGENT));
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_no_success_says_what_it_was() {
        let (_scripted, server) = scripted(vec![
            refused(429, r#"{"error":"the token is not this worker's"}"#),
            json("<html>"),
            Answer::hang_up(),
        ])
        .await;
        let refused = server.take(1, true).await.unwrap_err();
        assert_eq!(refused.status, Some(429));
        assert!(
            refused.text.contains("the token is not"),
            "{}",
            refused.text
        );
        let odd = server.take(1, true).await.unwrap_err();
        assert_eq!(odd.status, None);
        assert!(odd.text.contains("the answer is not JSON"), "{}", odd.text);
        assert_eq!(server.stops().await.unwrap_err().status, None);
    }
}
