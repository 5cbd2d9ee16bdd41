//! `logs`: what workers wrote and what was done with them, until now or as it comes.

use std::borrow::Cow;

use lazyfox_core::limits::MIB;
use serde::Deserialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::LogsArgs;
use super::call::{EventStream, Request, Server};
use super::console::Console;
use super::events::{EVENT_BYTES, Event, Parser, TooLarge};
use super::failure::{Failure, Outcome};
use super::held::{self, Pauses};
use super::show::printable;
use super::wait::interrupted;
use crate::clock::Clock;
use crate::logs::sdk::Said;
use crate::when::rfc3339;

/// Shows lines, with `--follow` until it is interrupted.
pub(super) async fn logs(
    args: &LogsArgs,
    server: &Server,
    console: &mut Console,
    clock: &Clock,
) -> Result<Outcome, Failure> {
    let mut viewer = Viewer {
        args,
        server,
        console,
        clock,
        // Where no handler can be installed Ctrl-C just ends the process, which is fine too.
        interrupts: signal(SignalKind::interrupt()).ok(),
        last_id: None,
    };
    // At first it is a typing error more often than an outage: then nobody waits for it to pass.
    let mut stream = viewer.open().await?;
    loop {
        let why = match viewer.read(stream).await? {
            Ended::Whole if !args.follow => return Ok(Outcome::Fine),
            Ended::Whole => "the server ended it".to_owned(),
            Ended::Lost(why) => why,
        };
        if !args.follow {
            return Err(server.broke_off(&why));
        }
        stream = viewer.reconnect(&why).await?;
        viewer.console.note("following again");
    }
}

/// How a stream ended.
enum Ended {
    Whole,
    Lost(String),
}

/// Somebody who looks at a log.
struct Viewer<'a> {
    args: &'a LogsArgs,
    server: &'a Server,
    console: &'a mut Console,
    clock: &'a Clock,
    interrupts: Option<Signal>,
    /// The place in the log up to which everything was shown.
    last_id: Option<String>,
}

impl Viewer<'_> {
    async fn open(&mut self) -> Result<EventStream, Failure> {
        let args = self.args;
        let tail = args.tail.map(|tail| tail.to_string());
        let follow = if args.follow { "true" } else { "false" };
        let query: Vec<(&str, &str)> = [
            ("worker", args.worker.as_deref()),
            ("job", args.job.as_deref()),
            ("source", args.source.as_deref()),
            ("tail", tail.as_deref()),
            ("since", args.since.as_deref()),
            ("follow", Some(follow)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
        let request = Request {
            query: &query,
            ..Request::get(format!("{}/logs", args.endpoint))
        };
        let last_id = self.last_id.clone();
        self.watch(self.server.open(request, last_id.as_deref()))
            .await?
    }

    /// Shows what comes until the stream ends.
    async fn read(&mut self, mut stream: EventStream) -> Result<Ended, Failure> {
        let clock = self.clock;
        let mut parser = Parser::new();
        loop {
            let bytes = match self.watch(held::heard(&mut stream, clock)).await? {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Ok(Ended::Whole),
                Err(reason) => return Ok(Ended::Lost(reason)),
            };
            let mut lines = String::new();
            for event in parser.feed(&bytes) {
                match event {
                    Ok(event) => self.take(&event, &mut lines),
                    Err(TooLarge) => {
                        let mib = EVENT_BYTES / MIB;
                        let left_out = format!("a line of more than {mib} MiB is left out");
                        self.console.note(&left_out);
                    }
                }
            }
            if let Some(lines) = lines.strip_suffix('\n') {
                self.console.text(lines)?;
            }
            if let Some(id) = parser.last_id() {
                self.last_id = Some(id.to_owned());
            }
        }
    }

    /// Asks for a connection again and again; only a refusal that will stay one ends that.
    async fn reconnect(&mut self, why: &str) -> Result<EventStream, Failure> {
        let mut why = format!("the connection is lost: {why}");
        let mut pauses = Pauses::new();
        loop {
            let pause = pauses.next(&why);
            let end = self.clock.now().plus_ms(pause.ms);
            if let Some(note) = pause.note {
                self.console.note(&note);
            }
            self.watch(self.clock.sleep_until(end)).await?;
            match self.open().await {
                Ok(stream) => return Ok(stream),
                Err(failure) => why = format!("no connection: {}", held::reason(failure)?),
            }
        }
    }

    /// Waits for anything, with an ear on Ctrl-C.
    async fn watch<F: Future>(&mut self, future: F) -> Result<F::Output, Failure> {
        tokio::select! {
            output = future => Ok(output),
            () = interrupted(self.interrupts.as_mut()) => {
                let text = if self.args.follow { "no longer following" } else { "interrupted" };
                Err(Failure::Interrupted(text.to_owned()))
            }
        }
    }

    /// Adds what is to be printed of an event.
    fn take(&mut self, event: &Event, lines: &mut String) {
        let taken = match event.kind.as_str() {
            "message" => self.line(&event.data).map(|line| {
                lines.push_str(&line);
                lines.push('\n');
            }),
            "missed" => self.say_missed(&event.data),
            // Of a newer server.
            _ => Ok(()),
        };
        if let Err(error) = taken {
            let kind = printable(&event.kind);
            let text = format!("an event {kind:?} is not understood: {error}");
            self.console.note(&text);
        }
    }

    fn line(&self, data: &str) -> Result<String, serde_json::Error> {
        let line: Line<'_> = serde_json::from_str(data)?;
        Ok(if self.console.json {
            data.replace('\n', " ")
        } else if self.args.raw {
            line.line.into_owned()
        } else {
            let today = rfc3339(self.clock.now());
            line.shown(&today[..DATE], self.console.colours)
        })
    }

    fn say_missed(&mut self, data: &str) -> Result<(), serde_json::Error> {
        #[derive(Deserialize)]
        struct Missed<'a> {
            #[serde(borrow)]
            from: Cow<'a, str>,
            #[serde(borrow)]
            to: Cow<'a, str>,
        }
        let missed: Missed<'_> = serde_json::from_str(data)?;
        let (from, to) = (printable(&missed.from), printable(&missed.to));
        self.console.note(&format!(
            "lines from {from} to {to} are missing: the log was cut"
        ));
        Ok(())
    }
}

