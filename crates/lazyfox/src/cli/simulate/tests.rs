use clap::Parser as _;
use lazyfox_core::scale::Scaler;
use lazyfox_core::simulate::{Arrival, Outcome, Step};
use serde_json::{Value, json};

use super::*;

fn read(csv: &str) -> Result<Vec<Arrival>> {
    let trace = Rows::read(csv.as_bytes())?.trace(Some(1_000))?;
    Ok(trace.arrivals().to_vec())
}

fn jobs(csv: &str) -> Vec<(u64, u64, bool)> {
    let arrivals = read(csv).unwrap();
    let jobs = arrivals.iter().map(|it| (it.at_ms, it.run_ms, it.low));
    jobs.collect()
}

fn base() -> Variant {
    Variant::of(Settings::default())
}

/// The settings that `--compare` makes of the shipped ones.
fn compared(text: &str) -> Result<Variant> {
    base().with(&Change::parse(text)?)
}

#[test]
fn seconds_are_counted_from_the_first_job_in_any_order() {
    assert_eq!(
        jobs("at\n1777636985.5\n1777636984\n")[1].0,
        1_500,
        "since 1970"
    );
    let csv = "at,run,low\n12.5,3,false\n\n10,0.25,true\n\"10.0005\", 2.5 ,\n";
    let expected = [(0, 250, true), (0, 2_500, false), (2_500, 3_000, false)];
    assert_eq!(jobs(csv), expected);
}

#[test]
fn times_may_stand_in_any_zone_with_fractions() {
    let csv = "\u{feff}low,at\r\n1,2026-05-01T12:03:04.25Z\r\n0,2026-05-01T14:03:05+02:00\r\n";
    assert_eq!(jobs(csv), [(0, 1_000, true), (750, 1_000, false)]);
}

#[test]
fn a_mistake_is_named_with_its_line_and_column() {
    let cases = [
        ("", "line 1: there is no header"),
        ("run\n1\n", "line 1: column at is missing"),
        ("at,duration\n", "line 1: column \"duration\" is unknown"),
        ("at,at\n", "line 1: column at stands there twice"),
        ("at,run\n1,2\n3\n", "line 3: 1 fields, the header has 2"),
        (
            "at\n1\nsoon\n",
            "line 3, column at: \"soon\" is neither seconds",
        ),
        ("at\n-1\n", "line 2, column at: \"-1\" is neither seconds"),
        ("at\n1e3\n", "line 2, column at: \"1e3\" is neither seconds"),
        ("at\n1777636984123\n", "at most 10 digits"),
        (
            "at\n1\n2026-05-01T12:03:04Z\n",
            "line 3, column at: \"2026-05-01T12:03:04Z\" is a time, and the lines before have seconds",
        ),
        (
            "at\n2026-05-01T12:03:04Z\n1\n",
            "line 3, column at: \"1\" are seconds, and the lines before have times",
        ),
        (
            "at,run\n1,2 s\n",
            "line 2, column run: \"2 s\" are no seconds",
        ),
        (
            "at,low\n1,maybe\n",
            "line 2, column low: \"maybe\" is neither true nor false",
        ),
    ];
    for (csv, expected) in cases {
        let text = format!("{:#}", read(csv).unwrap_err());
        assert!(text.contains(expected), "{csv:?}: {text}");
    }
}

#[test]
fn a_job_whose_length_nothing_says_is_refused() {
    let rows = Rows::read("at,run\n1,2\n1,\n".as_bytes()).unwrap();
    let text = rows.trace(None).unwrap_err().to_string();
    assert!(
        text.contains("line 3, column run") && text.contains("--run-time"),
        "{text}"
    );
    assert_eq!(rows.trace(Some(7_000)).unwrap().arrivals()[1].run_ms, 7_000);
}

#[test]
fn a_comparison_is_read_like_options() {
    let variant = compared("scaler-value=0.5, start-time=20,slots=2,run-time=3").unwrap();
    assert_eq!(
        variant.world.settings.scaler,
        Scaler::QueueDelay { ms: 500 }
    );
    assert_eq!((variant.world.start_ms, variant.world.slots), (20_000, 2));
    assert_eq!(variant.run_ms, Some(3_000));
    let counted = compared("scaler=REQUEST_COUNT,workers-min=1,workers-max=9,idle-timeout=60");
    let settings = Settings {
        workers_min: 1,
        workers_max: 9,
        scaler: Scaler::RequestCount { per_worker: 4 },
        idle_timeout_ms: 60_000,
        ..Settings::default()
    };
    assert_eq!(
        counted.unwrap().world.settings,
        settings,
        "4 is the value of a new scaler"
    );
}

