//! Names are looked up once for each connection, and only addresses that may be called come out: the one
//! that was judged is the one that is connected to.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use lazyfox_core::id::EndpointId;
use lazyfox_core::reach::AllowList;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

/// Addresses of a name, from wherever names are known.
pub type Looked = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Looks names up.
pub trait Lookup: Send + Sync {
    /// All addresses of a name.
    fn addresses(&self, name: &str) -> Looked;
}

tokio::task_local! {
    /// Whose delivery a name is looked up for. Names are looked up where the request is polled first.
    pub(super) static ENDPOINT: EndpointId;
}

/// Lookups by the system at once. Each blocks a thread for as long as the name's servers please, whoever
/// waits for it, and the store's readers need threads too.
const LOOKUPS: usize = 64;
/// How many of them one endpoint may have: names that nobody answers for are easily made.
const LOOKUPS_PER_ENDPOINT: usize = 16;

/// As the system does it.
pub struct SystemLookup {
    room: Arc<Semaphore>,
    endpoints: Mutex<HashMap<EndpointId, Arc<Semaphore>>>,
}

impl Default for SystemLookup {
    fn default() -> Self {
        Self {
            room: Arc::new(Semaphore::new(LOOKUPS)),
            endpoints: Mutex::default(),
        }
    }
}

impl SystemLookup {
    fn room_of(&self, endpoint: EndpointId) -> Arc<Semaphore> {
        let mut endpoints = self
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let made = || Arc::new(Semaphore::new(LOOKUPS_PER_ENDPOINT));
        Arc::clone(endpoints.entry(endpoint).or_insert_with(made))
    }
}

impl Lookup for SystemLookup {
    fn addresses(&self, name: &str) -> Looked {
        let (room, name) = (Arc::clone(&self.room), name.to_owned());
        let own = ENDPOINT.try_with(|endpoint| self.room_of(endpoint.clone()));
        Box::pin(async move {
            let own = match own {
                Ok(own) => Some(own.acquire_owned().await.map_err(io::Error::other)?),
                Err(_) => None,
            };
            let places = (own, room.acquire_owned().await.map_err(io::Error::other)?);
            let look = move || -> io::Result<Vec<IpAddr>> {
                // The places are taken until the system is done, even when nobody waits for it any more.
                let _places = places;
                let found = (name.as_str(), 0).to_socket_addrs()?;
                Ok(found.map(|address| address.ip()).collect())
            };
            let looked = tokio::task::spawn_blocking(look).await;
            looked.map_err(io::Error::other)?
        })
    }
}

/// No address of the name may be called.
#[derive(Debug)]
pub(super) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Gives the sender only addresses that may be called.
pub(super) struct Guard {
    pub(super) lookup: Arc<dyn Lookup>,
    pub(super) allow: AllowList,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let looked = self.lookup.addresses(name.as_str());
        let allow = self.allow.clone();
        Box::pin(async move { Ok(permitted(&allow, name.as_str(), looked.await?)?) })
    }
}

/// One address that may be called is enough: names often have private ones beside public ones.
fn permitted(allow: &AllowList, name: &str, found: Vec<IpAddr>) -> Result<Addrs, Refused> {
    let mut permitted = Vec::new();
    let mut refused = format!("{name} has no address");
    for address in found {
        match allow.permits(name, address) {
            // The port is the sender's to fill in.
            Ok(()) => permitted.push(SocketAddr::new(address, 0)),
            Err(refusal) => {
                refused = format!(
                    "{name} has the address {address}, which is {refusal}; server.webhook_allow can \
                     make an exception"
                );
            }
        }
    }
    if permitted.is_empty() {
        return Err(Refused(refused));
    }
    Ok(Box::new(permitted.into_iter()))
}
