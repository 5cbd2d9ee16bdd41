//! From nothing to the first line of a handler: where the time goes, and how much of it is the
//! server's.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::http::Connection;
use crate::report::{p50_p95, table};
use crate::sdk::{Kind, now_s, number};
use crate::server::Site;

/// How long a start may take; an image may have to be loaded first.
const WAIT_MS: u64 = 300_000;

/// The server answers before this, whatever became of the job.
const LIMIT: Duration = Duration::from_millis(WAIT_MS + 10_000);

/// How long a worker without a job may take to be gone.
const GONE_LIMIT: Duration = Duration::from_secs(60);
const GONE_LOOK: Duration = Duration::from_millis(50);

/// One worker, which goes when it has done its job; a start that fails is told at once.
const SETTINGS: &str =
    "workers_max = 1\nidle_timeout_s = 0\nretries_max = 0\nfail_after_starts = 1\n";

/// The budget of the server's own part, in ms.
const OWN_MS_MAX: f64 = 50.0;

/// Arguments of `cold-start`.
#[derive(Args)]
pub(crate) struct ColdStartArgs {
    /// Interpreter of an environment with the SDK, for workers that are processes; several times if
    /// need be
    #[arg(long, value_name = "PATH")]
    python: Vec<PathBuf>,

    /// Image with python3 and the SDK, for workers that are containers
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,

    /// Starts of each kind that count, after one that does not
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,

    /// Store to measure
    #[arg(long, default_value = "sqlite")]
    store: String,
}

/// One start, in ms.
#[derive(Clone, Copy)]
struct Parts {
    start: f64,
    import: f64,
    take: f64,
    own: f64,
}

/// When something happened to a start, in seconds since 1970.
struct Moments {
    sent: f64,
    /// The worker is started.
    decided: f64,
    /// Its program runs.
    began: f64,
    /// It asks for a job, by the server's clock.
    polled: f64,
    /// How long the answer took: as the worker saw it, or until the hand-out begins.
    answer: f64,
    /// The first line of the handler.
    ran: f64,
}

pub(crate) async fn measure(site: &Site, args: &ColdStartArgs) -> Result<()> {
    let mut kinds = vec![Kind::StandIn];
    for program in &args.python {
        kinds.push(Kind::python(program).await?);
    }
    kinds.extend(args.image.clone().map(Kind::Image));
    let mut tables = String::new();
    for (number, kind) in kinds.iter().enumerate() {
        tables.push_str(&kind.table(site, &name(number), 1)?);
        tables.push_str(SETTINGS);
    }
    let server = site.start_with(&args.store, &tables).await?;
    let mut http = Connection::open(server.address).await?;
    let mut starts: Vec<Vec<Parts>> = kinds.iter().map(|_| Vec::new()).collect();
    for round in 0..=args.rounds {
        for (number, (kind, starts)) in kinds.iter().zip(&mut starts).enumerate() {
            let parts = start(&mut http, &name(number), kind)
                .await
                .with_context(|| format!("a start of {kind}"))?;
            // In the first round files come from the disk and images from afar.
            if round > 0 {
                starts.push(parts);
            }
        }
        eprintln!("round {round} of {}", args.rounds);
    }
    server.stop().await?;
    print(args, &kinds, &starts);
    Ok(())
}

fn name(number: usize) -> String {
    format!("kind{number}")
}

fn print(args: &ColdStartArgs, kinds: &[Kind], starts: &[Vec<Parts>]) {
    let rows: Vec<Vec<String>> = kinds
        .iter()
        .zip(starts)
        .map(|(kind, starts)| {
            let part = |of: fn(&Parts) -> f64| p50_p95(starts.iter().map(of));
            vec![
                kind.to_string(),
                part(|it| it.start),
                part(|it| it.import),
                part(|it| it.take),
                part(|it| it.start + it.import + it.take),
                part(|it| it.own),
            ]
        })
        .collect();
    let title = format!("{} starts, {}, p50 / p95 ms", args.rounds, args.store);
    let own = format!("the server's own part (budget {OWN_MS_MAX})");
    let header = [&title, "start", "import", "take", "together", &own];
    println!("{}", table(&header, &rows));
}

