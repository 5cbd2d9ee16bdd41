//! `listen`: every try at a webhook as the server makes it, shown and, with `--forward`, posted to a
//! program of this machine.

use std::borrow::Cow;
use std::pin::pin;

use lazyfox_core::limits::MIB;
use serde::Deserialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::ListenArgs;
use super::call::{EventStream, Request, Server};
use super::console::Console;
use super::delivery::Try;
use super::events::{EVENT_BYTES, Event, Parser, TooLarge};
use super::failure::{Failure, Outcome};
use super::forward::{Forwarded, Forwarder, Webhook};
use super::held::{self, Pauses};
use super::show::printable;
use super::times::{duration, roughly, utc};
use super::wait::interrupted;
use crate::clock::Clock;

/// Shows tries until it is interrupted.
pub(super) async fn listen(
    args: &ListenArgs,
    server: &Server,
    console: &mut Console,
    clock: &Clock,
) -> Result<Outcome, Failure> {
    let forwarder = match &args.forward {
        Some(url) => Some(Forwarder::new(url, clock)?),
        None => None,
    };
    let mut listener = Listener {
        server,
        console,
        clock,
        endpoint: &args.endpoint,
        forwarder,
        // Where no handler can be installed Ctrl-C just ends the process, which is fine too.
        interrupts: signal(SignalKind::interrupt()).ok(),
    };
    // At first it is a typing error more often than an outage: then nobody waits for it to pass.
    let mut stream = listener.open().await?;
    listener.say_hello();
    loop {
        let why = listener.read(stream).await?;
        stream = listener.reconnect(why).await?;
        listener.console.note("listening again");
    }
}

/// Somebody who listens to one endpoint.
struct Listener<'a> {
    server: &'a Server,
    console: &'a mut Console,
    clock: &'a Clock,
    endpoint: &'a str,
    forwarder: Option<Forwarder<'a>>,
    interrupts: Option<Signal>,
}

impl<'a> Listener<'a> {
    async fn open(&mut self) -> Result<EventStream, Failure> {
        let request = Request::get(format!("{}/deliveries/listen", self.endpoint));
        self.watch(self.server.open(request, None)).await?
    }

    fn say_hello(&mut self) {
        let to = match &self.forwarder {
            Some(forwarder) => format!(" and forwarding to {}", forwarder.url()),
            None => String::new(),
        };
        let endpoint = self.endpoint;
        self.console.note(&format!(
            "listening to the webhooks of {endpoint}{to}; times are UTC, Ctrl-C ends it"
        ));
    }

    /// Shows what comes until the connection is lost, and says why it was.
    async fn read(&mut self, mut stream: EventStream) -> Result<String, Failure> {
        let clock = self.clock;
        let mut parser = Parser::new();
        loop {
            let bytes = match self.watch(held::heard(&mut stream, clock)).await? {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Ok("the server ended it".to_owned()),
                Err(reason) => return Ok(reason),
            };
            for event in parser.feed(&bytes) {
                match event {
                    Ok(event) => self.take(&event)?,
                    Err(TooLarge) => {
                        let mib = EVENT_BYTES / MIB;
                        self.say_missing(&format!("an event of more than {mib} MiB is left out"));
                    }
                }
            }
        }
    }

