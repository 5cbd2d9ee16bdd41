//! `worker-env`: what a worker on any machine needs to serve an endpoint.

use std::collections::BTreeMap;

use reqwest::Url;
use serde::Deserialize;
use serde_json::json;

use super::args::{EnvFormat, WorkerEnvArgs};
use super::call::{Request, Server, is_loopback};
use super::console::Console;
use super::failure::{Failure, Outcome};
use super::show::printable;

/// The variable that shows where the worker will look for its server.
const TAKES_AT: &str = "RUNPOD_WEBHOOK_GET_JOB";

#[derive(Deserialize)]
struct Made {
    worker: String,
    env: BTreeMap<String, String>,
}

/// Prints the environment of a new worker.
pub(super) async fn worker_env(
    args: &WorkerEnvArgs,
    server: &Server,
    console: &mut Console,
) -> Result<Outcome, Failure> {
    let endpoint = &args.endpoint;
    let mut wish = serde_json::Map::new();
    if let Some(worker) = &args.worker {
        wish.insert("worker".to_owned(), json!(worker));
    }
    if let Some(url) = &args.worker_url {
        wish.insert("workerUrl".to_owned(), json!(url));
    }
    let request = Request {
        body: Some(serde_json::Value::from(wish).to_string()),
        ..Request::post(format!("{endpoint}/worker-env"))
    };
    let reply = server.call(request).await?;
    let made: Made = reply.parse()?;
    if let Some(url) = unreachable_elsewhere(&made.env) {
        console.note(&format!(
            "warning: the worker will look for its server at {url}, which only this machine can \
             reach; say --worker-url URL, or set server.worker_url"
        ));
    }
    if console.json {
        console.document(reply.text())?;
        return Ok(Outcome::Fine);
    }
    console.note(&format!(
        "the worker {} of {endpoint}; each worker needs an environment of its own",
        printable(&made.worker)
    ));
    for line in lines(&made.env, args.format)? {
        console.text(&line)?;
    }
    Ok(Outcome::Fine)
}

/// Scheme, host and port of the server, if other machines mean themselves by it.
fn unreachable_elsewhere(env: &BTreeMap<String, String>) -> Option<String> {
    let url: Url = env.get(TAKES_AT)?.parse().ok()?;
    is_loopback(&url).then(|| url.origin().ascii_serialization())
}

fn lines(env: &BTreeMap<String, String>, format: EnvFormat) -> Result<Vec<String>, Failure> {
    match format {
        EnvFormat::Json => Ok(vec![json!(env).to_string()]),
        EnvFormat::Env => Ok(env
            .iter()
            .filter(|(name, _)| is_shell_name(name))
            .map(|(name, value)| format!("export {name}={}", quoted(value)))
            .collect()),
        EnvFormat::Docker => env
            .iter()
            .map(|(name, value)| {
                // Such a file has no quotes and no escapes: a line is a variable.
                if value.contains(['\n', '\r']) {
                    return Err(Failure::Usage(format!(
                        "the value of {name} has a line break, which an env file cannot hold; \
                         take --format env or json"
                    )));
                }
                Ok(format!("{name}={value}"))
            })
            .collect(),
    }
}

/// A shell cannot set others, and what it would make of them instead is not for us to try.
fn is_shell_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.bytes().next().is_some_and(is_letter)
        && name
            .bytes()
            .all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

/// Between single quotes a shell takes everything as it stands; `$ID` in URLs must not be expanded.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("A".to_owned(), value.to_owned())])
    }

    #[test]
    fn each_format_keeps_values_as_they_are() {
        let value = "a 'b' $ID \"c\" \\";
        let line = |format| lines(&env(value), format).unwrap().concat();
        assert_eq!(line(EnvFormat::Docker), format!("A={value}"));
        assert_eq!(line(EnvFormat::Json), json!({ "A": value }).to_string());
        assert_eq!(line(EnvFormat::Env), r#"export A='a '\''b'\'' $ID "c" \'"#);
    }

    #[test]
    fn line_breaks_and_odd_names_are_not_passed_off_as_something_else() {
        let refused = lines(&env("a\nB=c"), EnvFormat::Docker).unwrap_err();
        let text = refused.text().unwrap();
        assert!(text.contains("the value of A has a line break"), "{text}");
        assert_eq!(
            lines(&env("a\nb"), EnvFormat::Env).unwrap(),
            ["export A='a\nb'"]
        );
        let odd = BTreeMap::from([("A;rm".to_owned(), String::new())]);
        assert_eq!(lines(&odd, EnvFormat::Env).unwrap(), [""; 0]);
    }

    #[test]
    fn only_addresses_of_this_machine_are_warned_of() {
        let of = |url: &str| {
            let url = format!("{url}/v2/a/job-take/w?gpu=");
            unreachable_elsewhere(&BTreeMap::from([(TAKES_AT.to_owned(), url)]))
        };
        assert_eq!(of("http://fox.example:80"), None);
        assert_eq!(of("http://10.0.0.1"), None);
        for url in [
            "http://127.0.0.1:8000",
            "http://[::1]:8000",
            "http://localhost",
        ] {
            assert_eq!(of(url).as_deref(), Some(url));
        }
    }
}
