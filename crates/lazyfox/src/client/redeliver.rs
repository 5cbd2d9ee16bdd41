//! `redeliver`: has webhooks sent again, one or all of a time range.

use serde::Deserialize;

use super::args::RedeliverArgs;
use super::call::{Request, Server};
use super::console::Console;
use super::failure::{Failure, Outcome};
use super::show::printable;
use crate::clock::Clock;
use crate::when::When;

/// Asks for one or for many.
pub(super) async fn redeliver(
    args: &RedeliverArgs,
    server: &Server,
    console: &mut Console,
    clock: &Clock,
) -> Result<Outcome, Failure> {
    match (&args.delivery, args.since) {
        (Some(delivery), _) => one(&args.endpoint, delivery, server, console).await,
        (None, Some(since)) => range(args, since, server, console, clock).await,
        (None, None) => Err(Failure::Usage(
            "say what to send again: the id of one delivery, or --since for all of a time range"
                .to_owned(),
        )),
    }
}

#[derive(Deserialize)]
struct Redelivered {
    id: String,
    state: String,
}

async fn one(
    endpoint: &str,
    delivery: &str,
    server: &Server,
    console: &mut Console,
) -> Result<Outcome, Failure> {
    let path = format!("{endpoint}/deliveries/{delivery}/redeliver");
    let reply = server.call(Request::post(path)).await?;
    if console.json {
        console.document(reply.text())?;
        return Ok(Outcome::Fine);
    }
    let it: Redelivered = reply.parse()?;
    let line = format!("{} is {} again", printable(&it.id), printable(&it.state));
    console.text(&line)?;
    Ok(Outcome::Fine)
}

#[derive(Deserialize)]
struct RedeliveredRange {
    redelivered: u64,
}

async fn range(
    args: &RedeliverArgs,
    since: When,
    server: &Server,
    console: &mut Console,
    clock: &Clock,
) -> Result<Outcome, Failure> {
    let now = clock.now();
    let since = since.from(now);
    let until = args.until.map(|until| until.from(now));
    if since >= until.unwrap_or(now) {
        let end = if until.is_some() { "--until" } else { "now" };
        return Err(Failure::Usage(format!(
            "--since is not before {end}, so there is no time between them"
        )));
    }
    let from = since.to_string();
    let to = until.map(|until| until.to_string());
    let mut query = vec![("from", from.as_str())];
    query.extend(to.as_deref().map(|to| ("to", to)));
    query.extend(args.state.as_deref().map(|state| ("state", state)));
    let request = Request {
        query: &query,
        ..Request::post(format!("{}/deliveries/redeliver", args.endpoint))
    };
    let reply = server.call(request).await?;
    if console.json {
        console.document(reply.text())?;
        return Ok(Outcome::Fine);
    }
    let RedeliveredRange { redelivered } = reply.parse()?;
    console.text(&match redelivered {
        0 => "no such delivery in that time; nothing is sent again".to_owned(),
        1 => "1 delivery is sent again".to_owned(),
        more => format!("{more} deliveries are sent again"),
    })?;
    Ok(Outcome::Fine)
}
