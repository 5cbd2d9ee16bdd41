//! Which addresses a webhook may reach. Its URL is a stranger's word, and the server stands where
//! the stranger does not: beside databases, metadata services and itself.
//!
//! The rule is about addresses, since a name may lead anywhere, and elsewhere a second later. It
//! holds only when the very address that was asked about is the one that is connected to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod allow;
mod network;

pub use self::allow::{AllowList, BadEntry, Fault};
pub use self::network::{BadNetwork, Network};

/// Why an address may not be reached. Displays as what the address is: "a private address".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Where a cloud hands its machines their credentials, to whoever asks from inside.
    Metadata,
    /// `0.0.0.0` or `::`. Linux takes a connection to it for one to this machine.
    Unspecified,
    /// The rest of `0.0.0.0/8`, "this network".
    ThisNetwork,
    /// This machine.
    Loopback,
    /// A private network of IPv4.
    Private,
    /// Between a provider and its customers: carrier-grade NAT, and overlays that borrow its
    /// range.
    Shared,
    /// The machines on the same wire.
    LinkLocal,
    /// Kept by the IETF for protocols of its own. A few of them could be reached, such as relays
    /// found by anycast; none takes webhooks.
    Protocol,
    /// For examples in documents.
    Documentation,
    /// For tests of network equipment.
    Benchmarking,
    /// Relays of 6to4, which are no more.
    Relay,
    /// Many receivers.
    Multicast,
    /// Set aside for a future that did not come.
    Reserved,
    /// All machines on the same wire.
    Broadcast,
    /// An IPv4 address in the last bits of an IPv6 address of zeros, a form given up long ago.
    Ipv4Compatible,
    /// Translated to IPv4 by rules of the local network, so that it may end anywhere.
    LocalNat64,
    /// Whatever is sent there is thrown away.
    Discard,
    /// Tunnelled to a machine behind a NAT.
    Teredo,
    /// A private network of IPv6.
    UniqueLocal,
    /// What unique local addresses replaced; some networks still have them.
    SiteLocal,
    /// IPv6 that is not in use for single machines on the internet.
    NotGlobal,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metadata => "the address of a metadata service",
            Self::Unspecified => "the unspecified address",
            Self::ThisNetwork => "an address of \"this network\"",
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::Shared => "a shared address of carrier-grade NAT",
            Self::LinkLocal => "a link-local address",
            Self::Protocol => "an address for IETF protocols",
            Self::Documentation => "a documentation address",
            Self::Benchmarking => "a benchmarking address",
            Self::Relay => "a 6to4 relay address",
            Self::Multicast => "a multicast address",
            Self::Reserved => "a reserved address",
            Self::Broadcast => "the broadcast address",
            Self::Ipv4Compatible => "an IPv4-compatible address",
            Self::LocalNat64 => "a local NAT64 address",
            Self::Discard => "a discard-only address",
            Self::Teredo => "a Teredo address",
            Self::UniqueLocal => "a unique local address",
            Self::SiteLocal => "a site-local address",
            Self::NotGlobal => "an address outside of global unicast",
        })
    }
}

impl std::error::Error for Refusal {}

/// Says why this address may not be reached; `None` when it is a public one of a single machine.
///
/// An IPv6 address that wraps an IPv4 address is judged by that one. Two wrappings cannot be told
/// from other public addresses: NAT64 with a prefix of the operator's own (RFC 6052), and ISATAP
/// (RFC 5214).
#[must_use]
pub fn refusal(address: IpAddr) -> Option<Refusal> {
    match address {
        IpAddr::V4(address) => refusal_v4(address),
        IpAddr::V6(address) => match wrapped(address) {
            Some(inner) => refusal_v4(inner),
            None => refusal_v6(address),
        },
    }
}

/// The IPv4 address at which packets for this address end.
fn wrapped(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let (high, low) = match address.segments() {
        // IPv4-mapped, ::ffff:0:0/96, RFC 4291: the socket speaks IPv4.
        [0, 0, 0, 0, 0, 0xffff, high, low] => (high, low),
        // NAT64, 64:ff9b::/96, RFC 6052: a translator on the way does.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => (high, low),
        // 6to4, 2002::/16, RFC 3056: the router with that address unwraps it.
        [0x2002, high, low, ..] => (high, low),
        _ => return None,
    };
    Some(Ipv4Addr::from_bits(
        (u32::from(high) << 16) | u32::from(low),
    ))
}

