use proptest::prelude::*;

use super::*;

/// All of IPv4 in pieces: where each begins, and what is said of it up to where the next begins.
const PIECES_V4: &[(&str, Option<Refusal>)] = &[
    ("0.0.0.0", Some(Refusal::Unspecified)),
    ("0.0.0.1", Some(Refusal::ThisNetwork)),
    ("1.0.0.0", None),
    ("10.0.0.0", Some(Refusal::Private)),
    ("11.0.0.0", None),
    ("100.64.0.0", Some(Refusal::Shared)),
    ("100.100.100.200", Some(Refusal::Metadata)),
    ("100.100.100.201", Some(Refusal::Shared)),
    ("100.128.0.0", None),
    ("127.0.0.0", Some(Refusal::Loopback)),
    ("128.0.0.0", None),
    ("168.63.129.16", Some(Refusal::Metadata)),
    ("168.63.129.17", None),
    ("169.254.0.0", Some(Refusal::LinkLocal)),
    ("169.254.169.254", Some(Refusal::Metadata)),
    ("169.254.169.255", Some(Refusal::LinkLocal)),
    ("169.255.0.0", None),
    ("172.16.0.0", Some(Refusal::Private)),
    ("172.32.0.0", None),
    ("192.0.0.0", Some(Refusal::Protocol)),
    ("192.0.1.0", None),
    ("192.0.2.0", Some(Refusal::Documentation)),
    ("192.0.3.0", None),
    ("192.88.99.0", Some(Refusal::Relay)),
    ("192.88.100.0", None),
    ("192.168.0.0", Some(Refusal::Private)),
    ("192.169.0.0", None),
    ("198.18.0.0", Some(Refusal::Benchmarking)),
    ("198.20.0.0", None),
    ("198.51.100.0", Some(Refusal::Documentation)),
    ("198.51.101.0", None),
    ("203.0.113.0", Some(Refusal::Documentation)),
    ("203.0.114.0", None),
    ("224.0.0.0", Some(Refusal::Multicast)),
    ("240.0.0.0", Some(Refusal::Reserved)),
    ("255.255.255.255", Some(Refusal::Broadcast)),
];

/// The same for IPv6, but for the pieces that wrap all of IPv4: see [`pieces_v6`].
const PIECES_V6: &[(&str, Option<Refusal>)] = &[
    ("::", Some(Refusal::Unspecified)),
    ("::1", Some(Refusal::Loopback)),
    ("::2", Some(Refusal::Ipv4Compatible)),
    ("::1:0:0", Some(Refusal::NotGlobal)),
    ("::1:0:0:0", Some(Refusal::NotGlobal)),
    ("64:ff9b::1:0:0", Some(Refusal::NotGlobal)),
    ("64:ff9b:1::", Some(Refusal::LocalNat64)),
    ("64:ff9b:2::", Some(Refusal::NotGlobal)),
    ("100::", Some(Refusal::Discard)),
    ("100:0:0:1::", Some(Refusal::NotGlobal)),
    ("2000::", None),
    ("2001::", Some(Refusal::Teredo)),
    ("2001:1::", Some(Refusal::Protocol)),
    ("2001:2::", Some(Refusal::Benchmarking)),
    ("2001:2:1::", Some(Refusal::Protocol)),
    ("2001:200::", None),
    ("2001:db8::", Some(Refusal::Documentation)),
    ("2001:db9::", None),
    ("2003::", None),
    ("3fff::", Some(Refusal::Documentation)),
    ("3fff:1000::", None),
    ("4000::", Some(Refusal::NotGlobal)),
    ("fc00::", Some(Refusal::UniqueLocal)),
    ("fd00:ec2::254", Some(Refusal::Metadata)),
    ("fd00:ec2::255", Some(Refusal::UniqueLocal)),
    ("fe00::", Some(Refusal::NotGlobal)),
    ("fe80::", Some(Refusal::LinkLocal)),
    ("fec0::", Some(Refusal::SiteLocal)),
    ("ff00::", Some(Refusal::Multicast)),
];

type Piece = (u128, Option<Refusal>);

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn of(text: &str) -> Option<Refusal> {
    refusal(text.parse().unwrap())
}

/// The address in each form that wraps it and that something unwraps.
fn wrappings(inner: Ipv4Addr) -> [Ipv6Addr; 3] {
    let bits = u128::from(inner.to_bits());
    let prefix = |text: &str| text.parse::<Ipv6Addr>().unwrap().to_bits();
    [
        prefix("::ffff:0:0") | bits,
        prefix("64:ff9b::") | bits,
        prefix("2002::") | (bits << 80),
    ]
    .map(Ipv6Addr::from_bits)
}

fn pieces_v4() -> Vec<Piece> {
    let pieces = PIECES_V4.iter();
    pieces
        .map(|&(first, refusal)| (v4(first).to_bits().into(), refusal))
        .collect()
}

fn pieces_v6() -> Vec<Piece> {
    let plain = PIECES_V6.iter().map(|&(first, refusal)| {
        let first: Ipv6Addr = first.parse().unwrap();
        (first.to_bits(), refusal)
    });
    let wrapped = PIECES_V4.iter().flat_map(|&(first, refusal)| {
        let forms = wrappings(v4(first)).into_iter();
        forms.map(move |it| (it.to_bits(), refusal))
    });
    let mut pieces: Vec<Piece> = plain.chain(wrapped).collect();
    pieces.sort_by_key(|(first, _)| *first);
    pieces
}

