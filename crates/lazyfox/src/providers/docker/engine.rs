//! The container engine: what it is asked, and what its answers mean.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use futures_util::{Stream, StreamExt as _};
use hyper::Uri;
use hyper::header::HeaderValue;

use super::places::{Address, Places};

/// How long the engine may take to begin an answer, in seconds. It makes a container of a large image on
/// a slow disk meanwhile.
const ANSWER_S: u64 = 120;

/// How long a signal may take to be passed on. The engine does little for it, and a worker's output is
/// not read meanwhile.
const KILL_WITHIN: Duration = Duration::from_secs(10);

/// Why the engine did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It does not answer, as this text says, so that nobody knows what it did.
    Away(String),
    /// It answered that it did not.
    Refused {
        /// The status of its answer; 0 where the answer had begun well.
        status: u16,
        /// In its words.
        reason: String,
    },
}

impl Trouble {
    fn of(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError {
                status_code,
                message,
            } => Self::Refused {
                status: status_code,
                reason: message.trim().to_owned(),
            },
            Error::DockerStreamError { error } => Self::Refused {
                status: 0,
                reason: error.trim().to_owned(),
            },
            Error::RequestTimeoutError => Self::away("", &format!("not within {ANSWER_S} s")),
            error => Self::away("", &innermost(&error)),
        }
    }

    /// `at` is empty, or says where the engine is.
    fn away(at: &str, reason: &str) -> Self {
        Self::Away(format!(
            "the container engine{at} does not answer: {reason}"
        ))
    }

    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(reason) | Self::Refused { reason, .. } => f.write_str(reason),
        }
    }
}

/// The reason that the others only wrap: "No such file or directory", not "client error (Connect)".
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// What became of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It was never started.
    Made,
    /// It runs.
    Runs,
    /// Its main process is gone.
    Ended {
        /// As a shell would say it: above 128 for a signal.
        code: i64,
        /// Whether the kernel killed one of its processes for want of memory.
        out_of_memory: bool,
        /// Its limit, if it had one.
        memory_bytes: Option<u64>,
    },
    /// There is no such container.
    Gone,
}

/// A container in the engine's list.
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) labels: HashMap<String, String>,
    /// Whether it was never started.
    pub(super) is_made: bool,
    /// Whether it runs, or is about to.
    pub(super) is_alive: bool,
}

/// The engine. It is looked for when it is first needed, and again after it was away: another version
/// of it may have come back.
pub(super) struct Engine {
    places: Places,
    /// Where it was found.
    address: OnceLock<Address>,
    known: Mutex<Option<Docker>>,
}

