//! What each command does with the server.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::args::{
    ClientCommand, EndpointArgs, JobArgs, PurgeQueueArgs, RetryArgs, RunArgs, RunsyncArgs,
    StatusArgs,
};
use super::call::{Reply, Request, Server};
use super::console::Console;
use super::deliveries::deliveries;
use super::failure::{Failure, Outcome};
use super::input::submit_body;
use super::listen::listen;
use super::logs::logs;
use super::redeliver::redeliver;
use super::requests::requests;
use super::scaler::{reload, scaler};
use super::show::show;
use super::stream::stream;
use super::wait::{WATCHED_POLL, Wait};
use super::webhook_secret::webhook_secret;
use super::why::why;
use super::worker_env::worker_env;
use super::workers::workers;
use crate::clock::Clock;

pub(super) async fn execute(
    command: ClientCommand,
    server: &Server,
    console: &mut Console,
    clock: &Clock,
) -> Result<Outcome, Failure> {
    match command {
        ClientCommand::Run(args) => run(&args, server, console).await,
        ClientCommand::Runsync(args) => runsync(&args, server, console).await,
        ClientCommand::Status(args) => status(&args, server, console).await,
        ClientCommand::Stream(args) => stream(&args, server, console).await,
        ClientCommand::Cancel(args) => cancel(&args, server, console).await,
        ClientCommand::Retry(args) => retry(&args, server, console).await,
        ClientCommand::PurgeQueue(args) => purge_queue(&args, server, console).await,
        ClientCommand::Health(args) => health(&args, server, console).await,
        ClientCommand::Requests(args) => requests(&args, server, console).await,
        ClientCommand::Logs(args) => logs(&args, server, console, clock).await,
        ClientCommand::Deliveries(args) => deliveries(&args, server, console, clock).await,
        ClientCommand::Redeliver(args) => redeliver(&args, server, console, clock).await,
        ClientCommand::Listen(args) => listen(&args, server, console, clock).await,
        ClientCommand::WebhookSecret(args) => webhook_secret(&args, server, console).await,
        ClientCommand::Workers(args) => workers(&args, server, console, clock).await,
        ClientCommand::Why(args) => why(&args, server, console).await,
        ClientCommand::Scaler(args) => scaler(&args, server, console).await,
        ClientCommand::Reload => reload(server, console).await,
        ClientCommand::WorkerEnv(args) => worker_env(&args, server, console).await,
    }
}

async fn run(args: &RunArgs, server: &Server, console: &mut Console) -> Result<Outcome, Failure> {
    let endpoint = &args.submit.endpoint;
    let request = Request {
        body: Some(submit_body(&args.submit, console)?),
        idempotency_key: args.submit.idempotency_key.as_deref(),
        ..Request::post(format!("{endpoint}/run"))
    };
    let mut wait = Wait::new(server, console, endpoint, None);
    let reply = wait.watch(server.call(request)).await??;
    if args.wait {
        return finish(wait, reply, None).await;
    }
    show(&reply, console)?;
    if console.out_is_terminal && !console.json {
        let job = reply.job()?;
        let url = server.url_option();
        console.note(&format!(
            "its result: lazyfox status {endpoint} {} --wait{url}",
            job.id
        ));
    }
    Ok(Outcome::Fine)
}

async fn runsync(
    args: &RunsyncArgs,
    server: &Server,
    console: &mut Console,
) -> Result<Outcome, Failure> {
    let endpoint = &args.submit.endpoint;
    // The first wait is short although a longer one is to follow: only the answer tells the id, and
    // without it neither Ctrl-C nor a broken connection could say where the result will be.
    let wait_ms = WATCHED_POLL.as_millis().to_string();
    let request = Request {
        query: &[("wait", wait_ms.as_str())],
        body: Some(submit_body(&args.submit, console)?),
        idempotency_key: args.submit.idempotency_key.as_deref(),
        wait: WATCHED_POLL,
        ..Request::post(format!("{endpoint}/runsync"))
    };
    let mut wait = Wait::new(server, console, endpoint, None);
    let reply = wait.watch(server.call(request)).await??;
    finish(wait, reply, args.timeout.map(Duration::from_secs)).await
}