#[test]
fn a_wrong_comparison_names_what_is_wrong() {
    let cases = [
        ("scalar=QUEUE_DELAY", "unexpected argument '--scalar'"),
        (
            "scaler=FAST",
            "invalid value 'FAST' for '--scaler <SCALER>'",
        ),
        ("scaler-value=0", "from 0.001 to 3600"),
        ("scaler-value=3600.001", "from 0.001 to 3600"),
        (
            "scaler=REQUEST_COUNT,scaler-value=1.5",
            "a whole number from 1 to 3600",
        ),
        (
            "scaler=REQUEST_COUNT,scaler-value=3601",
            "a whole number from 1 to 3600",
        ),
        ("idle-timeout=-1", "at most 10 digits such as 12 or 0.5"),
        ("idle-timeout=5s", "at most 10 digits such as 12 or 0.5"),
        ("slots=0", "0 is not in 1.."),
        (
            "workers-min=4",
            "--workers-min is 4, more than --workers-max, which is 3",
        ),
        ("", "each part should be OPTION=VALUE"),
        ("slots=2,scaler", "each part should be OPTION=VALUE"),
        ("slots=2,slots=3", "cannot be used multiple times"),
    ];
    for (text, expected) in cases {
        let error = format!("{:#}", compared(text).unwrap_err());
        assert!(error.contains(expected), "{text:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

fn run<'a>(name: &'a str, variant: Variant, csv: &str) -> Run<'a> {
    let trace = Rows::read(csv.as_bytes()).unwrap().trace(None).unwrap();
    let outcome = simulate(&trace, &variant.world);
    Run {
        name,
        variant,
        outcome,
    }
}

const BURST: &str = "at,run,low\n0,8,\n0,8,\n0,8,\n0,8,\n0,8,\n0,8,\n1,5,1\n";

#[test]
fn the_report_has_a_row_and_a_chart_for_each_run() {
    let start = compared("start-time=3").unwrap();
    let counted = compared("start-time=3,scaler=REQUEST_COUNT,scaler-value=1").unwrap();
    let runs = [
        run("as given", start, BURST),
        run("counted", counted, BURST),
    ];
    insta::assert_snapshot!(report::text(&runs), @r"
    SETTINGS  WAITED p50     p95  LONGEST  WORKERS  STARTS  WORKER TIME  BUSY
    as given      11.0 s  19.0 s   19.0 s        3       3   1 min 17 s  68 %
    counted        3.0 s  11.0 s   11.0 s        3       3   1 min 17 s  68 %

    as given: QUEUE_DELAY 4.0 s, 0 to 3 workers, idle timeout 5.0 s, start 3.0 s
    1 job of low priority waited 18.0 s (p50), 18.0 s (p95), 18.0 s at most
         3 |                 #############################################
         2 |        ########################################################
         1 |######################################################################
         0 +----------------------------------------------------------------------
            0                                                               32.0 s

    counted: REQUEST_COUNT 1, 0 to 3 workers, idle timeout 5.0 s, start 3.0 s
    1 job of low priority waited 18.0 s (p50), 18.0 s (p95), 18.0 s at most
         3 |##########################################################
         2 |##########################################################
         1 |######################################################################
         0 +----------------------------------------------------------------------
            0                                                               29.0 s
    ");
}

#[test]
fn jobs_that_never_run_are_pointed_out() {
    let run = run("as given", base(), "at,run,low\n0,1,1\n5,1,1\n");
    let text = report::text(&[run]);
    assert!(text.contains("2 jobs never run"), "{text}");
}

#[test]
fn programs_get_a_document_for_each_run() {
    let run = run(
        "as given",
        compared("start-time=3").unwrap(),
        "at,run\n9,2\n",
    );
    let text = report::lines_of_json(&[run]);
    let document: Value = serde_json::from_str(text.trim_end()).unwrap();
    let none = json!({"jobs": 0, "p50_ms": 0, "p95_ms": 0, "max_ms": 0});
    let expected = json!({
        "name": "as given",
        "settings": {
            "workers_min": 0, "workers_max": 3, "scaler": "QUEUE_DELAY", "scaler_value": 4.0,
            "idle_timeout_ms": 5000, "start_ms": 3000, "slots": 1,
        },
        "wait": {"jobs": 1, "p50_ms": 3000, "p95_ms": 3000, "max_ms": 3000},
        "wait_low": none,
        "served": 1, "left": 0, "starts": 1, "workers_most": 1,
        "worker_ms": 10000, "busy_ms": 2000, "ends_at_ms": 10000,
        "steps": [[0, 1], [10000, 0]],
    });
    assert_eq!(document, expected);
}

/// With more workers than rows a row stands for several, and a moment is not lost between two columns.
#[test]
fn a_chart_scales_both_ways() {
    let step = |at_ms, workers| Step { at_ms, workers };
    let outcome = Outcome {
        steps: vec![step(1_000, 1), step(500_000, 40), step(500_001, 0)],
        ends_at_ms: 701_000,
        workers_most: 40,
        ..Outcome::default()
    };
    let chart = chart::chart(&outcome);
    let lines: Vec<&str> = chart.lines().collect();
    assert_eq!(lines.len(), 12);
    let bar = |column| format!("{}#", " ".repeat(column));
    assert_eq!(lines[0], format!("    40 |{}", bar(49)));
    assert_eq!(lines[9], format!("     4 |{}", bar(49)));
    assert!(lines[11].ends_with("11 min 40 s"), "{chart}");
    let nothing = chart::chart(&Outcome::default());
    assert!(nothing.starts_with("     0 |\n"), "{nothing}");
}

#[test]
fn the_example_in_the_repository_can_be_run() {
    let root = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/simulate/jobs.csv"
    );
    let rows = Rows::read(BufReader::new(File::open(root).unwrap())).unwrap();
    let outcome = simulate(&rows.trace(None).unwrap(), &base().world);
    assert_eq!((outcome.served, outcome.left), (213, 0));
}

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

#[test]
fn a_configuration_and_its_endpoint_belong_together() {
    let parse = |line: &str| Line::try_parse_from(line.split(' '));
    assert!(parse("x --trace t --config c").is_err());
    assert!(parse("x --trace t --endpoint e").is_err());
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("lazyfox.toml");
    std::fs::write(&config, "[endpoints.a]\nworkers_max = 7\n[endpoints.b]\n").unwrap();
    let of = |endpoint: &str| {
        let line = format!(
            "x --trace t --endpoint {endpoint} --config {}",
            config.display()
        );
        settings(&parse(&line).unwrap_or_else(|e| panic!("{e}")).args)
    };
    assert_eq!(of("a").unwrap().workers_max, 7);
    let text = of("c").unwrap_err().to_string();
    assert!(
        text.contains("--endpoint c is not in") && text.ends_with("it has a, b"),
        "{text}"
    );
}
