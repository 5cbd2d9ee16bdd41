//! Who starts the workers of an endpoint, where several servers share a store.

use std::collections::{BTreeMap, BTreeSet};

use lazyfox_core::id::{EndpointId, WorkerId};
use lazyfox_core::time::Timestamp;

/// A server says that it is there, and asks to be in charge of endpoints. What it does not ask for any more
/// it gives back.
#[derive(Clone, Debug)]
pub struct Bid {
    /// Those whose workers it could start.
    pub endpoints: Vec<EndpointId>,
    /// The name of the computer that it runs on.
    pub machine: String,
    /// Where it is reached.
    pub url: String,
    /// The release of the program.
    pub version: String,
    /// How long its workers go on without it at most; 0 is for ever.
    pub abandoned_ms: u64,
    /// A server that is known to be dead and whose workers are this server's now: what it was in charge of
    /// comes over at once.
    pub succeeds: Option<String>,
    /// Whether it must not wait for the next occasion, which is within a second.
    pub at_once: bool,
}

/// What a server is in charge of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Charges {
    /// Of everything, for ever: no other server shares the store.
    Alone,
    /// Of its share.
    Shared(Shared),
}

/// What there is to know for one of several servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// Each endpoint that was asked for.
    pub of: BTreeMap<EndpointId, Charge>,
    /// This server's workers, as they are noted.
    pub own: BTreeSet<(EndpointId, WorkerId)>,
    /// The time by the clock that all share, when this was so.
    pub at: Timestamp,
    /// How long it may act on this, from the moment before it asked.
    pub for_ms: u64,
    /// After how long it is to ask again.
    pub again_ms: u64,
}

/// One endpoint's workers as the servers share them out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Who starts them.
    pub holder: Holder,
    /// Workers of other servers that may run.
    pub elsewhere: Vec<Elsewhere>,
}

/// Who is in charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The one that asks. The term goes up whenever the charge passes on.
    Here {
        /// Which term.
        term: u64,
    },
    /// Another one.
    There(Peer),
    /// Nobody at the moment.
    Nobody,
}

/// Another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// The name of the computer that it runs on.
    pub machine: String,
    /// Where it is reached.
    pub url: String,
}

/// A worker of another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Which.
    pub worker: WorkerId,
    /// Who started it.
    pub server: Peer,
    /// Since when it is noted.
    pub since: Timestamp,
}