/// IANA's IPv4 special-purpose registry, multicast, and metadata services. What the registry has
/// for anycast that all the internet may use is not refused: AS112 (RFC 7534) and AMT (RFC 7450).
fn refusal_v4(address: Ipv4Addr) -> Option<Refusal> {
    let refusal = match address.octets() {
        // AWS and most others; Alibaba Cloud; Azure, whose service has an address in public space.
        [169, 254, 169, 254] | [100, 100, 100, 200] | [168, 63, 129, 16] => Refusal::Metadata,
        // RFC 1122.
        [0, 0, 0, 0] => Refusal::Unspecified,
        // 0.0.0.0/8, RFC 791.
        [0, ..] => Refusal::ThisNetwork,
        // 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16, RFC 1918.
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Refusal::Private,
        // 100.64.0.0/10, RFC 6598.
        [100, 64..=127, ..] => Refusal::Shared,
        // 127.0.0.0/8, RFC 1122.
        [127, ..] => Refusal::Loopback,
        // 169.254.0.0/16, RFC 3927.
        [169, 254, ..] => Refusal::LinkLocal,
        // 192.0.0.0/24, RFC 6890.
        [192, 0, 0, _] => Refusal::Protocol,
        // 192.0.2.0/24, 198.51.100.0/24 and 203.0.113.0/24, RFC 5737.
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Refusal::Documentation,
        // 192.88.99.0/24, RFC 7526.
        [192, 88, 99, _] => Refusal::Relay,
        // 198.18.0.0/15, RFC 2544.
        [198, 18..=19, ..] => Refusal::Benchmarking,
        // 224.0.0.0/4, RFC 5771.
        [224..=239, ..] => Refusal::Multicast,
        // RFC 919.
        [255, 255, 255, 255] => Refusal::Broadcast,
        // 240.0.0.0/4, RFC 1112.
        [240..=255, ..] => Refusal::Reserved,
        _ => return None,
    };
    Some(refusal)
}

/// IANA's IPv6 special-purpose registry but for what [`wrapped`] knows, metadata services, and all
/// that is not global unicast. AS112 (RFC 7534) is not refused here either.
fn refusal_v6(address: Ipv6Addr) -> Option<Refusal> {
    let refusal = match address.segments() {
        // AWS.
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254] => Refusal::Metadata,
        // RFC 4291.
        [0, 0, 0, 0, 0, 0, 0, 0] => Refusal::Unspecified,
        // RFC 4291.
        [0, 0, 0, 0, 0, 0, 0, 1] => Refusal::Loopback,
        // ::/96, RFC 4291. What it wraps does not matter: nothing unwraps it any more.
        [0, 0, 0, 0, 0, 0, _, _] => Refusal::Ipv4Compatible,
        // 64:ff9b:1::/48, RFC 8215.
        [0x64, 0xff9b, 1, ..] => Refusal::LocalNat64,
        // 100::/64, RFC 6666.
        [0x0100, 0, 0, 0, ..] => Refusal::Discard,
        // 2001::/32, RFC 4380.
        [0x2001, 0, ..] => Refusal::Teredo,
        // 2001:2::/48, RFC 5180.
        [0x2001, 2, 0, ..] => Refusal::Benchmarking,
        // 2001::/23, RFC 2928.
        [0x2001, 0..=0x01ff, ..] => Refusal::Protocol,
        // 2001:db8::/32, RFC 3849, and 3fff::/20, RFC 9637.
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => Refusal::Documentation,
        // fc00::/7, RFC 4193.
        [0xfc00..=0xfdff, ..] => Refusal::UniqueLocal,
        // fe80::/10, RFC 4291.
        [0xfe80..=0xfebf, ..] => Refusal::LinkLocal,
        // fec0::/10, RFC 3879.
        [0xfec0..=0xfeff, ..] => Refusal::SiteLocal,
        // ff00::/8, RFC 4291.
        [0xff00..=0xffff, ..] => Refusal::Multicast,
        // 2000::/3, RFC 4291.
        [0x2000..=0x3fff, ..] => return None,
        // Among others the dummy prefix 100:0:0:1::/64, RFC 9780, and SRv6, 5f00::/16, RFC 9602.
        _ => Refusal::NotGlobal,
    };
    Some(refusal)
}

#[cfg(test)]
mod tests;
