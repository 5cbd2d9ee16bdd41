//! What the server is told: `postgresql.conf` and `pg_hba.conf`.

use std::fmt::Write as _;
use std::path::Path;

use super::Options;

/// Lines to put below those that `initdb` wrote; the last one of a name counts.
pub(super) fn settings(options: &Options, port: u16, home: &Path) -> String {
    let home = home.display();
    let mut lines = vec![
        ("listen_addresses", "127.0.0.1".to_owned()),
        ("port", port.to_string()),
        ("unix_socket_directories", home.to_string()),
        ("max_connections", options.max_connections.to_string()),
        ("password_encryption", "scram-sha-256".to_owned()),
    ];
    if !options.durable {
        // What the kernel was given outlives the server, so that a server that is killed loses
        // nothing. Commits are still waited for: `synchronous_commit = off` would lose some.
        lines.push(("fsync", "off".to_owned()));
        lines.push(("full_page_writes", "off".to_owned()));
    }
    if options.tls {
        lines.push(("ssl", "on".to_owned()));
        lines.push(("ssl_cert_file", format!("{home}/server.crt")));
        lines.push(("ssl_key_file", format!("{home}/server.key")));
    }
    let own = lines.iter().map(|(name, value)| (*name, value));
    let given = options.settings.iter();
    let given = given.map(|(name, value)| (name.as_str(), value));

    let mut text = String::new();
    for (name, value) in own.chain(given) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name} = {}", quoted(value));
    }
    text
}

/// Who may connect: all over loopback, and this machine's `psql` by the socket, where nobody else
/// gets to.
pub(super) fn access(options: &Options) -> String {
    let kind = if options.tls { "hostssl" } else { "host" };
    let method = match options.password {
        Some(_) => "scram-sha-256",
        None => "trust",
    };
    format!("local all all trust\n{kind} all all 127.0.0.1/32 {method}\n")
}

/// A string as SQL and the configuration write it.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What may stand in a URL for this text.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
