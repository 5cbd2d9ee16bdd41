//! A worker played by a test: the calls of the public SDK, one at a time.

use lazyfox_core::id::WorkerId;
use serde_json::Value;

use crate::http::{Connection, Reply, Request, until};
use crate::server::TestServer;

/// A worker of `ep`; unless told otherwise it speaks like SDK 1.12.0.
pub(crate) struct Worker<'a> {
    server: &'a TestServer,
    endpoint: String,
    pub(crate) name: String,
    version: Option<&'static str>,
    token: Option<String>,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(server: &'a TestServer, name: &str) -> Self {
        Self {
            server,
            endpoint: "ep".to_owned(),
            name: name.to_owned(),
            version: Some("1.12.0"),
            token: None,
        }
    }

    /// Another version; `None` is a worker that does not say which.
    pub(crate) fn version(mut self, version: Option<&'static str>) -> Self {
        self.version = version;
        self
    }

    /// Of another endpoint.
    pub(crate) fn on(mut self, endpoint: &str) -> Self {
        endpoint.clone_into(&mut self.endpoint);
        self
    }

    pub(crate) fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub(crate) fn path(&self, call: &str) -> String {
        format!("/v2/{}/{call}/{}", self.endpoint, self.name)
    }

    fn dressed(&self, mut request: Request) -> Request {
        if let Some(version) = self.version {
            let agent = format!("RunPod-Python-SDK/{version} (Linux 6.1.0; x86_64)");
            request = request.header("user-agent", &agent);
        }
        match &self.token {
            Some(token) => request.header("authorization", token),
            None => request,
        }
    }

    pub(crate) fn poll(&self, query: &str) -> Request {
        let call = if query.contains("batch_size") {
            "job-take-batch"
        } else {
            "job-take"
        };
        let target = format!("{}?gpu=NVIDIA+RTX&{query}", self.path(call));
        self.dressed(Request::get(target).header("content-type", "application/json"))
    }

    /// Takes the job that waits.
    pub(crate) async fn take(&self) -> Value {
        self.take_saying("job_in_progress=1").await.ok()
    }

    pub(crate) async fn take_saying(&self, query: &str) -> Reply {
        self.server.request(self.poll(query)).await
    }

    /// Takes jobs as an array.
    pub(crate) async fn batch(&self, size: usize) -> Vec<Value> {
        let query = format!("batch_size={size}&job_in_progress=1");
        let jobs = self.take_saying(&query).await.ok();
        jobs.as_array().expect("an array").clone()
    }

    /// Asks for a job when there is none, and waits.
    pub(crate) async fn park(&self) -> Connection {
        self.park_saying("job_in_progress=1").await
    }

    pub(crate) async fn park_saying(&self, query: &str) -> Connection {
        self.parked(self.poll(query)).await
    }

    /// Asks for a job once and goes: only who asks for work is a worker.
    pub(crate) async fn introduce(&self) {
        drop(self.park().await);
        self.until_parked(0).await;
    }

    /// Waits to hear of jobs to stop.
    pub(crate) async fn park_for_stops(&self) -> Connection {
        self.parked(self.stop_poll()).await
    }

    pub(crate) fn stop_poll(&self) -> Request {
        self.dressed(Request::get(format!("{}?gpu=x", self.path("job-stop"))))
    }

    async fn parked(&self, request: Request) -> Connection {
        let before = self.polls_parked();
        let connection = self.server.open(&request).await;
        self.until_parked(before + 1).await;
        connection
    }

    fn polls_parked(&self) -> usize {
        let id: WorkerId = self.name.parse().expect("a worker's name");
        self.server.app().fleet.parked(&id)
    }

    /// Waits until so many of its polls wait.
    pub(crate) async fn until_parked(&self, polls: usize) {
        let what = format!("{polls} polls of {} wait", self.name);
        until(&what, || self.polls_parked() == polls).await;
    }

    /// Reports on a job: result, error or progress.
    pub(crate) async fn done(&self, job: &str, body: impl AsRef<[u8]>) {
        let reply = self.post("job-done", job, body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    /// Sends a chunk of a stream.
    pub(crate) async fn chunk(&self, job: &str, body: impl AsRef<[u8]>) {
        let reply = self.post("job-stream", job, body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    pub(crate) async fn post(&self, call: &str, job: &str, body: impl AsRef<[u8]>) -> Reply {
        let target = format!("{}/{job}?gpu=x&isStream=false", self.path(call));
        let request = Request::post(target, body)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("charset", "utf-8")
            .header("x-request-id", job);
        self.server.request(self.dressed(request)).await
    }

    /// Gives a sign of life that names these jobs.
    pub(crate) async fn ping(&self, jobs: &[&str]) {
        let mut query = "gpu=x".to_owned();
        if !jobs.is_empty() {
            query.push_str(&format!("&job_id={}", jobs.join("%2C")));
        }
        if let Some(version) = self.version {
            query.push_str(&format!("&runpod_version={version}"));
        }
        let reply = self.ping_saying(&query).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    pub(crate) async fn ping_saying(&self, query: &str) -> Reply {
        let mut request = Request::get(format!("{}?{query}", self.path("ping")))
            .header("user-agent", "python-requests/2.34.2");
        if let Some(token) = &self.token {
            request = request.header("authorization", token);
        }
        self.server.request(request).await
    }
}