    /// Asks for a connection again and again; only a refusal that will stay one ends that.
    async fn reconnect(&mut self, why: String) -> Result<EventStream, Failure> {
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

    /// Waits for anything, forwarding meanwhile and keeping an ear on Ctrl-C.
    async fn watch<F: Future>(&mut self, future: F) -> Result<F::Output, Failure> {
        let mut future = pin!(future);
        loop {
            let forwarded = tokio::select! {
                output = &mut future => return Ok(output),
                () = interrupted(self.interrupts.as_mut()) => {
                    return Err(Failure::Interrupted("no longer listening".to_owned()));
                }
                forwarded = forwarded(self.forwarder.as_mut()) => forwarded,
            };
            self.show_forwarded(&forwarded)?;
        }
    }

    fn take(&mut self, event: &Event) -> Result<(), Failure> {
        if self.console.json {
            self.console.document(&document(event))?;
        }
        let taken = match event.kind.as_str() {
            "try" => self.forward(&event.data),
            "result" => match ended_line(&event.data) {
                Ok(line) if !self.console.json => return self.console.text(&line),
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            },
            "missed" => self.say_missed(&event.data),
            // Of a newer server.
            _ => Ok(()),
        };
        if let Err(error) = taken {
            let kind = printable(&event.kind);
            self.console
                .note(&format!("an event {kind:?} is not understood: {error}"));
        }
        Ok(())
    }

    fn forward(&mut self, data: &str) -> Result<(), serde_json::Error> {
        let Some(forwarder) = &mut self.forwarder else {
            return Ok(());
        };
        let webhook: Webhook = serde_json::from_str(data)?;
        let id = printable(&webhook.id);
        if forwarder.accept(webhook).is_err() {
            self.console.note(&format!(
                "{id} is not forwarded: too many wait already for {}",
                forwarder.url()
            ));
        }
        Ok(())
    }

    fn say_missed(&mut self, data: &str) -> Result<(), serde_json::Error> {
        #[derive(Deserialize)]
        struct Missed {
            count: u64,
        }
        let Missed { count } = serde_json::from_str(data)?;
        self.say_missing(&format!("{count} events were missed"));
        Ok(())
    }

    fn say_missing(&mut self, what: &str) {
        let (endpoint, url) = (self.endpoint, self.server.url_option());
        self.console.note(&format!(
            "{what}; all tries are in lazyfox deliveries {endpoint}{url}"
        ));
    }

    /// Ours and not the server's, so that with `--json` it does not stand among the documents.
    fn show_forwarded(&mut self, it: &Forwarded) -> Result<(), Failure> {
        let what = match &it.answer {
            Ok(answer) => {
                let (status, duration) = (answer.status, duration(answer.duration_ms));
                format!("forwarded: {status} in {duration}")
            }
            Err(reason) => format!("forward failed: {reason}"),
        };
        let (time, id) = (utc(self.clock.now().as_ms()), printable(&it.id));
        let line = format!("{time}  {id}  try {}  {what}", it.number);
        if self.console.json {
            self.console.note(&line);
            Ok(())
        } else {
            self.console.text(&line)
        }
    }
}

async fn forwarded(forwarder: Option<&mut Forwarder<'_>>) -> Forwarded {
    match forwarder {
        Some(forwarder) => forwarder.next().await,
        None => std::future::pending().await,
    }
}

/// The server's document with the kind of the event in it.
fn document(event: &Event) -> String {
    let kind = serde_json::Value::from(event.kind.as_str());
    match event.data.trim_start().strip_prefix('{') {
        Some(rest) if rest.trim_start().starts_with('}') => format!("{{\"event\":{kind}{rest}"),
        Some(rest) => format!("{{\"event\":{kind},{rest}"),
        None => {
            let data = serde_json::Value::from(event.data.as_str());
            format!("{{\"event\":{kind},\"data\":{data}}}")
        }
    }
}

/// What a try came to, on one line.
fn ended_line(data: &str) -> Result<String, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Ended<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
        #[serde(rename = "try")]
        number: u64,
        #[serde(borrow)]
        state: Cow<'a, str>,
        next_try_at: Option<i64>,
    }
    let ended: Ended<'_> = serde_json::from_str(data)?;
    let it: Try<'_> = serde_json::from_str(data)?;
    let next = match (ended.state.as_ref(), ended.next_try_at) {
        ("pending", Some(next)) => {
            let over = it.at.saturating_add_unsigned(it.duration_ms);
            let left = next.saturating_sub(over).max(0).unsigned_abs();
            format!("next try in {}", roughly(left))
        }
        ("failed", _) => "given up".to_owned(),
        (state, _) => printable(state),
    };
    let what = match &it.error {
        Some(error) => format!("{}; {next}", printable(error)),
        None => next,
    };
    let (time, id, number) = (utc(it.at), printable(&ended.id), ended.number);
    let (status, took) = (it.status(), duration(it.duration_ms));
    Ok(format!(
        "{time}  {id}  try {number}  {status:<3}  {took:<8}  {what}"
    ))
}
