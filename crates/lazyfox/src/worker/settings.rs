//! What the environment says: where the server is, and who this worker is.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::Url;
use reqwest::header::HeaderValue;

/// The variable that makes a process a worker.
const TAKE: &str = "RUNPOD_WEBHOOK_GET_JOB";
const DONE: &str = "RUNPOD_WEBHOOK_POST_OUTPUT";
const PING: &str = "RUNPOD_WEBHOOK_PING";
const TOKEN: &str = "RUNPOD_AI_API_KEY";
const WORKER: &str = "RUNPOD_POD_ID";
const ENDPOINT: &str = "RUNPOD_ENDPOINT_ID";
const PING_INTERVAL: &str = "RUNPOD_PING_INTERVAL";
const INIT_TIMEOUT: &str = "RUNPOD_INIT_TIMEOUT";

/// What is kept from jobs: the worker's token, what would make a worker of anything inside of them that uses
/// the public SDK, and the key of whoever started the worker in a shell.
pub(super) const KEPT_FROM_JOBS: [&str; 6] = [
    TOKEN,
    TAKE,
    DONE,
    PING,
    "RUNPOD_WEBHOOK_POST_STREAM",
    "LAZYFOX_API_KEY",
];

/// Pause between heartbeats where the environment names none: the SDK's.
const PING_INTERVAL_MS: u64 = 10_000;
/// Pauses between heartbeats that make sense, in milliseconds.
const PING_INTERVAL_MS_RANGE: std::ops::RangeInclusive<u64> = 100..=600_000;
/// How long a start may take where the environment does not say: the server's default.
const INIT_TIMEOUT_S: u64 = 420;
/// The part of the path that tells the call for work from its relatives.
const TAKE_PATH: &str = "/job-take/";

/// One worker of one endpoint of one server.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) take_url: Url,
    pub(super) take_batch_url: Url,
    pub(super) stop_url: Url,
    pub(super) ping_url: Url,
    /// With `$ID` where the job's id belongs.
    done_template: String,
    pub(super) token: HeaderValue,
    pub(super) worker: String,
    pub(super) endpoint: String,
    pub(super) ping_interval: Duration,
    pub(super) init_timeout: Duration,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// Names the variable that is missing or wrong.
    pub(super) fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| {
            let value = variable(name).filter(|value| !value.is_empty());
            value.with_context(|| {
                format!(
                    "{name} is not set; `lazyfox worker` runs as the command of an endpoint, or with \
                     the environment that `lazyfox worker-env ENDPOINT` prints"
                )
            })
        };
        let take = get(TAKE)?;
        let (done, ping) = (get(DONE)?, get(PING)?);
        let (worker, endpoint) = (get(WORKER)?, get(ENDPOINT)?);
        let token = HeaderValue::from_str(&get(TOKEN)?);
        let mut token = token
            .with_context(|| format!("{TOKEN} has characters that no HTTP header can have"))?;
        token.set_sensitive(true);
        ensure!(
            take.contains(TAKE_PATH),
            "{TAKE} is {take:?}, it should have {TAKE_PATH} in it"
        );
        // Some servers leave the worker's name to the worker; in the call for work `$ID` is that name.
        let named = |text: &str| text.replace("$RUNPOD_POD_ID", &worker);
        let take = named(&take).replace("$ID", &worker);
        let relative = |path| url(TAKE, &take.replacen(TAKE_PATH, path, 1));
        let settings = Self {
            take_url: relative(TAKE_PATH)?,
            take_batch_url: relative("/job-take-batch/")?,
            stop_url: relative("/job-stop/")?,
            ping_url: url(PING, &named(&ping))?,
            done_template: named(&done),
            token,
            ping_interval: Duration::from_millis(number(
                PING_INTERVAL,
                variable(PING_INTERVAL),
                PING_INTERVAL_MS,
                PING_INTERVAL_MS_RANGE,
            )?),
            init_timeout: Duration::from_secs(number(
                INIT_TIMEOUT,
                variable(INIT_TIMEOUT),
                INIT_TIMEOUT_S,
                1..=86_400,
            )?),
            worker,
            endpoint,
        };
        ensure!(
            settings.done_template.contains("$ID"),
            "{DONE} is {done:?}, it should have $ID where the job's id belongs"
        );
        url(DONE, &settings.done_template.replace("$ID", "job"))?;
        Ok(settings)
    }

    /// Where the result of a job goes. Its id fits into a URL.
    pub(super) fn done_url(&self, job: &str) -> Url {
        let url = self.done_template.replace("$ID", job);
        Url::parse(&url).expect("it was a URL before a word of letters and digits was put in")
    }
}

