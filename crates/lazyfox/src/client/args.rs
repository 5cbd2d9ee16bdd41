//! The command line of the client. Its help texts are the first documentation a user reads.

mod logs;
mod webhooks;
mod worker_env;
mod workers;

use clap::{Args, Subcommand};

use super::pages::Wanted;

pub use logs::LogsArgs;
pub use webhooks::{DeliveriesArgs, ListenArgs, RedeliverArgs, WebhookSecretArgs};
pub use worker_env::{EnvFormat, WorkerEnvArgs};
pub use workers::{ScalerArgs, WorkersArgs};

/// Where a server listens when nothing else is said.
pub(super) const DEFAULT_URL: &str = "http://127.0.0.1:8000";

const EXIT_CODES: &str = "\
Exit codes: 0 fine; 1 the job ended FAILED, TIMED_OUT or CANCELLED; 2 wrong usage, or the server
refused; 3 no server reached; 4 the job still runs though --timeout is over; 130 Ctrl-C (the job
keeps running).";

/// Where the server is and how to talk to it.
#[derive(Args, Clone, Debug)]
pub struct Connection {
    /// Address of the server
    #[arg(
        long,
        env = "LAZYFOX_URL",
        default_value = DEFAULT_URL,
        value_name = "URL",
        global = true,
        help_heading = "Connection (client commands)"
    )]
    pub url: String,

    /// API key; better set in the environment, where other users of this machine cannot read it
    #[arg(
        long,
        env = "LAZYFOX_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        global = true,
        help_heading = "Connection (client commands)"
    )]
    pub key: Option<String>,

    /// Print the server's JSON documents as they came, one per line
    #[arg(long, global = true, help_heading = "Connection (client commands)")]
    pub json: bool,
}

/// What the client can do.
#[derive(Subcommand, Clone, Debug)]
pub enum ClientCommand {
    /// Submit a job and print its id; with --wait, stay until it is finished
    #[command(after_help = format!("\
Example: lazyfox run sdxl '{{\"prompt\": \"a fox\"}}' --wait

{EXIT_CODES}"))]
    Run(RunArgs),

    /// Submit a job and wait for its result
    #[command(after_help = format!("\
Example: lazyfox runsync sdxl @request.json --timeout 120

{EXIT_CODES}"))]
    Runsync(RunsyncArgs),

    /// Show a job: its state, times, output or error
    #[command(after_help = format!("\
Example: lazyfox status sdxl 0199c3b1-7f6e-7c41-9a52-0f2f6d1c8e10 --wait

{EXIT_CODES}"))]
    Status(StatusArgs),

    /// Print what a generator handler yields, one chunk per line, as it comes
    ///
    /// The server hands out each chunk once: a second reader of the same job sees only what the
    /// first has not taken. Text is printed bare on a terminal and as JSON elsewhere.
    #[command(after_help = format!("\
Example: lazyfox stream llm 0199c3b1-7f6e-7c41-9a52-0f2f6d1c8e10

{EXIT_CODES}"))]
    Stream(JobArgs),

    /// Cancel a job that waits or runs; a finished job stays as it is
    #[command(after_help = "Example: lazyfox cancel sdxl 0199c3b1-7f6e-7c41-9a52-0f2f6d1c8e10")]
    Cancel(JobArgs),

    /// Put a FAILED or TIMED_OUT job back into the queue, with the same id and input
    #[command(
        after_help = "Example: lazyfox retry sdxl 0199c3b1-7f6e-7c41-9a52-0f2f6d1c8e10 --wait"
    )]
    Retry(RetryArgs),

    /// Remove every job that waits in the queue; running jobs go on
    #[command(after_help = "Example: lazyfox purge-queue sdxl --yes")]
    PurgeQueue(PurgeQueueArgs),

    /// Count the jobs and workers of an endpoint
    #[command(after_help = "Example: lazyfox health sdxl --json")]
    Health(EndpointArgs),

    /// List the jobs of an endpoint
    #[command(after_help = "Example: lazyfox requests sdxl --status FAILED --limit 10")]
    Requests(RequestsArgs),

    /// Show what an endpoint's workers wrote and what was done with them; with --follow, as it comes
    ///
    /// Lines are there from a worker's start on and after its end: also those of one that never became
    /// ready. Times are UTC. A line of the SDK has its job and its level, and what a handler prints has
    /// the job that its worker runs, where that is only one. With --json each line is a document.
    ///
    /// With --follow a connection that is lost is made again, and goes on where it ended.
    #[command(after_help = "\
