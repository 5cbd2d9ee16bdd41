//! `why`: why does my job wait?

use std::borrow::Cow;

use serde::Deserialize;

use super::args::JobArgs;
use super::call::{Request, Server};
use super::console::Console;
use super::failure::{Failure, Outcome};
use super::show::printable;
use super::times::{duration, roughly};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Why<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(borrow)]
    text: Cow<'a, str>,
    ahead: Option<u64>,
    #[serde(default)]
    ahead_at_least: bool,
    waited_ms: Option<u64>,
    estimate_ms: Option<u64>,
}

/// Prints what the server says of a job's wait.
pub(super) async fn why(
    args: &JobArgs,
    server: &Server,
    console: &mut Console,
) -> Result<Outcome, Failure> {
    let JobArgs { endpoint, job } = args;
    let reply = server
        .call(Request::get(format!("{endpoint}/why/{job}")))
        .await?;
    if console.json {
        console.document(reply.text())?;
        return Ok(Outcome::Fine);
    }
    let why: Why<'_> = reply.parse()?;
    let ahead = why.ahead.map(|n| match why.ahead_at_least {
        true => format!("at least {n} jobs"),
        false => format!("{n} jobs"),
    });
    for (name, value) in [
        ("status", Some(printable(&why.status))),
        ("code", Some(printable(&why.code))),
        ("why", Some(printable(&why.text))),
        ("waited", why.waited_ms.map(duration)),
        ("ahead", ahead),
        (
            "estimate",
            why.estimate_ms
                .map(|ms| format!("about {} more", roughly(ms))),
        ),
    ] {
        if let Some(value) = value {
            console.text(&format!("{name:<10} {value}"))?;
        }
    }
    Ok(Outcome::Fine)
}