fn url(name: &str, text: &str) -> Result<Url> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        Ok(_) => bail!("{name} is {text:?}, only http and https are spoken"),
        Err(e) => bail!("{name} is {text:?}: {e}"),
    }
}

fn number(
    name: &str,
    text: Option<String>,
    default: u64,
    allowed: std::ops::RangeInclusive<u64>,
) -> Result<u64> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(default);
    };
    let value = text.trim().parse().ok();
    value
        .filter(|value| allowed.contains(value))
        .with_context(|| {
            let (min, max) = (allowed.start(), allowed.end());
            format!("{name} is {text:?}, allowed are {min} to {max}")
        })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The environment of a worker `w` of `fox` on a server at this address.
    pub(crate) fn environment(base: &str) -> Vec<(&'static str, String)> {
        vec![
            (TAKE, format!("{base}/v2/fox/job-take/w?gpu=")),
            (DONE, format!("{base}/v2/fox/job-done/w/$ID?gpu=")),
            (PING, format!("{base}/v2/fox/ping/w?gpu=")),
            (TOKEN, "secret".to_owned()),
            (WORKER, "w".to_owned()),
            (ENDPOINT, "fox".to_owned()),
            (PING_INTERVAL, "5000".to_owned()),
            (INIT_TIMEOUT, "60".to_owned()),
        ]
    }

    pub(crate) fn read(variables: &[(&'static str, String)]) -> Result<Settings> {
        Settings::from_environment(|name| {
            let found = variables.iter().rfind(|(it, _)| *it == name);
            found.map(|(_, value)| value.clone())
        })
    }

    #[test]
    fn every_call_has_its_url() {
        let settings = read(&environment("http://127.0.0.1:8000")).unwrap();
        let base = "http://127.0.0.1:8000/v2/fox";
        assert_eq!(
            settings.take_url.as_str(),
            format!("{base}/job-take/w?gpu=")
        );
        let batch = settings.take_batch_url.as_str();
        assert_eq!(batch, format!("{base}/job-take-batch/w?gpu="));
        assert_eq!(
            settings.stop_url.as_str(),
            format!("{base}/job-stop/w?gpu=")
        );
        assert_eq!(
            settings.done_url("j1").as_str(),
            format!("{base}/job-done/w/j1?gpu=")
        );
        assert_eq!(settings.ping_interval, Duration::from_secs(5));
        assert_eq!(settings.init_timeout, Duration::from_secs(60));
        let shown = format!("{settings:?}");
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn names_that_are_left_to_the_worker_are_filled_in() {
        let mut variables = environment("http://a");
        variables.push((TAKE, "http://a/v2/fox/job-take/$ID?x".to_owned()));
        variables.push((
            DONE,
            "http://a/v2/fox/job-done/$RUNPOD_POD_ID/$ID?x".to_owned(),
        ));
        variables.push((PING, "http://a/v2/fox/ping/$RUNPOD_POD_ID".to_owned()));
        let settings = read(&variables).unwrap();
        assert_eq!(settings.take_url.as_str(), "http://a/v2/fox/job-take/w?x");
        assert_eq!(
            settings.done_url("j").as_str(),
            "http://a/v2/fox/job-done/w/j?x"
        );
        assert_eq!(settings.ping_url.as_str(), "http://a/v2/fox/ping/w");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (name, value, expected) in [
            (
                TAKE,
                "",
                "RUNPOD_WEBHOOK_GET_JOB is not set; `lazyfox worker` runs as",
            ),
            (
                TAKE,
                "http://a/v2/fox/take",
                "it should have /job-take/ in it",
            ),
            (TAKE, "ftp://a/job-take/w", "only http and https are spoken"),
            (
                DONE,
                "http://a/done",
                "it should have $ID where the job's id belongs",
            ),
            (
                DONE,
                "done/$ID",
                "RUNPOD_WEBHOOK_POST_OUTPUT is \"done/job\"",
            ),
            (TOKEN, "a\nb", "RUNPOD_AI_API_KEY has characters"),
            (
                PING_INTERVAL,
                "soon",
                "RUNPOD_PING_INTERVAL is \"soon\", allowed are 100 to",
            ),
            (
                INIT_TIMEOUT,
                "0",
                "RUNPOD_INIT_TIMEOUT is \"0\", allowed are 1 to 86400",
            ),
        ] {
            let mut variables = environment("http://a");
            variables.push((name, value.to_owned()));
            let error = read(&variables).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected:?} is not in {error}");
        }
    }
}
