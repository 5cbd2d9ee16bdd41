//! The other queues, which a script measures.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use super::QueuesArgs;
use super::own::{Bulk, Callers};

/// With the installation of all packages.
const LIMIT: Duration = Duration::from_secs(3600);

/// What the script says of one queue in one round.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) callers: Option<Callers>,
    pub(super) bulk: Option<Bulk>,
}

/// Measures all of them once.
pub(super) async fn run(args: &QueuesArgs, url: &str, packages: &Path) -> Result<Vec<Line>> {
    let script = args.peers.display();
    let run = Command::new(&args.peers)
        .arg(url)
        .arg(packages)
        .env("ROUNDS", "1")
        .env("SECONDS_EACH", args.seconds.to_string())
        .env("CALLERS", args.callers.to_string())
        .env("JOBS", args.jobs.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {script}: name another with --peers"))?;
    let output = timeout(LIMIT, run.wait_with_output())
        .await
        .with_context(|| format!("{script} does not end"))??;
    ensure!(
        output.status.success(),
        "{script} ended with {}",
        output.status
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter(|line| line.starts_with('{'));
    lines.map(parse).collect()
}

fn parse(text: &str) -> Result<Line> {
    let line: Value = serde_json::from_str(text).with_context(|| format!("no JSON: {text}"))?;
    let word = |key: &str| {
        let word = line[key].as_str();
        word.with_context(|| format!("no {key} in {text}"))
    };
    let figure = |key: &str| {
        let figure = line[key].as_f64();
        figure.with_context(|| format!("no {key} in {text}"))
    };
    let is_bulk = word("mode")? == "bulk";
    let bulk = || {
        Ok(Bulk {
            added_per_second: figure("added_per_s")?,
            drained_per_second: figure("drained_per_s")?,
        })
    };
    let callers = || {
        Ok(Callers {
            per_second: figure("jobs_per_s")?,
            p50_ms: figure("p50_ms")?,
            p99_ms: figure("p99_ms")?,
            server_cpu_us: f64::NAN,
            postgres_cpu_us: f64::NAN,
            own_cpu_us: f64::NAN,
        })
    };
    let (callers, bulk): (Option<Result<_>>, Option<Result<_>>) = match is_bulk {
        true => (None, Some(bulk())),
        false => (Some(callers()), None),
    };
    Ok(Line {
        name: format!("{} {}", word("peer")?, word("version")?),
        callers: callers.transpose()?,
        bulk: bulk.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn lines_of_both_modes_are_read() {
        let line = r#"{"peer":"p","version":"1.2","mode":"callers","callers":64,"seconds":10,
            "jobs":900,"jobs_per_s":90,"p50_ms":1.5,"p99_ms":2,"settings":{}}"#;
        let line = parse(line).unwrap();
        assert_eq!(line.name, "p 1.2");
        assert!(line.bulk.is_none());
        let callers = line.callers.unwrap();
        assert_eq!(
            [callers.per_second, callers.p50_ms, callers.p99_ms],
            [90.0, 1.5, 2.0]
        );

        let line =
            r#"{"peer":"p","version":"1.2","mode":"bulk","added_per_s":7,"drained_per_s":3}"#;
        let line = parse(line).unwrap();
        assert!(line.callers.is_none());
        let bulk = line.bulk.unwrap();
        assert_eq!([bulk.added_per_second, bulk.drained_per_second], [7.0, 3.0]);
    }

    #[test]
    fn a_line_without_its_figures_is_refused() {
        for line in [
            "{",
            r#"{"mode":"callers"}"#,
            r#"{"peer":"p","version":"1","mode":"bulk"}"#,
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
