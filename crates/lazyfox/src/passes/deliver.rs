//! Webhooks: what is due goes out, several at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lazyfox_core::delivery::{Next, Outcome, Schedule, Try};
use lazyfox_core::id::DeliveryId;
use lazyfox_core::limits;
use lazyfox_core::time::Timestamp;
use lazyfox_core::traffic::{News, Sign};
use lazyfox_store::{Due, Outgoing, Parts, Settlement, StoreError};
use tokio::task::JoinSet;

use crate::app::{App, JOBS};
use crate::config::Webhooks;
use crate::signing::NoSecret;
use crate::views;
use crate::webhooks::signature::{self, Signed};
use crate::webhooks::{Exhausted, Post, Reply, Sender};
use crate::{clock, events};

/// When a delivery that the store could not read or note is tried again.
const AFTER_ERROR_MS: u64 = 1_000;

/// Tries under way, which end with this, and what came of those that are over.
pub struct Deliveries {
    sender: Arc<Sender>,
    tries: Mutex<JoinSet<()>>,
    over: Arc<Mutex<Vec<Over>>>,
}

/// A try that is over. Its place is taken until what came of it is on disk.
struct Over {
    due: Due,
    started_at: Timestamp,
    sign: Sign,
    /// What is to be kept, of which delivery; `None` where nothing came of it.
    outcome: Option<(DeliveryId, Settlement)>,
}

impl Deliveries {
    /// None yet.
    #[must_use]
    pub fn new(sender: Sender) -> Self {
        Self {
            sender: Arc::new(sender),
            tries: Mutex::default(),
            over: Arc::default(),
        }
    }

