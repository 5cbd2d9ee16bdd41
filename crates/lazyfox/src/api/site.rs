//! Is a call without a key from this machine, or from a web page of somebody else?
//!
//! With `auth = "none"` loopback is the wall, and a browser on this machine stands inside of it: any page
//! it shows may POST to any address. Two headers that a page cannot choose give it away. `Origin` names the
//! page's site. `Host` names the site that the browser believes to talk to, which is not this machine even
//! where its owner lets the name point here (DNS rebinding), after which the page could read answers too.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Uri, header};

use crate::app::App;
use crate::worker_env;

/// Why the call must not be answered, if so. A request without `Host` is from no browser.
pub(super) fn foreign(app: &App, headers: &HeaderMap) -> Option<String> {
    let refused = |header: &str, value: &HeaderValue| {
        format!(
            "{header} is {value:?}, which is not this machine, and without keys only programs on \
             this machine may call; set auth = \"keys\""
        )
    };
    for host in headers.get_all(header::HOST) {
        let authority = Authority::try_from(host.as_bytes()).ok();
        if !authority.is_some_and(|it| is_loopback(it.host()) || is_own(app, it.host())) {
            return Some(refused("Host", host));
        }
    }
    for origin in headers.get_all(header::ORIGIN) {
        let uri = Uri::try_from(origin.as_bytes()).ok();
        if !uri.is_some_and(|it| it.host().is_some_and(is_loopback)) {
            return Some(refused("Origin", origin));
        }
    }
    None
}

fn is_loopback(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || address.parse().is_ok_and(|it: IpAddr| it.is_loopback())
}

/// Whether the operator wrote this name: to listen on, or for workers to call.
fn is_own(app: &App, host: &str) -> bool {
    let listen = app.config.listen.rsplit_once(':').map(|(name, _)| name);
    listen.is_some_and(|name| name.eq_ignore_ascii_case(host))
        || worker_env::server_host(app).eq_ignore_ascii_case(host)
}
