//! Which deliveries go out next: bounds in all, for each host and for each endpoint, fair among endpoints
//! and among the hosts of each, and a breaker for each endpoint and host.

mod breaker;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

use self::breaker::{Breakers, Route};
use crate::id::EndpointId;
use crate::time::Timestamp;

/// How much may be under way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Deliveries in all.
    pub in_all: usize,
    /// Deliveries to one host.
    pub per_host: usize,
    /// Bytes in all. What is larger than half of that counts as half.
    pub bytes: u64,
}

impl Bounds {
    /// An endpoint never has all places, however many hosts it knows: some are kept for the others.
    const fn per_endpoint(&self) -> usize {
        let kept = self.in_all / 4;
        if kept == 0 {
            self.in_all
        } else {
            self.in_all - kept
        }
    }

    /// Nor has it all bytes.
    const fn bytes_per_endpoint(&self) -> u64 {
        self.bytes - self.bytes / 4
    }

    /// Nor has a host: a slow one would keep large bodies in memory that others wait for.
    const fn bytes_per_host(&self) -> u64 {
        self.bytes / 2
    }
}

/// How a try ended, as far as its host is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The host answered, whatever it said.
    Answered,
    /// It did not.
    Missed,
    /// Nothing was sent, so nothing is known.
    None,
}

/// What a try changed about its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It is left alone from now on, but for single tries.
    GivenUp,
    /// It answers again.
    Back,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    deliveries: usize,
    bytes: u64,
}

#[derive(Clone, Debug)]
struct UnderWay {
    endpoint: EndpointId,
    host: Arc<str>,
    bytes: u64,
}

/// What is under way, and which hosts do not answer.
#[derive(Clone, Debug)]
pub struct Traffic {
    bounds: Bounds,
    under_way: BTreeMap<u64, UnderWay>,
    in_all: Load,
    hosts: BTreeMap<Arc<str>, Load>,
    endpoints: BTreeMap<EndpointId, Load>,
    routes: BTreeMap<Route, usize>,
    breakers: Breakers,
    /// Whether nothing more goes out.
    closed: bool,
}

/// Deliveries of one endpoint to one host that are due.
#[derive(Clone, Debug)]
pub struct Lane<I> {
    /// Whose.
    pub endpoint: EndpointId,
    /// Where to.
    pub host: Arc<str>,
    /// When the first of them was due.
    pub due_since: Timestamp,
    /// The oldest first, those under way among them.
    pub deliveries: I,
}

/// A delivery in its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its number.
    pub delivery: u64,
    /// Its size.
    pub bytes: u64,
    /// Since when it is due.
    pub due_at: Timestamp,
}

/// A delivery that goes out now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its number.
    pub delivery: u64,
    /// Whose it is.
    pub endpoint: EndpointId,
    /// Where it goes.
    pub host: Arc<str>,
    /// Its size.
    pub bytes: u64,
    /// Since when it is due.
    pub due_at: Timestamp,
}