    fn over(&self) -> MutexGuard<'_, Vec<Over>> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tries(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps what came of tries, and sends what is due. Returns when the next one is.
///
/// # Errors
/// When the store cannot answer.
pub async fn deliver_once(
    app: &Arc<App>,
    deliveries: &Deliveries,
) -> Result<Timestamp, StoreError> {
    settle(app, deliveries).await?;
    // Those under way are still due on disk.
    let traffic = app.traffic().clone();
    let outbox = app.store.outbox(traffic, app.now()).await?;
    let due = outbox.due.into_iter().map(|due| (due, What::Try));
    let held = outbox.held.into_iter().map(|due| (due, What::GiveUp));
    let mut tries = deliveries.tries();
    while tries.try_join_next().is_some() {}
    for (due, what) in due.chain(held) {
        let is_new = app
            .traffic()
            .started(due.number, &due.endpoint, &due.host, due.bytes);
        if is_new {
            let (app, sender) = (Arc::clone(app), Arc::clone(&deliveries.sender));
            tries.spawn(deliver(
                app,
                sender,
                Arc::clone(&deliveries.over),
                due,
                what,
            ));
        }
    }
    // What found no place is looked at again when one that is under way is done.
    Ok(outbox.next)
}

/// Keeps what came of the tries that are over, all at once: receivers that answer at the same time should
/// not make a commit each. What cannot be kept now is kept later and not sent again for it.
async fn settle(app: &App, deliveries: &Deliveries) -> Result<(), StoreError> {
    let over = std::mem::take(&mut *deliveries.over());
    let outcomes = over.iter().filter_map(|it| it.outcome.as_ref());
    let settlements: Vec<Settlement> = outcomes.map(|(_, it)| it.clone()).collect();
    if !settlements.is_empty() {
        match app.store.settle(settlements).await {
            Ok(damaged) => {
                for number in damaged {
                    tracing::error!(
                        delivery.number = number,
                        "its record is damaged: it cannot be kept"
                    );
                }
            }
            Err(e) => {
                deliveries.over().extend(over);
                return Err(e);
            }
        }
    }
    for over in over {
        ended(app, over);
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Try,
    /// It has waited long enough for a host that does not answer.
    GiveUp,
}

async fn deliver(
    app: Arc<App>,
    sender: Arc<Sender>,
    all_over: Arc<Mutex<Vec<Over>>>,
    due: Due,
    what: What,
) {
    let mut place = Place {
        app: Arc::clone(&app),
        all_over,
        over: Some(Over {
            started_at: app.now(),
            due: due.clone(),
            sign: Sign::None,
            outcome: None,
        }),
    };
    let made = match what {
        What::Try => try_once(&app, &sender, &due).await,
        What::GiveUp => give_up(&app, &due).await,
    };
    match made {
        Ok(Some((sign, id, settlement))) => {
            if let Some(over) = &mut place.over {
                over.sign = sign;
                over.outcome = Some((id, settlement));
            }
        }
        Ok(None) => {}
        Err(e) => {
            // It is still due, and looked at again.
            tracing::error!(delivery.number = due.number, error = %e, "cannot read a delivery");
            pause(&app).await;
        }
    }
}

async fn pause(app: &App) {
    app.clock
        .sleep_until(app.now().plus_ms(AFTER_ERROR_MS))
        .await;
}

/// The place of a try that is under way. However the try ends, its place is given back.
struct Place {
    app: Arc<App>,
    all_over: Arc<Mutex<Vec<Over>>>,
    over: Option<Over>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all_over = self.all_over.lock().unwrap_or_else(PoisonError::into_inner);
        all_over.extend(self.over.take());
        self.app.wakes.outbox.notify_one();
    }
}

/// Gives the place back, and makes known what came of a try.
fn ended(app: &App, over: Over) {
    let Over {
        due,
        started_at,
        sign,
        outcome,
    } = over;
    let news = app.traffic().ended(due.number, sign, started_at, app.now());
    let host = &due.host;
    match news {
        Some(News::GivenUp) => {
            tracing::warn!(%host, "webhooks to this host wait: it does not answer");
        }
        Some(News::Back) => tracing::info!(%host, "the host answers again: its webhooks go on"),
        None => {}
    }
    let Some((id, settlement)) = outcome else {
        return;
    };
    if settlement.next == Next::GaveUp {
        let error = settlement.made.error.as_deref();
        // Whoever submits can make any number of these, so they are for those who ask for lines of jobs.
        tracing::info!(
            target: JOBS,
            { delivery.id = %id, %host, error },
            "webhook not delivered, giving up"
        );
    }
    app.listeners.tell(&due.endpoint, || {
        events::tried(id, settlement.round + 1, &settlement.made, settlement.next)
    });
}

/// What a try says of its host, and what follows for which delivery.
type Made = Option<(Sign, DeliveryId, Settlement)>;

/// Makes a try; `None` when the delivery is not open any more.
async fn try_once(app: &App, sender: &Sender, due: &Due) -> Result<Made, StoreError> {
    let Some(endpoint) = app.endpoint(&due.endpoint) else {
        let why = format!("there is no endpoint {} any more", due.endpoint);
        return unsent(app, due, why, Schedule::default()).await;
    };
    let settings = &endpoint.webhooks;
    let Some(mut outgoing) = read(app, due, settings).await? else {
        return Ok(None);
    };
    let at = app.now();
    let body = body(app, &outgoing, due, settings);
    // They are in the body now, and a slow receiver may keep that for a while.
    (outgoing.loaded.input, outgoing.loaded.output) = (None, None);
    let signed = match app
        .signing
        .secrets(&*app.store, &app.key, &due.endpoint, at)
        .await
    {
        Ok(secrets) => {
            let secrets = secrets.iter().map(|secret| secret.bytes());
            signature::sign(secrets, outgoing.id, at, &body)
        }
        Err(NoSecret::Store(e)) => return Err(e),
        Err(NoSecret::Sealed) => {
            let why = "the endpoint's webhook secret cannot be opened: server.key is another one; make \
                       a new secret with `lazyfox webhook-secret`";
            return unsent(app, due, why.to_owned(), settings.schedule).await;
        }
    };
    let (endpoint, round) = (&due.endpoint, outgoing.round + 1);
    app.listeners.tell(endpoint, || {
        events::trying(&outgoing, round, at, &signed, &body)
    });
    let Ok(reply) = post(app, sender, &outgoing, &signed, body, settings).await else {
        tracing::error!(
            "no connection can be opened for webhooks: too few file descriptors, or ports"
        );
        pause(app).await;
        return Ok(None);
    };
    let sign = match &reply.outcome {
        // Deliveries of the first format know no host: what one of them shows says nothing of another.
        _ if due.host.is_empty() => Sign::None,
        Outcome::Answered { .. } => Sign::Answered,
        Outcome::Unanswered(_) => Sign::Missed,
        Outcome::Unsent(_) => Sign::None,
    };
    let settlement = followed(app, due, outgoing.round, at, reply, &settings.schedule);
    Ok(Some((sign, outgoing.id, settlement)))
}

async fn read(app: &App, due: &Due, settings: &Webhooks) -> Result<Option<Outgoing>, StoreError> {
    let parts = Parts {
        output: due.bytes <= settings.body_bytes,
        input: true,
    };
    let mut outgoing = app.store.outgoing(due, parts).await?;
    if let Some(outgoing) = &mut outgoing
        && !parts.output
    {
        let input = outgoing.loaded.input.take();
        outgoing.loaded.input = input.filter(|input| input.len() as u64 <= settings.body_bytes);
    }
    Ok(outgoing)
}

fn body(app: &App, outgoing: &Outgoing, due: &Due, settings: &Webhooks) -> Bytes {
    let job = &outgoing.loaded.job;
    let status_url = (due.bytes > settings.body_bytes)
        .then(|| format!("{}/v2/{}/status/{}", app.public_url, job.endpoint, job.id));
    views::webhook(outgoing, status_url.as_deref())
}

async fn post(
    app: &App,
    sender: &Sender,
    outgoing: &Outgoing,
    signed: &Signed,
    body: Bytes,
    settings: &Webhooks,
) -> Result<Reply, Exhausted> {
    let now = app.now();
    let timeout_ms = settings.schedule.timeout_ms;
    let post = Post {
        endpoint: &outgoing.loaded.job.endpoint,
        url: &outgoing.url,
        signed,
        body,
        now,
        timeout_ms,
    };
    sender
        .post(post, app.clock.sleep_until(now.plus_ms(timeout_ms)))
        .await
}

/// What follows from a try.
fn followed(
    app: &App,
    due: &Due,
    round: u32,
    at: Timestamp,
    reply: Reply,
    schedule: &Schedule,
) -> Settlement {
    let now = app.now();
    // The upper half of a roll below 2^64.
    let dice = (clock::roll(u64::MAX) >> 32) as u32;
    let next = schedule.after_try(round + 1, &reply.outcome, now, dice);
    let made = Try {
        at,
        duration_ms: now.ms_since(at),
        status: reply.outcome.status(),
        answer: reply.answer,
        error: reply.outcome.error(),
    };
    Settlement {
        due: due.clone(),
        round,
        made,
        next,
        keep_until: schedule.keep_until(next, now),
    }
}

/// A try that could not be made.
async fn unsent(app: &App, due: &Due, why: String, schedule: Schedule) -> Result<Made, StoreError> {
    let outgoing = app.store.outgoing(due, Parts::default()).await?;
    Ok(outgoing.map(|outgoing| {
        let reply = Reply {
            outcome: Outcome::Unsent(why),
            answer: None,
        };
        let settlement = followed(app, due, outgoing.round, app.now(), reply, &schedule);
        (Sign::None, outgoing.id, settlement)
    }))
}

async fn give_up(app: &App, due: &Due) -> Result<Made, StoreError> {
    let hold = app.traffic().hold(&due.endpoint, &due.host);
    let hold = hold.unwrap_or_else(|| format!("{} did not answer", due.host));
    let minutes = limits::WEBHOOK_HOLD_MS / 60_000;
    let why = format!("not sent for {minutes} minutes and given up: {hold}");
    let schedule = app.endpoint(&due.endpoint).map(|it| it.webhooks.schedule);
    let last = Schedule {
        tries: 1,
        ..schedule.unwrap_or_default()
    };
    unsent(app, due, why, last).await
}