/// Length of `2026-05-01`.
const DATE: usize = 10;
/// Length of `2026-05-01T12:03:04.567`.
const TIME: usize = 23;

/// A line as the server gives it.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    ts: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    worker: Cow<'a, str>,
    #[serde(borrow)]
    job: Option<Cow<'a, str>>,
    #[serde(borrow)]
    level: Option<Cow<'a, str>>,
    #[serde(borrow)]
    line: Cow<'a, str>,
}

impl Line<'_> {
    /// The line for a person: time, worker, job, level and text. Of another day the time has its date.
    fn shown(&self, today: &str, colours: bool) -> String {
        let paint = |colour: &str, text: &str| {
            let text = printable(text);
            if colours && !colour.is_empty() {
                format!("\x1b[{colour}m{text}\x1b[0m")
            } else {
                text
            }
        };
        let mut shown = paint("2", &time(&self.ts, today));
        let mut add = |colour: &str, text: &str| {
            shown.push(' ');
            shown.push_str(&paint(colour, text));
        };
        add("36", &self.worker);
        if let Some(job) = &self.job {
            add("", job);
        }
        // What the SDK says is wrapped in its own JSON.
        let said = self.level.as_ref().and_then(|_| Said::parse(&self.line));
        let text = said.as_ref().map_or(&self.line, |said| &said.message);
        if let Some(level) = &self.level {
            add(colour_of(level), &format!("{level:5}"));
        } else if self.source == "system" {
            add("34", "SYS  ");
        }
        // Further lines of one text are no lines of the log.
        add("", &text.replace('\n', "\n    "));
        shown
    }
}

fn time(ts: &str, today: &str) -> String {
    match (ts.get(..DATE), ts.get(DATE + 1..TIME)) {
        (Some(date), Some(time)) if date == today => time.to_owned(),
        (Some(date), Some(time)) => format!("{date} {time}"),
        _ => ts.to_owned(),
    }
}

fn colour_of(level: &str) -> &'static str {
    match level {
        "ERROR" | "FATAL" => "31",
        "WARN" => "33",
        "DEBUG" | "TRACE" => "2",
        _ => "",
    }
}
