//! `deliveries`: the webhooks of an endpoint as a table, or those of one job with every try.

use std::borrow::Cow;

use lazyfox_core::time::Timestamp;
use serde::Deserialize;

use super::args::DeliveriesArgs;
use super::call::Server;
use super::console::Console;
use super::delivery::{Delivery, Try};
use super::failure::{Failure, Outcome};
use super::pages::Pages;
use super::show::printable;
use super::table::{Table, short};
use super::times::{duration, roughly, utc};
use crate::clock::Clock;

/// Longest outcome of a try and longest URL in the table: a row must fit a wide terminal.
const OUTCOME_CHARS: usize = 40;
const URL_CHARS: usize = 60;

/// Longest piece of a receiver's answer that is shown with its try.
const ANSWER_CHARS: usize = 200;

const HEADER: [&str; 7] = [
    "ID",
    "STATE",
    "TRIES",
    "CREATED (UTC)",
    "LAST TRY",
    "NEXT TRY",
    "URL",
];
const WIDTHS: [usize; 7] = [0, 9, 5, 19, 21, 8, 0];

const TRIES_HEADER: [&str; 5] = ["TRIED (UTC)", "STATUS", "DURATION", "REASON", "ANSWER"];
const TRIES_WIDTHS: [usize; 5] = [19, 6, 8, 0, 0];

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    deliveries: Vec<Delivery<'a>>,
    #[serde(borrow)]
    next: Option<Cow<'a, str>>,
}

/// Prints up to the wanted number of deliveries.
pub(super) async fn deliveries(
    args: &DeliveriesArgs,
    server: &Server,
    console: &mut Console,
    clock: &Clock,
) -> Result<Outcome, Failure> {
    let path = format!("{}/deliveries", args.endpoint);
    let job = args.job.iter().map(|job| ("job", job.as_str()));
    let state = args.state.iter().map(|state| ("state", state.as_str()));
    let filters = job.chain(state).collect();
    let mut pages = Pages::new(server, path, filters, args.list.wanted());
    let mut table = Table::new(HEADER, WIDTHS);
    let mut shown = 0;
    while let Some(reply) = pages.next().await? {
        let page: Page<'_> = reply.parse()?;
        let now = clock.now();
        if console.json {
            console.document(reply.text())?;
        } else if args.job.is_some() {
            for (n, delivery) in page.deliveries.iter().enumerate() {
                if shown + n > 0 {
                    console.text("")?;
                }
                show(delivery, now, console)?;
            }
        } else {
            table.print(page.deliveries.iter().map(|it| row(it, now)), console)?;
        }
        shown += page.deliveries.len();
        pages.go_on(page.deliveries.len(), page.next.as_deref(), console);
    }
    if let (Some(job), 0, false) = (&args.job, shown, console.json) {
        console.note(&format!("job {job} has no such delivery"));
    }
    Ok(Outcome::Fine)
}

fn row(delivery: &Delivery<'_>, now: Timestamp) -> [String; 7] {
    let last = delivery.tries.last().map(Try::outcome);
    let mut next = next_try(delivery, now).unwrap_or_default();
    if delivery.hold.is_some() {
        next.push_str(", on hold");
    }
    [
        printable(&delivery.id),
        printable(&delivery.state),
        delivery.tries.len().to_string(),
        delivery.created_at.map(utc).unwrap_or_default(),
        short(&last.unwrap_or_default(), OUTCOME_CHARS),
        next,
        short(delivery.url.as_deref().unwrap_or_default(), URL_CHARS),
    ]
}

fn next_try(delivery: &Delivery<'_>, now: Timestamp) -> Option<String> {
    let left_ms = Timestamp::from_ms(delivery.next_try_at?).ms_since(now);
    Some(match left_ms {
        0 => "now".to_owned(),
        _ => format!("in {}", roughly(left_ms)),
    })
}

/// Prints one delivery with all that is known of it.
fn show(delivery: &Delivery<'_>, now: Timestamp, console: &mut Console) -> Result<(), Failure> {
    let created = delivery.created_at.map(|ms| format!("{} UTC", utc(ms)));
    let size = delivery.bytes.map(|bytes| format!("{bytes} bytes"));
    for (name, value) in [
        ("id", Some(delivery.id.as_ref())),
        ("state", Some(delivery.state.as_ref())),
        ("url", delivery.url.as_deref()),
        ("size", size.as_deref()),
        ("created", created.as_deref()),
        ("next try", next_try(delivery, now).as_deref()),
        ("on hold", delivery.hold.as_deref()),
    ] {
        if let Some(value) = value {
            console.text(&format!("{name:<10} {}", printable(value)))?;
        }
    }
    if delivery.tries.is_empty() {
        return console.text("not tried yet");
    }
    console.text("")?;
    let mut table = Table::new(TRIES_HEADER, TRIES_WIDTHS);
    table.print(delivery.tries.iter().map(try_row), console)
}

fn try_row(it: &Try<'_>) -> [String; 5] {
    [
        utc(it.at),
        it.status(),
        duration(it.duration_ms),
        printable(it.error.as_deref().unwrap_or_default()),
        short(it.answer.as_deref().unwrap_or_default(), ANSWER_CHARS),
    ]
}