/// Asks for the first and the last address of each piece.
fn check_ends(pieces: &[Piece], last: u128, address: fn(u128) -> IpAddr) {
    let ends = pieces.iter().skip(1).map(|(next, _)| next - 1);
    for (&(first, expected), last) in pieces.iter().zip(ends.chain([last])) {
        assert!(first <= last, "{} is out of order", address(first));
        for address in [first, last].map(address) {
            assert_eq!(refusal(address), expected, "{address}");
        }
    }
}

fn expected(pieces: &[Piece], bits: u128) -> Option<Refusal> {
    let next = pieces.partition_point(|(first, _)| *first <= bits);
    pieces[next - 1].1
}

fn v4_of(bits: u128) -> IpAddr {
    Ipv4Addr::from_bits(u32::try_from(bits).unwrap()).into()
}

fn v6_of(bits: u128) -> IpAddr {
    Ipv6Addr::from_bits(bits).into()
}

#[test]
fn all_of_ipv4_from_end_to_end() {
    check_ends(&pieces_v4(), u32::MAX.into(), v4_of);
}

#[test]
fn all_of_ipv6_from_end_to_end() {
    check_ends(&pieces_v6(), u128::MAX, v6_of);
}

proptest! {
    #[test]
    fn an_address_between_the_ends_is_judged_like_them(v4: u32, v6: u128, global: u128) {
        prop_assert_eq!(refusal(v4_of(v4.into())), expected(&pieces_v4(), v4.into()));
        // Where the pieces are: a random address is in 2000::/3 one time in eight.
        let global = (1 << 125) | (global >> 3);
        for bits in [v6, global] {
            prop_assert_eq!(refusal(v6_of(bits)), expected(&pieces_v6(), bits));
        }
    }

    #[test]
    fn a_wrapped_address_is_judged_by_what_it_wraps(bits: u32) {
        let inner = Ipv4Addr::from_bits(bits);
        for outer in wrappings(inner) {
            prop_assert_eq!(refusal(outer.into()), refusal(inner.into()), "{}", outer);
        }
    }
}

#[test]
fn what_must_never_be_reached_is_refused_in_every_form() {
    let forms = |plain, refusal| {
        let inner = v4(plain);
        let [a, b, c, d] = inner.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let teredo = !inner.to_bits();
        [
            (plain.to_owned(), refusal),
            (format!("::ffff:{plain}"), refusal),
            (format!("::ffff:{high:x}:{low:x}"), refusal),
            (format!("64:ff9b::{plain}"), refusal),
            (format!("2002:{high:x}:{low:x}::"), refusal),
            (format!("2002:{high:x}:{low:x}:1:2:3:4:5"), refusal),
            (format!("::{plain}"), Refusal::Ipv4Compatible),
            (format!("64:ff9b:1::{plain}"), Refusal::LocalNat64),
            (format!("64:ff9b:1:ffff::{plain}"), Refusal::LocalNat64),
            // RFC 7915, and a form of RFC 6052 with the wrong prefix: in no use, and not global.
            (format!("::ffff:0:{plain}"), Refusal::NotGlobal),
            (format!("64:ff9b::1:0:{plain}"), Refusal::NotGlobal),
            // As the server and, with all bits turned over, as the client of a tunnel.
            (format!("2001:0:{high:x}:{low:x}::"), Refusal::Teredo),
            (
                format!("2001::{:x}:{:x}", teredo >> 16, teredo & 0xffff),
                Refusal::Teredo,
            ),
        ]
    };
    for (plain, refusal) in [
        ("127.0.0.1", Refusal::Loopback),
        ("10.0.0.1", Refusal::Private),
        ("169.254.169.254", Refusal::Metadata),
    ] {
        for (form, refusal) in forms(plain, refusal) {
            assert_eq!(of(&form), Some(refusal), "{form}");
        }
    }
}

#[test]
fn metadata_services_are_called_that() {
    for address in [
        "169.254.169.254",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "::ffff:168.63.129.16",
        "64:ff9b::a83f:8110",
        "2002:a83f:8110::1",
    ] {
        assert_eq!(of(address), Some(Refusal::Metadata), "{address}");
    }
}

#[test]
fn public_addresses_may_be_reached() {
    for address in [
        "1.1.1.1",
        "8.8.8.8",
        "93.184.215.14",
        "192.31.196.1",
        "2606:4700::1111",
        "2001:4860:4860::8888",
        "2a00:1450:4001:80b::200e",
        "2620:4f:8000::1",
        "::ffff:1.1.1.1",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ] {
        assert_eq!(of(address), None, "{address}");
    }
}

#[test]
fn a_refusal_says_what_the_address_is() {
    for (address, said) in [
        ("10.0.0.7", "10.0.0.7 is a private address"),
        ("::1", "::1 is a loopback address"),
        (
            "169.254.169.254",
            "169.254.169.254 is the address of a metadata service",
        ),
        (
            "100.64.0.1",
            "100.64.0.1 is a shared address of carrier-grade NAT",
        ),
        ("4000::1", "4000::1 is an address outside of global unicast"),
    ] {
        let refusal = of(address).unwrap();
        assert_eq!(format!("{address} is {refusal}"), said);
    }
}
