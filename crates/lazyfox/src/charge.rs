//! What this server is in charge of: the endpoints whose workers it starts. Servers that share a database
//! share them out; a server by itself has all of them.
//!
//! What is believed here ends by this machine's clock, before it ends by the database's. It keeps a
//! server that the database does not answer from planning; what keeps it from starting anything is the
//! store, which is asked before each start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lazyfox_core::id::{EndpointId, WorkerId};
use lazyfox_core::time::Timestamp;
use lazyfox_store::{Bid, Charge, Charges, Elsewhere, Holder, Peer, Shared, StoreError};

use crate::app::App;
use crate::release;

/// What this server knows of who is in charge.
pub struct InCharge {
    state: Mutex<State>,
}

struct State {
    /// No other server shares the store.
    alone: bool,
    of: BTreeMap<EndpointId, Charge>,
    /// When what it said last was sent that the store has.
    said_at: Option<Instant>,
    /// Until when this server may act on what it heard.
    until: Option<Instant>,
    /// Its workers as the store has them, where that was not yet compared with what is.
    own: Option<BTreeSet<(EndpointId, WorkerId)>>,
    /// A dead server whose workers are this one's now.
    succeeds: Option<String>,
    /// When it was last said that the clocks differ.
    clocks_differed: Option<Instant>,
    /// When it was last said that a worker of another server polls here.
    strangers_polled: Option<Instant>,
}

/// Clocks that differ by so much make leases shorter than they are meant to be.
const CLOCKS_DIFFER_MS: i64 = 2_000;
/// How often that is said.
const SAID_EVERY: Duration = Duration::from_secs(600);

fn was_said_lately(at: Option<Instant>) -> bool {
    at.is_some_and(|at| at.elapsed() < SAID_EVERY)
}

/// Who starts an endpoint's workers, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// This server.
    Here,
    /// Another one.
    There(Peer),
    /// Nobody at the moment, or it cannot be told because the database does not answer.
    Nobody,
}