impl Traffic {
    /// Nothing under way, no host suspected.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            under_way: BTreeMap::new(),
            in_all: Load::default(),
            hosts: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            routes: BTreeMap::new(),
            breakers: Breakers::default(),
            closed: false,
        }
    }

    /// Lets nothing more go out: what is under way may end.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// How many deliveries are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Whether this one is.
    #[must_use]
    pub fn is_under_way(&self, delivery: u64) -> bool {
        self.under_way.contains_key(&delivery)
    }

    /// Since when and until when an endpoint leaves a host alone, if it does.
    #[must_use]
    pub fn left_alone(
        &self,
        endpoint: &EndpointId,
        host: &Arc<str>,
        now: Timestamp,
    ) -> Option<(Timestamp, Timestamp)> {
        let open = self.breakers.open(&route(endpoint, host), now);
        open.filter(|(_, until)| *until > now)
    }

    /// Why an endpoint's deliveries to a host wait, if they do.
    #[must_use]
    pub fn hold(&self, endpoint: &EndpointId, host: &Arc<str>) -> Option<String> {
        let misses = self.breakers.misses_of_open(&route(endpoint, host))?;
        Some(format!(
            "{host} has not answered {misses} tries in a row; single tries find out when it does"
        ))
    }

    /// Notes that a delivery is under way; false when it is already.
    pub fn started(
        &mut self,
        delivery: u64,
        endpoint: &EndpointId,
        host: &Arc<str>,
        bytes: u64,
    ) -> bool {
        if self.is_under_way(delivery) {
            return false;
        }
        let bytes = self.counted(bytes);
        let entry = UnderWay {
            endpoint: endpoint.clone(),
            host: Arc::clone(host),
            bytes,
        };
        self.under_way.insert(delivery, entry);
        let of_host = self.hosts.entry(Arc::clone(host)).or_default();
        let of_endpoint = self.endpoints.entry(endpoint.clone()).or_default();
        for load in [of_host, of_endpoint, &mut self.in_all] {
            load.deliveries += 1;
            load.bytes += bytes;
        }
        *self.routes.entry(route(endpoint, host)).or_default() += 1;
        true
    }

    /// What a delivery of this size counts as. Even the largest must find room some time.
    fn counted(&self, bytes: u64) -> u64 {
        bytes.min(self.bounds.bytes_per_host())
    }

    /// Notes that it is no longer under way, and what its try, begun at `started_at`, says of the host.
    pub fn ended(
        &mut self,
        delivery: u64,
        sign: Sign,
        started_at: Timestamp,
        now: Timestamp,
    ) -> Option<News> {
        let entry = self.under_way.remove(&delivery)?;
        self.in_all.give_back(entry.bytes);
        take_off(&mut self.hosts, &entry.host, entry.bytes);
        take_off(&mut self.endpoints, &entry.endpoint, entry.bytes);
        let route = route(&entry.endpoint, &entry.host);
        if let Some(count) = self.routes.get_mut(&route) {
            *count -= 1;
            if *count == 0 {
                self.routes.remove(&route);
            }
        }
        let was_closed = self.breakers.open(&route, now).is_some();
        match sign {
            Sign::Answered => self.breakers.answered(&route),
            Sign::Missed => self.breakers.missed(&route, started_at, now),
            Sign::None => {}
        }
        let is_closed = self.breakers.open(&route, now).is_some();
        match (was_closed, is_closed) {
            (false, true) => Some(News::GivenUp),
            (true, false) => Some(News::Back),
            (false, false) | (true, true) => None,
        }
    }

    /// How many more deliveries of an endpoint a host may get.
    fn host_room(&self, endpoint: &EndpointId, host: &Arc<str>, now: Timestamp) -> usize {
        let busy = self.hosts.get(host).map_or(0, |load| load.deliveries);
        let room = self.bounds.per_host.saturating_sub(busy);
        let route = route(endpoint, host);
        match self.breakers.open(&route, now) {
            None => room,
            Some((_, until)) if until > now => 0,
            // One goes ahead to see.
            Some(_) if self.routes.contains_key(&route) => 0,
            Some(_) => room.min(1),
        }
    }

    fn fits(&self, endpoint: &EndpointId, host: &Arc<str>, bytes: u64) -> bool {
        let bytes = self.counted(bytes);
        let of_host = self.hosts.get(host).map_or(0, |load| load.bytes);
        let of_endpoint = self.endpoints.get(endpoint).map_or(0, |load| load.bytes);
        of_host + bytes <= self.bounds.bytes_per_host()
            && of_endpoint + bytes <= self.bounds.bytes_per_endpoint()
            && self.in_all.bytes + bytes <= self.bounds.bytes
    }

    fn endpoint_load(&self, endpoint: &EndpointId) -> usize {
        self.endpoints
            .get(endpoint)
            .map_or(0, |load| load.deliveries)
    }

    /// Chooses what goes out now and notes it as under way. The endpoint with the fewest under way is
    /// always next, its hosts take turns, and each host's deliveries go in the order in which they are due.
    pub fn choose<I>(&mut self, lanes: Vec<Lane<I>>, now: Timestamp) -> Vec<Chosen>
    where
        I: Iterator<Item = Waiting>,
    {
        let mut endpoints: BTreeMap<EndpointId, VecDeque<Lane<I>>> = BTreeMap::new();
        for lane in lanes {
            endpoints
                .entry(lane.endpoint.clone())
                .or_default()
                .push_back(lane);
        }
        let mut turns = BinaryHeap::new();
        for (endpoint, lanes) in &mut endpoints {
            // Not by age alone: the hosts whose deliveries are oldest are those that take longest.
            lanes.make_contiguous().sort_by_key(|lane| {
                let load = self.hosts.get(&lane.host);
                (load.map_or(0, |load| load.deliveries), lane.due_since)
            });
            turns.push(Reverse((self.endpoint_load(endpoint), endpoint.clone())));
        }
        let mut chosen = Vec::new();
        while !self.closed
            && self.in_all.deliveries < self.bounds.in_all
            && let Some(Reverse((load, endpoint))) = turns.pop()
        {
            let Some(lanes) = endpoints.get_mut(&endpoint) else {
                continue;
            };
            if load < self.bounds.per_endpoint()
                && let Some(next) = self.next_of(lanes, now)
            {
                chosen.push(next);
                turns.push(Reverse((self.endpoint_load(&endpoint), endpoint)));
            }
        }
        chosen
    }

    /// The next delivery of an endpoint. A lane that can give none is dropped: what it waits for does not
    /// change while this is decided.
    fn next_of<I>(&mut self, lanes: &mut VecDeque<Lane<I>>, now: Timestamp) -> Option<Chosen>
    where
        I: Iterator<Item = Waiting>,
    {
        while let Some(mut lane) = lanes.pop_front() {
            if self.host_room(&lane.endpoint, &lane.host, now) == 0 {
                continue;
            }
            let next = lane
                .deliveries
                .by_ref()
                .find(|waiting| !self.is_under_way(waiting.delivery));
            let Some(next) = next else {
                continue;
            };
            // A large one that finds no room keeps the place of those behind it, or it would never go.
            if !self.fits(&lane.endpoint, &lane.host, next.bytes) {
                continue;
            }
            self.started(next.delivery, &lane.endpoint, &lane.host, next.bytes);
            let chosen = Chosen {
                delivery: next.delivery,
                endpoint: lane.endpoint.clone(),
                host: Arc::clone(&lane.host),
                bytes: next.bytes,
                due_at: next.due_at,
            };
            lanes.push_back(lane);
            return Some(chosen);
        }
        None
    }
}

impl Load {
    fn give_back(&mut self, bytes: u64) {
        self.deliveries -= 1;
        self.bytes -= bytes;
    }
}

fn take_off<K: Ord>(loads: &mut BTreeMap<K, Load>, key: &K, bytes: u64) {
    if let Some(load) = loads.get_mut(key) {
        load.give_back(bytes);
        if load.deliveries == 0 {
            loads.remove(key);
        }
    }
}

fn route(endpoint: &EndpointId, host: &Arc<str>) -> Route {
    (endpoint.clone(), Arc::clone(host))
}

#[cfg(test)]
mod tests;