impl Engine {
    pub(super) fn at(places: Places) -> Self {
        Self {
            places,
            address: OnceLock::new(),
            known: Mutex::default(),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<Docker>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, in a version of the API that both sides speak.
    pub(super) async fn docker(&self) -> Result<Docker, Trouble> {
        if let Some(docker) = self.known().clone() {
            return Ok(docker);
        }
        let address = match self.address.get() {
            Some(address) => address.clone(),
            None => self.places.find()?,
        };
        // Whatever it says here is no word about a container: perhaps it is no engine at all.
        let at = |error: Error| {
            let reason = match &error {
                Error::SocketNotFoundError(_) => "there is no such socket".to_owned(),
                Error::DockerResponseServerError { .. } => error.to_string(),
                error => innermost(error),
            };
            Trouble::away(&format!(" at {address}"), &reason)
        };
        let made = match &address {
            Address::Unix(path) => {
                let path = path.to_string_lossy();
                Docker::connect_with_unix(&path, ANSWER_S, API_DEFAULT_VERSION)
            }
            Address::Tcp(host) => Docker::connect_with_http(host, ANSWER_S, API_DEFAULT_VERSION),
        };
        let docker = made.map_err(at)?.negotiate_version().await.map_err(at)?;
        let version = format!("/v{}", docker.client_version());
        let docker =
            docker.with_request_modifier(move |request| url_safe(versioned(request, &version)));
        // Its socket may be gone while it is started again, and another engine's still be there.
        self.address.get_or_init(|| address);
        *self.known() = Some(docker.clone());
        Ok(docker)
    }

    /// Translates an answer.
    pub(super) fn heard<T>(&self, answer: Result<T, Error>) -> Result<T, Trouble> {
        let answer = answer.map_err(Trouble::of);
        // 400 is also what one answers that came back in a version with which it shares none.
        if let Err(Trouble::Away(_) | Trouble::Refused { status: 400, .. }) = answer {
            *self.known() = None;
        }
        answer
    }

    /// The environment that an image brings; `None` when the image is not here.
    pub(super) async fn image(&self, image: &str) -> Result<Option<Vec<String>>, Trouble> {
        let docker = self.docker().await?;
        match self.heard(docker.inspect_image(image).await) {
            Ok(found) => Ok(Some(found.config.and_then(|it| it.env).unwrap_or_default())),
            Err(trouble) if trouble.is_not_found() => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Makes a container; returns its id, and what the engine has to remark.
    pub(super) async fn create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<(String, Vec<String>), Trouble> {
        let docker = self.docker().await?;
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let made = self.heard(docker.create_container(Some(options), body).await)?;
        Ok((made.id, made.warnings))
    }

    pub(super) async fn start(&self, container: &str) -> Result<(), Trouble> {
        let docker = self.docker().await?;
        self.heard(docker.start_container(container, None).await)
    }

    pub(super) async fn state(&self, container: &str) -> Result<State, Trouble> {
        let docker = self.docker().await?;
        match self.heard(docker.inspect_container(container, None).await) {
            Ok(found) => Ok(state(found)),
            Err(trouble) if trouble.is_not_found() => Ok(State::Gone),
            Err(trouble) => Err(trouble),
        }
    }

    /// Sends a signal. One that has ended needs none.
    pub(super) async fn kill(&self, container: &str, signal: &str) -> Result<(), Trouble> {
        let docker = self.docker().await?;
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        let sent = docker.kill_container(container, Some(options));
        let Ok(sent) = tokio::time::timeout(KILL_WITHIN, sent).await else {
            let within = format!("not within {} s", KILL_WITHIN.as_secs());
            return Err(Trouble::away("", &within));
        };
        match self.heard(sent) {
            Err(Trouble::Refused {
                status: 404 | 409, ..
            }) => Ok(()),
            sent => sent,
        }
    }

    /// Ends and removes a container, with the volumes that have no name. One that is gone needs nothing.
    pub(super) async fn remove(&self, container: &str) -> Result<(), Trouble> {
        let docker = self.docker().await?;
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true);
        let removed = docker.remove_container(container, Some(options.build()));
        match self.heard(removed.await) {
            Err(trouble) if trouble.is_not_found() => Ok(()),
            removed => removed,
        }
    }

    /// The containers that have all these labels, each `NAME=VALUE`.
    pub(super) async fn list(&self, labels: Vec<String>) -> Result<Vec<Listed>, Trouble> {
        let docker = self.docker().await?;
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters);
        let found = self.heard(docker.list_containers(Some(options.build())).await)?;
        Ok(found.into_iter().filter_map(listed).collect())
    }

    /// What a container wrote since a second of the epoch, each piece with the time before it.
    pub(super) async fn logs(
        &self,
        container: &str,
        follow: bool,
        since: i32,
    ) -> Result<impl Stream<Item = Result<LogOutput, Trouble>> + Send + Unpin, Trouble> {
        let docker = self.docker().await?;
        let options = LogsOptionsBuilder::new()
            .follow(follow)
            .since(since)
            .stdout(true)
            .stderr(true)
            .timestamps(true);
        let pieces = docker.logs(container, Some(options.build()));
        Ok(Box::pin(pieces.map(|piece| piece.map_err(Trouble::of))))
    }

    /// Returns when a container may have ended, or the engine went away.
    pub(super) fn ended(
        &self,
        docker: &Docker,
        container: &str,
    ) -> impl Future<Output = ()> + Send {
        let options = WaitContainerOptionsBuilder::new().condition("not-running");
        let mut waited = Box::pin(docker.wait_container(container, Some(options.build())));
        async move {
            // What it says is looked up anyway: an answer would be the same for an engine that ends.
            waited.next().await;
        }
    }
}

fn state(found: ContainerInspectResponse) -> State {
    let Some(state) = found.state else {
        return State::Gone;
    };
    if state.running == Some(true) || state.paused == Some(true) || state.restarting == Some(true) {
        return State::Runs;
    }
    if state.status == Some(ContainerStateStatusEnum::CREATED) {
        return State::Made;
    }
    let memory = found
        .host_config
        .and_then(|it| it.memory)
        .unwrap_or_default();
    State::Ended {
        code: state.exit_code.unwrap_or_default(),
        out_of_memory: state.oom_killed == Some(true),
        memory_bytes: u64::try_from(memory).ok().filter(|bytes| *bytes > 0),
    }
}

fn listed(found: ContainerSummary) -> Option<Listed> {
    let state = found.state.map(|it| it.to_string()).unwrap_or_default();
    Some(Listed {
        id: found.id?,
        labels: found.labels.unwrap_or_default(),
        is_made: state == "created",
        is_alive: !["created", "exited", "dead", "removing"].contains(&state.as_str()),
    })
}

/// The client agrees on a version of the API and then leaves it out, which means the engine's newest: what
/// that does is known only when there is one.
fn versioned(mut request: BollardRequest, version: &str) -> BollardRequest {
    let asked = request.uri().path_and_query().map(|it| it.as_str());
    let asked = asked.unwrap_or_default();
    if !asked.starts_with(version) {
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = format!("{version}{asked}").parse().ok();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// The client encodes a registry's account in base64, the engine decodes it as base64url, and takes what
/// it cannot decode for no account at all. They differ in two letters.
fn url_safe(mut request: BollardRequest) -> BollardRequest {
    if let Some(account) = request.headers_mut().get_mut("X-Registry-Auth") {
        let text = account.to_str().unwrap_or_default();
        let text = text.replace('+', "-").replace('/', "_");
        if let Ok(mut value) = HeaderValue::from_str(&text) {
            value.set_sensitive(true);
            *account = value;
        }
    }
    request
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;

    use super::*;

    /// An engine that answers paths with these ends.
    async fn served(answers: &'static [(&'static str, &'static str)]) -> Engine {
        let answer = move |uri: Uri| async move {
            let known = answers.iter().find(|(end, _)| uri.path().ends_with(end));
            match known {
                Some((_, body)) => body.into_response(),
                None => StatusCode::NOT_FOUND.into_response(),
            }
        };
        let router = axum::Router::new().fallback(answer);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = format!("tcp://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Engine::at(Places::of(Some(&host), |_| None))
    }

    #[tokio::test]
    async fn an_engine_is_spoken_to_in_its_own_version_and_over_tcp_too() {
        let engine = served(&[
            ("/version", r#"{"ApiVersion": "1.41"}"#),
            (
                "/v1.41/containers/known/json",
                r#"{"State": {"Status": "exited", "ExitCode": 137, "OOMKilled": true},
                    "HostConfig": {"Memory": 64}}"#,
            ),
        ]);
        let engine = engine.await;
        let expected = State::Ended {
            code: 137,
            out_of_memory: true,
            memory_bytes: Some(64),
        };
        assert_eq!(engine.state("known").await, Ok(expected));
        assert_eq!(engine.state("unknown").await, Ok(State::Gone));
    }

    #[tokio::test]
    async fn what_is_no_engine_says_nothing_about_a_container() {
        let engine = served(&[]).await;
        let Err(Trouble::Away(why)) = engine.state("known").await else {
            panic!("it has no version");
        };
        assert!(why.contains("404"), "{why}");
    }

    #[tokio::test]
    async fn an_engine_that_is_away_is_no_container_that_is_gone() {
        let host = "tcp://127.0.0.1:1";
        let engine = Engine::at(Places::of(Some(host), |_| None));
        let Err(Trouble::Away(why)) = engine.state("known").await else {
            panic!("nothing listens there");
        };
        let expected = format!("the container engine at {host} does not answer: ");
        assert!(
            why.starts_with(&expected) && why.contains("refused"),
            "{why}"
        );
    }
}
