use super::*;

fn list(entries: &[&str]) -> AllowList {
    AllowList::parse(entries.iter().copied()).unwrap()
}

fn check(list: &AllowList, host: &str, address: &str) -> Result<(), Refusal> {
    list.permits(host, address.parse().unwrap())
}

#[test]
fn without_entries_only_public_addresses_are_permitted() {
    let list = AllowList::default();
    assert_eq!(list, self::list(&[]));
    assert_eq!(check(&list, "example.com", "1.1.1.1"), Ok(()));
    assert_eq!(check(&list, "example.com", "2606:4700::1111"), Ok(()));
    for (address, refusal) in [
        ("10.0.0.7", Refusal::Private),
        ("::ffff:10.0.0.7", Refusal::Private),
        ("127.0.0.1", Refusal::Loopback),
        ("fd00::7", Refusal::UniqueLocal),
    ] {
        assert_eq!(check(&list, "localhost", address), Err(refusal));
    }
}

#[test]
fn a_listed_network_is_permitted_under_any_name() {
    let list = list(&["10.1.0.0/16", "fd12::/16", "192.168.0.7"]);
    for address in ["10.1.0.0", "10.1.255.255", "::ffff:10.1.2.3", "fd12::7"] {
        assert_eq!(check(&list, "anything.example", address), Ok(()));
    }
    assert_eq!(check(&list, "192.168.0.7", "192.168.0.7"), Ok(()));
    for address in ["10.2.0.0", "192.168.0.8", "::ffff:10.2.0.0"] {
        let refused = check(&list, "anything.example", address);
        assert_eq!(refused, Err(Refusal::Private));
    }
    // Only what is listed: a translator is another way to the same place.
    let refused = check(&list, "anything.example", "64:ff9b::10.1.2.3");
    assert_eq!(refused, Err(Refusal::Private));
}

#[test]
fn a_listed_name_is_permitted_wherever_it_leads() {
    let list = list(&["hooks.internal", "localhost"]);
    assert_eq!(check(&list, "hooks.internal", "10.0.0.7"), Ok(()));
    assert_eq!(check(&list, "HOOKS.internal.", "fd00::7"), Ok(()));
    assert_eq!(check(&list, "localhost", "127.0.0.1"), Ok(()));
    let refused = check(&list, "a.hooks.internal", "10.0.0.7");
    assert_eq!(refused, Err(Refusal::Private));
    let refused = check(&list, "127.0.0.1", "127.0.0.1");
    assert_eq!(refused, Err(Refusal::Loopback));
}

#[test]
fn names_are_compared_without_case_and_final_dot() {
    let list = list(&["Hooks.Internal.", "my_service", "10.0.0.7", "*.A.example."]);
    for host in [
        "hooks.internal",
        "HOOKS.INTERNAL",
        "hooks.internal.",
        "my_service",
        "MY_SERVICE.",
        "b.a.example",
        "B.A.EXAMPLE.",
    ] {
        assert!(list.names(host), "{host}");
    }
    for host in [
        "",
        ".",
        "hooks",
        "internal",
        "hooks.internal..",
        ".hooks.internal",
        "xhooks.internal",
        "hooks.internal.example",
        "10.0.0.7",
    ] {
        assert!(!list.names(host), "{host}");
    }
}

#[test]
fn a_star_stands_for_the_names_below_and_not_for_the_name() {
    let list = list(&["*.corp.example", "*.internal"]);
    for host in ["a.corp.example", "b.a.corp.example", "hooks.internal"] {
        assert!(list.names(host), "{host}");
    }
    for host in [
        "corp.example",
        ".corp.example",
        "..corp.example",
        "*.corp.example",
        "evilcorp.example",
        "a.corp.example.org",
        "internal",
    ] {
        assert!(!list.names(host), "{host}");
    }
}

#[test]
fn entries_that_say_nothing() {
    let label = "a".repeat(LABEL_BYTES_MAX);
    let long_label = format!("{label}a.example");
    let long_name = format!("{label}.{label}.{label}.{label}");
    for entry in [
        "",
        ".",
        "..",
        "*",
        "*.",
        "*..",
        "**.example",
        "*.*.example",
        "a.*.example",
        "*example",
        "a..example",
        ".example",
        "a b",
        " hooks.internal",
        "hooks.internal\n",
        "http://x",
        "hooks.internal:8080",
        "hooks.internal/path",
        "user@hooks.internal",
        "[::1]",
        "fe80::1%eth0",
        "10.0.0/8",
        "10.0.0.*",
        "*.10.0.0.0/8",
        "bücher.example",
        "１２７.0.0.1",
        &long_label,
        &long_name,
    ] {
        let refused = AllowList::parse([entry]).unwrap_err();
        assert_eq!((&*refused.entry, refused.fault), (entry, Fault::Form));
    }
    let longest_name = &long_name[..NAME_BYTES_MAX];
    assert!(list(&[longest_name]).names(longest_name));
}

#[test]
fn an_address_in_an_odd_form_is_not_a_name() {
    for entry in [
        "0177.0.0.1",
        "2130706433",
        "0x7f000001",
        "0X7F.1",
        "0x",
        "127.1",
        "127.0.0.1.",
        "127.0.0.256",
        "1.2.3.4.5",
        "hooks.8",
        "*.0.0.1",
    ] {
        let refused = AllowList::parse([entry]).unwrap_err();
        assert_eq!((&*refused.entry, refused.fault), (entry, Fault::Number));
    }
    for entry in ["8.hooks", "7f", "x7f", "0x7g", "1.1.1.1a", "xn--p1ai"] {
        assert!(list(&[entry]).names(entry), "{entry}");
    }
}

#[test]
fn what_is_wrong_with_an_entry_is_said_with_what_is_allowed() {
    for (entry, said) in [
        (
            "10.0.0.0/33",
            r#""10.0.0.0/33" must have a prefix length from 0 to 32"#,
        ),
        (
            "10.0.0.1/8",
            r#""10.0.0.1/8" has bits set after the prefix: write 10.0.0.0/8"#,
        ),
        (
            "0177.0.0.1",
            "\"0177.0.0.1\" looks like an IPv4 address: write four decimal numbers without \
             leading zeros",
        ),
        (
            "a\nb",
            "\"a\\nb\" must be a network (10.0.0.0/8), an address, a host name (hooks.internal) \
             or the names below one (*.corp.example), without scheme, port or path and in ASCII \
             (xn--...)",
        ),
    ] {
        let refused = AllowList::parse(["localhost", entry, ""]).unwrap_err();
        assert_eq!(refused.to_string(), said);
    }
}