Examples: lazyfox logs sdxl --since 10m
          lazyfox logs sdxl --follow --worker wkabcdefgh2345
          lazyfox logs sdxl --job 0199c3b1-7f6e-7c41-9a52-0f2f6d1c8e10 --raw
Exit codes: 2 wrong usage, or the server refused; 3 no server reached; 130 Ctrl-C.")]
    Logs(LogsArgs),

    /// List the webhooks of an endpoint, sent and to be sent; with --job, every try
    #[command(after_help = "\
Examples: lazyfox deliveries sdxl --state failed
          lazyfox deliveries sdxl --job 0199c3b1-7f6e-7c41-9a52-0f2f6d1c8e10")]
    Deliveries(DeliveriesArgs),

    /// Send webhooks again: one, or all of a time range
    ///
    /// The body and the id are the same again, so a receiver that remembers ids knows what it has.
    #[command(override_usage = "\
lazyfox redeliver [OPTIONS] <ENDPOINT> <DELIVERY>
       lazyfox redeliver [OPTIONS] <ENDPOINT> --since <TIME> [--until <TIME>] [--state <STATE>]")]
    #[command(after_help = "\
Examples: lazyfox redeliver sdxl 0199c3b1-7f6e-7c41-9a52-0f2f6d1c8e10_1
          lazyfox redeliver sdxl --since 2h
          lazyfox redeliver sdxl --since 2026-05-01T12:00:00Z --until 30m --state all")]
    Redeliver(RedeliverArgs),

    /// Watch webhooks as they are sent, and forward them to a program on this machine
    ///
    /// One line for each try, when its result is known. With --forward each webhook is also posted
    /// to that URL, with the same body and the same signed headers, once in each round of tries: a
    /// later try of the round only if the program did not answer the earlier one with a 2xx. What the
    /// program answers changes nothing for the delivery. With --json each event of the server is a
    /// line: {"event":"try",…} with headers and body, {"event":"result",…} and {"event":"missed",…};
    /// what became of forwarding then goes to stderr.
    ///
    /// A connection that is lost is made again, for as long as it takes; what was sent meanwhile is
    /// not shown.
    #[command(after_help = "\
Examples: lazyfox listen sdxl
          lazyfox listen sdxl --forward http://127.0.0.1:3000/hook
Exit codes: 2 wrong usage, or the server refused; 3 no server reached at first; 130 Ctrl-C.")]
    Listen(ListenArgs),

    /// List the secrets that sign the webhooks of an endpoint, or make a new one
    ///
    /// A new secret is printed once, alone on stdout; what it means goes to stderr. The previous one
    /// stays valid for a while, so that receivers can change over without refusing a webhook.
    #[command(after_help = "\
Examples: lazyfox webhook-secret sdxl
          lazyfox webhook-secret sdxl --new --overlap 3d > secret")]
    WebhookSecret(WebhookSecretArgs),

    /// List the workers of an endpoint: what each does, why it was started, why others ended
    #[command(after_help = "Example: lazyfox workers sdxl --stopped 20")]
    Workers(WorkersArgs),

    /// Say why a job waits, what is before it and about how long it will take
    #[command(after_help = "Example: lazyfox why sdxl 0199c3b1-7f6e-7c41-9a52-0f2f6d1c8e10")]
    Why(JobArgs),

    /// Show what the scaler decided and from what, or change its numbers
    ///
    /// A change takes effect at once, survives a restart and wins over the configuration until
    /// --unset takes it back. --workers-max 0 pauses the endpoint. Changing needs an admin key.
    #[command(after_help = "\
Examples: lazyfox scaler sdxl
          lazyfox scaler sdxl --workers-max 8 --idle-timeout 60
          lazyfox scaler sdxl --unset")]
    Scaler(ScalerArgs),

    /// Have the server read its configuration file again
    ///
    /// What it says of endpoints is taken over as a whole or not at all; where an image, a command or
    /// an environment changed, workers are replaced one after the other. [server] is read at a start
    /// only. Needs an admin key.
    Reload,

    /// Print the environment with which a worker on any machine serves an endpoint
    ///
    /// It holds a token that is good for this one worker of this one endpoint, so treat it as a
    /// password. Needs an admin key.
    #[command(after_help = "\
Examples: eval \"$(lazyfox worker-env sdxl)\" && python3 handler.py
          docker run --env-file <(lazyfox worker-env sdxl --format docker) my/sdxl
          lazyfox worker-env sdxl --worker attic-1 --worker-url http://10.0.0.5:8000")]
    WorkerEnv(WorkerEnvArgs),
}

