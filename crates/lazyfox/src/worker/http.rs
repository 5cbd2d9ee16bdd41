//! Jobs that are done by posting each of them to an HTTP server beside this worker.

mod ready;
mod started;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Response, StatusCode, Url, header};

use super::held::Stop;
use super::job::Job;
use super::output::{Outcome, output};
use crate::client::reason;

pub(super) use ready::{Ready, Target};
pub(super) use started::Started;

/// How often a job is posted to a server that does not even take the connection, each time after the
/// server was found ready again.
const TRIES: u32 = 3;
/// How long an exit of the server may take to be known after a connection to it broke.
const EXIT_KNOWN: Duration = Duration::from_secs(1);
/// How much of an answer that is no success goes into the job's error.
const ERROR_CHARS: usize = 2_000;

/// Posts each job to a server.
pub(super) struct Http {
    http: reqwest::Client,
    url: Url,
    pub(super) ready: Ready,
    output_bytes_max: usize,
    pub(super) started: Option<Started>,
}

/// Why there is no answer.
enum Silence {
    /// The server does not take the connection, so it cannot have begun.
    NotSent(String),
    Broken(String),
    TooLarge,
}

impl Http {
    pub(super) fn new(
        http: reqwest::Client,
        url: Url,
        ready: Ready,
        output_bytes_max: usize,
        started: Option<Started>,
    ) -> Self {
        Self {
            http,
            url,
            ready,
            output_bytes_max,
            started,
        }
    }

    /// Posts the input. To stop the job is to close the connection.
    pub(super) async fn run(&self, job: &Job, stop: &mut Stop) -> Outcome {
        tokio::select! {
            outcome = self.post(job) => outcome,
            () = stop.asked() => Outcome::Stopped,
        }
    }

    async fn post(&self, job: &Job) -> Outcome {
        let mut tries = 1;
        loop {
            let why = match self.exchange(job).await {
                Ok((status, body)) => return self.answered(status, body),
                Err(Silence::TooLarge) => {
                    let limit = self.output_bytes_max;
                    return Outcome::Failed(format!(
                        "{} answered more than {limit} bytes; --output-limit allows more",
                        self.url
                    ));
                }
                Err(Silence::Broken(why)) => return self.broken(&why).await,
                Err(Silence::NotSent(why)) => why,
            };
            tracing::warn!(job.id = %job.id, %why, "{} takes no connection", self.url);
            if tries == TRIES {
                return Outcome::Failed(format!("{} takes no connection: {why}", self.url));
            }
            tries += 1;
            // A worker whose server is gone would fail one job after the other. The job was not
            // begun, so it can wait; and should the server stay away, it is not the job's fault.
            if let Err(why) = self.ready.wait(self.started.as_ref()).await {
                return Outcome::Broken(why);
            }
        }
    }

    async fn exchange(&self, job: &Job) -> Result<(StatusCode, Bytes), Silence> {
        let request = self.http.post(self.url.clone());
        let sent = request
            .header(header::CONTENT_TYPE, "application/json")
            .header("X-Job-Id", &job.id)
            .body(job.input.clone())
            .send()
            .await;
        match sent {
            Ok(response) => Ok((response.status(), self.body(response).await?)),
            Err(e) if e.is_connect() => Err(Silence::NotSent(reason(&e))),
            Err(e) => Err(Silence::Broken(reason(&e))),
        }
    }

    async fn body(&self, mut response: Response) -> Result<Bytes, Silence> {
        let mut body = BytesMut::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > self.output_bytes_max => {
                    return Err(Silence::TooLarge);
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return Ok(body.freeze()),
                Err(e) => return Err(Silence::Broken(reason(&e))),
            }
        }
    }

    fn answered(&self, status: StatusCode, body: Bytes) -> Outcome {
        if status.is_success() {
            return output(body);
        }
        let text = String::from_utf8_lossy(&body);
        let text: String = text.trim().chars().take(ERROR_CHARS).collect();
        let said = format!("{} answered HTTP {status}", self.url);
        Outcome::Failed(if text.is_empty() {
            said
        } else {
            format!("{said}: {text}")
        })
    }

    /// The connection broke while the server worked. If that is because it exited, the job has lost its
    /// worker, as it would have lost a handler that exits.
    async fn broken(&self, why: &str) -> Outcome {
        if let Some(started) = &self.started
            && let Ok(why) = tokio::time::timeout(EXIT_KNOWN, started.exited()).await
        {
            return Outcome::Broken(why);
        }
        Outcome::Failed(format!("{} did not answer: {why}", self.url))
    }
}
