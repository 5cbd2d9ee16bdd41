//! `scaler`: what the scaler decided and why, and changes of its numbers. `reload`: the
//! configuration once more.

use std::borrow::Cow;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::args::ScalerArgs;
use super::call::{Request, Server};
use super::console::Console;
use super::failure::{Failure, Outcome};
use super::show::printable;
use super::table::{Table, short};
use super::times::utc;
use super::workers::Charge;

const TEXT_CHARS: usize = 70;

const HEADER: [&str; 6] = ["TIME (UTC)", "START", "STOP", "QUEUED", "WORKERS", "WHY"];
const WIDTHS: [usize; 6] = [19, 5, 4, 6, 30, 0];

#[derive(Deserialize)]
struct Scaler<'a> {
    settings: Map<String, Value>,
    changed: Map<String, Value>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    charge: Option<Charge<'a>>,
    #[serde(borrow, default)]
    decisions: Vec<Decision<'a>>,
}

#[derive(Deserialize)]
struct Decision<'a> {
    at: i64,
    #[serde(borrow)]
    text: Cow<'a, str>,
    start: u64,
    stop: Vec<Leave>,
    throttled: u64,
    inputs: Inputs,
}

#[derive(Deserialize)]
struct Leave {
    text: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Inputs {
    queued: u64,
    queued_low: u64,
    starting: u64,
    idle: u64,
    busy: u64,
    stopping: u64,
}

/// Shows the scaler, after changing what was asked for.
pub(super) async fn scaler(
    args: &ScalerArgs,
    server: &Server,
    console: &mut Console,
) -> Result<Outcome, Failure> {
    let endpoint = &args.endpoint;
    if args.reset {
        let path = format!("{endpoint}/scaler/reset");
        let reply = server.call(Request::post(path)).await?;
        if console.json {
            console.document(reply.text())?;
            return Ok(Outcome::Fine);
        }
        console.note("failed starts are forgotten; the next one is tried at once");
        return Ok(Outcome::Fine);
    }
    let change = change(args);
    let path = format!("{endpoint}/scaler");
    let limit = args.limit.to_string();
    let query = [("limit", limit.as_str())];
    let request = if change.is_empty() {
        Request {
            query: &query,
            ..Request::get(path)
        }
    } else {
        Request {
            method: Method::PATCH,
            body: Some(Value::Object(change).to_string()),
            ..Request::get(path)
        }
    };
    let reply = server.call(request).await?;
    if console.json {
        console.document(reply.text())?;
        return Ok(Outcome::Fine);
    }
    let scaler: Scaler<'_> = reply.parse()?;
    for (name, value) in &scaler.settings {
        let value = value.to_string();
        let value = value.trim_matches('"');
        let mark = match scaler.changed.contains_key(name) {
            true => "  (changed; --unset takes it back)",
            false => "",
        };
        console.text(&format!("{name:<12} {value}{mark}"))?;
    }
    if let Some(text) = &scaler.text {
        console.text(&format!("{:<12} {}", "now", printable(text)))?;
    }
    if let Some(note) = scaler.charge.as_ref().and_then(Charge::note) {
        console.note(&note);
    }
    if !scaler.decisions.is_empty() {
        console.text("")?;
        let rows = scaler.decisions.iter().map(row);
        Table::new(HEADER, WIDTHS).print(rows, console)?;
    }
    Ok(Outcome::Fine)
}

fn change(args: &ScalerArgs) -> Map<String, Value> {
    let mut change = Map::new();
    for (name, value) in [
        ("workersMin", args.workers_min.map(|it| json!(it))),
        ("workersMax", args.workers_max.map(|it| json!(it))),
        ("scalerType", args.scaler.as_ref().map(|it| json!(it))),
        ("scalerValue", args.scaler_value.map(|it| json!(it))),
        ("idleTimeout", args.idle_timeout.map(|it| json!(it))),
    ] {
        if let Some(value) = value {
            change.insert(name.to_owned(), value);
        } else if args.unset {
            change.insert(name.to_owned(), Value::Null);
        }
    }
    change
}

fn row(decision: &Decision<'_>) -> [String; 6] {
    let Inputs {
        queued,
        queued_low,
        starting,
        idle,
        busy,
        stopping,
    } = decision.inputs;
    let queued = match queued_low {
        0 => queued.to_string(),
        low => format!("{queued} +{low} low"),
    };
    let mut why = printable(&decision.text);
    if let Some(leave) = decision.stop.first() {
        why = format!("stop: {}; {why}", printable(&leave.text));
    }
    if decision.throttled > 0 {
        why = format!("{why}; {} without room", decision.throttled);
    }
    [
        utc(decision.at),
        decision.start.to_string(),
        decision.stop.len().to_string(),
        queued,
        format!("{starting} starting {idle} idle {busy} busy {stopping} stopping"),
        short(&why, TEXT_CHARS),
    ]
}

#[derive(Deserialize)]
struct Reloaded {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
    releases: Vec<Released>,
}

#[derive(Deserialize)]
struct Released {
    endpoint: String,
    version: u64,
}

/// Has the server read its configuration once more.
pub(super) async fn reload(server: &Server, console: &mut Console) -> Result<Outcome, Failure> {
    let reply = server.call(Request::admin("reload")).await?;
    if console.json {
        console.document(reply.text())?;
        return Ok(Outcome::Fine);
    }
    let done: Reloaded = reply.parse()?;
    let mut any = false;
    for (what, names) in [
        ("added", &done.added),
        ("removed", &done.removed),
        ("changed", &done.changed),
    ] {
        for name in names {
            any = true;
            let release = done.releases.iter().find(|it| it.endpoint == *name);
            let release = release
                .map(|it| format!("; its workers run version {}", it.version))
                .unwrap_or_default();
            console.text(&printable(&format!("{what} {name}{release}")))?;
        }
    }
    if !any {
        console.note("nothing has changed of the endpoints; [server] is read at a start only");
    }
    Ok(Outcome::Fine)
}
