//! Who starts the workers of an endpoint, where several servers share a database.

use bytes::Bytes;
use lazyfox_core::id::EndpointId;
use lazyfox_core::time::Timestamp;
use lazyfox_store::{Elsewhere, Peer};

use crate::app::App;
use crate::charge::Who;
use crate::json::Object;

/// Adds it to an answer that is about the workers of this server alone. One that is by itself says nothing.
pub(super) fn add(app: &App, endpoint: &EndpointId, object: &mut Object) {
    let managed = app.endpoint(endpoint).is_some_and(|it| it.run.is_some());
    if managed && !app.charge.is_alone() {
        object.raw("charge", &charge(&app.charge.who(endpoint)));
    }
}

fn charge(who: &Who) -> Bytes {
    let mut object = Object::new();
    object.bool("here", *who == Who::Here);
    if let Who::There(peer) = who {
        server(&mut object, peer);
        object.string("url", &peer.url);
    }
    object.string("text", &text(who));
    object.into_bytes()
}

fn server(object: &mut Object, peer: &Peer) {
    object.string("server", &peer.name);
    object.string("machine", &peer.machine);
}

/// For people.
pub(super) fn text(who: &Who) -> String {
    match who {
        Who::Here => "this server starts the workers of this endpoint".to_owned(),
        Who::There(Peer { name, machine, url }) => format!(
            "another server ({name} on {machine}, {url}) starts the workers of this endpoint"
        ),
        Who::Nobody => {
            "no server is in charge of this endpoint at this moment; one will be within \
                        seconds, if the database answers"
                .to_owned()
        }
    }
}

/// A worker of another server in a list: all that is known of it here.
pub(super) fn elsewhere(it: &Elsewhere, now: Timestamp) -> Bytes {
    let mut object = Object::new();
    object.string("id", it.worker.as_str());
    object.string("status", "ELSEWHERE");
    object.bool("isStale", false);
    object.bool("isExternal", false);
    server(&mut object, &it.server);
    object.number("startedAt", it.since.as_ms());
    object.number("uptimeSeconds", now.ms_since(it.since) / 1000);
    object.into_bytes()
}