/// An endpoint and nothing more.
#[derive(Args, Clone, Debug)]
pub struct EndpointArgs {
    /// Name of the endpoint
    #[arg(value_parser = path_segment)]
    pub endpoint: String,
}

/// One job of an endpoint.
#[derive(Args, Clone, Debug)]
pub struct JobArgs {
    /// Name of the endpoint
    #[arg(value_parser = path_segment)]
    pub endpoint: String,

    /// Id of the job
    #[arg(value_parser = path_segment)]
    pub job: String,
}

/// What is submitted; the same for `run` and `runsync`.
#[derive(Args, Clone, Debug)]
pub struct SubmitArgs {
    /// Name of the endpoint
    #[arg(value_parser = path_segment)]
    pub endpoint: String,

    /// The job's input: JSON text, @FILE, or - for stdin
    ///
    /// An object with the key "input" is sent as the whole request; anything else is wrapped as
    /// {"input": …}. The text is sent as it came: numbers and key order are not touched.
    #[arg(allow_hyphen_values = true)]
    pub input: String,

    /// Have the finished job posted to this URL
    #[arg(long, value_name = "URL")]
    pub webhook: Option<String>,

    /// Longest time one attempt may run, in milliseconds [default: the endpoint's]
    #[arg(long, value_name = "MS")]
    pub execution_timeout: Option<u64>,

    /// Longest time from submission to the end, waiting included, in milliseconds [default: the
    /// endpoint's, and then for waiting jobs only]
    #[arg(long, value_name = "MS")]
    pub ttl: Option<u64>,

    /// Run behind all normal jobs, and start no worker for it
    #[arg(long)]
    pub low_priority: bool,

    /// Bucket for the handler's uploads: JSON text or @FILE; only the worker gets to see it
    #[arg(long, value_name = "JSON")]
    pub s3_config: Option<String>,

    /// Make repeating safe: a second submit with the same key returns the first one's job
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

/// Arguments of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// What to submit.
    #[command(flatten)]
    pub submit: SubmitArgs,

    /// Stay until the job is finished and print its result
    #[arg(long)]
    pub wait: bool,
}

/// Arguments of `runsync`.
#[derive(Args, Clone, Debug)]
pub struct RunsyncArgs {
    /// What to submit.
    #[command(flatten)]
    pub submit: SubmitArgs,

    /// Give up waiting after this many seconds; the job keeps running [default: wait for ever]
    #[arg(long, value_name = "S")]
    pub timeout: Option<u64>,
}

/// Arguments of `status`.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// Which job.
    #[command(flatten)]
    pub job: JobArgs,

    /// Stay until the job is finished
    #[arg(long)]
    pub wait: bool,
}

/// Arguments of `retry`.
#[derive(Args, Clone, Debug)]
pub struct RetryArgs {
    /// Which job.
    #[command(flatten)]
    pub job: JobArgs,

    /// Stay until the job is finished and print its result
    #[arg(long)]
    pub wait: bool,
}

/// Arguments of `purge-queue`.
#[derive(Args, Clone, Debug)]
pub struct PurgeQueueArgs {
    /// Name of the endpoint
    #[arg(value_parser = path_segment)]
    pub endpoint: String,

    /// Do not ask; needed where nobody can answer
    #[arg(long, short)]
    pub yes: bool,
}

/// Arguments of `requests`.
#[derive(Args, Clone, Debug)]
pub struct RequestsArgs {
    /// Name of the endpoint
    #[arg(value_parser = path_segment)]
    pub endpoint: String,

    /// Only jobs in this state, for example IN_QUEUE or FAILED
    #[arg(long, value_name = "STATUS")]
    pub status: Option<String>,

    /// How many.
    #[command(flatten)]
    pub list: ListArgs,
}

/// How much of a list.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// At most this many, the newest first
    #[arg(long, value_name = "N", default_value_t = 50, conflicts_with = "all",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,

    /// All there are
    #[arg(long)]
    pub all: bool,
}

impl ListArgs {
    pub(super) fn wanted(&self) -> Wanted {
        if self.all {
            Wanted::All
        } else {
            Wanted::AtMost(self.limit)
        }
    }
}

/// Endpoint names and ids stand in the URL as they are, so a slash or a question mark in one
/// would quietly ask for something else.
fn path_segment(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !text.is_empty() && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("only letters, digits, '-' and '_' can stand here".to_owned())
    }
}