async fn status(
    args: &StatusArgs,
    server: &Server,
    console: &mut Console,
) -> Result<Outcome, Failure> {
    let JobArgs { endpoint, job } = &args.job;
    let mut wait = Wait::new(server, console, endpoint, Some(job));
    let request = Request::get(format!("{endpoint}/status/{job}"));
    let reply = wait.watch(server.call(request)).await??;
    if args.wait {
        return finish(wait, reply, None).await;
    }
    show(&reply, console)?;
    Ok(reply.job()?.outcome())
}

async fn cancel(
    args: &JobArgs,
    server: &Server,
    console: &mut Console,
) -> Result<Outcome, Failure> {
    let path = format!("{}/cancel/{}", args.endpoint, args.job);
    let reply = server.call(Request::post(path)).await?;
    show(&reply, console)?;
    let job = reply.job()?;
    if job.status != "CANCELLED" {
        console.note(&format!(
            "too late: the job is {}, and stays so",
            job.status
        ));
    }
    Ok(Outcome::Fine)
}

async fn retry(
    args: &RetryArgs,
    server: &Server,
    console: &mut Console,
) -> Result<Outcome, Failure> {
    let JobArgs { endpoint, job } = &args.job;
    let mut wait = Wait::new(server, console, endpoint, Some(job));
    let request = Request::post(format!("{endpoint}/retry/{job}"));
    let reply = wait.watch(server.call(request)).await??;
    if args.wait {
        return finish(wait, reply, None).await;
    }
    show(&reply, console)?;
    Ok(Outcome::Fine)
}

/// Waits for the end of the job and prints it.
async fn finish(
    mut wait: Wait<'_>,
    reply: Reply,
    limit: Option<Duration>,
) -> Result<Outcome, Failure> {
    let (reply, outcome) = wait.until_terminal(reply, limit).await?;
    show(&reply, wait.console)?;
    if outcome == Outcome::StillRunning {
        let text = wait.come_back("--timeout is over");
        wait.console.note(&text);
    }
    Ok(outcome)
}

#[derive(Deserialize)]
struct Health<'a> {
    #[serde(borrow)]
    jobs: BTreeMap<String, &'a RawValue>,
    #[serde(borrow)]
    workers: BTreeMap<String, &'a RawValue>,
}

async fn ask_health(endpoint: &str, server: &Server) -> Result<Reply, Failure> {
    server
        .call(Request::get(format!("{endpoint}/health")))
        .await
}

async fn health(
    args: &EndpointArgs,
    server: &Server,
    console: &mut Console,
) -> Result<Outcome, Failure> {
    let reply = ask_health(&args.endpoint, server).await?;
    if console.json {
        console.document(reply.text())?;
        return Ok(Outcome::Fine);
    }
    let health: Health<'_> = reply.parse()?;
    for (name, counts) in [("jobs", &health.jobs), ("workers", &health.workers)] {
        console.text(name)?;
        for (name, count) in counts {
            console.text(&format!("  {name:<13} {count:>9}", count = count.get()))?;
        }
    }
    Ok(Outcome::Fine)
}

async fn purge_queue(
    args: &PurgeQueueArgs,
    server: &Server,
    console: &mut Console,
) -> Result<Outcome, Failure> {
    if !args.yes && !confirm(&args.endpoint, server, console).await? {
        return Err(Failure::Usage("nothing was removed".to_owned()));
    }
    let reply = server
        .call(Request::post(format!("{}/purge-queue", args.endpoint)))
        .await?;
    if console.json {
        console.document(reply.text())?;
        return Ok(Outcome::Fine);
    }
    #[derive(Deserialize)]
    struct Purged {
        removed: u64,
    }
    let purged: Purged = reply.parse()?;
    console.text(&format!("removed {} waiting jobs", purged.removed))?;
    Ok(Outcome::Fine)
}

async fn confirm(endpoint: &str, server: &Server, console: &mut Console) -> Result<bool, Failure> {
    if !(std::io::stdin().is_terminal() && console.err_is_terminal) {
        return Err(Failure::Usage(format!(
            "this removes every waiting job of {endpoint}; where nobody can be asked, say --yes"
        )));
    }
    let reply = ask_health(endpoint, server).await?;
    let health: Health<'_> = reply.parse()?;
    let waiting = health
        .jobs
        .get("inQueue")
        .map_or("all", |count| count.get());
    console.note(&format!(
        "Remove {waiting} waiting jobs of {endpoint}? They cannot be put back. [y/N]"
    ));
    let mut answer = String::new();
    // Blocks the runtime, on which nothing else goes on meanwhile.
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
