//! Where a webhook goes: a URL, and whether it is one that may be called.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use lazyfox_core::limits;
use lazyfox_core::reach::{AllowList, Refusal};
use url::{Host, Url};

/// What the operator says of where webhooks may go.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Hosts and networks that may be called though they are not public.
    pub allow: AllowList,
    /// Ports of other protocols, where a POST would be taken for something else.
    pub odd_ports: Vec<u16>,
}

/// A URL that may be called, as far as that can be told before its name is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    url: Url,
    host: String,
}

/// Why a URL cannot be a webhook, as the end of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadTarget {
    /// No URL, or not of http.
    NotHttp,
    /// Longer than any that is accepted, by so many bytes.
    TooLong(usize),
    /// With a user name or a password.
    Userinfo,
    /// A port where other protocols are spoken.
    OddPort(u16),
    /// An address that is not public.
    Address(IpAddr, Refusal),
    /// A name of this machine.
    ThisMachine(String),
}

impl fmt::Display for BadTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHttp => write!(f, "it should be an http or https URL in a string"),
            Self::TooLong(bytes) => {
                write!(
                    f,
                    "{bytes} bytes long, allowed are {}",
                    limits::WEBHOOK_BYTES
                )
            }
            Self::Userinfo => write!(f, "it should not hold a user name or password"),
            Self::OddPort(port) => write!(
                f,
                "port {port} is for another protocol; server.webhook_odd_ports lists those"
            ),
            Self::Address(address, refusal) => write!(
                f,
                "{address} is {refusal}; server.webhook_allow can make an exception"
            ),
            Self::ThisMachine(name) => write!(
                f,
                "{name} is this machine; server.webhook_allow can make an exception"
            ),
        }
    }
}

impl std::error::Error for BadTarget {}

impl Target {
    /// Reads a URL. Addresses in any spelling that URLs have (decimal, octal, hexadecimal, mixed) are
    /// judged here; names when they are looked up.
    ///
    /// # Errors
    /// Says why it cannot be a webhook.
    pub fn parse(text: &str, rules: &Rules) -> Result<Self, BadTarget> {
        if text.len() > limits::WEBHOOK_BYTES {
            return Err(BadTarget::TooLong(text.len()));
        }
        let url: Url = text.parse().map_err(|_| BadTarget::NotHttp)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(BadTarget::NotHttp);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadTarget::Userinfo);
        }
        let port = url.port_or_known_default().ok_or(BadTarget::NotHttp)?;
        if rules.odd_ports.contains(&port) {
            return Err(BadTarget::OddPort(port));
        }
        let name = match url.host().ok_or(BadTarget::NotHttp)? {
            Host::Ipv4(address) => judged(&rules.allow, address.into())?,
            Host::Ipv6(address) => judged(&rules.allow, address.into())?,
            Host::Domain(name) => domain(&rules.allow, name)?,
        };
        let host = format!("{name}:{port}");
        Ok(Self { url, host })
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Name or address with the port, in one spelling.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
}

fn judged(allow: &AllowList, address: IpAddr) -> Result<String, BadTarget> {
    let refused = |refusal| BadTarget::Address(address, refusal);
    allow.permits("", address).map_err(refused)?;
    Ok(match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    })
}

fn domain(allow: &AllowList, name: &str) -> Result<String, BadTarget> {
    // URLs have their names in lower case already.
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_local = name == "localhost" || name.ends_with(".localhost");
    if is_local && allow.permits(name, Ipv4Addr::LOCALHOST.into()).is_err() {
        return Err(BadTarget::ThisMachine(name.to_owned()));
    }
    Ok(name.to_owned())
}

