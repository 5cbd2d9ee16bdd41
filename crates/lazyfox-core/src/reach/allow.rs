//! What an operator lets webhooks reach beyond the public internet.

use std::fmt;
use std::net::IpAddr;

use super::network::{BadNetwork, Network};
use super::{Refusal, refusal};

/// Longest host name and longest part of one between dots, in bytes: RFC 1035.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// The operator's exceptions: networks, names, and all names below a name.
///
/// Whoever answers for a listed name in the DNS chooses where its webhooks go, metadata services
/// included: to list a name is to trust them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    networks: Vec<Network>,
    /// Canonical, see [`canonical`].
    hosts: Vec<String>,
    /// Canonical and with the dot in front of them, so that `evilcorp.example` is not below
    /// `corp.example`.
    parents: Vec<String>,
}

/// An entry that does not say what to allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadEntry {
    /// As it was written.
    pub entry: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It begins with an address and is no network.
    Network(BadNetwork),
    /// It is a number, or ends in one, as addresses do and names do not. URLs allow `0177.0.0.1`
    /// and `2130706433` for 127.0.0.1 and turn them into that, so that as names they would never
    /// be met.
    Number,
    /// It has none of the forms.
    Form,
}

impl AllowList {
    /// Reads the entries: networks (`10.0.0.0/8`, `fd00::/8`), addresses, host names
    /// (`hooks.internal`) and the names below one (`*.corp.example`, without `corp.example`).
    ///
    /// # Errors
    /// The first entry that is none of these.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, BadEntry> {
        let mut list = Self::default();
        for entry in entries {
            list.add(entry).map_err(|fault| BadEntry {
                entry: entry.to_owned(),
                fault,
            })?;
        }
        Ok(list)
    }

    fn add(&mut self, entry: &str) -> Result<(), Fault> {
        match entry.parse() {
            Ok(network) => self.networks.push(network),
            Err(BadNetwork::Address) => match entry.strip_prefix("*.") {
                Some(parent) => self.parents.push(format!(".{}", canonical(parent)?)),
                None => self.hosts.push(canonical(entry)?),
            },
            Err(bad @ (BadNetwork::Prefix { .. } | BadNetwork::HostBits(_))) => {
                return Err(Fault::Network(bad));
            }
        }
        Ok(())
    }

    /// Whether this host is on the list by name, be it below a name. An address never is.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        let Ok(host) = canonical(host) else {
            return false;
        };
        // A name has no empty part, so that what ends in a dot and a parent has a part before it.
        self.hosts.contains(&host) || self.parents.iter().any(|it| host.ends_with(it))
    }

    /// Decides whether a webhook for this host may be sent to this address of it.
    ///
    /// # Errors
    /// Why not, when the address is not public and neither host nor address is on the list.
    pub fn permits(&self, host: &str, address: IpAddr) -> Result<(), Refusal> {
        let is_listed = || self.networks.iter().any(|it| it.contains(address));
        match refusal(address) {
            Some(refusal) if !is_listed() && !self.names(host) => Err(refusal),
            Some(_) | None => Ok(()),
        }
    }
}

/// The one spelling of a name: lower case, without the dot that may end it.
fn canonical(name: &str) -> Result<String, Fault> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() > NAME_BYTES_MAX || !name.split('.').all(is_label) {
        return Err(Fault::Form);
    }
    let name = name.to_ascii_lowercase();
    if name.rsplit('.').next().is_some_and(is_number) {
        return Err(Fault::Number);
    }
    Ok(name)
}

/// Whether a URL whose host ends in this part means an IPv4 address: the rule of the URL standard.
fn is_number(label: &str) -> bool {
    match label.strip_prefix("0x") {
        Some(hex) => hex.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(bad) => bad.fmt(f),
            Self::Number => write!(
                f,
                "looks like an IPv4 address: write four decimal numbers without leading zeros"
            ),
            Self::Form => write!(
                f,
                "must be a network (10.0.0.0/8), an address, a host name (hooks.internal) or the \
                 names below one (*.corp.example), without scheme, port or path and in ASCII \
                 (xn--...)"
            ),
        }
    }
}

impl fmt::Display for BadEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Quoted and escaped, so that a blank or a line end in it shows.
        write!(f, "{:?} {}", self.entry, self.fault)
    }
}

impl std::error::Error for BadEntry {}

#[cfg(test)]
mod tests;