/// One start and its end.
async fn start(http: &mut Connection, endpoint: &str, kind: &Kind) -> Result<Parts> {
    let sent = now_s();
    let path = format!("/v2/{endpoint}/runsync?wait={WAIT_MS}");
    let job = timeout(LIMIT, http.post_json(&path, br#"{"input":{}}"#)).await;
    let job = job.context("the server does not answer")??;
    let worker = timeout(GONE_LIMIT, gone(http, endpoint, &job)).await;
    let worker = worker.context("the worker does not go")??;
    ensure!(
        job["status"] == "COMPLETED",
        "the job ended otherwise: {job}; of its worker is known: {worker}"
    );
    Ok(Moments::read(sent, &job, &worker)?.parts(kind))
}

/// Waits until the endpoint has no worker, and gives what is known of the one that did the job.
async fn gone(http: &mut Connection, endpoint: &str, job: &Value) -> Result<Value> {
    loop {
        let mut known = http.get_json(&format!("/v2/{endpoint}/workers")).await?;
        let none_left = known["workers"].as_array().is_some_and(Vec::is_empty);
        let stopped = known["stopped"].as_array_mut();
        let its = stopped.and_then(|all| all.iter_mut().find(|it| it["id"] == job["workerId"]));
        match its {
            Some(its) if none_left => return Ok(its.take()),
            None if job["workerId"].is_null() => bail!("no worker did the job: {job}; {known}"),
            Some(_) | None => {}
        }
        sleep(GONE_LOOK).await;
    }
}

impl Moments {
    fn read(sent: f64, job: &Value, worker: &Value) -> Result<Self> {
        let output = &job["output"];
        let ran = number(output, "ran")?;
        let decided = number(worker, "startedAt")? / 1000.0;
        let polled = decided + number(worker, "readyAfterMs")? / 1000.0;
        let answer = match output["asked"].as_f64() {
            Some(asked) => ran - asked,
            None => number(job, "startedAt")? / 1000.0 - polled,
        };
        Ok(Self {
            sent,
            decided,
            began: number(output, "began")?,
            polled,
            answer,
            ran,
        })
    }

    fn parts(&self, kind: &Kind) -> Parts {
        let until_started = match kind {
            Kind::StandIn | Kind::Python { .. } => self.began,
            // What follows is the engine's.
            Kind::Image(_) => self.decided,
        };
        // The server's times are whole milliseconds: what took less may look like less than
        // nothing.
        let ms = |from: f64, to: f64| (to - from).max(0.0) * 1000.0;
        Parts {
            start: ms(self.sent, self.began),
            import: ms(self.began, self.polled),
            take: ms(self.polled, self.ran),
            own: ms(self.sent, until_started) + ms(0.0, self.answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rounded(parts: Parts) -> [f64; 4] {
        [parts.start, parts.import, parts.take, parts.own].map(f64::round)
    }

    #[test]
    fn a_start_is_taken_apart() {
        let worker = json!({"startedAt": 100_020, "readyAfterMs": 400});
        let output = json!({"began": 100.030, "ran": 100.470});
        let job = json!({"startedAt": 100_422, "output": output});
        let moments = Moments::read(100.0, &job, &worker).unwrap();
        let python = Kind::Python {
            program: PathBuf::new(),
            version: String::new(),
        };
        assert_eq!(rounded(moments.parts(&python)), [30.0, 390.0, 50.0, 32.0]);
        // The engine's part is left out.
        let image = Kind::Image(String::new());
        assert_eq!(rounded(moments.parts(&image)), [30.0, 390.0, 50.0, 22.0]);
    }

    #[test]
    fn a_stand_in_says_itself_how_long_the_answer_took() {
        let worker = json!({"startedAt": 100_020, "readyAfterMs": 10});
        let output = json!({"began": 100.025, "asked": 100.030, "ran": 100.037});
        let job = json!({"startedAt": 100_030, "output": output});
        let moments = Moments::read(100.0, &job, &worker).unwrap();
        assert_eq!(
            rounded(moments.parts(&Kind::StandIn)),
            [25.0, 5.0, 7.0, 32.0]
        );
        assert!(Moments::read(100.0, &json!({"output": {}}), &worker).is_err());
    }
}
