//! A network in CIDR notation: an address, and how many of its leading bits count.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Leading bits of the IPv4-mapped form that come before the IPv4 address.
const MAPPED_BITS: u8 = 96;

/// A network such as `10.0.0.0/8` or `fd00::/8`; a bare address is the network of that address.
///
/// An IPv4-mapped address (`::ffff:10.0.0.7`) is the IPv4 address in it, here as on the wire. It is
/// in networks of IPv4 alone, not even in `::/0`, and a network written in this form is one of
/// IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its first address: all bits after the prefix are 0.
    first: IpAddr,
    /// At most the width of `first`.
    prefix: u8,
}

/// Why a text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadNetwork {
    /// What stands before the slash is no address.
    Address,
    /// What stands after the slash is no number, or a larger one.
    Prefix {
        /// The longest prefix that addresses of this kind have.
        max: u8,
    },
    /// Bits after the prefix are set, so that either could be wrong. This is the network without
    /// them.
    HostBits(Network),
}

impl Network {
    /// Whether this address lies in the network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let common = match (self.first, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                (ours.to_bits() ^ theirs.to_bits()).leading_zeros()
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                (ours.to_bits() ^ theirs.to_bits()).leading_zeros()
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        common >= u32::from(self.prefix)
    }

    /// The network of this prefix that the address lies in.
    fn around(address: IpAddr, prefix: u8) -> Self {
        let kept = u32::from(prefix);
        // A shift by the whole width has no result, and a prefix of 0 keeps no bit.
        let first = match address {
            IpAddr::V4(it) => {
                let mask = u32::MAX.checked_shl(Ipv4Addr::BITS - kept).unwrap_or(0);
                Ipv4Addr::from_bits(it.to_bits() & mask).into()
            }
            IpAddr::V6(it) => {
                let mask = u128::MAX.checked_shl(Ipv6Addr::BITS - kept).unwrap_or(0);
                Ipv6Addr::from_bits(it.to_bits() & mask).into()
            }
        };
        Self { first, prefix }
    }

    /// The network of IPv4 when it is one, in whichever form it was written.
    fn canonical(self) -> Self {
        let inner = self.first.to_canonical();
        match self.prefix.checked_sub(MAPPED_BITS) {
            Some(prefix) if inner != self.first => Self {
                first: inner,
                prefix,
            },
            Some(_) | None => self,
        }
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| BadNetwork::Address)?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(digits) => prefix_of(digits, max).ok_or(BadNetwork::Prefix { max })?,
            None => max,
        };
        let network = Self::around(address, prefix);
        if network.first != address {
            return Err(BadNetwork::HostBits(network));
        }
        Ok(network.canonical())
    }
}

fn prefix_of(digits: &str, max: u8) -> Option<u8> {
    let prefix: u8 = digits.parse().ok()?;
    // One spelling for each: neither `+8` nor `08`, which some read as octal.
    (prefix <= max && prefix.to_string() == digits).then_some(prefix)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl fmt::Display for BadNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => write!(
                f,
                "must be an address, or one with a prefix length such as 10.0.0.0/8"
            ),
            Self::Prefix { max } => write!(f, "must have a prefix length from 0 to {max}"),
            Self::HostBits(network) => {
                write!(f, "has bits set after the prefix: write {network}")
            }
        }
    }
}

impl std::error::Error for BadNetwork {}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap_or_else(|e| panic!("{text} {e}"))
    }

    fn has(text: &str, address: &str) -> bool {
        network(text).contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_has_the_addresses_of_its_prefix() {
        // Just before, first, last, just after.
        for (text, [before, first, last, after]) in [
            (
                "10.0.0.0/8",
                ["9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"],
            ),
            (
                "192.0.2.64/26",
                ["192.0.2.63", "192.0.2.64", "192.0.2.127", "192.0.2.128"],
            ),
            ("10.0.0.7", ["10.0.0.6", "10.0.0.7", "10.0.0.7", "10.0.0.8"]),
            (
                "fd00::/8",
                ["fcff:ffff::", "fd00::", "fdff:ffff::", "fe00::"],
            ),
            (
                "2001:db8::40/122",
                [
                    "2001:db8::3f",
                    "2001:db8::40",
                    "2001:db8::7f",
                    "2001:db8::80",
                ],
            ),
            ("::1", ["::", "::1", "::1", "::2"]),
        ] {
            assert!(has(text, first) && has(text, last), "{text}");
            assert!(!has(text, before) && !has(text, after), "{text}");
        }
    }

    #[test]
    fn a_prefix_of_zero_has_every_address_of_its_kind() {
        assert!(has("0.0.0.0/0", "0.0.0.0") && has("0.0.0.0/0", "255.255.255.255"));
        assert!(has("::/0", "::") && has("::/0", "ffff::ffff"));
        assert!(!has("0.0.0.0/0", "::") && !has("::/0", "10.0.0.7"));
    }

    #[test]
    fn a_mapped_address_is_the_address_in_it() {
        assert!(has("10.0.0.0/8", "::ffff:10.0.0.7"));
        assert!(has("10.0.0.7", "::ffff:10.0.0.7"));
        assert!(!has("10.0.0.0/8", "::ffff:11.0.0.0"));
        assert!(!has("10.0.0.0/8", "::10.0.0.7"));
        assert!(!has("::/0", "::ffff:10.0.0.7"));
        assert_eq!(network("::ffff:10.0.0.0/104"), network("10.0.0.0/8"));
        assert_eq!(network("::ffff:10.0.0.7"), network("10.0.0.7/32"));
        assert_eq!(network("::ffff:0:0/96"), network("0.0.0.0/0"));
    }

    #[test]
    fn networks_print_and_parse_back() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "10.0.0.7/32", "::/0", "fd00::/8"] {
            assert_eq!(network(text).to_string(), text);
        }
        assert_eq!(network("FD00::1").to_string(), "fd00::1/128");
    }

    #[test]
    fn texts_that_are_no_networks() {
        for text in [
            "",
            "/8",
            "10/8",
            "10.0.0/8",
            "10.0.0.0.0/8",
            "010.0.0.0/8",
            "0x0a.0.0.0/8",
            "167772160/8",
            " 10.0.0.0/8",
            "10.0.0.256",
            "10.0.0.7:80",
            "[::1]",
            "fe80::1%eth0",
            "localhost/8",
        ] {
            let parsed = text.parse::<Network>();
            assert_eq!(parsed, Err(BadNetwork::Address), "{text}");
        }
        for prefix in ["", "33", "256", "-1", "+8", "08", "8 ", "8/8", "255.0.0.0"] {
            let parsed = format!("0.0.0.0/{prefix}").parse::<Network>();
            assert_eq!(parsed, Err(BadNetwork::Prefix { max: 32 }), "{prefix}");
        }
        let parsed = "::/129".parse::<Network>();
        assert_eq!(parsed, Err(BadNetwork::Prefix { max: 128 }));
    }

    #[test]
    fn bits_after_the_prefix_are_a_mistake() {
        for (text, meant) in [
            ("10.0.0.1/8", "10.0.0.0/8"),
            ("10.0.0.1/31", "10.0.0.0/31"),
            ("128.0.0.0/0", "0.0.0.0/0"),
            ("fd00::1/8", "fd00::/8"),
            ("::1/127", "::/127"),
            ("::1/0", "::/0"),
        ] {
            let refused = text.parse::<Network>().unwrap_err();
            assert_eq!(refused, BadNetwork::HostBits(network(meant)), "{text}");
            let said = format!("has bits set after the prefix: write {meant}");
            assert_eq!(refused.to_string(), said);
        }
    }
}