impl InCharge {
    /// Of everything where the server is alone, else of nothing yet.
    #[must_use]
    pub fn new(alone: bool) -> Self {
        Self {
            state: Mutex::new(State {
                alone,
                of: BTreeMap::new(),
                said_at: None,
                until: None,
                own: None,
                succeeds: None,
                clocks_differed: None,
                strangers_polled: None,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no other server shares the store.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.state().alone
    }

    /// That server is dead, and its workers are this one's.
    pub fn succeed(&self, server: String) {
        self.state().succeeds = Some(server);
    }

    /// In which term this server is in charge of an endpoint, if it is.
    #[must_use]
    pub fn term(&self, endpoint: &EndpointId) -> Option<u64> {
        let state = self.state();
        if state.alone {
            return Some(0);
        }
        if state.until.is_none_or(|until| Instant::now() >= until) {
            return None;
        }
        match state.of.get(endpoint)?.holder {
            Holder::Here { term } => Some(term),
            Holder::There(_) | Holder::Nobody => None,
        }
    }

    /// For how long the store has taken nothing that this server said, where that is too long for it to be
    /// in charge of anything. To say so is to write, so others who write would have to wait as well.
    #[must_use]
    pub fn unheard_for(&self) -> Option<Duration> {
        let state = self.state();
        let over = state.until.is_some_and(|until| Instant::now() >= until);
        state.said_at.filter(|_| over).map(|at| at.elapsed())
    }

    /// Who starts the endpoint's workers.
    #[must_use]
    pub fn who(&self, endpoint: &EndpointId) -> Who {
        if self.term(endpoint).is_some() {
            return Who::Here;
        }
        let state = self.state();
        match state.of.get(endpoint).map(|charge| &charge.holder) {
            Some(Holder::There(peer)) => Who::There(peer.clone()),
            Some(Holder::Here { .. } | Holder::Nobody) | None => Who::Nobody,
        }
    }

    /// Workers of the endpoint that other servers run.
    #[must_use]
    pub fn elsewhere(&self, endpoint: &EndpointId) -> Vec<Elsewhere> {
        let state = self.state();
        let charge = state.of.get(endpoint);
        charge.map_or_else(Vec::new, |charge| charge.elsewhere.clone())
    }

    /// Notes the database's time, which was between two times of this machine. Gives by how many
    /// milliseconds this machine is ahead (or behind, below zero), where that is too much and not said
    /// lately.
    fn compare_clocks(&self, before: Timestamp, at: Timestamp, after: Timestamp) -> Option<i64> {
        let ahead_ms = (before.as_ms() - at.as_ms()).max(0) + (after.as_ms() - at.as_ms()).min(0);
        let mut state = self.state();
        if ahead_ms.abs() < CLOCKS_DIFFER_MS || was_said_lately(state.clocks_differed) {
            return None;
        }
        state.clocks_differed = Some(Instant::now());
        Some(ahead_ms)
    }

    /// Which other server started a worker that polls here, where that was not said lately.
    pub fn stranger(&self, endpoint: &EndpointId, worker: &WorkerId) -> Option<Peer> {
        let mut state = self.state();
        if was_said_lately(state.strangers_polled) {
            return None;
        }
        let charge = state.of.get(endpoint)?;
        let found = charge.elsewhere.iter().find(|it| it.worker == *worker)?;
        let server = found.server.clone();
        state.strangers_polled = Some(Instant::now());
        Some(server)
    }

    /// The store says that this server is not in charge of the endpoint.
    fn refused(&self, endpoint: &EndpointId) {
        if let Some(charge) = self.state().of.get_mut(endpoint) {
            charge.holder = Holder::Nobody;
        }
    }

    /// The endpoints that came with an answer.
    fn gained(&self, shared: &Shared) -> BTreeSet<EndpointId> {
        let state = self.state();
        let here = |charge: &Charge| matches!(charge.holder, Holder::Here { .. });
        let is_new = |(endpoint, charge): &(&EndpointId, &Charge)| {
            let before = state.of.get(*endpoint);
            here(charge) && before.is_none_or(|it| it.holder != charge.holder)
        };
        let gained = shared.of.iter().filter(is_new);
        gained.map(|(endpoint, _)| endpoint.clone()).collect()
    }

    /// True when it is another state of things than before.
    fn put(&self, shared: Shared, said_at: Instant, until: Instant) -> bool {
        let mut state = self.state();
        let lapsed = state.until.is_none_or(|until| Instant::now() >= until);
        let changed = lapsed || state.of != shared.of;
        for (endpoint, charge) in &shared.of {
            let before = state.of.get(endpoint).map(|it| &it.holder);
            if before != Some(&charge.holder) {
                match &charge.holder {
                    Holder::Here { term } => {
                        tracing::info!(endpoint.id = %endpoint, term, "in charge of an endpoint");
                    }
                    Holder::There(peer) => {
                        let (server, machine) = (&peer.name, &peer.machine);
                        tracing::info!(
                            endpoint.id = %endpoint, %server, %machine, "another server is in charge"
                        );
                    }
                    Holder::Nobody => {}
                }
            }
        }
        state.of = shared.of;
        state.own = Some(shared.own);
        (state.said_at, state.until) = (Some(said_at), Some(until));
        state.succeeds = None;
        changed
    }
}

/// Says that this server is there, at once or with the next look at the store, and hears what it is in
/// charge of. Gives the time until it has to say so again; `None` where nobody needs to know.
///
/// # Errors
/// When the store cannot answer. What was believed before holds until its end.
pub async fn renew(app: &App, at_once: bool) -> Result<Option<Duration>, StoreError> {
    if app.charge.is_alone() {
        return Ok(None);
    }
    let bid = bid(app, at_once);
    // Before it is sent: the answer may have been on its way for long.
    let (asked_at, before) = (Instant::now(), app.now());
    let shared = match app.store.charge(bid).await? {
        Charges::Alone => {
            app.charge.state().alone = true;
            return Ok(None);
        }
        Charges::Shared(shared) => shared,
    };
    if let Some(ahead_ms) = app.charge.compare_clocks(before, shared.at, app.now()) {
        tracing::warn!(
            ahead_ms,
            "this machine's clock differs from the database's: leases and deadlines of jobs that go over \
             several servers are wrong by as much; let NTP set both"
        );
    }
    // What its workers run is known before the first is started, or looked at.
    let gained = app.charge.gained(&shared);
    release::settle_those(app, |endpoint| gained.contains(endpoint)).await?;
    let until = asked_at + Duration::from_millis(shared.for_ms);
    let again = Duration::from_millis(shared.again_ms);
    let there: BTreeSet<_> = app.fleet.managed().into_iter().collect();
    let differs = shared.own != there;
    if app.charge.put(shared, asked_at, until) || differs {
        app.wakes.scale.notify_one();
    }
    Ok(Some(again))
}

/// A server that is being stopped starts nothing more, and gives everything back at once. It says that it
/// is there for as long as it has workers.
fn bid(app: &App, at_once: bool) -> Bid {
    let all = app.endpoints.all();
    let managed = all.iter().filter(|(_, settings)| settings.run.is_some());
    Bid {
        endpoints: match app.is_closing() {
            true => Vec::new(),
            false => managed.map(|(endpoint, _)| endpoint.clone()).collect(),
        },
        machine: machine(),
        url: app.public_url.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        abandoned_ms: app.config.abandoned_ms,
        succeeds: app.charge.state().succeeds.clone(),
        at_once,
    }
}

/// The name of this computer.
fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Notes a worker that is about to be started; false when it must not be.
///
/// # Errors
/// When the store cannot answer.
pub async fn enlist(
    app: &App,
    endpoint: &EndpointId,
    worker: &WorkerId,
    term: u64,
) -> Result<bool, StoreError> {
    let enlisted = app.store.enlist(endpoint, worker, Some(term)).await?;
    if !enlisted {
        tracing::warn!(endpoint.id = %endpoint, term, "not in charge of an endpoint any more");
        app.charge.refused(endpoint);
        app.wakes.charge.notify_one();
    }
    Ok(enlisted)
}

/// Forgets a worker that has ended. When the store cannot do it now, [`compare`] does.
pub async fn unlist(app: &App, endpoint: &EndpointId, worker: &WorkerId) {
    if let Err(e) = app.store.unlist(endpoint, worker).await {
        tracing::debug!(worker.id = %worker, error = %e, "its end is told to other servers later");
    }
}

/// Compares the workers that other servers know of with those that there are.
pub async fn compare(app: &App) {
    let Some(noted) = app.charge.state().own.take() else {
        return;
    };
    let there: BTreeSet<_> = app.fleet.managed().into_iter().collect();
    for (endpoint, worker) in noted.difference(&there) {
        unlist(app, endpoint, worker).await;
    }
    for (endpoint, worker) in there.difference(&noted) {
        if let Err(e) = app.store.enlist(endpoint, worker, None).await {
            tracing::debug!(worker.id = %worker, error = %e, "told to other servers later");
        }
    }
}

/// This server ends. Of its workers only those are still known that are not gone.
///
/// # Errors
/// When the store cannot answer: others find out by themselves.
pub async fn leave(app: &App) -> Result<(), StoreError> {
    if renew(app, true).await?.is_none() {
        return Ok(());
    }
    compare(app).await;
    app.store.leave().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: i64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    #[test]
    fn a_worker_of_another_server_is_told_once_in_a_while() {
        let charge = InCharge::new(false);
        let (endpoint, worker): (EndpointId, WorkerId) =
            ("a".parse().unwrap(), "w".parse().unwrap());
        assert_eq!(charge.stranger(&endpoint, &worker), None);
        let server = Peer {
            name: "other".to_owned(),
            machine: "machine".to_owned(),
            url: "http://10.0.0.1:8000".to_owned(),
        };
        let elsewhere = vec![Elsewhere {
            worker: worker.clone(),
            server: server.clone(),
            since: ms(0),
        }];
        let of = Charge {
            holder: Holder::Nobody,
            elsewhere,
        };
        charge.state().of.insert(endpoint.clone(), of);
        assert_eq!(charge.stranger(&endpoint, &"v".parse().unwrap()), None);
        assert_eq!(charge.stranger(&endpoint, &worker), Some(server));
        assert_eq!(charge.stranger(&endpoint, &worker), None);
    }

    #[test]
    fn clocks_that_differ_are_said_once_in_a_while() {
        let charge = InCharge::new(false);
        let compare = |before, at, after| charge.compare_clocks(ms(before), ms(at), ms(after));
        // However long the answer took, the database's time is between.
        assert_eq!(compare(10_000, 10_000, 70_000), None);
        assert_eq!(compare(10_000, 11_999, 10_000), None);
        assert_eq!(compare(10_000, 13_000, 10_500), Some(-2_500));
        assert_eq!(compare(10_000, 13_000, 10_500), None);
        let other = InCharge::new(false);
        assert_eq!(
            other.compare_clocks(ms(10_000), ms(7_000), ms(10_500)),
            Some(3_000)
        );
    }
}