/// The URL without its query, in which receivers often have a token: for lists and logs.
#[must_use]
pub fn shown(url: &str) -> String {
    match url.split_once(['?', '#']) {
        Some((shown, _)) => format!("{shown}?…"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &[&str]) -> Rules {
        Rules {
            allow: AllowList::parse(allow.iter().copied()).unwrap(),
            odd_ports: vec![22, 6379],
        }
    }

    fn refused(url: &str) -> BadTarget {
        Target::parse(url, &rules(&[])).expect_err(url)
    }

    #[test]
    fn every_spelling_of_an_address_is_that_address() {
        let loopback: IpAddr = [127, 0, 0, 1].into();
        for host in [
            "127.0.0.1",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0x7F.1",
            "017700000001",
            "0177.0.0.1",
            "0177.0.0x0.1",
            "127.0.0.1.",
            "%31%32%37.0.0.1",
            "１２７.0.0.1",
            "127。0。0。1",
        ] {
            let BadTarget::Address(address, Refusal::Loopback) =
                refused(&format!("http://{host}/"))
            else {
                panic!("{host} is a loopback address");
            };
            assert_eq!(address, loopback, "{host}");
        }
        for (host, refusal) in [
            ("[::1]", Refusal::Loopback),
            ("[::ffff:127.0.0.1]", Refusal::Loopback),
            ("[::ffff:7f00:1]", Refusal::Loopback),
            ("[64:ff9b::a9fe:a9fe]", Refusal::Metadata),
            ("[2002:a00:1::]", Refusal::Private),
            ("169.254.169.254", Refusal::Metadata),
            ("0xa9fea9fe", Refusal::Metadata),
            ("0", Refusal::Unspecified),
            ("[fe80::1]", Refusal::LinkLocal),
            ("100.64.0.1", Refusal::Shared),
        ] {
            match refused(&format!("https://{host}/hook")) {
                BadTarget::Address(_, found) => assert_eq!(found, refusal, "{host}"),
                other => panic!("{host}: {other:?}"),
            }
        }
    }

    #[test]
    fn names_of_this_machine_need_an_exception() {
        for name in ["localhost", "LOCALHOST", "localhost.", "a.b.localhost"] {
            let url = format!("http://{name}:3000/hook");
            assert!(matches!(refused(&url), BadTarget::ThisMachine(_)), "{name}");
            let target = Target::parse(&url, &rules(&["127.0.0.0/8"])).unwrap();
            assert_eq!(
                target.host(),
                format!("{}:3000", name.to_lowercase().trim_end_matches('.'))
            );
        }
    }

    #[test]
    fn what_is_no_webhook() {
        for url in [
            "",
            "example.org/hook",
            "//example.org",
            "ftp://example.org",
            "file:///etc/passwd",
            "gopher://example.org",
            "http://",
            "http://[::1",
            "javascript:alert(1)",
        ] {
            assert_eq!(refused(url), BadTarget::NotHttp, "{url}");
        }
        for url in [
            "http://a@example.org",
            "http://:b@example.org",
            "https://a:b@127.0.0.1",
        ] {
            assert_eq!(refused(url), BadTarget::Userinfo, "{url}");
        }
        assert_eq!(refused("http://example.org:22/"), BadTarget::OddPort(22));
        let long = format!("https://example.org/{}", "x".repeat(2048));
        assert_eq!(refused(&long), BadTarget::TooLong(2068));
    }

    #[test]
    fn one_host_has_one_spelling() {
        for (url, host) in [
            ("https://Example.ORG/x", "example.org:443"),
            ("http://example.org.:8080/x", "example.org:8080"),
            ("http://1.1.1.1", "1.1.1.1:80"),
            ("http://0x01010101", "1.1.1.1:80"),
            ("http://[2606:4700::1111]", "[2606:4700::1111]:80"),
            ("https://bücher.example", "xn--bcher-kva.example:443"),
        ] {
            assert_eq!(Target::parse(url, &rules(&[])).unwrap().host(), host);
        }
    }

    #[test]
    fn a_query_is_not_shown() {
        assert_eq!(shown("https://h/x?token=t"), "https://h/x?…");
        assert_eq!(shown("https://h/x"), "https://h/x");
    }
}
