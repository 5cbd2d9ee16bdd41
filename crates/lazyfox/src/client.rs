//! The client for people and shell scripts: submit jobs, wait for them, look at the queue and at webhooks.
//!
//! About jobs it speaks the public API and nothing else, so it works against any compatible server; the
//! calls about webhooks and workers are our own. Data goes to stdout, everything about the way there to
//! stderr. Read `call` for how a request is made, `wait` for how an answer is awaited, `show` for what a
//! person sees, `listen` for a connection that stays open.

mod args;
mod call;
mod commands;
mod console;
mod deliveries;
mod delivery;
mod error_text;
mod events;
mod failure;
mod forward;
mod held;
mod input;
mod job;
mod listen;
mod logs;
mod pages;
mod pretty;
mod redeliver;
mod requests;
mod scaler;
mod show;
mod stream;
mod table;
mod times;
mod wait;
mod webhook_secret;
mod why;
mod worker_env;
mod workers;

#[cfg(test)]
pub(crate) mod tests;

use std::process::ExitCode;

pub(crate) use times::duration;

pub use crate::when::When;
pub use args::{
    ClientCommand, Connection, DeliveriesArgs, EndpointArgs, EnvFormat, JobArgs, ListArgs,
    ListenArgs, LogsArgs, PurgeQueueArgs, RedeliverArgs, RequestsArgs, RetryArgs, RunArgs,
    RunsyncArgs, ScalerArgs, StatusArgs, SubmitArgs, WebhookSecretArgs, WorkerEnvArgs, WorkersArgs,
};
pub(crate) use call::{http, reason};
use console::Console;
use failure::{Failure, Outcome};

use crate::clock::Clock;

/// Runs one client command to its end and says how it went as an exit code: 0 fine, 1 the job ended
/// FAILED, TIMED_OUT or CANCELLED, 2 wrong usage or refused by the server, 3 no server reached, 4
/// the job still runs though `--timeout` is over, 130 interrupted.
pub async fn main(command: ClientCommand, connection: Connection) -> ExitCode {
    let mut console = Console::standard(connection.json);
    let result = run(command, &connection, &mut console, &Clock::system()).await;
    ExitCode::from(report(result, &mut console))
}

/// Submits one job, waits for its end however long it takes, and prints the server's document of it:
/// `lazyfox dev --send`. The exit code is that of `runsync`.
pub async fn run_one(url: &str, key: Option<&str>, endpoint: &str, input: &str) -> ExitCode {
    let connection = Connection {
        url: url.to_owned(),
        key: key.map(str::to_owned),
        json: true,
    };
    let submit = SubmitArgs {
        endpoint: endpoint.to_owned(),
        input: input.to_owned(),
        webhook: None,
        execution_timeout: None,
        ttl: None,
        low_priority: false,
        s3_config: None,
        idempotency_key: None,
    };
    let command = ClientCommand::Runsync(RunsyncArgs {
        submit,
        timeout: None,
    });
    main(command, connection).await
}

async fn run(
    command: ClientCommand,
    connection: &Connection,
    console: &mut Console,
    clock: &Clock,
) -> Result<Outcome, Failure> {
    let server = call::Server::new(connection)?;
    commands::execute(command, &server, console, clock).await
}

fn report(result: Result<Outcome, Failure>, console: &mut Console) -> u8 {
    console.clear_progress();
    match result {
        Ok(outcome) => outcome.exit_code(),
        Err(failure) => {
            if let Some(text) = failure.text() {
                console.note(&text);
            }
            failure.exit_code()
        }
    }
}
