//! The environment of a worker: what the public SDK reads, and nothing of the server's own secrets.

use lazyfox_core::id::{EndpointId, WorkerId};

use crate::app::App;
use crate::clock;
use crate::config::Endpoint;

/// Longest time between two signs of life of a worker. Half of what the SDK takes by itself, so that a
/// worker that let go of a job is known to have done so within its grace.
const PING_INTERVAL_MS_MAX: u64 = 5_000;
/// Shortest time between them: the SDK takes less for none at all and sends without a pause.
const PING_INTERVAL_MS_MIN: u64 = 1_000;

/// The id of a worker that is about to be started; no other has it.
#[must_use]
pub fn new_worker() -> WorkerId {
    let name = format!("wk{}", clock::random_name::<12>());
    name.parse()
        .expect("lower-case letters and digits are a name")
}

/// How often a worker sends a sign of life: four fit into a lease, so that a lost one costs nothing. The
/// SDK counts whole seconds.
fn ping_interval_ms(settings: &Endpoint) -> u64 {
    let ms = settings.lease_ms / 4;
    (ms - ms % 1_000).clamp(PING_INTERVAL_MS_MIN, PING_INTERVAL_MS_MAX)
}

/// Variables that the operator's `env` wins over.
fn preset(settings: &Endpoint) -> Vec<(String, String)> {
    [
        // The SDK's own checks at start dial an address in the internet and demand 4 GB of memory;
        // a worker that fails them dies without a word to its server.
        ("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", "true".to_owned()),
        // Files of a job commonly lie on the same network as the worker.
        ("RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS", "true".to_owned()),
        ("RUNPOD_LOG_LEVEL", "INFO".to_owned()),
        (
            "RUNPOD_INIT_TIMEOUT",
            (settings.init_timeout_ms / 1000).to_string(),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// The host of [`App::worker_url`], as `NO_PROXY` spells it.
#[must_use]
pub fn server_host(app: &App) -> String {
    host(&app.worker_url).to_owned()
}

/// The host of a URL, an IPv6 address without its brackets.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let address = authority.rsplit('@').next().unwrap_or_default();
    match address.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => address.split(':').next().unwrap_or_default(),
    }
}

/// The variables of a worker that reaches the server as most do.
#[must_use]
pub fn variables(
    app: &App,
    endpoint: &EndpointId,
    settings: &Endpoint,
    worker: &WorkerId,
) -> Vec<(String, String)> {
    variables_at(&app.worker_url, app, endpoint, settings, worker)
}

/// The variables of a worker that reaches the server at this URL. Where a name comes twice, the last
/// one counts. URLs name the worker already: some SDK versions expand only the job.
#[must_use]
pub fn variables_at(
    url: &str,
    app: &App,
    endpoint: &EndpointId,
    settings: &Endpoint,
    worker: &WorkerId,
) -> Vec<(String, String)> {
    let base = format!("{}/v2/{endpoint}", url.trim_end_matches('/'));
    let mut variables = preset(settings);
    variables.extend(
        settings
            .env
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    // The SDK appends `&…` blindly, so each URL has its `?`.
    let own = [
        (
            "RUNPOD_WEBHOOK_GET_JOB",
            format!("{base}/job-take/{worker}?gpu="),
        ),
        (
            "RUNPOD_WEBHOOK_POST_OUTPUT",
            format!("{base}/job-done/{worker}/$ID?gpu="),
        ),
        (
            "RUNPOD_WEBHOOK_POST_STREAM",
            format!("{base}/job-stream/{worker}/$ID?gpu="),
        ),
        ("RUNPOD_WEBHOOK_PING", format!("{base}/ping/{worker}?gpu=")),
        (
            "RUNPOD_PING_INTERVAL",
            ping_interval_ms(settings).to_string(),
        ),
        ("RUNPOD_AI_API_KEY", app.key.worker_token(endpoint, worker)),
        ("RUNPOD_POD_ID", worker.to_string()),
        ("RUNPOD_POD_HOSTNAME", worker.to_string()),
        ("RUNPOD_ENDPOINT_ID", endpoint.to_string()),
    ];
    variables.extend(own.map(|(name, value)| (name.to_owned(), value)));
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_signs_of_life_fit_into_a_lease_but_no_more_than_one_a_second() {
        for (lease_s, expected_ms) in [
            (4, 1_000),
            (7, 1_000),
            (19, 4_000),
            (20, 5_000),
            (40, 5_000),
        ] {
            let lease_ms = lease_s * 1_000;
            let settings = Endpoint {
                lease_ms,
                ..Endpoint::shipped()
            };
            assert_eq!(ping_interval_ms(&settings), expected_ms, "{lease_s} s");
        }
    }

    #[test]
    fn hosts_are_found_in_urls() {
        for (url, expected) in [
            ("http://127.0.0.1:8000", "127.0.0.1"),
            ("http://[::1]:8000/", "::1"),
            ("https://fox.example/lazy?x", "fox.example"),
            ("http://user:pass@fox.example:80", "fox.example"),
        ] {
            assert_eq!(host(url), expected, "{url}");
        }
    }
}
