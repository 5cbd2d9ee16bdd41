//! `stream`: the chunks of a generator handler, printed as they come.

use std::borrow::Cow;
use std::time::Instant;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::args::JobArgs;
use super::call::{Reply, Request, Server};
use super::console::Console;
use super::failure::{Failure, Outcome};
use super::job::{is_terminal, outcome};
use super::show::{bare, printable};
use super::wait::Wait;

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    output: &'a RawValue,
}

/// Prints chunks until the job is finished **and** an answer holds none: the first answer with a
/// terminal state may carry only a part of what is left.
pub(super) async fn stream(
    args: &JobArgs,
    server: &Server,
    console: &mut Console,
) -> Result<Outcome, Failure> {
    let path = format!("{}/stream/{}", args.endpoint, args.job);
    let mut wait = Wait::new(server, console, &args.endpoint, Some(&args.job));
    let mut printed = 0_usize;
    let status = loop {
        let asked = Instant::now();
        let answer = wait.held_get(path.clone(), wait.hold());
        let answer = wait.watch(answer).await?;
        if let Err(Failure::Unreachable {
            perhaps_received: true,
            ..
        }) = &answer
        {
            wait.console
                .note("an answer was lost on the way, and the chunks in it with it");
        }
        let Some(reply) = wait.survive(answer).await? else {
            continue;
        };
        let batch: Batch<'_> = reply.parse()?;
        let done = is_terminal(&batch.status) && batch.stream.is_empty();
        print_batch(&reply, &batch, done, wait.console)?;
        printed += batch.stream.len();
        if done {
            break batch.status.into_owned();
        }
        wait.state_is(&batch.status, "");
        if batch.stream.is_empty() {
            wait.pace(asked).await?;
        }
    };
    if outcome(&status) == Outcome::EndedBadly {
        say_why(args, &status, server, console).await;
    } else if printed == 0 && console.err_is_terminal {
        console.note(&format!(
            "{status}, and nothing was streamed (or somebody else has taken it); the output: \
             lazyfox status {} {}{}",
            args.endpoint,
            args.job,
            server.url_option()
        ));
    }
    Ok(outcome(&status))
}

fn print_batch(
    reply: &Reply,
    batch: &Batch<'_>,
    done: bool,
    console: &mut Console,
) -> Result<(), Failure> {
    if console.json {
        // Answers that say nothing are left out; the last one tells how the job ended.
        let worth = done || !batch.stream.is_empty();
        return if worth {
            console.document(reply.text())
        } else {
            Ok(())
        };
    }
    for chunk in &batch.stream {
        // An item without output is shown as it is rather than dropped.
        let value = serde_json::from_str::<Chunk<'_>>(chunk.get()).map_or(*chunk, |c| c.output);
        if console.out_is_terminal {
            console.text(&bare(value))?;
        } else {
            console.document(value.get())?;
        }
    }
    Ok(())
}

/// The stream does not carry the error, so the job is asked for it. That it may be gone by now
/// changes nothing: its state is known.
async fn say_why(args: &JobArgs, status: &str, server: &Server, console: &mut Console) {
    let mut text = status.to_owned();
    let request = Request::get(format!("{}/status/{}", args.endpoint, args.job));
    let reply = server.call(request).await;
    if let Ok(Some(error)) = reply
        .as_ref()
        .map(|reply| reply.job().ok().and_then(|j| j.error()))
    {
        text.push_str(": ");
        text.push_str(&printable(&error.message));
        if let Some(traceback) = &error.traceback {
            text.push('\n');
            text.push_str(printable(traceback).trim_end());
        }
    }
    console.note(&text);
}
